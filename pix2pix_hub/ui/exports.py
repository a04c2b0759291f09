"""What the page shows of an export before its networks are loaded: read from its small files, without PyTorch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from pix2pix_hub.errors import UserError
from pix2pix_hub.ui.limits import Limits, check_picture

CARD, CURVES, METRICS, SAMPLES = "README.md", "curves.png", "metrics.json", "samples.png"
PREPROCESSOR = "preprocessor_config.json"
SHOWN_FILES = (CARD, CURVES, METRICS, SAMPLES, PREPROCESSOR)
SAMPLES_PADDING = 2  # white pixels between the pictures of samples.png
MAX_PALETTE, MAX_NAME, MAX_CARD, MAX_SIDE = 64, 40, 100_000, 4096
WHITE = (255, 255, 255)

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Paint:
    """A colour of the model's source images."""

    color: Color
    name: str  # of the class, else the colour in hexadecimal


@dataclass(frozen=True, eq=False)
class Example:
    """A validation pair with what the model made of it, each an RGB picture of the size trained at."""

    source: Image.Image
    generated: Image.Image
    target: Image.Image


class Export:
    """The files of an export that describe it.

    Args:
        folder: where they lie.
        name: what people call the model.

    Raises:
        UserError: `preprocessor_config.json` is missing, or not as an export has it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        path = folder / PREPROCESSOR
        if not path.is_file():
            raise UserError(f"the model {name} has no {PREPROCESSOR}: expected an export (a run's model/).")
        try:
            self._config = json.loads(path.read_text())
            self.height, self.width = (int(side) for side in self._config["image_size"])
            self._source = dict(self._config["source"])
            self.source_mode = str(self._source["mode"])
            self.paints = _paints(self._source)
            self.class_values = tuple(int(value) for value in self._source.get("classes", ()))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{PREPROCESSOR} of the model {name} is not as an export has it ({error!r}).") from error
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise UserError(f"{PREPROCESSOR} of the model {name} says {self.height}x{self.width} pixels.")

    @property
    def background(self) -> Color:
        """What an empty drawing is filled with: the most frequent colour; white for photos."""
        return self.paints[0].color if self.paints else WHITE

    @cached_property
    def examples(self) -> list[Example]:
        """The rows of `samples.png` (source | generated | target); none where it is missing or of another shape."""
        path = self.folder / SAMPLES
        if not path.is_file():
            return []
        try:
            check_picture(path, SAMPLES, Limits())
            with Image.open(path) as picture:
                return _cut_rows(picture.convert("RGB"), self.height, self.width)
        except (UserError, OSError, SyntaxError):
            return []  # a picture that cannot be read is no reason not to use the model

    @cached_property
    def card(self) -> str:
        """The model card's text, without its metadata block and its pictures; empty where there is none."""
        path = self.folder / CARD
        if not path.is_file():
            return ""
        text = path.read_bytes()[:MAX_CARD].decode(errors="replace")
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        return re.sub(r"!\[[^\]]*\]\([^)]*\)|<img[^>]*>", "", text).strip()

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Name → value of the numbers in `metrics.json`."""
        try:
            content = json.loads((self.folder / METRICS).read_text())
            values = {name: entry["value"] if isinstance(entry, dict) else entry for name, entry in content.items()}
            return {name: value for name, value in values.items() if isinstance(value, int | float)}
        except (OSError, ValueError, KeyError, AttributeError):
            return {}

    @property
    def curves(self) -> Path | None:
        """The picture of its training curves: in the export, or in the run that it is of."""
        places = (self.folder / CURVES, self.folder.parent / CURVES)
        return next((path for path in places if path.is_file()), None)

    def summary(self) -> str:
        """One line: what it takes and makes."""
        sides = [_side(self._config.get(side, {})) for side in ("source", "target")]
        return f"{sides[0]} → {sides[1]}, trained at {self.width}x{self.height} pixels"


def _paints(side: dict[str, Any]) -> tuple[Paint, ...]:
    """Of `palette`, else of the `colors` of classes."""
    entries = side.get("palette") or [{"color": color, "name": None} for color in side.get("colors", ())]
    paints = []
    for entry in entries[:MAX_PALETTE]:
        red, green, blue = (int(part) for part in entry["color"])
        if not all(0 <= part <= 255 for part in (red, green, blue)):
            raise ValueError(f"color {entry['color']}")
        paints.append(Paint((red, green, blue), str(entry.get("name") or hex_color((red, green, blue)))[:MAX_NAME]))
    return tuple(paints)


def hex_color(color: Color) -> str:
    """ "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _cut_rows(picture: Image.Image, height: int, width: int) -> list[Example]:
    step_x, step_y = width + SAMPLES_PADDING, height + SAMPLES_PADDING
    if picture.width != 3 * step_x + SAMPLES_PADDING or (picture.height - SAMPLES_PADDING) % step_y:
        return []
    rows = []
    for top in range(SAMPLES_PADDING, picture.height, step_y):
        lefts = [SAMPLES_PADDING + column * step_x for column in range(3)]
        rows.append(Example(*(picture.crop((left, top, left + width, top + height)) for left in lefts)))
    return rows


def _side(side: dict[str, Any]) -> str:
    mode = str(side.get("mode", "?"))
    kind = {"rgb": "RGB", "rgba": "RGBA", "labels": "classes"}.get(mode, mode)
    return f"{side.get('bit_depth', 8)}-bit {kind}"
