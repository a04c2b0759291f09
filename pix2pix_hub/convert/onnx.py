"""From a generator to an ONNX file, of any batch, height and width, compared with the generator before it is there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch.export import Dim
from torch.fx.experimental import _config as symbolic_shapes

from pix2pix_hub.models.base import Generator
from pix2pix_hub.util import UserError, write_aside

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of values in [-1, 1]


def check_packages() -> None:
    """Raise `UserError` where a package that ONNX files need is not installed."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise UserError(f"--format onnx needs {', '.join(missing)}: pip install {' '.join(PACKAGES)}")


def write_onnx(generator: Generator, path: Path) -> float:
    """Write `path` aside, compare it with the generator at two sizes, and only then put it there.

    The file maps `source`, (N, in_channels, H, W) float32 in [-1, 1], to `generated`, (N, out_channels, H, W) in
    [-1, 1], for any N and any H and W that are multiples of `size_multiple` from `minimum_size`. Dropout is off.

    Args:
        generator: on the CPU, in float32 and evaluation mode.
        path: the file.

    Returns:
        The largest difference found.

    Raises:
        UserError: a package is missing; the results differ by more than 1e-4.
    """
    check_packages()
    step, least = generator.size_multiple, generator.minimum_size
    rows, columns = (step * Dim(name, min=least // step) for name in ("rows", "columns"))  # H and W left open, and N
    dynamic = {"source": {0: Dim("batch", min=1), 2: rows, 3: columns}}
    example = torch.zeros(2, generator.in_channels, least + step, least + 2 * step)
    with torch.no_grad(), write_aside(path) as partial:
        with symbolic_shapes.patch(  # type: ignore[attr-defined]
            backed_size_oblivious=True
        ):  # or a batch of 1 and maps of 1x1 would be special
            graph = torch.export.export(generator, (example,), dynamic_shapes=dynamic, strict=False)
        program = torch.onnx.export(
            graph, input_names=["source"], output_names=["generated"], dynamo=True, verbose=False
        )
        assert program is not None
        program.model.metadata_props.update(size_multiple=str(step), minimum_size=str(least), range="[-1, 1]")
        program.save(str(partial), external_data=False)
        difference = largest_difference(generator, partial)
        if not difference <= TOLERANCE:
            raise UserError(
                f"what the ONNX file computes differs from the model by {difference:.1e}, more than {TOLERANCE}: "
                "nothing was written."
            )
    return difference


def largest_difference(generator: Generator, path: Path) -> float:
    """Over images of two sizes, batches and aspect ratios, none of them what was traced."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    step, least = generator.size_multiple, generator.minimum_size
    draw = torch.Generator().manual_seed(0)
    largest = 0.0
    for count, height, width in ((1, least, least + 3 * step), (3, least + 2 * step, least)):
        source = torch.rand(count, generator.in_channels, height, width, generator=draw) * 2 - 1
        generated = torch.from_numpy(session.run(None, {"source": source.numpy()})[0])
        largest = max(largest, float((generated - generator(source)).abs().max()))
    return largest
