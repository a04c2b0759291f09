"""How a model is measured: the options of `pix2pix-hub evaluate`, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pix2pix_hub.config import MetricName, parse_image_size
from pix2pix_hub.util import UserError

LEAST = {"num_samples": 1, "seed": 0, "max_pairs": 2, "batch_size": 1, "num_workers": 0, "cpu_threads": 0}
LEAST |= {"segmenter_steps": 2}
LARGEST_SEED = 2**63 - 1  # torch's


@dataclass(frozen=True)
class EvaluationOptions:
    """Every option of an evaluation. Raises `UserError` where a value cannot work, naming the flag."""

    split: str | None = None
    """Split to measure on; None: the one that training on this set validates with."""
    metrics: tuple[MetricName, ...] = ("l1", "psnr", "ssim", "ms_ssim", "lpips", "fid", "kid")
    """Numbers to compute. What cannot be had is reported as missing, with the reason."""
    output: Path = Path("evaluation")
    """Folder to write to; earlier results in it are replaced."""
    task: Literal["none", "segmentation", "labels"] = "none"
    """segmentation: score generated photos by a network trained on the set's real photos and label maps; labels: score
    generated label maps by their classes."""
    checks: bool = True
    """Memorisation, use of the source, collapse, sharpness, checkerboard, colour bias."""
    num_samples: int = 1
    """Above 1: translate every source this many times with dropout on, and report diversity (samples)."""
    seed: int = 0
    """Seed of dropout, shuffled sources and the bootstrap."""
    image_size: str | None = None
    """Height x width to measure at; None: as trained."""
    max_pairs: int | None = None
    """Use only the first N pairs (pairs)."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Arithmetic of the generator; no: float32."""
    batch_size: int | None = None
    """Pairs a process translates at once; None: as many as training did."""
    num_workers: int = 0
    """Processes that read pairs, per process; 0: none."""
    cpu_threads: int = 0
    """Threads of a process on a CPU; 0: the cores shared out over the processes."""
    segmenter_steps: int = 1000
    """Length of the segmentation network's training (steps)."""
    on_bad_pair: Literal["stop", "skip"] = "stop"
    """What to do about pairs that cannot be used."""
    direction: Literal["AtoB", "BtoA"] | None = None
    """Which side is the source; None: as trained."""
    source_column: str | None = None
    """Image column (or folder) A; None: as trained."""
    target_column: str | None = None
    """Image column (or folder) B; None: as trained."""
    train_split: str | None = None
    """Split whose targets might have been memorised; None: as trained."""
    revision: str | None = None
    """Branch, tag or commit of a model on the Hub."""
    dataset_revision: str | None = None
    """Branch, tag or commit of a data set on the Hub."""

    def __post_init__(self) -> None:
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise UserError(f"--metrics {' '.join(self.metrics)}: name each metric once, and at least one.")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= LARGEST_SEED:
                bound = f"{least} or more" if value < least else f"{LARGEST_SEED} or less"
                raise UserError(f"--{name.replace('_', '-')} {value} cannot work: it must be {bound}.")
        if self.image_size is not None:
            parse_image_size(self.image_size)
