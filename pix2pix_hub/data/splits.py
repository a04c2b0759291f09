"""Which rows train and which validate; a set without a validation split gets a seeded one, the same everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass

from pix2pix_hub.config import PairOptions
from pix2pix_hub.util import UserError

VALIDATION_NAMES = ("validation", "val", "valid", "dev", "test")
SPLIT_SEED = 0
VALIDATION_FRACTION = 0.1  # of the training pairs, where there is no validation split


@dataclass(frozen=True)
class Part:
    """Rows of one split."""

    split: str
    indices: Sequence[int]


def assign_splits(splits: Mapping[str, Sized], request: PairOptions) -> tuple[Part, Part, str]:
    """Training rows, validation rows, and what the description must add about the latter.

    Raises:
        UserError: a split that was named has no rows, or too few pairs to set some aside.
    """
    for flag, split in (("train", request.train_split), ("validation", request.validation_split)):
        if split is not None and not len(splits.get(split, ())):
            counts = ", ".join(f"{name} ({len(rows)})" for name, rows in splits.items())
            raise UserError(f"--{flag}-split {split}: no pairs there. Name a split of {request.dataset}: {counts}.")
    names = (name for name in VALIDATION_NAMES if name != request.train_split and len(splits.get(name, ())))
    chosen = request.validation_split or next(names, None)
    train: Sequence[int] = range(len(splits[request.train_split]))
    held_out: Sequence[int]
    if chosen is None:
        train, held_out = _set_aside(train, request)
        note = f"; no validation split: {len(held_out)} set aside from {request.train_split}"
        chosen = request.train_split
    else:
        held_out = range(len(splits[chosen]))
        note = f"; validation: split {chosen}" if request.validation_split or chosen == "test" else ""
    return (
        Part(request.train_split, train[: request.max_train_pairs]),
        Part(chosen, held_out[: request.max_validation_pairs]),
        note,
    )


def _set_aside(rows: Sequence[int], request: PairOptions) -> tuple[list[int], list[int]]:
    """Rows to train on and rows to validate on, by the order of their hashes: the same with every library version."""
    if len(rows) < 2:
        raise UserError(
            f"--dataset {request.dataset} has one pair only and no validation split; expected at least 2 pairs. "
            "Add pairs, or name a split with --validation-split."
        )
    count = min(max(1, round(len(rows) * VALIDATION_FRACTION)), len(rows) - 1)
    held_out = set(sorted(rows, key=lambda row: hashlib.sha256(f"{SPLIT_SEED}/{row}".encode()).digest())[:count])
    return [row for row in rows if row not in held_out], sorted(held_out)
