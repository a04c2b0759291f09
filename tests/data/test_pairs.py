"""Every form of pairs, the splits, and what people are told when something does not fit."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError
from PIL import Image

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data import pairs as pairs_module
from pix2pix_hub.data.pairs import KNOWN_COLUMNS, PairSplits, load_pairs
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.util import UserError

SIZE = "32"


def pil_to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def side(index: int, b: bool = False, height: int = 8, width: int = 8) -> Image.Image:
    """A known image: side A or B of pair `index`."""
    rng = np.random.default_rng([index, b])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def beside(index: int, height: int = 8, width: int = 8) -> Image.Image:
    picture = Image.new("RGB", (2 * width, height))
    picture.paste(side(index, False, height, width), (0, 0))
    picture.paste(side(index, True, height, width), (width, 0))
    return picture


def write_folder(root: Path, **counts: int) -> Path:
    """`root/<split>/<index>.png`, side by side; split "flat" is `root` itself."""
    for split, count in counts.items():
        folder = root if split == "flat" else root / split
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            beside(index).save(folder / f"{index}.png")
    return root


def table(count: int, a: str = "imageA", b: str = "imageB", **more: list[Any]) -> Dataset:
    columns = {a: [side(i) for i in range(count)], b: [side(i, True) for i in range(count)], **more}
    return Dataset.from_dict(columns).cast_column(a, ImageFeature()).cast_column(b, ImageFeature())


def load(dataset: Path | str, **options: Any) -> PairSplits:
    how = {name: options.pop(name) for name in ("check", "findings") if name in options}
    return load_pairs(PairOptions(str(dataset), **{"image_size": SIZE, **options}), **how)


def message(dataset: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(dataset, **options)
    return str(caught.value)


# ------------------------------------------------------------------------------ the same content in every form


def as_folder(root: Path) -> Path:
    return write_folder(root, train=5, val=2)


def as_upper_case_folder(root: Path) -> Path:
    for file in write_folder(root, train=5, validation=2).rglob("*.png"):
        file.rename(file.with_suffix(".PNG"))
    return root


def as_tiff(root: Path) -> Path:
    for file in write_folder(root, train=5, val=2).rglob("*.png"):
        Image.open(file).save(file.with_suffix(".tif"))
        file.unlink()
    return root


def as_saved_dict(root: Path) -> Path:
    DatasetDict(train=table(5), validation=table(2)).save_to_disk(root)
    return root


def as_parquet_folder(root: Path) -> Path:
    root.mkdir()
    table(5).to_parquet(root / "train-00000-of-00001.parquet")
    table(2).to_parquet(root / "validation-00000-of-00001.parquet")
    return root


def as_parquet_of_plain_bytes(root: Path) -> Path:
    """As pandas or Arrow write it: binary columns, nothing that says image."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir()
    for split, count in (("train", 5), ("validation", 2)):
        columns = {"source": [png(side(i)) for i in range(count)], "target": [png(side(i, True)) for i in range(count)]}
        pq.write_table(pa.table(columns), root / f"{split}.parquet")
    return root


def as_imagefolder(root: Path) -> Path:
    for split, count in (("train", 5), ("validation", 2)):
        (root / split).mkdir(parents=True)
        lines = []
        for i in range(count):
            side(i).save(root / split / f"{i}_a.png")
            side(i, True).save(root / split / f"{i}_b.png")
            lines.append(f'{{"input_file_name": "{i}_a.png", "output_file_name": "{i}_b.png"}}\n')
        (root / split / "metadata.jsonl").write_text("".join(lines))
    return root


def as_side_by_side_column(root: Path) -> Path:
    """One image column, as `load_dataset("imagefolder")` of a folder of pairs and `push_to_hub` leave it."""
    root.mkdir()
    for split, count in (("train", 5), ("validation", 2)):
        rows = Dataset.from_dict({"image": [beside(i) for i in range(count)], "caption": ["x"] * count})
        rows.cast_column("image", ImageFeature()).to_parquet(root / f"{split}.parquet")
    return root


def as_arrow_folder(root: Path) -> Path:
    """Arrow files that `datasets` wrote, without the `save_to_disk` folder around them."""
    root.mkdir()
    for split, count in (("train", 5), ("validation", 2)):
        table(count).save_to_disk(root.parent / split)
        (root.parent / split / "data-00000-of-00001.arrow").rename(root / f"{split}.arrow")
    return root


