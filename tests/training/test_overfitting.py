"""What a run says of overfitting, from curves that are known."""

import pytest

from pix2pix_hub.training.overfitting import overfitting_words


def curves(validation: list[float], training: list[float]) -> list[dict]:
    pairs = enumerate(zip(validation, training, strict=True), 1)
    return [{"epoch": epoch, "l1": l1, "train_l1": train_l1} for epoch, (l1, train_l1) in pairs]


def test_a_validation_curve_that_rises_while_the_other_falls_is_overfitting() -> None:
    words = overfitting_words(curves([0.20, 0.16, 0.17, 0.18], [0.19, 0.15, 0.11, 0.08]))
    assert words is not None and words.startswith(
        "Overfitting: L1 is 0.1800 on validation pairs and 0.0800 on training"
    )
    assert "best in epoch 2 (0.1600)" in words and "from 0.1500" in words and "model_best/" in words


def test_a_gap_without_a_rise_is_some_overfitting() -> None:
    words = overfitting_words(curves([0.20, 0.17, 0.16], [0.19, 0.14, 0.10]))
    assert words is not None and words.startswith("Some overfitting") and "a gap of 60%" in words


def test_curves_that_fall_together_are_none() -> None:
    words = overfitting_words(curves([0.20, 0.17, 0.16], [0.19, 0.16, 0.15]))
    assert words == "No overfitting: L1 is 0.1600 on validation pairs and 0.1500 on training pairs."


def test_a_diverging_run_is_not_called_overfitting() -> None:
    """Both rise: the generator got worse, it learnt nothing by heart."""
    words = overfitting_words(curves([0.20, 0.16, 0.30], [0.19, 0.15, 0.29]))
    assert words is not None and words.startswith("No overfitting")


@pytest.mark.parametrize("entries", [[], curves([0.2, 0.3], [0.2, 0.1]), [{"epoch": 1, "ssim": 0.5}] * 9])
def test_too_little_to_tell_says_nothing(entries: list[dict]) -> None:
    assert overfitting_words(entries) is None
