"""The generators of pytorch-CycleGAN-and-pix2pix (Zhu, Park et al., github.com/junyanz), as `models/networks.py` names
their layers."""

from __future__ import annotations

import re

from pix2pix_hub.convert.layouts import DROPOUT, Layout, State, channels, norm_of
from pix2pix_hub.models import ResNetGenerator, UNetGenerator

PROJECT = "pytorch-CycleGAN-and-pix2pix"
OUTER_STAGES = 5  # of the U-Net, that never have dropout: four outermost and the innermost
BLOCKS_START = 10  # of the ResNet's sequence
RESNET_IMAGE_SIZE = 256
UNET_DROPOUT = (
    "The file does not say whether it was trained with dropout; that project's pix2pix is, and tests with it on."
)
RESNET_DROPOUT = "That project tests with it on."


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
    norm = norm_of(state, f"{innermost}.4", f"{innermost}.3")
    options = dict(
        in_channels=channels(state, "model.model.0", 1),
        out_channels=channels(state, "model.model.3", 1),
        base_channels=channels(state, "model.model.0", 0),
        num_downs=depth,
        norm=norm,
        encoder_activation="leaky_relu",
        bottleneck="none",
        encoder_bias=norm == "instance",
        dropout=DROPOUT,
        dropout_stages=max(0, depth - OUTER_STAGES),
        first_dropout_stage=1,
    )
    layout = Layout(PROJECT, f"unet_{2**depth}", UNetGenerator, options, 2**depth, dropout_note=UNET_DROPOUT)
    bias = ("bias",) if norm == "instance" else ()
    layout.pair("encoder.0.conv", "model.model.0", "weight", *bias)
    layout.pair("output", "model.model.3", "weight", "bias")
    layout.swapped = ["output.weight", *(f"decoder.{number}.up.weight" for number in range(1, depth - 1))]
    for number, level in enumerate(levels[1:], 1):
        inside = level == innermost
        up, up_norm = (3, 4) if inside else (5, 6)
        layout.pair(f"encoder.{number}.conv", f"{level}.1", "weight", *(bias if inside else ()))
        layout.pair(f"decoder.{depth - 1 - number}.up", f"{level}.{up}", "weight")
        layout.pair_norm(f"decoder.{depth - 1 - number}.norm", f"{level}.{up_norm}")
        if not inside:
            layout.pair_norm(f"encoder.{number}.norm", f"{level}.2")
        if bias:  # a constant added before instance norm leaves again with the mean
            layout.unused += [f"{level}.{up}.bias", *([] if inside else [f"{level}.1.bias"])]
    return layout


def read_resnet(state: State) -> Layout:
    """`resnet_9blocks` and its like, one sequence: padding, conv (1), norm (2), ReLU, conv (4), norm, ReLU, conv (7),
    norm, ReLU, blocks (from 10), up, norm, ReLU, up, norm, ReLU, padding, conv, tanh.

    A block is padding, conv (1), norm (2), ReLU, dropout or not, padding, conv, norm. Up is a transposed convolution,
    or (as the authors advise against checkerboards) nn.Upsample, padding, convolution.
    """
    blocks = {int(found[1]) for name in state if (found := re.match(r"model\.(\d{1,4})\.conv_block\.", name))}
    after = BLOCKS_START + len(blocks)
    resized = channels(state, f"model.{after}", 0) == 0
    ups, output = ((after + 2, after + 7), after + 11) if resized else ((after, after + 3), after + 7)
    dropout = channels(state, f"model.{BLOCKS_START}.conv_block.6", 0) > 0
    norm = norm_of(state, "model.2", "model.1")
    options = dict(
        in_channels=channels(state, "model.1", 1),
        out_channels=channels(state, f"model.{output}", 0),
        base_channels=channels(state, "model.1", 0),
        num_blocks=len(blocks),
        norm=norm,
        upsampling="resize" if resized else "transposed",
        dropout=DROPOUT if dropout else 0.0,
    )
    architecture = f"resnet_{len(blocks)}blocks"
    layout = Layout(PROJECT, architecture, ResNetGenerator, options, RESNET_IMAGE_SIZE)
    layout.resized, layout.dropout_note = resized, RESNET_DROPOUT
    bias = ("bias",) if norm == "instance" else ()
    parts = {"stem": "1", "encoder.0": "4", "encoder.1": "7"}
    for number in range(len(blocks)):
        block = f"{BLOCKS_START + number}.conv_block"
        parts |= {f"blocks.{number}.first": f"{block}.1", f"blocks.{number}.second": f"{block}.{6 if dropout else 5}"}
    for ours, theirs in parts.items():
        layout.pair(f"{ours}.conv", f"model.{theirs}", "weight", *bias)
        layout.pair_norm(f"{ours}.norm", f"model.{_next(theirs)}")
    for number, up in enumerate(ups):
        ours = f"decoder.{number}.conv" + (".1" if resized else "")
        layout.pair(ours, f"model.{up}", "weight", *bias)
        layout.pair_norm(f"decoder.{number}.norm", f"model.{up + 1}")
        if resized and norm == "batch" and f"model.{up}.bias" in state:
            layout.folded[f"decoder.{number}.norm.running_mean"] = f"model.{up}.bias"
    layout.pair("output", f"model.{output}", "weight", "bias")
    return layout


def _next(name: str) -> str:
    """The layer after `10.conv_block.1` is `10.conv_block.2`."""
    head, _, last = name.rpartition(".")
    return f"{head}.{int(last) + 1}".lstrip(".")
