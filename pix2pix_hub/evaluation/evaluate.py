"""From a model and a data set to everything that is known about the two: the function behind `pix2pix-hub evaluate`."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from pix2pix_hub.config import EvaluationOptions, PairOptions, parse_image_size, sizes_nearby
from pix2pix_hub.data.decode import Findings, PairDataset, examine
from pix2pix_hub.data.pairs import SYNTHETIC, assign_splits, find_pairs
from pix2pix_hub.data.transforms import PairTensors, PairTransform
from pix2pix_hub.evaluation.checks import Check, Traces, run_checks, thumbnails_of, traces_of
from pix2pix_hub.evaluation.segmentation import Scorer, SegmenterRecipe, make_scorer
from pix2pix_hub.export import (
    GENERATOR_FILES,
    TRAINING_CONFIG_NAME,
    WEIGHTS_NAME,
    Export,
    Preprocessor,
    export_of,
    local_path,
)
from pix2pix_hub.image.format import to_unit_range
from pix2pix_hub.image.palette import MOST_OTHERS, share_of_others
from pix2pix_hub.metrics import METRICS, MetricNetworks, image_features, image_values, l1, load_networks, unusable
from pix2pix_hub.models import load_generator
from pix2pix_hub.models.base import Generator, SeededDropout, dropout_layers
from pix2pix_hub.models.fetch import commit_of, fetch_files, split_revision
from pix2pix_hub.util import UserError, counted, public_name

logger = logging.getLogger(__name__)

# Options of training that a data set is read by again, unless others are given.
INHERITED = ("direction", "source_column", "target_column", "train_split", "validation_split")
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
DIVERSITY = "diversity"  # mean L1 between two samples of one source, in [0, 1]
MOST_TRAINING_PAIRS = 10_000  # evenly spread over those there are
LEAST_PAIRS = 2  # an interval, a distribution and a shuffled source all need another pair


# --- the model


@dataclass(frozen=True)
class EvaluatedModel:
    """A generator in evaluation mode, and what its export says about it."""

    generator: Generator
    preprocessor: Preprocessor
    folder: Path  # where its files lie
    name: str  # last part of a local path, or the Hub id
    revision: str | None  # commit on the Hub
    weights_sha256: str
    data_options: dict[str, str]  # those of `INHERITED` that it was trained with
    batch_size: int  # that it was trained with


def load_model(model: str, *, revision: str | None = None) -> EvaluatedModel:
    """Load an export, a run's folder (its `model/` is taken) or a Hub id (`user/name`, `user/name@revision`).

    Raises:
        UserError: nothing there, no export, or files that do not belong together.
    """
    folder = fetch_files(export_of(model), (*GENERATOR_FILES, TRAINING_CONFIG_NAME), revision=revision)
    generator = load_generator(folder)
    preprocessor = Preprocessor.from_folder(folder)
    preprocessor.check_channels(generator.in_channels, generator.out_channels, folder)
    options = Export(folder).run.get("options")
    options = options if isinstance(options, dict) else {}
    batch_size = options.get("batch_size")
    return EvaluatedModel(
        generator,
        preprocessor,
        folder,
        folder.resolve().name if os.path.isdir(local_path(model)) else split_revision(model)[0],
        commit_of(folder),
        hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest(),
        {name: options[name] for name in INHERITED if isinstance(options.get(name), str)},
        batch_size if isinstance(batch_size, int) and batch_size > 0 else 1,
    )


def size_for(model: EvaluatedModel, options: EvaluationOptions) -> tuple[int, int]:
    """Height and width to measure at.

    Raises:
        UserError: the generator does not take them.
    """
    trained = model.preprocessor.image_size
    size = trained if options.image_size is None else parse_image_size(options.image_size)
    step, least = model.generator.size_multiple, model.generator.minimum_size
    if any(side % step or side < least for side in size):
        raise UserError(
            f"--image-size {size[0]}x{size[1]}: this generator takes multiples of {step}, from {least}. Sizes that "
            f"work: {sizes_nearby(size, step, least)} (height x width); it was trained at {trained[0]}x{trained[1]}."
        )
    return size


# --- the pairs


@dataclass(frozen=True)
class EvaluationPairs:
    """Pairs to measure on, decodable, and the training pairs that the model might have copied."""

    evaluated: PairDataset
    training: PairDataset | None  # at most `MOST_TRAINING_PAIRS`; None: the set has none, or nobody asked
    own: list[int | None]  # for each evaluated pair its place in `training`, where it is one of those
    facts: dict[str, Any]  # JSON-ready: which pairs these are


def open_pairs(
    model: EvaluatedModel, dataset: str, options: EvaluationOptions, image_size: tuple[int, int], state: PartialState
) -> EvaluationPairs:
    """Find the pairs and look at each once, on the main process for all; read as the model's training read its own.

    Raises:
        UserError: no such data, split or column; fewer than two pairs; images that the model was not made for.
    """
    formats = (model.preprocessor.source, model.preprocessor.target)
    modes = ("labels" if form.mode == "labels" else "auto" for form in formats)
    chosen: dict[str, Any] = dict(zip(("source_mode", "target_mode"), modes, strict=True)) | model.data_options
    request = PairOptions(
        dataset,
        image_size="{}x{}".format(*image_size),
        resize=model.preprocessor.resize,  # type: ignore[arg-type]  # anybody's: it is checked there
        dataset_revision=options.dataset_revision,
        max_validation_pairs=options.max_pairs,
        on_bad_pair=options.on_bad_pair,
        **(chosen | {name: given for name in INHERITED if (given := getattr(options, name, None))}),
    )
    found = find_pairs(request)
    # a validation split that only the training set had is none here
    split = options.split or (request.validation_split if request.validation_split in found.splits else None)
    rows = {name: len(part) for name, part in found.splits.items()}
    if split is not None and not rows.get(split):
        counts = ", ".join(f"{name} ({count})" for name, count in rows.items())
        raise UserError(f"--split {split}: no pairs there. Name a split of {dataset}: {counts}.")
    training = None
    if split is None or rows.get(request.train_split):
        training, evaluated, _ = assign_splits(found, replace(request, validation_split=split))
    else:  # nothing that could have been copied
        evaluated = found.pairs(split, request.swap, range(rows[split])[: options.max_pairs], request.least_size)
    # without a validation split the pairs that nobody trains on are measured, and those are not that split
    held_out = split is None and evaluated.split == request.train_split
    split = f"{evaluated.split}, held out" if held_out else evaluated.split
    parts = [evaluated]
    if training is not None and (options.checks or options.task == "segmentation"):
        step = max(1, -(-len(training.indices) // MOST_TRAINING_PAIRS))
        parts.append(replace(training, indices=training.indices[::step]))
    findings: Findings | None = None
    if state.is_main_process:  # what was just rendered need not be looked at
        findings = examine(parts, request, everything=found.form != SYNTHETIC, formats=formats)
    (findings,) = broadcast_object_list([findings])
    assert findings is not None
    pairs, *others = (findings.applied_to(part) for part in parts)
    if len(pairs) < LEAST_PAIRS:
        everything = f", or measure on all of it with --split {evaluated.split}" if held_out else ""
        raise UserError(
            f"{dataset}, split {split}: {counted(len(pairs), 'pair')}; measuring needs {LEAST_PAIRS} or more (an "
            "interval, a distribution and shuffled sources need others to compare with). Add pairs, or name another "
            f"split with --split{everything}."
        )
    if state.is_main_process and look_swapped(pairs):
        other = "AtoB" if request.swap else "BtoA"
        logger.warning("the pairs look as if they were the other way round for this model: try --direction %s.", other)
    training = next((part for part in others if len(part)), None)
    same_split = training is not None and training.split == pairs.split
    places = {row: place for place, row in enumerate(training.indices)} if training and same_split else {}
    local = Path(dataset).expanduser().exists()
    facts = {
        "id": public_name(dataset) if local else dataset,
        "revision": None if found.form == SYNTHETIC or local else found.fingerprint,
        "fingerprint": found.fingerprint,
        "split": split,
        "direction": request.direction,
        "pairs": len(pairs),
        "left_out": sum(fault.split == evaluated.split for fault in findings.faults),
    }
    return EvaluationPairs(pairs, training, [places.get(row) for row in pairs.indices], facts)


def look_swapped(pairs: PairDataset) -> bool:
    """Whether the first few sources look like the targets that the model was trained on, and their targets like its
    sources. It is told by the side that is of few flat colours, where one of them is."""
    formats = [pairs.formats[side] for side in ("source", "target")]
    flat = [bool(form.palette) and form.mode in ("gray", "rgb") and form.dtype == "uint8" for form in formats]
    if flat[0] == flat[1] or any(form.dtype != "uint8" or form.mode == "labels" for form in formats):
        return False
    palette, photo = formats[flat.index(True)].palette, flat.index(False)
    shares = [[share_of_others(side.numpy(), palette) for side in pairs[index]] for index in range(min(8, len(pairs)))]
    drawn, other = np.median(shares, axis=0)[[1 - photo, photo]]
    return bool(drawn > MOST_OTHERS > other)


# --- what the generator makes of them


@torch.inference_mode()
def translate(
    model: EvaluatedModel, options: EvaluationOptions, source: Tensor, indices: Sequence[int], sample: int = 0
) -> Tensor:
    """(N, C, H, W) in [-1, 1] → the images generated, float32, the same range, on the generator's device.

    Deterministic; or, where there are several samples, with the dropout of the paper's test time, seeded by pair.
    """
    device = next(model.generator.parameters()).device
    seeds = [(options.seed, index, sample) for index in indices]
    dropout = SeededDropout(model.generator, seeds) if options.num_samples > 1 else nullcontext()
    dtype = PRECISIONS[options.precision]
    with dropout, torch.autocast(device.type, dtype=dtype) if dtype else nullcontext():
        return model.generator(source.to(device)).float()


@dataclass(frozen=True)
class Measured:
    """Tables of all pairs, in their order along the first axis of every column."""

    values: dict[str, Tensor]  # metric → float64 (N,)
    features: dict[str, Tensor]  # "generated", "target" → what FID and KID compare
    counts: dict[str, Tensor]  # kind of image → (N, K, K) classes, for the segmentation scores
    traces: tuple[Traces, Traces] | None  # what the checks look at, of the first sample and the targets; None: unwanted


def measure(
    model: EvaluatedModel,
    pairs: PairTensors,
    options: EvaluationOptions,
    names: Sequence[str],
    networks: MetricNetworks,
    scorer: Scorer | None,
    state: PartialState,
) -> Measured:
    """Translate every source once (or `num_samples` times) and measure what comes out, on all processes together.

    Each process takes its share of the pairs, and all get the whole. Every number belongs to one pair and depends on
    that pair alone, up to rounding in the network: neither batch size nor number of processes matters.

    Args:
        names: metrics that can look at these images, of `METRICS`.
        networks: those that `names` need.
        scorer: counts classes, for the segmentation scores.
    """
    batch_size = options.batch_size or pairs.validation_batch(model.batch_size, state.num_processes)
    loader = share_of(pairs, batch_size, options, state)
    rows: list[dict[str, dict[str, Tensor]]] = []  # of a batch each: table → column → values of its pairs
    for batch in tqdm(loader, "pairs", disable=None if state.is_main_process else True, leave=False):  # not in files
        indices, target = batch["index"].tolist(), batch["target"].to(state.device)
        samples = [translate(model, options, batch["source"], indices, n) for n in range(options.num_samples)]
        if not all(sample.isfinite().all() for sample in samples):
            raise UserError(
                f"The model makes values that are no numbers (pair {indices[0]} of the split): its weights are "
                "damaged, or too large for the precision. Measure another checkpoint, or with --precision no."
            )
        each = [image_values(names, sample, target, networks) for sample in samples]
        tables = {"places": {"index": batch["index"]}}
        tables["values"] = {name: torch.stack([one[name] for one in each]).mean(0).cpu() for name in each[0]}
        if len(samples) > 1:
            differences = [l1(to_unit_range(a), to_unit_range(b)) for a, b in itertools.combinations(samples, 2)]
            tables["values"][DIVERSITY] = torch.stack(differences).mean(0).cpu()
        sides = {"generated": samples[0], "target": target}
        if not all(METRICS[name].per_image for name in names):
            tables["features"] = {side: image_features(images, networks) for side, images in sides.items()}
        if options.checks:
            tables |= {side: traces_of(images)._asdict() for side, images in sides.items()}
        if scorer is not None:
            tables["counts"] = scorer(samples[0], indices)
        rows.append(tables)
    rows = gather_object(rows)
    order = torch.cat([row["places"]["index"] for row in rows]).argsort()
    whole = {
        table: {name: torch.cat([row[table][name] for row in rows])[order] for name in columns}
        for table, columns in rows[0].items()
    }
    values, features, counts = (whole.get(table, {}) for table in ("values", "features", "counts"))
    traces = (Traces(**whole["generated"]), Traces(**whole["target"])) if options.checks else None
    return Measured(values, features, counts, traces)


def share_of(pairs: PairTensors, batch_size: int, options: EvaluationOptions, state: PartialState) -> DataLoader[Any]:
    """Batches of every n-th pair, n the number of processes."""
    mine = range(state.process_index, len(pairs), state.num_processes)
    return DataLoader(Subset(pairs, mine), batch_size=batch_size, num_workers=options.num_workers)


# --- all together


@dataclass(frozen=True)
class Evaluation:
    """The outcome, on the main process; `report.py` writes it."""

    model: EvaluatedModel
    options: EvaluationOptions
    pairs: EvaluationPairs
    tensors: PairTensors  # the pairs at the size that was measured at
    measured: Measured
    missing: dict[str, str]  # metric → why it has no value
    checks: dict[str, Check]
    nearest: list[tuple[int, int]]  # the pairs whose outputs are nearest to a training target, and that target's place
    segmentation: dict[str, Any] | None  # the task, its classes, and the network behind the score


def evaluate(
    model: EvaluatedModel,
    dataset: str,
    options: EvaluationOptions,
    state: PartialState,
    *,
    networks: MetricNetworks | None = None,
) -> Evaluation | None:
    """Measure a model on the pairs of a data set (named as in training); every process of a launch calls this.

    Args:
        state: this process's place among those launched, and its device.
        networks: what LPIPS, FID and KID compare with; None: the published ones, where they can be had.

    Returns:
        The outcome, on the main process; None on the others.

    Raises:
        UserError: data, options and model do not go together.
    """
    image_size = size_for(model, options)
    if options.num_samples > 1 and not dropout_layers(model.generator):
        raise UserError(
            f"--num-samples {options.num_samples}: this generator has no dropout, so that all samples of a source "
            "would be the same. Leave it out."
        )
    if options.precision == "fp16" and state.device.type == "cpu":
        raise UserError("--precision fp16 needs a GPU and this is a CPU: type --precision no.")
    pairs = open_pairs(model, dataset, options, image_size, state)
    resize, formats = model.preprocessor.resize, pairs.evaluated.formats
    transform = PairTransform(image_size, augment=False, resize=resize, formats=formats)
    tensors = PairTensors(pairs.evaluated, transform)
    order = torch.randperm(len(tensors), generator=torch.Generator().manual_seed(options.seed))

    reasons = {name: unusable(name, model.preprocessor.target, image_size) for name in options.metrics}
    missing: dict[str, str] = {name: reason for name, reason in reasons.items() if reason is not None}
    if networks is None:
        with state.main_process_first():  # which downloads
            wanted = [name for name in options.metrics if name not in missing]
            networks, without = load_networks(wanted, state.device)
        missing |= without
    recipe = SegmenterRecipe(image_size, resize, options.segmenter_steps)
    fingerprint = pairs.facts["fingerprint"]
    scorer, segmentation = make_scorer(options.task, pairs.evaluated, pairs.training, recipe, fingerprint, order, state)

    model.generator.to(state.device)
    usable = [name for name in options.metrics if name not in missing]
    measured = measure(model, tensors, options, usable, networks, scorer, state)
    training = None
    if options.checks and pairs.training is not None:  # thumbnails of all its targets; each process reads its share
        batches = share_of(PairTensors(pairs.training, transform), 8, options, state)
        parts = [(batch["index"], thumbnails_of(batch["target"])) for batch in batches]
        indices, thumbnails = (torch.cat(column) for column in zip(*gather_object(parts), strict=True))
        training = thumbnails[indices.argsort()]
    if not state.is_main_process:
        return None
    checks: dict[str, Check] = {}
    nearest: list[tuple[int, int]] = []
    if measured.traces is not None:
        checks, nearest = run_checks(*measured.traces, training, pairs.own, order, formats["target"])
    return Evaluation(model, options, pairs, tensors, measured, missing, checks, nearest, segmentation)
