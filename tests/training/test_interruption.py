"""Runs killed or stopped by real signals and resumed end with the weights of the uninterrupted one, bitwise."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from launching import LAUNCH, TINY, finish, send, start, wait_for
from safetensors.torch import load_file

Condition = Callable[[], bool]


def lines(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def final_state(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the exports and of the last checkpoint's networks."""
    files = [*run.glob("model*/**/*.safetensors"), *run.glob("checkpoints/checkpoint_15/*.safetensors")]
    assert len(files) == 6, files
    return {f"{file.relative_to(run)}:{name}": tensor for file in files for name, tensor in load_file(file).items()}


def assert_same_end(run: Path, uninterrupted: Path) -> None:
    ours, expected = final_state(run), final_state(uninterrupted)
    assert ours.keys() == expected.keys()
    assert not [name for name in expected if not torch.equal(ours[name], expected[name])]
    assert metrics(run) == metrics(uninterrupted)
    assert not list(run.rglob("*.partial"))


def metrics(run: Path) -> list[dict[str, float]]:
    """The log without what depends on time."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in entry.items() if "second" not in name and name != "data_wait"}
        for entry in entries
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    status, output = finish(*TINY, "--output-dir", "run", "--checkpoint-every", "2", cwd=folder)
    assert status == 0, output
    return folder / "run"


def kill_when(condition_of: Callable[[Path], Condition], run: Path, options: list[str]) -> None:
    process = start(*options, "--output-dir", "run", "--checkpoint-every", "2", cwd=run.parent)
    wait_for(process, condition_of(run))
    send(process, signal.SIGKILL)


MOMENTS: dict[str, Callable[[Path], Condition]] = {
    "before the first checkpoint": lambda run: lambda: lines(run) == 1,
    "in the middle of an epoch": lambda run: lambda: lines(run) >= 4,
    "during a save": lambda run: lambda: any(run.glob("checkpoints/checkpoint_[4-9].partial/*")),
    "during an export": lambda run: lambda: any(run.glob("model_best.partial/*")),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_it_ends_the_same(moment: str, tmp_path: Path, uninterrupted: Path) -> None:
    run = tmp_path / "run"
    kill_when(MOMENTS[moment], run, TINY)
    assert not (run / "model").exists(), "it had ended already"
    status, output = finish("--resume", "--output-dir", "run", cwd=tmp_path)
    assert status == 0, output
    assert_same_end(run, uninterrupted)


def test_killed_again_and_again_it_ends_the_same(tmp_path: Path, uninterrupted: Path) -> None:
    run = tmp_path / "run"
    for count in (3, 14):
        kill_when(lambda run, count=count: lambda: lines(run) >= count, run, [*TINY, "--resume"])
    status, output = finish(*TINY, "--resume", "--output-dir", "run", cwd=tmp_path)
    assert status == 0, output
    assert_same_end(run, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_exits(
    number: signal.Signals, tmp_path: Path, uninterrupted: Path
) -> None:
    run = tmp_path / "run"
    process = start(*TINY, "--output-dir", "run", "--checkpoint-every", "2", cwd=tmp_path)
    wait_for(process, lambda: lines(run) >= 3)
    output = send(process, number)
    assert process.returncode == 128 + number, output
    assert "--resume --output-dir run" in output
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert (run / "checkpoints" / f"checkpoint_{steps[-1]}" / "manifest.json").exists()
    assert (run / "model" / "model.safetensors").exists()
    status, output = finish("--resume", "--output-dir", "run", cwd=tmp_path)
    assert status == 0, output
    assert_same_end(run, uninterrupted)


def test_ending_the_launcher_ends_and_saves_the_run(tmp_path: Path, uninterrupted: Path) -> None:
    run = tmp_path / "run"
    process = start(*TINY, "--output-dir", "run", "--checkpoint-every", "2", cwd=tmp_path, launcher=LAUNCH)
    wait_for(process, lambda: lines(run) >= 3)
    output = send(process, signal.SIGTERM)  # to the launcher alone
    assert "Stopped at step" in output
    status, output = finish("--resume", "--output-dir", "run", cwd=tmp_path)
    assert status == 0, output
    assert_same_end(run, uninterrupted)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path, uninterrupted: Path) -> None:
    run = tmp_path / "run"
    kill_when(lambda run: lambda: (run / "checkpoints/checkpoint_8/manifest.json").exists(), run, TINY)
    weights = run / "checkpoints" / "checkpoint_8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    status, output = finish("--resume", "--output-dir", "run", cwd=tmp_path)
    assert status == 0, output
    assert "checkpoint_8 is damaged" in output
    assert "checkpoint_6" in output
    assert_same_end(run, uninterrupted)
