"""Writing aside: the old content or the new one, nothing between; numbers in sentences."""

from pathlib import Path

import pytest

from pix2pix_hub.util import counted, write_aside, write_folder_aside


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with write_aside(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["notes.txt"]


def test_an_error_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_aside(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["notes.txt"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with write_folder_aside(tmp_path / "model") as partial:
            (partial / content).mkdir()
            (partial / content / "file").write_text(content)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["new"]


def test_an_error_leaves_the_old_folder_alone(tmp_path: Path) -> None:
    with write_folder_aside(tmp_path / "model") as partial:
        (partial / "old").write_text("")
    with pytest.raises(RuntimeError), write_folder_aside(tmp_path / "model") as partial:
        (partial / "new").write_text("")
        raise RuntimeError
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["old"]


def test_leftovers_of_a_killed_writer_do_not_get_in(tmp_path: Path) -> None:
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "leftover").write_text("")
    with write_folder_aside(tmp_path / "model") as partial:
        (partial / "file").write_text("")
    assert names(tmp_path / "model") == ["file"]


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
