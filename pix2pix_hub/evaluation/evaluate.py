"""From a model and a data set to everything that is known about the two: the function behind `pix2pix-hub evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.transforms import PairTensors, PairTransform
from pix2pix_hub.evaluation.checks import Check, checkerboard, collapse, color_bias, memorisation, sharpness, source_use
from pix2pix_hub.evaluation.model import EvaluatedModel
from pix2pix_hub.evaluation.options import EvaluationOptions
from pix2pix_hub.evaluation.outputs import Measured, Translator, measure
from pix2pix_hub.evaluation.pairs import EvaluationPairs, make_request, open_pairs
from pix2pix_hub.evaluation.scorer import make_scorer
from pix2pix_hub.evaluation.traces import Traces, thumbnails_of
from pix2pix_hub.images import RGB, PixelFormat
from pix2pix_hub.metrics import unusable
from pix2pix_hub.metrics.networks import MetricNetworks, load_networks
from pix2pix_hub.util import UserError


@dataclass(frozen=True)
class Evaluation:
    """What came out, on the main process; `report.py` writes it."""

    model: EvaluatedModel
    options: EvaluationOptions
    pairs: EvaluationPairs
    tensors: PairTensors  # the pairs at the size that was measured at
    image_size: tuple[int, int]
    translator: Translator
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
    given: dict[str, str | None] | None = None,
    revision: str | None = None,
) -> Evaluation | None:
    """Measure a model on the pairs of a data set; every process of a launch calls this.

    Args:
        model: what is measured.
        dataset: as in training.
        options: how it is measured.
        state: this process's place among those launched, and its device.
        networks: what LPIPS, FID and KID compare with; None: the published ones, where they can be had.
        given: direction, columns and split names where they are not those that the model was trained with.
        revision: of a data set on the Hub.

    Returns:
        What came out, on the main process; None on the others.

    Raises:
        UserError: data, options and model do not go together.
    """
    image_size = options.size_for(model.generator, model.preprocessor.image_size)
    options.check_sampling(model.generator)
    if options.precision == "fp16" and state.device.type == "cpu":
        raise UserError("--precision fp16 needs a GPU and this is a CPU: type --precision no.")
    request = make_request(
        dataset,
        model.preprocessor,
        image_size,
        given or {},
        model.data_options,
        dataset_revision=revision,
        max_validation_pairs=options.max_pairs,
    )
    pairs = open_pairs(
        request,
        model.preprocessor,
        options.split,
        with_training=options.checks or options.task == "segmentation",
        skip_bad_pairs=options.skip_bad_pairs,
        state=state,
    )
    resize = model.preprocessor.resize
    transform = PairTransform(image_size, augment=False, resize=resize, formats=pairs.evaluated.formats)
    tensors = PairTensors(pairs.evaluated, transform)
    order = torch.randperm(len(tensors), generator=torch.Generator().manual_seed(options.seed))
    usable, networks, missing = usable_metrics(options.metrics, model, image_size, state, networks)
    scorer, segmentation = make_scorer(pairs, options, image_size, resize, order, state)
    translator = Translator(
        model.generator.to(state.device), state.device, options.precision, options.num_samples, options.seed
    )
    workers = options.num_workers
    measured = measure(
        tensors,
        translator,
        usable,
        networks,
        state=state,
        batch_size=options.batch_size or model.batch_size,
        num_workers=workers,
        with_traces=options.checks,
        scorer=scorer,
    )
    training = None
    if options.checks and pairs.training is not None:
        training = target_thumbnails(pairs.training, transform, state, workers)
    if not state.is_main_process:
        return None
    target = pairs.evaluated.formats["target"]
    checks, nearest = run_checks(measured, training, pairs.own, order, target) if options.checks else ({}, [])
    return Evaluation(
        model, options, pairs, tensors, image_size, translator, measured, missing, checks, nearest, segmentation
    )


def usable_metrics(
    names: Sequence[str],
    model: EvaluatedModel,
    image_size: tuple[int, int],
    state: PartialState,
    networks: MetricNetworks | None,
) -> tuple[list[str], MetricNetworks, dict[str, str]]:
    """Those of `names` that can look at the model's images, the networks they need, and why the others cannot."""
    reasons = {name: unusable(name, model.preprocessor.target, image_size) for name in names}
    missing = {name: reason for name, reason in reasons.items() if reason is not None}
    if networks is None:
        with state.main_process_first():  # which downloads
            networks, without = load_networks([name for name in names if name not in missing], state.device)
        missing |= without
    return [name for name in names if name not in missing], networks, missing


def target_thumbnails(pairs: PairDataset, transform: PairTransform, state: PartialState, num_workers: int) -> Tensor:
    """Of all training targets, (M, C, 32, 32) in [0, 1]; each process reads its share."""
    mine = range(state.process_index, len(pairs), state.num_processes)
    loader = DataLoader(Subset(PairTensors(pairs, transform), mine), batch_size=8, num_workers=num_workers)
    parts = [(batch["index"], thumbnails_of(batch["target"])) for batch in loader]
    indices, thumbnails = (torch.cat(column) for column in zip(*gather_object(parts), strict=True))
    return thumbnails[indices.argsort()]


def run_checks(
    measured: Measured, training: Tensor | None, own: list[int | None], order: Tensor, form: PixelFormat = RGB
) -> tuple[dict[str, Check], list[tuple[int, int]]]:
    """Every check that the data allow, and the pairs whose outputs are nearest to a training target."""
    generated, target = Traces.joined(measured.generated), Traces.joined(measured.target)
    checks = {
        "source_use": source_use(generated, target, order),
        "collapse": collapse(generated, target),
        "sharpness": sharpness(generated, target),
        "checkerboard": checkerboard(generated, target),
        "color_bias": color_bias(generated, target, form),
    }
    if training is None:
        return checks, []
    check, distances, places = memorisation(generated, target, training, own)
    closest = distances.argsort().tolist()
    return {"memorisation": check, **checks}, [(pair, int(places[pair])) for pair in closest]
