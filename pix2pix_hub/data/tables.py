"""Tables that `datasets` reads: opening one from wherever it is, and which of its columns hold images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Value
from datasets import Image as ImageFeature

from pix2pix_hub.config import DatasetOptions
from pix2pix_hub.data.files import fingerprint
from pix2pix_hub.data.hub_source import describe, open_on_hub
from pix2pix_hub.util import UserError

BUILDERS = {  # suffix of a single file → the `datasets` builder that reads it
    ".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tar": "webdataset",
}  # fmt: skip
TABLES = (".parquet", ".arrow", ".tar")  # that hold images themselves


def is_loose(path: Path) -> bool:
    """A folder that `datasets` has not saved itself."""
    return path.is_dir() and not (path / "dataset_dict.json").is_file() and not (path / "state.json").is_file()


def open_table(path: Path, request: DatasetOptions, advice: str) -> tuple[Any, str]:
    """What `datasets` reads: a Hub data set, a single file, what it saved itself, else a folder; and what it is.

    Raises:
        UserError: nothing there, or it cannot be read; the text ends with `advice`, which says what works.
    """
    if not request.dataset or not path.exists():
        return open_on_hub(request.dataset, request.dataset_revision, advice)
    if path.is_dir():
        load = datasets.load_dataset if is_loose(path) else datasets.load_from_disk
        return _read(request, advice, lambda: load(str(path))), fingerprint(path)
    if (builder := BUILDERS.get(path.suffix.lower())) is None:
        known = ", ".join(BUILDERS)
        raise UserError(f"--dataset {request.dataset} is a single file, but none of {known}. {advice}")
    loaded = _read(request, advice, lambda: datasets.load_dataset(builder, data_files=str(path)))
    return loaded, fingerprint(path.parent, [path])


def _read(request: DatasetOptions, advice: str, load: Callable[[], Any]) -> Any:
    """Whatever goes wrong inside `datasets`, in words that name the flag."""
    try:
        return load()
    except Exception as error:
        raise UserError(
            f"--dataset {request.dataset} could not be read by `datasets` ({describe(error)}). {advice}"
        ) from error


def holds_images(feature: Any) -> bool:
    """An image column, or bytes as libraries other than `datasets` write them."""
    if isinstance(feature, dict):
        return "bytes" in feature and holds_images(feature["bytes"])
    return isinstance(feature, ImageFeature) or (isinstance(feature, Value) and feature.dtype.endswith("binary"))


def undecoded(rows: Dataset, columns: Sequence[str], split: str, request: DatasetOptions) -> Dataset:
    """Those columns of a split, as `{"bytes", "path"}` or None.

    Raises:
        UserError: it lacks one.
    """
    if absent := [column for column in columns if column not in rows.column_names]:
        raise UserError(
            f"--dataset {request.dataset}: split {split} has no column {' or '.join(absent)} "
            f"(columns: {', '.join(rows.column_names)}). All splits need the same."
        )
    rows = rows.with_format(None).select_columns(list(columns))
    for column in columns:
        rows = rows.cast_column(column, ImageFeature(decode=False))
    return rows
