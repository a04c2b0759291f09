"""Streams: every pair once, shuffled, taken up again at the very next pair, bad pairs counted."""

from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image
from sharded_sets import UNEVEN, png, write_parquet, write_tars

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.decode import PairDataset, each_once
from pix2pix_hub.data.order import BlockSampler, ProcessBatches
from pix2pix_hub.data.pairs import PairSplits
from pix2pix_hub.data.stream import StreamTensors, open_stream, rows_of
from pix2pix_hub.data.transforms import PairTransform, collate
from pix2pix_hub.util import UserError

PLAIN = PairTransform((32, 32), augment=False)
pytestmark = pytest.mark.usefixtures("datasets_cache")


def open_set(
    folder: Path, *, block: int = 1000, lengths: Any = None, findings: Any = None, **options: Any
) -> PairSplits:
    return open_stream(PairOptions(str(folder), image_size="32", **options), block, lengths=lengths, findings=findings)


def write_images(folder: Path, split: str, **columns: list[Any]) -> Path:
    """A Parquet file of images, or of what is stored of them."""
    folder.mkdir(exist_ok=True)
    features = datasets.Features({name: datasets.Image() for name in columns})
    rows = datasets.Dataset.from_dict(columns, features=features)
    rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def stream(
    train: PairDataset, batch_size: int = 4, *, epoch: int = 0, taken: int = 0, transform: PairTransform = PLAIN
) -> Iterator[dict[str, Any]]:
    """The batches of an epoch, or what is left of them."""
    places = train.indices
    blocks = [places.blocks(number, train.rows.block) for number in range(len(places.stretches))]
    sampler = BlockSampler(blocks, workers=1)
    sampler.set_epoch(epoch)
    batches = ProcessBatches(sampler, batch_size)
    batches.taken = taken
    tensors = StreamTensors(train, transform)
    return (collate(tensors.__getitems__(keys)) for keys in batches)


def seen(batches: Iterator[dict[str, Any]]) -> list[int]:
    """Which pairs batches hold."""
    return [number for batch in batches for number in numbers(batch)]


def numbers(batch: dict) -> list[int]:
    """Which pairs a batch holds, by their pixels: source (number, 0, 0), target (0, number, 0)."""
    source, target = (((batch[side] + 1) * 127.5).round().int()[:, :, 0, 0] for side in ("source", "target"))
    assert torch.equal(source[:, 0], target[:, 1])
    assert not source[:, 1:].any()
    return source[:, 0].tolist()


@pytest.fixture
def train(tmp_path: Path) -> PairDataset:
    return open_set(write_parquet(tmp_path / "set"), block=8).train


def test_an_epoch_holds_every_pair_once_in_another_order_each_time(train: PairDataset) -> None:
    orders = [seen(stream(train, epoch=epoch)) for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(101))
    assert orders[0] != orders[1]
    neighbours = sum(abs(a - b) == 1 for a, b in zip(orders[0], orders[0][1:], strict=False))
    assert neighbours < 50  # of 100, in order it would be about 96
    blocks: dict[tuple[int, int], list[int]] = {}  # each has an order of its own
    for batch in stream(train):
        for shard, row in (train.indices[index] for index in batch["index"].tolist()):
            blocks.setdefault((shard, row // 8), []).append(row % 8)
    whole = [tuple(order) for order in blocks.values() if len(order) == 8]
    assert len(whole) == len(set(whole)) == 11  # of shards of 30, 25 and 40 rows


def test_what_a_sample_looks_like_depends_on_its_place_in_the_set_alone(train: PairDataset) -> None:
    jitter = PairTransform((32, 32), augment=True, rotation_degrees=10, color_jitter=0.2)

    def samples(batch_size: int) -> dict[int, torch.Tensor]:
        batches = stream(train, batch_size, transform=jitter)
        return {int(i): image for batch in batches for i, image in zip(batch["index"], batch["source"], strict=True)}

    one, other = samples(4), samples(7)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[index], other[index]) for index in one)


def test_a_stream_goes_on_at_the_very_next_pair(train: PairDataset) -> None:
    whole = [numbers(batch) for batch in stream(train)]
    for taken in (0, 1, 2, 3, 10, 25):
        assert [numbers(batch) for batch in stream(train, taken=taken)] == whole[taken:]


