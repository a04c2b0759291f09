"""What the page shows of an export before its networks are loaded: read from its small files, without PyTorch."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from pix2pix_hub.ui.limits import Limits, check_picture
from pix2pix_hub.util import UserError

CARD, CURVES, METRICS, SAMPLES = "README.md", "curves.png", "metrics.json", "samples.png"
PREPROCESSOR = "preprocessor_config.json"
SHOWN_FILES = (CARD, CURVES, METRICS, SAMPLES, PREPROCESSOR)
EXPORT_FOLDERS = ("model", "model_best")  # of a run
SAMPLES_PADDING = 2  # white pixels between the pictures of samples.png
MAX_PALETTE, MAX_NAME, MAX_CARD, MAX_SIDE = 64, 40, 100_000, 4096
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
        """A side of `preprocessor_config.json`. Raises what a file that is not as it should be raises."""
        classes = tuple(int(value) for value in values.get("classes", ()))
        if not all(0 <= value <= 255 for value in classes):
            raise ValueError(f"classes {classes}")
        if classes:  # the order of classes counts, not that of frequency
            named = {tuple(entry["color"]): entry.get("name") for entry in values.get("palette", ())}
            colors = [tuple(color) for color in values.get("colors", ())] or _distinct_colors(len(classes))
            if len(colors) != len(classes):
                raise ValueError(f"{len(colors)} colors of {len(classes)} classes")
            paints = _paints([{"color": color, "name": named.get(color)} for color in colors])
        else:
            paints = _paints(values.get("palette", ()))
        return cls(str(values["mode"]), int(values.get("bit_depth", 8)), paints, classes)

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
            config = json.loads(path.read_text())
            self.height, self.width = (int(side) for side in config["image_size"])
            self.source, self.target = Side.from_dict(config["source"]), Side.from_dict(config["target"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{PREPROCESSOR} of the model {name} is not as an export has it ({error!r}).") from error
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise UserError(f"{PREPROCESSOR} of the model {name} says {self.height}x{self.width} pixels.")

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

    @cached_property
    def samples(self) -> Image.Image | None:
        """`samples.png`: rows of source | generated | target of validation pairs."""
        return _picture(self.folder / SAMPLES)

    @cached_property
    def curves(self) -> Image.Image | None:
        """Its training curves: in the export, or in the run that it is of."""
        run = self.folder.parent if self.folder.name in EXPORT_FOLDERS else self.folder
        return _picture(self.folder / CURVES) or _picture(run / CURVES)

    def summary(self) -> str:
        """One line: what it takes and makes."""
        sizes = f"trained at {self.width}x{self.height} pixels"
        return f"{self.source.describe()} → {self.target.describe()}, {sizes}"


def _picture(path: Path) -> Image.Image | None:
    """RGB; None where there is none that can be shown, which is no reason not to use the model."""
    try:
        check_picture(path, path.name, Limits())
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (UserError, OSError, SyntaxError):
        return None


def _paints(entries: Sequence[dict[str, Any]]) -> tuple[Paint, ...]:
    """Of a `palette`."""
    paints = []
    for entry in entries[:MAX_PALETTE]:
        red, green, blue = (int(part) for part in entry["color"])
        if not all(0 <= part <= 255 for part in (red, green, blue)):
            raise ValueError(f"color {entry['color']}")
        paints.append(Paint((red, green, blue), str(entry.get("name") or hex_color((red, green, blue)))[:MAX_NAME]))
    return tuple(paints)


def _distinct_colors(count: int) -> list[Color]:
    """Those that `samples.png` shows classes without colours in."""
    from pix2pix_hub.images import distinct_colors  # brings PyTorch with it

    return distinct_colors(count)


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
