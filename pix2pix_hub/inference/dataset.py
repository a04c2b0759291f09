"""A data set → its translation as a data set, by several processes, and restartable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pix2pix_hub.config import DatasetOptions, PairOptions
from pix2pix_hub.data.decode import file_of
from pix2pix_hub.data.pairs import FoundPairs, find_images, find_pairs
from pix2pix_hub.data.shards import Shard, image_cells, write_shard
from pix2pix_hub.image.read import Decoded
from pix2pix_hub.inference.files import translate_each
from pix2pix_hub.inference.pipeline import Pix2PixPipeline, Prepared, prepare

PLAN_NAME = "translation.json"
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
        if self.swap is None:
            name, stem, image = self.found.image(split, number)
            return name, stem, (image,)
        row, place = self.found.splits[split][number], f"row {number} of split {split}"
        name = row.get("name", place)
        pairs = self.found.pairs(split, self.swap)
        column = self.found.columns[0] if len(self.found.columns) == 1 else pairs.sides[0]
        images = pairs.decode(row, name)
        return pairs.names(row, name)[0], Path(file_of(row, column) or place).stem, images


def translate_shards(
    pipe: Pix2PixPipeline,
    sources: Sources,
    shards: Sequence[Shard],
    output: Path,
    report: Callable[[int], object],
    **options: Any,
) -> None:
    """Translate and write those of a process's own shards that are not there yet.

    Args:
        pipe: the model.
        sources: what to read from.
        shards: of `ShardPlan.shards`.
        output: of `ShardPlan.begin`.
        report: called with the number of rows done.
        options: of `Pix2PixPipeline.__call__`.
    """
    Opened = tuple[str, str, tuple[Decoded, ...]]  # noqa: N806

    def read(row: tuple[str, int]) -> tuple[Prepared, Opened]:
        name, stem, images = sources.read(*row)
        return prepare(images[0], pipe.preprocessor.source, name), (name, stem, images)

    def write(row: tuple[str, int], opened: Opened, generated: Decoded) -> dict[str, Any]:
        name, stem, (source, *target) = opened
        return image_cells(dict(zip(sources.columns, (source, generated, *target), strict=True)), name, stem)

    def translated(split: str, numbers: range) -> Iterator[dict[str, Any] | Exception]:
        for _, outcome in translate_each(pipe, [(split, number) for number in numbers], read, write, **options):
            yield outcome
            report(1)

    for shard in shards:
        name, (split, numbers) = shard
        if (output / "data" / name).exists():
            report(len(numbers))
        else:
            write_shard(output, shard, sources.columns, translated(split, numbers))
