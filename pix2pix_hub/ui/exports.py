"""What the page shows of an export before its networks are loaded: read from its small files, without PyTorch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from pix2pix_hub import export
from pix2pix_hub.export import CARD_NAME, CURVES_NAME, EXPORT_FOLDERS, METRICS_NAME, PREPROCESSOR_NAME, SAMPLES_NAME
from pix2pix_hub.image.read import open_image
from pix2pix_hub.ui.limits import Limits, check_picture
from pix2pix_hub.util import UserError, is_own_file

SHOWN_FILES = (CARD_NAME, CURVES_NAME, METRICS_NAME, SAMPLES_NAME, PREPROCESSOR_NAME)
SAMPLES_PADDING = 2  # white pixels between the pictures of samples.png
MAX_PALETTE, MAX_NAME, MAX_CARD, MAX_SIDE, MAX_ROWS = 64, 40, 100_000, 4096, 100
WHITE = (255, 255, 255)

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Paint:
    """A colour of the model's source images."""

    color: Color
    name: str  # of the class, else the colour in hexadecimal


@dataclass(frozen=True)
class Side:
    """The source or target images of a model."""

    mode: str  # "rgb", "gray", "labels", …
    bit_depth: int
    paints: tuple[Paint, ...]  # the few colours they hold, most frequent first; none: they are photos
    class_values: tuple[int, ...]  # labels: the stored value of each paint

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Side:
        """A side of `Export.pixels`."""
        classes = tuple(values.get("classes", ()))
        named = [(tuple(entry["color"]), entry.get("name")) for entry in values.get("palette", ())]
        if classes:  # the order of classes counts, not that of frequency
            colors = [tuple(color) for color in values.get("colors", ())] or _distinct_colors(len(classes))
            named = [(color, dict(named).get(color)) for color in colors]
        paints = tuple(Paint(color, str(name or hex_color(color))[:MAX_NAME]) for color, name in named[:MAX_PALETTE])
        depth = {"uint16": 16, "float32": 32}.get(values.get("dtype", "uint8"), 8)
        return cls(values.get("mode", "rgb"), depth, paints, classes)

    def describe(self) -> str:
        """ "8-bit RGB"."""
        kind = {"rgb": "RGB", "rgba": "RGBA", "labels": "classes"}.get(self.mode, self.mode)
        return f"{self.bit_depth}-bit {kind}"


@dataclass(frozen=True, eq=False)
class Example:
    """A validation pair with what the model made of it, each an RGB picture of the size trained at."""

    source: Image.Image
    generated: Image.Image
    target: Image.Image


class Export(export.Export):
    """An export as the page shows it.

    Args:
        folder: where its files lie.
        name: what people call the model.

    Raises:
        UserError: `preprocessor_config.json` is missing, or not as an export has it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder)
        self.name = name
        if not self.has(PREPROCESSOR_NAME):
            raise UserError(f"the model {name} has no {PREPROCESSOR_NAME}: expected an export (a run's model/).")
        try:
            self.height, self.width = self.pixels["image_size"]
        except UserError as error:
            reason = str(error).replace(f"{folder}/", "")  # where it lies is nobody's business
            raise UserError(f"{PREPROCESSOR_NAME} of the model {name} cannot be used: {reason}") from error
        if max(self.height, self.width) > MAX_SIDE:
            raise UserError(f"{PREPROCESSOR_NAME} of the model {name} says {self.height}x{self.width} pixels.")
        self.source, self.target = Side.from_dict(self.pixels["source"]), Side.from_dict(self.pixels["target"])

    @property
    def background(self) -> Color:
        """What an empty drawing is filled with: the most frequent colour; white for photos."""
        return self.source.paints[0].color if self.source.paints else WHITE

    @cached_property
    def examples(self) -> list[Example]:
        """The rows of `samples.png`; none where it is missing or of another shape."""
        return _cut_rows(self.samples, self.height, self.width) if self.samples else []

    @cached_property
    def card(self) -> str:
        """The model card's text, without its metadata block and its pictures; empty where there is none."""
        if not self.has(CARD_NAME):
            return ""
        with (self.folder / CARD_NAME).open("rb") as file:
            text = file.read(MAX_CARD).decode(errors="replace")
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        # none of these looks further than the next bracket of its kind: linear, whatever the text
        text = re.sub(r"!\[[^][]*\]\([^()]*\)|<img[^<>]*>", "", text)
        return text.replace("![", "[").strip()

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Name → value of the numbers in `metrics.json`, the first `MAX_ROWS`; none where it is damaged."""
        try:
            content = self.metrics if self.has(METRICS_NAME) else {}
        except UserError:
            return {}
        values = {name: entry.get("value") if isinstance(entry, dict) else entry for name, entry in content.items()}
        found = {name[:MAX_NAME]: value for name, value in values.items() if isinstance(value, int | float)}
        return dict(list(found.items())[:MAX_ROWS])

    @cached_property
    def samples(self) -> Image.Image | None:
        """`samples.png`: rows of source | generated | target of validation pairs."""
        return _picture(self.folder / SAMPLES_NAME)

    @cached_property
    def curves(self) -> Image.Image | None:
        """Its training curves: in the export, or in the run that it is of."""
        run = self.folder.parent if self.folder.name in EXPORT_FOLDERS else self.folder
        return _picture(self.folder / CURVES_NAME) or _picture(run / CURVES_NAME)

    def summary(self) -> str:
        """One line: what it takes and makes."""
        sizes = f"trained at {self.width}x{self.height} pixels"
        return f"{self.source.describe()} → {self.target.describe()}, {sizes}"


def _picture(path: Path) -> Image.Image | None:
    """RGB; None where there is none that can be shown, which is no reason not to use the model."""
    try:
        if not is_own_file(path, path.parent):
            return None
        check_picture(path, path.name, Limits())
        return open_image(path.read_bytes(), path.name, formats=("PNG",)).convert("RGB")
    except Exception:  # damaged pictures raise almost anything
        return None


def _distinct_colors(count: int) -> list[Color]:
    """Those that `samples.png` shows classes without colours in."""
    from pix2pix_hub.image.format import distinct_colors  # brings PyTorch with it

    return distinct_colors(count)


def hex_color(color: Color) -> str:
    """ "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _cut_rows(picture: Image.Image, height: int, width: int) -> list[Example]:
    step_x, step_y = width + SAMPLES_PADDING, height + SAMPLES_PADDING
    if picture.width != 3 * step_x + SAMPLES_PADDING or (picture.height - SAMPLES_PADDING) % step_y:
        return []
    if picture.height > MAX_ROWS * step_y:
        return []
    rows = []
    for top in range(SAMPLES_PADDING, picture.height, step_y):
        lefts = [SAMPLES_PADDING + column * step_x for column in range(3)]
        rows.append(Example(*(picture.crop((left, top, left + width, top + height)) for left in lefts)))
    return rows
