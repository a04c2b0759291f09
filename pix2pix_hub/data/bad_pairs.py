"""Pairs that cannot be used: what is said about each, and the file that lists those left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pix2pix_hub.util import write_aside

BAD_PAIRS_NAME = "bad_pairs.jsonl"
LISTED_FAULTS = 20  # at most, in words
Place = tuple[int | None, int]  # shard (None: of a set that is not streamed) and row


@dataclass(frozen=True)
class Fault:
    """A pair that cannot be used; `reason` starts with its name."""

    split: str
    row: int  # of the split or, where there is one, of the shard
    reason: str
    shard: int | None = None  # of a streamed split

    @property
    def place(self) -> Place:
        """Where in its split the pair is."""
        return self.shard, self.row


def each_once(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """One fault for each pair, the first that was found, in the order of the pairs.

    Whatever order they came in, and from however many processes, the outcome is the same.
    """
    first: dict[tuple[str, int, int], Fault] = {}
    for fault in faults:
        shard = -1 if fault.shard is None else fault.shard
        first.setdefault((fault.split, shard, fault.row), fault)
    return tuple(first[key] for key in sorted(first))


def write_bad_pairs(folder: Path, faults: Iterable[Fault]) -> None:
    """Write `bad_pairs.jsonl`: a line for each, with `split`, `row`, `reason` and, of a streamed set, `shard`."""
    entries = ({name: value for name, value in asdict(fault).items() if value is not None} for fault in faults)
    with write_aside(folder / BAD_PAIRS_NAME) as partial:
        partial.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
