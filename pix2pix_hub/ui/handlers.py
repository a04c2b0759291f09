"""The work behind the page and its endpoints: pictures and names in, pictures and numbers out.

Every error that a person can mend is a `UserError` whose text names files as the person does.
"""

from __future__ import annotations

import base64
import io
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pix2pix_hub.export import HALVES
from pix2pix_hub.image.format import PixelFormat, displayed, tensor_to_pil, to_model_range, to_tensor
from pix2pix_hub.image.palette import Color
from pix2pix_hub.image.read import FORMATS, Decoded, from_memory, open_image, read_image, refuse_too_large
from pix2pix_hub.image.tiff import directories
from pix2pix_hub.image.write import encode, suffix_for
from pix2pix_hub.inference.pipeline import Pix2PixPipeline, Prepared, prepare
from pix2pix_hub.metrics import ImageMetrics
from pix2pix_hub.ui.models import free_name, paints
from pix2pix_hub.ui.store import Deadline, Limits, ModelStore
from pix2pix_hub.util import UserError, counted

READ_FORMATS = tuple(kind for kind in FORMATS if kind != "GIF")
MAX_SEED = 2**31 - 1
MAX_STEM = 60  # characters of a file name that are kept
MIN_MEASURED = 11  # pixels: the window of SSIM
TRANSLATED = "translated"
PHOTO, PAIR = "My picture is a photo", "My picture is a pair"  # what the page offers to tick and to choose
ON_THE_PAGE = {half: f'choose "{half} half" at "{PAIR}"' for half in HALVES} | {"make_source": f'tick "{PHOTO}"'}
DATA_URL = "data:image/png;base64,"
MAX_DRAWING_SIDE = 4096  # pixels
SHOWN_SIDE = 1024  # pixels of the longer side of what the page shows
SMALL_SIDE = 512  # smaller pictures are enlarged to this by whole factors
EXACT = 24  # a drawn colour this near to one of the palette (in each channel) is that one
REAL, FAKE = (0, 114, 178), (213, 94, 0)  # blue and vermilion: told apart by everybody
HEAT_OPACITY = 0.6

Report = Callable[[int, int], object]
"""Called with (done, total)."""
Ready = tuple[Decoded, Prepared]
"""A picture as it is stored, and made ready for the model."""


