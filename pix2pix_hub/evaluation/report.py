"""What an evaluation writes and says: `metrics.json`, `per_image.csv`, pictures, and lines for a person."""

from __future__ import annotations

import csv
import json
import math
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

from pix2pix_hub.evaluation.bootstrap import LEVEL, RESAMPLES, Floats, confidence_interval, mean_of
from pix2pix_hub.evaluation.checks import verdict
from pix2pix_hub.evaluation.evaluate import Evaluation
from pix2pix_hub.evaluation.outputs import DIVERSITY
from pix2pix_hub.evaluation.pictures import ranking, save_images, save_nearest
from pix2pix_hub.evaluation.segmentation import SCORES, class_scores, scores_with_intervals
from pix2pix_hub.metrics import METRICS
from pix2pix_hub.metrics.distributions import weighted_frechet, weighted_kernel
from pix2pix_hub.metrics.image_metrics import distances, mean
from pix2pix_hub.util import UserError, library_versions, write_aside

METRICS_NAME, TABLE_NAME, IMAGES_NAME, NEAREST_NAME = "metrics.json", "per_image.csv", "images.png", "nearest.png"
FILES = (METRICS_NAME, TABLE_NAME, IMAGES_NAME, NEAREST_NAME)
DISTANCE_RESAMPLES = 100  # of FID and KID, whose every resample is a decomposition
MOST_IMAGES_RESAMPLED = 2000


def check_output(folder: Path) -> None:
    """Raises `UserError` unless results can and may be written to `folder`: it is new, empty or holds earlier ones."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file: name a folder.")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if found - set(FILES) and TABLE_NAME not in found:
        raise UserError(f"--output {folder} holds other files, which results might hide: name another folder.")
    if int(os.environ.get("RANK", 0)) == 0:  # of several processes one
        _try_to_make(folder)


def _try_to_make(folder: Path) -> None:
    """Make the folder, see that it takes files, and take it away again where it was not there."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--output {folder} cannot be written to ({reason}): name another folder.") from error
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


