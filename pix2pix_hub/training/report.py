"""What a run says and writes while it trains: progress bar, `metrics.jsonl`, `curves.png`, trackers' entries; and what
can be told from them at its end."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.devices import memory_words
from pix2pix_hub.export import CURVES_NAME
from pix2pix_hub.metrics import METRICS, MOST_SATURATED
from pix2pix_hub.training.checkpoint import Progress, fail_together
from pix2pix_hub.training.validation import SATURATED, TRAIN_L1
from pix2pix_hub.util import UserError, counted, duration, styled, write_aside

logger = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"
# (title, event, {field: label}) of each panel
LOSS_PANELS = [
    ("training losses", "train", {"d_loss": "D", "g_gan": "G, adversarial"}),
    ("training L1 (in [-1, 1])", "train", {"g_l1": "L1"}),
]
# Optimizer steps that warm up (states, cuDNN's choices, the recording of a step), and those after them that are timed.
TIMED_STEPS = {"cpu": (1, 3)}
TIMED_STEPS_ELSEWHERE = (12, 20)
NOTICEABLE_WAIT = 0.1  # of the training time
LEAST_EPOCHS = 3  # that tell something of overfitting
WORSE = 1.02  # validation L1 now ÷ at its best, above which it counts as risen
WIDE_GAP = 1.25  # validation L1 ÷ training L1, above which pairs are known too well
Batch = TypeVar("Batch")


class TrainingDiverged(UserError):
    """A loss became NaN or infinite."""


class Pace:
    """Times the first optimizer steps of a session, to say how long all of them take.

    Args:
        device: that the steps are taken on, waited for while they are timed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._steps, self._seconds = device, 0, 0.0
        self._warm_up, self._timed = TIMED_STEPS.get(device.type, TIMED_STEPS_ELSEWHERE)
        self.start_clock()

    def start_clock(self) -> None:
        """The next step begins now."""
        self._clock = time.monotonic()

    def step(self, remaining: int) -> str | None:
        """A step was taken: once, when enough were, words on the time of the `remaining` ones, and on memory."""
        self._steps += 1
        if self._steps > self._warm_up + self._timed:
            return None
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        self._seconds += (time.monotonic() - self._clock) * (self._steps > self._warm_up)
        self.start_clock()
        if self._steps < self._warm_up + self._timed:
            return None
        each = self._seconds / self._timed
        return (
            f"estimate   about {duration(remaining * each)} for {counted(remaining, 'step')} of {each:.2g} s, and "
            f"validation besides; {memory_words(self.device)}"
        )


