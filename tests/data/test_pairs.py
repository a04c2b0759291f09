"""Every form of pairs, the splits, and what people are told when something does not fit."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import shutil
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError
from pair_folders import write_sides
from PIL import Image

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data import pairs as pairs_module
from pix2pix_hub.data.pairs import KNOWN_COLUMNS, PairSplits, load_pairs
from pix2pix_hub.data.transforms import PairTensors, PairTransform
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.util import UserError

SPLITS = {"train": 5, "validation": 2}


def pil_to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def side(index: int, b: bool = False, height: int = 8, width: int = 8) -> Image.Image:
    """A known image: side A or B of pair `index`."""
    rng = np.random.default_rng([index, b])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def beside(index: int, height: int = 8, width: int = 8) -> Image.Image:
    halves = [np.asarray(side(index, b, height, width)) for b in (False, True)]
    return Image.fromarray(np.concatenate(halves, axis=1))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_folder(root: Path, suffix: str = ".png", **counts: int) -> Path:
    """`root/<split>/<index>.png`, side by side; split "flat" is `root` itself."""
    for split, count in counts.items():
        folder = root if split == "flat" else root / split
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            beside(index).save(folder / f"{index}{suffix}")
    return root


def table(count: int, a: str = "imageA", b: str = "imageB", **more: list[Any]) -> Dataset:
    columns = dict(zip((a, b), sides(count), strict=True)) | more
    return Dataset.from_dict(columns).cast_column(a, ImageFeature()).cast_column(b, ImageFeature())


def load(dataset: Path | str, **options: Any) -> PairSplits:
    findings = options.pop("findings", None)
    return load_pairs(PairOptions(str(dataset), **{"image_size": "32", **options}), findings=findings)


def message(dataset: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(dataset, **options)
    return str(caught.value)


def names(part: Any) -> list[str]:
    return [part.name(index) for index in range(len(part))]


# ------------------------------------------------------------------------------ the same content in every form


def sides(count: int) -> tuple[list[Image.Image], list[Image.Image]]:
    return [side(index) for index in range(count)], [side(index, True) for index in range(count)]


def in_folders(layout: str, suffixes: Sequence[str] = (".png", ".png"), stem: str = "{}") -> Callable[[Path], Path]:
    """A writer of sides in folders of their own: `layout` with "S" for the split and "X" for the side."""

    def write(root: Path) -> Path:
        for split, count in (("train", 5), ("val", 2)):
            folders = [layout.replace("S", split).replace("X", letter) for letter in "AB"]
            write_sides(root, *sides(count), folders, suffixes, stem)
        return root

    return write


def of_splits(write_split: Callable[[Path, str, int], object]) -> Callable[[Path], Path]:
    """A writer of a folder, from one of each split in it."""

    def write(root: Path) -> Path:
        root.mkdir()
        for split, count in SPLITS.items():
            write_split(root, split, count)
        return root

    return write


def saved_dict(root: Path) -> Path:
    DatasetDict({split: table(count) for split, count in SPLITS.items()}).save_to_disk(root)
    return root


def plain_bytes(root: Path, split: str, count: int) -> None:
    """As pandas or Arrow write it: binary columns, nothing that says image."""
    images = zip(("source", "target"), sides(count), strict=True)
    pq.write_table(pa.table({name: [png(image) for image in side] for name, side in images}), root / f"{split}.parquet")


def image_folder(root: Path, split: str, count: int) -> None:
    write_sides(root / split, *sides(count), ("a", "b"))
    line = '{{"input_file_name": "a/{0}.png", "output_file_name": "b/{0}.png"}}\n'
    (root / split / "metadata.jsonl").write_text("".join(line.format(index) for index in range(count)))


def side_by_side_column(root: Path, split: str, count: int) -> None:
    """One image column, as `load_dataset("imagefolder")` of a folder of pairs and `push_to_hub` leave it."""
    rows = Dataset.from_dict({"image": [beside(i) for i in range(count)], "caption": ["x"] * count})
    rows.cast_column("image", ImageFeature()).to_parquet(root / f"{split}.parquet")


def arrow_file(root: Path, split: str, count: int) -> None:
    """As `datasets` writes it, without the `save_to_disk` folder around it."""
    table(count).save_to_disk(root.parent / split)
    (root.parent / split / "data-00000-of-00001.arrow").rename(root / f"{split}.arrow")


def web_dataset(root: Path, split: str, count: int) -> None:
    with tarfile.open(root / f"{split}-000.tar", "w") as tar:
        for index in range(count):
            for b, name in enumerate(("source", "target")):
                member = tarfile.TarInfo(f"{index:04d}.{name}.png")
                member.size = len(content := png(side(index, bool(b))))
                tar.addfile(member, io.BytesIO(content))


as_parquet_folder = of_splits(lambda root, split, count: table(count).to_parquet(root / f"{split}-0-of-1.parquet"))
FORMS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "folder": (lambda root: write_folder(root, train=5, val=2), "side by side"),
    "upper case, validation/": (lambda root: write_folder(root, ".PNG", **SPLITS), "side by side"),
    "tiff": (lambda root: write_folder(root, ".tif", train=5, val=2), "side by side"),
    "save_to_disk": (saved_dict, "two columns"),
    "parquet folder": (as_parquet_folder, "two columns"),
    "parquet of plain bytes": (of_splits(plain_bytes), "two columns"),
    "imagefolder with metadata": (of_splits(image_folder), "two columns"),
    "arrow folder": (of_splits(arrow_file), "two columns"),
    "webdataset": (of_splits(web_dataset), "two columns"),
    "one column of side-by-side images": (of_splits(side_by_side_column), "side by side"),
    "train/A train/B": (in_folders("S/X"), "paired folders"),
    "A/train B/train": (in_folders("X/S"), "paired folders"),
    "trainA trainB": (in_folders("SX"), "paired folders"),
    "train_A train_B": (in_folders("S_X"), "paired folders"),
    "other suffixes": (in_folders("S/X", (".tif", ".BMP"), "photo.no.{}"), "paired folders"),
}


@pytest.mark.parametrize(("write", "form"), FORMS.values(), ids=FORMS.keys())
def test_every_form_gives_the_same_tensors(
    write: Callable[[Path], Path], form: str, tmp_path: Path, datasets_cache: Path
) -> None:
    write(tmp_path / "pairs")
    for direction, step in (("AtoB", 1), ("BtoA", -1)):
        splits = load(tmp_path / "pairs", direction=direction)
        assert (splits.form, len(splits.train), len(splits.validation)) == (form, 5, 2)
        for part in (splits.train, splits.validation):
            for index, pair in enumerate(part):
                expected = (pil_to_tensor(side(index)), pil_to_tensor(side(index, True)))[::step]
                assert all(torch.equal(*both) for both in zip(pair, expected, strict=True))


@pytest.mark.parametrize("name", ["pairs.parquet", "saved"])
def test_a_table_without_splits_is_the_training_split(name: str, tmp_path: Path, datasets_cache: Path) -> None:
    (table(6).to_parquet if name == "pairs.parquet" else table(6).save_to_disk)(tmp_path / name)
    splits = load(tmp_path / name)
    assert (len(splits.train), len(splits.validation)) == (5, 1)
    assert splits.train.name(0).endswith("of split train")


def test_folders_of_sides_without_splits_are_the_training_split(tmp_path: Path) -> None:
    known = "Input", "output"  # in any case
    write_sides(tmp_path, *sides(12), known)
    splits = load(tmp_path)
    assert (splits.form, len(splits.train), len(splits.validation)) == ("paired folders", 11, 1)
    assert splits.description.startswith("11 training and 1 validation pair, paired folders, AtoB: input → output, 8x8")
    assert [splits.train.name(i) for i in (0, 10)] == ["Input/0.png", "Input/11.png"]  # natural order
    assert torch.equal(splits.train[10][1], pil_to_tensor(side(11, True)))


def test_folders_of_other_names_can_be_named(tmp_path: Path) -> None:
    for split, count in SPLITS.items():
        write_sides(tmp_path, *sides(count), (f"{split}/photos", f"{split}/masks"))
    splits = load(tmp_path, source_column="masks", target_column="photos")
    assert (splits.form, len(splits.train), splits.train.columns) == ("paired folders", 5, ("masks", "photos"))
    assert torch.equal(splits.train[3][0], pil_to_tensor(side(3, True)))


# ------------------------------------------------------------------------------------------------- descriptions


def test_a_set_is_described_with_the_way_it_is_read_and_its_sizes(tmp_path: Path) -> None:
    saved_dict(tmp_path / "pairs")
    for direction, way in (("AtoB", "imageA → imageB"), ("BtoA", "imageB → imageA")):
        expected = f"5 training and 2 validation pairs, two columns, {direction}: {way}, 8x8 → 32x32, 8-bit RGB"
        assert load(tmp_path / "pairs", direction=direction).description == expected
    beside(3, 20, 30).save(write_folder(tmp_path / "folder", train=3, val=1) / "train" / "3.png")
    assert "2 sizes from 8x16 to 20x60 → 32x32" in load(tmp_path / "folder").description


def test_the_fingerprint_follows_names_and_sizes_of_all_files(tmp_path: Path) -> None:
    first = load(write_folder(tmp_path / "a", train=3, val=1)).fingerprint
    assert load(write_folder(tmp_path / "b", train=3, val=1)).fingerprint == first
    assert load(tmp_path / "a", direction="BtoA").fingerprint == first
    assert load(write_folder(tmp_path / "c", train=4, val=1)).fingerprint != first
    beside(0, 16, 16).save(tmp_path / "b" / "train" / "0.png")
    assert load(tmp_path / "b").fingerprint != first
    before = load(in_folders("S/X")(tmp_path / "sides")).fingerprint
    with (tmp_path / "sides" / "train" / "B" / "4.png").open("ab") as file:
        file.write(b"trailing bytes that decoders pass over")
    assert load(tmp_path / "sides").fingerprint != before


# -------------------------------------------------------------------------------------------------- the synthetic


def test_synthetic_pairs_are_rendered_from_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"max_train_pairs": 3, "max_validation_pairs": 2, "image_size": "32x64"}
    splits = load("synthetic", **few)
    expected = "3 training and 2 validation pairs, synthetic, AtoB: label → photo, 32x64 → 32x64, 8-bit RGB"
    assert splits.description == expected and splits.form == "synthetic"
    for part, first in ((splits.train, 0), (splits.validation, 10_000)):
        for index, pair in enumerate(part):
            rendered = render_pair(first + index, size=(32, 64), seed=0)
            assert all(torch.equal(a, pil_to_tensor(b)) for a, b in zip(pair, rendered, strict=True))
    turned = load("synthetic", **few, direction="BtoA")
    assert torch.equal(turned.train[0][1], splits.train[0][0])
    assert "BtoA: photo → label" in turned.description and turned.fingerprint == splits.fingerprint

    calls = []
    monkeypatch.setattr(pairs_module, "render_pair", lambda n, size, seed: calls.append(n) or (side(n), side(n, True)))
    splits = load("synthetic")
    assert (len(splits.train), len(splits.validation)) == (400, 40)
    assert calls == [*range(400), *range(10_000, 10_040)]
    assert splits.fingerprint != turned.fingerprint  # of another renderer


# --------------------------------------------------------------------------------------------------------- splits


def test_files_come_in_natural_order_without_those_that_are_no_pairs(tmp_path: Path) -> None:
    write_folder(tmp_path, train=12, val=1)
    (tmp_path / "train" / "._0.png").write_bytes(b"a resource fork of macOS")
    (tmp_path / "train" / "notes.txt").write_text("hello")
    splits = load(tmp_path)
    assert names(splits.train) == [f"train/{i}.png" for i in range(12)]
    assert names(splits.validation) == ["val/0.png"]


def test_a_set_without_validation_gets_a_stable_split(tmp_path: Path) -> None:
    splits = load(write_folder(tmp_path, flat=30))
    assert names(splits.validation) == ["10.png", "16.png", "28.png"]  # for ever: runs that resume depend on it
    assert len(splits.train) == 27 and not {*names(splits.train)} & {*names(splits.validation)}
    assert splits.description.endswith("; no validation split: 3 set aside from train")
    assert torch.equal(splits.validation[0][0], pil_to_tensor(side(10)))  # what the name says is what comes
    few = load(tmp_path, max_train_pairs=4, max_validation_pairs=2)
    assert list(few.train.indices) == list(splits.train.indices)[:4]
    assert list(few.validation.indices) == list(splits.validation.indices)[:2]


def test_splits_are_found_and_can_be_named(tmp_path: Path) -> None:
    write_folder(tmp_path, train=2, test=3)
    assert load(tmp_path).description.endswith("; validation: split test")  # the last resort, which is said
    write_folder(tmp_path, val=1, extra=4)
    assert load(tmp_path).validation.split == "val"
    splits = load(tmp_path, train_split="extra", validation_split="test")
    assert (len(splits.train), len(splits.validation)) == (4, 3)
    text = message(tmp_path, validation_split="tests")
    assert "--validation-split tests" in text and "extra (4), test (3), train (2), val (1)" in text
    assert "--train-split no" in message(tmp_path, train_split="no")


def test_too_few_pairs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has one pair only and no validation split" in message(write_folder(tmp_path / "one", flat=1))
    assert len(load(write_folder(tmp_path / "one", val=1)).train) == 1
    two = load(write_folder(tmp_path / "two", flat=2))
    assert (len(two.train), len(two.validation)) == (1, 1)
    hub_says(monkeypatch, SimpleNamespace(sha="c0ffee"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: {"train": table(3).select([]), "test": table(3)})
    text = message("user/pairs")
    assert "--train-split train: no pairs there" in text and "train (0), test (3)" in text


def sums_in_another_process(pickled: bytes) -> list[float]:
    return [float(part[0, 1]["source"].double().sum()) for part in pickle.loads(pickled)]


def test_pairs_can_be_sent_to_a_spawned_worker(tmp_path: Path) -> None:
    loaded = [load(write_folder(tmp_path / "folder", train=5, val=2)), load(saved_dict(tmp_path / "saved"))]
    parts = [PairTensors(pairs.train, PairTransform((8, 8), augment=True, rotation_degrees=9)) for pairs in loaded]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(sums_in_another_process, (pickle.dumps(parts),))
    assert there == sums_in_another_process(pickle.dumps(parts)) and there[0] == there[1]


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
    for column in ("caption", "gone"):
        text = message(tmp_path / "saved", source_column=column, target_column="right")
        assert f"--source-column {column}" in text and "with images: left, right" in text


def test_a_split_without_the_columns_is_named(tmp_path: Path) -> None:
    DatasetDict(train=table(3), validation=table(2, "source", "target")).save_to_disk(tmp_path / "saved")
    assert "split validation has no column imageA or imageB (columns: source, target)" in message(tmp_path / "saved")


# ------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"direction": "atob"}, "--direction 'atob' is unknown: choose one of AtoB, BtoA"),
        ({"source_mode": "cmyk"}, "--source-mode 'cmyk' is unknown: choose one of auto, gray"),
        ({"source_column": "a"}, "Only one of --source-column and --target-column"),
        ({"max_train_pairs": 0}, "--max-train-pairs 0 cannot work: it must be above 0"),
        ({"source_column": "a", "target_column": "b"}, "--source-column is for data with named columns"),
        ({"dataset_revision": "v1"}, "--dataset-revision is for Hub data sets"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert expected in message(write_folder(tmp_path, train=2, val=1), **options)


def test_a_folder_without_pairs_says_what_it_holds(tmp_path: Path) -> None:
    text = message(tmp_path)
    assert str(tmp_path) in text and "an empty folder" in text
    assert "side by side" in text and "`--dataset synthetic`" in text
    for name in ("a.mat", "b.mat", "c.txt"):
        (tmp_path / name).touch()
    assert "a folder of 2 .mat, 1 .txt, but no pairs" in message(tmp_path)
    write_folder(tmp_path / "maps", train=2, val=1)  # it is one level too high
    assert f"did you mean --dataset {tmp_path / 'maps'}?" in message(tmp_path)


def test_single_images_are_no_side_by_side_pairs_but_halves_down_to_three_by_four_are(tmp_path: Path) -> None:
    write_folder(tmp_path, train=2, val=1)
    for index, (height, width) in enumerate([(8, 12), (8, 64)]):
        side(index, False, height, width).save(tmp_path / "train" / f"good_{index}.png")
    for index, (height, width) in enumerate([(8, 8), (8, 10), (8, 13), (10, 14), (40, 20), (6, 7)] + [(9, 9)] * 17):
        side(index, False, height, width).save(tmp_path / "train" / f"ill_{index}.png")
    text = message(tmp_path)
    assert "23 of 28 pairs cannot be used" in text and "good" not in text
    assert "train/ill_0.png is 8x8 (height x width): not a side-by-side pair" in text
    assert "train/ill_4.png is 40x20" in text and "ill_19" in text and "ill_20" not in text and "… and 3 more" in text


def test_bad_cells_are_named_by_row_and_column(tmp_path: Path) -> None:
    features = Features({"source": ImageFeature(), "target": ImageFeature(), "text": Value("string")})
    rows = table(4, "source", "target").cast_column("source", ImageFeature(decode=False))[:]
    images = {"source": rows["source"], "target": [side(0), None, side(2), side(3)], "text": ["x"] * 4}
    images["source"][2] = {"bytes": b"no picture", "path": None}
    Dataset.from_dict(images, features=features).save_to_disk(tmp_path / "saved")
    text = message(tmp_path / "saved")
    assert "row 1 of split train, column target is missing" in text
    assert "row 2 of split train, column source is not a picture" in text


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
        (ConnectionError("no route"), "Without a network, HF_HUB_OFFLINE=1 uses earlier downloads"),
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
    builder = datasets.load_dataset_builder(str(as_parquet_folder(tmp_path / "pairs")))
    builder.download_and_prepare()
    (datasets_cache / "user___pairs" / "default" / "0.0.0").mkdir(parents=True)
    Path(builder.cache_dir).rename(datasets_cache / "user___pairs" / "default" / "0.0.0" / "c0ffee")
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


# ------------------------------------------------------------------------------------------------ pairs left out


def spoiled(root: Path) -> Path:
    """Folders A and B with sound pairs and one of each kind of bad one."""
    in_folders("S/X")(root)
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
    assert "8 of 15 pairs cannot be used" in text and "--on-bad-pair skip" in text
    assert all(reason in text for reason in REASONS)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_bad_pairs_are_left_out_and_counted_when_asked_and_looked_for_once(
    tmp_path: Path, low_pixel_limit: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = load(spoiled(tmp_path), on_bad_pair="skip")
    assert names(splits.train) == [f"train/A/{i}.png" for i in range(5)]
    assert "5 training and 2 validation pairs" in splits.description
    assert "8 bad pairs left out" in splits.description
    found = [fault.reason for fault in splits.findings.faults]
    assert all(any(reason.startswith(expected) for reason in found) for expected in REASONS) and len(found) == 8
    assert torch.equal(splits.train[2][1], pil_to_tensor(side(2, True)))

    told = pickle.loads(pickle.dumps(splits.findings))  # as another process is
    monkeypatch.setattr(pairs_module, "examine", lambda *a, **k: pytest.fail("it looked again"))
    second = load(tmp_path, on_bad_pair="skip", findings=told)
    assert (second.description, second.train.indices) == (splits.description, splits.train.indices)
    assert torch.equal(second.train[0][0], splits.train[0][0])


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
    assert names(train) == ["train/A/0.bmp", *(f"train/A/{i}.png" for i in range(5))]
    assert torch.equal(train[0][1], pil_to_tensor(side(9, True)))
    assert torch.equal(train[1][1], pil_to_tensor(side(0, True)))


# --------------------------------------------------------------------------------------------------- pixel modes


def test_each_side_has_its_own_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    deep = [rng.integers(0, 65536, (8, 8)).astype(np.uint16) for _ in range(3)]
    bands = [rng.random((8, 8, 13)) for _ in range(3)]
    splits = load(write_sides(tmp_path, deep, bands))
    assert "8x8 → 32x32, 16-bit gray → float 13-channel (0 … 1)" in splits.description
    assert {side: pixels.channels for side, pixels in splits.train.formats.items()} == {"source": 1, "target": 13}
    turned = load(tmp_path, direction="BtoA")
    assert turned.train.formats["source"] == splits.train.formats["target"]


def test_classes_are_those_of_all_pairs(tmp_path: Path) -> None:
    labels = [np.full((8, 8), value, np.uint8) for value in (0, 3, 9)]
    splits = load(write_sides(tmp_path, labels, labels), source_mode="labels")
    assert splits.train.formats["source"].classes == (0, 3, 9) and splits.train.formats["target"].mode == "gray"
    assert "labels of 3 classes → 8-bit gray" in splits.description


def test_gray_halves_stay_gray_and_modes_can_be_asked_for(tmp_path: Path) -> None:
    for index in range(3):
        beside(index).convert("L").save(tmp_path / f"{index}.png")
    assert [s.shape[0] for s in load(tmp_path).train[0]] == [1, 1]
    asked = load(tmp_path, source_mode="rgb", target_mode="rgba").train[0]
    assert [s.shape[0] for s in asked] == [3, 4]


def reflectances(root: Path, dtype: str = "uint16") -> Path:
    """Pairs whose sources hold 200 to 10,400, with bright pixels that no sensor has; the validation pairs others."""
    random = np.random.default_rng(0)
    for split, count, most in (("train", 12, 10_400), ("val", 2, 900)):
        for number in range(count):
            values = random.integers(200, most, (32, 32)).astype(dtype)
            values[0, 0] = 60_000
            for side, pixels in (("A", values), ("B", random.integers(0, 256, (32, 32, 3), np.uint8))):
                (root / split / side).mkdir(parents=True, exist_ok=True)
                np.save(root / split / side / f"{number}.npy", pixels)
    return root


def test_a_range_of_values_is_taken_from_the_training_pairs_or_from_the_option(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = str(reflectances(tmp_path))
    values = np.concatenate([np.load(file) for file in sorted((tmp_path / "train" / "A").iterdir())])
    request = PairOptions(root, image_size="32")
    plain = load_pairs(request).formats
    assert (plain["source"].low, plain["source"].high, plain["source"].clip) == (0.0, 65535.0, False)
    assert len(caplog.messages) == 1 and "the sources hardly use their range" in caplog.text
    chosen = load_pairs(replace(request, range="2-98%")).formats
    low, high = np.percentile(values, (2, 98)).round()
    assert (chosen["source"].low, chosen["source"].high, chosen["source"].clip) == (low, high, True)
    assert chosen["target"] == plain["target"], "8 bits stay as they are"
    chosen = load_pairs(replace(request, range="0-10000")).formats
    assert (chosen["source"].low, chosen["source"].high, chosen["source"].clip) == (0.0, 10_000.0, True)
    assert len(caplog.messages) == 1, "where a range is chosen nothing is left to say"
    shutil.rmtree(tmp_path / "train")
    shutil.rmtree(tmp_path / "val")
    floats = load_pairs(replace(request, dataset=str(reflectances(tmp_path, "float32")), range="-50-10000.5")).formats
    assert (floats["source"].low, floats["source"].high, floats["source"].clip) == (-50.0, 10_000.5, True)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("5", "give two values"),
        ("9-3", "must be the smaller one"),
        ("1e9-2e9", "give two values"),
        ("2-300%", "percentiles are from 0 to 100"),
        ("-5-100", "16 bits, which hold 0 to 65535"),
        ("0-70000", "16 bits, which hold 0 to 65535"),
        ("0-0.2", "all have the value 0 there"),
    ],
)
def test_a_range_that_cannot_be_is_refused(asked: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        load_pairs(PairOptions(str(reflectances(tmp_path)), image_size="32", range=asked))


def test_a_range_is_not_for_eight_bits() -> None:
    with pytest.raises(UserError, match="images of 16 bits or floats"):
        load_pairs(PairOptions("synthetic", image_size="64", range="0-100"))
