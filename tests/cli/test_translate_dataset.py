"""`pix2pix-hub translate-dataset`: every row once, on one process or several, stopped or not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from accelerate.state import PartialState
from datasets import Dataset, Features, enable_progress_bars, load_dataset
from datasets import Image as ImageFeature
from hub_server import HubServer
from launching import LAUNCH_TWO, start_command, wait_for
from PIL import Image
from tiny_exports import GRAY16, RGB16, noise, write_tiny_export

from pix2pix_hub import Pix2PixPipeline
from pix2pix_hub.cli import main
from pix2pix_hub.image.read import read_image


@pytest.fixture(autouse=True)
def _alone(datasets_cache: Path) -> Iterator[None]:
    """Accelerate keeps its state in a singleton; a test gets its own, and a cache of its own."""
    yield
    PartialState._reset_state()
    enable_progress_bars()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_export(tmp_path_factory.mktemp("rgb"))


def pair_folders(root: Path, count: int = 5, size: int = 20) -> Path:
    for side in "AB":
        (root / "train" / side).mkdir(parents=True)
        for number in range(count):
            pixels = noise((size, size + number, 3), seed=number + 1000 * (side == "B"))
            Image.fromarray(pixels).save(root / "train" / side / f"{number}.png")
    return root


def read(folder: Path, split: str = "train") -> Dataset:
    """As a user does."""
    return load_dataset(str(folder), split=split)


def test_pairs_become_three_columns(model: Path, tmp_path: Path) -> None:
    pairs = pair_folders(tmp_path / "pairs")
    words = ["translate-dataset", str(model), str(pairs), "--direction", "BtoA", "--rows-per-file", "2"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    rows = read(tmp_path / "out")
    assert rows.column_names == ["source", "generated", "target"] and len(rows) == 5
    pipe = Pix2PixPipeline.from_pretrained(model)
    for number, row in enumerate(rows):
        sides = [pairs / "train" / side / f"{number}.png" for side in "BA"]
        assert np.array_equal(np.asarray(row["source"]), np.asarray(Image.open(sides[0])))
        assert np.array_equal(np.asarray(row["target"]), np.asarray(Image.open(sides[1])))
        assert np.array_equal(np.asarray(row["generated"]), np.asarray(pipe(sides[0])))
    names = {path.name for path in (tmp_path / "out" / "data").iterdir()}
    assert names == {f"train-0000{number}-of-00003.parquet" for number in range(3)}
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()


def test_one_column_of_sources(tmp_path: Path) -> None:
    """16 bits stay 16 bits; a folder of images is such a column."""
    model = write_tiny_export(tmp_path / "model", GRAY16, RGB16)
    (tmp_path / "photos").mkdir()
    for number in range(2):
        Image.fromarray(noise((9, 8), "uint16", number)).save(tmp_path / "photos" / f"{number}.png")
    words = ["translate-dataset", str(model), str(tmp_path / "photos"), "--source-column", "image"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    rows = read(tmp_path / "out").cast_column("generated", ImageFeature(decode=False))
    assert rows.column_names == ["source", "generated"]
    made = [read_image(row["generated"]["bytes"], "x") for row in rows]
    expected = Pix2PixPipeline.from_pretrained(model)([tmp_path / "photos" / f"{number}.png" for number in range(2)])
    for one, pixels in zip(made, expected, strict=True):
        assert np.array_equal(one.values, pixels)


def test_a_folder_of_images_is_read_to_the_bottom_and_files_keep_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also arrays, which `datasets` passes over; a bad file is called by its own name."""
    model, photos = write_tiny_export(tmp_path / "model", GRAY16, RGB16), tmp_path / "photos"
    (photos / "sea" / ".hidden").mkdir(parents=True)
    np.save(photos / "sea" / "shore.npy", noise((9, 8), "uint16"))
    Image.fromarray(noise((9, 8), "uint16", 1)).save(photos / "cat.png")
    (photos / "dog.png").write_bytes(b"")
    (photos / "sea" / ".hidden" / "x.png").write_bytes(b"")
    words = ["translate-dataset", str(model), str(photos), "--source-column", "image"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 1
    assert "left out: dog.png is empty" in capsys.readouterr().out
    rows = read(tmp_path / "out").cast_column("generated", ImageFeature(decode=False))
    assert [row["generated"]["path"] for row in rows] == ["cat.png", "shore.png"]


@pytest.mark.parametrize(("direction", "bad"), [("AtoB", "a_1.png"), ("BtoA", "b_1.png")])
def test_rows_of_tables_are_called_by_their_files_where_they_say(
    model: Path, direction: str, bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = {
        side: [{"bytes": png(noise((8, 8, 3), seed=number)), "path": f"{side}_{number}.png"} for number in range(2)]
        for side in "ab"
    }
    cells[bad[0]][1]["bytes"] = b"no image"
    features = Features(source=ImageFeature(), target=ImageFeature())
    table = Dataset.from_dict({"source": cells["a"], "target": cells["b"]}, features=features)
    (tmp_path / "table").mkdir()
    table.to_parquet(tmp_path / "table" / "train.parquet")
    words = ["translate-dataset", str(model), str(tmp_path / "table"), "--direction", direction]
    assert main([*words, "--output", str(tmp_path / "out")]) == 1
    column = {"a": "source", "b": "target"}[bad[0]]
    assert f"left out: row 1 of split train, column {column} ({bad}) is not a picture" in capsys.readouterr().out
    (row,) = read(tmp_path / "out").cast_column("generated", ImageFeature(decode=False))
    assert row["generated"]["path"] == f"{bad[0]}_0.png"


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_what_cannot_be_read_is_left_out_and_listed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = pair_folders(tmp_path / "pairs")
    (pairs / "train" / "A" / "3.png").write_bytes(b"no image")
    words = ["translate-dataset", str(model), str(pairs), "--rows-per-file", "1", "--output", str(tmp_path / "out")]
    assert main(words) == 1
    assert len(read(tmp_path / "out")) == 4
    (line,) = (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 3
    assert "3.png" in capsys.readouterr().out
    assert "4 images in `train`" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--output FOLDER"),
        (["--output", "out", "--stochastic"], "--seed"),
        (["--output", "out", "--split", "moon"], "--split moon"),
        (["--output", "out", "--source-column", "moon"], "--source-column moon"),
        (["--output", "pairs"], "never overwritten"),
        (["--push", "someone/streets"], "someone"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(
    model: Path,
    tmp_path: Path,
    hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    pair_folders(tmp_path / "pairs", 1)
    before = sorted(tmp_path.rglob("*.*"))
    assert main(["translate-dataset", str(model), "pairs", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert [path for path in before if not path.exists()] == []


def test_another_translation_is_not_gone_on_with(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the first file; other options are refused, the same go on without touching what is there."""
    pairs = pair_folders(tmp_path / "pairs")
    words = ["translate-dataset", str(model), str(pairs), "--rows-per-file", "2", "--output", str(tmp_path / "out")]
    to_parquet = Dataset.to_parquet

    def stopped_at_second(self: Dataset, path: Path) -> None:
        if "00001-of" in str(path):
            raise KeyboardInterrupt
        to_parquet(self, path)

    with monkeypatch.context() as patched:
        patched.setattr(Dataset, "to_parquet", stopped_at_second)
        assert main(words) == 130
    (first,) = (tmp_path / "out" / "data").iterdir()
    inode = first.stat().st_ino
    assert main([*words, "--direction", "BtoA"]) == 2
    assert "direction" in capsys.readouterr().err
    assert main(words) == 0
    assert (tmp_path / "out" / "data" / first.name).stat().st_ino == inode
    assert len(read(tmp_path / "out")) == 5


def test_the_result_is_pushed(model: Path, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = pair_folders(tmp_path / "pairs", 2)
    assert main(["translate-dataset", str(model), str(pairs), "--push", "tester/translated"]) == 0
    rows = load_dataset("tester/translated", split="train")
    here = read(tmp_path / "translated" / "translated")
    assert [np.asarray(row["generated"]).tolist() for row in rows] == [
        np.asarray(row["generated"]).tolist() for row in here
    ]


def test_two_processes_killed_and_gone_on_with_by_one(model: Path, tmp_path: Path) -> None:
    """What two processes wrote before SIGKILL stays as it is; each row is in the result once, in order."""
    pairs = pair_folders(tmp_path / "pairs", 60, size=64)
    words = ["translate-dataset", str(model), str(pairs), "--rows-per-file", "1", "--output", str(tmp_path / "out")]
    data = tmp_path / "out" / "data"
    process = start_command([*LAUNCH_TWO, "-m", "pix2pix_hub.cli", *words], cwd=tmp_path)
    wait_for(process, lambda: {int(path.name[6:11]) % 2 for path in data.glob("*.parquet")} == {0, 1})
    assert main(words) == 2, "a second run is refused while the first is at work"
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:
        one.kill()
    psutil.wait_procs(everyone, timeout=60)
    written = {path.name: path.stat().st_ino for path in data.glob("*.parquet")}
    assert 2 <= len(written) < 60, f"{len(written)} of 60 files when it was killed"
    (data / "train-00059-of-00060.parquet.partial").write_text("what a killed process may leave")
    assert main(words) == 0
    after = {path.name: path.stat().st_ino for path in (tmp_path / "out" / "data").iterdir()}
    assert len(after) == 60 and {name: after[name] for name in written} == written
    assert [row["source"].width for row in read(tmp_path / "out")] == [64 + number for number in range(60)]
