"""A generator that pytorch-CycleGAN-and-pix2pix (Zhu, Park et al., github.com/junyanz) trained, made an export of ours.

Its checkpoint file is read without running anything in it; the names and shapes of its tensors tell the architecture;
each tensor goes to its place in our network, which then computes the same.
"""

from __future__ import annotations

import io
import mmap
import pickle
import pickletools
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile

import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import load_file
from torch import Tensor

from pix2pix_hub.export import CARD_NAME, Preprocessor, write_export
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.image.read import PICTURE_MODES
from pix2pix_hub.models import ResNetGenerator, UNetGenerator
from pix2pix_hub.models.base import LENGTH_BYTES, Generator, build_empty, check_header_length, some
from pix2pix_hub.util import UserError

State = Mapping[str, Tensor]

PROJECT = "pytorch-CycleGAN-and-pix2pix"
KNOWN = f"""
  {PROJECT} U-Net (unet_256, unet_128): model.model.0.weight, model.model.1.model.1.weight, …
  {PROJECT} ResNet (resnet_9blocks, …): model.1.weight, model.10.conv_block.1.weight, …"""
DROPOUT = 0.5
OUTER_STAGES = 5  # of the U-Net, that never have dropout: four outermost and the innermost
BLOCKS_START = 10  # of the ResNet's sequence
RESNET_IMAGE_SIZE = 256

PARALLEL_PREFIX = "module."
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
STATISTICS = ("running_mean", "running_var")  # of a norm
COUNTER = "num_batches_tracked"  # of batch norm, the one whole number in a state dict
MAX_PICKLE_BYTES = 1 << 16  # the largest generator's have 20 KB; what unpickles from so few takes some MB at most
# All that a state dict is made of.
NAMES_IN_PICKLES = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
)
PICKLES_OF_EARLY_PYTORCH = 5  # magic number, protocol, machine, content, names of storages; then the values
MAX_DIRECTORY_BYTES = 1 << 20


# --- the file ---


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
    if not isinstance(state, Mapping) or not state or not all(isinstance(each, Tensor) for each in state.values()):
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
    copies = {}
    for name, tensor in state.items():
        # in pages of its own, so that the file need not stay mapped, and memory is given back with each tensor; what
        # `malloc` once had it would keep
        pages = torch.frombuffer(mmap.mmap(-1, tensor.nbytes or 1), dtype=torch.uint8)[: tensor.nbytes]
        copies[name.removeprefix(prefix)] = pages.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
    return copies


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
        tensors = [each for each in state.values() if isinstance(each, Tensor)] if isinstance(state, Mapping) else []
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
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


def _check_zip(file: IO[bytes]) -> None:
    """Check that all entries lie in the file as they are, none twice, each undamaged, and that all readers find
    the same directory.

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
    """Check that the first `count` pickles of `file` are short, and name only what state dicts are made of;
    returns their length.

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
        return f"a dictionary with {some(names)}"
    return f"{'an empty' if isinstance(state, Mapping) else 'a'} {type(state).__name__}"


# --- the architecture ---


