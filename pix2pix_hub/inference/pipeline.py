"""One line to translate an image: `Pix2PixPipeline.from_pretrained("user/pix2pix-maps")(image)`."""

from __future__ import annotations

import base64
import copy
import html
import io
import logging
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from http.client import HTTPException
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Self
from urllib.request import Request, urlopen

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pix2pix_hub.devices import accelerated_precision, missing_for_compilation
from pix2pix_hub.export import (
    DISCRIMINATOR,
    DISCRIMINATOR_FILES,
    GENERATOR_FILES,
    HALVES,
    SAMPLES_NAME,
    Export,
    Preprocessor,
    export_of,
)
from pix2pix_hub.image.format import PixelFormat, from_model_range, to_model_range, to_tensor, to_unit_range
from pix2pix_hub.image.maker import make_pair
from pix2pix_hub.image.palette import MOST_OTHERS, class_colors, color_sample, share_of_others
from pix2pix_hub.image.read import FULL_SCALE, KINDS, PICTURE_KINDS, PICTURE_MODES, Decoded, from_memory, read_image
from pix2pix_hub.inference.tiling import LEAST_TILE, TILE_SIZE, Journal, Partition, partition_for, translate_in_tiles
from pix2pix_hub.models import PatchGANDiscriminator, load_generator
from pix2pix_hub.models.base import Generator, Seed, SeededDropout, dropout_layers
from pix2pix_hub.models.discriminator import MINIMUM_SIZE
from pix2pix_hub.models.fetch import fetch_files
from pix2pix_hub.util import UserError, __version__, is_own_file

logger = logging.getLogger(__name__)

DTYPES: dict[str | torch.dtype | None, torch.dtype] = {
    None: torch.float32, "float32": torch.float32, "bf16": torch.bfloat16, "bfloat16": torch.bfloat16,
    "fp16": torch.float16, "float16": torch.float16,
}  # fmt: skip
LARGEST_BATCH = 32  # images, where nobody says how many
MEMORY_SHARE = 1 / 8  # of an accelerator's memory, that a batch may take
FULL_SIZE_MAPS = 6  # of `base_channels` channels, in memory at the same time for one image, generously
MOST_SHAPES = 4  # that are compiled; each holds a copy of the weights
LEAST_SIDE = 8  # pixels: what is smaller may be channels
ASPECT_TOLERANCE = 0.02  # of the width
TOLERANCE = 1e-3  # how far floats may leave their range: rounding of whatever made them
NO_MAKER = (
    "make_source is for models trained on pairs that `pix2pix-hub data make` made of photos, and this is none: give it "
    "sources."
)
IN_PYTHON = {half: f"translate its {half} half alone" for half in HALVES} | {
    "make_source": "make a source of it first: make_source=True"
}  # of a `remark`
OUTPUT_TYPES = ("pil", "numpy", "torch", "decoded")
NOTEBOOK_SIZE = (512, 1024)  # pixels, at most, of the samples that a notebook keeps
MAX_DOWNLOAD_BYTES, DOWNLOAD_SECONDS = 2**28, 30  # of one image; to wait for an answer

# ------------------------------------------------------------------------------------------------------ images in


