"""Two gloo processes, of one machine or of two that share no files, train one model: the one a single process would."""

import fcntl
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import (
    LAUNCH,
    LAUNCH_TWO,
    TINY,
    TORCHRUN_TWO,
    environment,
    finish,
    kill,
    start,
    start_machines,
    wait_for,
)
from PIL import Image
from run_results import entries, files, same, weights

WORKER = Path(__file__).with_name("two_process_worker.py")


def history(folder: Path, launcher: tuple[str, ...], norm: str, name: str) -> list[list[dict[str, torch.Tensor]]]:
    """Weights of both networks after each step, as one process saw them."""
    folder = folder / norm
    folder.mkdir(exist_ok=True)
    if not (folder / name).exists():
        command = [sys.executable, *launcher, str(WORKER), str(folder), norm]
        subprocess.run(command, check=True, env=environment(), timeout=300, capture_output=True)
    return torch.load(folder / name, weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_the_gradients_are_those_of_one_process_with_the_whole_batch(runs: Path) -> None:
    one = history(runs, LAUNCH, "instance", "1_0.pt")
    two = history(runs, LAUNCH_TWO, "instance", "2_0.pt")
    for ours, expected in zip(two[0], one[0], strict=True):  # plain SGD: the first step is the gradient
        for name in expected:
            torch.testing.assert_close(ours[name], expected[name], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_weights_are_equal_on_both_ranks_after_every_step(norm: str, runs: Path) -> None:
    ranks = [history(runs, LAUNCH_TWO, norm, f"2_{rank}.pt") for rank in range(2)]
    assert len(ranks[0]) == 5
    for first, second in zip(*ranks, strict=True):
        for ours, theirs in zip(first, second, strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("obstacle", [".lock", "curves.png.partial"])
def test_what_stops_the_first_stops_the_second_with_the_same_words(obstacle: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with (run / ".lock").open("a") as lock:
        if obstacle == ".lock":
            fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(*TINY, "--output-dir", "run", cwd=tmp_path, launcher=TORCHRUN_TWO)
        if obstacle != ".lock":
            wait_for(process, (run / "training_config.json").exists)
            (run / obstacle).mkdir()
        output, _ = process.communicate(timeout=120)
    words = r"another run is at work in run" if obstacle == ".lock" else rf"could not be written to run \(.*{obstacle}"
    assert len(re.findall(f"error: .*{words}", output)) == 2, output
    assert "rank 1: error: " in output
    assert "RuntimeError" not in output


def test_a_run_on_two_processes_killed_and_resumed_ends_the_same(tmp_path: Path) -> None:
    """With batch norm; a whole run without it: tests/hub/test_publishing.py."""
    options = [*TINY, "--preset", "paper", "--checkpoint-every", "2", "--output-dir"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    status, output = finish(*options, "whole", cwd=tmp_path, launcher=LAUNCH_TWO)
    assert status == 0, output
    assert output.count("The model is in whole/model") == 1
    assert [entry["step"] for entry in entries(whole, "train")] == list(range(1, 10))  # 10 pairs, 2x2
    assert json.loads((whole / "training_config.json").read_text())["processes"] == 2
    process = start(*options, "parts", cwd=tmp_path, launcher=LAUNCH_TWO)
    wait_for(process, lambda: (parts / "checkpoints" / "checkpoint_4" / "manifest.json").exists())
    kill(process)
    assert not (parts / "model").exists(), "it had ended already"
    status, output = finish("--resume", "--output-dir", "parts", cwd=tmp_path, launcher=LAUNCH_TWO)
    assert status == 0, output
    assert same(weights(parts), weights(whole))


def test_no_thread_of_the_process_group_outlives_a_command(tmp_path: Path) -> None:
    """One that lets go of a tensor while Python ends takes the process down with SIGABRT when all is said and done."""
    script = tmp_path / "threads.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from pix2pix_hub.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "names = [(task / 'comm').read_text().strip() for task in Path('/proc/self/task').iterdir()]\n"
        "print('status', status, [name for name in names if 'gloo' in name], flush=True)\n"
    )
    evaluating = ("run/model", "synthetic", "--output", "evaluation", "--task", "none")
    for options in (("train", *TINY, "--output-dir", "run"), ("evaluate", *evaluating)):
        status, output = finish(*options, cwd=tmp_path, launcher=LAUNCH_TWO, script=script)
        assert status == 0, output
        assert output.count("status 0 []") == 2, output


# --- two machines


@pytest.fixture
def machines(tmp_path: Path) -> list[Path]:
    """Working folders, each with a copy of the same pairs."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        (folder / "pairs").mkdir(parents=True)
        for number in range(12):
            noise = torch.rand(32, 64, 3, generator=torch.Generator().manual_seed(number))
            Image.fromarray((noise * 255).byte().numpy()).save(folder / "pairs" / f"{number:02}.png")
    return folders


def said(*options: str, machines: Sequence[Path], ends: int, **how: Any) -> list[str]:
    """What the process on each machine says until it ends with that status."""
    processes = start_machines(*options, folders=machines, **how)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [bool(process.returncode) for process in processes] == [bool(ends)] * len(processes), outputs
    return outputs


def test_two_machines_that_share_no_files_train_are_killed_resume_and_export(machines: list[Path]) -> None:
    """Resumed once the run folder, with what both processes had of their own, has been copied to the second."""
    options = [*TINY, "--dataset", "pairs", "--buffer-size", "4", "--checkpoint-every", "2", "--output-dir"]
    status, output = finish(*options, "whole", cwd=machines[0], launcher=TORCHRUN_TWO)
    assert status == 0, output
    processes = start_machines(*options, "run", folders=machines)
    first, second = (folder / "run" for folder in machines)
    wait_for(processes[0], (first / "checkpoints" / "checkpoint_4" / "manifest.json").exists)
    for process in processes:
        kill(process)
    assert not (first / "model").exists(), "it had ended already"
    assert not second.exists()

    resume = ["--resume", "--output-dir", "run"]
    for output in said(*resume, machines=machines, ends=2):
        assert re.search(r"error: .*checkpoint_\d+ is not on .* \(it is missing\): .*or copy the run", output), output
    shutil.copytree(first, second)
    copied = files(second)
    said(*resume, machines=machines, ends=0)
    assert same(weights(first), weights(machines[0] / "whole"))
    assert files(second) == copied, "the second machine was written to"


@pytest.mark.parametrize("difference", ["another pair", "no pairs", "another precision"])
def test_a_machine_that_differs_ends_the_run_on_all_with_the_same_words(difference: str, machines: list[Path]) -> None:
    variables, words = {}, "another fingerprint of the pairs .*same --dataset pairs"
    if difference == "another pair":
        shutil.copy(machines[1] / "pairs" / "00.png", machines[1] / "pairs" / "99.png")
    elif difference == "no pairs":
        for pair in (machines[1] / "pairs").iterdir():
            pair.unlink()
        words = "--dataset pairs: an empty folder"
    else:
        variables, words = {"ACCELERATE_MIXED_PRECISION": "bf16"}, r"another precision \(bf16\).*--mixed-precision no"
    options = [*TINY[:-1], "auto", "--dataset", "pairs", "--output-dir", "run"]
    for output in said(*options, machines=machines, ends=2, variables=[{}, variables]):
        assert re.search(f"error: .*{words}", output), output
        assert "process 1 on " in output or "rank 1: error: " in output
    assert not any((folder / "run").exists() for folder in machines)
