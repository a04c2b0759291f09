"""Runs killed at any step and before any file operation, some of them twice: resumed they end as if never killed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from _runs import OPTIONS, RUN, finished, judged, undisturbed

COUNT = 20
PLACES = {"at a step": "metrics.jsonl", "before a file operation": "", "while it saves": ".partial"}


def cases(random: random.Random, folder: Path) -> Iterator[tuple[str, str]]:
    """For ever: each place in turn, the moment uniform among those that an undisturbed run has there."""
    expected, moments = {}, {}
    for number in range(10**9):
        place = list(PLACES)[number % len(PLACES)]
        processes = 2 if number % 5 == 4 else 1
        rank = random.randrange(processes)
        case = PLACES[place] if rank == 0 else "", processes, rank  # other ranks write to checkpoints only
        if case not in moments:
            expected[processes], moments[case] = undisturbed(folder / f"whole_{number}", processes, case[0], rank)
        cwd = folder / f"case_{number}"
        cwd.mkdir()
        options = [*OPTIONS, "--output-dir", RUN]
        kills = random.choice((1, 1, 2))
        for _ in range(kills):
            fault = (case[0], random.randint(1, moments[case]), 0)
            finished(cwd, *options, processes=processes, rank=rank, fault=fault)
            options = [*OPTIONS, "--output-dir", RUN, "--resume"]
        outcome = judged(cwd / RUN, expected[processes], *finished(cwd, *options, processes=processes))
        yield f"{place}, {processes} processes, {kills} kills", outcome
        shutil.rmtree(cwd)
