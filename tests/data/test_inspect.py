"""`data inspect`: form, direction, sizes, colours and bad pairs are told as they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pix2pix_hub.cli import main
from pix2pix_hub.data.inspect import class_colors, inspect_pairs
from pix2pix_hub.data.request import PairRequest
from pix2pix_hub.data.synthetic import CMP_CLASSES


@pytest.mark.parametrize(
    ("name", "direction", "layout", "counts", "labels"),
    [
        ("facades", "BtoA", "right half → left half", {"train": 400, "val": 100}, {"source"}),
        ("maps", "AtoB", "left half → right half", {"train": 100, "val": 20}, {"target"}),
        ("edges2shoes", "AtoB", "left half → right half", {"train": 100, "val": 20}, {"source"}),
    ],
)
def test_the_real_sets_are_named_rightly(
    name: str, direction: str, layout: str, counts: dict, labels: set, real_data: Path, tmp_path: Path
) -> None:
    grid = tmp_path / "pairs.png"
    found = inspect_pairs(PairRequest(str(real_data / name), direction, (64, 64)), grid)
    assert found.form == "side by side"
    assert found.layout == f"{direction}: {layout}"
    assert found.counts == counts
    assert found.sizes == {"256x512": sum(counts.values())}
    assert {side for side, colors in found.colors.items() if colors} == labels
    assert not found.faults
    with Image.open(grid) as picture:
        assert picture.size == (3 * 66 + 2, 6 * 66 + 2)


def test_facade_labels_have_twelve_classes(real_data: Path) -> None:
    assert len(inspect_pairs(PairRequest(str(real_data / "facades"), "BtoA")).colors["source"]) == 12


def test_the_colours_of_the_synthetic_labels_are_the_class_colours() -> None:
    found = inspect_pairs(PairRequest("synthetic", image_size=(128, 128)))
    assert set(found.colors["source"]) == set(CMP_CLASSES.values())
    assert found.colors["target"] == {}


def test_lines_on_white_are_two_colours_and_noise_is_none() -> None:
    drawing = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    drawing[:, ::8, :] = 0
    assert set(class_colors([drawing])) == {(255, 255, 255), (0, 0, 0)}
    noise = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert class_colors([noise]) == {}


def test_sizes_and_bad_pairs_are_listed_and_nothing_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pairs" / "train"
    folder.mkdir(parents=True)
    for index, (width, height) in enumerate([(64, 32), (64, 32), (128, 64)]):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:100])
    assert main(["data", "inspect", str(folder.parent), "--grid", str(tmp_path / "grid.png")]) == 0
    said = capsys.readouterr().out
    for words in ("side by side: 4 train", "32x64 (2), 64x128 (1)", "bad pairs  1", "torn.png", "a photo"):
        assert words in said
    assert (tmp_path / "grid.png").exists()


@pytest.mark.parametrize(
    ("words", "status"), [([], 0), (["--help"], 0), (["data"], 2), (["data", "mend"], 2), (["translaet"], 2)]
)
def test_the_commands_are_listed(words: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == status
    assert "data inspect" in capsys.readouterr().out
