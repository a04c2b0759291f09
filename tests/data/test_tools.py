"""`data build` loses no pixel; `data inspect` tells form, direction, sizes, colours and bad pairs as they are."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from huggingface_hub import DatasetCard
from launching import TINY
from pair_folders import write_sides
from PIL import Image
from tiny_exports import noise

from pix2pix_hub.cli import main
from pix2pix_hub.config import PairOptions
from pix2pix_hub.data import tools
from pix2pix_hub.data.pairs import find_pairs, load_pairs
from pix2pix_hub.data.tools import build_pairs, inspect_pairs, write_dataset
from pix2pix_hub.image.format import TITLE_HEIGHT
from pix2pix_hub.synthetic import CMP_CLASSES
from pix2pix_hub.util import UserError

pytestmark = pytest.mark.usefixtures("datasets_cache")


def side_by_side(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """Images 0.png, 1.png, … of those heights and widths."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, size in enumerate(sizes):
        Image.fromarray(noise((*size, 3), seed=index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Four side-by-side pairs to train on and four that validate."""
    for split in ("train", "val"):
        side_by_side(tmp_path / "pairs" / split, [(32, 64)] * 4)
    return tmp_path / "pairs"


def folders(root: Path, channels: int, dtype: str = "uint8") -> Path:
    """A and B with three arrays each."""
    sides = ([noise((32, 32, channels), dtype, index + side) for index in range(3)] for side in (0, 10))
    return write_sides(root, *sides)


def assert_same_pairs(before: str, after: str, direction: str = "AtoB") -> None:
    first = load_pairs(PairOptions(before, direction=direction, image_size="32"))
    second = load_pairs(PairOptions(after, image_size="32"))
    assert len(first.train) == len(second.train) > 0
    for index in range(len(first.train)):
        for ours, expected in zip(second.train[index], first.train[index], strict=True):
            assert torch.equal(ours, expected)
    assert second.train.formats["source"].channels == first.train.formats["source"].channels


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_a_folder_comes_back_from_its_data_set(direction: str, streets: Path, tmp_path: Path) -> None:
    output = tmp_path / "built"
    assert main(["data", "build", str(streets), "--output", str(output), "--direction", direction]) == 0
    files = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    assert files == ["README.md", *(f"data/{split}-00000-of-00001.parquet" for split in ("train", "validation"))]
    assert_same_pairs(str(streets), str(output), direction)
    card = DatasetCard.load(output / "README.md")
    assert card.data.task_categories == ["image-to-image"]
    assert "4 pairs in `train`, 4 pairs in `validation`" in card.text


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(13, "uint8"), (2, "uint16"), (1, "uint16")],
)
def test_deep_and_many_channels_lose_nothing_and_can_be_trained_on(
    channels: int, dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command that is named, as it stands."""
    pairs, output = folders(tmp_path / "pairs", channels, dtype), tmp_path / "a set"
    assert main(["data", "build", str(pairs), "--output", str(output)]) == 0
    command = f"pix2pix-hub train --dataset '{output}'"
    assert capsys.readouterr().out.splitlines()[-1] == f"Train on it: {command}"
    assert f"    {command}\n" in (output / "README.md").read_text()
    assert main([*shlex.split(command)[1:], *TINY, "--dry-run"]) == 0
    assert_same_pairs(str(pairs), str(output))


def test_large_splits_are_sharded(streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "SHARD_BYTES", 10_000)  # one or two pairs
    files = write_dataset(build_pairs(PairOptions(str(streets)), "someone/streets"), tmp_path / "built")
    assert len([path for path in files if path.name.startswith("train-")]) >= 3
    assert_same_pairs(str(streets), str(tmp_path / "built"))
    card = DatasetCard.load(tmp_path / "built" / "README.md").text
    assert "# streets" in card and str(tmp_path) not in card


def test_bad_pairs_stop_it_or_are_left_out(streets: Path, tmp_path: Path) -> None:
    (streets / "train" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"3\.png"):
        build_pairs(PairOptions(str(streets)), "built")
    status = main(["data", "build", str(streets), "--output", str(tmp_path / "built"), "--on-bad-pair", "skip"])
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


def test_what_is_pushed_is_what_was_built(hub: HubServer, streets: Path) -> None:
    assert main(["data", "build", str(streets), "--push", "tester/streets", "--private"]) == 0
    repo = hub.repo("tester/streets", kind="datasets")
    shards = {f"data/{split}-00000-of-00001.parquet" for split in ("train", "validation")}
    assert repo.private and repo.files() == {".gitattributes", "README.md", *shards}
    card = DatasetCard.load("tester/streets")
    assert "4 pairs in `train`" in card.text and "--dataset tester/streets" in card.text
    assert card.data.task_categories == ["image-to-image"] and card.data.dataset_info
    card.validate()
    assert_same_pairs(str(streets), "tester/streets")


def test_a_push_that_fails_says_so(hub: HubServer, streets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.fail("POST .*/commit/", status=413, message="too large")
    assert main(["data", "build", str(streets), "--push", "tester/streets"]) == 2
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
    seen = inspect_pairs(PairOptions(str(real_data / name), direction=direction, image_size="64"), grid)
    assert seen.found.form == "side by side"
    assert f"direction  {direction}: {layout}" in seen.describe()
    assert {part.split: len(part) for part in seen.parts} == counts
    assert seen.findings.sizes == {(256, 512): sum(counts.values())}
    palettes = {side: getattr(seen.findings, side).palette for side in ("source", "target")}
    assert {side: len(palette) for side, palette in palettes.items() if palette} == labels
    assert not seen.findings.faults and seen.warnings == []
    with Image.open(grid) as picture:
        assert picture.size == (3 * 66 + 2, TITLE_HEIGHT + 6 * 66 + 2)


def test_the_colours_of_labels_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pix2pix_hub.data.pairs.SYNTHETIC_SPLITS", {"train": range(5)})
    said = inspect_pairs(PairOptions("synthetic", image_size="128")).describe()
    assert "source     8-bit RGB, palette of 12 colours\n" in said and "target     8-bit RGB, no palette\n" in said
    for name, color in CMP_CLASSES.items():
        assert f"#{bytes(color).hex()} " in said and f"% {name}" in said


def test_sizes_and_bad_pairs_are_listed_and_nothing_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = side_by_side(tmp_path / "pairs" / "train", [(32, 64), (32, 64), (64, 128)])
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:100])
    assert main(["data", "inspect", str(folder.parent), "--grid", str(tmp_path / "grid.png")]) == 1
    said = capsys.readouterr().out
    for words in ("side by side: 4 train", "32x64 (2), 64x128 (1)", "bad pairs  1", "torn.png", "no palette"):
        assert words in said
    assert (tmp_path / "grid.png").exists()


@pytest.mark.parametrize(
    ("bands", "drawn"),
    [
        (5, "8-bit 5-channel, drawn are channels 1, 2, 3 as red, green, blue"),
        (2, "8-bit 2-channel, drawn is channel 1 as gray"),
        (3, "8-bit RGB, no palette"),
    ],
)
def test_of_many_bands_it_is_said_which_are_drawn(
    bands: int, drawn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = folders(tmp_path / "pairs", bands)
    words = ["data", "inspect", str(pairs), "--image-size", "32", "--grid", str(tmp_path / "grid.png")]
    assert main([*words, "--rows", "1"]) == 0
    said = capsys.readouterr().out
    assert f"source     {drawn}" in said
    values = np.load(pairs / "A" / "0.npy")
    with Image.open(tmp_path / "grid.png") as picture:
        shown = np.asarray(picture)[TITLE_HEIGHT + 2 : TITLE_HEIGHT + 34, 2:34]
    assert np.array_equal(shown, values[..., :3] if bands >= 3 else np.repeat(values[..., :1], 3, axis=2))


def test_pixels_of_another_kind_are_a_bad_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = folders(tmp_path / "pairs", 3)
    np.save(pairs / "A" / "3.npy", np.zeros((32, 32), np.uint8))
    np.save(pairs / "B" / "3.npy", np.zeros((32, 32), np.uint16))
    assert main(["data", "inspect", str(pairs), "--grid", str(tmp_path / "grid.png")]) == 1
    assert "B/3.npy is 16-bit gray, where 8-bit RGB is expected" in capsys.readouterr().out


def test_what_lies_beside_the_images_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = folders(tmp_path / "pairs", 3)
    (pairs / "A" / "2.png").symlink_to(tmp_path / "gone.png")
    for name in ("A/note.txt", "B/note.TXT", "B/LICENSE", "B/.DS_Store"):
        (pairs / name).touch()
    (pairs / "B" / "old").mkdir()

    def entries(start: str, text: str) -> set[str]:
        (line,) = [line for line in text.splitlines() if start in line]
        return {*line.partition(start)[2].rstrip(".").split(", ")}

    ignored = {"2 .txt", "1 broken link", "1 folder", "1 file"}
    assert main(["data", "inspect", str(pairs), "--grid", str(tmp_path / "grid.png")]) == 0
    assert entries("ignored    ", capsys.readouterr().out) == ignored
    assert main(["data", "build", str(pairs), "--output", str(tmp_path / "built")]) == 0
    assert entries("Ignored: ", capsys.readouterr().out) == ignored
    assert entries("; ignored: ", load_pairs(PairOptions(str(pairs))).description) == ignored


def test_beside_side_by_side_images_too(streets: Path) -> None:
    for place in ("", "extra"):
        side_by_side(streets / place, [(32, 64)] * 2)
    assert find_pairs(PairOptions(str(streets))).ignored == "2 .png"  # extra/ is a split, as train/ and val/ are
