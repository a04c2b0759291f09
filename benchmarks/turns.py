"""Things timed in turns, each in a process of its own: what one does to its process does not help or hurt the other.

A benchmark calls `take_turns` with the names of what it compares. That starts the same script once for each name, with
`--only NAME` added, and there the script calls `serve` with what is to be timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import common
import torch


@dataclass(frozen=True)
class Measured:
    """What one of the things compared took."""

    seconds: list[float]  # of each round
    flop: int  # multiplications of one call
    peak_mib: float


class Contestant:
    """The process of one thing; it answers one line to each line it is sent."""

    def __init__(self, script: str, arguments: Sequence[str], name: str) -> None:
        self._name = name
        command = [sys.executable, script, *arguments, "--only", name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question: str) -> Any:
        """The answer to "seconds", "flop" or "peak_mib"."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process of {self._name!r} ended with status {self._process.wait()}; see above.")
        return json.loads(answer)

    def end(self) -> None:
        """Let it go, and its memory."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(call: Callable[[], Any], device: torch.device, count_flop: Callable[[], int] | None = None) -> None:
    """Answer a `Contestant` about `call` until it has no more questions; `count_flop` saves calling it to count."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what `call` prints is no answer
    about: dict[str, Callable[[], Any]] = {
        "seconds": lambda: _seconds(call, device),
        "flop": count_flop or (lambda: common.count_flop(call)),
        "peak_mib": lambda: round(common.own_peak(device), 1),
    }
    for question in sys.stdin:
        answers.write(json.dumps(about[question.strip()]()) + "\n")
        answers.flush()


def _seconds(call: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    common.synchronise(device)
    return time.perf_counter() - start


def take_turns(
    script: str,
    arguments: Sequence[str],
    names: Sequence[str],
    rounds: int,
    device: torch.device,
    warm_up: int = 3,
) -> tuple[dict[str, Measured], list[float]]:
    """Time `rounds` calls of each thing in turns, and beside them how fast the device multiplies float32 matrices.

    `warm_up` calls of each come before.

    Returns:
        What each took, and FLOP/s of a large matrix product in every round.
    """
    contestants = {name: Contestant(script, arguments, name) for name in names}
    for contestant in contestants.values():
        for _ in range(warm_up):
            contestant.ask("seconds")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    rates = []
    for _ in range(rounds):
        rates.append(common.multiply_rate(device, torch.float32, rounds=1))
        for name, contestant in contestants.items():
            seconds[name].append(contestant.ask("seconds"))
    measured = {}
    for name, contestant in contestants.items():
        peak = contestant.ask("peak_mib")  # before counting, which keeps more
        measured[name] = Measured(seconds[name], contestant.ask("flop"), peak)
        contestant.end()
    return measured, rates
