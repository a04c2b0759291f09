"""What stands between the network and Gradio: bounds that Gradio itself does not set."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FETCHES_FOR_OTHERS = ("/file=http:", "/file=https:", "/proxy=")  # routes that bring web pages to whoever asks


class RequestGuard:
    """ASGI middleware: a request's body ends at `max_bytes`, and nobody browses the web through this server.

    Args:
        app: what it guards.
        max_bytes: that a request may send.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif any(route in scope["path"].lower() for route in FETCHES_FOR_OTHERS):
            await _answer(send, 403, "Only files that were uploaded here are served.")
        elif _announced_bytes(scope) > self.max_bytes:
            await _answer(send, 413, self._too_large())
        else:
            await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and cut it off where it sends more than it may."""
        seen, answered = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_bytes:
                raise _TooLarge
            return message

        async def noticed(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, counted, noticed)
        except _TooLarge:
            if not answered:
                await _answer(send, 413, self._too_large())

    def _too_large(self) -> str:
        return f"This sends more than {self.max_bytes / 1e6:g} MB at once; send less."


class _TooLarge(Exception):
    """More was sent than was allowed."""


def _announced_bytes(scope: Scope) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
