"""The generator of huggan (huggingface/community-events, `huggan/pytorch/pix2pix`), which has it from PyTorch-GAN
(Linder-Norén)."""

from __future__ import annotations

from pix2pix_hub.convert.layouts import DROPOUT, Layout, State, channels
from pix2pix_hub.models import UNetGenerator

PROJECT = "huggan"
DOWNS = 8
DROPOUT_STAGES = 4  # of the decoder
IMAGE_SIZE = 256
DROPOUT_NOTE = "It is that of the decoder; theirs had dropout in the encoder too, which is left out."


def read_unet(state: State) -> Layout:
    """`GeneratorUNet`: `down1` … `down8` and `up1` … `up7`, a convolution (0), instance norm without parameters and an
    activation each; `final` is nn.Upsample, padding, convolution (2). The decoder reads the encoder's LeakyReLU as it
    is, where the paper's takes the ReLU of it.
    """
    options = dict(
        in_channels=channels(state, "down1.model.0", 1),
        out_channels=channels(state, "final.2", 0),
        base_channels=channels(state, "down1.model.0", 0),
        num_downs=DOWNS,
        norm="instance",
        encoder_activation="leaky_relu",
        bottleneck="none",
        encoder_bias=False,
        dropout=DROPOUT,
        dropout_stages=DROPOUT_STAGES,
        skip_activation="none",
        output_layer="resize_4x4",
    )
    layout = Layout(PROJECT, "GeneratorUNet", UNetGenerator, options, IMAGE_SIZE, dropout_note=DROPOUT_NOTE)
    for number in range(DOWNS):
        layout.pair(f"encoder.{number}.conv", f"down{number + 1}.model.0", "weight")
    for number in range(DOWNS - 1):
        layout.pair(f"decoder.{number}.up", f"up{number + 1}.model.0", "weight")
    layout.pair("output.2", "final.2", "weight", "bias")
    return layout
