"""`data make`: photos from wherever they are, the same bytes on any number of processes, killed or not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, load_dataset
from datasets import Image as ImageFeature
from hub_server import HubServer
from launching import kill, start_command
from PIL import Image
from tiny_exports import noise

from pix2pix_hub.cli import main
from pix2pix_hub.config import MAKER_DEFAULTS, MakerOptions, PairOptions
from pix2pix_hub.data import make
from pix2pix_hub.data.pairs import load_pairs
from pix2pix_hub.data.stream import open_stream
from pix2pix_hub.image.format import TITLE_HEIGHT
from pix2pix_hub.image.maker import make_pair
from pix2pix_hub.image.read import read_image
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.util import UserError

pytestmark = pytest.mark.usefixtures("datasets_cache")


def photos(folder: Path, count: int = 5, size: int = 24) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        render_pair(number, (size, size + number))[1].save(folder / f"{number}.png")
    return folder


def run(*words: object) -> int:
    return main(["data", "make", *map(str, words)])


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_made(output: Path, files: list[Path], maker: MakerOptions, split: str = "train") -> None:
    """As anybody reads a data set: sources and targets are those of these photos, in order."""
    rows = load_dataset(str(output), split=split)
    assert rows.column_names == ["source", "target"] and len(rows) == len(files)
    for row, file in zip(rows, files, strict=True):
        source, target = make_pair(read_image(file, "x"), maker, "x")
        assert np.array_equal(np.asarray(row["source"]), np.asarray(source.picture()))
        assert np.array_equal(np.asarray(row["target"]), np.asarray(target.picture()))


# --------------------------------------------------------------------------------------------------- where they are


def test_a_folder_with_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("train", 3), ("val", 2)):
        photos(tmp_path / "photos" / split, count)
    output, grid = tmp_path / "pairs", tmp_path / "grid.png"
    assert run("edges", tmp_path / "photos", "--output", output, "--grid", grid, "--rows", 2) == 0
    said = capsys.readouterr().out
    assert "5 pairs in" in said and said.splitlines()[-1].endswith(f"pix2pix-hub train --dataset {output}")
    for split, count in (("train", 3), ("validation" if (output / "x").exists() else "val", 2)):
        files = [tmp_path / "photos" / split / f"{number}.png" for number in range(count)]
        assert_made(output, files, MakerOptions("edges"), split)
    assert Image.open(grid).size == (3 * 258 + 2, 2 * 258 + 2 + TITLE_HEIGHT)
    assert str(tmp_path) not in (output / "README.md").read_text() + (output / "source_maker.json").read_text()
    assert not (tmp_path / "pairs.partial").exists()
    pairs = load_pairs(PairOptions(str(output), image_size="32"))
    assert (len(pairs.train), len(pairs.validation), pairs.maker) == (3, 2, MakerOptions("edges"))
    assert {entry.color for entry in pairs.formats["source"].palette} == {(0, 0, 0), (255, 255, 255)}
    assert load_pairs(PairOptions(str(output), direction="BtoA", image_size="32")).maker is None


def test_files_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "a", 3)
    photos(tmp_path / "b" / "c", 2)
    monkeypatch.chdir(tmp_path)
    assert run("blur", "b/**/*.png", "a/2.png", "--radius", 3, "--output", "out") == 0
    maker = MakerOptions("blur", radius=3.0)
    assert_made(tmp_path / "out", [tmp_path / name for name in ("b/c/0.png", "b/c/1.png", "a/2.png")], maker)
    assert run("gray", "a/1.png", "--output", "one") == 0
    assert_made(tmp_path / "one", [tmp_path / "a" / "1.png"], MakerOptions("gray"))


@pytest.mark.parametrize("words", [(), ("--streaming",)])
def test_a_set_on_the_hub_in_two_shards(words: tuple[str, ...], hub: HubServer, tmp_path: Path) -> None:
    files = sorted(photos(tmp_path / "photos").iterdir())
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    features = Features(photo=ImageFeature(), mask=ImageFeature())
    for number, part in enumerate((cells[:3], cells[3:])):
        rows = Dataset.from_dict({"photo": part, "mask": part}, features=features)
        (tmp_path / "set").mkdir(exist_ok=True)
        rows.to_parquet(tmp_path / "set" / f"train-0000{number}-of-00002.parquet")
    hub.add_folder("user/photos", tmp_path / "set", kind="datasets")
    assert run("noise", "user/photos", *words, "--output", tmp_path / "no") == 2, "which of the two columns?"
    assert run("noise", "user/photos", *words, "--source-column", "photo", "--output", tmp_path / "out") == 0
    assert_made(tmp_path / "out", files, MakerOptions("noise"))


def test_the_synthetic_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": range(2), "validation": range(10_000, 10_001)}
    monkeypatch.setattr("pix2pix_hub.data.pairs.SYNTHETIC_SPLITS", splits)
    assert run("palette", "synthetic", "--output", tmp_path / "out") == 0
    for split, numbers in splits.items():
        files = []
        for number in numbers:
            render_pair(number)[1].save(tmp_path / f"{number}.png")
            files.append(tmp_path / f"{number}.png")
        assert_made(tmp_path / "out", files, MakerOptions("palette"), split)


# ------------------------------------------------------------------------------------------- stopped, and in parallel


@pytest.mark.parametrize("kind", MAKER_DEFAULTS)
def test_the_same_bytes_on_any_number_of_processes(kind: str, tmp_path: Path) -> None:
    files = photos(tmp_path / "photos", 2 * make.ROWS_PER_FILE + 5, size=16)
    made, how = [], ["--noise", 9] if kind == "lowres" else []
    for workers in (0, 1, 2, 3) if kind == "lowres" else (0, 3):
        (place := tmp_path / str(workers)).mkdir()
        assert run(kind, files, *how, "--num-workers", workers, "--output", place / "out") == 0
        made.append(content(place / "out"))
    assert len(made[0]) == 5 and all(other == made[0] for other in made)


def test_killed_at_any_moment_and_started_again_the_same_folder(tmp_path: Path) -> None:
    """SIGKILL to all its processes, sooner and later, until one run comes to its end."""
    folder = photos(tmp_path / "photos", 5 * make.ROWS_PER_FILE, size=32)
    (folder / "7.png").write_bytes(b"")
    words = ["mask", str(folder), "--num-workers", "2", "--output"]
    assert run(*words, tmp_path / "whole" / "out") == 1
    output, partial = tmp_path / "killed" / "out", tmp_path / "killed" / "out.partial"
    command, states = ["-m", "pix2pix_hub.cli", "data", "make", *words, str(output)], set()
    for wanted in (0, 1, 3, 5):  # files that are there when it is killed
        process = start_command(command, cwd=tmp_path)
        while process.poll() is None and len(list(partial.glob("data/*.parquet"))) < wanted:
            time.sleep(0.001)
        assert not output.exists() or (output / "README.md").exists(), "half-written"
        kill(process)
        states.add(len(list(partial.glob("data/*.parquet"))))
    assert states & {1, 2, 3, 4}, f"never killed half-way: {states}"
    assert run(*words, output) == 1
    assert content(output) == content(tmp_path / "whole" / "out")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["out"]
    assert run(*words, output) == 1, "nothing is left to be done"


def test_unreadable_photos_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    Image.fromarray(noise((8, 8), "uint16")).save(folder / "4.png")
    assert run("gray", folder, "--output", tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert "3 pairs in" in said and "left out: 1.png is damaged" in said and "left out: 4.png is uint16" in said
    lines = [json.loads(line) for line in (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()]
    assert [(line["split"], line["row"]) for line in lines] == [("train", 1), ("train", 4)]
    assert_made(tmp_path / "out", [folder / f"{number}.png" for number in (0, 2, 3)], MakerOptions("gray"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gray", "/nowhere"], "'/nowhere' is neither a folder"),
        (["gray", "photos/*.gif"], "photos/*.gif"),
        (["gray"], "No images were named"),
        (["gray", "photos", "--source-column", "moon"], "moon"),
        (["gray", "photos", "--revision", "main"], "--dataset-revision is for Hub data sets"),
        (["gray", "photos/1.png", "--streaming"], "--streaming"),
        (["gray", "photos", "--streaming"], "--streaming reads Parquet"),
        (["gray", "photos", "--num-workers", "-1"], "--num-workers -1"),
        (["gray", "photos", "--output", "photos"], "never overwritten"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(
    words: list[str], said: str, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = content(photos(tmp_path / "photos"))
    assert run(*words, *([] if "--output" in words else ["--output", "out"])) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("out*")) and content(tmp_path / "photos") == before


def test_an_option_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("gray", tmp_path, "--colors", 4, "--output", tmp_path / "out")
    assert "--colors is of palette" in capsys.readouterr().err


def test_another_making_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos(tmp_path / "photos")

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(make, "write_shard", no_room)
        assert run("blur", folder, "--output", tmp_path / "out") == 2
    assert "No space left" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert run("gray", folder, "--output", tmp_path / "out") == 2
    assert "begun with other options" in capsys.readouterr().err
    assert run("blur", folder, "--output", tmp_path / "out") == 0
    assert run("blur", folder, "--radius", 3, "--output", tmp_path / "out") == 2
    assert "begun with other options" in capsys.readouterr().err
    assert_made(tmp_path / "out", sorted(folder.iterdir()), MakerOptions("blur"))


# ------------------------------------------------------------------------------------------------- how it was made


def test_the_maker_goes_to_the_hub_and_back(hub: HubServer, tmp_path: Path) -> None:
    """Through `data build`, which sets it apart from a set whose direction was turned round; streamed or not."""
    assert run("palette", photos(tmp_path / "photos"), "--colors", 3, "--output", tmp_path / "made") == 0
    maker = MakerOptions("palette", colors=3)
    for direction, expected in (("AtoB", maker), ("BtoA", None)):
        name = f"tester/{direction}"
        assert main(["data", "build", str(tmp_path / "made"), "--push", name, "--direction", direction]) == 0
        assert load_pairs(PairOptions(name, image_size="32")).maker == expected
        assert open_stream(PairOptions(name, image_size="32")).maker == expected
        folder = str(tmp_path / direction)
        assert main(["data", "build", str(tmp_path / "made"), "--output", folder, "--direction", direction]) == 0
        assert load_pairs(PairOptions(folder, image_size="32")).maker == expected


@pytest.mark.parametrize("text", ["{}", '{"maker": {"kind": "oil"}}', '{"maker": {"kind": "gray", "x": 1}}', "no"])
def test_a_strange_maker_is_refused(text: str, tmp_path: Path) -> None:
    assert run("gray", photos(tmp_path / "photos"), "--output", tmp_path / "made") == 0
    (tmp_path / "made" / "source_maker.json").write_text(text)
    with pytest.raises(UserError, match=r"source_maker\.json is not"):
        load_pairs(PairOptions(str(tmp_path / "made")))
