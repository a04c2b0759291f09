"""What a run says at its end, from curves and times that are known."""

import pytest

from pix2pix_hub.training.checkpoint import Progress
from pix2pix_hub.training.report import overfitting_words, saturation_words, waiting_words


def curves(validation: list[float], training: list[float]) -> list[dict]:
    pairs = enumerate(zip(validation, training, strict=True), 1)
    return [{"epoch": epoch, "l1": l1, "train_l1": train_l1} for epoch, (l1, train_l1) in pairs]


@pytest.mark.parametrize(
    ("validation", "training", "said"),
    [
        (
            [0.20, 0.16, 0.17, 0.18],
            [0.19, 0.15, 0.11, 0.08],
            "Overfitting: L1 is 0.1800 on validation pairs and 0.0800 on training pairs. The first was best in epoch 2 "
            "(0.1600) and has risen since, while the second fell on from 0.1500. model_best/",
        ),
        ([0.20, 0.17, 0.16], [0.19, 0.14, 0.10], "Some overfitting: L1 is 0.1600 on validation pairs and 0.1000"),
        ([0.20, 0.17, 0.16], [0.19, 0.16, 0.15], "No overfitting: L1 is 0.1600 on validation pairs and 0.1500"),
        # both rise: the generator got worse, it learnt nothing by heart
        ([0.20, 0.16, 0.30], [0.19, 0.15, 0.29], "No overfitting: "),
    ],
)
def test_overfitting_is_told_from_both_curves(validation: list[float], training: list[float], said: str) -> None:
    assert str(overfitting_words(curves(validation, training))).startswith(said)


@pytest.mark.parametrize("entries", [[], curves([0.2, 0.3], [0.2, 0.1]), [{"epoch": 1, "ssim": 0.5}] * 9])
def test_too_little_to_tell_says_nothing(entries: list[dict]) -> None:
    assert overfitting_words(entries) is None


def test_a_long_wait_for_pairs_is_said() -> None:
    assert waiting_words(Progress(elapsed_seconds=100, waiting_seconds=5), "off") is None
    words = str(waiting_words(Progress(elapsed_seconds=100, waiting_seconds=25), "off"))
    assert words.startswith("25%") and "--cache" in words


def test_a_generator_that_ran_away_is_told_at_the_end_of_an_epoch() -> None:
    assert saturation_words({"saturated": 0.3, "saturated_of_real": 0.25}) is None
    told = str(saturation_words({"saturated": 0.87, "saturated_of_real": 0.02}))
    assert told.startswith("87% of the generated values are at an end of their range (of the targets' 2%)")
    assert "lower --learning-rate" in told
