"""Which models the page offers, and those of them that are in memory."""

from __future__ import annotations

import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pix2pix_hub.export import EXPORT_FOLDERS, PREPROCESSOR_NAME, export_in
from pix2pix_hub.ui.exports import SHOWN_FILES, Export
from pix2pix_hub.ui.limits import VISIT, Deadline, Limits
from pix2pix_hub.util import UserError

if TYPE_CHECKING:
    from pix2pix_hub.inference.pipeline import Pix2PixPipeline

SHIPPED = Path(__file__).parents[1] / "assets" / "demo_model"
REPOSITORY_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,250})?")  # @: a revision
Location = str | Path  # a Hub id, or the folder of an export


def choose_models(asked: str | None = None, runs: Path = Path("runs")) -> dict[str, Location]:
    """Name → location of the models to offer. Names say nothing of where a folder lies.

    Args:
        asked: repository ids or folders with commas between them; None: what `PIX2PIX_MODEL` says. Without either the
            newest export under `runs`, else the model shipped with the package.
        runs: folder of runs.

    Raises:
        UserError: something that is neither a folder nor a repository id.
    """
    asked = os.environ.get("PIX2PIX_MODEL") if asked is None else asked
    locations = [_location(place.strip()) for place in (asked or "").split(",") if place.strip()]
    if not locations:
        exports = [path.parent for folder in EXPORT_FOLDERS for path in runs.glob(f"*/{folder}/{PREPROCESSOR_NAME}")]
        if not exports:
            return {"demo": SHIPPED}
        locations = [
            max(exports, key=lambda place: ((place / PREPROCESSOR_NAME).stat().st_mtime, place.name == "model"))
        ]
    models: dict[str, Location] = {}
    for location in locations:
        name = location if isinstance(location, str) else location.resolve().name
        if isinstance(location, Path) and name in EXPORT_FOLDERS:
            name = location.resolve().parent.name
        models[free_name(name, models)] = location
    return models


def _location(place: str) -> Location:
    folder = Path(place)
    if os.path.isdir(folder):
        return export_in(folder) or export_in(folder, best=True) or folder
    if REPOSITORY_ID.fullmatch(place):
        return place
    raise UserError(f"model {place!r} is neither a folder nor a repository id: expected an export, or user/name.")


def free_name(name: str, taken: Collection[str], form: str = "{} ({})") -> str:
    """The name, numbered where it is taken."""
    names = [name, *(form.format(name, number) for number in range(2, len(taken) + 2))]
    return next(each for each in names if each not in taken)


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
        load: Callable[[Location], Pix2PixPipeline] | None = None,
    ) -> None:
        assert models, "a store needs a model"
        self.models, self.names, self.limits, self.allow_any = dict(models), list(models), limits, allow_any
        self._load = load or _load_pipeline
        self._loaded: OrderedDict[str, Pix2PixPipeline] = OrderedDict()
        self._turns: dict[str, Lock] = {}
        self._guard = Lock()
        self._exports = lru_cache(len(models) + limits.max_models)(self._read_export)

    def check(self, name: str | None) -> str:
        """The model's name, the first one's for None or "".

        Raises:
            UserError: it is none that may be used here.
        """
        if not name:
            return self.names[0]
        if name in self.models:
            return name
        known = f"choose one of: {', '.join(self.names)}"
        if not self.allow_any:
            raise UserError(f"the model {name[:200]!r} is not offered here; {known}.")
        if not REPOSITORY_ID.fullmatch(name) or Path(name).exists():
            raise UserError(f"{name[:200]!r} is no repository id (user/name); {known}, or a model on the Hub.")
        return name

    def export(self, name: str | None) -> Export:
        """The describing files of a model, fetched where it is on the Hub.

        Raises:
            UserError: as `check`; it could not be fetched, or is no export.
        """
        return self._exports(self.check(name))

    def _read_export(self, name: str) -> Export:
        location = self.models.get(name, name)
        if isinstance(location, Path):
            return Export(location, name)
        from pix2pix_hub.models.fetch import fetch_files  # brings PyTorch with it

        return Export(fetch_files(location, SHOWN_FILES), name)

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
            raise UserError(f"the model {name} was busy for {deadline.max_seconds:g} seconds: try again later.")
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
        try:
            pipeline = self._load(self.models.get(name, name))
        except UserError as error:
            folder = self.models.get(name)
            reason = str(error).replace(str(folder), name) if isinstance(folder, Path) else str(error)
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


def _load_pipeline(location: Location) -> Pix2PixPipeline:
    from pix2pix_hub.inference.pipeline import Pix2PixPipeline

    return Pix2PixPipeline.from_pretrained(location)
