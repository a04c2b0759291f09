"""A data set → its translation as a data set, by several processes, and restartable.

Rows are dealt out in files of a fixed number of rows. A file is written whole or not at all, and by one process only: a
run that was stopped goes on with the files that are not there yet, on any number of processes, and every row is
translated once.
"""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from datasets import Dataset, Features
from datasets import Image as ImageFeature

from pix2pix_hub.config import DatasetOptions, PairOptions
from pix2pix_hub.data.decode import RecordDecoder, file_in_words, file_of, read_stored
from pix2pix_hub.data.encoding import encode, suffix_for
from pix2pix_hub.data.pairs import FoundPairs, find_images, find_pairs
from pix2pix_hub.data.pixels import Decoded
from pix2pix_hub.inference.files import THREADS
from pix2pix_hub.inference.inputs import Prepared, prepare_decoded
from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.inference.results import decoded_result
from pix2pix_hub.util import PARTIAL_SUFFIX, UserError, counted, publish_folder, write_aside

UNFINISHED_SUFFIX = ".unfinished"
PLAN_NAME = "translation.json"
LEFT_OUT_NAME = "left_out.jsonl"
BATCH_ROWS = 16  # of a file that are in memory together
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
    swap: bool  # B is the source
    alone: bool  # one column of sources, and nothing they are to be compared with

    @classmethod
    def open(cls, options: DatasetOptions) -> Sources:
        """Pairs, or where a source column alone is named the images in it.

        Raises:
            UserError: nothing there, or no such column.
        """
        if options.source_column is not None and options.target_column is None:
            return cls(find_images(options), swap=False, alone=True)
        return cls(find_pairs(PairOptions(**vars(options))), options.swap, alone=False)

    def read(self, row: dict[str, Any], place: str) -> tuple[str, Decoded, Decoded | None]:
        """What errors call the source (its file, where the data say, else `place`), it and, where there is one, the
        target.

        Raises:
            UserError: an image that cannot be read.
        """
        if self.alone:
            column = self.found.columns[0]
            name = row.get("name", f"{place}{file_in_words(row, column)}")
            return name, read_stored(row[column], name), None
        decoder, name = RecordDecoder(self.found.columns, self.swap), row.get("name", place)
        source, target = decoder.read(row, name)
        return decoder.names(row, name)[0], source, target

    def stem(self, row: dict[str, Any], place: str) -> str:
        """What the images made of a row are called: as the source's file, where the data say, else `place`."""
        column = self.found.columns[1 if self.swap and len(self.found.columns) == 2 else 0]
        file = file_of(row, column)
        return Path(file).stem if file else place


@dataclass(frozen=True)
class Shard:
    """Rows that become one file."""

    split: str
    number: int
    count: int  # of files of the split
    rows: range

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}-of-{self.count:05d}"