def as_webdataset(root: Path) -> Path:
    import tarfile

    root.mkdir()
    for split, count in (("train", 5), ("validation", 2)):
        with tarfile.open(root / f"{split}-000.tar", "w") as tar:
            for i in range(count):
                for name, image in (("source", side(i)), ("target", side(i, True))):
                    member = tarfile.TarInfo(f"{i:04d}.{name}.png")
                    member.size = len(content := png(image))
                    tar.addfile(member, io.BytesIO(content))
    return root


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def in_folders(layout: str, suffixes: tuple[str, str] = (".png", ".png"), name: str = "{}") -> Callable[[Path], Path]:
    """A writer of sides in folders of their own: `layout` with "S" for the split and "X" for the side."""

    def write(root: Path) -> Path:
        for split, count in (("train", 5), ("val", 2)):
            for b, suffix in enumerate(suffixes):
                folder = root / layout.replace("S", split).replace("X", "AB"[b])
                folder.mkdir(parents=True)
                for index in range(count):
                    side(index, bool(b)).save(folder / (name.format(index) + suffix))
        return root

    return write


FORMS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "folder": (as_folder, "side by side"),
    "upper case, validation/": (as_upper_case_folder, "side by side"),
    "tiff": (as_tiff, "side by side"),
    "save_to_disk": (as_saved_dict, "two columns"),
    "parquet folder": (as_parquet_folder, "two columns"),
    "parquet of plain bytes": (as_parquet_of_plain_bytes, "two columns"),
    "imagefolder with metadata": (as_imagefolder, "two columns"),
    "arrow folder": (as_arrow_folder, "two columns"),
    "webdataset": (as_webdataset, "two columns"),
    "one column of side-by-side images": (as_side_by_side_column, "side by side"),
    "train/A train/B": (in_folders("S/X"), "paired folders"),
    "A/train B/train": (in_folders("X/S"), "paired folders"),
    "trainA trainB": (in_folders("SX"), "paired folders"),
    "train_A train_B": (in_folders("S_X"), "paired folders"),
    "other suffixes": (in_folders("S/X", (".tif", ".BMP"), "photo.no.{}"), "paired folders"),
}


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
@pytest.mark.parametrize(("write", "form"), FORMS.values(), ids=FORMS.keys())
def test_every_form_gives_the_same_tensors(
    write: Callable[[Path], Path], form: str, direction: str, tmp_path: Path, datasets_cache: Path
) -> None:
    splits = load(write(tmp_path / "pairs"), direction=direction)
    assert (splits.form, len(splits.train), len(splits.validation)) == (form, 5, 2)
    for part in (splits.train, splits.validation):
        for index, pair in enumerate(part):
            sides = (pil_to_tensor(side(index)), pil_to_tensor(side(index, True)))
            expected = sides if direction == "AtoB" else sides[::-1]
            assert all(torch.equal(*both) for both in zip(pair, expected, strict=True))


def test_a_single_parquet_file_is_read(tmp_path: Path, datasets_cache: Path) -> None:
    table(6).to_parquet(tmp_path / "pairs.parquet")
    splits = load(tmp_path / "pairs.parquet")
    assert (len(splits.train), len(splits.validation)) == (5, 1)


def test_a_saved_set_without_splits_is_the_training_split(tmp_path: Path) -> None:
    table(6).save_to_disk(tmp_path / "saved")
    splits = load(tmp_path / "saved")
    assert (len(splits.train), len(splits.validation)) == (5, 1)
    assert splits.train.name(0).endswith("of split train")


def test_folders_of_sides_without_splits_are_the_training_split(tmp_path: Path) -> None:
    for b, folder in enumerate(("Input", "output")):  # known names, in any case
        (tmp_path / folder).mkdir()
        for index in range(12):
            side(index, bool(b)).save(tmp_path / folder / f"{index}.png")
    splits = load(tmp_path)
    assert (splits.form, len(splits.train), len(splits.validation)) == ("paired folders", 11, 1)
    assert splits.description.startswith("11 training and 1 validation pair, paired folders, AtoB: input → output, 8x8")
    assert [splits.train.name(i) for i in (0, 10)] == ["Input/0.png", "Input/11.png"]  # natural order
    assert torch.equal(splits.train[10][1], pil_to_tensor(side(11, True)))


