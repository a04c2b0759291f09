"""The pairs that a model is measured on, read as its export says, and the training pairs it might have copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from pix2pix_hub.data.examine import Findings, examine
from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.pairs import SYNTHETIC, FoundPairs, find_pairs
from pix2pix_hub.data.records import RecordDecoder
from pix2pix_hub.data.request import PairRequest
from pix2pix_hub.data.splits import Part, assign_splits
from pix2pix_hub.errors import UserError
from pix2pix_hub.evaluation.model import INHERITED
from pix2pix_hub.export import Preprocessor
from pix2pix_hub.wording import counted

MOST_TRAINING_PAIRS = 10_000  # evenly spread over those there are
LEAST_PAIRS = 2  # an interval, a distribution and a shuffled source all need another pair


@dataclass(frozen=True)
class EvaluationPairs:
    """Pairs to measure on, decodable."""

    evaluated: PairDataset
    training: PairDataset | None  # at most `MOST_TRAINING_PAIRS`; None: the set has none, or nobody asked
    held_out: bool  # a set without a validation split: the evaluated pairs are those of `train` that nobody trains on
    direction: str
    own: list[int | None]  # for each evaluated pair its place in `training`, where it is one of those
    dataset: str  # Hub id, or last part of a local path
    revision: str | None
    fingerprint: str
    left_out: int  # bad pairs

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: which pairs these are."""
        return {
            "id": self.dataset,
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "split": split_name(self.evaluated.split, self.held_out),
            "direction": self.direction,
            "pairs": len(self.evaluated),
            "left_out": self.left_out,
        }


def split_name(split: str, held_out: bool) -> str:
    """What an evaluation calls its pairs: those set aside from a split are not that split."""
    return f"{split}, held out" if held_out else split


def make_request(
    dataset: str,
    preprocessor: Preprocessor,
    image_size: tuple[int, int],
    given: Mapping[str, str | None],
    inherited: Mapping[str, str],
    **options: Any,
) -> PairRequest:
    """What is asked of `dataset`: options that were given, else those that the model was trained with.

    Args:
        dataset: as in training.
        preprocessor: of the model.
        image_size: height and width to measure at.
        given, inherited: by the names of `INHERITED`; None: not given.
        options: further fields of `PairRequest`.
    """
    chosen: dict[str, Any] = {
        name: given.get(name) or inherited[name] for name in INHERITED if given.get(name) or name in inherited
    }
    modes: dict[str, Any] = {
        f"{side}_mode": "labels" if getattr(preprocessor, side).mode == "labels" else "auto"
        for side in ("source", "target")
    }
    return PairRequest(dataset, image_size=image_size, **chosen, **modes, **options)


def open_pairs(
    request: PairRequest,
    preprocessor: Preprocessor,
    split: str | None,
    *,
    with_training: bool,
    skip_bad_pairs: bool,
    state: PartialState,
) -> EvaluationPairs:
    """Find the pairs and look at each once, on the main process for all.

    Args:
        request: see `make_request`.
        preprocessor: says how both sides must be stored.
        split: which to measure on; None: the one that training on this set validates with.
        with_training: open the training pairs, too.
        skip_bad_pairs: leave out what cannot be used instead of stopping.
        state: this process's place among those launched.

    Raises:
        UserError: no such data, split or column; fewer than two pairs; images that the model was not made for.
    """
    found = find_pairs(request)
    evaluated, training = _parts(found, request, split)
    held_out = split is None and evaluated.split == request.train_split
    if training is not None:
        step = max(1, -(-len(training.indices) // MOST_TRAINING_PAIRS))
        training = replace(training, indices=training.indices[::step]) if with_training else None
    decoder = RecordDecoder(found.columns, request.swap)
    parts = [_dataset(found, part, decoder) for part in (evaluated, training) if part is not None]
    findings: Findings | None = None
    if state.is_main_process:
        findings = examine(
            parts,
            request,
            everything=found.form != SYNTHETIC,  # what was just rendered need not be looked at
            skip=skip_bad_pairs,
            formats=(preprocessor.source, preprocessor.target),
        )
    (findings,) = broadcast_object_list([findings])
    assert findings is not None
    sound = [findings.applied_to(part) for part in parts]
    if len(sound[0]) < LEAST_PAIRS:
        everything = f", or measure on all of it with --split {evaluated.split}" if held_out else ""
        raise UserError(
            f"{request.dataset}, split {split_name(evaluated.split, held_out)}: {counted(len(sound[0]), 'pair')}; "
            f"measuring needs {LEAST_PAIRS} or more (an interval, a distribution and shuffled sources need others to "
            f"compare with). Add pairs, or name another split with --split{everything}."
        )
    training_pairs = sound[1] if len(sound) > 1 and len(sound[1]) else None
    local = Path(request.dataset).expanduser()
    on_hub = found.form != SYNTHETIC and not local.exists()
    return EvaluationPairs(
        sound[0],
        training_pairs,
        held_out,
        request.direction,
        _own_places(sound[0], training_pairs),
        local.resolve().name if local.exists() else request.dataset,
        found.fingerprint if on_hub else None,
        found.fingerprint,
        sum(fault.split == evaluated.split for fault in findings.faults),
    )


def _parts(found: FoundPairs, request: PairRequest, split: str | None) -> tuple[Part, Part | None]:
    """Rows to measure on, and rows that training on this set would use."""
    training_rows = len(found.splits.get(request.train_split, ()))
    if split is None:
        if request.validation_split not in found.splits:  # that of another set
            request = replace(request, validation_split=None)
        training, evaluated, _ = assign_splits(found.splits, request)
        return evaluated, training
    rows = len(found.splits.get(split, ()))
    if not rows:
        counts = ", ".join(f"{name} ({len(rows)})" for name, rows in found.splits.items())
        raise UserError(f"--split {split}: no pairs there. Name a split of {request.dataset}: {counts}.")
    evaluated = Part(split, range(rows)[: request.max_validation_pairs])
    return evaluated, Part(request.train_split, range(training_rows)) if training_rows else None


def _dataset(found: FoundPairs, part: Part, decoder: RecordDecoder) -> PairDataset:
    return PairDataset(found.splits[part.split], part.indices, decoder, part.split)


def _own_places(evaluated: PairDataset, training: PairDataset | None) -> list[int | None]:
    if training is None or training.split != evaluated.split:
        return [None] * len(evaluated)
    places = {row: place for place, row in enumerate(training.indices)}
    return [places.get(row) for row in evaluated.indices]
