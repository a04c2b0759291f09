"""Data sets of images that are written shard by shard, by several processes, and restartable.

Rows are dealt out in files of a fixed number of rows. A file is written whole or not at all, and by one process only: a
run that was stopped goes on with the files that are not there yet, on any number of processes.
"""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from datasets import Dataset, Features
from datasets import Image as ImageFeature

from pix2pix_hub.image.read import Decoded
from pix2pix_hub.image.write import encode, suffix_for
from pix2pix_hub.util import PARTIAL_SUFFIX, UserError, counted, read_object, write_aside, write_json

CARD_NAME, LEFT_OUT_NAME = "README.md", "left_out.jsonl"
Shard = tuple[str, tuple[str, range]]  # name of a Parquet file, its split and rows


@dataclass(frozen=True)
class ShardPlan:
    """Which rows go into which Parquet file, and what they follow from; going on with another would mix two."""

    name: str  # of the file that the rest is kept in
    settings: dict[str, Any]
    splits: dict[str, int]  # name → rows
    rows_per_file: int

    def shards(self) -> list[Shard]:
        """All Parquet files, in order."""
        shards: list[Shard] = []
        for split, rows in self.splits.items():
            starts = range(0, max(1, rows), self.rows_per_file)
            for number, start in enumerate(starts):
                name = f"{split}-{number:05d}-of-{len(starts):05d}.parquet"
                shards.append((name, (split, range(start, min(rows, start + self.rows_per_file)))))
        return shards

    def begin(self, folder: Path) -> IO[str]:
        """Called by the main process, before the others go on: make the folder, or go on with what was begun there.

        Returns:
            A file to keep open until the end: while it is, nobody else may work on that folder.

        Raises:
            UserError: the folder holds something else, or somebody is working on it.
        """
        path = folder / self.name
        if not any(file.suffix != PARTIAL_SUFFIX for file in folder.rglob("*") if not file.is_dir()):
            (folder / "data").mkdir(parents=True, exist_ok=True)
            write_json(path, self._content)
        self.check_same(folder)
        lock = path.open()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder} is being written by another process. Wait for its end.") from error
        return lock

    @property
    def _content(self) -> dict[str, Any]:
        return self.settings | {"splits": self.splits, "rows_per_file": self.rows_per_file}

    def check_same(self, folder: Path) -> None:
        """Raise `UserError` unless what the folder holds was begun with this plan."""
        if not (folder / self.name).is_file():
            raise UserError(f"{folder} exists and is never overwritten: name another --output.")
        wanted = json.loads(json.dumps(self._content))
        begun = read_object(folder / self.name)
        if differing := [name for name in wanted if begun.get(name) != wanted[name]]:
            changes = "; ".join(f"{name} {begun.get(name)} → {wanted[name]}" for name in differing)
            raise UserError(
                f"{folder} was begun with other options or data ({changes}). Go on with those, name another --output, "
                "or delete that folder."
            )

    def finish(self, folder: Path, card: Callable[[str], str]) -> list[dict[str, Any]]:
        """Called by the main process when all are done: write the card; the rows left out.

        Args:
            folder: of `begin`.
            card: makes its text, of how many images there are in each split, in words.
        """
        left_out = self.left_out(folder)
        for leftover in folder.rglob(f"*{PARTIAL_SUFFIX}"):  # of a process that was killed
            leftover.unlink()
        if left_out:
            with write_aside(folder / LEFT_OUT_NAME) as partial:
                partial.write_text("".join(json.dumps(line) + "\n" for line in left_out))
        for path in (folder / "data").glob(f"*.{LEFT_OUT_NAME}"):
            path.unlink()
        counts = Counter(self.splits) - Counter(line["split"] for line in left_out)
        listed = ", ".join(f"{counted(counts[split], 'image')} in `{split}`" for split in self.splits)
        with write_aside(folder / CARD_NAME) as partial:
            partial.write_text(card(f"{listed}."))
        return left_out

    def left_out(self, folder: Path) -> list[dict[str, Any]]:
        """The rows left out so far, in order, each with `split`, `row` and `reason`."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for path in (folder / LEFT_OUT_NAME, *(folder / "data").glob(f"*.{LEFT_OUT_NAME}")):
            for line in map(json.loads, path.read_text().splitlines() if path.is_file() else ()):
                found[line["split"], line["row"]] = line
        return [found[key] for split in self.splits for key in sorted(found) if key[0] == split]


def image_cells(images: dict[str, Decoded], name: str, stem: str) -> dict[str, Any]:
    """A row, losslessly encoded: its columns, in order.

    Raises:
        UserError: pixels that no file holds; the text starts with `name`.
    """
    return {
        column: {"bytes": encode(image, name), "path": f"{stem}{suffix_for(image)}"} for column, image in images.items()
    }


def write_shard(folder: Path, shard: Shard, columns: Sequence[str], rows: Iterable[dict[str, Any] | Exception]) -> None:
    """Write a Parquet file, and beside it the rows that are left out, each with the reason.

    Args:
        folder: of `ShardPlan.begin`.
        shard: which.
        columns: of images.
        rows: of `image_cells`, or why there is none.
    """
    name, (split, numbers) = shard
    path = folder / "data" / name
    good: list[dict[str, Any]] = []
    left_out: list[str] = []
    for number, row in zip(numbers, rows, strict=True):
        if isinstance(row, Exception):
            left_out.append(json.dumps({"split": split, "row": number, "reason": str(row)}) + "\n")
        else:
            good.append(row)
    if left_out:
        with write_aside(path.with_name(f"{name}.{LEFT_OUT_NAME}")) as partial:
            partial.write_text("".join(left_out))
    content = {column: [row[column] for row in good] for column in columns}
    features = Features({column: ImageFeature() for column in columns})
    with write_aside(path) as partial:
        Dataset.from_dict(content, features=features).to_parquet(partial)