def test_folders_of_other_names_can_be_named(tmp_path: Path) -> None:
    in_folders("S/X")(tmp_path)
    for split in ("train", "val"):
        (tmp_path / split / "A").rename(tmp_path / split / "photos")
        (tmp_path / split / "B").rename(tmp_path / split / "masks")
    splits = load(tmp_path, source_column="masks", target_column="photos")
    assert (splits.form, len(splits.train), splits.train.columns) == ("paired folders", 5, ("masks", "photos"))
    assert torch.equal(splits.train[3][0], pil_to_tensor(side(3, True)))


def test_the_fingerprint_covers_both_folders(tmp_path: Path) -> None:
    before = load(in_folders("S/X")(tmp_path)).fingerprint
    with (tmp_path / "train" / "B" / "4.png").open("ab") as file:
        file.write(b"trailing bytes that decoders pass over")
    assert load(tmp_path).fingerprint != before


def test_numpy_files_are_pairs_too(tmp_path: Path) -> None:
    for b, folder in enumerate("AB"):
        (tmp_path / folder).mkdir()
        for index in range(2):
            np.save(tmp_path / folder / f"{index}.npy", np.asarray(side(index, bool(b))))
    assert torch.equal(load(tmp_path).train[0][1], pil_to_tensor(side(load(tmp_path).train.indices[0], True)))


# ------------------------------------------------------------------------------------------------- descriptions


@pytest.mark.parametrize(
    ("name", "direction", "expected"),
    [
        ("facades", "BtoA", "400 training and 100 validation pairs, side by side, BtoA: right half → left half"),
        ("maps", "AtoB", "100 training and 20 validation pairs, side by side, AtoB: left half → right half"),
        ("edges2shoes", "AtoB", "100 training and 20 validation pairs, side by side, AtoB: left half → right half"),
    ],
)
def test_real_sets_are_described_rightly(real_data: Path, name: str, direction: str, expected: str) -> None:
    splits = load(real_data / name, direction=direction, image_size="128x256")
    assert splits.description == f"{expected}, 256x512 → 128x256, 8-bit RGB"
    source, target = splits.train[0]
    assert source.shape == target.shape == (3, 256, 256)


def test_real_facades_point_from_labels_to_photos(real_data: Path) -> None:
    """A label map has a few flat colours: neighbouring pixels are mostly equal, in a photo they are not."""
    train = load(real_data / "facades", direction="BtoA").train
    for source, target in (train[i] for i in range(5)):
        flat = [float((image.diff(dim=-1).abs().amax(0) < 8).float().mean()) for image in (source, target)]
        assert flat[0] > flat[1]


def test_columns_are_described_with_the_way_they_are_read(tmp_path: Path) -> None:
    as_saved_dict(tmp_path / "pairs")
    for direction, way in (("AtoB", "imageA → imageB"), ("BtoA", "imageB → imageA")):
        expected = f"5 training and 2 validation pairs, two columns, {direction}: {way}, 8x8 → 32x32, 8-bit RGB"
        assert load(tmp_path / "pairs", direction=direction).description == expected


def test_different_sizes_are_described_by_their_extremes(tmp_path: Path) -> None:
    write_folder(tmp_path, train=3, val=1)
    beside(3, 20, 30).save(tmp_path / "train" / "3.png")
    assert "2 sizes from 8x16 to 20x60 → 32x32" in load(tmp_path).description


# -------------------------------------------------------------------------------------------------- the synthetic


def test_synthetic_pairs_are_rendered_from_their_numbers() -> None:
    splits = load("synthetic", max_train_pairs=3, max_validation_pairs=2, image_size="32x64")
    expected = "3 training and 2 validation pairs, synthetic, AtoB: label → photo, 32x64 → 32x64, 8-bit RGB"
    assert splits.description == expected and splits.form == "synthetic"
    for part, first in ((splits.train, 0), (splits.validation, 10_000)):
        for index, pair in enumerate(part):
            rendered = render_pair(first + index, size=(32, 64), seed=0)
            assert all(torch.equal(a, pil_to_tensor(b)) for a, b in zip(pair, rendered, strict=True))
    turned = load("synthetic", max_train_pairs=1, max_validation_pairs=1, direction="BtoA", image_size="32x64")
    assert torch.equal(turned.train[0][1], splits.train[0][0])
    assert "BtoA: photo → label" in turned.description


def test_synthetic_has_four_hundred_and_forty_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(pairs_module, "render_pair", lambda n, size, seed: calls.append(n) or (side(n), side(n, True)))
    splits = load("synthetic")
    assert (len(splits.train), len(splits.validation)) == (400, 40)
    assert calls == [*range(400), *range(10_000, 10_040)]


