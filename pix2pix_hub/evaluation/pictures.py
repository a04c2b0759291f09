"""The pictures of an evaluation: its best, median and worst pairs, and the outputs nearest to training images."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pix2pix_hub.evaluation.evaluate import Evaluation
from pix2pix_hub.evaluation.traces import thumbnails_of
from pix2pix_hub.images import PixelFormat, displayed, tensor_to_pil
from pix2pix_hub.metrics import METRICS
from pix2pix_hub.util import write_aside

ROWS_OF_A_KIND = 3  # best, median and worst pairs in the picture
NEAREST_ROWS = 4
SHOWN_SAMPLES = 4
LEAST_HEIGHT = 128  # pixels that an image is enlarged to, by a whole factor
_GAP = 8  # pixels between images, and around text
_TEXT_HEIGHT = 14  # pixels; more beside images above 280 pixels
_LINE_LENGTH, _LONGEST_NAME = 24, 72  # characters


def ranking(evaluation: Evaluation) -> tuple[str, dict[str, list[int]]]:
    """The metric that sees most as people do, and the best, median and worst pairs by it; the first without any."""
    per_image = [name for name in evaluation.measured.values if name in METRICS]
    name = "lpips" if "lpips" in per_image else per_image[0] if per_image else ""
    order = list(range(len(evaluation.tensors)))
    if not name:
        return name, {"first": order[:ROWS_OF_A_KIND]}
    sign = -1 if METRICS[name].higher_is_better else 1
    order.sort(key=lambda index: sign * evaluation.measured.values[name][index])
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
            made = [evaluation.translator(pair["source"][None], [index], sample)[0].cpu() for sample in range(samples)]
            rows.append((pair["source"], *made, pair["target"]))
            labels.append([*_rank(evaluation, ranked_by, kind, index), evaluation.pairs.evaluated.name(index)])
    formats = evaluation.pairs.evaluated.formats
    generated = ["generated"] if samples == 1 else [f"generated,\nsample {sample + 1}" for sample in range(samples)]
    columns = [formats["source"], *[formats["target"]] * (samples + 1)]
    save_labelled(rows, path, columns, ["source", *generated, "target"], labels)


def _rank(evaluation: Evaluation, ranked_by: str, kind: str, index: int) -> list[str]:
    """ "best", "L1 0.041"; nothing where no metric has a value for each image."""
    if not ranked_by:
        return []
    return [kind, f"{METRICS[ranked_by].title} {evaluation.measured.values[ranked_by][index]:.3g}"]


def save_nearest(evaluation: Evaluation, path: Path) -> None:
    """Rows of generated | nearest training target | its own target, the nearest first."""
    training = evaluation.pairs.training
    assert training is not None
    rows, labels = [], []
    for rank, (index, place) in enumerate(evaluation.nearest[:NEAREST_ROWS], 1):
        pair = evaluation.tensors[index]
        source, target = training[place]
        other = evaluation.tensors.transform(source, target, epoch=0, index=0)["target"]
        generated = evaluation.translator(pair["source"][None], [index])[0].cpu()
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
    images = [[_enlarged(image, form) for image, form in zip(row, formats, strict=True)] for row in rows]
    width, height = images[0][0].size
    font = _font(max(_TEXT_HEIGHT, height // 20))
    texts = ["\n".join(_short_lines(lines)) for lines in labels]
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
            picture.paste(image, (left + column * across, top + row * down))
    with write_aside(path) as partial:
        picture.save(partial, format="PNG")


def _enlarged(image: Tensor, form: PixelFormat) -> Image.Image:
    """By the least whole factor that makes it `LEAST_HEIGHT` high, pixels staying squares of one colour."""
    picture = tensor_to_pil(displayed(image, form))
    factor = max(1, -(-LEAST_HEIGHT // picture.height))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _font(height: int) -> ImageFont.FreeTypeFont:
    """The one that comes with matplotlib: it knows more alphabets than the one that comes with Pillow."""
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, height, layout_engine=ImageFont.Layout.BASIC)


def _short_lines(lines: Sequence[str]) -> list[str]:
    """Of long names the end, on several lines."""
    ends = [line if len(line) <= _LONGEST_NAME else "…" + line[1 - _LONGEST_NAME :] for line in lines]
    return [part for line in ends for part in textwrap.wrap(line, _LINE_LENGTH)]


def _extent(texts: Sequence[str], font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height, in pixels, that hold each of the texts."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [draw.multiline_textbbox((0, 0), text, font) for text in texts]
    return int(max(box[2] for box in boxes)) + 1, int(max(box[3] for box in boxes)) + 1
