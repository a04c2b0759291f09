"""Streamed sets: what can be streamed, how many rows its shards have, which of them validate.

Parquet says in a few kB at the end of each file how many rows it has; Arrow files and tars on this machine are counted
by their headers. Where the lengths are not known (a WebDataset on the Hub) shards are shared out whole.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, IterableDataset
from datasets import Image as ImageFeature
from datasets.utils.file_utils import xopen

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.bad_pairs import Place
from pix2pix_hub.data.examine import FIRST_PAIRS, Findings, examine
from pix2pix_hub.data.files import fingerprint
from pix2pix_hub.data.hub_source import describe, open_on_hub
from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.pairs import choose_columns
from pix2pix_hub.data.records import RecordDecoder
from pix2pix_hub.data.shards import Span
from pix2pix_hub.data.splits import VALIDATION_FRACTION, VALIDATION_NAMES
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.util import UserError, counted

READ_ROWS = 16  # taken from `datasets` at a time
HELD_OUT_PAIRS = 256  # validation pairs at most, where --max-validation-pairs does not say
COUNTING_THREADS = 16
FORMS = (
    "--streaming reads Parquet, Arrow and WebDataset files, in a folder or on the Hub (user/name), with two image "
    "columns or one of side-by-side images. Folders of images and `save_to_disk` folders are read pair by pair "
    "anyway: leave --streaming out."
)
Lengths = Mapping[str, Sequence[int | None]]  # of a split's shards, in rows


@dataclass(frozen=True)
class StreamShards:
    """The undecoded rows of a streamed split."""

    rows_of: IterableDataset
    split: str

    def rows(self, shard: int, start: int, stop: int | None) -> Iterator[dict[str, Any]]:
        """Rows `start` to `stop` of a shard.

        Not by iterating over the set: in a worker of a `DataLoader` `datasets` would deal out the shards itself.
        """
        one = self.rows_of.shard(self.rows_of.num_shards, shard).skip(start)
        batches = one.iter(READ_ROWS)
        rows = (dict(zip(batch, row, strict=True)) for batch in batches for row in zip(*batch.values(), strict=True))
        return islice(rows, None if stop is None else stop - start)

    def name(self, shard: int, row: int) -> str:
        """Where a person finds the pair."""
        return place_name(self.split, shard, row)


def place_name(split: str, shard: int, row: int) -> str:
    """What a streamed pair is called."""
    return f"row {row} of shard {shard} of split {split}"


@dataclass(frozen=True)
class HeldPairs(PairDataset):
    """Pairs of a stream in memory, undecoded; they go by their places in the shards."""

    places: Sequence[tuple[int, int]] = ()  # shard and row of the rows

    def name(self, index: int) -> str:
        """Where a person finds the pair."""
        return place_name(self.split, *self.places[self.indices[index]])

    def place(self, index: int) -> Place:
        """Where in its split the pair is."""
        return self.places[self.indices[index]]


@dataclass(frozen=True)
class StreamedPairs:
    """What a streamed set trains and validates on; the fields that `PairSplits` has mean the same."""

    shards: StreamShards
    spans: tuple[Span, ...]  # to train on
    decoder: RecordDecoder
    expected_pairs: int | None  # in an epoch; None: nobody knows
    validation: PairDataset
    description: str
    form: str
    fingerprint: str
    dataset: str
    lengths: Lengths  # for the other processes, which then need not count …
    findings: Findings  # … nor look: at the validation pairs, and at the first ones of another training split

    @property
    def formats(self) -> dict[str, PixelFormat]:
        """How the pixels of each side are stored: "source", "target"."""
        return self.validation.formats


def open_stream(
    request: PairOptions, *, lengths: Lengths | None = None, findings: Findings | None = None
) -> StreamedPairs:
    """Open a data set without reading more than its validation pairs and the lengths of its shards.

    Args:
        request: of a folder or a Hub data set; what is streamed and bad is left to the loader.
        lengths: of the shards, from a process that has counted them.
        findings: of the first pairs, from a process that has looked at them.

    Raises:
        UserError: nothing there, a form that is not streamed, columns or splits unknown, bad pairs, too few pairs.
    """
    dataset = request.dataset
    builder, mark = _builder(request)
    try:
        streams = {str(name): stream for name, stream in builder.as_streaming_dataset().items()}
    except Exception as error:
        raise UserError(f"--dataset {dataset} could not be streamed ({describe(error)}). {FORMS}") from error
    validation_split = _validation_split(list(streams), request)
    columns = choose_columns(streams[request.train_split].features, request)
    streams = {name: _undecoded(stream, columns) for name, stream in streams.items()}
    lengths = lengths or {request.train_split: _lengths(builder, request.train_split, streams[request.train_split])}
    decoder = RecordDecoder(columns, request.swap)
    spans, parts = _parts(request, streams, validation_split, decoder, lengths)
    findings = findings or examine(parts, request, everything=True, skip=request.on_bad_pair == "skip")
    validation = findings.applied_to(parts[0])
    if not len(validation):
        raise UserError(f"--dataset {dataset}: no sound validation pair is left.")
    expected = _expected(spans, builder.info.splits, request.train_split)
    return StreamedPairs(
        StreamShards(streams[request.train_split], request.train_split),
        tuple(spans),
        decoder.with_formats(findings.source, findings.target),
        expected,
        validation,
        _describe(request, decoder, findings, expected, len(spans), len(validation), validation_split),
        "stream",
        mark,
        dataset,
        lengths,
        findings,
    )


def _parts(
    request: PairOptions,
    streams: Mapping[str, IterableDataset],
    validation_split: str | None,
    decoder: RecordDecoder,
    lengths: Lengths,
) -> tuple[list[Span], list[PairDataset]]:
    """What to train on, and what is held in memory: the validation pairs, the first of another training split."""
    split = request.train_split
    spans = [Span(number, 0, length) for number, length in enumerate(lengths[split])]
    count = request.max_validation_pairs or _default_validation_count(spans, request, validation_split)
    held_out = validation_split or split
    validation, taken = _first_rows(StreamShards(streams[held_out], held_out), count, decoder)
    if validation_split is None:
        spans = _without_first(spans, taken)
    spans = _limited(spans, request)
    if held_out == split:
        return spans, [validation]
    count = min(FIRST_PAIRS, request.max_train_pairs or FIRST_PAIRS)
    return spans, [validation, _first_rows(StreamShards(streams[split], split), count, decoder)[0]]


def _describe(
    request: PairOptions,
    decoder: RecordDecoder,
    findings: Findings,
    expected: int | None,
    shards: int,
    validation: int,
    validation_split: str | None,
) -> str:
    source, target = decoder.sides
    pairs = "pairs" if expected is None else counted(expected, "pair")
    note = "" if validation_split else f" set aside from {request.train_split}"
    height, width = request.image_height_width
    pixels = dict.fromkeys([findings.source.describe(), findings.target.describe()])
    return (
        f"{pairs} in {counted(shards, 'shard')}, streamed, and {counted(validation, 'validation pair')}{note}, "
        f"{request.direction}: {source} → {target}, {findings.sizes} (of the first) → "
        f"{height}x{width}, {' → '.join(pixels)}"
    )


# -------------------------------------------------------------------------------------------------------- opening


def _builder(request: PairOptions) -> tuple[Any, str]:
    """The `datasets` builder, and what identifies the data."""
    path = Path(request.dataset).expanduser()
    if not path.exists():
        return open_on_hub(request.dataset, request.dataset_revision, FORMS, datasets.load_dataset_builder)
    saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    known = [suffix for suffix in (".parquet", ".arrow", ".tar") if any(path.rglob(f"*{suffix}"))]
    if saved or not path.is_dir() or not known:
        raise UserError(f"--dataset {request.dataset} is not streamed. {FORMS}")
    try:
        return datasets.load_dataset_builder(str(path)), fingerprint(path)
    except Exception as error:
        raise UserError(f"--dataset {request.dataset} could not be read ({describe(error)}). {FORMS}") from error


def _validation_split(splits: Sequence[str], request: PairOptions) -> str | None:
    for flag, split in (("train", request.train_split), ("validation", request.validation_split)):
        if split is not None and split not in splits:
            raise UserError(f"--{flag}-split {split}: {request.dataset} has {', '.join(splits)}. Name one of them.")
    names = (name for name in VALIDATION_NAMES if name != request.train_split and name in splits)
    return request.validation_split or next(names, None)


def _undecoded(stream: IterableDataset, columns: Sequence[str]) -> IterableDataset:
    stream = stream.select_columns(list(columns))
    for column in columns:
        stream = stream.cast_column(column, ImageFeature(decode=False))
    return stream


# ------------------------------------------------------------------------------------------------ lengths, splits


def _lengths(builder: Any, split: str, stream: IterableDataset) -> list[int | None]:
    """Rows of each shard, None where that is not known without reading it."""
    files = [str(file) for file in (builder.config.data_files or {}).get(split, [])]
    if len(files) != stream.num_shards:
        return [None] * stream.num_shards
    with ThreadPoolExecutor(COUNTING_THREADS) as pool:
        return list(pool.map(partial(_rows_in, token=builder.token), files))


def _rows_in(file: str, token: str | None = None) -> int | None:
    if file.endswith(".parquet"):
        with xopen(file, "rb", download_config=datasets.DownloadConfig(token=token)) as content:
            return pq.ParquetFile(content).metadata.num_rows
    if file.endswith(".arrow") and Path(file).is_file():
        return _arrow_rows(file)
    if file.endswith(".tar") and Path(file).is_file():
        return _examples_in_tar(file)
    return None


def _arrow_rows(file: str) -> int:
    """Of either Arrow format; the pixels stay on disk."""
    with pa.memory_map(file) as content:
        try:
            return pa.ipc.open_stream(content).read_all().num_rows
        except pa.ArrowInvalid:
            return pa.ipc.open_file(content).read_all().num_rows


def _examples_in_tar(file: str) -> int:
    """Runs of members that share their name up to its first dot, which is what `datasets` makes one example of."""
    count, current = 0, None
    with tarfile.open(file) as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, dot, _ = name.partition(".")
            if member.isfile() and stem and dot and (folder, stem) != current:
                count, current = count + 1, (folder, stem)
    return count


def _default_validation_count(spans: Sequence[Span], request: PairOptions, validation_split: str | None) -> int:
    """A fraction of a small set; never more than can be held in memory."""
    if validation_split is not None or any(span.stop is None for span in spans):
        return HELD_OUT_PAIRS
    return max(1, min(HELD_OUT_PAIRS, round(sum(map(len, spans)) * VALIDATION_FRACTION)))


def _first_rows(shards: StreamShards, count: int, decoder: RecordDecoder) -> tuple[PairDataset, Counter[int]]:
    """The first `count` pairs of a split, in memory, undecoded; and how many of each shard they are."""
    rows: list[dict[str, Any]] = []
    places: list[tuple[int, int]] = []
    taken: Counter[int] = Counter()
    for shard in range(shards.rows_of.num_shards):
        for row, stored in enumerate(shards.rows(shard, 0, count - len(rows))):
            rows.append(stored)
            places.append((shard, row))
            taken[shard] += 1
        if len(rows) == count:
            break
    if not rows:
        raise UserError(f"split {shards.split}: no pairs there. Name another with --train-split or --validation-split.")
    return HeldPairs(cast(Dataset, rows), range(len(rows)), decoder, shards.split, places), taken


def _without_first(spans: Sequence[Span], taken: Mapping[int, int]) -> list[Span]:
    """What is left to train on when the first rows of some shards validate."""
    shorter = [Span(span.shard, taken.get(span.shard, 0), span.stop) for span in spans]
    left = [span for span in shorter if span.stop is None or len(span)]
    if not left:
        raise UserError("--streaming: all pairs are set aside for validation. Give a smaller --max-validation-pairs.")
    return left


def _limited(spans: list[Span], request: PairOptions) -> list[Span]:
    """The first `--max-train-pairs` of them."""
    if request.max_train_pairs is None:
        return spans
    left, wanted = [], request.max_train_pairs
    for span in spans:
        if span.stop is None:
            raise UserError("--max-train-pairs needs shards of known length, which these are not: use --max-steps.")
        if taken := min(wanted, len(span)):
            left.append(Span(span.shard, span.start, span.start + taken))
        wanted -= taken
    return left


def _expected(spans: Sequence[Span], infos: Mapping[str, Any] | None, split: str) -> int | None:
    """Pairs in an epoch: counted, else what the set's own metadata say."""
    if all(span.stop is not None for span in spans):
        return sum(map(len, spans))
    stated = infos[split].num_examples if infos and split in infos else None
    return None if stated is None else stated - sum(span.start for span in spans)
