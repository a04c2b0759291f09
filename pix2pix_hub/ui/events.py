"""What every event of the page goes through: errors in words, newest answer first, a GPU where one is lent."""

from __future__ import annotations

import functools
import html
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import gradio as gr

from pix2pix_hub.errors import UserError

logger = logging.getLogger(__name__)

UNEXPECTED = "something went wrong here, which is not your doing; what it was is in the server's log."
UNREADABLE = (
    "what was sent is not what is taken here: send each picture as an uploaded file (gradio_client: handle_file), "
    'and the other values as "Use via API" lists them.'
)
MAX_SESSIONS = 1024  # whose newest request is remembered


def told(error: UserError) -> gr.Error:
    """What the person sees. The text may hold file and model names, and is shown as HTML."""
    text = str(error)
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


def refuse_in_words(demo: gr.Blocks) -> None:
    """Say so where values are of another kind than an event takes, or name files that nobody uploaded.

    Gradio refuses them before any function sees them, with an error without a text, and fills the server's log.
    """
    read = demo.preprocess_data

    async def read_or_refuse(*arguments: Any, **options: Any) -> Any:
        try:
            return await read(*arguments, **options)
        except gr.Error:
            raise
        except Exception as error:
            logger.info("refused: %r", error)
            raise told(UserError(UNREADABLE)) from error

    demo.preprocess_data = read_or_refuse  # type: ignore[method-assign]


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
