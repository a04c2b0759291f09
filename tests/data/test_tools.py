"""`data build` loses no pixel; `data inspect` tells form, direction, sizes, colours and bad pairs as they are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from huggingface_hub import DatasetCard
from PIL import Image

from pix2pix_hub.cli import main
from pix2pix_hub.config import PairOptions
from pix2pix_hub.data import tools
from pix2pix_hub.data.pairs import find_pairs, load_pairs
from pix2pix_hub.data.tools import build_pairs, inspect_pairs, write_dataset
from pix2pix_hub.synthetic import CMP_CLASSES
from pix2pix_hub.util import UserError

pytestmark = pytest.mark.usefixtures("datasets_cache")


def noise(index: int, *shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(index).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def side_by_side(root: Path, count: int = 4) -> Path:
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(noise(index, 32, 64, 3)).save(root / split / f"{index}.png")
    return root


def folders_of_arrays(root: Path, channels: int, dtype: type) -> Path:
    for side in ("A", "B"):
        (root / side).mkdir(parents=True)
        for index in range(3):
            np.save(root / side / f"{index}.npy", noise(index + 10 * (side == "B"), 16, 24, channels, dtype=dtype))
    return root


def assert_same_pairs(before: str, after: str, direction: str = "AtoB") -> None:
    first = load_pairs(PairOptions(before, direction=direction, image_size="32"))
    second = load_pairs(PairOptions(after, image_size="32"))
    assert len(first.train) == len(second.train) > 0
    for index in range(len(first.train)):
        for ours, expected in zip(second.train[index], first.train[index], strict=True):
            assert torch.equal(ours, expected)
    assert second.train.formats["source"].channels == first.train.formats["source"].channels


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_a_folder_comes_back_from_its_data_set(direction: str, tmp_path: Path) -> None:
    folder, output = side_by_side(tmp_path / "pairs"), tmp_path / "built"
    assert main(["data", "build", str(folder), "--output", str(output), "--direction", direction]) == 0
    files = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    assert files == [
        "README.md",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
    ]
    assert_same_pairs(str(folder), str(output), direction)


@pytest.mark.parametrize(("channels", "dtype"), [(13, np.uint8), (2, np.uint16), (1, np.uint16)])
def test_deep_and_many_channels_lose_nothing(channels: int, dtype: type, tmp_path: Path) -> None:
    folder = folders_of_arrays(tmp_path / "pairs", channels, dtype)
    write_dataset(build_pairs(PairOptions(str(folder)), "built"), tmp_path / "built")
    assert_same_pairs(str(folder), str(tmp_path / "built"))


@pytest.mark.parametrize(("channels", "hint"), [(5, " --color-jitter 0"), (3, "")])
def test_the_command_that_trains_on_it_is_one_that_works(
    channels: int, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Colour jitter, on by default, is not defined for five bands."""
    folder, output = folders_of_arrays(tmp_path / "pairs", channels, np.uint8), tmp_path / "a set"
    assert main(["data", "build", str(folder), "--output", str(output)]) == 0
    command = f"accelerate launch train_accelerate.py --dataset '{output}'{hint}"
    assert capsys.readouterr().out.splitlines()[-1] == f"Train on it: {command}"
    assert f"    {command}\n" in (output / "README.md").read_text()


def test_large_splits_are_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "SHARD_BYTES", 20_000)  # three pairs
    folder = side_by_side(tmp_path / "pairs", count=10)
    files = write_dataset(build_pairs(PairOptions(str(folder)), "built"), tmp_path / "built")
    assert len([path for path in files if path.name.startswith("train-")]) >= 3
    assert_same_pairs(str(folder), str(tmp_path / "built"))


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    folder = side_by_side(tmp_path / "pairs")
    write_dataset(build_pairs(PairOptions(str(folder)), "someone/streets"), tmp_path / "built")
    card = DatasetCard.load(tmp_path / "built" / "README.md")
    assert card.data.task_categories == ["image-to-image"]
    assert "4 pairs in `train`, 4 pairs in `validation`" in card.text
    assert str(tmp_path) not in card.text


