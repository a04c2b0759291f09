"""Whether a run learnt its pairs by heart, in words: L1 of validation pairs beside L1 of training pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LEAST_EPOCHS = 3
WORSE = 1.02  # validation L1 now ÷ at its best, above which it counts as risen
WIDE_GAP = 1.25  # validation L1 ÷ training L1, above which pairs are known too well


def overfitting_words(validations: Sequence[dict[str, Any]]) -> str | None:
    """What the validations of a run say, or None where they are too few or the training pairs were not looked at.

    Both are the exported generator's, without augmentation or dropout, in [0, 1] units.

    Args:
        validations: entries of `metrics.jsonl`, with `epoch`, `l1` and `train_l1`, the L1 of a fixed sample of training
            pairs.
    """
    entries = [entry for entry in validations if "l1" in entry and "train_l1" in entry]
    if len(entries) < LEAST_EPOCHS:
        return None
    best, last = min(entries, key=lambda entry: entry["l1"]), entries[-1]
    risen, gap = last["l1"] / max(best["l1"], 1e-12), last["l1"] / max(last["train_l1"], 1e-12)
    now = f"L1 is {last['l1']:.4f} on validation pairs and {last['train_l1']:.4f} on training pairs"
    if risen > WORSE and last["train_l1"] < best["train_l1"]:
        return (
            f"Overfitting: {now}. The first was best in epoch {best['epoch']} ({best['l1']:.4f}) and has risen since, "
            f"while the second fell on from {best['train_l1']:.4f}. model_best/ or fewer epochs will do better; more "
            "pairs or more augmentation would help."
        )
    if gap > WIDE_GAP:
        return (
            f"Some overfitting: {now}, a gap of {gap - 1:.0%}, but the first has not risen"
            f"{' above its best' if risen <= WORSE else ' while the second fell'}. More pairs or augmentation may help."
        )
    return f"No overfitting: {now}."