def test_a_changed_renderer_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"max_train_pairs": 2, "max_validation_pairs": 1}
    before, again = load("synthetic", **few).fingerprint, load("synthetic", **few).fingerprint
    monkeypatch.setattr(pairs_module, "render_pair", lambda n, size, seed: (side(n), side(n, True)))
    assert before == again != load("synthetic", **few).fingerprint


# --------------------------------------------------------------------------------------------------------- splits


def test_files_come_in_natural_order_and_are_named_inside_the_set(tmp_path: Path) -> None:
    write_folder(tmp_path, train=12, val=1)
    splits = load(tmp_path)
    assert [splits.train.name(i) for i in range(12)] == [f"train/{i}.png" for i in range(12)]
    assert splits.validation.name(0) == "val/0.png"


def test_dot_files_and_other_files_are_no_pairs(tmp_path: Path) -> None:
    write_folder(tmp_path, train=2, val=1)
    (tmp_path / "train" / "._0.png").write_bytes(b"a resource fork of macOS")
    (tmp_path / "train" / "notes.txt").write_text("hello")
    assert len(load(tmp_path).train) == 2


def test_a_set_without_validation_gets_a_stable_split(tmp_path: Path) -> None:
    write_folder(tmp_path, flat=30)
    splits, again = load(tmp_path), load(tmp_path)
    train, held_out = ({part.name(i) for i in range(len(part))} for part in (splits.train, splits.validation))
    assert len(held_out) == 3 and len(train) == 27 and not train & held_out
    assert held_out == {"10.png", "16.png", "28.png"}  # never another choice: runs that resume depend on it
    assert list(again.validation.indices) == list(splits.validation.indices)
    assert splits.description.endswith("; no validation split: 3 set aside from train")
    # what the name says is what comes
    assert torch.equal(splits.validation[0][0], pil_to_tensor(side(10)))


@pytest.mark.parametrize(("count", "fraction", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.3, 3)])
def test_the_part_set_aside_has_one_pair_at_least_and_leaves_one(
    count: int, fraction: float, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs_module, "VALIDATION_FRACTION", fraction)
    splits = load(write_folder(tmp_path, flat=count))
    assert (len(splits.train), len(splits.validation)) == (count - expected, expected)


def test_test_is_the_last_resort_and_is_said(tmp_path: Path) -> None:
    write_folder(tmp_path, train=2, test=3)
    assert load(tmp_path).description.endswith("; validation: split test")
    write_folder(tmp_path, val=1)
    assert load(tmp_path).validation.split == "val"


def test_splits_can_be_named(tmp_path: Path) -> None:
    write_folder(tmp_path, train=2, val=1, test=3, extra=4)
    splits = load(tmp_path, train_split="extra", validation_split="test")
    assert (len(splits.train), len(splits.validation)) == (4, 3)
    text = message(tmp_path, validation_split="tests")
    assert "--validation-split tests" in text and "extra (4), test (3), train (2), val (1)" in text
    assert "--train-split no" in message(tmp_path, train_split="no")


def test_the_first_so_many_pairs_are_taken_after_the_split(tmp_path: Path) -> None:
    write_folder(tmp_path, flat=30)
    whole, few = load(tmp_path), load(tmp_path, max_train_pairs=4, max_validation_pairs=2)
    assert list(few.train.indices) == list(whole.train.indices)[:4]
    assert list(few.validation.indices) == list(whole.validation.indices)[:2]


def test_the_fingerprint_follows_names_and_sizes_of_files(tmp_path: Path) -> None:
    first = load(write_folder(tmp_path / "a", train=3, val=1)).fingerprint
    assert load(write_folder(tmp_path / "b", train=3, val=1)).fingerprint == first
    assert load(tmp_path / "a", direction="BtoA").fingerprint == first
    assert load(write_folder(tmp_path / "c", train=4, val=1)).fingerprint != first
    beside(0, 16, 16).save(tmp_path / "b" / "train" / "0.png")
    assert load(tmp_path / "b").fingerprint != first


def read_in_another_process(pickled: bytes) -> list[int]:
    return [int(t.long().sum()) for t in pickle.loads(pickled)[1]]


@pytest.mark.parametrize("write", [as_folder, as_saved_dict])
def test_pairs_can_be_sent_to_a_spawned_worker(write: Callable[[Path], Path], tmp_path: Path) -> None:
    train = load(write(tmp_path / "pairs")).train
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(read_in_another_process, (pickle.dumps(train),))
    assert there == [int(t.long().sum()) for t in train[1]]


