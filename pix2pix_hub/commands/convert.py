"""`pix2pix-hub convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from pix2pix_hub.commands.output import say


def convert(
    file: Positional[Path], output: Path, norm_statistics: Literal["image", "running"] = "image", nearest: bool = False
) -> None:
    """Make an export of a generator that pytorch-CycleGAN-and-pix2pix trained.

    Args:
        file: Checkpoint, for example latest_net_G.pth; nothing in it is run.
        output: Folder to write the export to.
        norm_statistics: What batch norm uses at inference: each image's own, as that project tests, or training's.
        nearest: The network enlarges with nn.Upsample in mode nearest and a convolution (the file does not say).
    """
    from pix2pix_hub.convert.checkpoint import PROJECT, convert_checkpoint

    layout, network = convert_checkpoint(file, output, norm_statistics=norm_statistics, nearest=nearest)
    say(f"{file} is {layout.architecture} of {PROJECT}, norm {layout.norm}.")
    say(f"{type(network).__name__} written to {output}. Use it:")
    say(f"  pix2pix-hub translate {output} IMAGES --output DIR")
