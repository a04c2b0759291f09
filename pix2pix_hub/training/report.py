"""What a run says and writes while it trains: progress bar, `metrics.jsonl`, `curves.png`, trackers' entries."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from pix2pix_hub.metrics import METRICS
from pix2pix_hub.training.checkpoint import Progress
from pix2pix_hub.util import UserError, write_aside

METRICS_NAME = "metrics.jsonl"
CURVES_NAME = "curves.png"
NOTICEABLE_WAIT = 0.1  # of the training time
Batch = TypeVar("Batch")
# (title, event, {field: label}) of each panel
LOSS_PANELS = [
    ("training losses", "train", {"d_loss": "D", "g_gan": "G, adversarial"}),
    ("training L1 (in [-1, 1])", "train", {"g_l1": "L1"}),
]


class TrainingDiverged(UserError):
    """A loss became NaN or infinite."""


class MetricsLog:
    """Appends one JSON object a line; each has `event` ("train" or "validation"), `step` and `epoch`."""

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / METRICS_NAME

    def append(self, event: str, values: dict[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"event": event, **values}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All lines; one cut short by a crash is left out."""
        if not self.path.exists():
            return []
        entries = []
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                break  # only the last line can be cut short, and a resumed run writes it again
        return entries

    def forget_after(self, step: int, epochs: int) -> None:
        """Drop what was written after `step`, or validated after `epochs`: a resumed run writes it again."""
        entries = [entry for entry in self.read() if entry["step"] <= step]
        kept = [json.dumps(entry) + "\n" for entry in entries if entry["event"] == "train" or entry["epoch"] <= epochs]
        with write_aside(self.path) as path:
            path.write_text("".join(kept))

    def draw_curves(self) -> None:
        """Draw `curves.png` beside the log."""
        from matplotlib.figure import Figure

        entries = self.read()
        panels = [*LOSS_PANELS, *_metric_panels(entries)]
        figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
        for axes, (title, event, fields) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for field, label in fields.items():
                rows = [entry for entry in entries if entry["event"] == event and field in entry]  # weight 0: no field
                marker = "." if len(rows) < 30 else None  # a line needs two points
                axes.plot([row["step"] for row in rows], [row[field] for row in rows], label=label, marker=marker)
            axes.set(title=title, xlabel="step")
            if len(fields) > 1:
                axes.legend()
        with write_aside(self.path.parent / CURVES_NAME) as path:
            figure.savefig(path, format="png", dpi=80)


def _metric_panels(entries: list[dict[str, Any]]) -> list[tuple[str, str, dict[str, str]]]:
    """One for each metric that was validated; L1 beside that of training pairs."""
    names = [name for name in METRICS if any(entry["event"] == "validation" and name in entry for entry in entries)]
    fields = {
        name: {name: "validation pairs"} | ({"train_l1": "training pairs"} if name == "l1" else {}) for name in names
    }
    return [(f"{METRICS[name].title} ({METRICS[name].unit})", "validation", fields[name]) for name in names]


