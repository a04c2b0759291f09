"""Starting the training script as its user does, in processes of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "train_accelerate.py"
TINY = (
    "--image-size 32 --base-channels 4 --num-downs 3 --max-train-pairs 10 --max-validation-pairs 3 --batch-size 2 "
    "--epochs 3 --num-workers 0 --cpu-threads 1 --log-every 1 --sample-count 1 "
    "--eval-metrics l1 "  # the others take seconds to import
    "--mixed-precision no"
).split()


def environment() -> dict[str, str]:
    """This one's, with one thread a process, no GPU and the checkout importable."""
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    return os.environ | quiet


def start(
    *options: str, cwd: Path, launcher: tuple[str, ...] = (), script: Path = SCRIPT, **how: Any
) -> subprocess.Popen[str]:
    """`python train_accelerate.py OPTIONS` in folder `cwd`."""
    return start_command([*launcher, str(script), *options], cwd=cwd, **how)


def start_command(
    words: Sequence[str], *, cwd: Path, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """`python WORDS` in folder `cwd`, with more environment variables."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=cwd,
        env=environment() | dict(variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_machines(
    *options: str, folders: Sequence[Path], variables: Sequence[Mapping[str, str]] = ({}, {})
) -> list[subprocess.Popen[str]]:
    """As on machines that share no files: torchrun in each folder, with one process and its own Hugging Face cache."""
    launcher = (*TORCHRUN, "--nnodes", str(len(folders)), "--nproc_per_node", "1", "--master_addr", "127.0.0.1")
    launcher += ("--master_port", str(free_port()), "--node_rank")
    return [
        start(*options, cwd=folder, launcher=(*launcher, str(rank)), variables={"HF_HOME": str(folder / "hf"), **own})
        for rank, (folder, own) in enumerate(zip(folders, variables, strict=True))
    ]


def finish(*options: str, cwd: Path, **how: Any) -> tuple[int, str]:
    """Run to the end, started as by `start`; (exit status, everything it said)."""
    process = start(*options, cwd=cwd, **how)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def wait_for(process: subprocess.Popen[str], condition, timeout: float = 120.0) -> None:
    """Poll `condition` while the process runs."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, f"ended too early: {process.communicate()[0]}"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.0005)


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def reachable(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def send(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal, wait for the end, return what was said."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    return output


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to it and all it has started, as when the power goes: a launcher that dies ends the others in order."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.communicate(timeout=120)


LAUNCH = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1")
LAUNCH_TWO = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
TORCHRUN = ("-m", "torch.distributed.run")
TORCHRUN_TWO = (*TORCHRUN, "--standalone", "--nproc_per_node", "2")  # the same as LAUNCH_TWO, sooner
