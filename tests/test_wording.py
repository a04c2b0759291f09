"""Numbers in sentences."""

import pytest

from pix2pix_hub.wording import counted


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (0, "pair", "0 pairs"),
        (1, "bad pair", "1 bad pair"),
        (1_000_000, "step", "1000000 steps"),
        (2, "process", "2 processes"),
        (1, "process", "1 process"),
        (3, "branch", "3 branches"),
        (3, "epoch", "3 epochs"),
        (1.0, "epoch", "1 epoch"),
        (1.5, "epoch", "1.5 epochs"),
        (0.99999, "epoch", "1 epoch"),
    ],
)
def test_nouns_agree_with_their_numbers(count: float, noun: str, words: str) -> None:
    assert counted(count, noun) == words
