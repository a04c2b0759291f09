"""Stopping on SIGINT (Ctrl-C) and SIGTERM after the step under way instead of in the middle of it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

logger = logging.getLogger(__name__)


class StopSignals:
    """Context manager: `received` is the number of the first signal that came, else None. A second Ctrl-C ends at once.

    Args:
        answer: what is said then.

    Outside the main thread signals cannot be caught, and nothing is changed.
    """

    def __init__(self, answer: str = "Stopping after this step") -> None:
        self.received: int | None = None
        self._answer = answer
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None and os.getpid() == self._process:  # loader workers inherit the handler: they go on
            self.received = number
            logger.info("%s; Ctrl-C once more stops at once.", self._answer)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
