"""A data set → its translation as a data set, by several processes, and restartable.

Rows are dealt out in files of a fixed number of rows. A file is written whole or not at all, and by one process only: a
run that was stopped goes on with the files that are not there yet, on any number of processes.
"""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from datasets import Dataset, Features
from datasets import Image as ImageFeature

from pix2pix_hub.config import DatasetOptions, PairOptions
from pix2pix_hub.data.decode import file_in_words, file_of, read_stored
from pix2pix_hub.data.pairs import FoundPairs, find_images, find_pairs
from pix2pix_hub.image.read import Decoded
from pix2pix_hub.image.write import encode, suffix_for
from pix2pix_hub.inference.files import translate_each
from pix2pix_hub.inference.pipeline import Pix2PixPipeline, Prepared, prepare
from pix2pix_hub.util import PARTIAL_SUFFIX, UserError, counted, write_aside, write_json

PLAN_NAME, CARD_NAME, LEFT_OUT_NAME = "translation.json", "README.md", "left_out.jsonl"
CARD = """---
task_categories:
- image-to-image
tags:
- pix2pix
---
# {name}

`generated` is what the model `{model}` makes of `source`{target}.

{counts}

Sources: `{dataset}` ({fingerprint}).
"""


@dataclass(frozen=True)
class Sources:
    """The images to translate."""

    found: FoundPairs
    swap: bool | None  # of pairs: B is the source; None: one column of sources, nothing they are to be compared with

    @classmethod
    def open(cls, options: DatasetOptions) -> Sources:
        """Pairs, or where a source column alone is named the images in it.

        Raises:
            UserError: nothing there, or no such column.
        """
        if options.source_column is not None and options.target_column is None:
            return cls(find_images(options), None)
        found = find_pairs(PairOptions(**vars(options)))
        return cls(found, options.swap)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the translation's columns."""
        return ("source", "generated") if self.swap is None else ("source", "generated", "target")

    def read(self, split: str, number: int) -> tuple[str, str, tuple[Decoded, ...]]:
        """Read a row: its name in errors, the stem of its images, and source and, where there is one, target.

        Both names come from the source's file, where the data say, else from the row.

        Raises:
            UserError: an image that cannot be read.
        """
        row, place = self.found.splits[split][number], f"row {number} of split {split}"
        column = self.found.columns[0]
        images: tuple[Decoded, ...]
        if self.swap is None:
            name = row.get("name", f"{place}{file_in_words(row, column)}")
            images = (read_stored(row[column], name),)
        else:
            name = row.get("name", place)
            pairs = self.found.pairs(split, self.swap)
            column = column if len(self.found.columns) == 1 else pairs.sides[0]
            images = pairs.decode(row, name)
            name = pairs.names(row, name)[0]
        return name, Path(file_of(row, column) or place).stem, images