@dataclass
class Layout:
    """A network of that project: its options in our terms, and which tensor is which."""

    architecture: str  # as its project calls it
    network: type[UNetGenerator] | type[ResNetGenerator]
    options: dict[str, Any]
    image_size: int  # height and width it is usually trained at (pixels)
    dropout_note: str  # a sentence for the card
    resized: bool = False  # plain convolutions enlarge, after an nn.Upsample that leaves no trace in the file
    names: dict[str, str] = field(default_factory=dict)  # ours → theirs
    folded: dict[str, str] = field(default_factory=dict)  # our running mean → their bias before it, which goes in there
    swapped: list[str] = field(default_factory=list)  # ours that read the skip second and the map before it first
    unused: list[str] = field(default_factory=list)  # theirs, without effect on what their network computes

    @property
    def norm(self) -> str:
        """The norm of the network."""
        return str(self.options["norm"])

    def add(self, state: State, stage: str, conv: str, theirs: str, norm: str | None = None) -> None:
        """Note the convolution `stage.conv`, and what is called `norm` after theirs; None: there is no norm."""
        bias = f"{theirs}.bias"
        self.names[f"{stage}.{conv}.weight"] = f"{theirs}.weight"
        if self.norm == "batch" and norm is not None:
            self.names |= {f"{stage}.norm.{kind}": f"{norm}.{kind}" for kind in ("weight", "bias", *STATISTICS)}
            self.unused.append(f"{norm}.{COUNTER}")
            self.folded |= {f"{stage}.norm.running_mean": bias} if bias in state else {}
        elif self.norm == "instance" and norm is not None:  # early PyTorch kept statistics that it never used
            # a constant added before instance norm leaves again with the mean
            self.unused += [bias, *(f"{norm}.{kind}" for kind in (*STATISTICS, COUNTER))]
        elif bias in state:
            self.names[f"{stage}.{conv}.bias"] = bias


def read_unet(state: State) -> Layout:
    """`unet_256` and its like: blocks within blocks, `model.model.1.model.3.model.3.model` …

    The outermost is down (0), inner block (1), ReLU, up (3), tanh; others are LeakyReLU, down (1), norm (2), inner
    block (3), ReLU, up (5), norm (6), dropout; the innermost LeakyReLU, down (1), ReLU, up (3), norm (4). A block joins
    its input to what it made of it, in this order.
    """
    levels = ["model.model", "model.model.1.model"]
    while any(name.startswith(f"{levels[-1]}.3.model.") for name in state):
        levels.append(f"{levels[-1]}.3.model")
    depth, innermost = len(levels), levels[-1]
    norm = _norm_of(state, f"{innermost}.4", f"{innermost}.3")
    options = dict(
        in_channels=_channels(state, "model.model.0", 1),
        out_channels=_channels(state, "model.model.3", 1),
        base_channels=_channels(state, "model.model.0", 0),
        num_downs=depth,
        norm=norm,
        encoder_activation="leaky_relu",
        bottleneck="none",
        encoder_bias=norm == "instance",
        dropout=DROPOUT,
        dropout_stages=max(0, depth - OUTER_STAGES),
        first_dropout_stage=1,
    )
    note = "The file does not say whether it was trained with it; that project's pix2pix is, and tests with it on."
    layout = Layout(f"unet_{2**depth}", UNetGenerator, options, 2**depth, note)
    layout.names = {f"output.{kind}": f"model.model.3.{kind}" for kind in ("weight", "bias")}
    layout.swapped = ["output.weight", *(f"decoder.{number}.up.weight" for number in range(1, depth - 1))]
    layout.add(state, "encoder.0", "conv", "model.model.0")
    for number, level in enumerate(levels[1:], 1):
        up, norms = (3, (None, 4)) if level == innermost else (5, (2, 6))
        before, after = (f"{level}.{place}" if place else None for place in norms)
        layout.add(state, f"encoder.{number}", "conv", f"{level}.1", before)
        layout.add(state, f"decoder.{depth - 1 - number}", "up", f"{level}.{up}", after)
    return layout


