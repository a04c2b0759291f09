"""Training in this process, and what a run left behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.training.trainer import Pix2PixTrainer, TrainingResult

Tiny = Callable[..., TrainingConfig]


def train(config: TrainingConfig, **how: Any) -> TrainingResult:
    """A whole run; afterwards Accelerate, which keeps its state in singletons, is as it was."""
    try:
        return Pix2PixTrainer(config, **how).train()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def entries(run: Path, event: str) -> list[dict[str, Any]]:
    """Of `metrics.jsonl`."""
    return [entry for line in (run / "metrics.jsonl").open() if (entry := json.loads(line))["event"] == event]


def weights(run: Path, *names: str) -> dict[str, torch.Tensor]:
    """Every tensor of those files (glob patterns; of the export, if none are named)."""
    found = [path for name in names or ("model/**/*.safetensors",) for path in run.glob(name)]
    assert found, run
    return {f"{path.relative_to(run)}:{name}": value for path in found for name, value in load_file(path).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
