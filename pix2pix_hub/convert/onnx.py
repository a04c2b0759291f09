"""From a generator to an ONNX file, of any batch, height and width, compared with the generator before it is there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.export import Dim
from torch.fx.experimental import _config as symbolic_shapes

from pix2pix_hub.models.base import Generator
from pix2pix_hub.util import UserError, write_aside

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of values in [-1, 1]
LEAST_WEIGHTS = 256  # of a tensor that `shrink_weights` shrinks


def check_packages(what: str = "--format onnx") -> None:
    """Raise `UserError` where a package that ONNX files, and with them `what`, need is not installed."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise UserError(f"{what} needs {', '.join(missing)}: pip install {' '.join(PACKAGES)}")


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


def shrink_weights(path: Path, precision: str, smaller: Path) -> None:
    """Write a copy of an ONNX file to `smaller` that stores its weights in fewer bits, and computes in float32.

    Runtimes convert the weights once, when they load the file.

    Args:
        path: what `write_onnx` wrote.
        precision: "float16"; or "int8": convolutions as whole numbers with a scale for each first index (of most, the
            output channel), all else as float16.
        smaller: the file.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph, casts = model.graph, []
    for weight in [each for each in graph.initializer if each.data_type == TensorProto.FLOAT]:
        values, name = numpy_helper.to_array(weight), weight.name
        if values.size < LEAST_WEIGHTS:
            continue
        if precision == "int8" and values.ndim == 4:
            scales = np.maximum(np.abs(values).max(axis=(1, 2, 3), keepdims=True) / 127.0, np.finfo(np.float32).tiny)
            stored, cast = np.round(values / scales).astype(np.int8), f"{name}_cast"
            graph.initializer.append(numpy_helper.from_array(scales.astype(np.float32), f"{name}_scales"))
            casts.append(helper.make_node("Cast", [f"{name}_stored"], [cast], to=TensorProto.FLOAT))
            casts.append(helper.make_node("Mul", [cast, f"{name}_scales"], [name]))
        else:
            stored = values.astype(np.float16)
            casts.append(helper.make_node("Cast", [f"{name}_stored"], [name], to=TensorProto.FLOAT))
        weight.CopyFrom(numpy_helper.from_array(stored, f"{name}_stored"))
    nodes = [*casts, *graph.node]  # a node comes after what it reads
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, smaller)