@dataclass(frozen=True, eq=False)
class Prepared:
    """One image that fits a network, not yet in its value range: that is done piece by piece, to save memory."""

    stored: Tensor  # (…, C, H, W) of stored values; without a format, of the network's channels in [-1, 1]
    format: PixelFormat | None
    depth: str | None  # "uint8", "uint16", "float32" where that is not the depth of the images trained on
    padding: tuple[Tensor, Tensor] | None = None  # for each row and column, once padded, the stored one that it shows

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, without padding."""
        return self.stored.shape[-2], self.stored.shape[-1]

    def padded(self, multiple: int, least: int) -> Self:
        """In the middle of the next size of such multiples, at least `least`: reflected as far as there are pixels, the
        border repeated beyond."""

        def places(size: int) -> Tensor:
            padded = max(-(-size // multiple) * multiple, least)
            before = (padded - size) // 2
            reached = torch.arange(-before, padded - before)
            return torch.where(reached < size, reached.abs(), 2 * (size - 1) - reached).clamp(0, size - 1)

        return replace(self, padding=(places(self.size[0]), places(self.size[1])))

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width, with padding where there is any."""
        return self.size if self.padding is None else (len(self.padding[0]), len(self.padding[1]))

    def piece(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """A part of the (padded) image: float32 `(…, C, h, w)` in [-1, 1], computed where the stored values are."""
        if self.padding is None:
            pixels = self.stored[..., rows, columns]
        else:
            down, across = (places.to(self.stored.device, non_blocking=True) for places in self.padding)
            pixels = self.stored[..., down[rows, None], across[columns]]
        return pixels if self.format is None else to_model_range(pixels, self.format)


AnyImage = Image.Image | str | Path | NDArray | Tensor | Decoded | Prepared


def prepare(image: AnyImage, format: PixelFormat, name: str) -> Prepared:
    """Fit one image to what training read, converting its colours as training did.

    Args:
        image: a PIL image, a path, an array `(H, W)` or `(H, W, C)`, a tensor `(C, H, W)`, what `read_image` gave, or
            what this made. Floats are in [0, 1] in arrays and in [-1, 1] in tensors; where `format` is of floats,
            arrays hold values as stored. Classes come as values or one-hot.
        format: of the images trained on.
        name: what errors call the image.

    Raises:
        UserError: says what came and what was expected.
    """
    kinds = KINDS
    if isinstance(image, Prepared):
        return image
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        if image.ndim != 3:
            raise UserError(f"{name} has shape {tuple(image.shape)}; expected (C, H, W) or a batch (N, C, H, W).")
        _check_layout(image, format, name)
        if image.is_floating_point():
            return _from_model_range(image.float(), format, name)
        image = image.permute(1, 2, 0).numpy()
    if isinstance(image, str | Path):
        image = read_image(Path(image), name)
    elif isinstance(image, np.ndarray):
        _check_layout(image, format, name)
        if format.mode == "labels" and image.shape[2:] == (format.channels,) != (1,):
            values = np.ascontiguousarray(image, np.float32)
            _check_range(values, 0.0, name)
            return Prepared(torch.from_numpy(values * 2.0 - 1.0).permute(2, 0, 1), None, None)
        kinds = {"labels": KINDS, "channels": {}}.get(format.mode, PICTURE_KINDS)
    elif not isinstance(image, Image.Image | Decoded):
        raise UserError(f"{name} is {type(image).__name__}; expected a PIL image, a path, an array or a tensor.")
    decoded = image if isinstance(image, Decoded) else from_memory(image, name, kinds)
    depth = str(decoded.values.dtype)
    if format.mode == "labels" or format.dtype in (depth, "float32"):
        return Prepared(to_tensor(decoded, format, name), format, None)
    if depth == "float32":
        _check_range(decoded.values, 0.0, name)
    scaled = with_depth(format, depth)  # values of one depth stand for those of another
    return Prepared(to_tensor(decoded, scaled, name), scaled, depth)


def download(address: str) -> Decoded:
    """The image at an http or https address.

    Raises:
        UserError: no such address, no answer, more than `MAX_DOWNLOAD_BYTES`, or no image.
    """
    try:
        request = Request(address, headers={"User-Agent": f"pix2pix_hub/{__version__}"})
        with urlopen(request, timeout=DOWNLOAD_SECONDS) as answer:
            data = answer.read(MAX_DOWNLOAD_BYTES + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise UserError(f"{address} could not be fetched ({error}): check it, or name a file.") from error
    if len(data) > MAX_DOWNLOAD_BYTES:
        raise UserError(f"{address} has more than {MAX_DOWNLOAD_BYTES >> 20} MB: download it, and name the file.")
    return read_image(data, address)


def _from_model_range(values: Tensor, format: PixelFormat, name: str) -> Prepared:
    """Floats `(C, H, W)` in [-1, 1], of the format's channels or a picture of others."""
    _check_range(values.numpy(), -1.0, name)
    if values.shape[0] == format.channels:
        return Prepared(values, None, None)
    if format.mode == "labels":
        raise UserError(f"{name} has {values.shape[0]} channels; expected {format.channels}, one for each class.")
    kinds = PICTURE_KINDS if format.mode in PICTURE_MODES else {}
    decoded = Decoded(to_unit_range(values).permute(1, 2, 0).numpy(), kinds.get(len(values), "channels"))
    floats = with_depth(format, "float32")
    return Prepared(to_tensor(decoded, floats, name), floats, None)


def _check_layout(image: NDArray | Tensor, format: PixelFormat, name: str) -> None:
    """Raise `UserError` where the channels are at the other end than such images have them."""
    axis, layout = 2, "arrays are (height, width, channels): give image.transpose(1, 2, 0), or a tensor (C, H, W)."
    if isinstance(image, Tensor):
        axis, layout = 0, "tensors are (channels, height, width): give image.permute(2, 0, 1), or an array (H, W, C)."
    shape = tuple(image.shape)
    fitting = {format.channels, *(range(1, 5) if format.mode in PICTURE_MODES else ())}
    if len(shape) != 3 or min(shape[1], shape[axis]) < LEAST_SIDE:
        return
    if shape[axis] not in fitting and shape[2 - axis] in fitting:
        raise UserError(f"{name} has shape {shape}; {layout}")


def _check_range(values: NDArray, low: float, name: str) -> None:
    if not values.size:
        raise UserError(f"{name} has no pixels.")
    smallest, largest = float(values.min()), float(values.max())
    if not (low - TOLERANCE <= smallest and largest <= 1.0 + TOLERANCE):  # so is NaN
        raise UserError(f"{name} holds floats from {smallest:g} to {largest:g}; expected them in [{low:g}, 1].")


def with_depth(format: PixelFormat, dtype: str) -> PixelFormat:
    """The same at another depth, of which all values are used."""
    return replace(format, dtype=dtype, low=0.0, high=FULL_SCALE[dtype], clip=False)


# ----------------------------------------------------------------------------------------------------- images out


class Canvas:
    """The generated image, allocated once in the dtype that it is handed on in.

    Args:
        image: what came; what is made of it is handed on likewise.
        prepared: the same, prepared: gives the size and, where it is another than that of training, the depth.
        channels: that the generator makes.
        target: how targets were stored: so are the pixels, but for the depth.
        output_type: one of `OUTPUT_TYPES`, or None: the kind that came.

    Raises:
        UserError: there is no such type.
    """

    def __init__(
        self, image: Any, prepared: Prepared, channels: int, target: PixelFormat, output_type: str | None
    ) -> None:
        if output_type not in (None, *OUTPUT_TYPES):
            raise UserError(f"output_type is {output_type!r}; expected one of {', '.join(OUTPUT_TYPES)}, or None.")
        came = "torch" if isinstance(image, Tensor) else "numpy" if isinstance(image, np.ndarray) else "pil"
        self.type = output_type or came
        keeps = prepared.depth is None or target.mode == "labels" or target.dtype == "float32"
        self.format = target if keeps else with_depth(target, str(prepared.depth))
        stored_tensor = isinstance(image, Tensor) and not image.is_floating_point()
        self.in_model_range = self.type == "torch" and not stored_tensor
        self.keeps_axis = isinstance(image, np.ndarray) and self.type == came and image.shape[2:] == (1,)
        planes = 1 if self.format.mode == "labels" and not self.in_model_range else channels
        self.shape = (planes, *prepared.size)
        sizes = zip(prepared.padded_size, prepared.size, strict=True)
        self._before = [(padded - size) // 2 for padded, size in sizes]

    @cached_property
    def pixels(self) -> Tensor:
        """`(C, H, W)`, filled by `put`."""
        return torch.empty(
            self.shape, dtype=torch.float32 if self.in_model_range else getattr(torch, self.format.dtype)
        )

    @property
    def alike(self) -> tuple[Any, ...]:
        """What is equal for canvases whose images can be handed on together."""
        return self.in_model_range, self.format, self.shape, self._before

    def values(self, made: Tensor) -> Tensor:
        """`(…, C, h, w)` in [-1, 1] as the canvas holds it, computed where it is, then brought to the CPU."""
        return (made.float() if self.in_model_range else from_model_range(made, self.format)).cpu()

    def place(self, top: int, left: int, values: Tensor) -> None:
        """Put `(C, h, w)` so that its corner is there in the padded image; what is padding is cut off."""
        top, left = top - self._before[0], left - self._before[1]
        height, width = self.shape[1:]
        rows = slice(max(0, top), max(0, min(height, top + values.shape[1])))
        columns = slice(max(0, left), max(0, min(width, left + values.shape[2])))
        inside = values[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        self.put(rows, columns, inside)

    def put(self, rows: slice, columns: slice, values: Tensor) -> None:
        """Take the pixels `(C, h, w)` of a part of the image, without padding."""
        self.pixels[:, rows, columns] = values

    def finish(self) -> Any:
        """The image, as it was asked for."""
        if self.type == "torch":
            return self.pixels
        values, stored = self.pixels.permute(1, 2, 0).contiguous().numpy(), self.format
        channels = values.shape[2]
        if self.type == "numpy":
            return values[:, :, 0] if channels == 1 and not self.keeps_axis else values
        any_picture = {1: "gray", 3: "rgb", 4: "rgba"} if stored.dtype == "uint8" else {}
        kind = stored.mode if stored.mode in PICTURE_MODES else any_picture.get(channels, "channels")
        decoded = Decoded(values, kind)
        if stored.mode == "labels" and stored.colors:
            palette = np.zeros((256, 3), np.uint8)
            palette[list(stored.classes)] = stored.colors
            decoded = Decoded(values, "rgb", palette)
        return decoded if self.type == "decoded" else decoded.picture()


# -------------------------------------------------------------------------------------------------------- hardware


def choose_device(device: str | torch.device) -> torch.device:
    """The device asked for; "auto": the accelerator where there is one, else the CPU.

    Raises:
        UserError: it cannot be used.
    """
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch raises the latter where it was built without CUDA
        raise UserError(f"device {str(device)!r} cannot be used ({str(error).splitlines()[0]}); try 'auto'.") from error


def check_dtype(dtype: str | torch.dtype | None) -> None:
    """Raise `UserError` for what is none of `DTYPES` and not "auto"."""
    if dtype not in ("auto", *DTYPES, *DTYPES.values()):
        raise UserError(f"dtype is {dtype!r}; expected auto, float32, bf16 or fp16.")


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device, target: PixelFormat) -> torch.dtype:
    """One of `DTYPES`; "auto": what `device` accelerates, if 8 bits are all that is wanted."""
    if dtype == "auto":
        dtype = {"no": "float32"}.get(found := accelerated_precision(device.type), found)
        dtype = dtype if target.dtype == "uint8" else "float32"  # bf16 has 8 significant bits
    return dtype if isinstance(dtype, torch.dtype) else DTYPES[dtype]


def fitting_batch(generator: Generator, height: int, width: int) -> int:
    """Images of a padded size that are run together: 1 on a CPU, where more gain little, else by the device's memory.

    By all of its memory, not what is free at the moment, so that every call sums in the same order.
    """
    weight = next(generator.parameters())
    if weight.device.type != "cuda":
        return 1 if weight.device.type == "cpu" else 8
    memory = torch.cuda.get_device_properties(weight.device).total_memory * MEMORY_SHARE
    of_one = FULL_SIZE_MAPS * generator.config["base_channels"] * height * width * weight.element_size()
    return max(1, min(LARGEST_BATCH, int(memory / of_one)))


def _recorded(network: Callable[[Tensor], Tensor], batch: Tensor) -> Callable[[Tensor], Tensor]:
    """`network` on such batches as a CUDA graph. Any thread may replay it; inductor's own graphs are one thread's."""
    source, graph = torch.zeros_like(batch), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made = network(source)

    def replay(batch: Tensor) -> Tensor:
        source.copy_(batch)
        graph.replay()
        return made.clone()

    return replay


class CompiledGenerator:
    """A generator compiled by `torch.compile`, `(N, C, H, W)` → `(N, C, H, W)`, the same within rounding.

    On a CPU inductor's freezing lays every weight out as the kernel for one shape reads it, which is most of the gain
    (docs/performance.md): so there is a graph for each of the first `MOST_SHAPES` shapes, with a copy of the weights,
    and its first batch waits some ten seconds. Further shapes go through the generator itself.

    Args:
        generator: in evaluation mode, on its device; not to be changed any more.

    Raises:
        UserError: nothing to compile with.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        device = next(generator.parameters()).device.type
        if (missing := missing_for_compilation(device)) is not None:
            raise UserError(f"compile: {missing}; or leave it out.")
        self._freezing = device == "cpu"
        shared = {id(tensor): tensor for tensor in (*generator.parameters(), *generator.buffers())}
        self._bare = copy.deepcopy(generator, shared)  # nothing that a call hangs on the other is traced
        self.graphs: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {}

    def __call__(self, batch: Tensor) -> Tensor:
        shape = tuple(batch.shape)
        if shape not in self.graphs and len(self.graphs) < MOST_SHAPES:
            from torch._inductor import config as inductor_config  # a second of imports that eager networks need not

            options: dict[str, Any] = {"freezing": True} if self._freezing else {}
            graph = torch.compile(self._bare, dynamic=False, fullgraph=True, options=options)
            # the tracer asks the configuration itself, not `options`, whether weights are constants: packing needs that
            with torch.inference_mode(), inductor_config.patch(freezing=self._freezing):
                graph(torch.zeros_like(batch))
                # on a GPU launches are what small batches cost most
                self.graphs[shape] = _recorded(graph, batch) if batch.is_cuda else graph
        return self.graphs.get(shape, self.generator)(batch)


# -------------------------------------------------------------------------------------------------------- pipeline


class _Job(NamedTuple):
    """One sample of one image."""

    image: Prepared  # padded
    canvas: Canvas  # where it is to be put
    seed: Seed | None  # of its dropout
    partition: Partition | None  # the generator in parts, where the image is to be cut into tiles
    steps: int  # units of progress: 1, or tiles times passes
    journal: Journal | None = None  # of an image in tiles, see `tiling.py`


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
        compile: bool = False,
    ) -> None:
        self._pointed_out = False
        self._lock = Lock()  # dropout and statistics are put into the network for the time of a call
        self.generator, self.preprocessor, self.folder = generator.eval(), preprocessor, folder
        self.device, self.dtype, self._compiles = device, dtype, compile
        preprocessor.check_channels(generator.in_channels, generator.out_channels, folder)
        self.to(device, dtype)

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder_or_run: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = "auto",
        compile: bool = False,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        torch_dtype: str | torch.dtype | None = None,
    ) -> Self:
        """Load a model.

        Args:
            repo_or_folder_or_run: an export, a run's folder (its `model/` is taken), or a Hub id (`user/name`,
                `user/name@revision`).
            revision, token, cache_dir, local_files_only: as in `huggingface_hub`.
            device: "auto" (the accelerator where there is one, else the CPU), or a torch device.
            dtype: what to compute in: "float32" (also None), "bf16", "fp16", a torch dtype, or "auto": bf16 or fp16
                where the device has units for it and the model makes 8-bit images, else float32.
            compile: True: `torch.compile`, for each size and batch size that comes; its first batch waits for that,
                some ten seconds. Not for tiles and `stochastic`.
            torch_dtype: another name of `dtype`, Diffusers' own.

        Raises:
            UserError: nothing there, or no export; a device or dtype that is none; two dtypes; no compiler.
        """
        place = choose_device(device)
        if torch_dtype is not None:
            if dtype != "auto":
                raise UserError(f"dtype is {dtype!r} and torch_dtype {torch_dtype!r}: give one of them.")
            dtype = torch_dtype
        check_dtype(dtype)
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

    def to(
        self, device: str | torch.device | torch.dtype | None = None, dtype: str | torch.dtype | None = None
    ) -> Self:
        """Move the networks to another device, or have them compute in other numbers.

        Args:
            device: as in `from_pretrained`; or a torch dtype, in place of `dtype`. None: it stays.
            dtype: as in `from_pretrained`, but None: it stays. What a shorter one has rounded stays rounded.

        Returns:
            The pipeline itself.

        Raises:
            UserError: a device or dtype that is none.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        place = self.device if device is None else choose_device(device)
        check_dtype(dtype)
        with self._lock:
            self.dtype = self.dtype if dtype is None else choose_dtype(dtype, place, self.preprocessor.target)
            self.device = place
            # channels last where convolutions are made for it: on a CPU they are not (docs/performance.md)
            self._layout = torch.contiguous_format if place.type == "cpu" else torch.channels_last
            self.generator = self.generator.to(place, self.dtype).to(memory_format=self._layout)
            self._compiled = CompiledGenerator(self.generator) if self._compiles else None
            if isinstance(judge := self.__dict__.get("discriminator"), PatchGANDiscriminator):
                judge.to(place)
        return self

    def _repr_html_(self) -> str:
        """What a notebook shows: the same as `repr`, and the export's samples where it has some."""
        shown, picture = f"<p>{html.escape(repr(self))}</p>", self.folder / SAMPLES_NAME
        if picture.is_file() and is_own_file(picture, self.folder):
            with suppress(UserError):  # it is damaged
                small, buffer = read_image(picture, SAMPLES_NAME).eight_bit(), io.BytesIO()
                small.thumbnail(NOTEBOOK_SIZE)
                small.save(buffer, format="WebP")
                data = base64.b64encode(buffer.getvalue()).decode()
                caption = "Validation pairs: source | generated | target"
                shown += f'<img src="data:image/webp;base64,{data}" alt="{caption}" title="{caption}">'
        return shown

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
        if not Export(self.folder).has_discriminator:
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
        make_source: bool = False,
        allow_download: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> Any:
        """Translate one image, a list of them, or a batch.

        The same input gives bitwise the same output at every call with the same options on one machine, and with other
        batch sizes the same within 1e-5 of the range [-1, 1] (in float32; kernels sum in another order).

        Args:
            images: PIL image (EXIF orientation is applied), path, array `(H, W)` or `(H, W, C)` of uint8, uint16 or
                floats in [0, 1], tensor `(C, H, W)` or `(N, C, H, W)` of floats in [-1, 1] or of stored values; or a
                list of those. Of a model trained on floats, arrays hold values as stored.
            output_type: "pil", "numpy", "torch" or "decoded" (`image.read.Decoded`, which `image.write` takes); None:
                the kind that came. A path gives a PIL image, and where Pillow has no mode (16-bit colours, many
                channels) an array.
            stochastic: leave dropout on, as the paper did; all else stays in evaluation mode.
            seed: of the dropout, a non-negative integer; None draws one. What a seed gives depends on the image and
                the sample's number, not on what else is translated with it.
            num_samples: variants of each image, with `stochastic`.
            batch_size: images of one size that are run together; None: 1 on a CPU, else up to 32, by the memory of
                the device.
            tile_size: height or width in pixels beyond which an image is made in tiles of that size. The result is
                that of the whole, within 1e-4 (see `inference/tiling.py`).
            make_source: the images are photos, of which sources are made first: see `make_source`.
            allow_download: fetch images that are named by an address (`https://…`), which are refused otherwise.
            progress: called with (done, total): images, and of large ones tiles.

        Returns:
            An image of the size (upright; of the source that was made) and kind of the one that came; a list for a
            list; a batch `(N, C, H, W)` for a batch. With `num_samples` > 1 a list of variants in place of each image.
            Pixels are stored as the target images of training were; but where the input has another depth than the
            source images had, in the input's depth.

        Raises:
            UserError: an image that does not fit the model, options that do not go together.
        """
        if tile_size < LEAST_TILE:
            raise UserError(f"tile_size is {tile_size}; expected {LEAST_TILE} pixels or more.")
        if not stochastic and (seed is not None or num_samples != 1):
            raise UserError("seed and num_samples are for stochastic=True: without dropout every sample is the same.")
        if stochastic and not dropout_layers(self.generator):
            raise UserError("stochastic=True needs a generator with dropout; this one has none. Leave it out.")
        for name, number, least in (("num_samples", num_samples, 1), ("seed", seed, 0), ("batch_size", batch_size, 1)):
            if number is not None and number < least:
                raise UserError(f"{name} is {number}; expected {least} or more.")
        if make_source and self.preprocessor.maker is None:
            raise UserError(NO_MAKER)
        several = isinstance(images, list | tuple) or (isinstance(images, Tensor) and images.ndim == 4)
        given: Sequence[Any] = images if several else [images]  # type: ignore[assignment]
        if stochastic and seed is None:
            seed = int(torch.randint(2**62, ()))
        jobs: list[_Job] = []
        for number, image in enumerate(given, 1):
            file = image if isinstance(image, str | Path) else getattr(image, "filename", "")
            name = str(file or ("the image" if len(given) == 1 else f"image {number}"))
            if isinstance(image, str) and re.match("https?://", image):
                if not allow_download:
                    raise UserError(
                        f"{image} is an address, and nothing is fetched unasked: pass allow_download=True, or download "
                        "it, and name the file."
                    )
                image = download(image)
            source = self.make_source(image, name) if make_source else image
            jobs += self._jobs(image, source, name, output_type, seed, num_samples, tile_size)
        self._run(jobs, batch_size, tile_size, progress)
        made = [job.canvas.finish() for job in jobs]
        if num_samples > 1:
            made = [made[at : at + num_samples] for at in range(0, len(made), num_samples)]
        if isinstance(images, Tensor) and several and num_samples == 1 and output_type in (None, "torch"):
            return torch.stack(made) if made else images.new_empty(0, self.generator.out_channels, *images.shape[2:])
        return made if several else made[0]

    def translate_large(
        self,
        image: Prepared,
        canvas: Canvas,
        *,
        tile_size: int = TILE_SIZE,
        seed: Seed | None = None,
        progress: Callable[[int, int], object] | None = None,
        journal: Journal | None = None,
    ) -> None:
        """Fill the canvas of one image in tiles, whatever its size. Both may be windows of files.

        Args:
            image: padded to what the generator takes.
            canvas: its.
            tile_size, progress: of a call.
            seed: of the dropout; None: without.
            journal: takes down what has been done.
        """
        partition = partition_for(self.generator, *image.padded_size)
        steps = partition.passes * len(partition.tiles(image.padded_size, tile_size))
        self._run([_Job(image, canvas, seed, partition, steps, journal)], 1, tile_size, progress)

    def realism(self, source: AnyImage, image: AnyImage) -> NDArray[np.float32]:
        """Rate how real each patch of `image` looks as the translation of `source`: float32 `(h, w)` in [0, 1].

        Both are images of one size and any kind, as in a call; `image` is the generated or a true one.

        Raises:
            UserError: the export has no discriminator; two sizes; an image that does not fit.
        """
        if self.discriminator is None:
            raise UserError(
                f"{self.folder} holds no {DISCRIMINATOR}/, which realism needs: export it with the generator."
            )
        formats = self.preprocessor.source, self.preprocessor.target
        pair = [prepare(source, formats[0], "source"), prepare(image, formats[1], "image")]
        if pair[0].size != pair[1].size:
            sizes = " and ".join("{}x{}".format(*side.size) for side in pair)
            raise UserError(f"source and image are {sizes} (height x width); expected one size.")
        batch = torch.cat([side.padded(1, MINIMUM_SIZE).piece() for side in pair])[None]
        with torch.inference_mode():
            return self.discriminator.probabilities(batch.to(self.device))[0, 0].float().cpu().numpy()

    def remark(self, image: Prepared, name: str, advice: Mapping[str, str] = IN_PYTHON) -> str | None:
        """What is odd about a source, in a sentence: a photo where label maps or drawings are expected, or one in
        other colours, or a whole pair where the model knows one side of it; None: nothing.

        Args:
            image: the source.
            name: what to call it.
            advice: a half of a pair ("left", "right"), or "make_source" → how to have that translated.
        """
        stored, (height, width), half = image.stored, image.size, self.preprocessor.half
        if half is not None and abs(width - 2 * height) <= ASPECT_TOLERANCE * width:
            return (
                f"{name} is twice as wide as high, as the side-by-side pairs are that this model was trained on: if it "
                f"is such a pair, {advice[half]}."
            )
        palette = image.format.palette if image.format is not None and image.format.mode in ("gray", "rgb") else ()
        if palette and stored.dtype == torch.uint8 and share_of_others(stored.numpy(), palette) > MOST_OTHERS:
            picture = Decoded(stored.expand(3, -1, -1).permute(1, 2, 0).numpy(), "rgb")
            if class_colors([color_sample(picture, labels=False)]):
                return f"{name} has other colours than the {len(palette)} flat ones that this model was trained on."
            mended = "" if self.preprocessor.maker is None else f", or {advice['make_source']}"
            return (
                f"{name} looks like a photo, but this model was trained on images of {len(palette)} flat colours: "
                f"expect little of the result{mended}."
            )
        return None

    def point_out(self, image: Prepared, name: str, advice: Mapping[str, str] = IN_PYTHON) -> None:
        """Log the first `remark` that there is, as a warning, and no other."""
        if not self._pointed_out and (words := self.remark(image, name, advice)) is not None:
            self._pointed_out = True
            logger.warning("%s", words)

    def make_source(self, photo: AnyImage, name: str = "the photo") -> Decoded:
        """Make a source of a photo, exactly as `pix2pix-hub data make` made those that the model was trained on.

        Args:
            photo: of 8 bits, or floats, of any kind that a call takes.
            name: what errors call it.

        Raises:
            UserError: the model was trained on other sources; no such photo.
        """
        if (maker := self.preprocessor.maker) is None:
            raise UserError(NO_MAKER)
        if isinstance(photo, str | Path):
            photo = read_image(Path(photo), name)
        elif isinstance(photo, Image.Image):
            photo = from_memory(photo, name)
        elif not isinstance(photo, Decoded):
            axis = 0 if isinstance(photo, Tensor) else 2
            plain = PixelFormat("gray", 1) if getattr(photo, "shape", ())[axis:][:1] in ((), (1,)) else PixelFormat()
            values = from_model_range(prepare(photo, plain, name).piece(), plain)
            photo = Decoded(values.permute(1, 2, 0).contiguous().numpy(), plain.mode)
        return make_pair(photo, maker, name)[0]

    def _jobs(
        self,
        image: AnyImage,
        source: AnyImage,
        name: str,
        output_type: str | None,
        seed: int | None,
        num_samples: int,
        tile_size: int,
    ) -> Iterator[_Job]:
        """Plan the samples of one image, which came as `image`."""
        generator, target = self.generator, self.preprocessor.target
        prepared = prepare(source, self.preprocessor.source, name)
        if not isinstance(source, Prepared):  # else whoever prepared it has seen to that
            self.point_out(prepared, name)
        prepared = prepared.padded(generator.size_multiple, generator.minimum_size)
        size = prepared.padded_size
        partition = partition_for(generator, *size) if max(prepared.size) > tile_size else None
        steps = 1 if partition is None else partition.passes * len(partition.tiles(size, tile_size))
        # from the pixels, so that an image's noise depends on nothing that comes with it
        content = 0 if seed is None else zlib.crc32(prepared.stored.contiguous().numpy().tobytes())
        for sample in range(num_samples):
            canvas = Canvas(image, prepared, generator.out_channels, target, output_type)
            of_sample = None if seed is None else (seed, content, sample)
            yield _Job(prepared, canvas, of_sample, partition, steps)

    def _run(
        self,
        jobs: Sequence[_Job],
        batch_size: int | None,
        tile_size: int,
        progress: Callable[[int, int], object] | None,
    ) -> None:
        """Fill all canvases: images of one padded size in batches, large ones tile by tile."""
        total, done = sum(job.steps for job in jobs), 0

        def step(count: int = 1) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        def to_device(batch: Tensor) -> Tensor:
            return batch.to(self.device, self.dtype, memory_format=self._layout)

        def in_tiles(job: _Job, partition: Partition, dropout: SeededDropout | None) -> None:
            read = lambda rows, columns: to_device(job.image.piece(rows, columns)[None])  # noqa: E731
            write = lambda top, left, made: job.canvas.place(top, left, job.canvas.values(made))  # noqa: E731
            translate_in_tiles(partition, job.image.padded_size, tile_size, read, write, dropout, step, job.journal)

        def stacked(batch: Sequence[_Job]) -> Tensor:
            """Images as the network wants them: those alike are sent together, as stored, and converted there."""
            parts = []
            for _, run in groupby(batch, lambda job: (job.image.size, job.image.format, job.image.stored.dtype)):
                images = [job.image for job in run]
                stored = torch.stack([image.stored for image in images])
                stored = stored.pin_memory() if self.device.type == "cuda" else stored
                stored = stored.to(self.device, non_blocking=True)
                parts.append(replace(images[0], stored=stored).piece())
            return to_device(torch.cat(parts) if len(parts) > 1 else parts[0])

        def fetch(batch: Sequence[_Job], made: Tensor) -> None:
            start = 0
            for _, run in groupby((job.canvas for job in batch), lambda canvas: canvas.alike):
                canvases = list(run)
                values = canvases[0].values(made[start : start + len(canvases)])
                start += len(canvases)
                for canvas, image in zip(canvases, values, strict=True):
                    canvas.place(0, 0, image)
            step(len(batch))

        groups: dict[tuple[int, ...], list[_Job]] = defaultdict(list)
        for number, job in enumerate(jobs):
            size = job.image.padded_size
            groups[size if job.partition is None else (*size, number)].append(job)
        # float32 as such: TF32, which is torch's default for convolutions, has 10 bits of mantissa
        kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        waiting: tuple[Sequence[_Job], Tensor] | None = None  # for its images to be fetched
        with self._lock, torch.inference_mode(), kernels:
            for group in groups.values():
                together = batch_size or fitting_batch(self.generator, *group[0].image.padded_size)
                for batch in (group[at : at + together] for at in range(0, len(group), together)):
                    seeds = [job.seed for job in batch if job.seed is not None]
                    with SeededDropout(self.generator, seeds) if seeds else nullcontext() as dropout:
                        if (partition := batch[0].partition) is not None:
                            in_tiles(batch[0], partition, dropout)
                        else:
                            made = (self.generator if seeds else self._compiled or self.generator)(stacked(batch))
                            if waiting is not None:  # what an accelerator made meanwhile
                                fetch(*waiting)
                            waiting = batch, made
            if waiting is not None:
                fetch(*waiting)
