"""`pix2pix-hub export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from pix2pix_hub.commands.output import say
from pix2pix_hub.errors import UserError


def export(
    model: Positional[str],
    format: Literal["onnx"],
    output: Path | None = None,
    revision: str | None = None,
) -> None:
    """Write a model's generator for another runtime, for images of any size, and compare it with the model.

    Args:
        model: Export, run folder, or Hub id (user/name, user/name@revision).
        format: ONNX.
        output: File to write; None: the model's name with the suffix of the format, in the current folder.
        revision: Branch, tag or commit of a Hub model.
    """
    from pix2pix_hub.convert.onnx import check_packages, write_onnx
    from pix2pix_hub.export import export_of
    from pix2pix_hub.models import load_generator

    path = output or Path(f"{Path(model).name}.{format}")
    if path.exists():
        raise UserError(f"--output {path} exists and is never overwritten: name another file.")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}. Make it, or name another.")
    check_packages()
    generator = load_generator(export_of(model), revision=revision)
    difference = write_onnx(generator, path)
    say(f"{path} gives what the model gives (largest difference {difference:.1e}, at two sizes).")
    say(
        f"source: float32 (N, {generator.in_channels}, H, W) in [-1, 1], H and W multiples of "
        f"{generator.size_multiple} from {generator.minimum_size}; generated: (N, {generator.out_channels}, H, W)."
    )