@dataclass(frozen=True)
class TranslationPlan:
    """The model, data and options of a translation, as in `translation.json`; going on with others would mix two."""

    model: str
    weights: str  # hash of the generator's file
    dataset: str
    fingerprint: str
    splits: dict[str, int]  # name → rows
    rows_per_file: int
    options: dict[str, Any]  # that change pixels

    def shards(self) -> dict[str, tuple[str, range]]:
        """Name of each Parquet file → its split and rows, in order."""
        shards = {}
        for split, rows in self.splits.items():
            starts = range(0, max(1, rows), self.rows_per_file)
            for number, start in enumerate(starts):
                name = f"{split}-{number:05d}-of-{len(starts):05d}.parquet"
                shards[name] = split, range(start, min(rows, start + self.rows_per_file))
        return shards

    def begin(self, output: Path) -> IO[str]:
        """Called by the main process, before the others go on: make the folder, or go on with what was begun there.

        Returns:
            A file to keep open until the end: while it is, nobody else may work on that output.

        Raises:
            UserError: the folder holds something else, or somebody is working on it.
        """
        path, wanted = output / PLAN_NAME, json.loads(json.dumps(vars(self)))
        if not path.is_file() or (output / CARD_NAME).is_file():
            if output.exists():
                raise UserError(f"--output {output} exists and is never overwritten: name another folder.")
            (output / "data").mkdir(parents=True)
            write_json(path, wanted)
        begun = json.loads(path.read_text())
        if differing := [name for name in wanted if begun.get(name) != wanted[name]]:
            changes = "; ".join(f"{name} {begun.get(name)} → {wanted[name]}" for name in differing)
            raise UserError(
                f"{output} holds another translation that was not finished ({changes}). Go on with its options, name "
                "another --output, or delete that folder."
            )
        lock = path.open()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"--output {output}: another translation is being written there. Wait for its end."
            ) from error
        return lock

    def finish(self, output: Path, sources: Sources) -> list[dict[str, Any]]:
        """Called by the main process when all are done: write the card; the rows left out."""
        left_out: list[dict[str, Any]] = []
        for name in self.shards():
            assert (output / "data" / name).exists(), f"{name} was not translated"
            if (path := output / "data" / f"{name}.{LEFT_OUT_NAME}").is_file():
                left_out += map(json.loads, path.read_text().splitlines())
                path.unlink()
        for leftover in output.rglob(f"*{PARTIAL_SUFFIX}"):  # of a process that was killed
            leftover.unlink()
        if left_out:
            (output / LEFT_OUT_NAME).write_text("".join(json.dumps(line) + "\n" for line in left_out))
        counts = Counter(self.splits) - Counter(line["split"] for line in left_out)
        card = CARD.format(
            name=output.name,
            model=self.model,
            target="" if sources.swap is None else "; `target` is the true image",
            counts=", ".join(f"{counted(counts[split], 'image')} in `{split}`" for split in self.splits) + ".",
            dataset=self.dataset,
            fingerprint=self.fingerprint,
        )
        with write_aside(output / CARD_NAME) as partial:
            partial.write_text(card)
        return left_out


def translate_shards(
    pipe: Pix2PixPipeline,
    sources: Sources,
    shards: Sequence[tuple[str, tuple[str, range]]],
    output: Path,
    report: Callable[[int], object],
    **options: Any,
) -> None:
    """Translate and write those of a process's own shards that are not there yet.

    Args:
        pipe: the model.
        sources: what to read from.
        shards: of `TranslationPlan.shards`.
        output: of `TranslationPlan.begin`.
        report: called with the number of rows done.
        options: of `Pix2PixPipeline.__call__`.
    """
    Opened = tuple[str, str, tuple[Decoded, ...]]  # noqa: N806

    def read(row: tuple[str, int]) -> tuple[Prepared, Opened]:
        name, stem, images = sources.read(*row)
        return prepare(images[0], pipe.preprocessor.source, name), (name, stem, images)

    def write(row: tuple[str, int], opened: Opened, generated: Decoded) -> dict[str, Any]:
        name, stem, (source, *target) = opened
        return {
            column: {"bytes": encode(image, name), "path": f"{stem}{suffix_for(image)}"}
            for column, image in zip(sources.columns, (source, generated, *target), strict=True)
        }

    features = Features({name: ImageFeature() for name in sources.columns})
    for name, (split, numbers) in shards:
        path = output / "data" / name
        if path.exists():
            report(len(numbers))
            continue
        rows: list[dict[str, Any]] = []
        left_out: list[str] = []
        for (_, number), outcome in translate_each(pipe, [(split, n) for n in numbers], read, write, **options):
            if isinstance(outcome, Exception):
                left_out.append(json.dumps({"split": split, "row": number, "reason": str(outcome)}) + "\n")
            else:
                rows.append(outcome)
            report(1)
        if left_out:
            with write_aside(path.with_name(f"{name}.{LEFT_OUT_NAME}")) as partial:
                partial.write_text("".join(left_out))
        columns = {column: [row[column] for row in rows] for column in sources.columns}
        with write_aside(path) as partial:
            Dataset.from_dict(columns, features=features).to_parquet(partial)
