"""From files of any depth and channel count through training, export and back: what comes out is what went in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from run_results import Tiny

from pix2pix_hub import Pix2PixPipeline
from pix2pix_hub.image.format import TITLE_HEIGHT
from pix2pix_hub.training.trainer import Pix2PixTrainer
from pix2pix_hub.util import UserError

SIDE = 40


def pixels(channels: int, dtype: str, index: int) -> NDArray[Any]:
    rng = np.random.default_rng([channels, index])
    if dtype == "float32":
        return rng.normal(size=(SIDE, SIDE, channels)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, (SIDE, SIDE, channels)).astype(dtype)


def write_pairs(root: Path, source: tuple[int, str], target: tuple[int, str], count: int = 5) -> Path:
    for folder, (channels, dtype) in (("A", source), ("B", target)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            np.save(root / folder / f"{index}.npy", pixels(channels, dtype, index))
    return root


KINDS = [
    ((1, "uint16"), (1, "uint16"), "exact"),
    ((3, "uint8"), (2, "uint8"), "pad"),
    ((4, "uint8"), (3, "uint16"), "crop"),
    ((13, "uint16"), (4, "float32"), "pad"),
    ((2, "float32"), (13, "uint8"), "exact"),
]


@pytest.mark.parametrize(("source", "target", "resize"), KINDS)
def test_depths_and_channels_survive_training_and_export(
    source: tuple[int, str], target: tuple[int, str], resize: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder = write_pairs(tmp_path / "pairs", source, target)
    trainer = Pix2PixTrainer(tiny(dataset=str(folder), resize=resize, epochs=1, rotation_degrees=5.0))
    export = trainer.train().run_folder / "model"
    described = json.loads((export / "preprocessor_config.json").read_text())
    assert (described["source"]["channels"], described["source"]["dtype"]) == source
    assert (described["target"]["channels"], described["target"]["dtype"]) == target
    assert described["resize"] == resize
    assert described["target"]["bit_depth"] == {"uint8": 8, "uint16": 16, "float32": 32}[target[1]]
    made = np.asarray(Pix2PixPipeline.from_pretrained(export)(folder / "A" / "0.npy"))
    assert made.reshape(SIDE, SIDE, -1).shape[2] == target[0] and made.dtype == target[1]


def test_labels_become_channels_and_colours(tiny: Tiny, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "AB":
        (tmp_path / "pairs" / name).mkdir(parents=True)
        for index in range(5):
            image = Image.fromarray(rng.integers(0, 4, (SIDE, SIDE), np.uint8))
            image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
            image.save(tmp_path / "pairs" / name / f"{index}.png")
    trainer = Pix2PixTrainer(
        tiny(dataset=str(tmp_path / "pairs"), source_mode="labels", target_mode="labels", rotation_degrees=5.0)
    )
    batch = next(iter(trainer.train_loader.rest_of_epoch(0, taken=0)))
    for side in ("source", "target"):  # turned, cropped and resized, but never mixed
        assert batch[side].shape == (2, 4, 32, 32) and set(batch[side].unique().tolist()) == {-1, 1}
        assert (batch[side].sum(1) == -2).all()
    folder = trainer.train().run_folder
    described = json.loads((folder / "model" / "preprocessor_config.json").read_text())["source"]
    assert described["classes"] == [0, 1, 2, 3] and described["colors"][3] == [9, 9, 9]
    shown = np.asarray(Image.open(folder / "model" / "samples.png"))[TITLE_HEIGHT + 2 :][:32, 2:34].reshape(-1, 3)
    assert {tuple(colour) for colour in shown.tolist()} == {(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"color_jitter": 0.2}, "source images have 13 channels.*--color-jitter 0"),
        ({"perceptual_weight": 1.0}, "--perceptual-weight 1.0: the target images have 4 channels"),
    ],
)
def test_options_for_colours_are_refused_before_training(
    options: dict[str, float], words: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder = write_pairs(tmp_path / "pairs", (13, "uint8"), (4, "uint8"))
    with pytest.raises(UserError, match=words):
        Pix2PixTrainer(tiny(dataset=str(folder), **options))


def test_bad_pairs_are_written_when_the_run_starts_and_not_before(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", (1, "uint8"), (1, "uint8"))
    (folder / "A" / "1.npy").write_bytes(b"")
    (folder / "B" / "2.npy").unlink()
    with pytest.raises(UserError, match="2 of 5 pairs cannot be used"):
        Pix2PixTrainer(tiny(dataset=str(folder)))
    trainer = Pix2PixTrainer(tiny(dataset=str(folder), on_bad_pair="skip", epochs=1))
    assert not trainer.run_folder.exists()
    run = trainer.train().run_folder
    lines = [json.loads(line) for line in (run / "bad_pairs.jsonl").read_text().splitlines()]
    assert [(line["split"], line["row"]) for line in lines] == [("train", 1), ("train", 2)]
    assert lines[0]["reason"] == "A/1.npy is empty (0 bytes); expected an image."
    assert lines[1]["reason"].startswith("A/2.npy has no partner")
    assert json.loads((run / "training_config.json").read_text())["dataset"]["left_out"] == 2
