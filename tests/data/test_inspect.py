"""`data inspect`: form, direction, sizes, colours and bad pairs are told as they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2pix_hub.cli import main
from pix2pix_hub.data.inspect import inspect_pairs
from pix2pix_hub.data.request import PairRequest
from pix2pix_hub.data.synthetic import CMP_CLASSES


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
    found = inspect_pairs(PairRequest(str(real_data / name), direction, (64, 64)), grid)
    assert found.form == "side by side"
    assert found.layout == f"{direction}: {layout}"
    assert found.counts == counts
    assert found.sizes == {"256x512": sum(counts.values())}
    assert {side: len(stored.palette) for side, stored in found.formats.items() if stored.palette} == labels
    assert not found.faults
    with Image.open(grid) as picture:
        assert picture.size == (3 * 66 + 2, 6 * 66 + 2)


def test_the_colours_of_the_synthetic_labels_are_the_class_colours() -> None:
    found = inspect_pairs(PairRequest("synthetic", image_size=(128, 128)))
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
