"""The export made of a converted checkpoint: config.json, model.safetensors, preprocessor_config.json, README.md."""

from __future__ import annotations

import json
from pathlib import Path

from pix2pix_hub.convert.card import make_card
from pix2pix_hub.convert.checkpoint import read_checkpoint
from pix2pix_hub.convert.layouts import Layout
from pix2pix_hub.convert.network import build_network, recognise
from pix2pix_hub.data.preprocessor import preprocessor_config
from pix2pix_hub.image.format import PREPROCESSOR_NAME, PixelFormat
from pix2pix_hub.models.auto import Generator
from pix2pix_hub.util import UserError, write_folder_aside

PICTURE_MODES = {1: "gray", 3: "rgb", 4: "rgba"}


def convert_checkpoint(
    path: Path, output: Path, *, norm_statistics: str = "image", nearest: bool = False
) -> tuple[Layout, Generator]:
    """Write the export of a generator of another project.

    Args:
        path: the checkpoint.
        output: folder to make.
        norm_statistics: what batch norm uses at inference, "image" (as those projects test) or "running".
        nearest: that enlarging convolutions follow an nn.Upsample in mode nearest, which the file does not say.

    Raises:
        UserError: `output` exists; a file that cannot be converted; an option that does not fit it.
    """
    if output.exists():
        raise UserError(f"--output {output} exists and is never overwritten: name another folder.")
    state = read_checkpoint(path)
    layout = recognise(state, path)
    _check_options(layout, norm_statistics, nearest)
    network = build_network(layout, state, path, norm_statistics)
    formats = {"source": _pixels(network.in_channels), "target": _pixels(network.out_channels)}
    size = (layout.image_size, layout.image_size)
    preprocessor = preprocessor_config(size, "exact", network.size_multiple, formats)
    output.parent.mkdir(parents=True, exist_ok=True)
    with write_folder_aside(output) as partial:
        network.save_files(partial)
        (partial / PREPROCESSOR_NAME).write_text(json.dumps(preprocessor, indent=2) + "\n")
        (partial / "README.md").write_text(make_card(layout, network, path.name, output.name))
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


def _pixels(channels: int) -> PixelFormat:
    """Those projects read 8-bit pictures."""
    return PixelFormat(PICTURE_MODES.get(channels, "channels"), channels)