def test_bad_pairs_stop_it_or_are_left_out(tmp_path: Path) -> None:
    folder = side_by_side(tmp_path / "pairs")
    (folder / "train" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"3\.png"):
        build_pairs(PairOptions(str(folder)), "built")
    status = main(["data", "build", str(folder), "--output", str(tmp_path / "built"), "--on-bad-pair", "skip"])
    assert status == 0
    (line,) = (tmp_path / "built" / "bad_pairs.jsonl").read_text().splitlines()
    assert "3.png" in json.loads(line)["reason"]
    assert len(load_pairs(PairOptions(str(tmp_path / "built"), image_size="32")).train) == 3


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "built").mkdir()
    assert main(["data", "build", "synthetic", "--output", str(tmp_path / "built")]) == 2
    assert main(["data", "build", "synthetic"]) == 2
    assert not list((tmp_path / "built").iterdir())
    assert "--output" in capsys.readouterr().err


def test_what_is_pushed_is_what_was_built(hub: HubServer, tmp_path: Path) -> None:
    folder = side_by_side(tmp_path / "pairs")
    assert main(["data", "build", str(folder), "--push", "tester/streets", "--private"]) == 0
    repo = hub.repo("tester/streets", kind="datasets")
    shards = {f"data/{split}-00000-of-00001.parquet" for split in ("train", "validation")}
    assert repo.private and repo.files() == {".gitattributes", "README.md", *shards}
    card = DatasetCard.load("tester/streets")
    assert "4 pairs in `train`" in card.text and "--dataset tester/streets" in card.text
    assert card.data.task_categories == ["image-to-image"] and card.data.dataset_info
    card.validate()
    assert_same_pairs(str(folder), "tester/streets")


def test_a_push_that_fails_says_so(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fail("POST .*/commit/", status=413, message="too large")
    assert main(["data", "build", str(side_by_side(tmp_path / "pairs")), "--push", "tester/streets"]) == 2
    assert "413" in capsys.readouterr().err
    assert hub.repo("tester/streets", kind="datasets").files() == {".gitattributes"}


# --- inspect


@pytest.mark.parametrize(
    ("name", "direction", "layout", "counts", "labels"),
    [
        ("facades", "BtoA", "right half → left half", {"train": 400, "val": 100}, {"source": 12}),
        ("maps", "AtoB", "left half → right half", {"train": 100, "val": 20}, {"target": 6}),
        ("edges2shoes", "AtoB", "left half → right half", {"train": 100, "val": 20}, {"source": 2}),
    ],
)
def test_the_real_sets_are_named_rightly(
    name: str, direction: str, layout: str, counts: dict, labels: dict, real_data: Path, tmp_path: Path
) -> None:
    grid = tmp_path / "pairs.png"
    found = inspect_pairs(PairOptions(str(real_data / name), direction=direction, image_size="64"), grid)
    assert found.form == "side by side"
    assert found.layout == f"{direction}: {layout}"
    assert found.counts == counts
    assert found.sizes == {"256x512": sum(counts.values())}
    assert {side: len(stored.palette) for side, stored in found.formats.items() if stored.palette} == labels
    assert not found.faults
    with Image.open(grid) as picture:
        assert picture.size == (3 * 66 + 2, 6 * 66 + 2)


def test_the_colours_of_the_synthetic_labels_are_the_class_colours() -> None:
    found = inspect_pairs(PairOptions("synthetic", image_size="128"))
    assert {entry.color: entry.name for entry in found.formats["source"].palette} == {
        color: name for name, color in CMP_CLASSES.items()
    }
    assert not found.formats["target"].palette
    assert "#0055ff" in found.describe() and "window" in found.describe()


def test_sizes_and_bad_pairs_are_listed_and_nothing_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pairs" / "train"
    folder.mkdir(parents=True)
    for index, (width, height) in enumerate([(64, 32), (64, 32), (128, 64)]):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:100])
    assert main(["data", "inspect", str(folder.parent), "--grid", str(tmp_path / "grid.png")]) == 1
    said = capsys.readouterr().out
    for words in ("side by side: 4 train", "32x64 (2), 64x128 (1)", "bad pairs  1", "torn.png", "a photo"):
        assert words in said
    assert (tmp_path / "grid.png").exists()


