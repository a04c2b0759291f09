"""`data build`: what comes out of the data set is what went into it, pixel by pixel."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from huggingface_hub import DatasetCard
from PIL import Image

from pix2pix_hub.cli import main
from pix2pix_hub.config import PairOptions
from pix2pix_hub.data import build
from pix2pix_hub.data.build import build_pairs, write_dataset
from pix2pix_hub.data.pairs import load_pairs
from pix2pix_hub.util import UserError

pytestmark = pytest.mark.usefixtures("datasets_cache")


def noise(index: int, *shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(index).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def side_by_side(root: Path, count: int = 4) -> Path:
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(noise(index, 32, 64, 3)).save(root / split / f"{index}.png")
    return root


def folders_of_arrays(root: Path, channels: int, dtype: type) -> Path:
    for side in ("A", "B"):
        (root / side).mkdir(parents=True)
        for index in range(3):
            np.save(root / side / f"{index}.npy", noise(index + 10 * (side == "B"), 16, 24, channels, dtype=dtype))
    return root


def assert_same_pairs(before: str, after: str, direction: str = "AtoB") -> None:
    first = load_pairs(PairOptions(before, direction=direction, image_size="32"))
    second = load_pairs(PairOptions(after, image_size="32"))
    assert len(first.train) == len(second.train) > 0
    for index in range(len(first.train)):
        for ours, expected in zip(second.train[index], first.train[index], strict=True):
            assert torch.equal(ours, expected)
    assert second.train.formats["source"].channels == first.train.formats["source"].channels


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_a_folder_comes_back_from_its_data_set(direction: str, tmp_path: Path) -> None:
    folder, output = side_by_side(tmp_path / "pairs"), tmp_path / "built"
    assert main(["data", "build", str(folder), "--output", str(output), "--direction", direction]) == 0
    files = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    assert files == [
        "README.md",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
    ]
    assert_same_pairs(str(folder), str(output), direction)


@pytest.mark.parametrize(("channels", "dtype"), [(13, np.uint8), (2, np.uint16), (1, np.uint16)])
def test_deep_and_many_channels_lose_nothing(channels: int, dtype: type, tmp_path: Path) -> None:
    folder = folders_of_arrays(tmp_path / "pairs", channels, dtype)
    write_dataset(build_pairs(PairOptions(str(folder)), "built"), tmp_path / "built")
    assert_same_pairs(str(folder), str(tmp_path / "built"))


@pytest.mark.parametrize(("channels", "hint"), [(5, " --color-jitter 0"), (3, "")])
def test_the_command_that_trains_on_it_is_one_that_works(
    channels: int, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Colour jitter, on by default, is not defined for five bands."""
    folder, output = folders_of_arrays(tmp_path / "pairs", channels, np.uint8), tmp_path / "a set"
    assert main(["data", "build", str(folder), "--output", str(output)]) == 0
    command = f"accelerate launch train_accelerate.py --dataset '{output}'{hint}"
    assert capsys.readouterr().out.splitlines()[-1] == f"Train on it: {command}"
    assert f"    {command}\n" in (output / "README.md").read_text()


def test_large_splits_are_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SHARD_BYTES", 20_000)  # three pairs
    folder = side_by_side(tmp_path / "pairs", count=10)
    files = write_dataset(build_pairs(PairOptions(str(folder)), "built"), tmp_path / "built")
    assert len([path for path in files if path.name.startswith("train-")]) >= 3
    assert_same_pairs(str(folder), str(tmp_path / "built"))


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    folder = side_by_side(tmp_path / "pairs")
    write_dataset(build_pairs(PairOptions(str(folder)), "someone/streets"), tmp_path / "built")
    card = DatasetCard.load(tmp_path / "built" / "README.md")
    assert card.data.task_categories == ["image-to-image"]
    assert "4 pairs in `train`, 4 pairs in `validation`" in card.text
    assert str(tmp_path) not in card.text


def test_bad_pairs_stop_it_or_are_left_out(tmp_path: Path) -> None:
    folder = side_by_side(tmp_path / "pairs")
    (folder / "train" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"3\.png"):
        build_pairs(PairOptions(str(folder)), "built")
    status = main(["data", "build", str(folder), "--output", str(tmp_path / "built"), "--on-bad-pair", "skip"])
    assert status == 0
    (line,) = (tmp_path / "built" / "bad_pairs.jsonl").read_text().splitlines()
    assert "3.png" in json.loads(line)["reason"]
    assert len(load_pairs(PairOptions(str(tmp_path / "built"), image_size="32")).train) == 3


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "built").mkdir()
    assert main(["data", "build", "synthetic", "--output", str(tmp_path / "built")]) == 2
    assert main(["data", "build", "synthetic"]) == 2
    assert not list((tmp_path / "built").iterdir())
    assert "--output" in capsys.readouterr().err


def test_what_is_pushed_is_what_was_built(hub: HubServer, tmp_path: Path) -> None:
    folder = side_by_side(tmp_path / "pairs")
    assert main(["data", "build", str(folder), "--push", "tester/streets", "--private"]) == 0
    repo = hub.repo("tester/streets", kind="datasets")
    shards = {f"data/{split}-00000-of-00001.parquet" for split in ("train", "validation")}
    assert repo.private and repo.files() == {".gitattributes", "README.md", *shards}
    card = DatasetCard.load("tester/streets")
    assert "4 pairs in `train`" in card.text and "--dataset tester/streets" in card.text
    assert card.data.task_categories == ["image-to-image"] and card.data.dataset_info
    card.validate()
    assert_same_pairs(str(folder), "tester/streets")


@pytest.mark.parametrize(
    ("token", "repo_id", "words"),
    [
        ("", "tester/streets", "hf auth login"),
        (HubServer.read_token, "tester/streets", "may only read"),
        (HubServer.token, "somebody/streets", "push to tester/streets"),
        (HubServer.token, "tester/--", "no repository id"),
    ],
)
def test_pushing_without_the_right_to_is_refused_before_anything_is_read(
    token: str,
    repo_id: str,
    words: str,
    hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert main(["data", "build", "no/such/pairs", "--push", repo_id]) == 2
    assert words in capsys.readouterr().err
    assert not hub.repos


def test_a_push_that_fails_says_so(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fail("POST .*/commit/", status=413, message="too large")
    assert main(["data", "build", str(side_by_side(tmp_path / "pairs")), "--push", "tester/streets"]) == 2
    assert "413" in capsys.readouterr().err
    assert hub.repo("tester/streets", kind="datasets").files() == {".gitattributes"}
