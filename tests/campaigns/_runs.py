"""Tiny runs in processes forked from one that has everything imported, with faults before single file operations."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200", "TQDM_DISABLE": "1"}
os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"  # tqdm's lock in killed runs
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "campaigns")))  # of the forking one
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

from launching import TINY, free_port  # noqa: E402

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["_runs", "pix2pix_hub.cli", "pix2pix_hub.training.trainer", "matplotlib.figure"])
OPTIONS = [*TINY, "--checkpoint-every", "2", "--keep-checkpoints", "3"]
RUN = "runs/run"  # of each launch, in a folder of its own
LIMIT = 120  # seconds that a run may take
TIMED = {"elapsed_seconds", "images_per_second", "data_wait", "seconds"}
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.fsync"}
DELETIONS = {"os.remove", "os.rmdir"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Fault = tuple[str, int, int]  # part of a path; at which operation on such paths; errno from then on, or 0: SIGKILL


class Launch:
    """`train_accelerate.py OPTIONS` in folder `cwd`, on one process or several; `fault` comes to the one of `rank`."""

    def __init__(self, cwd: Path, *options: str, processes: int = 1, fault: Fault | None = None, rank: int = 0) -> None:
        together = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": free_port()}
        self._counts = [CONTEXT.Value("i", 0, lock=False) for _ in range(processes)]
        self._outputs = [Path(f"{cwd}_{os.urandom(4).hex()}.txt") for _ in range(processes)]
        self._processes: list[BaseProcess] = []
        self._rank, self.statuses = rank, list[int | None]()
        for own in range(processes):
            several = together | {"MASTER_ADDR": "127.0.0.1", "RANK": own, "LOCAL_RANK": own}
            variables = {name: str(value) for name, value in several.items()} if processes > 1 else {}
            arguments = (cwd, options, variables, self._outputs[own], self._counts[own], fault if own == rank else None)
            self._processes.append(CONTEXT.Process(target=_train, args=arguments))
            self._processes[-1].start()

    def wait(self) -> tuple[list[int | None], str]:
        """Exit status of each process (None: it hung, and was killed), and all that they said.

        Where a fault kills one the others are killed too, as when the power goes.
        """
        victim = self._processes[self._rank]
        victim.join(LIMIT)
        for process in self._processes:
            if victim.exitcode != -signal.SIGKILL:
                process.join(LIMIT)
            hung = process.exitcode is None and victim.exitcode != -signal.SIGKILL
            process.kill()
            process.join()
            self.statuses.append(None if hung else process.exitcode)
        return self.statuses, "".join(path.read_text(errors="replace") for path in self._outputs if path.exists())

    @property
    def operations(self) -> int:
        """On files that the fault watches, by the process it comes to."""
        return self._counts[self._rank].value


def _train(
    cwd: Path, options: Sequence[str], variables: dict[str, str], output: Path, count: Any, fault: Fault | None
) -> None:
    os.chdir(cwd)
    os.environ.update(variables)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    _watch_files(str(cwd), count, fault)
    from pix2pix_hub.cli import main

    sys.exit(main(["train", *options]))


def _watch_files(cwd: str, count: Any, fault: Fault | None) -> None:
    """Count what is about to be done to files below `cwd`, and bring the fault about when its turn has come."""
    part, turn, error = fault or ("", 0, 0)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in FILE_EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == "open" and not (arguments[2] or 0) & WRITING:
            return
        path = os.path.abspath(os.fspath(arguments[0]))
        if not path.startswith(cwd + os.sep) or part not in path:
            return
        count.value += 1
        if turn and count.value == turn and not error:
            os.kill(os.getpid(), signal.SIGKILL)
        if turn and count.value >= turn and (error == errno.EROFS or event not in DELETIONS):  # a full disk allows that
            raise OSError(error, os.strerror(error), path)

    fsync = os.fsync

    def watched_fsync(descriptor: int) -> None:
        watch("os.fsync", (os.readlink(f"/proc/self/fd/{descriptor}"),))
        fsync(descriptor)

    os.fsync = watched_fsync
    sys.addaudithook(watch)


def end_of(run: Path) -> dict[str, Any]:
    """All that a finished run leaves, by name, without what depends on time or on whether it was resumed."""
    contents: dict[str, Any] = {}
    for path in run.rglob("*"):
        name, content = str(path.relative_to(run)), path.read_bytes() if path.is_file() else b""
        if path.name == "metrics.jsonl":
            contents[name] = [_untimed(json.loads(line)) for line in content.decode().splitlines()]
        elif path.name == "metrics.json":
            contents[name] = _untimed(json.loads(content))
        elif path.name in ("custom_checkpoint_0.pkl", "manifest.json", ".lock"):  # progress, with its time; checksums
            contents[name] = None
        else:
            content = content.replace(b" --resume", b"")
            contents[name] = re.sub(rb"^- Time: .*", b"", content, flags=re.M)  # of the card
    return contents


def _untimed(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in TIMED}


def judged(run: Path, expected: dict[str, Any], statuses: Sequence[int | None], output: str) -> str:
    """ "right": all processes ended well and left what they should; else what is wrong."""
    if fault := broken(statuses, output):
        return fault
    if any(statuses):
        return f"not finished: {last_line(output)}"
    there = end_of(run)
    missing = there.keys() ^ expected.keys() if "README.md" in expected else expected.keys() - there.keys()
    if different := [*missing, *(name for name in expected if name in there and there[name] != expected[name])]:
        return f"wrong: {', '.join(different[:3])}"
    return "right"


def broken(statuses: Sequence[int | None], output: str) -> str | None:
    """ "hang" or the last line of a traceback; None: neither."""
    if None in statuses:
        return "hang"
    return f"traceback: {last_line(output)}" if "Traceback" in output else None


def last_line(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.strip()), "")[:160]


def finished(cwd: Path, *options: str, **how: Any) -> tuple[list[int | None], str]:
    """Launch and wait."""
    return Launch(cwd, *options, **how).wait()


def undisturbed(cwd: Path, processes: int = 1, part: str = "", rank: int = 0) -> tuple[dict[str, Any], int]:
    """What a whole run leaves in `cwd`, and the operations of a process on files whose path has `part` in it."""
    cwd.mkdir()
    launch = Launch(cwd, *OPTIONS, "--output-dir", RUN, processes=processes, fault=(part, 0, 0), rank=rank)
    statuses, output = launch.wait()
    assert not any(statuses), output
    return end_of(cwd / RUN), launch.operations
