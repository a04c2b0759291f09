"""Weights of a safetensors file into a network that has none yet, so that a stranger's file is checked before it costs.

The network is built on the meta device, where tensors have shapes and no memory. The file's header names all tensors
and must agree with it; safetensors itself sees to it that the file holds what its header says. So memory is bounded by
the size of the file, whatever `config.json` asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pix2pix_hub.util import UserError

MAX_HEADER_BYTES = 4 << 20  # real ones have some ten thousand
LENGTH_BYTES = 8
NAMES_SHOWN = 4
FLOAT_TYPES = ("F32", "F16", "BF16", "F64")
COUNT_TYPES = ("I64",)

Network = TypeVar("Network", bound=nn.Module)


def build_empty(make: Callable[[], Network]) -> Network:
    """What `make` builds, on the meta device: shapes without memory."""
    with torch.device("meta"), _NothingComputed():
        return make()


class _NothingComputed(TorchFunctionMode):
    """Answers what initial weights and spectral norm's first power iterations ask for with the right shape at once.

    Left to the meta device the same takes seconds: most of these operations have Python kernels there, which import
    half of torch's compiler. An operation that is not listed is merely slow.
    """

    in_place = ("normal_", "uniform_", "kaiming_uniform_", "fill_", "zero_", "ones_", "zeros_", "normalize")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, options = getattr(func, "__name__", ""), kwargs or {}
        if name in self.in_place:
            return args[0] if args else options["tensor"]
        if name == "mv":
            return args[0].new_empty(args[0].shape[0])
        if name in ("vdot", "div"):
            return args[0].new_empty(() if name == "vdot" else args[0].shape)
        return func(*args, **options)


def load_weights(network: nn.Module, path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
    """Give `network`, built on the meta device, the tensors of the file.

    Args:
        network: of any module; every tensor is in its state dict.
        path: the safetensors file.
        device: where the tensors go.
        dtype: what floating point tensors become, whatever the file holds.

    Raises:
        UserError: the file is damaged, or its tensors are not exactly those of the network.
    """
    check_header_length(path)
    try:
        with safe_open(path, framework="pt") as file:
            _check_tensors(network, file, path)
            tensors = {name: _moved(file.get_tensor(name), device, dtype) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is damaged, or no safetensors file ({error}): fetch or save it again.") from error
    network.load_state_dict(tensors, strict=True, assign=True)


def check_header_length(path: Path) -> None:
    """Raise `UserError` where the header of a safetensors file would be larger than any model's."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        raise UserError(
            f"{path} is damaged, or no safetensors file: its header would have {length} bytes, expected at most "
            f"{MAX_HEADER_BYTES}. Fetch or save it again."
        )


def _check_tensors(network: nn.Module, file: Any, path: Path) -> None:
    """Names, shapes and kinds of the file's tensors are those of the network."""
    expected: Mapping[str, Tensor] = network.state_dict()
    headers = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # a handle, not a dict
    shapes = {name: tuple(header.get_shape()) for name, header in headers.items()}
    dtypes = {name: header.get_dtype() for name, header in headers.items()}
    both = [name for name in expected if name in headers]
    faults = {
        "missing": [name for name in expected if name not in headers],
        "unknown": [name for name in headers if name not in expected],
        "of another shape": [
            f"{name} {shapes[name]}, expected {tuple(expected[name].shape)}"
            for name in both
            if shapes[name] != tuple(expected[name].shape)
        ],
        "of another type": [
            f"{name} {dtypes[name]}, expected {' or '.join(_types_for(expected[name]))}"
            for name in both
            if dtypes[name] not in _types_for(expected[name])
        ],
    }
    found = [f"{kind}: {_some(names)}" for kind, names in faults.items() if names]
    if found:
        wanted = sum(tensor.numel() for tensor in expected.values())
        raise UserError(
            f"{path} does not fit {type(network).__name__} as config.json describes it ({wanted:,} values in "
            f"{len(expected)} tensors). Tensors {'; '.join(found)}. Use config.json and weights of one export."
        )


def _types_for(tensor: Tensor) -> Sequence[str]:
    return FLOAT_TYPES if tensor.is_floating_point() else COUNT_TYPES


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(name[:200] for name in names[:NAMES_SHOWN]) + more


def _moved(tensor: Tensor, device: str, dtype: torch.dtype) -> Tensor:
    """Out of the mapped file into memory of its own.

    Used as mapped, the weights would change under the network with the file, and lie at any byte, for which some
    kernels round otherwise than for freshly trained weights.
    """
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
