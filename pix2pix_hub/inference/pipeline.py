"""One line to translate an image: `Pix2PixPipeline.from_pretrained("user/pix2pix-maps")(image)`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pix2pix_hub.export import (
    CONFIG_NAME,
    DISCRIMINATOR,
    DISCRIMINATOR_FILES,
    GENERATOR_FILES,
    PREPROCESSOR_NAME,
    Preprocessor,
    export_of,
)
from pix2pix_hub.inference.compiled import CompiledGenerator
from pix2pix_hub.inference.hardware import (
    check_dtype,
    choose_device,
    choose_dtype,
    fitting_batch,
    memory_format,
)
from pix2pix_hub.inference.inputs import AnyImage, Prepared, output_format, prepare
from pix2pix_hub.inference.job import Job
from pix2pix_hub.inference.padding import padded_axes, padded_axis
from pix2pix_hub.inference.results import Canvas, Kind, name_of
from pix2pix_hub.inference.splits import split_for
from pix2pix_hub.inference.tiling import TILE_SIZE, check_tile_size, translate_in_tiles
from pix2pix_hub.models import PatchGANDiscriminator, load_generator
from pix2pix_hub.models.base import Generator
from pix2pix_hub.models.discriminator import MINIMUM_SIZE
from pix2pix_hub.models.dropout import Seed, SeededDropout, content_seed, dropout_layers
from pix2pix_hub.models.fetch import fetch_files
from pix2pix_hub.util import UserError

Progress = Callable[[int, int], object]


class Pix2PixPipeline:
    """A trained model, from any image to the image it makes of it.

    Every image is translated at its own size: reflected at its borders up to the next size that the generator takes,
    and cropped back. Build one with `from_pretrained`.

    Attributes:
        generator: the network, in evaluation mode, on `device` and in `dtype`.
        preprocessor: how images are read and stored: `source` and `target` (`PixelFormat`), `image_size`, …
        folder: where the export's files lie.
    """

    def __init__(
        self,
        generator: Generator,
        preprocessor: Preprocessor,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        compile: bool | str = False,
    ) -> None:
        self.generator = generator.to(device, dtype).to(memory_format=memory_format(device, dtype)).eval()
        self._compiled = CompiledGenerator(self.generator, background=compile == "background") if compile else None
        self._lock = Lock()  # dropout and statistics are put into the network for the time of a call
        self.preprocessor, self.folder, self.device, self.dtype = preprocessor, folder, device, dtype
        for side, wanted in (("source", generator.in_channels), ("target", generator.out_channels)):
            described = getattr(preprocessor, side)
            if described.channels != wanted:
                raise UserError(
                    f"{folder / PREPROCESSOR_NAME} says {described.describe()} for the {side}, but the generator of "
                    f"{CONFIG_NAME} has {wanted} channels there: the files belong to different models."
                )

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder_or_run: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = "auto",
        compile: bool | str = False,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Pix2PixPipeline:
        """Load a model.

        Args:
            repo_or_folder_or_run: an export, a run's folder (its `model/` is taken), or a Hub id (`user/name`,
                `user/name@revision`).
            revision, token, cache_dir, local_files_only: as in `huggingface_hub`.
            device: "auto" (the accelerator where there is one, else the CPU), or a torch device.
            dtype: what to compute in: "float32" (also None), "bf16", "fp16", a torch dtype, or "auto": bf16 or fp16
                where the device has units for it and the model makes 8-bit images, else float32.
            compile: True: `torch.compile`, for each size and batch size that comes; its first batch waits for that,
                some ten seconds. "background": meanwhile the network answers as it is. Not for tiles and `stochastic`.

        Raises:
            UserError: nothing there, or no export; a device or dtype that is none; no compiler.
        """
        place = choose_device(device)
        check_dtype(dtype)
        if compile not in (False, True, "background"):
            raise UserError(f"compile is {compile!r}; expected True, False or 'background'.")
        folder = fetch_files(
            export_of(repo_or_folder_or_run),
            GENERATOR_FILES + DISCRIMINATOR_FILES,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        preprocessor = Preprocessor.from_folder(folder)
        number_type = choose_dtype(dtype, place, preprocessor.target)
        generator = load_generator(folder, map_location=str(place), dtype=number_type)
        return cls(generator, preprocessor, folder, place, number_type, compile)

    def __repr__(self) -> str:
        pixels, parameters = self.preprocessor, sum(values.numel() for values in self.generator.parameters())
        network = f"{type(self.generator).__name__} of {parameters:,} parameters"
        formats = f"{pixels.source.describe()} → {pixels.target.describe()}"
        size = "{}x{} (height x width)".format(*pixels.image_size)
        place = f"{self.device}, {str(self.dtype).removeprefix('torch.')}"
        return f"{type(self).__name__}({str(self.folder)!r}: {network}, {formats}, trained at {size}, {place})"

    @cached_property
    def discriminator(self) -> PatchGANDiscriminator | None:
        """The network that judges pairs, loaded when it is first asked for; None where the export has none."""
        if not (self.folder / DISCRIMINATOR / CONFIG_NAME).is_file():
            return None
        network = PatchGANDiscriminator.from_pretrained(self.folder, subfolder=DISCRIMINATOR)
        return network.to(self.device).eval()

    def __call__(
        self,
        images: AnyImage | Sequence[AnyImage],
        *,
        output_type: str | None = None,
        stochastic: bool = False,
        seed: int | None = None,
        num_samples: int = 1,
        batch_size: int | None = None,
        tile_size: int = TILE_SIZE,
        progress: Progress | None = None,
    ) -> Any:
        """Translate one image, a list of them, or a batch.

        The same input gives bitwise the same output at every call with the same options on one machine, and with other
        batch sizes the same within 1e-5 of the range [-1, 1] (in float32; kernels sum in another order).

        Args:
            images: PIL image (EXIF orientation is applied), path, array `(H, W)` or `(H, W, C)` of uint8, uint16 or
                floats in [0, 1], tensor `(C, H, W)` or `(N, C, H, W)` of floats in [-1, 1] or of stored values; or a
                list of those. Of a model trained on floats, arrays hold values as stored.
            output_type: "pil", "numpy" or "torch"; None: the kind that came. A path gives a PIL image, and where
                Pillow has no mode (16-bit colours, many channels) an array.
            stochastic: leave dropout on, as the paper did; all else stays in evaluation mode.
            seed: of the dropout, a non-negative integer; None draws one. What a seed gives depends on the image and
                the sample's number, not on what else is translated with it.
            num_samples: variants of each image, with `stochastic`.
            batch_size: images of one size that are run together; None: 1 on a CPU, else up to 32, by the memory of
                the device.
            tile_size: height or width in pixels beyond which an image is made in tiles of that size. The result is
                that of the whole, within 1e-4 (see `inference/tiling.py`).
            progress: called with (done, total): images, and of large ones tiles.

        Returns:
            An image of the size (upright) and kind of the one that came; a list for a list; a batch `(N, C, H, W)` for
            a batch. With `num_samples` > 1 a list of variants in place of each image. Pixels are stored as the target
            images of training were; but where the input has another depth than the source images had, in the
            input's depth.

        Raises:
            UserError: an image that does not fit the model, options that do not go together.
        """
        check_tile_size(tile_size)
        self._check_sampling(stochastic, seed, num_samples, batch_size)
        several = isinstance(images, list | tuple) or (isinstance(images, Tensor) and images.ndim == 4)
        given: Sequence[Any] = images if several else [images]  # type: ignore[assignment]
        if stochastic and seed is None:
            seed = int(torch.randint(2**62, ()))
        jobs: list[Job] = []
        for number, image in enumerate(given, 1):
            kind = Kind.of(image).overridden(output_type)
            prepared = prepare(image, self.preprocessor.source, name_of(image, number, len(given)))
            seeds: list[Seed | None] = [None]
            if seed is not None:
                seeds = [(seed, content_seed(prepared.stored), sample) for sample in range(num_samples)]
            jobs += self._jobs(prepared, kind, seeds, tile_size)
        self._run(jobs, batch_size, progress)
        made = [job.canvas.finish() for job in jobs]
        if num_samples > 1:
            made = [made[at : at + num_samples] for at in range(0, len(made), num_samples)]
        if isinstance(images, Tensor) and several and num_samples == 1 and output_type in (None, "torch"):
            return torch.stack(made) if made else images.new_empty(0, self.generator.out_channels, *images.shape[2:])
        return made if several else made[0]

    def realism(self, source: AnyImage, image: AnyImage) -> NDArray[np.float32]:
        """How real each patch of `image` looks as the translation of `source`: float32 `(h, w)` in [0, 1].

        Both are images of one size and any kind, as in a call; `image` is the generated or a true one.

        Raises:
            UserError: the export has no discriminator; two sizes; an image that does not fit.
        """
        if self.discriminator is None:
            raise UserError(
                f"{self.folder} holds no {DISCRIMINATOR}/, which realism needs: export it with the generator."
            )
        pair = [
            prepare(source, self.preprocessor.source, "source"),
            prepare(image, self.preprocessor.target, "image"),
        ]
        if pair[0].size != pair[1].size:
            sizes = " and ".join("{}x{}".format(*side.size) for side in pair)
            raise UserError(f"source and image are {sizes} (height x width); expected one size.")
        rows, columns = (padded_axis(size, 1, MINIMUM_SIZE) for size in pair[0].size)
        batch = torch.cat([side.piece(rows.index, columns.index) for side in pair])[None]
        with torch.inference_mode():
            return self.discriminator.probabilities(batch.to(self.device))[0, 0].float().cpu().numpy()

    def _check_sampling(self, stochastic: bool, seed: int | None, num_samples: int, batch_size: int | None) -> None:
        if not stochastic and (seed is not None or num_samples != 1):
            raise UserError("seed and num_samples are for stochastic=True: without dropout every sample is the same.")
        if stochastic and not dropout_layers(self.generator):
            raise UserError("stochastic=True needs a generator with dropout; this one has none. Leave it out.")
        if num_samples < 1 or (seed is not None and seed < 0) or (batch_size is not None and batch_size < 1):
            raise UserError(
                f"num_samples {num_samples}, seed {seed}, batch_size {batch_size}: expected 1 or more samples and "
                "images a batch, and a seed from 0."
            )

    def _jobs(self, image: Prepared, kind: Kind, seeds: Sequence[Seed | None], tile_size: int) -> Iterator[Job]:
        """What is to be made of one image: one job for each sample."""
        rows, columns = padded_axes(image.size, self.generator)
        network = split_for(self.generator, rows.padded, columns.padded) if max(image.size) > tile_size else None
        stored = output_format(image.depth, self.preprocessor.target)
        for seed in seeds:
            canvas = Canvas(image.size, self.generator.out_channels, stored, kind)
            yield Job(image, rows, columns, canvas, seed, network, tile_size)

    def _run(self, jobs: Sequence[Job], batch_size: int | None, progress: Progress | None) -> None:
        """Fill all canvases: images of one size in batches, large ones tile by tile."""
        total, done = sum(job.steps for job in jobs), 0

        def step(count: int = 1) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        with self._lock, torch.inference_mode(), kernels:
            for batch in _batches(jobs, lambda size: batch_size or fitting_batch(self.generator, *size)):
                seeds = [job.seed for job in batch if job.seed is not None]
                first = batch[0]
                with SeededDropout(self.generator, seeds) if seeds else nullcontext() as dropout:
                    if first.network is None:
                        self._whole(batch)
                        step(len(batch))
                    else:
                        translate_in_tiles(first, first.network, self._to_device, dropout, step)

    def _whole(self, jobs: Sequence[Job]) -> None:
        pieces = [job.image.piece(job.rows.index, job.columns.index) for job in jobs]
        plain = self._compiled is None or jobs[0].seed is not None  # which hooks in
        network = self.generator if plain else self._compiled
        assert network is not None
        made = network(self._to_device(torch.stack(pieces))).float().cpu()
        for job, image in zip(jobs, made, strict=True):
            job.canvas.place(-job.rows.before, -job.columns.before, image)

    def _to_device(self, batch: Tensor) -> Tensor:
        return batch.to(self.device, self.dtype, memory_format=memory_format(self.device, self.dtype))


def _batches(jobs: Sequence[Job], batch_size: Callable[[tuple[int, int]], int]) -> Iterator[list[Job]]:
    """Jobs of one padded size, up to so many; large ones by themselves."""
    groups: dict[tuple[int, ...], list[Job]] = defaultdict(list)
    for number, job in enumerate(jobs):
        groups[job.size if job.network is None else (*job.size, number)].append(job)
    for group in groups.values():
        together = batch_size(group[0].size)
        for at in range(0, len(group), together):
            yield group[at : at + together]
