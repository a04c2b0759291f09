"""The work behind the page and its endpoints: pictures and names in, pictures and numbers out.

Every error that a person can mend is a `UserError` whose text names files as the person does. Nothing here imports
PyTorch before the first request does.
"""

from __future__ import annotations

import base64
import io
import re
import secrets
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pix2pix_hub.image.read import Decoded, eight_bit, from_memory, read_image
from pix2pix_hub.image.write import encode, suffix_for
from pix2pix_hub.ui.exports import Color, Side
from pix2pix_hub.ui.limits import Deadline, check_picture
from pix2pix_hub.ui.models import ModelStore, free_name
from pix2pix_hub.util import UserError

if TYPE_CHECKING:
    from pix2pix_hub.inference.pipeline import Pix2PixPipeline, Prepared

MAX_SEED = 2**31 - 1
MAX_STEM = 60  # characters of a file name that are kept
MIN_MEASURED = 11  # pixels: the window of SSIM
TRANSLATED = "translated"
DATA_URL = "data:image/png;base64,"
MAX_DRAWING_SIDE = 4096  # pixels
SHOWN_SIDE = 1024  # pixels of the longer side of what the page shows
SMALL_SIDE = 512  # smaller pictures are enlarged to this by whole factors
EXACT = 24  # a drawn colour this near to one of the palette (in each channel) is that one
REAL, FAKE = (0, 114, 178), (213, 94, 0)  # blue and vermilion: told apart by everybody
HEAT_OPACITY = 0.6

Picture = Image.Image | NDArray[Any]
"""As the pipeline gives and takes it: an array `(H, W[, C])` where Pillow has no mode."""
Report = Callable[[int, int], object]
"""Called with (done, total)."""
Comparison = tuple[Image.Image, Image.Image, Image.Image, Image.Image | None, dict[str, float]]
"""Source, generated and target as the page shows them; the realism of the generated, None where the export has no
discriminator; l1 in [0, 1], psnr in dB, ssim, realism of generated and target in [0, 1]."""