# -------------------------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize(("a", "b"), KNOWN_COLUMNS)
def test_known_columns_are_found_whatever_their_case(a: str, b: str, tmp_path: Path) -> None:
    table(3, b.upper(), a.title(), caption=["x"] * 3).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").train.columns == (a.title(), b.upper())


def test_unknown_columns_are_listed_and_can_be_named(tmp_path: Path) -> None:
    table(3, "left", "right", caption=["x"] * 3).save_to_disk(tmp_path / "saved")
    text = message(tmp_path / "saved")
    assert "columns: left, right, caption; with images: left, right" in text
    assert "--source-column NAME --target-column NAME" in text
    splits = load(tmp_path / "saved", source_column="right", target_column="left")
    assert torch.equal(splits.train[0][0], pil_to_tensor(side(splits.train.indices[0], True)))


@pytest.mark.parametrize(("column", "flag"), [("caption", "--source-column caption"), ("gone", "--source-column gone")])
def test_named_columns_must_hold_images(column: str, flag: str, tmp_path: Path) -> None:
    table(3, caption=["x"] * 3).save_to_disk(tmp_path / "saved")
    text = message(tmp_path / "saved", source_column=column, target_column="imageB")
    assert flag in text and "with images: imageA, imageB" in text


def test_a_split_without_the_columns_is_named(tmp_path: Path) -> None:
    DatasetDict(train=table(3), validation=table(2, "source", "target")).save_to_disk(tmp_path / "saved")
    assert "split validation has no column imageA or imageB (columns: source, target)" in message(tmp_path / "saved")


