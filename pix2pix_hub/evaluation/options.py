"""How a model is measured: the options of `pix2pix-hub evaluate`, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pix2pix_hub.errors import UserError
from pix2pix_hub.evaluation.outputs import PRECISIONS
from pix2pix_hub.evaluation.segmenter import SegmenterOptions
from pix2pix_hub.metrics import METRICS
from pix2pix_hub.models.base import Generator
from pix2pix_hub.models.dropout import dropout_layers

LARGEST_SEED = 2**63 - 1  # torch's
TASKS = ("none", "segmentation", "labels")


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured and how. Raises `UserError` where a value cannot work."""

    split: str | None = None  # None: the one that training on the set validates with
    metrics: tuple[str, ...] = tuple(METRICS)
    task: str = "none"  # "segmentation": photos made from label maps; "labels": label maps made from photos
    image_size: tuple[int, int] | None = None  # height, width; None: as trained
    num_samples: int = 1  # more: with dropout, as the paper's test time
    seed: int = 0  # of dropout, shuffled sources and resamples
    precision: str = "no"  # of `PRECISIONS`
    batch_size: int | None = None  # None: as the run validated
    num_workers: int = 0
    max_pairs: int | None = None
    checks: bool = True
    skip_bad_pairs: bool = False
    segmenter: SegmenterOptions = field(default_factory=SegmenterOptions)

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            raise UserError(f"--metrics {' '.join(unknown)}: unknown. Choose from {' '.join(METRICS)}.")
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise UserError(f"--metrics {' '.join(self.metrics)}: name each metric once, and at least one.")
        for flag, value, choices in (("task", self.task, TASKS), ("precision", self.precision, tuple(PRECISIONS))):
            if value not in choices:
                raise UserError(f"--{flag} {value}: choose one of {', '.join(choices)}.")
        least = {"num-samples": (self.num_samples, 1), "seed": (self.seed, 0), "num-workers": (self.num_workers, 0)}
        given = {"batch-size": (self.batch_size, 1), "max-pairs": (self.max_pairs, 2)}
        least |= {flag: (number, lowest) for flag, (number, lowest) in given.items() if number is not None}
        least |= {"segmenter-steps": (self.segmenter.steps, 2)}
        for flag, (number, lowest) in least.items():
            if number < lowest:
                raise UserError(f"--{flag} {number} cannot work: it must be {lowest} or more.")
        if self.seed > LARGEST_SEED:
            raise UserError(f"--seed {self.seed} cannot work: it must be {LARGEST_SEED} or less.")

    def size_for(self, generator: Generator, trained: tuple[int, int]) -> tuple[int, int]:
        """Height and width to measure at.

        Raises:
            UserError: the generator does not take them.
        """
        size = self.image_size or trained
        step, least = generator.size_multiple, generator.minimum_size
        if any(side % step or side < least for side in size):
            below, above = (
                "x".join(str(max(least, rounding(side / step) * step)) for side in size)
                for rounding in (math.floor, math.ceil)
            )
            raise UserError(
                f"--image-size {size[0]}x{size[1]}: this generator takes multiples of {step}, from {least}. Sizes that "
                f"work: {below} or {above} (height x width); it was trained at {trained[0]}x{trained[1]}."
            )
        return size

    def check_sampling(self, generator: Generator) -> None:
        """Raises `UserError` where all samples of a source would be the same."""
        if self.num_samples > 1 and not dropout_layers(generator):
            raise UserError(
                f"--num-samples {self.num_samples}: this generator has no dropout, so that all samples of a source "
                "would be the same. Leave it out."
            )