def read_resnet(state: State) -> Layout:
    """`resnet_9blocks` and its like, one sequence: padding, conv (1), norm (2), ReLU, conv (4), norm, ReLU, conv (7),
    norm, ReLU, blocks (from 10), up, norm, ReLU, up, norm, ReLU, padding, conv, tanh.

    A block is padding, conv (1), norm (2), ReLU, dropout or not, padding, conv, norm. Up is a transposed convolution,
    or (as the authors advise against checkerboards) nn.Upsample, padding, convolution.
    """
    blocks = {int(found[1]) for name in state if (found := re.match(r"model\.(\d{1,4})\.conv_block\.", name))}
    after = BLOCKS_START + len(blocks)
    resized = _channels(state, f"model.{after}", 0) == 0
    ups, output = ((after + 2, after + 7), after + 11) if resized else ((after, after + 3), after + 7)
    second = 6 if _channels(state, f"model.{BLOCKS_START}.conv_block.6", 0) else 5  # convolution, after dropout or not
    options = dict(
        in_channels=_channels(state, "model.1", 1),
        out_channels=_channels(state, f"model.{output}", 0),
        base_channels=_channels(state, "model.1", 0),
        num_blocks=len(blocks),
        norm=_norm_of(state, "model.2", "model.1"),
        upsampling="resize" if resized else "transposed",
        dropout=DROPOUT if second == 6 else 0.0,
    )
    note = "That project tests with it on."
    layout = Layout(f"resnet_{len(blocks)}blocks", ResNetGenerator, options, RESNET_IMAGE_SIZE, note, resized)
    layout.names = {f"output.{kind}": f"model.{output}.{kind}" for kind in ("weight", "bias")}
    places = {"stem": ("model", 1), "encoder.0": ("model", 4), "encoder.1": ("model", 7)}  # of convolutions
    for number in range(len(blocks)):
        block = f"model.{BLOCKS_START + number}.conv_block"
        places |= {f"blocks.{number}.first": (block, 1), f"blocks.{number}.second": (block, second)}
    places |= {f"decoder.{number}": ("model", up) for number, up in enumerate(ups)}
    for stage, (sequence, at) in places.items():
        conv = "conv.1" if resized and stage.startswith("decoder") else "conv"
        layout.add(state, stage, conv, f"{sequence}.{at}", f"{sequence}.{at + 1}")
    return layout


def _norm_of(state: State, norm: str, convolution: str) -> str:
    """Which norm follows a convolution: batch norm has parameters; before instance norm there are biases, and where
    there is no norm none."""
    if f"{norm}.weight" in state:
        return "batch"
    return "instance" if f"{convolution}.bias" in state else "none"


def _channels(state: State, name: str, axis: int) -> int:
    """Length of an axis of a convolution's weight; 0, which no network has, where there is no such weight."""
    tensor = state.get(f"{name}.weight")
    return 0 if tensor is None or tensor.ndim != 4 else tensor.shape[axis]


# --- our network ---


