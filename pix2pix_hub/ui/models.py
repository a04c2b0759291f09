"""Which models the page offers, and what it shows of one before its networks are loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from pix2pix_hub.export import (
    CARD_NAME,
    CURVES_NAME,
    EXPORT_FOLDERS,
    METRICS_NAME,
    PREPROCESSOR_NAME,
    SAMPLES_NAME,
    TRAINING_CONFIG_NAME,
    Export,
    Preprocessor,
    export_in,
)
from pix2pix_hub.image.format import GRID_PADDING, TITLE_HEIGHT, PixelFormat, distinct_colors
from pix2pix_hub.image.palette import Color
from pix2pix_hub.image.read import open_image
from pix2pix_hub.util import UserError, is_own_file

SHIPPED, SHIPPED_DRAWING = (Path(__file__).parents[1] / "assets" / name for name in ("demo_model", "drawing_model"))
SHIPPED_MODELS = {"demo": SHIPPED, "drawing": SHIPPED_DRAWING}  # by the names that people know them by
REPOSITORY_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,250})?")  # @: a revision
SHOWN_FILES = (CARD_NAME, CURVES_NAME, METRICS_NAME, SAMPLES_NAME, PREPROCESSOR_NAME, TRAINING_CONFIG_NAME)
BLACK_AND_WHITE = [{"color": "#000000", "name": "black"}, {"color": "#ffffff", "name": "white"}]
LINE_PEN = 2  # pixels: as wide as the lines are that models of edges know
MAX_PALETTE, MAX_NAME, MAX_CARD, MAX_SIDE, MAX_ROWS = 64, 40, 100_000, 4096, 100
MAX_PICTURE_BYTES, MAX_PICTURE_PIXELS = 25e6, 16e6
THUMBNAIL = 64  # pixels
MADE = {  # kind of sources made from photos → what people call one
    "edges": "edges", "gray": "gray photo", "lowres": "small photo", "blur": "blurred photo", "noise": "noisy photo",
    "mask": "photo with holes", "palette": "photo of few colours",
}  # fmt: skip
# Names of columns and folders that say nothing of what is in them.
NAMELESS = re.compile(
    r"(source|target|input|output|conditioning|control|original|edited|before|after|image|[ _-])*[ab12]?|\w+ half"
)

Location = str | Path  # a Hub id, or the folder of an export


# --- which ---


def choose_models(asked: str | None = None, runs: Path = Path("runs")) -> dict[str, Location]:
    """Name → location of the models to offer. Names say nothing of where a folder lies.

    Args:
        asked: repository ids, folders or names of `SHIPPED_MODELS`, with commas between them; None: what
            `PIX2PIX_MODEL` says. Without either the newest export under `runs`, else `SHIPPED_MODELS`.
        runs: folder of runs.

    Raises:
        UserError: something that is neither a folder nor a repository id.
    """
    locations: list[Location] = []
    for place in ((os.environ.get("PIX2PIX_MODEL") if asked is None else asked) or "").split(","):
        place = place.strip()
        if place in SHIPPED_MODELS and not os.path.exists(place):
            locations.append(SHIPPED_MODELS[place])
        elif os.path.isdir(folder := Path(place)) and place:
            locations.append(export_in(folder) or export_in(folder, best=True) or folder)
        elif REPOSITORY_ID.fullmatch(place):
            locations.append(place)
        elif place:
            raise UserError(
                f"model {place!r} is neither a folder nor a repository id: expected an export, user/name, or one of "
                f"the package's own: {', '.join(SHIPPED_MODELS)}."
            )
    if not locations:
        files = [path for folder in EXPORT_FOLDERS for path in runs.glob(f"*/{folder}/{PREPROCESSOR_NAME}")]
        if not files:
            return dict(SHIPPED_MODELS)
        locations = [max(files, key=lambda file: (file.stat().st_mtime, file.parent.name == "model")).parent]
    models: dict[str, Location] = {}
    for location in locations:
        shipped = {folder: name for name, folder in SHIPPED_MODELS.items()}
        name = shipped.get(Path(location)) or (location if isinstance(location, str) else location.resolve().name)
        if isinstance(location, Path) and name in EXPORT_FOLDERS:
            name = location.resolve().parent.name
        models[free_name(name, models)] = location
    return models


def free_name(name: str, taken: Collection[str], form: str = "{} ({})") -> str:
    """The name, numbered where it is taken."""
    names = [name, *(form.format(name, number) for number in range(2, len(taken) + 2))]
    return next(each for each in names if each not in taken)


# --- what is shown of one ---


class Example(NamedTuple):
    """A validation pair with what the model made of it, each an RGB picture of the size trained at."""

    source: Image.Image
    generated: Image.Image
    target: Image.Image


class ModelInfo:
    """A model as the page shows it: read from the small files of its export, which may be anybody's.

    Args:
        folder: where the files lie.
        name: what people call the model.

    Raises:
        UserError: `preprocessor_config.json` is missing, or not as an export has it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self._export = name, Export(folder)
        if not self._export.has(PREPROCESSOR_NAME):
            raise UserError(f"the model {name} has no {PREPROCESSOR_NAME}: expected an export (a run's model/).")
        try:
            pixels = Preprocessor.from_folder(folder)
        except UserError as error:
            reason = str(error).replace(f"{folder}/", "")  # where it lies is nobody's business
            raise UserError(f"{PREPROCESSOR_NAME} of the model {name} cannot be used: {reason}") from error
        self.source, self.target, (self.height, self.width) = pixels.source, pixels.target, pixels.image_size
        self.maker = pixels.maker  # how sources are made from photos; None: they are not
        self.half = pixels.half  # of the pairs side by side that it was trained on, the source's; None: on others
        if max(self.height, self.width) > MAX_SIDE:
            raise UserError(f"{PREPROCESSOR_NAME} of the model {name} says {self.height}x{self.width} pixels.")

    @cached_property
    def examples(self) -> list[Example]:
        """The rows of `samples.png`; none where it is missing or of another shape."""
        step_x, step_y = self.width + GRID_PADDING, self.height + GRID_PADDING
        if self.samples is None or self.samples.width != 3 * step_x + GRID_PADDING:
            return []
        count, above = divmod(self.samples.height - GRID_PADDING, step_y)
        if above not in (0, TITLE_HEIGHT) or count > MAX_ROWS:  # grids of earlier versions have no titles
            return []
        lefts = [GRID_PADDING + column * step_x for column in range(3)]
        tops = [above + GRID_PADDING + row * step_y for row in range(count)]
        crop, width, height = self.samples.crop, self.width, self.height
        return [Example(*(crop((left, top, left + width, top + height)) for left in lefts)) for top in tops]

    @cached_property
    def task(self) -> str:
        """What it makes of what: "label → photo", by the names that the training pairs had."""
        if self.maker is not None:
            return f"{MADE[self.maker.kind]} → photo"
        try:
            run = self._export.run if self._export.has(TRAINING_CONFIG_NAME) else {}
            names = [str(name)[:MAX_NAME] for name in run["dataset"]["sides"]]
        except (UserError, KeyError, TypeError):
            names = []
        if len(names) != 2:
            names = ["", ""]
        sides = zip(names, (self.source, self.target), strict=True)
        return " → ".join(kind_of(side) if NAMELESS.fullmatch(name.lower()) else name for name, side in sides)

    @cached_property
    def thumbnail(self) -> Image.Image | None:
        """What it makes of what, small: an example's source and the generated image, side by side."""
        if not self.examples:
            return None
        both = Image.new("RGB", (2 * THUMBNAIL, THUMBNAIL))
        for column, picture in enumerate(self.examples[0][:2]):
            both.paste(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), (column * THUMBNAIL, 0))
        return both

    @cached_property
    def card(self) -> str:
        """The model card's text, without its metadata block, its pictures with captions and its metrics, which are
        shown beside it; empty where there is none."""
        if not self._export.has(CARD_NAME):
            return ""
        with (self._export.folder / CARD_NAME).open("rb") as file:
            text = file.read(MAX_CARD).decode(errors="replace")
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        # none of these looks further than the next bracket of its kind: linear, whatever the text
        text = re.sub(r"!\[[^][]*\]\([^()]*\)(\n\n\*[^*\n]*\*$)?|<img[^<>]*>", "", text, flags=re.MULTILINE)
        text = re.sub(r"^## Metrics\n(?:(?!## ).*\n)*", "", text, flags=re.MULTILINE)
        return text.replace("![", "[").strip()

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Name → value of the numbers in `metrics.json`, the first `MAX_ROWS`; none where it is damaged."""
        try:
            content = self._export.metrics if self._export.has(METRICS_NAME) else {}
        except UserError:
            return {}
        values = {name: entry.get("value") if isinstance(entry, dict) else entry for name, entry in content.items()}
        found = {name[:MAX_NAME]: value for name, value in values.items() if isinstance(value, int | float)}
        return dict(list(found.items())[:MAX_ROWS])

    @cached_property
    def samples(self) -> Image.Image | None:
        """`samples.png`: rows of source | generated | target of validation pairs."""
        return _picture(self._export.folder / SAMPLES_NAME)

    @cached_property
    def curves(self) -> list[Image.Image]:
        """Its training curves, in the export or in the run that it is of: each panel, which are 4:3, by itself."""
        folder = self._export.folder
        run = folder.parent if folder.name in EXPORT_FOLDERS else folder
        picture = _picture(folder / CURVES_NAME) or _picture(run / CURVES_NAME)
        if picture is None:
            return []
        width, height = picture.height * 4 // 3, picture.height
        lefts = range(0, picture.width, max(1, width))[:MAX_ROWS]
        return [picture.crop((left, 0, min(left + width, picture.width), height)) for left in lefts]

    def summary(self) -> str:
        """One line: what it takes and makes."""
        trained = "trained on crops of" if self._export.pixels["resize"] == "native" else "trained at"
        sizes = f"{trained} {self.width}x{self.height} pixels"
        return f"{self.source.describe()} → {self.target.describe()}, {sizes}"


def _picture(path: Path) -> Image.Image | None:
    """RGB; None where there is none that can be shown, which is no reason not to use the model."""
    try:
        if not is_own_file(path, path.parent) or path.stat().st_size > MAX_PICTURE_BYTES:
            return None
        data = path.read_bytes()
        return open_image(data, path.name, formats=("PNG",), max_pixels=MAX_PICTURE_PIXELS).convert("RGB")
    except Exception:  # damaged pictures raise almost anything
        return None


class Paint(NamedTuple):
    """One of the few colours that a model's images hold."""

    color: Color
    name: str  # of its class, else the colour in hexadecimal


