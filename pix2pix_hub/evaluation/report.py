"""The outcome of an evaluation: `metrics.json`, `per_image.csv`, pictures, and lines for a person."""

from __future__ import annotations

import csv
import json
import math
import os
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pix2pix_hub.evaluation.checks import thumbnails_of, verdict
from pix2pix_hub.evaluation.evaluate import DIVERSITY, Evaluation, translate
from pix2pix_hub.evaluation.segmentation import SCORES, class_scores, scores_with_intervals
from pix2pix_hub.export import METRICS_NAME
from pix2pix_hub.image.format import PixelFormat, displayed, tensor_to_pil
from pix2pix_hub.metrics import LEVEL, METRICS, RESAMPLES, mean, ratio_interval
from pix2pix_hub.util import UserError, counted, library_versions, write_aside, write_json

TABLE_NAME, IMAGES_NAME, NEAREST_NAME = "per_image.csv", "images.png", "nearest.png"
FILES = (METRICS_NAME, TABLE_NAME, IMAGES_NAME, NEAREST_NAME)
COUNTED = ("real", "generated", "shuffled")  # of images whose classes are counted
ROWS_OF_A_KIND = 3  # best, median and worst pairs in the picture
NEAREST_ROWS = 4
SHOWN_SAMPLES = 4
LEAST_HEIGHT = 128  # pixels that an image is enlarged to, by a whole factor
_GAP = 8  # pixels between images, and around text
_TEXT_HEIGHT = 14  # pixels; more beside images above 280 pixels
_LINE_LENGTH, _LONGEST_NAME = 24, 72  # characters


def check_output(folder: Path) -> None:
    """Raises `UserError` unless results can and may be written to `folder`: it is new, empty or holds earlier ones."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file: name a folder.")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if found - set(FILES) and TABLE_NAME not in found:
        raise UserError(f"--output {folder} holds other files, which results might hide: name another folder.")
    if int(os.environ.get("RANK", 0)) != 0:  # of several processes one tries
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--output {folder} cannot be written to ({reason}): name another folder.") from error
    finally:
        for path in made:  # nothing is left behind where the evaluation fails
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
    # JSON knows no infinity, which a check may find in images that all are alike: null
    write_json(folder / METRICS_NAME, json.loads(json.dumps(content), parse_constant=lambda _: None))
    return content


# --- numbers


def results(evaluation: Evaluation) -> dict[str, Any]:
    """The content of `metrics.json`: every number with its interval, and how it came about."""
    content: dict[str, Any] = {name: _entry(evaluation, name) for name in evaluation.options.metrics}
    if DIVERSITY in evaluation.measured.values:
        content[DIVERSITY] = _entry(evaluation, DIVERSITY)
    if evaluation.segmentation is not None:
        counts = evaluation.measured.counts
        scores = {kind: scores_with_intervals(counts[kind]) for kind in COUNTED if kind in counts}
        content["segmentation"] = evaluation.segmentation | scores
        if "real" in scores:  # does the network that judges find more in real photos than in those of other label maps?
            real, shuffled = (scores[kind]["class_iou"]["ci95"] for kind in ("real", "shuffled"))
            content["segmentation"]["tells_apart"] = real[0] > shuffled[1]
    if evaluation.checks:
        content["checks"] = {name: check.to_dict() for name, check in evaluation.checks.items()}
    options, preprocessor = evaluation.options, evaluation.model.preprocessor
    stochastic = "stochastic: dropout on, values are means over samples"
    content["protocol"] = {  # all that must be the same where two numbers are compared, beyond each metric's own
        "pairs": len(evaluation.tensors),
        "image_size": list(evaluation.tensors.transform.image_size),
        "resize": preprocessor.resize,
        "resample": "bilinear, antialiased; labels nearest",
        "source": replace(preprocessor.source, palette=()).to_dict(),
        "target": replace(preprocessor.target, palette=()).to_dict(),
        "mode": "deterministic" if options.num_samples == 1 else stochastic,
        "num_samples": options.num_samples,
        "max_pairs": options.max_pairs,
        "seed": options.seed,
        "precision": "float32" if options.precision == "no" else options.precision,
        "interval": f"{LEVEL:.0%}, percentiles of {RESAMPLES} bootstrap resamples of the images; FID and KID have none",
    }
    model = evaluation.model
    content["model"] = {"id": model.name, "revision": model.revision, "weights_sha256": model.weights_sha256}
    return content | {"dataset": evaluation.pairs.facts, "versions": library_versions()}


def _entry(evaluation: Evaluation, name: str) -> dict[str, Any]:
    """A metric's value, its interval or the number of images behind it, and what it means."""
    measured, metric = evaluation.measured, METRICS.get(name)
    of_diversity = {"unit": "mean absolute difference of two samples of one source, 0 to 1", "higher_is_better": True}
    facts = ("unit", "higher_is_better", "protocol")
    about: dict[str, Any] = of_diversity if metric is None else {fact: getattr(metric, fact) for fact in facts}
    nothing: dict[str, Any] = {"value": None, "ci95": None}
    if name in evaluation.missing:
        return nothing | {"reason": evaluation.missing[name]} | about
    if metric is not None and metric.of_sets is not None:
        real, generated = measured.features["target"], measured.features["generated"]
        return {"value": metric.of_sets(real, generated), "ci95": None, "images": len(real)} | about
    values = measured.values[name].numpy()
    if not math.isfinite(value := mean(values.tolist())):
        return nothing | {"reason": "infinite: an image equals its target"} | about
    return {"value": value, "ci95": list(ratio_interval(values, seed=evaluation.options.seed))} | about


