"""What docs/results.md shows of a run: its files, read, and the numbers taken from them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t

ABSENT = "–"
SCORES = ("pixel_accuracy", "class_accuracy", "class_iou")


@dataclass(frozen=True)
class Result:
    """What one run left behind."""

    facts: dict[str, Any]  # run.json
    measured: dict[str, Any]  # evaluation/metrics.json
    log: list[dict[str, Any]]  # metrics.jsonl
    config: dict[str, Any]  # training_config.json
    folder: Path

    def entries(self, event: str) -> list[dict[str, Any]]:
        """Lines of the log: `"train"` or `"validation"`."""
        return [entry for entry in self.log if entry["event"] == event]


def read_results(runs: Path) -> list[Result]:
    """Every finished run of a folder, in the order of their names."""
    results = []
    for path in sorted(runs.glob("*/evaluation/metrics.json")):
        folder = path.parents[1]
        log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        facts, config = (json.loads((folder / name).read_text()) for name in ("run.json", "training_config.json"))
        results.append(Result(facts, json.loads(path.read_text()), log, config, folder))
    return results


@dataclass(frozen=True)
class Number:
    """A column of the tables."""

    title: str
    value: Callable[[Result], float | None]  # None: the run has none
    badness: Callable[[float], float] | None = None  # the smaller, the better; None: neither is good


def _metric(name: str) -> Callable[[Result], float | None]:
    return lambda result: result.measured.get(name, {}).get("value")


def _score(name: str) -> Callable[[Result], float | None]:
    return lambda result: result.measured.get("segmentation", {}).get("generated", {}).get(name, {}).get("value")


def _check(name: str, measure: str, scale: float = 1) -> Callable[[Result], float | None]:
    def value(result: Result) -> float | None:
        found = result.measured.get("checks", {}).get(name, {}).get(measure)
        return None if found is None else scale * found

    return value


def _smaller(value: float) -> float:
    return value


def _larger(value: float) -> float:
    return -value


def _near_one(value: float) -> float:
    return abs(math.log(max(value, 1e-12)))


NUMBERS = (
    Number("L1", _metric("l1"), _smaller),
    Number("PSNR (dB)", _metric("psnr"), _larger),
    Number("SSIM", _metric("ssim"), _larger),
    Number("MS-SSIM", _metric("ms_ssim"), _larger),
    Number("LPIPS", _metric("lpips"), _smaller),
    Number("FID", _metric("fid"), _smaller),
    Number("KID", _metric("kid"), _smaller),
    Number("class IoU", _score("class_iou"), _larger),
    Number("own gain", _check("source_use", "gain"), _larger),
    Number("sharpness", _check("sharpness", "ratio"), _near_one),
    Number("grid", _check("checkerboard", "ratio"), _smaller),
    Number("gray levels", _check("checkerboard", "amplitude", 255), _smaller),
)
BESIDE_PICTURES = ("L1", "SSIM", "class IoU", "sharpness", "grid", "gray levels")


def present(results: Sequence[Result]) -> list[Number]:
    """The numbers that any of the runs has."""
    return [number for number in NUMBERS if any(number.value(result) is not None for result in results)]


def values(runs: Sequence[Result], number: Number) -> list[float]:
    """Of the runs that have it."""
    return [value for run in runs if (value := number.value(run)) is not None]


def shown(numbers: Sequence[float]) -> str:
    """One value, or the mean of several and how far they spread."""
    if not numbers:
        return ABSENT
    mean = mean_shown(numbers)
    return mean if len(numbers) == 1 else f"{mean} ({min(numbers):.3g} … {max(numbers):.3g})"


def mean_shown(numbers: Sequence[float]) -> str:
    """The mean with as many digits as the tables have."""
    return f"{statistics.mean(numbers):.3g}"


def reach(seeds: int) -> float:
    """How far from the mean of `seeds` runs one further run falls 19 times in 20, in their standard deviations.

    Half the 95 % prediction interval of one more draw from a normal distribution known by its seeds alone.
    """
    return float(t.ppf(0.975, seeds - 1)) * math.sqrt(1 + 1 / seeds)


def against(number: Number, changed: Sequence[float], base: Sequence[float]) -> str:
    """Whether a change is better or worse than one further run without it would be, 19 times in 20.

    What the tables show with the same digits is the same.
    """
    if number.badness is None or not changed or len(base) < 2:
        return ""
    ours, theirs = statistics.mean(changed), statistics.mean(base)
    near = abs(ours - theirs) <= reach(len(base)) * statistics.stdev(base)
    if near or mean_shown(changed) == mean_shown(base):
        return "as without"
    return "better" if number.badness(ours) < number.badness(theirs) else "worse"


def flags(runs: Sequence[Result]) -> str:
    """The checks that fired, and in how many of the runs."""
    fired = [name for run in runs for name, check in run.measured.get("checks", {}).items() if check.get("fired")]
    counts = {name: fired.count(name) for name in dict.fromkeys(fired)}
    times = {name: "" if len(runs) == 1 else f" ({count} of {len(runs)})" for name, count in counts.items()}
    return ", ".join(f"{name.replace('_', ' ')}{times[name]}" for name in counts) or ABSENT


def reasons(results: Sequence[Result]) -> list[str]:
    """Why metrics have no value in any run, without the places of files on the machine that measured."""
    found: dict[str, str] = {}
    for result in results:
        for name, entry in result.measured.items():
            if isinstance(entry, dict) and entry.get("reason"):
                words = entry["reason"].split(" (")[0].split()
                found[name] = " ".join(word.rsplit("/", 1)[-1] for word in words)
    having = {name for result in results for name, entry in result.measured.items() if _has_value(entry)}
    return [f"{name}: {reason}" for name, reason in found.items() if name not in having]


def _has_value(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("value") is not None
