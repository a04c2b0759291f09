"""Streams: every pair once, shuffled, taken up again at the very next pair, bad pairs counted."""

from collections.abc import Callable, Container
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sharded_sets import UNEVEN, png, write_parquet, write_tars

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.bad_pairs import each_once
from pix2pix_hub.data.shards import Span, StreamPlan, cut, shard_and_row, stable_index
from pix2pix_hub.data.stream_source import StreamedPairs, open_stream
from pix2pix_hub.data.streaming import PairStream, Position
from pix2pix_hub.data.transforms import PairTransform
from pix2pix_hub.util import UserError

PLAIN = PairTransform((32, 32), augment=False)


def stream_of(
    pairs: StreamedPairs, batch_size: int = 4, processes: int = 1, process: int = 0, shuffle_buffer: int = 8
) -> PairStream:
    plan = StreamPlan(pairs.spans, 0, batch_size, processes, process)
    return PairStream(pairs.shards, plan, pairs.decoder.decode, PLAIN, shuffle_buffer)


def numbers(batch: dict) -> list[int]:
    """Which pairs a batch holds, by their pixels: source (number, 0, 0), target (0, number, 0)."""
    source, target = (((batch[side] + 1) * 127.5).round().int()[:, :, 0, 0] for side in ("source", "target"))
    assert torch.equal(source[:, 0], target[:, 1])
    assert not source[:, 1:].any()
    return source[:, 0].tolist()


@pytest.fixture
def parquet(tmp_path: Path, datasets_cache: Path) -> StreamedPairs:
    return open_stream(PairOptions(str(write_parquet(tmp_path / "set")), image_size="32"))


def test_the_rows_of_a_stretch_lie_end_to_end() -> None:
    spans = [Span(2, 0, 5), Span(0, 3, 4), Span(1, 0, 10)]
    assert cut(spans, 4, 9) == [Span(2, 4, 5), Span(0, 3, 4), Span(1, 0, 3)]


@given(st.integers(0, 2**20), st.integers(0, 2**32 - 1))
def test_the_index_of_a_pair_names_its_shard_and_row(shard: int, row: int) -> None:
    assert shard_and_row(stable_index(shard, row)) == (shard, row)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=9),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_every_row_is_read_once_by_one_worker(
    lengths: list[int], processes: int, batch_size: int, workers: int, epoch: int
) -> None:
    if sum(lengths) < processes:
        return
    spans = tuple(Span(shard, 0, length) for shard, length in enumerate(lengths))
    read = []
    for process in range(processes):
        plan = StreamPlan(spans, 0, batch_size, processes, process)
        for worker in range(workers):
            work = plan.work(epoch, worker, workers)
            assert sum(map(len, work)) == sum(plan.batch_sizes(worker, workers))
            read += [(span.shard, row) for span in work for row in range(span.start, span.stop or 0)]
    assert sorted(read) == [(span.shard, row) for span in spans for row in range(len(span))]


def test_an_epoch_holds_every_pair_once_in_another_order_each_time(parquet: StreamedPairs) -> None:
    orders = []
    for epoch in range(2):
        stream = stream_of(parquet)
        stream.epoch = epoch
        orders.append([number for batch in stream for number in numbers(batch)])
        assert sorted(orders[-1]) == list(range(101))
    assert orders[0] != orders[1]
    neighbours = sum(abs(a - b) == 1 for a, b in zip(orders[0], orders[0][1:], strict=False))
    assert neighbours < 50  # of 100, in order it would be about 96


def test_every_block_has_an_order_of_its_own(parquet: StreamedPairs) -> None:
    orders: dict[tuple[int, int], list[int]] = {}
    for batch in stream_of(parquet, shuffle_buffer=8):
        for shard, row in map(shard_and_row, batch["index"].tolist()):
            orders.setdefault((shard, row // 8), []).append(row % 8)
    whole = [tuple(order) for order in orders.values() if len(order) == 8]
    assert len(whole) == 11  # of shards of 30, 25 and 40 rows
    assert len(set(whole)) == 11


def test_what_a_sample_looks_like_depends_on_its_place_in_the_set_alone(parquet: StreamedPairs) -> None:
    jitter = PairTransform((32, 32), augment=True, rotation_degrees=10, color_jitter=0.2)

    def samples(batch_size: int, shuffle_buffer: int) -> dict[int, torch.Tensor]:
        stream = stream_of(parquet, batch_size, shuffle_buffer=shuffle_buffer)
        stream.transform = jitter
        return {int(i): image for batch in stream for i, image in zip(batch["index"], batch["source"], strict=True)}

    one, other = samples(4, 8), samples(7, 3)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[index], other[index]) for index in one)


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 10, 25])
def test_a_stream_goes_on_at_the_very_next_pair(taken: int, parquet: StreamedPairs) -> None:
    whole = [numbers(batch) for batch in stream_of(parquet)]
    batches = list(stream_of(parquet))
    again = stream_of(parquet)
    if taken:
        worker, *position = batches[taken - 1]["position"]
        again.positions = {worker: Position(*position)}
    assert [numbers(batch) for batch in again] == whole[taken:]


