"""What the page and its endpoints do, without the page: pictures and names in, pictures and numbers out.

Every error that a person can mend is a `UserError` whose text names files as the person does.
"""

from __future__ import annotations

import re
import secrets
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any

from PIL import Image

from pix2pix_hub.ui.limits import Deadline, Limits, check_picture
from pix2pix_hub.ui.models import ModelStore
from pix2pix_hub.ui.pictures import Picture, as_stored, heat_map, save_result, shown
from pix2pix_hub.util import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from pix2pix_hub.image.format import PixelFormat
    from pix2pix_hub.image.read import Decoded
    from pix2pix_hub.inference.pipeline import Pix2PixPipeline, Prepared

MAX_SEED = 2**31 - 1
MAX_STEM = 60  # characters of a file name that are kept
MIN_MEASURED = 11  # pixels: the window of SSIM
TRANSLATED = "translated"

Report = Callable[[int, int], object]
"""Called with (done, total)."""


@dataclass(frozen=True, eq=False)
class Translation:
    """What the model made of one picture."""

    source: Image.Image  # as the page shows it
    results: list[Image.Image]  # as the page shows them: one, or as many as variants were asked for
    file: Path  # the same in the input's size and depth; variants in a zip
    size: tuple[int, int]  # width and height of the file's pictures
    seed: int | None  # of the variants


@dataclass(frozen=True, eq=False)
class Comparison:
    """A generated picture beside the true one."""

    source: Image.Image
    generated: Image.Image
    target: Image.Image
    heat: Image.Image | None  # None where the export has no discriminator
    metrics: dict[str, float]  # l1 in [0, 1], psnr in dB, ssim; realism of both pictures, in [0, 1]


@dataclass(frozen=True, eq=False)
class Batch:
    """What became of many files."""

    archive: Path | None  # a zip; None where every file failed
    pictures: list[tuple[Image.Image, str]]  # as the page shows them, with their names
    outcomes: list[tuple[str, str]]  # each file's name, and TRANSLATED or what is wrong with it


class Handlers:
    """The functions behind the page and its endpoints.

    Args:
        store: the models.
        limits: of each request.
        files: gives a new folder for each request's results; whoever serves them deletes them.
    """

    def __init__(self, store: ModelStore, limits: Limits, files: Callable[[], Path]) -> None:
        self.store, self.limits, self.files = store, limits, files
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
    ) -> Translation:
        """One picture of any size; with `stochastic` several variants of it, the same for the same seed."""
        if picture is None:
            raise UserError("there is no picture yet: upload one, or take an example.")
        if not 1 <= variants <= self.limits.max_variants:
            raise UserError(f"{variants} variants were asked for; from 1 to {self.limits.max_variants} are made.")
        seed = _checked_seed(seed) if stochastic else None
        check_picture(picture, picture.name, self.limits)
        options: dict[str, Any] = {"stochastic": True, "seed": seed, "num_samples": variants} if stochastic else {}
        deadline = Deadline(self.limits)
        with self._pipeline(model, report, deadline) as (pipeline, options["progress"]):
            source = self._read(picture, deadline)
            made = pipeline(_prepared(source, pipeline.preprocessor.source, picture.name), **options)
        results = made if isinstance(made, list) else [made]
        file = _saved(results, self.files(), _safe_stem(picture.name))
        return Translation(
            shown(source.picture(), exact=True), [shown(each) for each in results], file, _size(results[0]), seed
        )

    def draw(self, drawing: Image.Image | None, model: str | None) -> Picture:
        """A drawing of any size → the model's picture of it, at the size trained at."""
        if drawing is None:
            raise UserError("there is no drawing yet.")
        export = self.store.export(model)
        source = as_stored(drawing, export.source, (export.width, export.height))
        with self._pipeline(model, None, Deadline(self.limits)) as (pipeline, progress):
            return pipeline(source, progress=progress)

    def draw_file(self, drawing: Path | None, model: str | None) -> Path:
        """The same from file to file."""
        if drawing is None:
            raise UserError("there is no drawing yet.")
        check_picture(drawing, drawing.name, self.limits)
        from pix2pix_hub.image.read import eight_bit

        made = self.draw(eight_bit(self._read(drawing, Deadline(self.limits)).picture()), model)
        return save_result(made, self.files(), _safe_stem(drawing.name))

    def compare(self, source: Path | None, target: Path | None, model: str | None) -> Comparison:
        """The model's picture of `source` beside the true `target`, measured."""
        if source is None or target is None:
            raise UserError("a comparison needs two pictures: a source, and the target that belongs to it.")
        for side in (source, target):
            check_picture(side, side.name, self.limits)
        return self._compared(source, target, model)

    def example(self, number: int, model: str | None) -> tuple[Picture, Picture]:
        """Source and target of a validation pair of the export, the first being 0, as the model takes them."""
        export = self.store.export(model)
        if number not in range(len(export.examples)):
            raise UserError(f"there is no example {number}: the model has {len(export.examples)}.")
        example, size = export.examples[number], (export.width, export.height)
        return as_stored(example.source, export.source, size), as_stored(example.target, export.target, size)

    def compare_example(self, number: int, model: str | None) -> Comparison:
        """`compare` for a validation pair of the export."""
        return self._compared(*self.example(number, model), model)

    def _compared(self, source: Path | Picture, target: Path | Picture, model: str | None) -> Comparison:
        import torch

        deadline = Deadline(self.limits)
        with self._pipeline(model, None, deadline) as (pipeline, progress):
            sides = [self._read(side, deadline) for side in (source, target)]
            names = [side.name if isinstance(side, Path) else "the example" for side in (source, target)]
            formats = pipeline.preprocessor.source, pipeline.preprocessor.target
            prepared, wanted = (_prepared(*side) for side in zip(sides, formats, names, strict=True))
            generated = pipeline(prepared, output_type="torch", progress=progress)
            true = wanted.piece(*map(torch.arange, wanted.size))
            if generated.shape != true.shape:
                sizes = " and ".join(f"{image.shape[2]}x{image.shape[1]}" for image in (generated, true))
                raise UserError(f"source and target are {sizes} pixels; expected one size.")
            metrics, realism = _measured(generated, true), []
            if pipeline.discriminator is not None:
                realism = [pipeline.realism(prepared, side) for side in (generated, true)]
                metrics |= {"realism": float(realism[0].mean()), "realism_target": float(realism[1].mean())}
            made, truth = (_displayed(side, pipeline) for side in (generated, true))
        heat = heat_map(made, realism[0]) if realism else None
        return Comparison(shown(sides[0].picture(), exact=True), made, truth, heat, metrics)

    def batch(self, pictures: Sequence[Path], model: str | None, report: Report | None = None) -> Batch:
        """Many files: those that cannot be translated are listed, the others are not held up by them."""
        if not pictures:
            raise UserError("there are no files yet: choose some pictures.")
        if len(pictures) > self.limits.max_files:
            raise UserError(f"{len(pictures)} files came; at most {self.limits.max_files} are taken at once.")
        self.store.check(model)
        deadline = Deadline(self.limits)
        made: list[Path] = []
        previews: list[tuple[Image.Image, str]] = []
        outcomes: list[tuple[str, str]] = []
        with TemporaryDirectory() as folder:
            for number, picture in enumerate(pictures, 1):
                try:
                    check_picture(picture, picture.name, self.limits)
                    with self._pipeline(model, None, deadline) as (pipeline, progress):
                        source = self._read(picture, deadline)
                        result = pipeline(
                            _prepared(source, pipeline.preprocessor.source, picture.name), progress=progress
                        )
                    made.append(save_result(result, Path(folder), _free_stem(picture.name, made)))
                    previews.append((shown(result), made[-1].name))
                    outcomes.append((picture.name, TRANSLATED))
                except UserError as error:
                    outcomes.append((picture.name, str(error)))
                if report is not None:
                    report(number, len(pictures))
            return Batch(_zipped(made, self.files() / "translated.zip") if made else None, previews, outcomes)

    def _read(self, picture: Path | Picture, deadline: Deadline) -> Decoded:
        """An upload that `check_picture` let pass, decoded: one at a time in this app, so that memory is bounded."""
        from pix2pix_hub.image.read import from_memory, read_image

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

    @contextmanager
    def _pipeline(
        self, model: str | None, report: Report | None, deadline: Deadline
    ) -> Iterator[tuple[Pix2PixPipeline, Report]]:
        """The model, and what to call between its steps."""

        def progress(done: int, total: int) -> None:
            deadline.check()
            if report is not None:
                report(done, total)

        with self.store.use(model, deadline) as pipeline:
            deadline.check()
            yield pipeline, progress


