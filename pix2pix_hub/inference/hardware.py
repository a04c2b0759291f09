"""What a model is run on and in: device, numbers, layout in memory, images at a time."""

from __future__ import annotations

import torch

from pix2pix_hub.devices import accelerated_precision
from pix2pix_hub.images import PixelFormat
from pix2pix_hub.models.base import Generator
from pix2pix_hub.util import UserError

DTYPES = {
    None: torch.float32, "float32": torch.float32, "bf16": torch.bfloat16, "bfloat16": torch.bfloat16,
    "fp16": torch.float16, "float16": torch.float16,
}  # fmt: skip
LARGEST_BATCH = 32  # images, where nobody says how many
MEMORY_SHARE = 1 / 8  # of an accelerator's memory, that a batch may take
FULL_SIZE_MAPS = 6  # of `base_channels` channels, in memory at the same time for one image, generously


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
    """Raises `UserError` where `dtype` is none that a model can be run in."""
    known = dtype in ("auto", *DTYPES) if isinstance(dtype, str | None) else dtype in DTYPES.values()
    if not known:
        raise UserError(f"dtype is {dtype!r}; expected auto, float32, bf16 or fp16.")


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device, target: PixelFormat) -> torch.dtype:
    """A dtype that `check_dtype` lets pass; "auto": what `device` accelerates, if 8 bits are all that is wanted."""
    if dtype == "auto":
        dtype = {"no": "float32"}.get(found := accelerated_precision(device.type), found)
        dtype = dtype if target.dtype == "uint8" else "float32"  # bf16 has 8 significant bits
    return DTYPES[dtype] if isinstance(dtype, str | None) else dtype


def memory_format(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """Channels last where convolutions are made for it; in float32 on a CPU it gains nothing (docs/performance.md)."""
    plain = device.type == "cpu" and dtype == torch.float32
    return torch.contiguous_format if plain else torch.channels_last


def fitting_batch(generator: Generator, height: int, width: int) -> int:
    """Images of a padded size that are run together: 1 on a CPU, where more gain little, else by the device's memory.

    By all of its memory, not what is free at the moment, so that every call sums in the same order.
    """
    weight = next(generator.parameters())
    if weight.device.type != "cuda":
        return 1 if weight.device.type == "cpu" else 8
    memory = torch.cuda.get_device_properties(weight.device).total_memory
    return batch_within(memory * MEMORY_SHARE, generator.config["base_channels"], height, width, weight.element_size())


def batch_within(memory: float, base_channels: int, height: int, width: int, element_size: int) -> int:
    """Images that take at most so many bytes, from 1 to `LARGEST_BATCH`."""
    return max(1, min(LARGEST_BATCH, int(memory / (FULL_SIZE_MAPS * base_channels * height * width * element_size))))