class Handlers:
    """The functions behind the page and its endpoints.

    Args:
        store: the models, and the limits of each request.
        files: folder in which each request's results get a new one; whoever serves them deletes them.
    """

    def __init__(self, store: ModelStore, files: Path) -> None:
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
        make_source: bool = False,
        half: str | None = None,
        report: Report | None = None,
    ) -> tuple[Path, list[Image.Image], str]:
        """Translate one picture of any size; with `stochastic` into several variants, the same for the same seed.

        With `make_source` it is a photo, of which the source is made first; with `half`, one of `HALVES`, it is a pair.

        Returns:
            The result in the source's size and depth, variants in a zip.
            Source and results as the page shows them.
            The size, the seed of variants, and what is odd about the picture, in words.
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
        deadline = Deadline(self.limits, report)
        ready = self._ready(deadline, model, picture, make_source=make_source, half=half)
        with ready as (pipeline, ((source, prepared),)):
            made = pipeline(prepared, output_type="decoded", progress=deadline.check, **options)
            remark = pipeline.remark(prepared, picture.name, ON_THE_PAGE)
        results = made if isinstance(made, list) else [made]
        height, width = source.size
        said = f"{width}x{height} pixels" + (f", seed {seed}" if stochastic else "") + (f". {remark}" if remark else "")
        stem = safe_stem(picture.name)
        if len(results) == 1:
            file = self.save(results[0], stem)
        else:
            file = self._new_folder() / f"{stem}.zip"
            with zipfile.ZipFile(file, "w") as archive:  # stored: pictures are compressed
                for number, result in enumerate(results, 1):
                    archive.writestr(*encoded(result, f"{stem}_{number}"))
        pixels = pipeline.preprocessor
        return file, [shown(source, pixels.source, exact=True), *(shown(each, pixels.target) for each in results)], said

    def draw(self, drawing: Path | Image.Image | None, model: str | None) -> Decoded:
        """The model's picture of a drawing of any size, at the size trained at."""
        if drawing is None:
            raise UserError("there is no drawing yet.")
        deadline = Deadline(self.limits)
        if isinstance(drawing, Path):
            check_picture(drawing, drawing.name, self.limits)
            drawing = self._read(drawing, deadline).eight_bit()
        info = self.store.info(model)
        source = as_stored(drawing, info.source, (info.width, info.height))
        with self._ready(deadline, model, source) as (pipeline, ((_, prepared),)):
            return pipeline(prepared, output_type="decoded", progress=deadline.check)

    def preview(self, picture: Path | None, model: str | None) -> str:
        """A small PNG of a TIFF, which browsers do not show, as a data URL; empty for other files."""
        if picture is None or picture.suffix.lower() not in (".tif", ".tiff"):
            return ""
        check_picture(picture, picture.name, self.limits)
        small = shown(self._read(picture, Deadline(self.limits)), self.store.info(model).source, exact=True)
        small.thumbnail((SMALL_SIDE, SMALL_SIDE))
        return encode_drawing(small)

    def example(self, number: int, model: str | None) -> tuple[Decoded, Decoded]:
        """Source and target of a validation pair of the model, the first being 0, as it takes them."""
        info = self.store.info(model)
        if number not in range(len(info.examples)):
            raise UserError(f"there is no example {number}: the model has {len(info.examples)}.")
        example, size = info.examples[number], (info.width, info.height)
        return as_stored(example.source, info.source, size), as_stored(example.target, info.target, size)

    def example_file(self, number: int, model: str | None, *, generated: bool = False) -> Path:
        """The source of a validation pair in a file, named after the model; `generated`: what the model made of it."""
        stem = f"{safe_stem(self.store.check(model))}_example_{number + 1}"
        source, _ = self.example(number, model)
        made = self.store.info(model).examples[number].generated
        return self.save(from_memory(made, stem) if generated else source, stem)

    def compare(
        self, source: Path | Decoded | None, target: Path | Decoded | None, model: str | None
    ) -> tuple[Image.Image, Image.Image, Image.Image, Image.Image | None, dict[str, float]]:
        """Measure the model's picture of `source` against the true `target`.

        Returns:
            Source, generated and target as the page shows them.
            The realism of the generated, laid over it; None where the export has no discriminator.
            l1 in [0, 1], psnr in dB, ssim; realism of generated and target in [0, 1].
        """
        if source is None or target is None:
            raise UserError("a comparison needs two pictures: a source, and the target that belongs to it.")
        deadline = Deadline(self.limits)
        with self._ready(deadline, model, source, target) as (pipeline, ((decoded, prepared), (_, wanted))):
            generated = pipeline(prepared, output_type="torch", progress=deadline.check)
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
            sides = pipeline.preprocessor.source, (kind := pipeline.preprocessor.target)
            made, truth = (shown(tensor_to_pil(displayed(side, kind))) for side in (generated, true))
        heat = heat_map(made, realism[0]) if realism else None
        return shown(decoded, sides[0], exact=True), made, truth, heat, metrics

    def batch(
        self, pictures: Sequence[Path], model: str | None, report: Report | None = None
    ) -> tuple[Path | None, list[tuple[Image.Image, str]], list[tuple[str, str]]]:
        """Translate many files: those that cannot be translated are listed, the others are not held up by them.

        Returns:
            A zip; None where every file failed.
            The results as the page shows them, with their names.
            Each file's name, and what is wrong with it, or `TRANSLATED` and what is odd about it.
        """
        if not pictures:
            raise UserError("there are no files yet: choose some pictures.")
        if len(pictures) > self.limits.max_files:
            raise UserError(f"{len(pictures)} files came; at most {self.limits.max_files} are taken at once.")
        self.store.check(model)
        deadline, file = Deadline(self.limits), self._new_folder() / "translated.zip"
        previews: dict[str, tuple[Image.Image, str]] = {}  # by stem
        outcomes: list[tuple[str, str]] = []
        with zipfile.ZipFile(file, "w") as archive:
            for number, picture in enumerate(pictures, 1):
                try:
                    with self._ready(deadline, model, picture) as (pipeline, ((_, prepared),)):
                        result = pipeline(prepared, output_type="decoded", progress=deadline.check)
                    stem = free_name(safe_stem(picture.name), previews, "{}_{}")
                    name, content = encoded(result, stem)
                    archive.writestr(name, content)
                    previews[stem] = shown(result, pipeline.preprocessor.target), name
                    remark = pipeline.remark(prepared, picture.name, ON_THE_PAGE)
                    outcomes.append((picture.name, f"{TRANSLATED}, but {remark}" if remark else TRANSLATED))
                except UserError as error:
                    outcomes.append((picture.name, str(error)))
                if report is not None:
                    report(number, len(pictures))
        return file if previews else None, list(previews.values()), outcomes

    def save(self, result: Decoded, stem: str) -> Path:
        """Write a result to a file of its own, which is returned."""
        name, content = encoded(result, stem)
        (file := self._new_folder() / name).write_bytes(content)
        return file

    def _new_folder(self) -> Path:
        (folder := self.files / secrets.token_hex(16)).mkdir(parents=True)
        return folder

    @contextmanager
    def _ready(
        self,
        deadline: Deadline,
        model: str | None,
        *pictures: Path | Decoded,
        make_source: bool = False,
        half: str | None = None,
    ) -> Iterator[tuple[Pix2PixPipeline, list[Ready]]]:
        """The model, and the pictures, a source and perhaps a target, made ready for it.

        Args:
            deadline: of the request.
            model: its name.
            *pictures: uploads, which are checked before anything else is done, or what the app made itself.
            make_source: the first is a photo, in whose place comes the source that is made of it.
            half: of the first, which comes in its place; None: the whole.
        """
        for picture in pictures:
            if isinstance(picture, Path):
                check_picture(picture, picture.name, self.limits)
        with self.store.use(model, deadline) as pipeline:
            deadline.check()
            decoded = [self._read(each, deadline) if isinstance(each, Path) else each for each in pictures]
            names = [each.name if isinstance(each, Path) else "the example" for each in pictures]
            if half is not None:
                decoded[0] = decoded[0].half(half, names[0])
            if make_source:
                with self._one_at_a_time(deadline):
                    decoded[0] = pipeline.make_source(decoded[0], "the photo")
            formats = pipeline.preprocessor.source, pipeline.preprocessor.target
            ready = map(prepare, decoded, formats, names)
            yield pipeline, list(zip(decoded, ready, strict=True))

    def _read(self, picture: Path, deadline: Deadline) -> Decoded:
        """An upload that `check_picture` let pass, decoded."""
        with self._one_at_a_time(deadline):
            return read_image(picture, picture.name)

    @contextmanager
    def _one_at_a_time(self, deadline: Deadline) -> Iterator[None]:
        """Wait until no other picture of this app is decoded, or made a source of: so memory is bounded."""
        if not self._decoding.acquire(timeout=deadline.seconds_left):
            raise UserError(f"other pictures were read for {counted(deadline.max_seconds, 'second')}: try again later.")
        try:
            yield
        finally:
            self._decoding.release()
        deadline.check()


