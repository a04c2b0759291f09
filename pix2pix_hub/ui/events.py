"""What every event of the page goes through: errors in words, newest answer first, a GPU where one is lent."""

from __future__ import annotations

import functools
import html
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr

from pix2pix_hub.util import UserError

logger = logging.getLogger(__name__)

UNEXPECTED = "something went wrong here, which is not your doing; what it was is in the server's log."
UNREADABLE = (
    "what was sent is not what is taken here: send each picture as an uploaded file (gradio_client: handle_file), "
    'and the other values as "Use via API" lists them.'
)
NO_ADDRESSES = "a web address came in place of a picture; send the picture itself (gradio_client: handle_file)."
MAX_SESSIONS = 1024  # whose newest request is remembered


def told(error: UserError) -> gr.Error:
    """What the person sees. The text may hold file and model names, and is shown as HTML."""
    text = str(error).encode(errors="replace").decode()  # of half characters no answer can be made
    if re.match(r"[a-z]+ ", text):  # a word; the name of a file stays as it is
        text = text[0].upper() + text[1:]
    return gr.Error(html.escape(text, quote=False), print_exception=False)


def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """An event's function, whose errors become sentences."""

    @functools.wraps(function)
    def answered(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except UserError as error:
            raise told(error) from error
        except gr.Error:
            raise
        except Exception as error:
            logger.exception("%s failed", function.__name__)
            raise told(UserError(UNEXPECTED)) from error

    return answered


def guard_inputs(demo: gr.Blocks) -> None:
    """Let no event, public or private, see a file that was not uploaded here, and refuse in words what it cannot take.

    Every way to an event (queue, direct calls, MCP) leads through `Blocks.preprocess_data`. Gradio itself checks only
    files whose `meta` says that they are some.
    """
    read, folder = demo.preprocess_data, Path(demo.GRADIO_CACHE)

    async def read_guarded(block_fn: Any, inputs: list[Any], *arguments: Any, **options: Any) -> Any:
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


def chosen_index(event: gr.EventData) -> int:
    """Number of the picture that was chosen in a strip, from 0.

    Raises:
        UserError: the browser, or whoever speaks in its place, does not say.
    """
    index = event._data.get("index") if isinstance(event._data, dict) else None
    if type(index) is not int or index < 0:
        raise UserError("no picture was chosen: take one of the strip.")
    return index


def on_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Ask for a GPU while the function runs, on Spaces that lend one (where the package `spaces` is)."""
    try:
        import spaces  # type: ignore[import-not-found]
    except ImportError:
        return function
    return spaces.GPU(function)


class Newest:
    """Numbers each session's requests, so that an answer that comes late can be told from the newest."""

    def __init__(self) -> None:
        self._last: OrderedDict[str | None, int] = OrderedDict()
        self._guard = Lock()

    def number(self, session: str | None) -> int:
        """A new request's, larger than all before it."""
        with self._guard:
            number = self._last.pop(session, 0) + 1
            self._last[session] = number
            while len(self._last) > MAX_SESSIONS:
                self._last.popitem(last=False)
            return number

    def is_newest(self, session: str | None, number: int) -> bool:
        """No other has begun since."""
        with self._guard:
            return self._last.get(session, number) == number
