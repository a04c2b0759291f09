"""Large images: made in tiles, and yet the result of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_exports import noise

from pix2pix_hub.image.format import RGB
from pix2pix_hub.inference import tiling
from pix2pix_hub.inference.pipeline import Canvas, prepare
from pix2pix_hub.inference.tiling import (
    Partition,
    StreamedNorms,
    Tile,
    partition_for,
    partitions_of,
    spans,
    translate_in_tiles,
    unet_partition,
)
from pix2pix_hub.models import ResNetGenerator, UNetGenerator
from pix2pix_hub.models.base import SeededDropout

GENERATORS = {
    "default": lambda: UNetGenerator(base_channels=2, num_downs=4),
    "resize": lambda: UNetGenerator(base_channels=2, num_downs=4, upsampling="resize"),
    "paper": lambda: UNetGenerator(
        base_channels=2, num_downs=4, norm="batch", bottleneck="none", encoder_activation="leaky_relu"
    ),
    "no norm": lambda: UNetGenerator(base_channels=2, num_downs=4, norm="none"),
    "late dropout": lambda: UNetGenerator(base_channels=2, num_downs=4, dropout_stages=2, first_dropout_stage=1),
    "running": lambda: UNetGenerator(base_channels=2, num_downs=3, norm="batch", norm_statistics="running"),
    "resnet": lambda: ResNetGenerator(base_channels=2, num_blocks=2, dropout=0.5),
    "resnet resize": lambda: ResNetGenerator(base_channels=2, num_blocks=3, upsampling="resize", norm="batch"),
}


def trained(name: str) -> torch.nn.Module:
    """Far from its initial weights, whose output is nearly gray; in evaluation mode."""
    torch.manual_seed(0)
    generator = GENERATORS[name]()
    spread = 0.2 if name == "no norm" else 0.5  # without norms larger weights blow rounding up from stage to stage
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, 0.0, spread)
    return generator.eval()


def in_tiles(generator, partition: Partition, source: torch.Tensor, tile_size: int, dropout=None) -> torch.Tensor:
    """Of a source whose height and width the generator takes."""
    made = torch.full_like(source, torch.nan)

    def write(top: int, left: int, tile: torch.Tensor) -> None:
        made[:, top : top + tile.shape[1], left : left + tile.shape[2]] = tile

    steps: list[int] = []
    size = (source.shape[1], source.shape[2])
    with torch.inference_mode():
        translate_in_tiles(partition, size, tile_size, lambda y, x: source[None, :, y, x], write, dropout, steps.append)
    assert sum(steps) == partition.passes * len(partition.tiles(size, tile_size))
    return made


def whole(generator, source: torch.Tensor) -> torch.Tensor:
    """Height and width are multiples already."""
    with torch.inference_mode():
        return generator(source[None])[0]


@pytest.mark.parametrize("name", GENERATORS)
def test_tiles_make_what_the_whole_makes(name: str) -> None:
    """At every level of the split, on an image whose left half is blank: tiles there have no contrast of their own."""
    generator = trained(name)
    source = torch.rand(3, 208, 304) * 2 - 1
    source[:, :, :150] = 0.3
    expected = whole(generator, source)
    assert expected.std() > 0.05
    for partition in partitions_of(generator):
        made = in_tiles(generator, partition, source, 64)
        assert (made - expected).abs().max() < 1e-4, partition


@pytest.mark.parametrize("name", GENERATORS)
def test_the_margin_is_as_narrow_as_it_can_be(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one pixel of the split's map less the result is wrong: what the test above shows is no accident."""
    generator = trained(name)
    source = torch.rand(3, 208, 304) * 2 - 1
    monkeypatch.setattr(tiling, "UNET_MARGIN", tiling.UNET_MARGIN - 1)
    monkeypatch.setattr(tiling, "RESNET_MARGIN", tiling.RESNET_MARGIN - 1)
    errors = [
        (in_tiles(generator, partition, source, 64) - whole(generator, source)).abs().max()
        for partition in partitions_of(generator)
    ]
    assert max(errors) > 1e-3, errors