class Reporter:
    """Collects the losses of each batch, on the device, and every few steps looks at them all at once.

    `metrics.jsonl` has one JSON object a line, with `event` ("train" or "validation"), `step` and `epoch`. What is
    there from after the current step, of a run that was killed later, is dropped: it will be written again.

    Args:
        accelerator: averages over processes and passes entries on to the trackers.
        config: the run's options, told to the trackers.
        run_folder: where `metrics.jsonl` goes.
        progress: the run's; the reporter adds the epoch's loss sums and the time to it.
        total_steps: length of the bar.
    """

    def __init__(
        self, accelerator: Accelerator, config: TrainingConfig, run_folder: Path, progress: Progress, total_steps: int
    ) -> None:
        self._accelerator, self._run_folder, self._progress = accelerator, run_folder, progress
        self._images_per_batch = config.batch_size * accelerator.num_processes
        self._pending: list[tuple[int, dict[str, Tensor]]] = []  # (step, losses)
        self._learning_rate = config.learning_rate  # of the newest step
        self._pace, self._total_steps, self._columns = Pace(accelerator.device), total_steps, ""
        self.start_clock()
        if accelerator.is_main_process:
            kept = [
                json.dumps(entry) + "\n"
                for entry in read_metrics(run_folder)
                if entry["step"] <= progress.step and (entry["event"] == "train" or entry["epoch"] <= progress.epoch)
            ]
            with write_aside(run_folder / METRICS_NAME) as path:
                path.write_text("".join(kept))
        options = config.to_dict()
        plain = {name: value if isinstance(value, int | float | str) else str(value) for name, value in options.items()}
        accelerator.init_trackers("pix2pix_hub", config=plain)
        self.bar = tqdm(  # to be closed by whoever trains
            total=total_steps,
            initial=progress.step,
            unit="step",
            disable=not accelerator.is_local_main_process,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,  # a line each where it goes to a file
            delay=1.0,  # the estimate comes before it
            dynamic_ncols=True,
        )

    def start_clock(self) -> None:
        """Time from here on counts as training."""
        self._clock = time.monotonic()
        self._waited = 0.0  # seconds since then, for pairs
        self._pace.start_clock()

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

    def step_taken(self) -> None:
        """Move the bar on; after the first steps say how long the others will take."""
        self.bar.update()
        words = self._pace.step(self._total_steps - self._progress.step)
        if words is not None and self._accelerator.is_main_process:
            logger.info("%s", words)

    def say_epoch(self, metrics: Mapping[Any, float], d_loss: float) -> None:
        """Say what the epoch brought: in a terminal as a row of a table, else in a sentence."""
        cells = {METRICS[name].title: f"{value:.4g}" for name, value in metrics.items()}
        cells["D loss"] = f"{d_loss:.3f}"
        if not sys.stderr.isatty():
            words = ", ".join(f"{title} {value}" for title, value in cells.items())
            logger.info("Epoch %d: %s.", self._progress.epoch, words)
            return
        columns = "epoch" + "".join(f"{title:>10}" for title in cells)
        if columns != self._columns:
            logger.info("%s", styled(columns, "bold"))
            self._columns = columns
        logger.info("%5d%s", self._progress.epoch, "".join(f"{value:>10}" for value in cells.values()))

    def add(self, step: int, losses: dict[str, Tensor], learning_rate: float) -> None:
        """Remember one batch's losses (scalars), without waiting for the device."""
        self._pending.append((step, losses))
        self._learning_rate = learning_rate

    def fetch(self) -> None:
        """Bring the losses since the last call from the device; check, sum, log and show them.

        Called by all processes, before anything made with these losses is kept.

        Raises:
            TrainingDiverged: one is NaN or infinite, on any process.
            UserError: they cannot be written.
        """
        if not self._pending:
            return
        steps, losses = zip(*self._pending, strict=True)
        self._pending = []
        names = list(losses[0])
        values = torch.stack([torch.stack([batch[name].float() for name in names]) for batch in losses])
        rows = self._accelerator.reduce(values, reduction="mean").tolist()
        for step, row in zip(steps, rows, strict=True):
            bad = [f"{name} is {value}" for name, value in zip(names, row, strict=True) if not math.isfinite(value)]
            if bad:
                raise TrainingDiverged(
                    f"training diverged at step {step}: {', '.join(bad)}. No checkpoint was taken since, so --resume "
                    "goes on from before. Try a new run with --mixed-precision no, a smaller --learning-rate or "
                    "--max-grad-norm 1."
                )
        means = {name: sum(column) / len(rows) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        progress, seconds, waited = self._progress, time.monotonic() - self._clock, self._waited
        self.start_clock()
        progress.elapsed_seconds += seconds
        progress.waiting_seconds += waited
        for name, value in (means | {"batches": 1.0}).items():
            progress.epoch_sums[name] = progress.epoch_sums.get(name, 0.0) + value * len(rows)
        images_per_second = len(rows) * self._images_per_batch / max(seconds, 1e-9)
        entry = {
            "step": progress.step,
            "epoch": progress.epoch + 1,
            **means,
            "learning_rate": self._learning_rate,
            "images_per_second": images_per_second,
            "data_wait": waited / max(seconds, 1e-9),
            "elapsed_seconds": progress.elapsed_seconds,
        }
        with fail_together(self._run_folder):
            self.record("train", entry)
        shown = {"D": means["d_loss"], "G": means["g_loss"], "img/s": images_per_second}
        if "g_l1" in means:
            shown["L1"] = means["g_l1"] / 2  # in [0, 1] units, as in validation
        self.bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()}, refresh=False)

    def record(self, event: str, entry: dict[str, Any]) -> None:
        """Write an entry, which has `step` and `epoch`, to the log and the trackers."""
        if self._accelerator.is_main_process:
            with (self._run_folder / METRICS_NAME).open("a") as file:
                file.write(json.dumps({"event": event, **entry}) + "\n")
        values = {f"{event}/{name}": value for name, value in entry.items() if name not in ("step", "epoch")}
        self._accelerator.log(values, step=entry["step"])