def test_no_shard_of_unknown_length_is_lost_or_read_twice(tmp_path: Path, datasets_cache: Path) -> None:
    folder = str(write_parquet(tmp_path / "set"))
    pairs = open_stream(PairOptions(folder, image_size="32"), lengths={"train": [None] * len(UNEVEN)})
    assert pairs.expected_pairs is None
    ranks = [[n for batch in stream_of(pairs, 4, 2, rank) for n in numbers(batch)] for rank in range(2)]
    assert sorted(ranks[0] + ranks[1]) == list(range(101))
    assert min(map(len, ranks)) > 0
    with pytest.raises(UserError, match="--num_processes 5"):
        stream_of(pairs, 4, 6)


def test_webdataset_tars_are_counted_and_read(tmp_path: Path, datasets_cache: Path) -> None:
    folder = str(write_tars(tmp_path / "set", (20, 13)))
    names = dict(source_column="source.png", target_column="target.png")
    pairs = open_stream(PairOptions(folder, image_size="32", max_validation_pairs=3, **names))
    assert pairs.spans == (Span(0, 3, 20), Span(1, 0, 13))
    assert sorted(number for batch in stream_of(pairs) for number in numbers(batch)) == list(range(3, 33))


def test_arrow_files_are_counted_and_read(tmp_path: Path, datasets_cache: Path) -> None:
    import datasets

    rows = [{"source": {"bytes": png(n, 0, 0)}, "target": {"bytes": png(0, n, 0)}} for n in range(9)]
    features = datasets.Features({"source": datasets.Image(), "target": datasets.Image()})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved", num_shards=2)
    (tmp_path / "set").mkdir()
    for file in (tmp_path / "saved").glob("*.arrow"):
        file.rename(tmp_path / "set" / f"train-{file.name}")
    pairs = open_stream(PairOptions(str(tmp_path / "set"), image_size="32", max_validation_pairs=1))
    assert sorted(number for batch in stream_of(pairs) for number in numbers(batch)) == list(range(1, 9))


@pytest.mark.parametrize("known", [True, False])
def test_without_a_validation_split_the_first_pairs_are_set_aside(
    known: bool, tmp_path: Path, datasets_cache: Path
) -> None:
    folder = str(write_parquet(tmp_path / "set", (3, 4, 5), validation=0))
    lengths = None if known else {"train": [None] * 3}
    pairs = open_stream(PairOptions(folder, image_size="32", max_validation_pairs=5, direction="BtoA"), lengths=lengths)
    assert [int(pairs.validation[k][0][1, 0, 0]) for k in range(len(pairs.validation))] == [0, 1, 2, 3, 4]
    pairs = open_stream(PairOptions(folder, image_size="32", max_validation_pairs=5), lengths=lengths)
    assert sorted(number for batch in stream_of(pairs) for number in numbers(batch)) == list(range(5, 12))