@pytest.mark.parametrize("name", ["default", "late dropout", "resnet"])
def test_dropout_is_that_of_the_whole(name: str) -> None:
    generator = trained(name)
    source = torch.rand(3, 112, 144) * 2 - 1
    with SeededDropout(generator, [(3,)]):
        expected = whole(generator, source)
    assert (expected - whole(generator, source)).abs().max() > 0.1
    for partition in partitions_of(generator):
        with SeededDropout(generator, [(3,)]) as dropout:
            assert (in_tiles(generator, partition, source, 64, dropout) - expected).abs().max() < 1e-4, partition


def test_the_generator_is_left_as_it_was() -> None:
    """Also where a pass ends in an error."""
    generator = trained("default")
    source = torch.rand(3, 64, 64) * 2 - 1
    expected = whole(generator, source)
    with pytest.raises(ZeroDivisionError), StreamedNorms(unet_partition(generator, 2).norms):
        1 / 0  # noqa: B018
    assert torch.equal(whole(generator, source), expected)


def test_large_images_are_split_further_inside_and_the_split_does_not_depend_on_the_machine() -> None:
    generator = UNetGenerator()
    levels = [partition_for(generator, side, side).factor for side in (1024, 2048, 4096, 8192, 16384)]
    assert levels == sorted(levels) and levels[0] < levels[-1]
    resnet = ResNetGenerator()
    assert partition_for(resnet, 1024, 1024).head is not None
    assert partition_for(resnet, 8192, 8192).head is None  # nothing sees the whole


@given(st.integers(1, 60), st.integers(64, 300), st.sampled_from([1, 2, 8, 32]), st.integers(0, 4))
def test_cores_cover_an_axis_once(units: int, tile_size: int, factor: int, margin: int) -> None:
    length = units * factor
    pieces = spans(length, tile_size, factor, margin * factor)
    covered = [place for piece in pieces for place in range(piece.core.start, piece.core.stop)]
    assert covered == list(range(length))
    for piece in pieces:
        assert piece.core.start % factor == 0 and piece.core.stop - piece.core.start <= max(tile_size, factor)
        assert piece.window.start == max(0, piece.core.start - margin * factor)
        assert piece.window.stop == min(length, piece.core.stop + margin * factor)


def test_moments_of_pieces_are_those_of_the_whole() -> None:
    """Of values whose mean is a thousand times their spread, which sums of squares in float32 would lose."""
    x = torch.randn(1, 3, 24, 40) + 1000.0
    layer = torch.nn.InstanceNorm2d(3)
    cuts = spans(24, 64, 8, 8), spans(40, 64, 8, 8)
    pieces = [Tile(row, column) for row in spans(24, 8, 8, 8) for column in spans(40, 16, 8, 8)]
    made = torch.zeros_like(x)

    def run(piece: Tile) -> None:
        rows, columns = piece.rows, piece.columns
        made[..., rows.core, columns.core] = piece.core_of(layer(x[..., rows.window, columns.window]))

    with StreamedNorms([layer]) as norms:
        norms.sweep(pieces, run, lambda number: None)
    expected = (x.double() - x.double().mean((2, 3), keepdim=True)) / (
        x.double().var((2, 3), keepdim=True, correction=0) + layer.eps
    ).sqrt()
    assert len(pieces) > len(cuts[0]) * len(cuts[1])
    assert (made - expected).abs().max() < 1e-3


def test_large_arrays_are_never_held_as_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only pieces of an 8-bit image are converted, and its result is 8-bit from the start."""
    image = prepare(noise((300, 200, 3)), RGB, "x")
    assert image.stored.dtype == torch.uint8
    canvas = Canvas(None, image, 3, RGB, "numpy")
    assert canvas.pixels.dtype == torch.uint8
    canvas.place(-3, 190, canvas.values(torch.ones(3, 10, 20)))
    filled = np.zeros((300, 200), bool)
    filled[:7, 190:] = True
    assert (canvas.pixels.numpy()[:, filled] == 255).all()
