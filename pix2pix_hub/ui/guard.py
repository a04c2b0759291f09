"""Between a stranger and the work: bounds on requests, a fair queue, only uploads as files, and errors in words.

Components are altered one by one, not by classes of our own: for each of those Gradio would write a stub file beside
this one, wherever it is installed.
"""

from __future__ import annotations

import functools
import html
import logging
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import HTTPException
from gradio.data_classes import FileData, ListFiles
from gradio.processing_utils import save_base64_to_cache
from gradio.queueing import Event, Queue
from gradio.route_utils import FnIndexInferError
from pydantic import model_validator
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from pix2pix_hub.ui.store import VISIT, Visit
from pix2pix_hub.util import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


# --- requests ---

FETCHES_FOR_OTHERS = ("/file=http:", "/file=https:", "/proxy=")  # routes that bring web pages to whoever asks
UNUSED = (  # routes of Gradio's that this page does not need
    *("/api/", "/component_server", "/custom_component", "/deep_link", "/dev/", "/process_recording", "/run/"),
    *("/stream/", "/undo-vibe-edit", "/vibe-"),
)
JUNK = (FnIndexInferError, LookupError, TypeError, ValueError, AttributeError, RecursionError)  # raised by Gradio
NOT_UNDERSTOOD = 'This request is not understood: "Use via API" on the page says what can be asked for.'