# ------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"direction": "atob"}, "--direction 'atob' is unknown: choose one of AtoB, BtoA"),
        ({"source_column": "a"}, "Only one of --source-column and --target-column"),
        ({"max_train_pairs": 0}, "--max-train-pairs 0 cannot work: it must be above 0"),
        ({"source_column": "a", "target_column": "b"}, "--source-column is for data with named columns"),
        ({"dataset_revision": "v1"}, "--dataset-revision is for Hub data sets"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert expected in message(write_folder(tmp_path, train=2, val=1), **options)


def test_an_empty_folder_is_called_empty(tmp_path: Path) -> None:
    text = message(tmp_path)
    assert str(tmp_path) in text and "an empty folder" in text
    assert "side by side" in text and "`--dataset synthetic`" in text


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.mat", "b.mat", "c.txt"):
        (tmp_path / name).touch()
    assert "a folder of 2 .mat, 1 .txt, but no pairs" in message(tmp_path)


def test_a_folder_one_level_too_high_is_recognised(tmp_path: Path) -> None:
    write_folder(tmp_path / "maps", train=2, val=1)
    assert f"did you mean --dataset {tmp_path / 'maps'}?" in message(tmp_path)


def test_single_images_are_no_side_by_side_pairs(tmp_path: Path) -> None:
    write_folder(tmp_path, train=2, val=1)
    for index, (height, width) in enumerate([(8, 8), (8, 11), (8, 13), (10, 14), (40, 20), (6, 7)] + [(9, 9)] * 17):
        side(index, False, height, width).save(tmp_path / "train" / f"bad_{index}.png")
    text = message(tmp_path)
    assert "23 of 26 pairs cannot be used" in text
    assert "train/bad_0.png is 8x8 (height x width): no side-by-side pair" in text
    assert "train/bad_4.png is 40x20" in text and "bad_19" in text and "bad_20" not in text and "… and 3 more" in text


@pytest.mark.parametrize(("height", "width", "works"), [(8, 12, True), (8, 10, False), (8, 64, True), (8, 13, False)])
def test_halves_down_to_three_by_four_are_pairs(height: int, width: int, works: bool, tmp_path: Path) -> None:
    for name in "ab":
        side(0, False, height, width).save(tmp_path / f"{name}.png")
    if works:
        assert load(tmp_path).train[0][0].shape == (3, height, width // 2)
    else:
        assert "no side-by-side pair" in message(tmp_path)


def test_unreadable_images_are_named_before_training(tmp_path: Path) -> None:
    write_folder(tmp_path, train=3, val=2)
    (tmp_path / "train" / "1.png").write_bytes((tmp_path / "train" / "1.png").read_bytes()[:200])
    (tmp_path / "val" / "0.png").write_bytes(b"")
    text = message(tmp_path)
    assert "2 of 5 pairs cannot be used" in text
    assert "train/1.png is damaged or truncated" in text and "val/0.png is empty (0 bytes)" in text


def test_bad_cells_are_named_by_row_and_column(tmp_path: Path) -> None:
    features = Features({"source": ImageFeature(), "target": ImageFeature(), "text": Value("string")})
    rows = table(4, "source", "target").cast_column("source", ImageFeature(decode=False))[:]
    images = {"source": rows["source"], "target": [side(0), None, side(2), side(3)], "text": ["x"] * 4}
    images["source"][2] = {"bytes": b"no picture", "path": None}
    Dataset.from_dict(images, features=features).save_to_disk(tmp_path / "saved")
    text = message(tmp_path / "saved")
    assert "row 1 of split train, column target is missing" in text
    assert "row 2 of split train, column source is not a picture" in text


def test_one_pair_cannot_be_split(tmp_path: Path) -> None:
    assert "has one pair only and no validation split" in message(write_folder(tmp_path, flat=1))
    assert len(load(write_folder(tmp_path, val=1)).train) == 1


def test_an_empty_split_is_no_training_set(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_says(monkeypatch, SimpleNamespace(sha="c0ffee"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: {"train": table(3).select([]), "test": table(3)})
    text = message("user/pairs")
    assert "--train-split train: no pairs there" in text and "train (0), test (3)" in text


def test_files_of_no_known_kind_are_named(tmp_path: Path, datasets_cache: Path) -> None:
    beside(0).save(tmp_path / "one.png")
    assert "is a single file, but none of .parquet" in message(tmp_path / "one.png")
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    text = message(tmp_path / "broken.parquet")
    assert f"--dataset {tmp_path / 'broken.parquet'} could not be read by `datasets`" in text


# -------------------------------------------------------------------------------------------------------- the Hub


def hub_says(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def dataset_info(self: Any, name: str, *, revision: str | None, timeout: float) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)


def http_error(kind: type[Exception]) -> Exception:
    """One of the Hub's errors, which want the response they came in."""
    error = kind.__new__(kind)
    Exception.__init__(error, "404 Client Error")
    return error


def test_hub_sets_are_loaded_at_the_commit_that_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    hub_says(monkeypatch, SimpleNamespace(sha="c0ffee"))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **k: asked.update(k, name=name) or {"train": table(5)})
    splits = load("user/pairs", dataset_revision="main")
    assert asked == {"name": "user/pairs", "revision": "c0ffee"} and splits.fingerprint == "c0ffee"
    assert (len(splits.train), len(splits.validation), splits.train.columns) == (4, 1, ("imageA", "imageB"))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http_error(RepositoryNotFoundError), "neither a folder or file on this machine nor a data set on the Hub"),
        (http_error(GatedRepoError), "is gated: ask for access at https://huggingface.co/datasets/user/pairs"),
        (http_error(RevisionNotFoundError), "--dataset-revision 'v9' does not exist in data set user/pairs"),
        (OfflineModeIsEnabled("offline"), "Unset HF_HUB_OFFLINE"),
        (ConnectionError("no route"), "(ConnectionError: no route), and no earlier download"),
        (TimeoutError(), "(TimeoutError), and no earlier download"),
    ],
)
def test_what_the_hub_says_is_told(
    answer: Exception, expected: str, monkeypatch: pytest.MonkeyPatch, datasets_cache: Path
) -> None:
    hub_says(monkeypatch, answer)
    text = message("user/pairs", dataset_revision="v9")
    assert expected in text and "user/pairs" in text


def test_an_earlier_download_is_used_when_the_hub_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, datasets_cache: Path
) -> None:
    """A cache laid out as `load_dataset` leaves it for user/pairs at commit c0ffee."""
    source = as_parquet_folder(tmp_path / "pairs")
    builder = datasets.load_dataset_builder(str(source))
    builder.download_and_prepare()
    made = Path(builder.cache_dir)
    (datasets_cache / "user___pairs" / "default" / "0.0.0").mkdir(parents=True)
    made.rename(datasets_cache / "user___pairs" / "default" / "0.0.0" / "c0ffee")
    hub_says(monkeypatch, ConnectionError("no network"))
    splits = load("user/pairs")
    assert (len(splits.train), len(splits.validation), splits.fingerprint) == (5, 2, "c0ffee")
    assert datasets.config.HF_HUB_OFFLINE is False
    text = message("user/pairs", dataset_revision="v9")
    assert "--dataset-revision v9" in text and "commit c0ffee" in text


