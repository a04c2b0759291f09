"""What the pictures of an evaluation show, and what is written beside it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from known_generators import rendered
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pix2pix_hub.config import EvaluationOptions
from pix2pix_hub.devices import process_state
from pix2pix_hub.evaluation.evaluate import Evaluation, evaluate, load_model
from pix2pix_hub.evaluation.report import generated_image as made
from pix2pix_hub.evaluation.report import ranking, save_images, save_labelled, save_nearest
from pix2pix_hub.image.format import RGB
from pix2pix_hub.metrics import MetricNetworks

HEADINGS = ["source", "generated", "target"]
GAP = 8


def drawn(path: Path, images: list[Tensor], labels: list[list[str]], headings: list[str] | None = None) -> NDArray:
    """Three of `images` a row."""
    rows = [images[3 * row : 3 * row + 3] for row in range(len(labels))]
    save_labelled(rows, path, [RGB] * 3, headings or HEADINGS, labels)
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(("size", "factor"), [(32, 4), (40, 4), (127, 2), (128, 1), (200, 1)])
def test_small_images_are_enlarged_by_a_whole_factor(size: int, factor: int, tmp_path: Path) -> None:
    images = [rendered(number, size)[1] for number in range(6)]
    picture = drawn(tmp_path / "images.png", images, [["best"], ["worst"]])
    pitch = size * factor + GAP
    assert size * factor >= 128
    for place, image in enumerate(images):
        right, bottom = (
            picture.shape[1] - (2 - place % 3) * pitch - GAP,
            picture.shape[0] - (1 - place // 3) * pitch - GAP,
        )
        shown = picture[bottom - size * factor : bottom, right - size * factor : right]
        stored = (image.permute(1, 2, 0).numpy() + 1) * 127.5
        assert np.array_equal(shown, np.kron(stored.round().astype(np.uint8), np.ones((factor, factor, 1), np.uint8)))


def test_headings_stand_above_their_columns_and_labels_left_of_their_rows(tmp_path: Path) -> None:
    images = [torch.ones(3, 32, 32)] * 6
    labels = [["best", "L1 0.041", "val/17.png"], ["worst", "L1 0.3", "val/3.png"]]
    picture = drawn(tmp_path / "a.png", images, labels)
    pitch = 128 + GAP
    left, top = picture.shape[1] - 3 * pitch, picture.shape[0] - 2 * pitch
    inked = np.argwhere((picture < 128).all(axis=2))
    headings, beside = inked[inked[:, 0] < top - GAP], inked[inked[:, 0] >= top]
    assert {int(column - left) // pitch for column in headings[:, 1]} == {0, 1, 2}
    assert {int(row - top) // pitch for row in beside[:, 0]} == {0, 1}
    assert (beside[:, 1] < left).all() and (headings[:, 1] >= left).all()
    other = drawn(tmp_path / "b.png", images, [labels[0], ["worst", "L1 0.3", "val/4.png"]])
    changed = np.argwhere((picture != other).any(axis=2))
    assert len(changed) and (changed[:, 0] >= top + pitch).all() and (changed[:, 1] < left).all()


def test_long_names_and_narrow_images_lose_no_text(tmp_path: Path) -> None:
    images = [torch.ones(3, 128, 16)] * 3
    headings = ["generated", "nearest\ntraining image", "own target"]
    picture = drawn(tmp_path / "a.png", images, [["nearest 1", "validation/" + "Люди/" * 40 + "17.png"]], headings)
    assert picture.shape[1] < 800
    assert (picture[:, -1] == 255).all() and (picture[-1] == 255).all()  # nothing runs out of the picture
    end = drawn(tmp_path / "b.png", images, [["nearest 1", "validation/" + "Люди/" * 40 + "18.png"]], headings)
    assert (picture != end).any()  # of a long name the end is shown


@pytest.fixture
def evaluation(run: Path, pairs: Path) -> Evaluation:
    options = EvaluationOptions(metrics=("psnr",), num_samples=2)
    found = evaluate(load_model(str(run)), str(pairs), options, process_state(), networks=MetricNetworks())
    assert found is not None
    return found


def test_each_row_says_its_rank_its_value_and_its_name(evaluation: Evaluation, tmp_path: Path) -> None:
    psnr = evaluation.measured.values["psnr"].tolist()
    order = sorted(range(7), key=lambda index: -psnr[index])
    shown = list(zip(["best"] * 2 + ["median"] * 2 + ["worst"] * 2, order[:4] + order[-2:], strict=True))
    rows = [
        (pair["source"], made(evaluation, index), made(evaluation, index, 1), pair["target"])
        for _, index in shown
        for pair in [evaluation.tensors[index]]
    ]
    labels = [[kind, f"PSNR {psnr[index]:.3g}", f"val/{10_000 + index}.png"] for kind, index in shown]
    headings = ["source", "generated,\nsample 1", "generated,\nsample 2", "target"]
    save_labelled(rows, tmp_path / "expected.png", [RGB] * 4, headings, labels)
    save_images(evaluation, *ranking(evaluation), tmp_path / "images.png")
    assert (tmp_path / "images.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_the_nearest_training_images_come_with_name_and_distance(evaluation: Evaluation, tmp_path: Path) -> None:
    def thumbnail(image: Tensor) -> NDArray:
        """Means of 2x2 pixels of an image of 64x64."""
        return ((image.numpy() + 1) / 2).reshape(3, 32, 2, 32, 2).mean(axis=(2, 4))

    training = [rendered(number)[1] for number in range(12)]
    outputs = [made(evaluation, index) for index in range(7)]
    apart = [[thumbnail(output) - thumbnail(target) for target in training] for output in outputs]
    distances = np.sqrt((np.array(apart) ** 2).mean(axis=(2, 3, 4)))
    nearest = np.argsort(distances.min(axis=1))[:4]
    rows = [
        (outputs[index], training[distances[index].argmin()], evaluation.tensors[index]["target"])
        for index in nearest.tolist()
    ]
    labels = [
        [
            f"nearest {rank}",
            f"distance {distances[index].min():.3f}",
            f"val/{10_000 + index}.png",
            f"training image train/{distances[index].argmin():05}.png",
        ]
        for rank, index in enumerate(nearest.tolist(), 1)
    ]
    headings = ["generated", "nearest\ntraining image", "own target"]
    save_labelled(rows, tmp_path / "expected.png", [RGB] * 3, headings, labels)
    save_nearest(evaluation, tmp_path / "nearest.png")
    assert (tmp_path / "nearest.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
