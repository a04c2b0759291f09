"""Writing aside: the old content or the new one, nothing between; and reading what may come from anybody."""

from pathlib import Path

import pytest

from pix2pix_hub.util import UserError, counted, is_own_file, read_object, write_aside, write_folder_aside


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
    ("content", "words"),
    [
        (b'{"a": [' + b"[]," * 400_000 + b"1]}", "more than 1048576 bytes"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "nested deeper than 16 levels"),
        (b"[" * 500_000, "recursion"),
        (b'{"a": NaN}', "NaN in place of a number"),
        (b'{"a": -Infinity}', "-Infinity in place of a number"),
        (b'{"a": 1e999}', "1e999 in place of a number"),
        (b'{"a": ' + b"9" * 400 + b"}", "9{20} in place of a number"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b"\xff{}", "can't decode"),
        (b"[]", "must hold a JSON object, not list"),
    ],
)
def test_json_of_strangers_has_bounds(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=f"config.json .*{words}"):
        read_object(tmp_path / "config.json")


def test_json_within_the_bounds_is_read(tmp_path: Path) -> None:
    content = b'{"a": [1, -2.5, 1e3, null, true, "\xc3\xa4"], "b": {"c": 1234567890123456789}, "a": [0]}'
    (tmp_path / "config.json").write_bytes(content)
    assert read_object(tmp_path / "config.json") == {"a": [0], "b": {"c": 1234567890123456789}}
    assert read_object(tmp_path / "absent.json") == read_object(Path("x" * 5000)) == read_object(Path("a\0b")) == {}


def test_links_that_lead_out_of_a_folder_are_told_from_its_own_files(tmp_path: Path) -> None:
    cache = tmp_path / "models--user--name"
    for folder in ("export/sub", "blobs", "snapshots/0123"):
        (cache / folder).mkdir(parents=True)
    (tmp_path / "secret").write_text("mine")
    (cache / "blobs" / "abc").write_text("{}")
    (cache / "snapshots" / "0123" / "config.json").symlink_to("../../blobs/abc")
    (cache / "snapshots" / "0123" / "README.md").symlink_to(tmp_path / "secret")
    (cache / "export" / "own").write_text("own")
    for name, target in (("in", "own"), ("out", "../blobs/abc"), ("loop", "loop"), ("sub/up", "../own")):
        (cache / "export" / name).symlink_to(target)
    (tmp_path / "linked").symlink_to(cache / "export")
    for folder in (cache / "export", tmp_path / "linked"):
        own = {name: is_own_file(folder / name, folder) for name in ("own", "in", "sub/up", "out", "../blobs/abc")}
        assert own == {"own": True, "in": True, "sub/up": True, "out": False, "../blobs/abc": False}
    snapshot = cache / "snapshots" / "0123"
    assert is_own_file(snapshot / "config.json", snapshot) and not is_own_file(snapshot / "README.md", snapshot)


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
