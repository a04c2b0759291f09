"""Faults and attacks in numbers, outside the ordinary suite.

python tests/campaigns                                every campaign, whole
python tests/campaigns images --count 50 --seed 7     one of them
python tests/campaigns --seconds 5                    each for some seconds, as CI does

A campaign is a module beside this one with `COUNT`, the cases of a whole run, and `cases(random, folder)`, a generator
of (kind of case, outcome) without end. "right" and "refused" are the outcomes wanted; any other fails the run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("[a-z]*.py"))
WANTED = {"right", "refused"}


def run(name: str, seed: int, count: int | None, seconds: float | None) -> bool:
    """Run a campaign and print the table of its outcomes; whether all were as wanted."""
    campaign = importlib.import_module(name)
    table: Counter[tuple[str, str]] = Counter()
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix=f"campaign_{name}_") as folder,
        contextlib.closing(campaign.cases(random.Random(seed), Path(folder))) as cases,
    ):
        for case in itertools.islice(cases, None if seconds else count or campaign.COUNT):
            table[case] += 1
            if seconds and time.monotonic() - start > seconds:
                break
    bad = sum(number for (_, outcome), number in table.items() if outcome not in WANTED)
    lines = [f"{name} --seed {seed}: {table.total()} cases in {time.monotonic() - start:.0f} s, {bad} not as wanted"]
    lines += [f"  {number:6}  {kind:32} {outcome}" for (kind, outcome), number in sorted(table.items())]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    return table.total() > 0 and not bad


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python tests/campaigns", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none: all")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="a new one each time without it")
    parser.add_argument("--count", type=int, help="cases, instead of a whole run's")
    parser.add_argument("--seconds", type=float, help="stop after so many, instead of a count")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    sys.path[:0] = map(str, (HERE, *HERE.parents[:2]))  # the campaigns, what the tests share, the package
    results = [run(name, options.seed, options.count, options.seconds) for name in options.names or NAMES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