def write_evaluation(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """Write all files, each whole or not at all; the content of `metrics.json`."""
    content = results(evaluation)
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(evaluation, folder / TABLE_NAME)  # first: it marks a folder of results
    ranked_by, kinds = ranking(evaluation)
    content["images"] = {
        "ranked_by": ranked_by,
        **{kind: [evaluation.pairs.evaluated.name(index) for index in chosen] for kind, chosen in kinds.items()},
    }
    save_images(evaluation, ranked_by, kinds, folder / IMAGES_NAME)
    if evaluation.nearest:
        save_nearest(evaluation, folder / NEAREST_NAME)
    else:
        (folder / NEAREST_NAME).unlink(missing_ok=True)  # of earlier results
    with write_aside(folder / METRICS_NAME) as path:
        path.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")
    return content


# --- numbers


def results(evaluation: Evaluation) -> dict[str, Any]:
    """The content of `metrics.json`: every number with its interval, and how it came about."""
    content: dict[str, Any] = {name: _entry(evaluation, name) for name in evaluation.options.metrics}
    if DIVERSITY in evaluation.measured.values:
        content[DIVERSITY] = _per_image_entry(evaluation, DIVERSITY) | {
            "unit": "mean absolute difference of two samples of one source, 0 to 1",
            "higher_is_better": True,
        }
    if evaluation.segmentation is not None:
        counts = evaluation.measured.counts
        content["segmentation"] = evaluation.segmentation | {
            kind: scores_with_intervals(counts[kind]) for kind in ("real", "generated", "shuffled") if kind in counts
        }
        if "real" in counts:
            content["segmentation"]["tells_apart"] = _tells_apart(content["segmentation"])
    if evaluation.checks:
        content["checks"] = {name: check.to_dict() for name, check in evaluation.checks.items()}
    return content | {
        "protocol": protocol(evaluation),
        "model": evaluation.model.to_dict(),
        "dataset": evaluation.pairs.to_dict(),
        "versions": library_versions(),
    }


def protocol(evaluation: Evaluation) -> dict[str, Any]:
    """All that must be the same where two numbers are compared, beyond each metric's own."""
    options, preprocessor = evaluation.options, evaluation.model.preprocessor
    return {
        "pairs": len(evaluation.tensors),
        "image_size": list(evaluation.image_size),
        "resize": preprocessor.resize,
        "resample": "bilinear, antialiased; labels nearest",
        "source": replace(preprocessor.source, palette=()).to_dict(),
        "target": replace(preprocessor.target, palette=()).to_dict(),
        "mode": "deterministic"
        if options.num_samples == 1
        else "stochastic: dropout on, values are means over samples",
        "num_samples": options.num_samples,
        "max_pairs": options.max_pairs,
        "seed": options.seed,
        "precision": "float32" if options.precision == "no" else options.precision,
        "interval": f"{LEVEL:.0%}, percentiles of {RESAMPLES} bootstrap resamples of the images "
        f"({DISTANCE_RESAMPLES} for FID and KID)",
    }


def _entry(evaluation: Evaluation, name: str) -> dict[str, Any]:
    metric = METRICS[name]
    if name in evaluation.missing:
        found: dict[str, Any] = {"value": None, "ci95": None, "reason": evaluation.missing[name]}
    else:
        found = _per_image_entry(evaluation, name) if metric.per_image else _distance_entry(evaluation, name)
    return found | metric.to_dict()


def _per_image_entry(evaluation: Evaluation, name: str) -> dict[str, Any]:
    values = evaluation.measured.value(name)
    value = mean(values.tolist())
    if not math.isfinite(value):
        return {"value": None, "ci95": None, "reason": "infinite: an image equals its target"}
    interval = confidence_interval(mean_of(values), len(values), seed=evaluation.options.seed)
    return {"value": value, "ci95": list(interval)}


def _distance_entry(evaluation: Evaluation, name: str) -> dict[str, Any]:
    real, generated = (torch.stack(evaluation.measured.features[side]) for side in ("target", "generated"))
    value = distances([name], real, generated)[name]
    if len(real) > MOST_IMAGES_RESAMPLED:
        return {"value": value, "ci95": None, "ci_reason": f"not resampled above {MOST_IMAGES_RESAMPLED} images"}
    weighted = {"fid": weighted_frechet, "kid": weighted_kernel}[name]

    def statistic(counts: Floats) -> Floats:
        return weighted(real, generated, torch.from_numpy(counts)).numpy()

    options = {"resamples": DISTANCE_RESAMPLES, "seed": evaluation.options.seed}
    return {"value": value, "ci95": list(confidence_interval(statistic, len(real), **options, center=value))}


def _tells_apart(scores: dict[str, Any]) -> bool:
    """Whether the network that judges finds more in real photos than in photos of other label maps."""
    return bool(scores["real"]["class_iou"]["ci95"][0] > scores["shuffled"]["class_iou"]["ci95"][1])


def _finite(content: Any) -> Any:
    """JSON knows no infinity, which a check may find in images that all are alike: null."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


# --- files


def _write_table(evaluation: Evaluation, path: Path) -> None:
    """A row for each pair: its name and a column for each metric that has one."""
    columns: dict[str, list[float]] = dict(evaluation.measured.values)
    for kind, counts in evaluation.measured.counts.items():
        column = class_scores(torch.stack(list(counts)).numpy())["pixel_accuracy"].tolist()
        columns["pixel_accuracy" if kind == "generated" else f"pixel_accuracy_{kind}"] = column
    with write_aside(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["pair", *columns])
        for index in range(len(evaluation.tensors)):
            row = [repr(column[index]) for column in columns.values()]
            writer.writerow([evaluation.pairs.evaluated.name(index), *row])


# --- words


def describe(content: dict[str, Any], evaluation: Evaluation) -> str:
    """Several lines for a person."""
    dataset, how = content["dataset"], content["protocol"]
    size = "x".join(str(side) for side in how["image_size"])
    samples = f", {how['num_samples']} samples of each" if how["num_samples"] > 1 else ""
    lines = [f"{dataset['id']}, split {dataset['split']}: {dataset['pairs']} pairs at {size}{samples}"]
    titles = {name: METRICS[name].title for name in evaluation.options.metrics} | {DIVERSITY: "diversity"}
    lines += [f"  {title:10} {_in_words(content[name])}" for name, title in titles.items() if name in content]
    if "segmentation" in content:
        lines += _segmentation_lines(content["segmentation"])
    if evaluation.checks:
        lines.append(verdict(evaluation.checks, dataset["pairs"]))
    return "\n".join(lines)


def _in_words(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return f"–  {entry['reason']}"
    interval = "" if entry["ci95"] is None else f"   {entry['ci95'][0]:.4g} … {entry['ci95'][1]:.4g}"
    return f"{entry['value']:.4g}{interval}"


def _segmentation_lines(scores: dict[str, Any]) -> list[str]:
    lines = [f"  {scores['task']} score, {scores['classes']} classes: {', '.join(SCORES).replace('_', ' ')}"]
    for kind in ("real", "generated", "shuffled"):
        if kind in scores:
            cells = [f"{scores[kind][name]['value']:.3f}" for name in SCORES]
            lines.append(f"    {kind:10} {'  '.join(cells)}")
    if not scores.get("tells_apart", True):
        lines.append(
            "    The network that judges does not tell real photos from photos of other label maps: these scores say "
            "nothing. Train it longer (--segmenter-steps), on more pairs."
        )
    return lines
