"""`data inspect` sees faults planted in real sets, and none in them as they are (test_tools.py)."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pair_folders import write_sides
from PIL import Image
from tiny_exports import noise

from pix2pix_hub.cli import main
from pix2pix_hub.config import MakerOptions, PairOptions
from pix2pix_hub.data.tools import inspect_pairs
from pix2pix_hub.image.maker import make_pair
from pix2pix_hub.image.read import from_memory

pytestmark = pytest.mark.usefixtures("datasets_cache")
RARE = (200, 0, 200)


def halves(real: Path, split: str, count: int) -> list[list[NDArray[np.uint8]]]:
    """Left and right half of the first pairs of a real set."""
    images = [np.asarray(Image.open(path)) for path in sorted((real / split).iterdir())[:count]]
    return [np.split(image, 2, axis=1) for image in images]


def save(path: Path, *sides: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(sides, axis=1)).save(path)


@pytest.mark.parametrize(
    ("name", "direction", "drawn", "off"),
    [
        ("facades", "BtoA", 1, "6 to the right"),
        ("maps", "AtoB", 1, "6 to the left"),
        ("edges2shoes", "AtoB", 0, "6 to the left"),
    ],
)
def test_what_is_planted_in_a_real_set_is_found(
    name: str, direction: str, drawn: int, off: str, real_data: Path, tmp_path: Path
) -> None:
    """All pairs off by 6 pixels; 3 swapped; a class in one image; 5 stored anew among those that validate."""
    train = halves(real_data / name, "train", 60)
    for index, sides in enumerate(train):
        if index == 30:
            sides[drawn] = sides[drawn].copy()
            sides[drawn][100:160, 100:160] = RARE
        first, second = sides[0][:, 6:], sides[1][:, :-6]
        save(tmp_path / "train" / f"{index}.png", *((second, first) if index in (7, 8, 40) else (first, second)))
        if index < 5:
            save(tmp_path / "val" / f"again{index}.jpg", first, second)
    for index, (first, second) in enumerate(halves(real_data / name, "val", 15)):
        save(tmp_path / "val" / f"{index}.png", first[:, 6:], second[:, :-6])
    shifted, repeated, swapped, *rare = inspect_pairs(PairOptions(str(tmp_path), direction=direction)).warnings or []
    assert shifted.startswith(f"sources lie {off} of their targets (pixels, median of ")
    assert repeated.startswith("5 pairs of 20 that do not train stand in training, too: ")
    for index in range(5):
        assert f"val/again{index}.jpg as train/{index}.png" in repeated
    assert swapped.startswith("in 3 pairs of 80 ") and ": train/7.png, train/8.png, train/40.png. " in swapped
    side = {"facades": "sources", "maps": "targets"}.get(name)  # drawings of black lines have no classes
    assert len(rare) == (side is not None)
    start = f"classes of the {side} that hardly occur in the 57 training pairs looked at: #c"
    assert side is None or (rare[0].startswith(start) and rare[0].count("(1 pair)") == 1 and "none" not in rare[0])


@pytest.mark.parametrize(
    ("name", "side", "color", "usual"),
    [("facades", "sources", (32, 255, 226), (0, 0, 222)), ("maps", "targets", (177, 208, 254), (233, 228, 222))],
)
def test_classes_that_only_validation_shows_are_told(
    name: str, side: str, color: tuple[int, ...], usual: tuple[int, ...], real_data: Path, tmp_path: Path
) -> None:
    """A class painted over in all training pairs, stored as JPEG as the sets are. Drawings of shoes have no classes."""
    for split, count in (("train", 40), ("val", 20)):
        for index, sides in enumerate(halves(real_data / name, split, count)):
            near = np.abs(sides[1].astype(int) - color).max(-1, keepdims=True) <= 24
            sides[1] = np.where(near & (split == "train"), usual, sides[1]).astype(np.uint8)
            save(tmp_path / split / f"{index}.jpg", *sides)
    direction = "BtoA" if side == "sources" else "AtoB"
    (told,) = inspect_pairs(PairOptions(str(tmp_path), direction=direction)).warnings or []
    assert told.startswith(f"classes of the {side} that hardly occur in the 40 training pairs looked at: #")
    found = re.findall(r"#(\w{6}) \((none|1 pair)\)", told)
    assert any(np.abs(np.subtract(tuple(bytes.fromhex(one)), color)).max() <= 20 for one, _ in found), told


def test_single_pairs_that_are_shifted_are_named(real_data: Path, tmp_path: Path) -> None:
    for index, (first, second) in enumerate(halves(real_data / "edges2shoes", "train", 40)):
        off = 10 * (index in (3, 17))
        save(tmp_path / "train" / f"{index}.png", np.roll(first, off, 0), second)
    (shifted,) = inspect_pairs(PairOptions(str(tmp_path))).warnings or []
    assert shifted.startswith("shifted by so many pixels, 2 pairs of 40 looked at: train/")
    assert "train/3.png (10)" in shifted and "train/17.png (10)" in shifted


def test_shades_that_jpeg_makes_of_black_and_white_are_no_rare_classes(real_data: Path, tmp_path: Path) -> None:
    for index, sides in enumerate(halves(real_data / "edges2shoes", "train", 100)):
        both = Image.fromarray(np.concatenate(sides, axis=1))
        (tmp_path / "train").mkdir(exist_ok=True)
        both.save(tmp_path / "train" / f"{index}.jpg", quality=90)
    seen = inspect_pairs(PairOptions(str(tmp_path)))
    assert len(seen.findings.source.palette) > 2 and seen.warnings == []


def test_nothing_is_told_of_drawings_made_of_small_photos_but_what_is_planted(real_data: Path, tmp_path: Path) -> None:
    """Whose lines are thick: photos' edges meet either side of them."""
    for index, (photo, _) in enumerate(halves(real_data / "facades", "train", 60)):
        source, target = make_pair(from_memory(photo, "x"), MakerOptions("edges", shorter_side=128), "x")
        for place, off in (("as made", 0), ("shifted", 3)):
            sides = (
                np.roll(np.asarray(one.picture().convert("RGB")), by, 1) for one, by in ((source, off), (target, 0))
            )
            save(tmp_path / place / f"{index}.jpg", *sides)
    assert inspect_pairs(PairOptions(str(tmp_path / "as made"))).warnings == []
    (told,) = inspect_pairs(PairOptions(str(tmp_path / "shifted"))).warnings or []
    assert re.match(r"sources lie [34] to the right( and 1 above)? of their targets", told), told