def check_picture(path: Path, name: str, limits: Limits) -> None:
    """Refuse a file that is too large, or no picture, by its size and header alone.

    What passes is decoded in a few seconds, to at most 8 bytes a pixel (16-bit RGBA): 128 MB by default.

    Args:
        path: the file.
        name: what errors call it.
        limits: the bounds.

    Raises:
        UserError: more bytes or pixels than the limits allow, or none of `READ_FORMATS`.
    """
    size = path.stat().st_size
    if size > limits.max_upload_mb * 1e6:
        raise UserError(f"{name} has {size / 1e6:.1f} MB; at most {limits.max_upload_mb} MB are taken here.")
    most = limits.max_megapixels * 1e6
    data = path.read_bytes()
    image = open_image(data, name, formats=READ_FORMATS, max_pixels=most)
    if image.format == "TIFF":  # whose pages are all read
        refuse_too_large(image.height * len(directories(data, name)), image.width, name, max_pixels=most)


# --- drawings, colours ---


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
    """A picture → a PNG data URL, which is the drawing board's value."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return DATA_URL + base64.b64encode(buffer.getvalue()).decode()


def as_stored(picture: Image.Image, side: PixelFormat, size: tuple[int, int]) -> Decoded:
    """A picture → as a side's images are stored: in their colours only, where they are classes as a palette image.

    Args:
        picture: a drawing, or one of `samples.png`.
        side: source or target of a model.
        size: width and height to give it.
    """
    colors = np.array([paint.color for paint in paints(side)], np.uint8)
    picture = picture.convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.NEAREST if len(colors) else Image.Resampling.LANCZOS)
    if not len(colors):
        return from_memory(picture, "the drawing")
    nearest = nearest_paints(np.asarray(picture), colors)
    if not side.classes:
        return Decoded(colors[nearest], "rgb")
    values, palette = np.array(side.classes[: len(colors)], np.uint8), np.zeros((256, 3), np.uint8)
    palette[values] = colors
    return Decoded(values[nearest][:, :, None], "rgb", palette)


def nearest_paints(pixels: NDArray[np.uint8], palette: Sequence[Color] | NDArray[np.uint8]) -> NDArray[np.int16]:
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


# --- results ---


def shown(picture: Decoded | Image.Image, side: PixelFormat | None = None, *, exact: bool = False) -> Image.Image:
    """Any picture → an 8-bit RGB one for the page, neither tiny nor huge; `exact` keeps colours as they are.

    Where a range of values was chosen for the model's `side`, of which the picture is, that is what is seen of it.
    """
    if isinstance(picture, Decoded) and side is not None and side.clip and str(picture.values.dtype) == side.dtype:
        picture = tensor_to_pil(displayed(to_model_range(to_tensor(picture, side, "the picture"), side), side))
    small = picture.eight_bit() if isinstance(picture, Decoded) else picture.convert("RGB")
    longer = max(small.size)
    if longer > SHOWN_SIDE:
        small.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    elif longer * 2 <= SMALL_SIDE:
        factor = SMALL_SIDE // longer
        method = Image.Resampling.NEAREST if exact else Image.Resampling.BICUBIC
        small = small.resize((small.width * factor, small.height * factor), method)
    return small


def heat_map(picture: Image.Image, realism: NDArray[np.float32]) -> Image.Image:
    """Lay `(h, w)` in [0, 1] over an RGB picture: blue where it looks real, vermilion where it looks made."""
    weight = Image.fromarray(realism.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    real = np.clip(np.asarray(weight), 0.0, 1.0)[:, :, None]
    tint = real * np.array(REAL) + (1.0 - real) * np.array(FAKE)
    opacity = HEAT_OPACITY * np.abs(2.0 * real - 1.0)  # undecided: the picture itself
    blended = (1.0 - opacity) * np.asarray(picture) + opacity * tint
    return Image.fromarray(blended.round().astype(np.uint8))


def safe_stem(name: str) -> str:
    """A file's name without its suffix, and without anything that means something to a file system."""
    return re.sub(r"[^\w-]+", "_", Path(name).stem)[:MAX_STEM].strip("_") or "image"


def encoded(result: Decoded, stem: str) -> tuple[str, bytes]:
    """Name and content of the file for a result at its full depth: PNG where PNG can hold it, else TIFF."""
    name = f"{stem}{(suffix := suffix_for(result))}"
    return name, encode(result, name, suffix)