def kind_of(side: PixelFormat) -> str:
    """What people call the images of a side whose name says nothing."""
    if side.classes or len(side.palette) > 2:
        return "label map"
    return "drawing" if side.palette else f"{side.channels}-channel image" if side.mode == "channels" else "image"


def paints(side: PixelFormat) -> list[Paint]:
    """List the colours of a side: classes in their order, others the most frequent first; none for photos."""
    names = {entry.color: entry.name for entry in side.palette}
    colors = list((side.colors or distinct_colors(len(side.classes))) if side.classes else names)
    return [Paint(color, str(names.get(color) or hex_color(color))[:MAX_NAME]) for color in colors[:MAX_PALETTE]]


def hex_color(color: Color) -> str:
    """ "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def draws_lines(info: ModelInfo) -> bool:
    """Whether its sources are of two colours that have no names, as drawings are."""
    return len(info.source.palette) == 2 and not any(entry.name for entry in info.source.palette)


def board_setup(info: ModelInfo) -> dict[str, Any]:
    """Describe the drawing board (`canvas/`) for a model: size, pen, and colours, the first of them its background."""
    colors = [{"color": hex_color(paint.color), "name": paint.name} for paint in paints(info.source)]
    lines = draws_lines(info)
    if lines:
        colors = [entry | {"name": name} for entry, name in zip(colors, ("paper", "pen"), strict=True)]
    return {
        "model": info.name,
        "width": info.width,
        "height": info.height,
        "pen": LINE_PEN if lines else None,
        "background": colors[0]["color"] if colors else "#ffffff",  # the most frequent one
        "colors": colors or BLACK_AND_WHITE,
        "free": not colors,  # any colour may be drawn with
    }