class Handlers:
    """The functions behind the page and its endpoints.

    Args:
        store: the models, and the limits of each request.
        files: gives a new folder for each request's results; whoever serves them deletes them.
    """

    def __init__(self, store: ModelStore, files: Callable[[], Path]) -> None:
        self.store, self.limits, self.files = store, store.limits, files
        self._decoding = Lock()

    def translate(
        self,
        picture: Path | None,
        model: str | None,
        *,
        stochastic: bool = False,
        seed: int | None = None,
        variants: int = 1,
        report: Report | None = None,
    ) -> tuple[Path, list[Image.Image], str]:
        """Translate one picture of any size; with `stochastic` into several variants, the same for the same seed.

        Returns:
            The result in the input's size and depth, variants in a zip.
            Source and results as the page shows them.
            The size, and the seed of variants, in words.
        """
        if picture is None:
            raise UserError("there is no picture yet: upload one, or take an example.")
        if not 1 <= variants <= self.limits.max_variants:
            raise UserError(f"{variants} variants were asked for; from 1 to {self.limits.max_variants} are made.")
        options: dict[str, Any] = {}
        if stochastic:
            seed = secrets.randbelow(MAX_SEED) if seed is None else seed
            if not 0 <= seed <= MAX_SEED:
                raise UserError(f"seed is {seed}; expected a whole number from 0 to {MAX_SEED}.")
            options = {"stochastic": True, "seed": int(seed), "num_samples": variants}
        with self._pipeline(model, picture, report=report) as (pipeline, progress, ((source, prepared),)):
            made = pipeline(prepared, progress=progress, **options)
        results = made if isinstance(made, list) else [made]
        height, width = prepared.size
        said = f"{width}x{height} pixels" + (f", seed {seed}" if stochastic else "")
        folder, stem = self.files(), safe_stem(picture.name)
        if len(results) == 1:
            file = save_result(results[0], folder, stem)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(file := folder / f"{stem}.zip", "w") as archive:  # stored: pictures are compressed
                for number, result in enumerate(results, 1):
                    archive.writestr(*encoded(result, f"{stem}_{number}"))
        return file, [shown(source.picture(), exact=True), *map(shown, results)], said

    def draw(self, drawing: Path | Image.Image | None, model: str | None) -> Picture:
        """The model's picture of a drawing of any size, at the size trained at."""
        if drawing is None:
            raise UserError("there is no drawing yet.")
        deadline = Deadline(self.limits)
        if isinstance(drawing, Path):
            check_picture(drawing, drawing.name, self.limits)
            drawing = eight_bit(self._read(drawing, deadline).picture())
        export = self.store.export(model)
        source = as_stored(drawing, export.source, (export.width, export.height))
        with self._pipeline(model, source, deadline=deadline) as (pipeline, progress, ((_, prepared),)):
            return pipeline(prepared, progress=progress)

    def example(self, number: int, model: str | None) -> tuple[Picture, Picture]:
        """Source and target of a validation pair of the export, the first being 0, as the model takes them."""
        export = self.store.export(model)
        if number not in range(len(export.examples)):
            raise UserError(f"there is no example {number}: the model has {len(export.examples)}.")
        example, size = export.examples[number], (export.width, export.height)
        return as_stored(example.source, export.source, size), as_stored(example.target, export.target, size)

    def compare(self, source: Path | Picture | None, target: Path | Picture | None, model: str | None) -> Comparison:
        """Measure the model's picture of `source` against the true `target`."""
        if source is None or target is None:
            raise UserError("a comparison needs two pictures: a source, and the target that belongs to it.")
        from pix2pix_hub.image.format import displayed, tensor_to_pil
        from pix2pix_hub.metrics import ImageMetrics

        with self._pipeline(model, source, target) as (pipeline, progress, ((decoded, prepared), (_, wanted))):
            generated = pipeline(prepared, output_type="torch", progress=progress)
            true = wanted.piece()
            if generated.shape != true.shape:
                sizes = " and ".join(f"{image.shape[2]}x{image.shape[1]}" for image in (generated, true))
                raise UserError(f"source and target are {sizes} pixels; expected one size.")
            if min(wanted.size) < MIN_MEASURED:
                raise UserError(
                    f"the pictures are too small to be compared: expected {MIN_MEASURED} pixels a side or more."
                )
            measured = ImageMetrics()
            measured.update(generated[None], true[None])
            metrics, realism = measured.compute(), []
            if pipeline.discriminator is not None:
                realism = [pipeline.realism(prepared, side) for side in (generated, true)]
                metrics |= {"realism": float(realism[0].mean()), "realism_target": float(realism[1].mean())}
            kind = pipeline.preprocessor.target
            made, truth = (shown(tensor_to_pil(displayed(side, kind))) for side in (generated, true))
        heat = heat_map(made, realism[0]) if realism else None
        return shown(decoded.picture(), exact=True), made, truth, heat, metrics

    def batch(
        self, pictures: Sequence[Path], model: str | None, report: Report | None = None
    ) -> tuple[Path | None, list[tuple[Image.Image, str]], list[tuple[str, str]]]:
        """Translate many files: those that cannot be translated are listed, the others are not held up by them.

        Returns:
            A zip; None where every file failed.
            The results as the page shows them, with their names.
            Each file's name, and `TRANSLATED` or what is wrong with it.
        """
        if not pictures:
            raise UserError("there are no files yet: choose some pictures.")
        if len(pictures) > self.limits.max_files:
            raise UserError(f"{len(pictures)} files came; at most {self.limits.max_files} are taken at once.")
        self.store.check(model)
        deadline, file = Deadline(self.limits), self.files() / "translated.zip"
        previews: dict[str, tuple[Image.Image, str]] = {}  # by stem
        outcomes: list[tuple[str, str]] = []
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(file, "w") as archive:
            for number, picture in enumerate(pictures, 1):
                try:
                    with self._pipeline(model, picture, deadline=deadline) as (pipeline, progress, ((_, prepared),)):
                        result = pipeline(prepared, progress=progress)
                    stem = safe_stem(picture.name, previews)
                    name, content = encoded(result, stem)
                    archive.writestr(name, content)
                    previews[stem] = shown(result), name
                    outcomes.append((picture.name, TRANSLATED))
                except UserError as error:
                    outcomes.append((picture.name, str(error)))
                if report is not None:
                    report(number, len(pictures))
        return file if previews else None, list(previews.values()), outcomes

    @contextmanager
    def _pipeline(
        self,
        model: str | None,
        *pictures: Path | Picture,
        report: Report | None = None,
        deadline: Deadline | None = None,
    ) -> Iterator[tuple[Pix2PixPipeline, Report, list[tuple[Decoded, Prepared]]]]:
        """The model, what to call between its steps, and the pictures, a source and perhaps a target, made ready.

        Args:
            model: its name.
            *pictures: uploads, which are checked before anything else is done, or what the app made itself.
            report: called between the steps too.
            deadline: of the request; None: begins now.
        """
        for picture in pictures:
            if isinstance(picture, Path):
                check_picture(picture, picture.name, self.limits)
        limit = deadline or Deadline(self.limits)

        def progress(done: int, total: int) -> None:
            limit.check()
            if report is not None:
                report(done, total)

        with self.store.use(model, limit) as pipeline:
            limit.check()
            from pix2pix_hub.inference.pipeline import prepare

            decoded = [self._read(picture, limit) for picture in pictures]
            formats = pipeline.preprocessor.source, pipeline.preprocessor.target
            names = [picture.name if isinstance(picture, Path) else "the example" for picture in pictures]
            ready = [prepare(*each) for each in zip(decoded, formats, names, strict=False)]
            yield pipeline, progress, list(zip(decoded, ready, strict=True))

    def _read(self, picture: Path | Picture, deadline: Deadline) -> Decoded:
        """An upload that `check_picture` let pass, decoded: one at a time in this app, so that memory is bounded."""
        if not isinstance(picture, Path):
            return from_memory(picture, "the example")
        if not self._decoding.acquire(timeout=deadline.seconds_left):
            raise UserError(f"other pictures were read for {deadline.max_seconds:g} seconds: try again later.")
        try:
            decoded = read_image(picture, picture.name)
        finally:
            self._decoding.release()
        deadline.check()
        return decoded