def _checked_seed(seed: int | None) -> int:
    """The seed, or one drawn where none is given."""
    if seed is None:
        return secrets.randbelow(MAX_SEED)
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed is {seed}; expected a whole number from 0 to {MAX_SEED}.")
    return int(seed)


def _prepared(image: Decoded, format: PixelFormat, name: str) -> Prepared:
    from pix2pix_hub.inference.pipeline import prepare  # brings PyTorch with it

    return prepare(image, format, name)


def _measured(generated: Tensor, true: Tensor) -> dict[str, float]:
    """L1, PSNR and SSIM of two `(C, H, W)` in [-1, 1]."""
    from pix2pix_hub.metrics import ImageMetrics

    if min(true.shape[1:]) < MIN_MEASURED:
        raise UserError(f"the pictures are too small to be compared: expected {MIN_MEASURED} pixels a side or more.")
    metrics = ImageMetrics()
    metrics.update(generated[None], true[None])
    return metrics.compute()


def _displayed(target: Tensor, pipeline: Pix2PixPipeline) -> Image.Image:
    """`(C, H, W)` in [-1, 1] → what the page shows."""
    from pix2pix_hub.image.format import displayed, tensor_to_pil

    return shown(tensor_to_pil(displayed(target, pipeline.preprocessor.target)))


def _size(picture: Picture) -> tuple[int, int]:
    """Width and height."""
    return picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])


def _safe_stem(name: str) -> str:
    """A file's name without its suffix and without anything that means something to a file system."""
    return re.sub(r"[^\w-]+", "_", Path(name).stem)[:MAX_STEM].strip("_") or "image"


def _free_stem(name: str, taken: Sequence[Path]) -> str:
    stem, stems = _safe_stem(name), {path.stem for path in taken}
    return next(each for each in (stem, *(f"{stem}_{number}" for number in range(2, 1000))) if each not in stems)


def _saved(results: Sequence[Picture], folder: Path, stem: str) -> Path:
    """One result as a picture, several in a zip."""
    if len(results) == 1:
        return save_result(results[0], folder, stem)
    with TemporaryDirectory() as aside:
        files = [save_result(result, Path(aside), f"{stem}_{number}") for number, result in enumerate(results, 1)]
        return _zipped(files, folder / f"{stem}.zip")


def _zipped(files: Sequence[Path], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
        for file in files:
            archive.write(file, file.name)
    return path
