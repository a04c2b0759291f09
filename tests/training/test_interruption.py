"""Runs killed or stopped by real signals and resumed end with the weights of the uninterrupted one, bitwise."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torchvision
from launching import LAUNCH, TINY, finish, send, start, wait_for
from run_results import entries, same, weights
from safetensors.torch import save_file

Condition = Callable[[], bool]


def lines(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def log(run: Path) -> list[dict[str, float]]:
    """Without what depends on time."""
    return [
        {name: value for name, value in entry.items() if "second" not in name and name != "data_wait"}
        for event in ("train", "validation")
        for entry in entries(run, event)
    ]


def assert_resumed_it_ends_as(uninterrupted: Path, run: Path, *options: str) -> str:
    """The same exports, networks of the last checkpoint, and log; returns what was said."""
    status, output = finish(*options, "--resume", "--output-dir", "run", cwd=run.parent)
    assert status == 0, output
    ours, expected = (
        weights(folder, "model*/**/*.safetensors", "checkpoints/checkpoint_15/*.safetensors")
        for folder in (run, uninterrupted)
    )
    assert len({name.partition(":")[0] for name in expected}) == 6
    assert same(ours, expected)
    assert log(run) == log(uninterrupted)
    assert not list(run.rglob("*.partial"))
    return output


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options of a perceptual loss, which draws random numbers at each step."""
    path = tmp_path_factory.mktemp("features") / "squeezenet.safetensors"
    save_file(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return ("--perceptual-weight", "1", "--perceptual-network", "squeezenet", "--perceptual-file", str(path))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, features: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    status, output = finish(*TINY, *features, "--output-dir", "run", "--checkpoint-every", "2", cwd=folder)
    assert status == 0, output
    return folder / "run"


def kill_when(condition_of: Callable[[Path], Condition], run: Path, *options: str) -> None:
    process = start(*TINY, *options, "--output-dir", "run", "--checkpoint-every", "2", cwd=run.parent)
    wait_for(process, condition_of(run))
    send(process, signal.SIGKILL)
    assert not (run / "model").exists(), "it had ended already"


MOMENTS: dict[str, Callable[[Path], Condition]] = {
    "before the first checkpoint": lambda run: lambda: lines(run) == 1,
    "in the middle of an epoch": lambda run: lambda: lines(run) >= 4,
    "during a save": lambda run: lambda: any(run.glob("checkpoints/checkpoint_[4-9].partial/*")),
    "during an export": lambda run: lambda: any(run.glob("model_best.partial/*")),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_it_ends_the_same(
    moment: str, tmp_path: Path, uninterrupted: Path, features: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    kill_when(MOMENTS[moment], run, *features)
    if moment == "in the middle of an epoch":  # and again
        kill_when(lambda run: lambda: lines(run) >= 14, run, "--resume")
    assert_resumed_it_ends_as(uninterrupted, run)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, uninterrupted: Path, features: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    kill_when(lambda run: lambda: (run / "checkpoints/checkpoint_8/manifest.json").exists(), run, *features)
    path = run / "checkpoints" / "checkpoint_8" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    output = assert_resumed_it_ends_as(uninterrupted, run)
    assert "checkpoint_8 is damaged" in output
    assert "checkpoint_6" in output


@pytest.mark.parametrize(
    ("number", "launcher"),
    [(signal.SIGTERM, ()), (signal.SIGINT, ()), (signal.SIGTERM, LAUNCH)],  # the last to the launcher alone
)
def test_a_signal_finishes_the_step_saves_and_exits(
    number: signal.Signals, launcher: tuple[str, ...], tmp_path: Path, uninterrupted: Path, features: tuple[str, ...]
) -> None:
    run, options = tmp_path / "run", (*TINY, *features)
    process = start(*options, "--output-dir", "run", "--checkpoint-every", "2", cwd=tmp_path, launcher=launcher)
    wait_for(process, lambda: lines(run) >= 3)
    output = send(process, number)
    assert launcher or process.returncode == 128 + number, output
    assert "Stopped at step" in output and "--resume --output-dir run" in output
    assert (run / "checkpoints" / f"checkpoint_{entries(run, 'train')[-1]['step']}" / "manifest.json").exists()
    assert (run / "model" / "model.safetensors").exists()
    assert_resumed_it_ends_as(uninterrupted, run)