def break_pairs(pairs: StreamedPairs, bad: Container[int]) -> Callable:
    """The set's decoder, which refuses some pairs."""

    def decode(row: dict, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        source, target = pairs.decoder.decode(row, name)
        if int(source[0, 0, 0]) in bad:
            raise UserError(f"{name} is bad.")
        return source, target

    return decode


def test_a_bad_pair_is_left_out_and_named(parquet: StreamedPairs) -> None:
    stream = stream_of(parquet)
    stream.decode = break_pairs(parquet, [30, 77])
    batches = list(stream)
    assert len(batches) == 26
    assert sorted(number for batch in batches for number in numbers(batch)) == sorted(set(range(101)) - {30, 77})
    faults = each_once(fault for batch in batches for fault in batch["bad_pairs"])
    assert [fault.reason for fault in faults] == [
        "row 0 of shard 1 of split train is bad.",
        "row 21 of shard 3 of split train is bad.",
    ]
    assert [(fault.split, *fault.place) for fault in faults] == [("train", 1, 0), ("train", 3, 21)]


def test_where_a_batch_would_be_empty_a_neighbour_stands_in(parquet: StreamedPairs) -> None:
    stream = stream_of(parquet, batch_size=1)
    stream.decode = break_pairs(parquet, [0, 1, 2])
    seen = [number for batch in stream for number in numbers(batch)]
    assert len(seen) == 101  # the steps that the other processes take
    assert set(seen) == set(range(3, 101))


def test_where_a_whole_shard_is_bad_a_pair_of_another_stands_in(parquet: StreamedPairs) -> None:
    stream = stream_of(parquet, batch_size=1)
    stream.decode = break_pairs(parquet, [30])  # the only one of its shard
    batches = list(stream)
    assert len(batches) == 101
    assert [n for batch in batches if batch["bad_pairs"] for n in numbers(batch)] == [0]


def test_where_nothing_stands_in_a_batch_has_no_images(parquet: StreamedPairs) -> None:
    stream = stream_of(parquet, batch_size=1)
    stream.decode = break_pairs(parquet, range(101))
    first = next(iter(stream))
    assert first.keys() == {"bad_pairs", "position"}


@pytest.mark.parametrize(
    "content,words",
    [("image", "leave --streaming out"), ("saved", "leave --streaming out"), ("split", "validation, train|train, val")],
)
def test_what_cannot_be_streamed_is_refused_in_words(
    content: str, words: str, tmp_path: Path, datasets_cache: Path
) -> None:
    folder = write_parquet(tmp_path / "set", (2,))
    options = {"train_split": "training"} if content == "split" else {}
    if content != "split":
        (folder / ("state.json" if content == "saved" else "a.png")).write_bytes(png(0, 0, 0))
    if content == "image":
        for file in folder.glob("*.parquet"):
            file.unlink()
    with pytest.raises(UserError, match=words):
        open_stream(PairOptions(str(folder), image_size="32", **options))


def test_side_by_side_images_of_gray_pixels_are_streamed(tmp_path: Path, datasets_cache: Path) -> None:
    import datasets
    from PIL import Image

    wide = [Image.new("L", (64, 32), 0) for _ in range(9)]
    for number, image in enumerate(wide):
        image.paste(number, (0, 0, 32, 32))
        image.paste(100 + number, (32, 0, 64, 32))
    (tmp_path / "set").mkdir()
    rows = datasets.Dataset.from_dict({"image": wide}, features=datasets.Features({"image": datasets.Image()}))
    rows.to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    pairs = open_stream(PairOptions(str(tmp_path / "set"), image_size="32", max_validation_pairs=2, direction="BtoA"))
    assert [pairs.formats[side].mode for side in ("source", "target")] == ["gray", "gray"]
    assert "right half → left half, 32x64" in pairs.description
    stream = stream_of(pairs)
    stream.transform = PairTransform((32, 32), augment=False, formats=pairs.formats)
    batches = list(stream)
    values = {side: torch.cat([(b[side][:, :, 0, 0] + 1) * 127.5 for b in batches]).round() for side in pairs.formats}
    assert sorted(values["target"].flatten().tolist()) == list(range(2, 9))
    assert torch.equal(values["source"], values["target"] + 100)


def test_the_formats_are_those_of_training_pairs_too(tmp_path: Path, datasets_cache: Path) -> None:
    import datasets
    from PIL import Image

    (tmp_path / "set").mkdir()
    features = datasets.Features({"source": datasets.Image(), "target": datasets.Image()})
    for split, mode in (("train", "RGB"), ("validation", "L")):
        image = Image.new(mode, (32, 32))
        rows = datasets.Dataset.from_dict({"source": [image], "target": [image]}, features=features)
        rows.to_parquet(tmp_path / "set" / f"{split}-00000-of-00001.parquet")
    pairs = open_stream(PairOptions(str(tmp_path / "set"), image_size="32"))
    assert pairs.formats["source"].mode == "rgb"
    assert pairs.validation[0][0].shape == (3, 32, 32)


def test_bad_validation_pairs_are_named_or_skipped(tmp_path: Path, datasets_cache: Path) -> None:
    import datasets

    folder = write_parquet(tmp_path / "set", (4,), validation=0)
    stored = [png(1, 0, 0), b"no image", png(2, 0, 0)]
    features = datasets.Features({"source": datasets.Image(), "target": datasets.Image()})
    rows = [{"source": {"bytes": content}, "target": {"bytes": content}} for content in stored]
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "validation-00000-of-00001.parquet")
    with pytest.raises(UserError, match="row 1 of shard 0 of split validation"):
        open_stream(PairOptions(str(folder), image_size="32"))
    pairs = open_stream(PairOptions(str(folder), image_size="32", on_bad_pair="skip"))
    assert len(pairs.validation) == 2
    assert pairs.validation.name(1) == "row 2 of shard 0 of split validation"
    assert len(pairs.findings.faults) == 1
