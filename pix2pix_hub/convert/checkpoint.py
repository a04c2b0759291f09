"""A checkpoint file of another project, read without running anything in it."""

from __future__ import annotations

import io
import mmap
import pickle
import pickletools
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile

import torch
from safetensors.torch import load_file
from torch import Tensor

from pix2pix_hub.models.weights import LENGTH_BYTES, check_header_length
from pix2pix_hub.util import UserError

PARALLEL_PREFIX = "module."
NAMES_SHOWN = 8
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTER = "num_batches_tracked"  # of batch norm, the one whole number in a state dict
MAX_PICKLE_BYTES = 1 << 16  # the largest generator's have 20 KB; what unpickles from so few takes some MB at most
# All that a state dict is made of.
NAMES_IN_PICKLES = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
)
PICKLES_OF_EARLY_PYTORCH = 5  # magic number, protocol, machine, content, names of storages; then the values
MAX_DIRECTORY_BYTES = 1 << 20


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Name → tensor, on the CPU, without the `module.` that DataParallel puts in front.

    Only tensors and plain containers are unpickled (`weights_only=True`), after a look at the file's structure. The
    memory used is twice what the file has, and then once.

    Args:
        path: what `torch.save(network.state_dict(), path)` wrote, or the same in safetensors.

    Raises:
        UserError: missing, damaged, not readable in this way, or anything but a state dict of finite floats.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file: name a checkpoint, for example latest_net_G.pth.")
    state = _load(path)
    if not state or len(_tensors(state)) != len(state):
        raise UserError(
            f"{path} holds {_describe(state)}; expected the state dict of a generator, names with tensors: save "
            "network.state_dict() alone."
        )
    if not all(isinstance(name, str) and name.isprintable() for name in state):
        raise UserError(f"{path} has names that are no text: it is no generator we know.")
    if sum(tensor.nbytes for tensor in state.values()) > path.stat().st_size:
        raise UserError(f"{path} claims more values than it has bytes: it is damaged or made to do harm.")
    for name, tensor in state.items():
        if tensor.dtype not in FLOATS and not (tensor.dtype == torch.int64 and name.endswith(COUNTER)):
            raise UserError(f"{path} holds {name[:80]} as {tensor.dtype}; expected floats: it is no generator we know.")
        if not torch.isfinite(tensor.sum(dtype=torch.float64)):
            raise UserError(f"{path} holds NaN or infinite values in {name[:80]}: get a checkpoint of a healthy run.")
    prefix = PARALLEL_PREFIX if all(name.startswith(PARALLEL_PREFIX) for name in state) else ""
    return {name.removeprefix(prefix): _copy(tensor) for name, tensor in state.items()}


def _load(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            check_header_length(path)
            return load_file(path)
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                _check_zip(file)
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            length = _check_pickles(file, PICKLES_OF_EARLY_PYTORCH)
        state = torch.load(path, map_location="cpu", weights_only=True)
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in _tensors(state)}
        if length + sum(LENGTH_BYTES + size for size in storages.values()) != path.stat().st_size:
            raise ValueError("it has not the values of these tensors, each once")  # others stay as memory was
        return state
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, or is no checkpoint of PyTorch; nothing in it has been run. Save "
            "network.state_dict() alone."
        ) from error
    except Exception as error:  # of a damaged file the unpickler raises almost anything
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise UserError(f"{path} is damaged, or no checkpoint of PyTorch ({reason}): get it again.") from error


def _copy(tensor: Tensor) -> Tensor:
    """In pages of its own, so that the file need not stay mapped, and memory is given back with each tensor; those that
    `malloc` once had it would keep."""
    copy = torch.frombuffer(mmap.mmap(-1, tensor.nbytes or 1), dtype=torch.uint8)[: tensor.nbytes].view(tensor.dtype)
    return copy.view(tensor.shape).copy_(tensor.detach())


def _tensors(state: Any) -> list[Tensor]:
    return [value for value in state.values() if isinstance(value, Tensor)] if isinstance(state, Mapping) else []


def _check_zip(file: IO[bytes]) -> None:
    """All entries lie in the file as they are, none twice, each undamaged, and everybody finds the same directory.

    Raises:
        ValueError: otherwise. zipfile's own errors.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read()
    # PyTorch's reader and Python's look for the directory in different ways; only this end leads both to one place.
    *_, length, start, comment = struct.unpack("<4s4H2LH", tail[-22:])
    if tail[-42:-38] == b"PK\6\7":
        (pointed,) = struct.unpack("<8xQ4x", tail[-42:-22])
        signature, length, start = struct.unpack("<4s36x2Q", tail[:56])
        size = size - 76 if signature == b"PK\6\6" and pointed == size - 98 else 0
    if comment or start + length != size - 22 or length > MAX_DIRECTORY_BYTES:
        raise ValueError("its end is not as PyTorch writes it")
    with ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
            raise ValueError("entries are compressed, as PyTorch never does")
        if sum(entry.file_size for entry in entries) > start:
            raise ValueError("its entries claim more bytes than it has")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} does not have its checksum")
        for entry in entries:
            if entry.filename.lower().endswith("data.pkl"):
                with archive.open(entry) as content:
                    _check_pickles(content, 1)


def _check_pickles(file: IO[bytes], count: int) -> int:
    """`count` pickles from the start of `file` on are short, and name nothing but what state dicts are made of; their
    length.

    Raises:
        UnpicklingError: otherwise. `ValueError`: no pickles.
    """
    file.seek(0)
    head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    for _ in range(count):
        for opcode, argument, _ in pickletools.genops(head):
            if opcode.name == "GLOBAL" and not NAMES_IN_PICKLES.fullmatch(str(argument)):
                raise pickle.UnpicklingError(f"it names {argument}")
    return head.tell()


def _describe(state: Any) -> str:
    if isinstance(state, Mapping) and state:
        names = [name[:60] if isinstance(name, str) else f"a {type(name).__name__}" for name in state]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return f"a dictionary with {', '.join(names[:NAMES_SHOWN])}{more}"
    return f"{'an empty' if isinstance(state, Mapping) else 'a'} {type(state).__name__}"
