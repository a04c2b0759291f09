"""Disks that fill up, or may suddenly not be written to: a sentence, nothing half-written, and no run lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

from _runs import OPTIONS, RUN, broken, finished, judged, last_line, undisturbed

COUNT = 30
ERRORS = {"no space": errno.ENOSPC, "over quota": errno.EDQUOT, "read-only": errno.EROFS, "not permitted": errno.EACCES}
DISK = 4 << 20  # bytes, of a disk of its own: more than the run takes
NEEDED = 1_500_000  # bytes that the run takes at most


def cases(random: random.Random, folder: Path) -> Iterator[tuple[str, str]]:
    """For ever: each kind in turn. What root alone may do, mounting, is left out for others."""
    expected, moments = {}, {}
    for processes in (1, 2):
        expected[processes], moments[processes] = undisturbed(folder / f"whole_{processes}", processes, "runs")
    kinds = [*ERRORS, *(["full disk", "read-only disk"] * 2 if os.geteuid() == 0 else [])]
    for number in range(10**9):
        kind = kinds[number % len(kinds)]
        processes = 2 if number % 7 == 6 else 1
        cwd = folder / f"case_{number}"
        cwd.mkdir()
        options = (*OPTIONS, "--output-dir", RUN)
        with _disk(cwd) if kind not in ERRORS else contextlib.nullcontext():
            if kind in ERRORS:
                fault = ("runs", random.randint(1, moments[processes]), ERRORS[kind])
                ended = finished(cwd, *options, processes=processes, fault=fault)
            elif kind == "full disk":
                with (cwd / "filler").open("wb") as filler:
                    filler.write(bytes(DISK - random.randrange(NEEDED) - 4096))
                ended = finished(cwd, *options, processes=processes)
                (cwd / "filler").unlink()
            else:
                fault = ("metrics.jsonl", random.randint(1, 20), 0)
                finished(cwd, *options, processes=processes, fault=fault)
                subprocess.run(["mount", "-o", "remount,ro", cwd], check=True)
                ended = finished(cwd, *options, "--resume", processes=processes)
                subprocess.run(["mount", "-o", "remount,rw", cwd], check=True)
            outcome = _sentence(*ended) or _half_written(cwd / RUN, kind)
            if outcome is None:
                again = finished(cwd, *options, "--resume", processes=processes)
                outcome = judged(cwd / RUN, expected[processes], *again)
        yield f"{kind}, {processes} processes", outcome
        shutil.rmtree(cwd)


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _sentence(statuses: list[int | None], output: str) -> str | None:
    """What is wrong; None: it ended with one sentence from every process, or never needed the disk."""
    if fault := broken(statuses, output):
        return fault
    words = output.count("cannot be written to") + output.count("could not be written to")
    if not any(statuses) or (
        set(statuses) == {2} and words == len(statuses) and ("--resume" in output or "--output-dir" in output)
    ):
        return None
    return f"wrong: {statuses}, {words} sentences, {last_line(output)}"


def _half_written(run: Path, kind: str) -> str | None:
    """What is there is whole: each checkpoint as its manifest has it, each export's weights, each picture."""
    from PIL import Image
    from safetensors import safe_open

    if kind not in ("read-only", "read-only disk") and (partial := [*run.rglob("*.partial")]):
        return f"wrong: left {partial[0].name}"
    for path in run.rglob("*"):
        if ".partial" in str(path) or ".replaced" in str(path):
            continue  # where nothing can be deleted, or what was being replaced
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy") as file:
                [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.name == "manifest.json":
            files = json.loads(path.read_text())["files"]
            bad = [
                name
                for name, (_, checksum) in files.items()
                if zlib.crc32(path.with_name(name).read_bytes()) != checksum
            ]
            if bad:
                return f"wrong: {path.parent.name}/{bad[0]}"
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.name.startswith("checkpoint_") and not (path / "manifest.json").is_file():
            return f"wrong: {path.name} without manifest"
    return None