def _write_table(evaluation: Evaluation, path: Path) -> None:
    """A row for each pair: its name and a column for each metric that has one."""
    columns = {name: values.tolist() for name, values in evaluation.measured.values.items()}
    for kind, counts in evaluation.measured.counts.items():
        name = "pixel_accuracy" if kind == "generated" else f"pixel_accuracy_{kind}"
        columns[name] = class_scores(counts.numpy())["pixel_accuracy"].tolist()
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
    lines = [f"{dataset['id']}, split {dataset['split']}: {counted(dataset['pairs'], 'pair')} at {size}{samples}"]
    titles = {name: METRICS[name].title for name in evaluation.options.metrics} | {DIVERSITY: "diversity"}
    for name, title in titles.items():
        if (entry := content.get(name)) is None:
            continue
        words = f"–  {entry['reason']}" if entry["value"] is None else f"{entry['value']:.4g}"
        if entry["ci95"] is not None:
            words += f"   {entry['ci95'][0]:.4g} … {entry['ci95'][1]:.4g}"
        elif "images" in entry:
            words += f"   of {counted(entry['images'], 'image')}"
        lines.append(f"  {title:10} {words}")
    if (scores := content.get("segmentation")) is not None:
        lines.append(
            f"  {scores['task']} score, {counted(scores['classes'], 'class')}: {', '.join(SCORES).replace('_', ' ')}"
        )
        for kind in COUNTED:
            if kind in scores:
                cells = [f"{scores[kind][name]['value']:.3f}" for name in SCORES]
                lines.append(f"    {kind:10} {'  '.join(cells)}")
        if not scores.get("tells_apart", True):
            lines.append(
                "    The network that judges does not tell real photos from photos of other label maps: these scores "
                "say nothing. Train it longer (--segmenter-steps), on more pairs."
            )
    if evaluation.checks:
        lines.append(verdict(evaluation.checks, dataset["pairs"]))
    return "\n".join(lines)


# --- pictures