def test_a_worker_reads_each_row_once(train: PairDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[int] = Counter()

    def counting(rows: Any, shard: int, start: int = 0) -> Iterator[dict[str, Any]]:
        for row in rows_of(rows, shard, start):
            read[shard] += 1
            yield row

    monkeypatch.setattr("pix2pix_hub.data.stream.rows_of", counting)
    assert len(seen(stream(train))) == 101
    assert [read[shard] for shard in range(5)] == [*UNEVEN]


def test_webdataset_tars_are_counted_once_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tars(tmp_path / "set", (20, 13))
    options = dict(source_column="source.png", target_column="target.png", max_validation_pairs=3)
    pairs = open_set(folder, **options)
    assert pairs.lengths == [20, 13]
    assert sorted(seen(stream(pairs.train))) == list(range(3, 33))
    monkeypatch.setattr("pix2pix_hub.data.stream.shard_lengths", lambda *a: pytest.fail("they were counted again"))
    again = open_set(folder, lengths=pairs.lengths, findings=pairs.findings, **options)
    assert seen(stream(again.train)) == seen(stream(pairs.train))


def test_arrow_files_are_counted_and_read(tmp_path: Path) -> None:
    rows = [{"source": {"bytes": png(n, 0, 0)}, "target": {"bytes": png(0, n, 0)}} for n in range(9)]
    features = datasets.Features({"source": datasets.Image(), "target": datasets.Image()})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved", num_shards=2)
    (tmp_path / "set").mkdir()
    for file in (tmp_path / "saved").glob("*.arrow"):
        file.rename(tmp_path / "set" / f"train-{file.name}")
    pairs = open_set(tmp_path / "set", max_validation_pairs=1)
    assert sorted(seen(stream(pairs.train))) == list(range(1, 9))


def test_without_a_validation_split_the_first_pairs_are_set_aside(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", (3, 4, 5), validation=0)
    pairs = open_set(folder, max_validation_pairs=5, direction="BtoA")
    assert [int(pairs.validation[k][0][1, 0, 0]) for k in range(len(pairs.validation))] == [0, 1, 2, 3, 4]
    pairs = open_set(folder, max_validation_pairs=5, max_train_pairs=4)
    assert sorted(seen(stream(pairs.train))) == [5, 6, 7, 8]


def break_pairs(train: PairDataset, bad: Container[int]) -> PairDataset:
    """The same pairs, of which some cannot be decoded."""

    class Spoiled(PairDataset):
        def decode(self, row: Any, name: str) -> Any:
            source, target = super().decode(row, name)
            if source.picture().getpixel((0, 0))[0] in bad:
                raise UserError(f"{name} is bad.")
            return source, target

    return Spoiled(**vars(train))


def test_a_bad_pair_is_left_out_and_named(train: PairDataset) -> None:
    batches = list(stream(break_pairs(train, [30, 77])))
    assert len(batches) == 26
    assert sorted(seen(iter(batches))) == sorted(set(range(101)) - {30, 77})
    faults = each_once(fault for batch in batches for fault in batch["bad_pairs"])
    assert [fault.reason for fault in faults] == [
        "row 0 of shard 1 of split train is bad.",
        "row 21 of shard 3 of split train is bad.",
    ]
    assert [(fault.split, *fault.place) for fault in faults] == [("train", 1, 0), ("train", 3, 21)]


@pytest.mark.parametrize(
    ("bad", "stand_in"),
    [([0, 1, 2], None), ([30], 0)],  # a neighbour's; the only one of its shard, so one of another's
)
def test_where_a_batch_would_be_empty_another_pair_stands_in(
    bad: list[int], stand_in: int | None, train: PairDataset
) -> None:
    batches = list(stream(break_pairs(train, bad), 1))
    assert len(batches) == 101  # the steps that the other processes take
    assert set(seen(iter(batches))) == set(range(101)) - {*bad}
    assert stand_in is None or [n for batch in batches if batch["bad_pairs"] for n in numbers(batch)] == [stand_in]


def test_where_nothing_stands_in_a_batch_has_no_images(train: PairDataset) -> None:
    assert next(stream(break_pairs(train, range(101)), 1)).keys() == {"bad_pairs"}


@pytest.mark.parametrize("content", ["image", "saved"])
def test_what_cannot_be_streamed_is_refused_in_words(content: str, tmp_path: Path) -> None:
    folder = tmp_path / "images" if content == "image" else write_parquet(tmp_path / "set", (2,))
    folder.mkdir(exist_ok=True)
    (folder / ("state.json" if content == "saved" else "a.png")).write_bytes(png(0, 0, 0))
    with pytest.raises(UserError, match="leave --streaming out"):
        open_set(folder)


def test_splits_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="validation, train|train, val"):
        open_set(write_parquet(tmp_path / "set", (2,)), train_split="training")


def test_side_by_side_images_of_gray_pixels_are_streamed(tmp_path: Path) -> None:
    wide = [Image.new("L", (64, 32), number) for number in range(9)]
    for number, image in enumerate(wide):
        image.paste(100 + number, (32, 0, 64, 32))
    pairs = open_set(write_images(tmp_path / "set", "train", image=wide), max_validation_pairs=2, direction="BtoA")
    assert [pairs.formats[side].mode for side in ("source", "target")] == ["gray", "gray"]
    assert "right half → left half, 32x64" in pairs.description
    batches = list(stream(pairs.train, transform=PairTransform((32, 32), augment=False, formats=pairs.formats)))
    values = {side: torch.cat([(b[side][:, :, 0, 0] + 1) * 127.5 for b in batches]).round() for side in pairs.formats}
    assert sorted(values["target"].flatten().tolist()) == list(range(2, 9))
    assert torch.equal(values["source"], values["target"] + 100)


def test_the_formats_are_those_of_training_pairs_too(tmp_path: Path) -> None:
    for split, mode in (("train", "RGB"), ("validation", "L")):
        image = [Image.new(mode, (32, 32))]
        write_images(tmp_path / "set", split, source=image, target=image)
    pairs = open_set(tmp_path / "set")
    assert pairs.formats["source"].mode == "rgb"
    assert pairs.validation[0][0].shape == (3, 32, 32)


def test_bad_validation_pairs_are_named_or_skipped(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", (4,), validation=0)
    stored = [{"bytes": content, "path": None} for content in (png(1, 0, 0), b"no image", png(2, 0, 0))]
    write_images(folder, "validation", source=stored, target=stored)
    with pytest.raises(UserError, match="row 1 of shard 0 of split validation"):
        open_set(folder)
    pairs = open_set(folder, on_bad_pair="skip")
    assert len(pairs.validation) == 2
    assert pairs.validation.name(1) == "row 2 of shard 0 of split validation"
    assert len(pairs.findings.faults) == 1
