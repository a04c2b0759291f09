"""The models in memory, and the limits of each request: who uses which, and for how long."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.models.fetch import fetch_files
from pix2pix_hub.ui.models import REPOSITORY_ID, SHOWN_FILES, Location, ModelInfo
from pix2pix_hub.util import UserError, counted


@dataclass(frozen=True)
class Limits:
    """Bounds of one request. Each can be set by the environment variable `PIX2PIX_` + its name in capitals."""

    max_upload_mb: int = 25  # one file, in 10^6 bytes
    max_request_mb: int = 100  # one request's body: all files of a batch together
    max_message_mb: int = 4  # a body without files: a drawing, or a picture written into a message
    max_megapixels: float = 16.0  # one image, in 10^6 pixels
    max_seconds: float = 60.0  # of computing for one request
    max_files: int = 32  # in a batch
    max_variants: int = 8  # of one image
    max_models: int = 2  # in memory; the one not used for longest leaves
    max_queue: int = 128  # requests that wait; more are told to come back
    max_places: int = 16  # of them from one address

    @classmethod
    def from_environment(cls) -> Limits:
        """The defaults, but for what the environment says.

        Raises:
            UserError: a variable that holds no positive number.
        """
        chosen: dict[str, Any] = {}
        for field in fields(cls):
            variable = f"PIX2PIX_{field.name.upper()}"
            if text := os.environ.get(variable):
                try:
                    value = float(text)
                except ValueError:
                    value = 0.0
                if not 1 <= value < 1e9:
                    raise UserError(f"{variable}={text!r}: expected a number from 1.")
                chosen[field.name] = int(value) if isinstance(field.default, int) else value
        return cls(**chosen)


@dataclass
class Visit:
    """A request under way, as its queue and its work see it."""

    abandoned: bool = False  # nobody waits for the answer any more
    seconds: float = 0.0  # in which it kept others from a model


VISIT: ContextVar[Visit] = ContextVar("VISIT")  # of the request that is being worked on, where the queue has set it


class Deadline:
    """The end of a request, which asks between its steps whether it has come.

    Waiting for other requests counts, to decode or for the model. Decoding one picture is a step, and so is a tile:
    what `check_picture` lets pass takes seconds, not minutes.

    Args:
        limits: how long it may take.
        report: called with (done, total) between the steps.
    """

    def __init__(self, limits: Limits, report: Callable[[int, int], object] | None = None) -> None:
        self.max_seconds, self._report = limits.max_seconds, report
        self._end = time.monotonic() + limits.max_seconds

    @property
    def seconds_left(self) -> float:
        """Until the end, from 0."""
        return max(0.0, self._end - time.monotonic())

    def check(self, *progress: int) -> None:
        """Report progress.

        Raises:
            UserError: no time is left, or nobody to answer to.
        """
        if (visit := VISIT.get(None)) and visit.abandoned:
            raise UserError("nobody waits for this any more.")
        if not self.seconds_left:
            raise UserError(
                f"this took longer than {counted(self.max_seconds, 'second')} and was stopped: send less at once."
            )
        if self._report is not None and progress:
            self._report(*progress)


class ModelStore:
    """Hands out pipelines by name, loads them on first use and keeps the last used few.

    Args:
        models: name → location, the default first.
        limits: of each request: how many models stay in memory, how long one waits for its turn.
        allow_any: also take repository ids that are not among `models`.
        load: location → pipeline.
    """

    def __init__(
        self,
        models: Mapping[str, Location],
        limits: Limits,
        *,
        allow_any: bool = False,
        load: Callable[[Location], Pix2PixPipeline] = Pix2PixPipeline.from_pretrained,
    ) -> None:
        assert models, "a store needs a model"
        self.models, self.names, self.limits, self.allow_any = dict(models), list(models), limits, allow_any
        self._load = load
        self._loaded: OrderedDict[str, Pix2PixPipeline] = OrderedDict()
        self._turns: dict[str, Lock] = {}
        self._guard = Lock()
        self._read = lru_cache(len(models) + limits.max_models)(self._read_info)

    def check(self, name: str | None) -> str:
        """The model's name, the first one's for None or "".

        Raises:
            UserError: it is none that may be used here.
        """
        if not name:
            return self.names[0]
        name = str(name)  # whatever was sent
        if name in self.models:
            return name
        known = f"choose one of: {', '.join(self.names)}"
        if not self.allow_any:
            raise UserError(f"the model {name[:200]!r} is not offered here; {known}.")
        if not REPOSITORY_ID.fullmatch(name) or Path(name).exists():
            raise UserError(f"{name[:200]!r} is no repository id (user/name); {known}, or a model on the Hub.")
        return name

    def info(self, name: str | None) -> ModelInfo:
        """A model as the page shows it, fetched where it is on the Hub.

        Raises:
            UserError: as `check`; it could not be fetched, or is no export.
        """
        return self._read(self.check(name))

    def _read_info(self, name: str) -> ModelInfo:
        location = self.models.get(name, name)
        return ModelInfo(location if isinstance(location, Path) else fetch_files(location, SHOWN_FILES), name)

    @contextmanager
    def use(self, name: str | None, deadline: Deadline) -> Iterator[Pix2PixPipeline]:
        """The model's pipeline, for one user at a time.

        Raises:
            UserError: as `check`; it cannot be loaded; others kept it for as long as the request may take.
        """
        name = self.check(name)
        with self._guard:
            turn = self._turns.setdefault(name, Lock())
        if not turn.acquire(timeout=deadline.seconds_left):
            raise UserError(
                f"the model {name} was busy for {counted(deadline.max_seconds, 'second')}: try again later."
            )
        start = time.monotonic()
        try:
            yield self._pipeline(name)
        finally:
            turn.release()
            if visit := VISIT.get(None):
                visit.seconds += time.monotonic() - start

    def _pipeline(self, name: str) -> Pix2PixPipeline:
        with self._guard:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
            self._keep(self.limits.max_models - 1)
        location = self.models.get(name, name)
        try:
            pipeline = self._load(location)
        except UserError as error:
            reason = str(error).replace(str(location), name) if isinstance(location, Path) else str(error)
            raise UserError(f"the model {name} cannot be used: {reason}") from error
        with self._guard:
            self._loaded[name] = pipeline
            self._keep(self.limits.max_models)  # another may have been loaded meanwhile
        return pipeline

    def _keep(self, count: int) -> None:
        """Only so many, those used last."""
        while len(self._loaded) > count:
            left, _ = self._loaded.popitem(last=False)
            if left not in self.models:
                self._turns.pop(left, None)
