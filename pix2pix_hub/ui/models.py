"""Which models the page offers, and those of them that are in memory."""

from __future__ import annotations

import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    """Name → location of the models to offer.

    Args:
        asked: repository ids or folders with commas between them; None: what `PIX2PIX_MODEL` says. Without either the
            newest export under `runs`, else the model shipped with the package.
        runs: folder of runs.

    Raises:
        UserError: something that is neither a folder nor a repository id.
    """
    asked = os.environ.get("PIX2PIX_MODEL") if asked is None else asked
    places = [place.strip() for place in (asked or "").split(",") if place.strip()]
    if places:
        models: dict[str, Location] = {}
        for location in map(_location, places):
            models[_free_name(_public_name(location), models)] = location
        return models
    exports = [path.parent for folder in EXPORT_FOLDERS for path in runs.glob(f"*/{folder}/{PREPROCESSOR_NAME}")]
    if exports:
        newest = max(exports, key=lambda folder: ((folder / PREPROCESSOR_NAME).stat().st_mtime, folder.name == "model"))
        return {_public_name(newest): newest}
    return {"demo": SHIPPED}


def _location(place: str) -> Location:
    folder = Path(place)
    if os.path.isdir(folder):
        return export_in(folder) or export_in(folder, best=True) or folder
    if REPOSITORY_ID.fullmatch(place):
        return place
    raise UserError(f"model {place!r} is neither a folder nor a repository id: expected an export, or user/name.")


def _public_name(location: Location) -> str:
    """What people see and send: nothing of where a folder lies."""
    if isinstance(location, str):
        return location
    folder = location.resolve()
    return folder.parent.name if folder.name in EXPORT_FOLDERS else folder.name


def _free_name(name: str, taken: Mapping[str, Location]) -> str:
    names = [name, *(f"{name} ({number})" for number in range(2, len(taken) + 2))]
    return next(each for each in names if each not in taken)


class ModelStore:
    """Hands out pipelines by name, loads them on first use and keeps the last used few.

    Args:
        models: name → location, the default first.
        limits: how many stay in memory, how long one waits for its turn.
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
        self.models, self.limits, self.allow_any = dict(models), limits, allow_any
        self._load = load or _load_pipeline
        self._loaded: OrderedDict[str, Pix2PixPipeline] = OrderedDict()
        self._exports: OrderedDict[str, Export] = OrderedDict()
        self._turns: dict[str, Lock] = {}
        self._guard = Lock()

    @property
    def names(self) -> list[str]:
        """Of the configured models."""
        return list(self.models)

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
        name = self.check(name)
        with self._guard:
            known = self._exports.get(name)
        if known is None:
            known = Export(_folder(self.models.get(name, name)), name)
            with self._guard:
                self._exports[name] = known
                while len(self._exports) > len(self.models) + self.limits.max_models:
                    self._exports.popitem(last=False)
        return known

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


def _folder(location: Location) -> Path:
    """Of the describing files."""
    if isinstance(location, Path):
        return location
    from pix2pix_hub.models.fetch import fetch_files  # brings PyTorch with it

    return fetch_files(location, SHOWN_FILES)


def _load_pipeline(location: Location) -> Pix2PixPipeline:
    from pix2pix_hub.inference.pipeline import Pix2PixPipeline

    return Pix2PixPipeline.from_pretrained(location)