@pytest.mark.parametrize(("name", "usual"), [("facades", "BtoA"), ("edges2shoes", "AtoB"), ("maps", "AtoB")])
def test_the_other_direction_is_told_where_it_makes_pictures(
    real_data: Path, tmp_path: Path, name: str, usual: str
) -> None:
    """Nor of maps, which are made of pictures of the ground, is anything said in the usual direction."""
    for index, sides in enumerate(halves(real_data / name, "train", 24)):
        save(tmp_path / f"{index}.png", *sides)
    for direction in ("AtoB", "BtoA"):
        said = inspect_pairs(PairOptions(str(tmp_path), direction=direction)).describe()
        assert (f"for pictures of those: --direction {usual}" in said) == (direction != usual and name != "maps")


def test_a_side_that_is_all_alike_is_told_and_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Class values as shades of gray, nearly black, too: as labels they differ."""
    values = [Image.fromarray(noise((32, 32), "uint8", seed) // 128) for seed in range(12)]
    alike = [Image.new("RGB", (32, 32), "teal")] * 12
    pairs = str(write_sides(tmp_path / "pairs", values, alike))
    command = ["data", "inspect", pairs, "--image-size", "32", "--grid", str(tmp_path / "grid.png")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "warnings   2\n" in said and "the targets are all alike" in said
    assert "the sources are all alike" in said and "--source-mode labels" in said
    assert main([*command, "--source-mode", "labels"]) == 0
    assert "warnings   1\n" in capsys.readouterr().out


def test_label_values_are_classes(tmp_path: Path) -> None:
    """Of 100 label maps one shows class 7; without it nothing is told."""
    photos = [noise((32, 32, 3), seed=seed) for seed in range(100)]
    maps = [noise((32, 32), seed=seed) // 64 for seed in range(100)]
    for rare in (False, True):
        if rare:
            maps[5][0, 0] = 7
        root = write_sides(tmp_path / str(rare), map(Image.fromarray, maps), map(Image.fromarray, photos))
        found = inspect_pairs(PairOptions(str(root), source_mode="labels", image_size="32")).warnings
        assert found is not None and len(found) == rare
        told = r"classes of the sources that hardly occur in the 90 training pairs looked at: #\w{6} \((1 pair|none)\)"
        assert not rare or re.match(told, found[0])
