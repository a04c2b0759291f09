"""What the page shows of an export before its networks are loaded: read from its small files, without PyTorch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from pix2pix_hub.image.read import open_image
from pix2pix_hub.ui.limits import Limits, check_picture
from pix2pix_hub.util import UserError, is_own_file, read_object

CARD, CURVES, METRICS, SAMPLES = "README.md", "curves.png", "metrics.json", "samples.png"
PREPROCESSOR = "preprocessor_config.json"
SHOWN_FILES = (CARD, CURVES, METRICS, SAMPLES, PREPROCESSOR)
EXPORT_FOLDERS = ("model", "model_best")  # of a run
SAMPLES_PADDING = 2  # white pixels between the pictures of samples.png
MAX_PALETTE, MAX_CLASSES, MAX_NAME, MAX_CARD, MAX_SIDE, MAX_ROWS = 64, 256, 40, 100_000, 4096, 100
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
        if len(classes) > MAX_CLASSES or not all(0 <= value <= 255 for value in classes):
            raise ValueError(f"{len(classes)} classes, expected at most {MAX_CLASSES} from 0 to 255")
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
        if not self._has(PREPROCESSOR):
            raise UserError(f"the model {name} has no {PREPROCESSOR}: expected an export (a run's model/).")
        try:
            config = read_object(folder / PREPROCESSOR)
            self.height, self.width = (int(side) for side in config["image_size"])
            self.source, self.target = Side.from_dict(config["source"]), Side.from_dict(config["target"])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            reason = str(error) if isinstance(error, UserError) else repr(error)[:200]
            reason = reason.replace(f"{folder}/", "")  # where it lies is nobody's business
            raise UserError(f"{PREPROCESSOR} of the model {name} is not as an export has it ({reason}).") from error
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise UserError(f"{PREPROCESSOR} of the model {name} says {self.height}x{self.width} pixels.")

    def _has(self, name: str) -> bool:
        """Whether the export has a file of its own of that name: what a link leads to is not shown to anybody."""
        return (self.folder / name).is_file() and is_own_file(self.folder / name, self.folder)

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
        if not self._has(CARD):
            return ""
        with (self.folder / CARD).open("rb") as file:
            text = file.read(MAX_CARD).decode(errors="replace")
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        # none of these looks further than the next bracket of its kind: linear, whatever the text
        text = re.sub(r"!\[[^][]*\]\([^()]*\)|<img[^<>]*>", "", text)
        return text.replace("![", "[").strip()

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Name → value of the numbers in `metrics.json`, the first `MAX_ROWS`; none where it is damaged."""
        try:
            content = read_object(self.folder / METRICS) if self._has(METRICS) else {}
        except UserError:
            return {}
        values = {name: entry.get("value") if isinstance(entry, dict) else entry for name, entry in content.items()}
        numbers = {name[:MAX_NAME]: value for name, value in values.items() if isinstance(value, int | float)}
        return dict(list(numbers.items())[:MAX_ROWS])

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
        if not is_own_file(path, path.parent):
            return None
        check_picture(path, path.name, Limits())
        return open_image(path.read_bytes(), path.name, formats=("PNG",)).convert("RGB")
    except Exception:  # damaged pictures raise almost anything
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
