"""The pictures of an evaluation: its best, median and worst pairs, and the outputs nearest to training images."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from pix2pix_hub.evaluation.evaluate import Evaluation
from pix2pix_hub.images import save_grid
from pix2pix_hub.metrics import METRICS

ROWS_OF_A_KIND = 3  # best, median and worst pairs in the picture
NEAREST_ROWS = 4
SHOWN_SAMPLES = 4


def ranking(evaluation: Evaluation) -> tuple[str, dict[str, list[int]]]:
    """The metric that sees most as people do, and the best, median and worst pairs by it."""
    per_image = [name for name in evaluation.measured.values if name in METRICS]
    name = "lpips" if "lpips" in per_image else per_image[0] if per_image else ""
    order = list(range(len(evaluation.tensors)))
    if name:
        sign = -1 if METRICS[name].higher_is_better else 1
        order.sort(key=lambda index: sign * evaluation.measured.values[name][index])
    count = min(ROWS_OF_A_KIND, max(1, len(order) // 3))
    middle = max(count, (len(order) - count) // 2)
    kinds = {"best": order[:count], "median": order[middle : middle + count], "worst": order[middle + count :][-count:]}
    return name, {kind: chosen for kind, chosen in kinds.items() if chosen}


def save_images(evaluation: Evaluation, indices: list[int], path: Path) -> None:
    """Rows of source | generated (each sample) | target."""
    shown = range(min(SHOWN_SAMPLES, evaluation.options.num_samples))
    rows = []
    for index in indices:
        pair = evaluation.tensors[index]
        made = [evaluation.translator(pair["source"][None], [index], sample)[0].cpu() for sample in shown]
        rows.append((pair["source"], *made, pair["target"]))
    formats = evaluation.pairs.evaluated.formats
    save_grid(rows, path, [formats["source"], *[formats["target"]] * (len(shown) + 1)])


def save_nearest(evaluation: Evaluation, path: Path) -> None:
    """Rows of generated | nearest training target | its own target, the nearest first."""
    training = evaluation.pairs.training
    assert training is not None
    rows: list[tuple[Tensor, ...]] = []
    for index, place in evaluation.nearest[:NEAREST_ROWS]:
        pair = evaluation.tensors[index]
        source, target = training[place]
        other = evaluation.tensors.transform(source, target, epoch=0, index=0)["target"]
        rows.append((evaluation.translator(pair["source"][None], [index])[0].cpu(), other, pair["target"]))
    save_grid(rows, path, [evaluation.pairs.evaluated.formats["target"]] * 3)
