"""From the tensors of a checkpoint to our network that computes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pix2pix_hub.convert import cyclegan, huggan
from pix2pix_hub.convert.layouts import Layout, State
from pix2pix_hub.models.auto import Generator
from pix2pix_hub.models.weights import build_empty
from pix2pix_hub.util import UserError

READERS: dict[str, Callable[[State], Layout]] = {  # by the name that each layout begins with
    "model.model.0.weight": cyclegan.read_unet,
    "model.1.weight": cyclegan.read_resnet,
    "down1.model.0.weight": huggan.read_unet,
}
KNOWN = (
    "pytorch-CycleGAN-and-pix2pix U-Net (unet_256, unet_128): model.model.0.weight, model.model.1.model.1.weight, …",
    "pytorch-CycleGAN-and-pix2pix ResNet (resnet_9blocks, …): model.1.weight, model.10.conv_block.1.weight, …",
    "huggan (PyTorch-GAN) GeneratorUNet: down1.model.0.weight, …, up1.model.0.weight, …, final.2.weight",
)
NAMES_SHOWN = 5


def recognise(state: State, path: Path) -> Layout:
    """The layout that the names begin like.

    Raises:
        UserError: none that is known; lists what was expected and what came.
    """
    for signature, read in READERS.items():
        if signature in state:
            return read(state)
    expected = "".join(f"\n  {line}" for line in KNOWN)
    raise UserError(
        f"{path} is no generator that can be converted. Expected one of:{expected}\n"
        f"What came: {_some(_shapes(state))}. "
        "(Only generators are converted: for example latest_net_G.pth, not latest_net_D.pth.)"
    )


def build_network(layout: Layout, state: dict[str, Tensor], path: Path, norm_statistics: str = "image") -> Generator:
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
        raise UserError(f"{path} looks like {layout.architecture} of {layout.project}, but its {error}") from error
    expected = network.state_dict()
    misshaped = [
        f"{theirs} {tuple(state[theirs].shape)}, expected {tuple(expected[ours].shape)}"
        for ours, theirs in (*layout.names.items(), *layout.folded.items())
        if state[theirs].shape != expected[ours].shape
    ]
    _refuse(layout, path, misshaped=misshaped)
    tensors = {name: _converted(name, layout, state, tensor) for name, tensor in expected.items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def _refuse(layout: Layout, path: Path, **faults: Sequence[str]) -> None:
    """Raise `UserError` where a list of faults is not empty."""
    found = [f"{kind}: {_some(names)}" for kind, names in faults.items() if names]
    if found:
        raise UserError(
            f"{path} looks like {layout.architecture} of {layout.project}, but is not: {'; '.join(found)}. "
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


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
