"""What is measured: a generator, how its images are stored, and what it was trained on."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pix2pix_hub.errors import UserError
from pix2pix_hub.export import (
    GENERATOR_FILES,
    PREPROCESSOR_NAME,
    TRAINING_CONFIG_NAME,
    WEIGHTS_NAME,
    Export,
    Preprocessor,
    export_of,
    local_path,
)
from pix2pix_hub.models import load_generator
from pix2pix_hub.models.base import Generator
from pix2pix_hub.models.fetch import commit_of, fetch_files, split_revision

# Of training, what a data set is read by again: the options of the same names, unless others are given.
INHERITED = ("direction", "source_column", "target_column", "train_split", "validation_split")


@dataclass(frozen=True)
class EvaluatedModel:
    """A generator in evaluation mode, and what its export says about it."""

    generator: Generator
    preprocessor: Preprocessor
    folder: Path  # where its files lie
    name: str  # last part of a local path, or the Hub id
    revision: str | None  # commit on the Hub
    weights_sha256: str
    data_options: dict[str, str]  # those of `INHERITED` that it was trained with
    batch_size: int  # that it was validated with

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: which model this is."""
        return {"id": self.name, "revision": self.revision, "weights_sha256": self.weights_sha256}


def load_model(model: str, *, revision: str | None = None, map_location: str = "cpu") -> EvaluatedModel:
    """Load an export, a run's folder (its `model/` is taken) or a Hub id (`user/name`, `user/name@revision`).

    Raises:
        UserError: nothing there, no export, or files that do not belong together.
    """
    local = os.path.isdir(local_path(model))
    folder = fetch_files(export_of(model), (*GENERATOR_FILES, TRAINING_CONFIG_NAME), revision=revision)
    generator = load_generator(folder, map_location=map_location)
    preprocessor = Preprocessor.from_folder(folder)
    for side, channels in (("source", generator.in_channels), ("target", generator.out_channels)):
        if getattr(preprocessor, side).channels != channels:
            raise UserError(
                f"{folder / PREPROCESSOR_NAME} says {getattr(preprocessor, side).describe()} for the {side}, but the "
                f"generator has {channels} channels there: the files belong to different models."
            )
    options = Export(folder).run.get("options")
    options = options if isinstance(options, dict) else {}
    batch_size = options.get("batch_size")
    return EvaluatedModel(
        generator,
        preprocessor,
        folder,
        folder.resolve().name if local else split_revision(model)[0],
        commit_of(folder),
        hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest(),
        {name: options[name] for name in INHERITED if isinstance(options.get(name), str)},
        batch_size if isinstance(batch_size, int) and batch_size > 0 else 1,
    )
