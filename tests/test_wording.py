"""Nouns agree with their numbers."""

from pix2pix_hub.wording import counted


def test_nouns_agree_with_numbers() -> None:
    said = [counted(1, "pair"), counted(0, "pair"), counted(2, "process"), counted(3.0, "epoch"), counted(2, "patch")]
    assert said == ["1 pair", "0 pairs", "2 processes", "3 epochs", "2 patches"]
    assert counted(1.5, "epoch") == "1.5 epochs" and counted(1.0, "epoch") == "1 epoch"
