"""What a generator makes of the pairs, as numbers: each process measures its share, all get the whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from pix2pix_hub.data.transforms import PairTensors
from pix2pix_hub.evaluation.traces import Traces, traces_of
from pix2pix_hub.images import to_unit_range
from pix2pix_hub.metrics import METRICS, image_values
from pix2pix_hub.metrics.image_metrics import image_features
from pix2pix_hub.metrics.networks import MetricNetworks
from pix2pix_hub.models.dropout import SeededDropout
from pix2pix_hub.util import UserError

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
DIVERSITY = "diversity"  # mean L1 between two samples of one source, in [0, 1]

# The class statistics of a batch: generated images and their indices → (N, K, K) counts for each kind of image
Scorer = Callable[[Tensor, list[int]], dict[str, Tensor]]


@dataclass(frozen=True)
class Translator:
    """A generator as it is measured: deterministic, or with the dropout of the paper's test time, seeded by pair.

    Args:
        generator: in evaluation mode.
        device: where it runs.
        precision: of `PRECISIONS`.
        num_samples: 1: without dropout; more: so many samples of each source, with it.
        seed: of the dropout.
    """

    generator: nn.Module
    device: torch.device
    precision: str = "no"
    num_samples: int = 1
    seed: int = 0

    @torch.inference_mode()
    def __call__(self, source: Tensor, indices: Sequence[int], sample: int = 0) -> Tensor:
        """(N, C, H, W) in [-1, 1] → the images generated, float32, the same range."""
        seeds = [(self.seed, index, sample) for index in indices]
        dropout = SeededDropout(self.generator, seeds) if self.num_samples > 1 else nullcontext()
        dtype = PRECISIONS[self.precision]
        autocast = torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()
        with dropout, autocast:
            return self.generator(source.to(self.device)).float()


@dataclass
class Measured:
    """Of some pairs: what each image scored, and what the checks and FID look at."""

    indices: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)  # metric → a value for each pair
    generated: list[Traces] = field(default_factory=list)  # of the first sample
    target: list[Traces] = field(default_factory=list)
    features: dict[str, list[Tensor]] = field(default_factory=dict)  # "generated", "target"
    counts: dict[str, list[Tensor]] = field(default_factory=dict)  # kind of image → (K, K) of each pair

    def add(self, table: str, columns: dict[str, Any]) -> None:
        """Append a batch to one of the tables."""
        for name, column in columns.items():
            getattr(self, table).setdefault(name, []).extend(column)

    def value(self, name: str) -> NDArray[np.float64]:
        """A metric's values in the order of the pairs."""
        return np.array(self.values[name])

    @classmethod
    def in_order(cls, parts: Sequence[Self]) -> Self:
        """All pairs of all parts, by index; every list with an entry for each pair."""
        indices = [index for part in parts for index in part.indices]
        order = np.argsort(indices)

        def sorted_table(table: str) -> dict[str, Any]:
            tables = [getattr(part, table) for part in parts]
            names = list(dict.fromkeys(name for columns in tables for name in columns))
            joined = {name: [x for columns in tables for x in columns.get(name, [])] for name in names}
            return {name: [column[place] for place in order] for name, column in joined.items()}

        traces: list[list[Traces]] = []
        for side in ("generated", "target"):
            batches = [batch for part in parts for batch in getattr(part, side)]
            traces.append([Traces.joined(batches).rows(torch.from_numpy(order))] if batches else [])
        tables = {name: sorted_table(name) for name in ("values", "features", "counts")}
        return cls(sorted(indices), generated=traces[0], target=traces[1], **tables)


def measure(
    pairs: PairTensors,
    translator: Translator,
    names: Sequence[str],
    networks: MetricNetworks,
    *,
    state: PartialState,
    batch_size: int,
    num_workers: int = 0,
    with_traces: bool = True,
    scorer: Scorer | None = None,
) -> Measured:
    """Translate every source once (or `num_samples` times) and measure what comes out, on all processes together.

    Every number belongs to one pair and depends on that pair alone, up to rounding in the network: neither batch size
    nor number of processes matters.

    Args:
        pairs: at the size to measure at.
        names: metrics that can look at these images, of `METRICS`.
        networks: those that `names` need.
        state: this process's place among those launched.
        with_traces: keep what the checks look at.
        scorer: counts classes, for the segmentation scores.
    """
    mine = range(state.process_index, len(pairs), state.num_processes)
    loader = DataLoader(Subset(pairs, mine), batch_size=batch_size, num_workers=num_workers)
    measured = Measured()
    for batch in tqdm(loader, "pairs", disable=None if state.is_main_process else True, leave=False):  # not in files
        indices = batch["index"].tolist()
        measured.indices += indices
        source, target = batch["source"], batch["target"].to(translator.device)
        samples = [translator(source, indices, sample) for sample in range(translator.num_samples)]
        if not all(sample.isfinite().all() for sample in samples):
            raise UserError(
                f"The model makes values that are no numbers (pair {indices[0]} of the split): its weights are "
                "damaged, or too large for the precision. Measure another checkpoint, or with --precision no."
            )
        measured.add("values", _sampled_values(names, samples, target, networks))
        if not all(METRICS[name].per_image for name in names):
            sides = {"generated": samples[0], "target": target}
            measured.add("features", {side: image_features(images, networks) for side, images in sides.items()})
        if with_traces:
            measured.generated.append(traces_of(samples[0]))
            measured.target.append(traces_of(target))
        if scorer is not None:
            measured.add("counts", scorer(samples[0], indices))
    return Measured.in_order(gather_object([measured]))


def _sampled_values(
    names: Sequence[str], samples: Sequence[Tensor], target: Tensor, networks: MetricNetworks
) -> dict[str, list[float]]:
    """For each pair the mean over its samples; of several, how much they differ."""
    each = [image_values(names, sample, target, networks) for sample in samples]
    values = {name: torch.stack([one[name] for one in each]).mean(0).tolist() for name in each[0]}
    if len(samples) > 1:
        differences = [
            to_unit_range(a).sub(to_unit_range(b)).abs().double().mean(dim=(1, 2, 3)).cpu()
            for a, b in itertools.combinations(samples, 2)
        ]
        values[DIVERSITY] = torch.stack(differences).mean(0).tolist()
    return values