def folders(root: Path, shape: tuple[int, ...]) -> Path:
    for number, name in enumerate(["A/0.npy", "A/1.npy", "B/0.npy", "B/1.npy"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, np.random.default_rng(number).integers(0, 256, shape, np.uint8))
    return root


@pytest.mark.parametrize(
    ("bands", "drawn", "hint"),
    [
        (5, "8-bit 5-channel, drawn are channels 1, 2, 3 as red, green, blue", True),
        (2, "8-bit 2-channel, drawn is channel 1 as gray", True),
        (3, "8-bit RGB, many colours: a photo", False),
    ],
)
def test_of_many_bands_it_is_said_which_are_drawn(
    bands: int, drawn: str, hint: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = folders(tmp_path / "pairs", (32, 32, bands))
    words = ["data", "inspect", str(pairs), "--image-size", "32", "--grid", str(tmp_path / "grid.png")]
    assert main([*words, "--rows", "1"]) == 0
    said = capsys.readouterr().out
    assert f"source     {drawn}" in said
    assert ("--color-jitter 0" in said) == hint
    values = np.load(pairs / "A" / "0.npy")
    with Image.open(tmp_path / "grid.png") as picture:
        shown = np.asarray(picture)[2:34, 2:34]
    assert np.array_equal(shown, values[..., :3] if bands >= 3 else np.repeat(values[..., :1], 3, axis=2))


def test_pixels_of_another_kind_are_a_bad_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = folders(tmp_path / "pairs", (32, 32, 3))
    np.save(pairs / "A" / "2.npy", np.zeros((32, 32), np.uint8))
    np.save(pairs / "B" / "2.npy", np.zeros((32, 32), np.uint16))
    assert main(["data", "inspect", str(pairs), "--grid", str(tmp_path / "grid.png")]) == 1
    assert "B/2.npy is 16-bit gray, where 8-bit RGB is expected" in capsys.readouterr().out


def test_what_lies_beside_the_images_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = folders(tmp_path / "pairs", (32, 32, 3))
    (pairs / "A" / "2.png").symlink_to(tmp_path / "gone.png")
    for name in ("A/note.txt", "B/note.TXT", "B/LICENSE", "B/.DS_Store"):
        (pairs / name).touch()
    (pairs / "B" / "old").mkdir()
    aside = "2 .txt, 1 broken link, 1 folder, 1 file"
    assert main(["data", "inspect", str(pairs), "--grid", str(tmp_path / "grid.png")]) == 0
    assert {*aside.split(", ")} == {*line_after("left aside ", capsys.readouterr().out).split(", ")}
    assert main(["data", "build", str(pairs), "--output", str(tmp_path / "built")]) == 0
    assert {*aside.split(", ")} == {*line_after("Left aside: ", capsys.readouterr().out).rstrip(".").split(", ")}
    description = load_pairs(PairOptions(str(pairs))).description
    assert {*aside.split(", ")} == {*description.partition("; left aside: ")[2].split(", ")}


def test_beside_side_by_side_images_too(tmp_path: Path) -> None:
    for place in ("train", "val", "", "extra"):
        (tmp_path / place).mkdir(exist_ok=True)
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 256, (32, 64, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / place / f"{index}.png")
    assert find_pairs(PairOptions(str(tmp_path))).left_aside == "2 .png"  # extra/ is a split, as train/ and val/ are


def line_after(start: str, text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line.removeprefix(start)


@pytest.mark.parametrize(
    ("words", "status"), [([], 0), (["--help"], 0), (["data"], 2), (["data", "mend"], 2), (["translaet"], 2)]
)
def test_the_commands_are_listed(words: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == status
    assert "data inspect" in capsys.readouterr().out