class _TooLarge(Exception):
    """More was sent than was allowed."""


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
        elif any(route in scope["path"].lower() for route in FETCHES_FOR_OTHERS):
            await _answer(403, "Only files that were uploaded here are served.")(scope, receive, send)
        elif scope["path"].partition("/gradio_api")[2].startswith(UNUSED):
            await _answer(404, NOT_UNDERSTOOD)(scope, receive, send)
        elif (read := _session_or_event(scope)) is None:
            await self._bounded(scope, receive, send)
        elif (queue := scope["app"].get_blocks()._queue).knows(read):
            with queue.listening(read):
                await self.app(scope, receive, send)
        else:
            await _answer(404, NOT_UNDERSTOOD)(scope, receive, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless it announces more than it may send, and cut it off where it sends more."""
        most = self.max_upload_bytes if scope["path"].endswith("/upload") else self.max_message_bytes
        too_large = _answer(413, f"This sends more than {most / 1e6:g} MB at once; send less.")
        announced, seen, answered = Headers(scope=scope).get("content-length", ""), 0, False
        if announced.isdecimal() and int(announced) > most:
            await too_large(scope, receive, send)
            return

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
                await too_large(scope, receive, send)
        except ClientDisconnect:  # there is nobody to answer
            return
        except JUNK as error:
            if answered:
                raise
            logger.info("%s %.200r: %.200r", scope["method"], scope["path"], error)
            await _answer(400, NOT_UNDERSTOOD)(scope, receive, send)


def _answer(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(text, status, {"connection": "close"})


def _session_or_event(scope: Scope) -> str | None:
    """The session or event whose answers a request reads."""
    if scope["method"] != "GET":
        return None
    if scope["path"].endswith("/queue/data"):
        return QueryParams(scope["query_string"]).get("session_hash", "")
    route, _, event = scope["path"].rpartition("/")
    return event if "/gradio_api/call/" in route else None


# --- the queue ---

PATIENCE, PATIENCE_WHEN_FULL = 30.0, 1.0  # seconds that a request waits for somebody to ask for its answer
HALF_LIFE = 60.0  # seconds after which half of what a client has used is forgotten
SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
MAX_CLIENTS = 1024  # whose use is remembered


class FairQueue(Queue):
    """A queue whose clients, told apart by their address, take turns.

    Behind a proxy the address is the client's own where uvicorn is told to trust it (`FORWARDED_ALLOW_IPS`).

    Args:
        demo: the page.
        max_size: requests that wait, of all clients.
        max_places: of one client's.
    """

    def __init__(self, demo: gr.Blocks, max_size: int, max_places: int) -> None:
        super().__init__(True, demo.max_threads, 1, max_size, demo, default_concurrency_limit=2)
        self.max_places = max_places
        self._listeners: Counter[str] = Counter()  # sessions and events whose answers somebody reads
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client → seconds of computing, at this time

    def knows(self, session_or_event: str) -> bool:
        """Tell whether there are, or may yet be, answers to read for it."""
        sessions = self.pending_event_ids_session
        return session_or_event in self.pending_messages_per_session or any(
            session_or_event in events for events in sessions.values()
        )

    @contextmanager
    def listening(self, session_or_event: str) -> Iterator[None]:
        """The time in which somebody reads the answers of a session or an event."""
        self._listeners[session_or_event] += 1
        try:
            yield
        finally:
            self._listeners -= Counter([session_or_event])

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Let a request wait; as `Queue.push`.

        Raises:
            HTTPException: status 429, the client has as many waiting as it may; 422, a session that is no name.
        """
        if body.session_hash is not None and not SESSION.fullmatch(body.session_hash):
            raise HTTPException(422, "session_hash: expected up to 64 letters and digits.")
        latest = time.monotonic() - (PATIENCE if len(self) < (self.max_size or 0) else PATIENCE_WHEN_FULL)
        for event in self._waiting():
            if event.enqueue_time < latest and not self._is_awaited(event):
                await self.clean_events(session_hash=event.session_hash)
        if sum(_client(event.request) == _client(request) for event in self._waiting()) >= self.max_places:
            raise HTTPException(429, f"{self.max_places} of your requests are waiting already: try again later.")
        return await super().push(body, request, username)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """The next request to answer, if any: of those that are listened to, one of the client that has used least."""
        ready = [
            event
            for queue in self.event_queue_per_concurrency_id.values()
            if queue.concurrency_limit is None or queue.current_concurrency < queue.concurrency_limit
            for event in queue.queue
            if self._is_awaited(event)
        ]
        if not ready:
            return None
        running = Counter(_client(event.request) for job in self.active_jobs for event in job or [])

        turns = [  # the first to come among those of the client that has used least
            (running[client := _client(event.request)], self._seconds(client), event.enqueue_time, number)
            for number, event in enumerate(ready)
        ]
        event = ready[min(turns)[-1]]
        self.event_queue_per_concurrency_id[event.concurrency_id].queue.remove(event)
        return [event], False, event.concurrency_id

    async def process_events(self, events: list[Event], *arguments: Any) -> None:
        """Answer, and remember how long that kept others waiting; as `Queue.process_events`."""
        client, visit = _client(events[0].request), Visit()
        events[0].visit = visit  # type: ignore[attr-defined]
        VISIT.set(visit)  # in this task, and the threads it starts
        try:
            await super().process_events(events, *arguments)
        finally:
            self._used[client] = (self._seconds(client) + visit.seconds, time.monotonic())
            self._used.move_to_end(client)
            while len(self._used) > MAX_CLIENTS:
                self._used.popitem(last=False)

    async def clean_events(self, *, session_hash: str | None = None, event_id: str | None = None) -> None:
        """Forget those who have left, and what is being computed for them; as `Queue.clean_events`."""
        await super().clean_events(session_hash=session_hash, event_id=event_id)
        for event in (event for job in self.active_jobs for event in job or []):
            if not event.alive and hasattr(event, "visit"):
                event.visit.abandoned = True

    def compute_analytics_summary(self, records: Any) -> Any:
        """Compute nothing: Gradio would sum up all requests after each one, for a monitor that is not shown here."""
        return self.cached_event_analytics_summary

    def _waiting(self) -> list[Event]:
        return [event for queue in self.event_queue_per_concurrency_id.values() for event in queue.queue]

    def _is_awaited(self, event: Event) -> bool:
        return bool(self._listeners[event._id] or self._listeners[event.session_hash])

    def _seconds(self, client: str) -> float:
        """Seconds of computing that a client has used lately; older ones count less."""
        seconds, then = self._used.get(client, (0.0, 0.0))
        return seconds * 0.5 ** ((time.monotonic() - then) / HALF_LIFE)


def _client(request: Any) -> str:
    return request.client.host if request.client else ""


# --- events ---

UNEXPECTED = "something went wrong here, which is not your doing; what it was is in the server's log."
UNREADABLE = (
    "what was sent is not what is taken here: send each picture as an uploaded file (gradio_client: handle_file), "
    'and the other values as "Use via API" lists them.'
)
NO_ADDRESSES = "a web address came in place of a picture; send the picture itself (gradio_client: handle_file)."
MAX_SESSIONS = 1024  # whose newest request is remembered


def guard_inputs(demo: gr.Blocks) -> None:
    """Let no event, public or private, see a file that was not uploaded here, and refuse in words what it cannot take.

    Every way to an event (queue, direct calls, MCP) leads through `Blocks.preprocess_data`. Gradio itself checks only
    files whose `meta` says that they are some.
    """
    read, folder = demo.preprocess_data, Path(demo.GRADIO_CACHE)

    async def read_guarded(block_fn: Any, inputs: list[Any], *arguments: Any, **options: Any) -> Any:
        if block_fn.fn is None:  # a click that the browser answers by itself
            raise told(UserError(UNREADABLE))
        try:
            return await read(block_fn, uploads_only(inputs, folder.resolve()), *arguments, **options)
        except UserError as error:
            raise told(error) from error
        except Exception as error:
            if isinstance(error, gr.Error) and not error.print_exception:
                raise
            logger.info("refused: %.200r", error)
            raise told(UserError(UNREADABLE)) from error

    demo.preprocess_data = read_guarded  # type: ignore[method-assign]


def uploads_only(sent: Any, folder: Path) -> Any:
    """The JSON values of a request, with every file, at whatever depth, given by the true path of an upload.

    Args:
        sent: as it came.
        folder: the uploads, without links in its path.

    Raises:
        UserError: something that stands for a file is none of the uploads. Whether it exists is not said.
    """
    if isinstance(sent, list):
        return [uploads_only(value, folder) for value in sent]
    if not isinstance(sent, dict):
        return sent
    if not sent.keys() & {"path", "url"}:
        return {name: uploads_only(value, folder) for name, value in sent.items()}
    place = sent.get("path")
    if str(place).lower().startswith(("http:", "https:")):
        raise UserError(NO_ADDRESSES)
    try:
        path = Path(place or "").resolve(strict=True)
    except (OSError, RuntimeError, TypeError, ValueError):  # missing, a circle of links, no text, a zero byte
        path = folder
    if not (path.is_relative_to(folder) and path.is_file()):
        raise UserError(UNREADABLE)
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def picture_input(**options: Any) -> gr.Image:
    """An image that reaches its event as the path of the file that was uploaded, unopened; or as None.

    Gradio itself would decode it first, at any size. Events may give it a new value; other options, and `gr.skip`, make
    an image of Gradio's own of it.
    """
    image = gr.Image(format="png", **options)
    # the path was found good by `guard_inputs`
    image.preprocess = lambda payload: Path(payload.path) if payload and payload.path else None  # type: ignore
    return image


def picture_files(**options: Any) -> gr.File:
    """Files that reach their event as the paths of what was uploaded, unopened.

    They also come as `data:` URLs, as MCP clients send pictures: in lists Gradio does not make files of them.
    """
    files = gr.File(file_count="multiple", **options)

    class Files(ListFiles):
        @model_validator(mode="before")
        @classmethod
        def store(cls, sent: Any) -> Any:
            stored = list(sent) if isinstance(sent, list) else []
            for number, each in enumerate(stored):
                if isinstance(each, str) and each.startswith("data:"):
                    path = save_base64_to_cache(each, files.GRADIO_CACHE, f"picture_{number + 1}")
                    files.temp_files.add(path)  # of what is deleted in time
                    stored[number] = {"path": path, "meta": {"_type": "gradio.FileData"}}
            return stored if isinstance(sent, list) else sent

    def api_info() -> dict[str, Any]:
        schema = FileData.model_json_schema()
        schema["properties"]["meta"] = schema.pop("$defs")["FileDataMeta"]  # in a tool's schema references lead nowhere
        return {"type": "array", "title": "ListFiles", "items": schema}

    files.data_model, files.api_info = Files, api_info  # type: ignore[method-assign]
    files.preprocess = lambda payload: [Path(file.path) for file in payload.root] if payload else []  # type: ignore
    return files


def sentence(error: UserError) -> str:
    """An error's text as HTML: it may hold file and model names."""
    text = str(error).encode(errors="replace").decode()  # of half characters no answer can be made
    if re.match(r"[a-z]+ ", text):  # a word; the name of a file stays as it is
        text = text[0].upper() + text[1:]
    return html.escape(text, quote=False)


def told(error: UserError) -> gr.Error:
    """An error as programs are told of it."""
    return gr.Error(sentence(error), print_exception=False)


def said(text: str, *, failed: bool = False) -> str:
    """What the page says below a result, as HTML; `failed`: why there is none, which screen readers read at once."""
    return f'<p role="{"alert" if failed else "status"}">{text}</p>' if text else ""


def answering(function: Callable[..., Any], emptied: Sequence[Any] | None = None) -> Callable[..., Any]:
    """An event's function, whose errors become sentences.

    Args:
        function: as Gradio calls it.
        emptied: its outputs where there is no result. Then an error is no event of its own: the last output, a place
            for `said`, says why, and beside it nothing is left of an earlier result.
    """

    @functools.wraps(function)
    def answered(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except gr.Error:
            raise
        except Exception as error:
            if not isinstance(error, UserError):
                logger.exception("%s failed", function.__name__)
            known = error if isinstance(error, UserError) else UserError(UNEXPECTED)
            if emptied is None:
                raise told(known) from error
            return [*emptied, said(sentence(known), failed=True)]

    return answered


def computing(function: Callable[..., Any], emptied: Sequence[Any] | None = None) -> Callable[..., Any]:
    """An event's function that needs a GPU: as `answering`; on Spaces the package `spaces` lends it one."""
    try:
        import spaces  # type: ignore[import-not-found]
    except ImportError:
        return answering(function, emptied)
    return answering(spaces.GPU(function), emptied)


def chosen_index(event: gr.EventData) -> int:
    """Number of the picture that was chosen in a strip, from 0.

    Raises:
        UserError: the browser, or whoever speaks in its place, does not say.
    """
    index = event._data.get("index") if isinstance(event._data, dict) else None
    if type(index) is not int or index < 0:
        raise UserError("no picture was chosen: take one of the strip.")
    return index


class Newest:
    """Tells an answer that comes late from that to the newest request of a session."""

    def __init__(self) -> None:
        self._last: OrderedDict[str | None, object] = OrderedDict()

    def begin(self, session: str | None) -> Callable[[], bool]:
        """Note a request; what this returns says whether no other of the session has begun since."""
        request = object()
        self._last.pop(session, None)
        self._last[session] = request
        while len(self._last) > MAX_SESSIONS:
            self._last.popitem(last=False)
        return lambda: self._last.get(session, request) is request
