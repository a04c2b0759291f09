"""Checkpoints of a killed run damaged: `--resume` ends as the undamaged run, bitwise, or refuses with a sentence."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _runs import OPTIONS, RUN, finished, judged, last_line, undisturbed

COUNT = 60
Damage = Callable[[random.Random, Path], None]
KILLED = ("metrics.jsonl", 17, 0)  # between the checkpoints of steps 10 and 12


def _a_file(random: random.Random, folder: Path) -> Path:
    return random.choice(sorted(path for path in folder.iterdir() if path.is_file()))


def _changing(change: Callable[[random.Random, bytes], bytes]) -> Damage:
    """Gives a file other content."""

    def damage(random: random.Random, folder: Path) -> None:
        path = _a_file(random, folder)
        path.write_bytes(change(random, path.read_bytes()))

    return damage


def _flipped(random: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 100))):
        changed[random.randrange(len(content))] ^= random.randint(1, 255)
    return bytes(changed)


def _swap_files(random: random.Random, folder: Path) -> None:
    """One file with another of this checkpoint, or with its namesake of another."""
    path = _a_file(random, folder)
    others = [*folder.iterdir(), *folder.parent.glob(f"*/{path.name}")]
    other = random.choice([one for one in others if one != path])
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)


def _swap_folders(random: random.Random, folder: Path) -> None:
    other = random.choice([path for path in folder.parent.iterdir() if path != folder])
    folder.rename(folder.with_name("aside"))
    other.rename(folder)
    folder.with_name("aside").rename(other)


VALUES: tuple[Any, ...] = (None, 0, -1, 2, 1e400, "10", "x", [], {}, [1], [[1, 2, 3]], {"x": 1}, 10**400, True)


def _edit_manifest(random: random.Random, folder: Path) -> None:
    path = folder / "manifest.json"
    content: Any = json.loads(path.read_text())
    where = random.choice((content, content, content["files"], random.choice(list(content["files"].values()))))
    key = random.choice(list(where) if isinstance(where, dict) else range(len(where)))
    if random.random() < 0.2:
        content = random.choice(VALUES)
    elif random.random() < 0.2 and isinstance(where, dict) and where is not content["files"]:
        del where[key]
    else:
        where[key] = random.choice(VALUES)
    text = json.dumps(content)
    path.write_text(random.choice((text, text, text, text, text[:-1], "[" * 10**5, "\0" * len(text), "é", "{}")))


def _leave_over(random: random.Random, folder: Path) -> None:
    """What writes that were killed leave."""
    run = folder.parents[1]
    names = ("checkpoints/checkpoint_12.partial", "checkpoints/checkpoint_12", "model.partial", "model.replaced")
    half = random.choice(names)
    (run / half).mkdir()
    for path in folder.iterdir():
        if random.random() < 0.5 and path.name != "manifest.json":
            (run / half / path.name).write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size)])
    for name in ("metrics.jsonl", "training_config.json", "curves.png", "samples/epoch_0003.png"):
        if random.random() < 0.5:
            (run / f"{name}.partial").write_bytes(random.randbytes(99))
    (run / ".lock").write_bytes(random.randbytes(99))
    if random.random() < 0.5:  # the line that was being written
        with (run / "metrics.jsonl").open("a") as log:
            log.write('{"event": "train", "st')


DAMAGES: dict[str, Damage] = {
    "bytes flipped": _changing(_flipped),
    "file cut": _changing(lambda random, content: content[: random.choice((0, random.randrange(len(content))))]),
    "file longer": _changing(lambda random, content: content + random.randbytes(random.randint(1, 5000))),
    "file of zeros": _changing(lambda random, content: bytes(len(content))),  # as after a power cut: never written
    "file removed": lambda random, folder: _a_file(random, folder).unlink(),
    "checkpoint removed": lambda random, folder: shutil.rmtree(folder),
    "files swapped": _swap_files,
    "checkpoints swapped": _swap_folders,
    "manifest edited": _edit_manifest,
    "leftovers": _leave_over,
}


def cases(random: random.Random, folder: Path) -> Iterator[tuple[str, str]]:
    """For ever: each kind of damage in turn, to the newest checkpoint, the newest two or all."""
    expected, _ = undisturbed(folder / "whole")
    (folder / "killed").mkdir()
    finished(folder / "killed", *OPTIONS, "--output-dir", RUN, fault=KILLED)
    there = sorted(path.name for path in (folder / "killed" / RUN / "checkpoints").iterdir())
    assert there == ["checkpoint_10", "checkpoint_6", "checkpoint_8"], there
    for number in range(10**9):
        kind = list(DAMAGES)[number % len(DAMAGES)]
        cwd = folder / f"case_{number}"
        shutil.copytree(folder / "killed", cwd)
        how_many = 1 if kind in ("leftovers", "checkpoints swapped") else random.choice((1, 1, 2, 3))
        for step in (10, 8, 6)[:how_many]:
            DAMAGES[kind](random, cwd / RUN / "checkpoints" / f"checkpoint_{step}")
        statuses, output = finished(cwd, "--resume", "--output-dir", RUN)
        sentence = statuses == [2] and last_line(output).startswith("error: ") and "Traceback" not in output
        yield f"{kind} in {how_many}", "refused" if sentence else judged(cwd / RUN, expected, statuses, output)
        shutil.rmtree(cwd)