def ranking(evaluation: Evaluation) -> tuple[str, dict[str, list[int]]]:
    """The metric that sees most as people do, and the best, median and worst pairs by it; the first without any."""
    per_image = [name for name in evaluation.measured.values if name in METRICS]
    order = list(range(len(evaluation.tensors)))
    if not per_image:
        return "", {"first": order[:ROWS_OF_A_KIND]}
    name = "lpips" if "lpips" in per_image else per_image[0]
    values = evaluation.measured.values[name].tolist()
    sign = -1 if METRICS[name].higher_is_better else 1
    order.sort(key=lambda index: sign * values[index])
    count = min(ROWS_OF_A_KIND, max(1, len(order) // 3))
    middle = max(count, (len(order) - count) // 2)
    kinds = {"best": order[:count], "median": order[middle : middle + count], "worst": order[middle + count :][-count:]}
    return name, {kind: chosen for kind, chosen in kinds.items() if chosen}


def save_images(evaluation: Evaluation, ranked_by: str, kinds: dict[str, list[int]], path: Path) -> None:
    """Rows of source | generated (each sample) | target, best first; `ranked_by` and `kinds` are those of `ranking`."""
    samples = min(SHOWN_SAMPLES, evaluation.options.num_samples)
    rows, labels = [], []
    for kind, chosen in kinds.items():
        for index in chosen:
            pair = evaluation.tensors[index]
            made = [generated_image(evaluation, index, sample) for sample in range(samples)]
            rows.append((pair["source"], *made, pair["target"]))
            rank = []
            if ranked_by:
                value = float(evaluation.measured.values[ranked_by][index])
                rank = [kind, f"{METRICS[ranked_by].title} {value:.3g}"]
            labels.append([*rank, evaluation.pairs.evaluated.name(index)])
    formats = evaluation.pairs.evaluated.formats
    generated = ["generated"] if samples == 1 else [f"generated,\nsample {sample + 1}" for sample in range(samples)]
    columns = [formats["source"], *[formats["target"]] * (samples + 1)]
    save_labelled(rows, path, columns, ["source", *generated, "target"], labels)


def generated_image(evaluation: Evaluation, index: int, sample: int = 0) -> Tensor:
    """What the generator makes of one pair, once more: (C, H, W) in [-1, 1]."""
    source = evaluation.tensors[index]["source"][None]
    return translate(evaluation.model, evaluation.options, source, [index], sample)[0].cpu()


def save_nearest(evaluation: Evaluation, path: Path) -> None:
    """Rows of generated | nearest training target | its own target, the nearest first."""
    training = evaluation.pairs.training
    assert training is not None
    rows, labels = [], []
    for rank, (index, place) in enumerate(evaluation.nearest[:NEAREST_ROWS], 1):
        pair = evaluation.tensors[index]
        other = evaluation.tensors.transform(*training[place], epoch=0, index=0)["target"]
        generated = generated_image(evaluation, index)
        rows.append((generated, other, pair["target"]))
        distance = (thumbnails_of(generated[None]) - thumbnails_of(other[None])).square().mean().sqrt()
        names = [evaluation.pairs.evaluated.name(index), f"training image {training.name(place)}"]
        labels.append([f"nearest {rank}", f"distance {float(distance):.3f}", *names])
    columns = [evaluation.pairs.evaluated.formats["target"]] * 3
    save_labelled(rows, path, columns, ["generated", "nearest\ntraining image", "own target"], labels)


def save_labelled(
    rows: Sequence[Sequence[Tensor]],
    path: Path,
    formats: Sequence[PixelFormat],
    headings: Sequence[str],
    labels: Sequence[Sequence[str]],
) -> None:
    """Write rows of images as one PNG, with a heading above each column and lines of text left of each row.

    Args:
        rows: `(C, H, W)` tensors in [-1, 1], all of one height and width, enlarged to `LEAST_HEIGHT` or more.
        formats, headings: of the columns.
        labels: of the rows.
    """
    images = [[tensor_to_pil(displayed(image, form)) for image, form in zip(row, formats, strict=True)] for row in rows]
    factor = max(1, -(-LEAST_HEIGHT // images[0][0].height))  # pixels stay squares of one colour
    width, height = (factor * side for side in images[0][0].size)
    # matplotlib's font knows more alphabets than the one that comes with Pillow
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(file, max(_TEXT_HEIGHT, height // 20), layout_engine=ImageFont.Layout.BASIC)
    texts = []
    for lines in labels:  # of long names the end, on several lines
        ends = (line if len(line) <= _LONGEST_NAME else "…" + line[1 - _LONGEST_NAME :] for line in lines)
        texts.append("\n".join(part for line in ends for part in textwrap.wrap(line, _LINE_LENGTH)))
    label_width, label_height = _extent(texts, font)
    heading_width, heading_height = _extent(headings, font)
    across, down = max(width, heading_width) + _GAP, max(height, label_height) + _GAP
    left, top = label_width + 2 * _GAP, heading_height + 2 * _GAP
    picture = Image.new("RGB", (left + len(headings) * across, top + len(rows) * down), "white")
    draw = ImageDraw.Draw(picture)
    for column, heading in enumerate(headings):
        draw.multiline_text((left + column * across, _GAP), heading, "black", font)
    for row, (text, shown) in enumerate(zip(texts, images, strict=True)):
        draw.multiline_text((_GAP, top + row * down), text, "black", font)
        for column, image in enumerate(shown):
            enlarged = image.resize((width, height), Image.Resampling.NEAREST)
            picture.paste(enlarged, (left + column * across, top + row * down))
    with write_aside(path) as partial:
        picture.save(partial, format="PNG")


def _extent(texts: Sequence[str], font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height, in pixels, that hold each of the texts."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [draw.multiline_textbbox((0, 0), text, font) for text in texts]
    return int(max(box[2] for box in boxes)) + 1, int(max(box[3] for box in boxes)) + 1
