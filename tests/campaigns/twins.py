"""Two runs started at the same moment on one folder: one goes on as if alone, the other ends with a sentence."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from _runs import OPTIONS, RUN, Launch, broken, finished, judged, last_line, undisturbed

COUNT = 20
KINDS = {  # → what each of the two types beside the options
    "new, new": ((), ()),
    "resume, resume": (("--resume",), ("--resume",)),
    "new, resume": ((), ("--resume",)),
    "automatic names": ((), ()),
    "resume after a kill": (("--resume",), ("--resume",)),
}
REFUSALS = ("another run is at work in runs/run", "runs/run already holds a run", "was begun or went on meanwhile")


def cases(random: random.Random, folder: Path) -> Iterator[tuple[str, str]]:
    """For ever: each kind in turn, on one process each and sometimes on two."""
    expected = {processes: undisturbed(folder / f"whole_{processes}", processes)[0] for processes in (1, 2)}
    for number in range(10**9):
        kind = list(KINDS)[number % len(KINDS)]
        processes = 2 if random.random() < 0.3 else 1
        cwd = folder / f"case_{number}"
        cwd.mkdir()
        if "resume" in kind and kind != "new, resume":
            fault = ("metrics.jsonl", random.randint(6, 14), 0)
            finished(cwd, *OPTIONS, "--output-dir", RUN, processes=processes, fault=fault)
        place = () if kind == "automatic names" else ("--output-dir", RUN)
        launches = []
        for words in KINDS[kind]:
            launches.append(Launch(cwd, *OPTIONS, *place, *words, processes=processes))
            time.sleep(random.choice((0, 0, random.uniform(0, 1))))
        ends = [launch.wait() for launch in launches]
        yield f"{kind}, {processes} each", _outcome(cwd, expected[processes], ends, place)
        shutil.rmtree(cwd)


def _outcome(cwd: Path, expected: dict, ends: list, place: tuple[str, ...]) -> str:
    outputs = "".join(output for _, output in ends)
    if fault := next(filter(None, (broken(*end) for end in ends)), None):
        return fault
    well = [end for end in ends if not any(end[0])]
    if not place:
        runs = sorted((cwd / "runs").iterdir())
        named = ("README.md", "training_config.json")  # the files that name their run
        alone = {name: content for name, content in expected.items() if not name.endswith(named)}
        verdicts = {judged(run, alone, *end) for run, end in zip(runs, ends, strict=True)}
        return "right" if verdicts == {"right"} else f"wrong: {verdicts}"
    for statuses, output in ends:
        if any(statuses) and (set(statuses) != {2} or not any(words in output for words in REFUSALS)):
            return f"wrong: ended with {statuses}: {last_line(output)}"
    if len(well) != 1 and "The run is finished" not in outputs:
        return f"wrong: {len(well)} of 2 went on"
    return judged(cwd / RUN, expected, *well[0])
