"""From a generator to a file that other runtimes open: ONNX, TorchScript or torch.export, of any batch, height and
width, compared with the generator before it is there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes

from pix2pix_hub.models.auto import Generator
from pix2pix_hub.util import UserError, write_aside

SUFFIXES = {"onnx": ".onnx", "torchscript": ".torchscript.pt", "torch-export": ".pt2"}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of values in [-1, 1]

Runner = Callable[[Tensor], Tensor]


def check_format(format: str) -> None:
    """Raise `UserError` where a package that the format needs is not installed."""
    missing = [package for package in ONNX_PACKAGES if format == "onnx" and find_spec(package) is None]
    if missing:
        raise UserError(f"--format onnx needs {', '.join(missing)}: pip install {' '.join(ONNX_PACKAGES)}")


def write_runtime_file(generator: Generator, path: Path, format: str) -> float:
    """Write `path` aside, compare it with the generator at two sizes, and only then put it there.

    The file maps `source`, (N, in_channels, H, W) float32 in [-1, 1], to `generated`, (N, out_channels, H, W) in
    [-1, 1], for any N and any H and W that are multiples of `size_multiple` from `minimum_size`. Dropout is off.

    Args:
        generator: on the CPU, in float32 and evaluation mode.
        path: the file.
        format: a key of `SUFFIXES`.

    Returns:
        The largest difference found.

    Raises:
        UserError: a package is missing; the results differ by more than 1e-4.
    """
    check_format(format)
    write = {"onnx": _write_onnx, "torchscript": _write_torchscript, "torch-export": _write_torch_export}[format]
    with torch.no_grad(), write_aside(path) as partial:
        difference = _difference(generator, write(generator, partial))
        if not difference <= TOLERANCE:
            raise UserError(
                f"what --format {format} computes differs from the model by {difference:.1e}, more than {TOLERANCE}: "
                "nothing was written. Try another format."
            )
    return difference


def _difference(generator: Generator, run: Runner) -> float:
    """Largest difference over images of two sizes, batches and aspect ratios, none of them what was traced."""
    step, least = generator.size_multiple, generator.minimum_size
    draw = torch.Generator().manual_seed(0)
    largest = 0.0
    for count, height, width in ((1, least, least + 3 * step), (3, least + 2 * step, least)):
        source = torch.rand(count, generator.in_channels, height, width, generator=draw) * 2 - 1
        largest = max(largest, float((run(source) - generator(source)).abs().max()))
    return largest


def _example(generator: Generator) -> Tensor:
    side = generator.minimum_size + generator.size_multiple
    return torch.zeros(2, generator.in_channels, side, side + generator.size_multiple)


def _write_torchscript(generator: Generator, path: Path) -> Runner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of checks of sizes, which need not be in the file, and that its days are over
        traced = torch.jit.trace(generator, _example(generator), check_trace=False)
        torch.jit.save(traced, str(path))
        return torch.jit.load(str(path))


def _write_torch_export(generator: Generator, path: Path) -> Runner:
    with path.open("wb") as file:
        torch.export.save(_exported(generator), file)
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _write_onnx(generator: Generator, path: Path) -> Runner:
    import onnxruntime

    program = torch.onnx.export(
        _exported(generator),
        input_names=["source"],
        output_names=["generated"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(
        size_multiple=str(generator.size_multiple), minimum_size=str(generator.minimum_size), range="[-1, 1]"
    )
    program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda source: torch.from_numpy(session.run(None, {"source": source.numpy()})[0])


def _exported(generator: Generator) -> ExportedProgram:
    """The graph with N, H and W left open, H and W as multiples."""
    step, least = generator.size_multiple, generator.minimum_size // generator.size_multiple
    sizes = {0: Dim("batch", min=1), 2: step * Dim("rows", min=least), 3: step * Dim("columns", min=least)}
    with symbolic_shapes.patch(  # type: ignore[attr-defined]
        backed_size_oblivious=True
    ):  # or a batch of 1 and maps of 1x1 would be special
        return torch.export.export(generator, (_example(generator),), dynamic_shapes={"source": sizes}, strict=False)