@pytest.mark.parametrize("name", ["nobody-at-all/no-such-7f3a", "/no/such/folder", "too/many/parts", "a b", "..."])
def test_unknown_data_sets_fail_fast_and_name_both_places(name: str) -> None:
    start = time.monotonic()
    text = message(name)
    assert time.monotonic() - start < 15
    assert repr(name) in text and "neither a folder or file on this machine nor a data set on the Hub" in text
    assert "Forms that work" in text


def test_without_a_network_the_error_names_the_offline_switch(
    monkeypatch: pytest.MonkeyPatch, datasets_cache: Path
) -> None:
    hub_says(monkeypatch, ConnectionError("no network"))
    assert "HF_HUB_OFFLINE=1" in message("user/pairs")


# ------------------------------------------------------------------------------------------------ pairs left out


def spoiled(root: Path) -> Path:
    """Folders A and B with two sound pairs and one of each kind of bad one."""
    for split in ("train", "val"):
        for b, letter in enumerate("AB"):
            folder = root / split / letter
            folder.mkdir(parents=True)
            for index in range(3 if split == "train" else 2):
                side(index, bool(b)).save(folder / f"{index}.png")
    a, b = root / "train" / "A", root / "train" / "B"
    side(10).save(a / "only_a.png")
    side(11, True).save(b / "only_b.tif")
    side(12).save(a / "size.png")
    side(12, True, 8, 9).save(b / "size.png")
    for name, content in (("cut", png(side(13))[:90]), ("zero", b""), ("text", b"no picture")):
        side(13, True).save(a / f"{name}.png")
        (b / f"{name}.png").write_bytes(content)
    Image.new("RGB", (64, 64)).save(a / "bomb.png")
    Image.new("RGB", (64, 64)).save(b / "bomb.png")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(a / "deep.png")
    side(14, True).save(b / "deep.png")
    return root


REASONS = [
    "train/A/only_a.png has no partner: no file of its name, whatever the suffix, in train/B",
    "train/B/only_b.tif has no partner: no file of its name, whatever the suffix, in train/A",
    "train/A/size.png: its two images differ in size, 8x8 in A and 8x9 in B (height x width)",
    "train/B/cut.png is damaged or truncated",
    "train/B/zero.png is empty (0 bytes)",
    "train/B/text.png is not a picture",
    "train/A/bomb.png has too many pixels; at most 0.004 megapixels",
    "train/A/deep.png is 16-bit gray, where 8-bit RGB is expected",
]


@pytest.fixture
def low_pixel_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)


def test_every_kind_of_bad_pair_is_listed_with_its_name(tmp_path: Path, low_pixel_limit: None) -> None:
    text = message(spoiled(tmp_path))
    assert "8 of 13 pairs cannot be used" in text and "--on-bad-pair skip" in text
    assert all(reason in text for reason in REASONS)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_bad_pairs_are_left_out_and_counted_when_asked(tmp_path: Path, low_pixel_limit: None) -> None:
    splits = load(spoiled(tmp_path), on_bad_pair="skip")
    assert [splits.train.name(i) for i in range(len(splits.train))] == [f"train/A/{i}.png" for i in range(3)]
    assert "3 training and 2 validation pairs" in splits.description
    assert "8 bad pairs left out" in splits.description
    found = [fault.reason for fault in splits.findings.faults]
    assert all(any(reason.startswith(expected) for reason in found) for expected in REASONS) and len(found) == 8
    assert torch.equal(splits.train[2][1], pil_to_tensor(side(2, True)))