def read_metrics(run_folder: Path) -> list[dict[str, Any]]:
    """All entries of `metrics.jsonl`; one cut short by a crash is ignored."""
    path, entries = run_folder / METRICS_NAME, []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break  # only the last line can be cut short, and a resumed run writes it again
    return entries


def draw_curves(run_folder: Path) -> None:
    """Draw `curves.png`: losses, and every metric that was validated, L1 beside that of training pairs."""
    from matplotlib.figure import Figure

    entries, panels = read_metrics(run_folder), [*LOSS_PANELS]
    for name, metric in METRICS.items():
        if any(entry["event"] == "validation" and name in entry for entry in entries):
            fields = {name: "validation pairs"} | ({TRAIN_L1: "training pairs"} if name == "l1" else {})
            panels.append((f"{metric.title} ({metric.unit})", "validation", fields))
    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    places = figure.subfigures(1, len(panels), squeeze=False)[0]  # of one width: the app shows each by itself
    for place, (title, event, fields) in zip(places, panels, strict=True):
        axes = place.subplots()
        for field, label in fields.items():
            rows = [entry for entry in entries if entry["event"] == event and field in entry]  # weight 0: no field
            marker = "." if len(rows) < 30 else None  # a line needs two points
            axes.plot([row["step"] for row in rows], [row[field] for row in rows], label=label, marker=marker)
        axes.set(title=title, xlabel="step")
        if len(fields) > 1:
            axes.legend(loc="upper right")  # "best" is slow on long runs, and warns
    with write_aside(run_folder / CURVES_NAME) as path:
        figure.savefig(path, format="png", dpi=80)


# --- at the end


def waiting_words(progress: Progress, cache: str) -> str | None:
    """What a person could do where training waited for pairs most noticeably; None where it did not."""
    share = progress.waiting_seconds / max(progress.elapsed_seconds, 1e-9)
    if share < NOTICEABLE_WAIT:
        return None
    advice = " and --cache memory or disk" if cache == "off" else ""
    return f"{share:.0%} of the training time was spent waiting for pairs: try a larger --num-workers{advice}."


def saturation_words(measured: dict[str, float]) -> str | None:
    """What a person could do where the generator paints the ends of the range only; None where it does not."""
    ours, real = (measured.get(name, 0.0) for name in SATURATED)
    if ours <= real + MOST_SATURATED:
        return None
    return (
        f"{ours:.0%} of the generated values are at an end of their range (of the targets' {real:.0%}): the generator "
        "may have run away. It hardly comes back from there: start again with a lower --learning-rate, or with "
        "--max-grad-norm 1."
    )


def overfitting_words(validations: Sequence[dict[str, Any]]) -> str | None:
    """Whether a run learnt its pairs by heart: L1 of validation pairs beside L1 of training pairs.

    Both are the exported generator's, without augmentation or dropout, in [0, 1] units.

    Args:
        validations: entries of `metrics.jsonl`, with `epoch`, `l1` and `train_l1`, the L1 of a fixed sample of training
            pairs.

    Returns:
        None where they are too few or the training pairs were not looked at.
    """
    entries = [entry for entry in validations if "l1" in entry and TRAIN_L1 in entry]
    if len(entries) < LEAST_EPOCHS:
        return None
    best, last = min(entries, key=lambda entry: entry["l1"]), entries[-1]
    risen, gap = last["l1"] / max(best["l1"], 1e-12), last["l1"] / max(last[TRAIN_L1], 1e-12)
    now = f"L1 is {last['l1']:.4f} on validation pairs and {last[TRAIN_L1]:.4f} on training pairs"
    if risen > WORSE and last[TRAIN_L1] < best[TRAIN_L1]:
        return (
            f"Overfitting: {now}. The first was best in epoch {best['epoch']} ({best['l1']:.4f}) and has risen since, "
            f"while the second fell on from {best[TRAIN_L1]:.4f}. model_best/ or fewer epochs will do better; more "
            "pairs or more augmentation would help."
        )
    if gap > WIDE_GAP:
        return (
            f"Some overfitting: {now}, a gap of {gap - 1:.0%}, but the first has not risen"
            f"{' above its best' if risen <= WORSE else ' while the second fell'}. More pairs or augmentation may help."
        )
    return f"No overfitting: {now}."