def convert_checkpoint(
    path: Path, output: Path, *, norm_statistics: str = "image", nearest: bool = False
) -> tuple[Layout, Generator]:
    """Write the export of a generator of that project.

    Args:
        path: the checkpoint.
        output: folder to make.
        norm_statistics: what batch norm uses at inference, "image" (as that project tests) or "running".
        nearest: that enlarging convolutions follow an nn.Upsample in mode nearest, which the file does not say.

    Raises:
        UserError: `output` exists; a file that cannot be converted; an option that does not fit it.
    """
    if output.exists():
        raise UserError(f"--output {output} exists and is never overwritten: name another folder.")
    state = read_checkpoint(path)
    if "model.model.0.weight" in state:
        layout = read_unet(state)
    elif "model.1.weight" in state:
        layout = read_resnet(state)
    else:
        raise UserError(
            f"{path} is no generator that can be converted. Expected one of:{KNOWN}\n"
            f"What came: {some(_shapes(state))}. "
            "(Only generators are converted: for example latest_net_G.pth, not latest_net_D.pth.)"
        )
    _check_options(layout, norm_statistics, nearest)
    network = _build_network(layout, state, path, norm_statistics)
    source, target = (  # that project reads 8-bit pictures
        PixelFormat(next((mode for mode, count in PICTURE_MODES.items() if count == channels), "channels"), channels)
        for channels in (network.in_channels, network.out_channels)
    )
    size = (layout.image_size, layout.image_size)
    tags = ["pix2pix", "image-to-image", "converted"]
    card = ModelCard.from_template(  # where the weights come from, what was inferred, how they are used
        ModelCardData(library_name="pix2pix-hub", pipeline_tag="image-to-image", tags=tags),
        template_path=str(Path(__file__).with_name("card_template.md")),
        name=output.name,
        file_name=path.name,
        project=PROJECT,
        layout=layout,
        network=network,
        parameters=f"{sum(parameter.numel() for parameter in network.parameters()):,}",
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_export(
        output,
        network,
        Preprocessor(source, target, size, "exact", network.size_multiple),
        complete=lambda partial, folder: (partial / CARD_NAME).write_text(f"{card}\n"),
    )
    return layout, network


def _check_options(layout: Layout, norm_statistics: str, nearest: bool) -> None:
    if norm_statistics == "running" and layout.norm != "batch":
        raise UserError(
            f"--norm-statistics running: the network has norm {layout.norm!r}, which keeps no statistics. Leave it out."
        )
    if layout.resized and not nearest:
        raise UserError(
            "the network enlarges with nn.Upsample, and the file does not say in which mode. Type --nearest if it was "
            "nearest (PyTorch's default); other modes cannot be converted."
        )
    if nearest and not layout.resized:
        raise UserError("--nearest: the network enlarges with transposed convolutions. Leave it out.")


def _build_network(layout: Layout, state: dict[str, Tensor], path: Path, norm_statistics: str) -> Generator:
    """The network with the checkpoint's weights, in float32 and evaluation mode; they are taken out of `state`.

    Raises:
        UserError: a tensor is missing, not known or of another shape.
    """
    theirs = {*layout.names.values(), *layout.folded.values()}
    unknown = {name: state[name] for name in state if name not in theirs and name not in layout.unused}
    _refuse(layout, path, missing=sorted(theirs - state.keys()), unknown=_shapes(unknown))
    options = layout.options | ({"norm_statistics": norm_statistics} if norm_statistics != "image" else {})
    try:
        network = build_empty(lambda: layout.network(**options))
    except ValueError as error:
        raise UserError(f"{path} looks like {layout.architecture} of {PROJECT}, but its {error}") from error
    expected = network.state_dict()
    _refuse(layout, path, unknown=[theirs for ours, theirs in layout.names.items() if ours not in expected])
    misshaped = [
        f"{theirs} {tuple(state[theirs].shape)}, expected {tuple(expected[ours].shape)}"
        for ours, theirs in (*layout.names.items(), *layout.folded.items())
        if state[theirs].shape != expected[ours].shape
    ]
    _refuse(layout, path, misshaped=misshaped)
    tensors = {name: _converted(name, layout, state, tensor) for name, tensor in expected.items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def _refuse(layout: Layout, path: Path, **faults: list[str]) -> None:
    """Raise `UserError` where a list of faults is not empty."""
    found = [f"{kind}: {some(names)}" for kind, names in faults.items() if names]
    if found:
        raise UserError(
            f"{path} looks like {layout.architecture} of {PROJECT}, but is not: {'; '.join(found)}. "
            "Changed networks cannot be converted."
        )


def _converted(name: str, layout: Layout, state: dict[str, Tensor], expected: Tensor) -> Tensor:
    """Our tensor `name`. What the checkpoint has no tensor for does nothing: scales of 1, offsets and biases of 0."""
    theirs = layout.names.get(name)
    if theirs is None:
        fill = 1.0 if name.endswith("norm.weight") else 0.0
        return torch.full(expected.shape, fill, dtype=expected.dtype, device="cpu")
    tensor = state.pop(theirs).to(torch.float32)
    if name in layout.swapped:
        skip, map_before = tensor.chunk(2)  # of a transposed convolution, whose first axis is the input's
        tensor = torch.cat([map_before, skip])
    if name in layout.folded:
        tensor -= state[layout.folded[name]].to(torch.float32)
    return tensor


def _shapes(state: State) -> list[str]:
    return [f"{name[:80]} {tuple(tensor.shape)}" for name, tensor in state.items()]
