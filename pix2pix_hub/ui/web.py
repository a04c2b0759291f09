"""What stands between the network and Gradio: bounds that Gradio itself does not set."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from gradio.route_utils import FnIndexInferError
from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

FETCHES_FOR_OTHERS = ("/file=http:", "/file=https:", "/proxy=")  # routes that bring web pages to whoever asks
UNUSED = (  # routes of Gradio's that this page does not need
    *("/api/", "/component_server", "/custom_component", "/deep_link", "/dev/", "/process_recording", "/run/"),
    *("/stream/", "/undo-vibe-edit", "/vibe-"),
)
UPLOAD = "/upload"  # the route that takes files; all others take messages
JUNK = (
    FnIndexInferError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
)  # what it makes Gradio raise
NOT_UNDERSTOOD = 'This request is not understood: "Use via API" on the page says what can be asked for.'


class RequestGuard:
    """ASGI middleware: a request's body ends at a limit, nobody browses the web through this server, and junk is
    answered in a line.

    Args:
        app: what it guards.
        max_upload_bytes: that a request with files may send.
        max_message_bytes: that any other may: Gradio keeps what a session sent last in memory.
    """

    def __init__(self, app: ASGIApp, max_upload_bytes: int, max_message_bytes: int) -> None:
        self.app, self.max_upload_bytes, self.max_message_bytes = app, max_upload_bytes, max_message_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if any(route in scope["path"].lower() for route in FETCHES_FOR_OTHERS):
            await _answer(send, 403, "Only files that were uploaded here are served.")
            return
        if scope["path"].partition("/gradio_api")[2].startswith(UNUSED):
            await _answer(send, 404, NOT_UNDERSTOOD)
            return
        if (read := _session_or_event(scope)) is not None:
            queue = scope["app"].get_blocks()._queue
            if not queue.knows(read):
                await _answer(send, 404, NOT_UNDERSTOOD)
                return
            with queue.listening(read):
                await self.app(scope, receive, send)
            return
        most = self.max_upload_bytes if scope["path"].endswith(UPLOAD) else self.max_message_bytes
        if _announced_bytes(scope) > most:
            await _answer(send, 413, _too_large(most))
        else:
            await self._count(scope, receive, send, most)

    async def _count(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        """Pass the request on, and cut it off where it sends more than it may."""
        seen, answered = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
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
                await _answer(send, 413, _too_large(most))
        except ClientDisconnect:
            pass
        except JUNK as error:
            if answered:
                raise
            logger.info("%s %.200r: %.200r", scope["method"], scope["path"], error)
            await _answer(send, 400, NOT_UNDERSTOOD)


def _session_or_event(scope: Scope) -> str | None:
    """Of which session or event a request reads the answers."""
    if scope["method"] != "GET":
        return None
    if scope["path"].endswith("/queue/data"):
        return parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
    route, _, event = scope["path"].rpartition("/")
    return event if "/gradio_api/call/" in route else None


def _too_large(most: int) -> str:
    return f"This sends more than {most / 1e6:g} MB at once; send less."


class _TooLarge(Exception):
    """More was sent than was allowed."""


def _announced_bytes(scope: Scope) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