# ------------------------------------------------------------------------------------------------- drawings, colours


def decode_drawing(data_url: Any) -> Image.Image:
    """The drawing board's value → an RGB picture.

    Raises:
        UserError: it is no PNG data URL of a reasonable size.
    """
    if not (isinstance(data_url, str) and data_url.startswith(DATA_URL)):
        raise UserError("the drawing came in a form that is not read here: expected a PNG data URL.")
    try:
        data = base64.b64decode(data_url.removeprefix(DATA_URL), validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if max(picture.size) > MAX_DRAWING_SIDE:
                raise UserError(f"the drawing has a side of over {MAX_DRAWING_SIDE} pixels.")
            return picture.convert("RGB")
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError("the drawing could not be read: it is damaged.") from error


def encode_drawing(picture: Image.Image) -> str:
    """The reverse."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return DATA_URL + base64.b64encode(buffer.getvalue()).decode()


def as_stored(picture: Image.Image, side: Side, size: tuple[int, int]) -> Picture:
    """An RGB picture → as a side's images are stored: in their colours only; where they are classes, `(H, W)` values.

    Args:
        picture: a drawing, or one of `samples.png`.
        side: source or target of an export.
        size: width and height to give it.
    """
    palette = [paint.color for paint in side.paints]
    picture = picture.convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.NEAREST if palette else Image.Resampling.LANCZOS)
    if not palette:
        return picture
    nearest = nearest_paints(np.asarray(picture), palette)
    if side.class_values:
        return np.array(side.class_values, np.uint8)[nearest]
    return Image.fromarray(np.array(palette, np.uint8)[nearest])


def in_colors(stored: Picture, side: Side) -> Image.Image:
    """`as_stored`'s answer as a file can hold it: values of classes as a palette image in the classes' colours."""
    if isinstance(stored, Image.Image):
        return stored
    picture, table = Image.fromarray(stored), [0] * 768
    for value, paint in zip(side.class_values, side.paints, strict=False):  # no more than MAX_PALETTE are painted with
        table[3 * value : 3 * value + 3] = paint.color
    picture.putpalette(table)
    return picture


def nearest_paints(pixels: NDArray[np.uint8], palette: Sequence[Color]) -> NDArray[np.int16]:
    """For each pixel of `(H, W, 3)` the number of its colour in the palette.

    Pixels that are near none, as on the smoothed borders of strokes, take the colour of the nearest pixel that is:
    between two colours there may lie a third, which nobody painted.
    """
    differences = np.abs(pixels[:, :, None].astype(np.int16) - np.array(palette, np.int16)).max(axis=3)  # (H, W, P)
    chosen = differences.argmin(axis=2).astype(np.int16)
    known = differences.min(axis=2) <= EXACT
    if known.any():
        chosen[~known] = -1
    while (chosen < 0).any():
        beside = np.pad(chosen, 1, constant_values=-1)
        for neighbour in (beside[:-2, 1:-1], beside[2:, 1:-1], beside[1:-1, :-2], beside[1:-1, 2:]):
            chosen = np.where(chosen < 0, neighbour, chosen)
    return chosen


# ------------------------------------------------------------------------------------------------- results


def shown(picture: Picture, *, exact: bool = False) -> Image.Image:
    """Any result → an 8-bit RGB picture for the page, neither tiny nor huge.

    Args:
        picture: a PIL image of any mode, or an array `(H, W[, C])` as the pipeline gives it.
        exact: keep colours where it is enlarged (label maps).
    """
    small = picture.copy() if isinstance(picture, Image.Image) and picture.mode == "RGB" else eight_bit(picture)
    longer = max(small.size)
    if longer > SHOWN_SIDE:
        small.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    elif longer * 2 <= SMALL_SIDE:
        factor = SMALL_SIDE // longer
        method = Image.Resampling.NEAREST if exact else Image.Resampling.BICUBIC
        small = small.resize((small.width * factor, small.height * factor), method)
    return small


def heat_map(picture: Image.Image, realism: NDArray[np.float32]) -> Image.Image:
    """Lay `(h, w)` in [0, 1] over a picture: blue where it looks real, vermilion where it looks made."""
    weight = Image.fromarray(realism.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    real = np.clip(np.asarray(weight), 0.0, 1.0)[:, :, None]
    tint = real * np.array(REAL) + (1.0 - real) * np.array(FAKE)
    opacity = HEAT_OPACITY * np.abs(2.0 * real - 1.0)  # undecided: the picture itself
    blended = (1.0 - opacity) * np.asarray(picture.convert("RGB")) + opacity * tint
    return Image.fromarray(blended.round().astype(np.uint8))


def safe_stem(name: str, taken: Collection[str] = ()) -> str:
    """A file's name without its suffix, without anything that means something to a file system, and not yet taken."""
    stem = re.sub(r"[^\w-]+", "_", Path(name).stem)[:MAX_STEM].strip("_") or "image"
    return free_name(stem, taken, "{}_{}")


def save_result(picture: Picture, folder: Path, stem: str) -> Path:
    """Write a result, as `encoded`, to a folder that need not be there. Returns the file."""
    name, content = encoded(picture, stem)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def encoded(picture: Picture, stem: str) -> tuple[str, bytes]:
    """Name and content of the file for a result at its full depth: PNG where PNG can hold it, else TIFF."""
    decoded = from_memory(picture, "the result", {1: "gray", 3: "rgb", 4: "rgba"})
    name = f"{stem}{(suffix := suffix_for(decoded))}"
    return name, encode(decoded, name, suffix)