@dataclass(frozen=True)
class Plan:
    """What a translation is of; going on with another would mix two."""

    model: str
    weights: str  # hash of the generator's file
    dataset: str
    fingerprint: str
    splits: dict[str, int]  # name → rows
    rows_per_file: int
    options: dict[str, Any] = field(default_factory=dict)  # that change pixels

    def shards(self) -> list[Shard]:
        """All files, in order."""
        shards = []
        for split, rows in self.splits.items():
            count = max(1, -(-rows // self.rows_per_file))
            starts = range(0, max(1, rows), self.rows_per_file)
            for number, start in enumerate(starts):
                shards.append(Shard(split, number, count, range(start, min(rows, start + self.rows_per_file))))
        return shards


def unfinished(output: Path) -> Path:
    """Where a translation grows until it is whole."""
    return output.with_name(output.name + UNFINISHED_SUFFIX)


def start(plan: Plan, output: Path) -> IO[str]:
    """Called by the main process, before the others go on: the folder that all write to.

    Returns:
        A file to keep open until `finish`: while it is, nobody else may work on that output.

    Raises:
        UserError: the output exists, or somebody is working on it.
    """
    if output.exists():
        raise UserError(f"--output {output} exists and is never overwritten: name another folder.")
    path = unfinished(output) / PLAN_NAME
    if not path.is_file():
        (path.parent / "data").mkdir(parents=True, exist_ok=True)
        with write_aside(path) as partial:
            partial.write_text(json.dumps(asdict(plan), indent=2) + "\n")
    lock = path.open()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"--output {output}: another translation is being written there. Wait for its end.") from error
    return lock


def check_plan(plan: Plan, output: Path) -> None:
    """Called by every process after `start`.

    Raises:
        UserError: what was begun in the folder is another translation.
    """
    begun = json.loads((unfinished(output) / PLAN_NAME).read_text())
    wanted = json.loads(json.dumps(asdict(plan)))
    if differing := [name for name in wanted if begun.get(name) != wanted[name]]:
        changes = "; ".join(f"{name} {begun.get(name)} → {wanted[name]}" for name in differing)
        raise UserError(
            f"{unfinished(output)} holds another translation that was not finished ({changes}). Go on with its "
            "options, name another --output, or delete that folder."
        )


def translate_shards(
    pipe: Pix2PixPipeline,
    sources: Sources,
    shards: Sequence[Shard],
    output: Path,
    report: Callable[[int], object],
    **options: Any,
) -> None:
    """Translate and write those of `shards` that are not there yet.

    Args:
        pipe: the model.
        sources: what to read from.
        shards: this process's own.
        output: of `start`.
        report: called with the number of rows done.
        options: of `Pix2PixPipeline.__call__`.
    """
    features = Features({name: ImageFeature() for name in _columns(sources)})
    with ThreadPoolExecutor(THREADS) as pool:
        for shard in shards:
            path = _path(output, shard)
            if not path.exists():
                left_out: list[dict[str, Any]] = []
                rows = list(_translated(pipe, sources, shard, pool, left_out, report, options))
                columns = {name: [row[name] for row in rows] for name in features}
                table = Dataset.from_dict(columns, features=features)
                if left_out:
                    with write_aside(_left_out_path(path)) as partial:
                        partial.write_text("".join(json.dumps(line) + "\n" for line in left_out))
                with write_aside(path) as partial:
                    table.to_parquet(partial)
            else:
                report(len(shard.rows))


def _translated(
    pipe: Pix2PixPipeline,
    sources: Sources,
    shard: Shard,
    pool: ThreadPoolExecutor,
    left_out: list[dict[str, Any]],
    report: Callable[[int], object],
    options: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """The rows of one file; those that cannot be read are added to `left_out`."""
    stored = sources.found.splits[shard.split]
    for at in range(shard.rows.start, shard.rows.stop, BATCH_ROWS):
        numbers = range(at, min(shard.rows.stop, at + BATCH_ROWS))
        opened = list(pool.map(lambda number: _opened(pipe, sources, stored, shard.split, number), numbers))
        good = [one for one in opened if not isinstance(one, str)]
        left_out += [
            {"split": shard.split, "row": number, "reason": one}
            for number, one in zip(numbers, opened, strict=True)
            if isinstance(one, str)
        ]
        made = pipe([one.prepared for one in good], **options)
        results = [decoded_result(one, pipe.preprocessor.target) for one in made]
        yield from pool.map(_row, good, results)
        report(len(numbers))


@dataclass(frozen=True, eq=False)
class _Opened:
    name: str  # for errors
    stem: str
    source: Decoded
    target: Decoded | None
    prepared: Prepared


def _opened(pipe: Pix2PixPipeline, sources: Sources, stored: Dataset, split: str, number: int) -> _Opened | str:
    """A row, read; or why it cannot be."""
    row, place = stored[number], f"row {number} of split {split}"
    try:
        name, source, target = sources.read(row, place)
        prepared = prepare_decoded(source, pipe.preprocessor.source, name)
        return _Opened(name, sources.stem(row, place), source, target, prepared)
    except UserError as error:
        return str(error)


def _row(one: _Opened, generated: Decoded) -> dict[str, Any]:
    images = {"source": one.source, "generated": generated} | ({} if one.target is None else {"target": one.target})
    return {
        column: {"bytes": encode(image, one.name), "path": f"{one.stem}{suffix_for(image)}"}
        for column, image in images.items()
    }


def _columns(sources: Sources) -> tuple[str, ...]:
    return ("source", "generated") if sources.alone else ("source", "generated", "target")


def _path(output: Path, shard: Shard) -> Path:
    return unfinished(output) / "data" / f"{shard.name}.parquet"


def _left_out_path(path: Path) -> Path:
    return path.with_suffix(".left_out.jsonl")


def finish(plan: Plan, output: Path, alone: bool) -> list[dict[str, Any]]:
    """Called by the main process when all are done: the folder gets its card and its name; the rows left out."""
    folder = unfinished(output)
    missing = [shard.name for shard in plan.shards() if not _path(output, shard).exists()]
    assert not missing, f"not translated: {missing[:5]}"
    left_out: list[dict[str, Any]] = []
    for shard in plan.shards():
        if (path := _left_out_path(_path(output, shard))).is_file():
            left_out += [json.loads(line) for line in path.read_text().splitlines()]
            path.unlink()
    if left_out:
        (folder / LEFT_OUT_NAME).write_text("".join(json.dumps(line) + "\n" for line in left_out))
    for leftover in folder.rglob(f"*{PARTIAL_SUFFIX}"):  # of a process that was killed
        leftover.unlink()
    (folder / "README.md").write_text(_card(plan, output.name, alone, left_out))
    publish_folder(folder, output)
    return left_out


def _card(plan: Plan, name: str, alone: bool, left_out: list[dict[str, Any]]) -> str:
    counts = Counter(plan.splits) - Counter(line["split"] for line in left_out)
    return CARD.format(
        name=name,
        model=plan.model,
        target="" if alone else "; `target` is the true image",
        counts=", ".join(f"{counted(counts[split], 'image')} in `{split}`" for split in plan.splits) + ".",
        dataset=plan.dataset,
        fingerprint=plan.fingerprint,
    )
