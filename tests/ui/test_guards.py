"""What stands between a stranger's request and the work it asks for."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.data_classes import PredictBodyInternal
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pix2pix_hub.image import read
from pix2pix_hub.ui.guard import (
    HALF_LIFE,
    MAX_SESSIONS,
    PATIENCE,
    FairQueue,
    Newest,
    RequestGuard,
    answering,
    computing,
)
from pix2pix_hub.ui.handlers import Handlers, check_picture
from pix2pix_hub.ui.models import SHIPPED
from pix2pix_hub.ui.store import Deadline, Limits, ModelStore
from pix2pix_hub.util import UserError


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits.from_environment() == Limits()
    monkeypatch.setenv("PIX2PIX_MAX_MODELS", "5")
    monkeypatch.setenv("PIX2PIX_MAX_MEGAPIXELS", "1.5")
    assert Limits.from_environment() == Limits(max_models=5, max_megapixels=1.5)
    for text in ("many", "0", "-3", "nan", "inf"):
        monkeypatch.setenv("PIX2PIX_MAX_MODELS", text)
        with pytest.raises(UserError, match="PIX2PIX_MAX_MODELS='.*': expected a number from 1"):
            Limits.from_environment()


def test_the_largest_picture_allowed_is_allowed_and_one_more_row_is_not(tmp_path: Path) -> None:
    limits = Limits(max_megapixels=0.01)
    for height, suffix in ((100, "png"), (100, "tiff"), (100, "webp")):
        Image.new("L", (100, height)).save(tmp_path / f"a.{suffix}")
        check_picture(tmp_path / f"a.{suffix}", "a", limits)
        Image.new("L", (100, height + 1)).save(tmp_path / f"a.{suffix}")
        with pytest.raises(UserError, match=r"a has too many pixels; at most 0\.01 megapixels"):
            check_picture(tmp_path / f"a.{suffix}", "a", limits)
    pages = [Image.new("L", (100, 60)) for _ in range(2)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match="too many pixels"):
        check_picture(tmp_path / "pages.tiff", "pages", limits)
    with pytest.raises(UserError, match=r"has 0\.0 MB|MB; at most"):
        check_picture(tmp_path / "a.png", "a", Limits(max_upload_mb=0))


def test_bodies_end_at_their_limit_announced_or_not() -> None:
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    guard = Middleware(RequestGuard, max_upload_bytes=1000, max_message_bytes=100)
    routes = [Route(path, echo, methods=["POST"]) for path in ("/upload", "/join")]
    client = TestClient(Starlette(routes=routes, middleware=[guard]))
    for path, most in (("/upload", 1000), ("/join", 100)):
        assert client.post(path, content=bytes(most)).text == str(most)
        assert client.post(path, content=bytes(most + 1)).status_code == 413
        chunks = (bytes(50) for _ in range(most // 50))
        assert client.post(path, content=chunks).text == str(most)
        chunks = (bytes(50) for _ in range(most // 50 + 1))
        answer = client.post(path, content=chunks)
        assert answer.status_code == 413 and "send less" in answer.text


def test_only_the_newest_request_of_a_session_is_answered() -> None:
    newest = Newest()
    first, other, second = newest.begin("a"), newest.begin("b"), newest.begin("a")
    assert not first() and second() and other()
    for session in range(MAX_SESSIONS + 5):
        newest.begin(str(session))
    assert len(newest._last) == MAX_SESSIONS


def test_errors_become_sentences_that_hold_no_markup(caplog: pytest.LogCaptureFixture) -> None:
    def fail(error: Exception) -> None:
        raise error

    for error, words in (
        (
            UserError("<img src=x onerror=alert(1)>.png is damaged"),
            "^&lt;img src=x onerror=alert(1)&gt;.png is damaged$",
        ),
        (KeyError("/secret/path"), "not your doing"),
    ):
        with pytest.raises(gr.Error) as told:
            answering(fail)(error)
        assert re.search(words.replace("(1)", r"\(1\)"), told.value.message) and "secret" not in told.value.message
    assert "/secret/path" in caplog.text  # for whoever runs the server


def test_a_gpu_is_asked_for_where_spaces_lend_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> int:
        return 1

    asked: list[Any] = []
    assert computing(work)() == 1
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=lambda function: asked.append(function) or function))
    assert computing(work)() == 1 and asked == [work]


def test_a_request_that_takes_too_long_is_stopped_between_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(max_seconds=1000)
    handlers = Handlers(ModelStore({"demo": SHIPPED}, limits), tmp_path / "results")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    seconds = iter([*range(6), *[2000.0] * 100])  # until a tile is made
    monkeypatch.setattr("pix2pix_hub.ui.store.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with pytest.raises(UserError, match="took longer than 1000 seconds"):
        handlers.translate(tmp_path / "a.png", None)
    monkeypatch.undo()
    assert not (tmp_path / "results").exists()
    assert handlers.translate(tmp_path / "a.png", None)[0].exists()  # the model is free again
    late = Deadline(limits)
    late._end = 0.0
    with pytest.raises(UserError, match="took longer"):
        late.check()


# ------------------------------------------------------------------------------------------------------- the queue


NOW = time.monotonic()


@pytest.fixture(scope="module")
def demo() -> gr.Blocks:
    """A page of two functions."""
    with gr.Blocks() as demo:
        for _ in range(2):
            gr.Button().click(lambda: None)
    return demo


@pytest.fixture
def queue(demo: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> FairQueue:
    """A queue that nothing is processed of, at a time that stands still."""
    monkeypatch.setattr("pix2pix_hub.ui.guard.time", SimpleNamespace(monotonic=lambda: NOW))
    return FairQueue(demo, max_size=10, max_places=3)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What it returns; the browser's tests may have an event loop in this thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def push(queue: FairQueue, client: str, session: str = "s", number: int = 0) -> str:
    """Let a request of a client wait; its id. Raises what `push` raises; `AssertionError` where the queue is full."""
    body = PredictBodyInternal(data=[], fn_index=number, session_hash=session)
    request = Request({"type": "http", "client": (client, 1), "headers": []})
    success, event, _ = run(queue.push(body, request, None))
    assert success, event
    return event


def next_client(queue: FairQueue) -> str | None:
    found = queue.get_events()
    return found[0][0].request.client.host if found else None


def test_nothing_is_computed_for_nobody(queue: FairQueue) -> None:
    first = push(queue, "a", "x")
    assert next_client(queue) is None
    with queue.listening("y"):
        assert next_client(queue) is None
    with queue.listening("x"):
        assert next_client(queue) == "a"
    second = push(queue, "b", "y")
    assert second != first
    with queue.listening(second):
        assert next_client(queue) == "b"
    assert not queue._listeners


def test_who_has_left_holds_no_place(queue: FairQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        push(queue, "a", "gone")
    kept = push(queue, "b", "here")
    for event in queue._waiting():
        event.enqueue_time = NOW - PATIENCE - 1.0
    with queue.listening("here"):
        push(queue, "a", "back")
        assert {event.session_hash for event in queue._waiting()} == {"here", "back"}
        assert queue.knows(kept) and "gone" not in queue.pending_event_ids_session


def test_whoever_has_used_least_goes_first(queue: FairQueue) -> None:
    for client in "aaabbc":
        push(queue, client, client)
    queue._used |= {"a": (9.0, NOW), "b": (1.0, NOW), "c": (2.0, NOW)}
    with queue.listening("a"), queue.listening("b"), queue.listening("c"):
        order = [next_client(queue) for _ in range(7)]
        assert order == [*"bbcaaa", None]
        queue._used["a"] = (9.0, NOW - 10 * HALF_LIFE)  # long ago
        for client in "ba":
            push(queue, client, client)
        assert next_client(queue) == "a"


def test_what_was_begun_for_somebody_who_left_is_stopped(queue: FairQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    push(queue, "a", "x")
    with queue.listening("x"):
        found = queue.get_events()
    assert found
    queue.active_jobs = [found[0]]
    said: list[str] = []

    async def work(*_: Any) -> None:
        deadline = Deadline(Limits())
        deadline.check()
        await queue.clean_events(session_hash="x")
        try:
            deadline.check()
        except UserError as error:
            said.append(str(error))

    monkeypatch.setattr("gradio.queueing.Queue.process_events", work)
    run(queue.process_events(found[0]))
    assert said == ["nobody waits for this any more."]
    Deadline(Limits()).check()  # outside of it


def test_one_picture_at_a_time_is_decoded_and_waiting_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(max_seconds=1000)
    handlers = Handlers(ModelStore({"demo": SHIPPED}, limits), tmp_path / "results")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    decode, taken = read.read_image, []

    def watched(*arguments: Any) -> Any:
        taken.append(handlers._decoding.locked())
        return decode(*arguments)

    monkeypatch.setattr("pix2pix_hub.ui.handlers.read_image", watched)
    handlers.translate(tmp_path / "a.png", None)
    handlers.compare(tmp_path / "a.png", tmp_path / "a.png", None)
    handlers.batch([tmp_path / "a.png"], None)
    handlers.draw(tmp_path / "a.png", None)
    assert taken == [True] * 5  # each upload once, and nobody else meanwhile
    with handlers._decoding:  # another does
        late = Deadline(limits)
        late._end = 0.0
        with pytest.raises(UserError, match="other pictures were read for 1000 seconds"):
            handlers._read(tmp_path / "a.png", late)