class Reporter:
    """Collects the losses of each batch, on the device, and every few steps looks at them all at once.

    Args:
        accelerator: averages over processes and passes entries on to the trackers.
        run_folder: where `metrics.jsonl` goes.
        progress: the run's; the reporter adds the epoch's loss sums and the time to it.
    """

    def __init__(self, accelerator: Accelerator, run_folder: Path, progress: Progress) -> None:
        self.log = MetricsLog(run_folder)
        self._accelerator = accelerator
        self._progress = progress
        self._pending: list[tuple[int, dict[str, Tensor]]] = []  # (step, losses)
        self._clock = time.monotonic()
        self._waited = 0.0  # seconds since then, for pairs
        self._bar: tqdm | None = None

    def start(self, options: dict[str, Any]) -> None:
        """Drop entries after the current step (of a run that was killed later) and start the trackers."""
        if self._accelerator.is_main_process:
            self.log.forget_after(self._progress.step, self._progress.epoch)
        plain = {name: value if isinstance(value, int | float | str) else str(value) for name, value in options.items()}
        self._accelerator.init_trackers("pix2pix_hub", config=plain)

    def progress_bar(self, total_steps: int) -> tqdm:
        """The live bar, to be closed by the caller."""
        self._bar = tqdm(
            total=total_steps,
            initial=self._progress.step,
            unit="step",
            disable=not self._accelerator.is_local_main_process,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,  # a line each where it goes to a file
            dynamic_ncols=True,
        )
        return self._bar

    def start_clock(self) -> None:
        """Time from here on counts as training."""
        self._clock = time.monotonic()
        self._waited = 0.0

    def watched(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; how long each was waited for is logged."""
        iterator = iter(batches)
        while True:
            asked = time.monotonic()
            batch = next(iterator, None)
            self._waited += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def add(self, step: int, losses: dict[str, Tensor]) -> None:
        """Remember one batch's losses (scalars), without waiting for the device."""
        self._pending.append((step, losses))

    def advance(self) -> None:
        """One optimizer step was taken."""
        if self._bar is not None:
            self._bar.update()

    def fetch(self, learning_rate: float, images_per_batch: int) -> None:
        """Bring the losses since the last call from the device; check, sum, log and show them.

        Raises:
            TrainingDiverged: one is NaN or infinite, on any process.
        """
        if not self._pending:
            return
        steps, losses = zip(*self._pending, strict=True)
        self._pending = []
        names = list(losses[0])
        values = torch.stack([torch.stack([batch[name].float() for name in names]) for batch in losses])
        rows = self._accelerator.reduce(values, reduction="mean").tolist()
        _stop_if_diverged(steps, names, rows)
        means = {name: sum(column) / len(rows) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        seconds = time.monotonic() - self._clock
        waited = self._waited
        self.start_clock()
        self._progress.elapsed_seconds += seconds
        self._progress.waiting_seconds += waited
        self._progress.add_batches(means, len(rows))
        images_per_second = len(rows) * images_per_batch / max(seconds, 1e-9)
        self.record(
            "train",
            {
                "step": self._progress.step,
                "epoch": self._progress.epoch + 1,
                **means,
                "learning_rate": learning_rate,
                "images_per_second": images_per_second,
                "data_wait": waited / max(seconds, 1e-9),
                "elapsed_seconds": self._progress.elapsed_seconds,
            },
        )
        self._show(means, images_per_second)

    def record(self, event: str, entry: dict[str, Any]) -> None:
        """Write an entry, which has `step` and `epoch`, to the log and the trackers."""
        if self._accelerator.is_main_process:
            self.log.append(event, entry)
        values = {f"{event}/{name}": value for name, value in entry.items() if name not in ("step", "epoch")}
        self._accelerator.log(values, step=entry["step"])

    def _show(self, means: dict[str, float], images_per_second: float) -> None:
        if self._bar is None:
            return
        shown = {"D": means["d_loss"], "G": means["g_loss"], "img/s": images_per_second}
        if "g_l1" in means:
            shown["L1"] = means["g_l1"] / 2  # in [0, 1] units, as in validation
        self._bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()}, refresh=False)


def waiting_words(progress: Progress, cache: str) -> str | None:
    """What a person could do where training waited for pairs most noticeably; None where it did not."""
    share = progress.waiting_seconds / max(progress.elapsed_seconds, 1e-9)
    if share < NOTICEABLE_WAIT:
        return None
    advice = " and --cache memory or disk" if cache == "off" else ""
    return f"{share:.0%} of the training time was spent waiting for pairs: try a larger --num-workers{advice}."


def _stop_if_diverged(steps: tuple[int, ...], names: list[str], rows: list[list[float]]) -> None:
    for step, row in zip(steps, rows, strict=True):
        bad = [f"{name} is {value}" for name, value in zip(names, row, strict=True) if not math.isfinite(value)]
        if bad:
            raise TrainingDiverged(
                f"training diverged at step {step}: {', '.join(bad)}. No checkpoint was taken since, so --resume goes "
                "on from before. Try a new run with --mixed-precision no, a smaller --learning-rate or "
                "--max-grad-norm 1."
            )