def test_what_one_process_found_another_need_not_look_for(
    tmp_path: Path, low_pixel_limit: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(spoiled(tmp_path), on_bad_pair="skip")
    told = pickle.loads(pickle.dumps(first.findings))
    monkeypatch.setattr(pairs_module, "examine", lambda *a, **k: pytest.fail("it looked again"))
    second = load(tmp_path, on_bad_pair="skip", findings=told)
    assert (second.description, second.train.indices) == (first.description, first.train.indices)
    assert torch.equal(second.train[0][0], first.train[0][0])


def test_nothing_is_trained_on_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path, train=2, val=1)
    (tmp_path / "val" / "0.png").write_bytes(b"")
    assert "no sound validation pair is left" in message(tmp_path, on_bad_pair="skip")
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"")
    assert "3 of 3 pairs cannot be used" in message(tmp_path, on_bad_pair="skip")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["A/0.bmp"], "train/A/0.bmp and train/A/0.png would both pair with train/B/0.png: keep one on each side"),
        (["B/0.bmp"], "train/A/0.png would pair with train/B/0.bmp and train/B/0.png: keep one on each side"),
        (["A/0.bmp", "A/0.gif"], "train/A/0.bmp and train/A/0.gif and train/A/0.png would all pair with train/B/0.png"),
        (["A/0.bmp", "B/0.gif"], "train/A/0.bmp and train/A/0.png would both pair with train/B/0.gif and train/B/0.p"),
    ],
)
def test_two_files_of_one_stem_are_not_guessed_between(more: list[str], reason: str, tmp_path: Path) -> None:
    in_folders("S/X")(tmp_path)
    for name in more:
        side(0).save(tmp_path / "train" / name)
    assert f"1 of 7 pairs cannot be used:\n  {reason}" in message(tmp_path)
    assert len(load(tmp_path, on_bad_pair="skip").train) == 4


def test_two_files_of_one_stem_on_both_sides_pair_by_their_whole_names(tmp_path: Path) -> None:
    in_folders("S/X")(tmp_path)
    for b, letter in enumerate("AB"):
        side(9, bool(b)).save(tmp_path / "train" / letter / "0.bmp")
    train = load(tmp_path).train
    assert [train.name(i) for i in range(6)] == ["train/A/0.bmp", *(f"train/A/{i}.png" for i in range(5))]
    assert torch.equal(train[0][1], pil_to_tensor(side(9, True)))
    assert torch.equal(train[1][1], pil_to_tensor(side(0, True)))


def test_a_streamed_record_decodes_as_a_stored_one(tmp_path: Path, datasets_cache: Path) -> None:
    """What a stream yields goes through the same decoder."""
    stored = load(as_parquet_folder(tmp_path / "pairs")).train
    stream = datasets.load_dataset(str(tmp_path / "pairs"), split="train", streaming=True)
    for column in stored.columns:
        stream = stream.cast_column(column, ImageFeature(decode=False))
    for index, row in enumerate(stream):
        pair = stored.decoder.to_tensors(*stored.decoder.read(row, f"record {index}"), ("", ""))
        assert all(torch.equal(*both) for both in zip(pair, stored[index], strict=True))
    assert index == 4


# --------------------------------------------------------------------------------------------------- pixel modes


def write_pixels(root: Path, sources: list[Any], targets: list[Any], suffix: str = ".npy") -> Path:
    for folder, images in (("A", sources), ("B", targets)):
        (root / folder).mkdir(parents=True)
        for index, image in enumerate(images):
            if suffix == ".npy":
                np.save(root / folder / f"{index}.npy", image)
            else:
                image.save(root / folder / f"{index}{suffix}")
    return root


def test_each_side_has_its_own_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    deep = [rng.integers(0, 65536, (8, 8)).astype(np.uint16) for _ in range(3)]
    bands = [rng.random((8, 8, 13)) for _ in range(3)]
    splits = load(write_pixels(tmp_path, deep, bands))
    assert "8x8 → 32x32, 16-bit gray → float 13-channel (0 … 1)" in splits.description
    assert {side: pixels.channels for side, pixels in splits.train.formats.items()} == {"source": 1, "target": 13}
    turned = load(tmp_path, direction="BtoA")
    assert turned.train.formats["source"] == splits.train.formats["target"]


def test_classes_are_those_of_all_pairs(tmp_path: Path) -> None:
    labels = [np.full((8, 8), value, np.uint8) for value in (0, 3, 9)]
    splits = load(write_pixels(tmp_path, labels, labels), source_mode="labels")
    assert splits.train.formats["source"].classes == (0, 3, 9) and splits.train.formats["target"].mode == "gray"
    assert "labels of 3 classes → 8-bit gray" in splits.description


def test_gray_halves_stay_gray_and_modes_can_be_asked_for(tmp_path: Path) -> None:
    for index in range(3):
        beside(index).convert("L").save(tmp_path / f"{index}.png")
    assert [s.shape[0] for s in load(tmp_path).train[0]] == [1, 1]
    asked = load(tmp_path, source_mode="rgb", target_mode="rgba").train[0]
    assert [s.shape[0] for s in asked] == [3, 4]
    assert "--source-mode 'cmyk' is unknown: choose one of auto, gray" in message(tmp_path, source_mode="cmyk")
