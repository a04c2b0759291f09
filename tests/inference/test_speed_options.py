"""What makes a pipeline faster changes its images by no more than it may: precision, compilation, batch sizes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_exports import write_tiny_export
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from pix2pix_hub.image.format import RGB, PixelFormat
from pix2pix_hub.inference import pipeline
from pix2pix_hub.inference.pipeline import (
    LARGEST_BATCH,
    MOST_SHAPES,
    CompiledGenerator,
    Pix2PixPipeline,
    choose_dtype,
    fitting_batch,
)
from pix2pix_hub.models import UNetGenerator
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.ui.models import SHIPPED
from pix2pix_hub.util import UserError

CPU = torch.device("cpu")


def labels(number: int) -> NDArray[np.uint8]:
    return np.asarray(render_pair(10_000 + number, size=(128, 128), seed=0)[0])


def psnr(made: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    error = np.mean((made.astype(np.float64) - expected) ** 2)
    return float(10 * np.log10(255.0**2 / error))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_trained_model_in_half_precision_is_within_40_db_of_float32(dtype: str) -> None:
    images = [labels(number) for number in range(3)]
    exact = Pix2PixPipeline.from_pretrained(SHIPPED, device="cpu", dtype="float32")(images)
    pipe = Pix2PixPipeline.from_pretrained(SHIPPED, device="cpu", dtype=dtype)
    made = pipe(images)
    for image, expected in zip(made, exact, strict=True):
        assert psnr(image, expected) >= 40.0
        assert not np.array_equal(image, expected)  # it was computed in something else
    assert all(np.array_equal(*pair) for pair in zip(made, pipe(images), strict=True))


class TensorFloat32(TorchDispatchMode):
    """Rounds what is convolved to 10 bits of mantissa, as a GPU does in float32 where cuDNN may."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        convolutions = (aten.convolution, aten.conv2d, aten.conv_transpose2d)
        if func.overloadpacket in convolutions and torch.backends.cudnn.allow_tf32:
            args = (*(torch.ldexp(torch.round(m * 2**11) / 2**11, e) for m, e in map(torch.frexp, args[:2])), *args[2:])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("tile_size", [64, 1024])
def test_float32_is_not_computed_in_tf32(tile_size: int, export: Path) -> None:
    pipe = Pix2PixPipeline.from_pretrained(export, device="cpu", dtype="float32")
    image = torch.rand(3, 72, 72) * 2 - 1
    expected = pipe(image, tile_size=tile_size)
    with TensorFloat32():
        assert torch.equal(pipe(image, tile_size=tile_size), expected)
    assert torch.backends.cudnn.allow_tf32  # as it was
    batch = torch.rand(1, 3, 72, 72, requires_grad=True)  # outside of a pipeline the emulation does something
    with TensorFloat32():
        rounded = pipe.generator(batch)
    assert not torch.allclose(rounded, pipe.generator(batch), rtol=0, atol=1e-5)


def test_auto_is_half_precision_where_the_device_has_units_and_the_images_have_8_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deep = PixelFormat("gray", 1, "uint16", 0.0, 65535.0)
    for precision, shallow in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("no", torch.float32)):
        monkeypatch.setattr(pipeline, "accelerated_precision", lambda device_type, found=precision: found)
        assert choose_dtype("auto", CPU, RGB) == shallow
        assert choose_dtype("auto", CPU, deep) == torch.float32
        assert choose_dtype("bf16", CPU, deep) == torch.bfloat16
        assert choose_dtype(None, CPU, RGB) == torch.float32


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few layers: each is a file for the C++ compiler."""
    return write_tiny_export(tmp_path_factory.mktemp("tiny"), num_downs=2)


@pytest.fixture(scope="module")
def compiled(export: Path) -> Pix2PixPipeline:
    return Pix2PixPipeline.from_pretrained(export, device="cpu", dtype="float32", compile=True)


def test_a_compiled_pipeline_gives_the_same_images(export: Path, compiled: Pix2PixPipeline) -> None:
    plain = Pix2PixPipeline.from_pretrained(export, device="cpu", dtype="float32")
    floats = torch.rand(1, 3, 72, 72) * 2 - 1
    packed = counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"]
    made = compiled(floats)
    torch.testing.assert_close(made, plain(floats), rtol=0, atol=1e-5)
    assert torch.equal(made, compiled(floats))
    assert compiled._compiled is not None and list(compiled._compiled.graphs) == [(1, 3, 72, 72)]
    assert counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] - packed == 5  # every layer's weight
    # what the graph has no part in
    drawn = dict(stochastic=True, seed=3)
    assert torch.equal(compiled(floats, **drawn), plain(floats, **drawn))
    assert torch.equal(compiled(floats, tile_size=64), plain(floats, tile_size=64))


def test_a_compiled_pipeline_on_a_gpu_replays_one_graph_in_any_thread(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a stand-in for CUDA, which has no Triton: the network itself stands for what is compiled of it."""
    count = pytest.importorskip("count", reason="no stand-in for CUDA is loaded, whose module this is").count
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    monkeypatch.setattr(pipeline, "missing_for_compilation", lambda device_type: None)
    pipe = Pix2PixPipeline.from_pretrained(export, device="cuda", dtype="bf16", compile=True)
    image = torch.rand(1, 3, 72, 72) * 2 - 1
    pipe(image)
    with count() as asked, ThreadPoolExecutor(2) as pool:
        assert [made.shape for made in pool.map(pipe, [image] * 4)] == [image.shape] * 4
    assert asked.graphs == 4


def test_only_so_many_shapes_are_compiled() -> None:
    generator = UNetGenerator(base_channels=2, num_downs=2).eval()
    network = CompiledGenerator(generator)
    network.graphs = {(number,): generator for number in range(MOST_SHAPES)}
    with torch.inference_mode():
        network(torch.rand(1, 3, 8, 8))
    assert len(network.graphs) == MOST_SHAPES


def test_without_a_compiler_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"no g\+\+ here: apt-get install g\+\+"):
        Pix2PixPipeline.from_pretrained(SHIPPED, device="cpu", compile=True)
    Pix2PixPipeline.from_pretrained(SHIPPED, device="cpu")


@pytest.mark.parametrize(
    ("memory", "side", "element_size", "images"),
    [(80e9, 256, 2, LARGEST_BATCH), (8e9, 256, 2, 1e9 // (6 * 64 * 256 * 256 * 2)), (8e9, 2048, 4, 1)],
)
def test_batches_shrink_with_memory_and_size(
    memory: float, side: int, element_size: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))
    weight = SimpleNamespace(device=torch.device("cuda"), element_size=lambda: element_size)
    generator = SimpleNamespace(parameters=lambda: iter([weight]), config={"base_channels": 64})
    assert fitting_batch(generator, side, side) == images
