"""A checkpoint file of another project, read without running anything in it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pix2pix_hub.util import UserError

PARALLEL_PREFIX = "module."
NAMES_SHOWN = 8


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Name → tensor, on the CPU, without the `module.` that DataParallel puts in front.

    Only tensors and plain containers are unpickled (`weights_only=True`), and no more memory is used than the file
    has bytes.

    Args:
        path: what `torch.save(network.state_dict(), path)` wrote, or the same in safetensors.

    Raises:
        UserError: missing, not readable in this way, or anything but a state dict.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file: name a checkpoint, for example latest_net_G.pth.")
    state = _load(path)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(
            f"{path} holds {_describe(state)}; expected the state dict of a generator, names with tensors: save "
            "network.state_dict() alone."
        )
    if any(not isinstance(name, str) or tensor.layout != torch.strided for name, tensor in state.items()):
        raise UserError(f"{path} has names that are no text, or tensors that are sparse: it is no generator we know.")
    if sum(tensor.nbytes for tensor in state.values()) > path.stat().st_size:
        raise UserError(f"{path} claims more values than it has bytes: it is damaged or made to do harm.")
    prefixed = all(name.startswith(PARALLEL_PREFIX) for name in state)
    return {name.removeprefix(PARALLEL_PREFIX) if prefixed else name: tensor for name, tensor in state.items()}


def _load(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, or is no checkpoint of PyTorch; nothing in it has been run. Save "
            "network.state_dict() alone."
        ) from error
    except (RuntimeError, EOFError, BadZipFile, SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged, or no checkpoint of PyTorch ({error}): get it again.") from error


def _describe(state: Any) -> str:
    if isinstance(state, Mapping) and state:
        names = [str(name)[:60] for name in state]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return f"a dictionary with {', '.join(names[:NAMES_SHOWN])}{more}"
    return f"{'an empty' if isinstance(state, Mapping) else 'a'} {type(state).__name__}"
