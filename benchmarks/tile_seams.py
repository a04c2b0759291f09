"""What tiles do to an image: seams and distance to the image made whole, for several ways of tiling (docs/tiling.md).

    python benchmarks/tile_seams.py runs/synthetic_demo_001 --size 1536 --tile 512

MODEL: an export or run of a U-Net from façade labels, such as the first command of README trains. Prints a table:
`seam` is the gradient energy at the lines where tiles meet ÷ elsewhere, over the same of the image made whole (1: no
seam); `step` the mean jump of the error across those lines, and `rmse` the distance to the image made whole, both in
8-bit levels; `time` that of the whole = 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installation

from pix2pix_hub import Pix2PixPipeline
from pix2pix_hub.image.format import RGB, to_model_range, to_tensor
from pix2pix_hub.image.read import from_memory
from pix2pix_hub.inference.tiling import spans
from pix2pix_hub.models.base import Generator
from pix2pix_hub.synthetic import render_pair

Statistics = list[tuple[Tensor, Tensor]]  # mean and variance of each norm layer
Made = tuple[Tensor, list[int]]  # an image, and the lines where its tiles meet
FACADE = 128  # pixels that one façade is drawn at


# -------------------------------------------------------------------------------------------------------- pictures


def facade(number: int) -> Image.Image:
    """A label map that no model was trained on."""
    return render_pair(20_000 + number, size=(FACADE, FACADE), seed=0)[0].convert("RGB")


def street(size: int) -> Image.Image:
    """Many façades, each another."""
    picture = Image.new("RGB", (size, size))
    for number in range((size // FACADE) ** 2):
        row, column = divmod(number, size // FACADE)
        picture.paste(facade(number), (column * FACADE, row * FACADE))
    return picture


def half_blank(size: int) -> Image.Image:
    """The same, its left half one colour."""
    picture = street(size)
    picture.paste(picture.getpixel((2, 2)), (0, 0, size // 2, size))
    return picture


def enlarged(size: int) -> Image.Image:
    """One façade; most tiles see little else than wall."""
    return facade(1).resize((size, size), Image.Resampling.NEAREST)


# ------------------------------------------------------------------------------------------------------ statistics


def norm_layers(generator: Generator) -> list[nn.Module]:
    return [layer for layer in generator.modules() if isinstance(layer, nn.InstanceNorm2d)]


@contextmanager
def statistics_used(generator: Generator, given: Statistics | None, seen: Statistics) -> Iterator[None]:
    """Norm layers use those given, else those of the whole batch together, and note what they used."""
    layers = norm_layers(generator)

    def normalise(number: int, layer: nn.InstanceNorm2d, x: Tensor) -> Tensor:
        if given is None:
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        else:
            mean, variance = given[number]
        seen.append((mean, variance))
        return F.batch_norm(x, mean, variance, layer.weight, layer.bias, eps=layer.eps)

    for number, layer in enumerate(layers):
        layer.forward = partial(normalise, number, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def statistics_of(generator: Generator, batch: Tensor) -> Statistics:
    seen: Statistics = []
    with statistics_used(generator, None, seen):
        generator(batch)
    return seen


def crops(source: Tensor, count: int, size: int, multiple: int) -> Tensor:
    """`count` x `count` crops at even distances."""
    places = [multiple * round(number * (source.shape[-1] - size) / (count - 1) / multiple) for number in range(count)]
    return torch.cat([source[..., top : top + size, left : left + size] for top in places for left in places])


# ---------------------------------------------------------------------------------------------------------- tiling


def starts_along(length: int, tile: int, overlap: int, multiple: int) -> list[int]:
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    return [multiple * round(number * (length - tile) / max(1, count - 1) / multiple) for number in range(count)]


def blended(generator: Generator, source: Tensor, tile: int, overlap: int, given: Statistics | None) -> Made:
    """Overlapping tiles, each faded out linearly towards its borders; and the lines where neighbours weigh the same."""
    starts = starts_along(source.shape[-1], tile, overlap, generator.size_multiple)
    ramp = (torch.minimum(torch.arange(tile), torch.arange(tile).flip(0)) + 1.0).clamp(max=max(1, overlap))
    window = ramp[:, None] * ramp
    total, weight = torch.zeros_like(source), torch.zeros(source.shape[-2:])
    for top in starts:
        for left in starts:
            piece = source[..., top : top + tile, left : left + tile]
            if given is None:
                made = generator(piece)
            else:
                with statistics_used(generator, given, []):
                    made = generator(piece)
            total[..., top : top + tile, left : left + tile] += made * window
            weight[top : top + tile, left : left + tile] += window
    lines = [(first + tile + second) // 2 for first, second in zip(starts, starts[1:], strict=False)]
    return total / weight, lines


# ------------------------------------------------------------------------------------------------------- measuring


def seam(made: Tensor, whole: Tensor, lines: Sequence[int]) -> float:
    return _energy_ratio(made, lines) / _energy_ratio(whole, lines)


def _energy_ratio(image: Tensor, lines: Sequence[int]) -> float:
    """Squared differences of neighbours across the lines ÷ elsewhere, both ways."""
    ratios = []
    for turned in (image, image.transpose(-1, -2)):
        energy = turned.diff(dim=-1).square().mean((0, 1, 2))
        at_line = torch.zeros_like(energy, dtype=torch.bool)
        for line in lines:
            at_line[line - 2 : line + 1] = True
        ratios.append(float(energy[at_line].mean() / energy[~at_line].mean()))
    return sum(ratios) / 2


def step(made: Tensor, whole: Tensor, lines: Sequence[int], reach: int = 16) -> float:
    """How much the error, averaged over 16 pixels at either side and 32 along the line, jumps."""
    jumps = []
    for error in (made - whole, (made - whole).transpose(-1, -2)):
        for line in lines:
            across = error[..., line : line + reach].mean(-1) - error[..., line - reach : line].mean(-1)
            jumps.append(float(F.avg_pool1d(across, 32).abs().mean()) * 127.5)
    return sum(jumps) / len(jumps)


def rmse(made: Tensor, whole: Tensor) -> float:
    return float((made - whole).square().mean().sqrt()) * 127.5


def methods(pipe: Pix2PixPipeline, source: Tensor, tile: int) -> Iterator[tuple[str, Callable[[], Made]]]:
    """Name, and what makes the image."""
    generator, overlap = pipe.generator, tile // 4
    small = F.interpolate(source, size=(tile, tile), mode="bilinear", antialias=True)
    several = crops(source, 4, max(tile // 4, generator.minimum_size), generator.size_multiple)
    yield "each tile's own, no overlap", lambda: blended(generator, source, tile, 0, None)
    yield f"each tile's own, overlap {overlap}", lambda: blended(generator, source, tile, overlap, None)
    for name, batch in (("whole scaled down", small), ("16 crops together", several), ("whole", source)):
        yield (
            f"{name}, overlap {overlap}",
            lambda batch=batch: blended(generator, source, tile, overlap, statistics_of(generator, batch)),
        )
    yield "streamed, inner maps whole", lambda: streamed(pipe, source, tile)


def streamed(pipe: Pix2PixPipeline, source: Tensor, tile: int) -> Made:
    """What the pipeline does."""
    lines = [span.core.start for span in spans(source.shape[-1], tile, pipe.generator.size_multiple, 0)[1:]]
    return pipe(source[0], tile_size=tile)[None], lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--size", type=int, default=1536, help="height and width in pixels")
    parser.add_argument("--tile", type=int, default=512, help="pixels")
    options = parser.parse_args()
    pipe = Pix2PixPipeline.from_pretrained(options.model, device="cpu")
    say = sys.stdout.write
    say("| picture | statistics | seam | step | rmse | time |\n|---|---|---|---|---|---|\n")
    for draw in (street, half_blank, enlarged):
        picture = from_memory(draw(options.size), draw.__name__)
        source = to_model_range(to_tensor(picture, RGB, draw.__name__))[None]
        with torch.inference_mode():
            began = time.perf_counter()
            whole = pipe.generator(source)
            unit = time.perf_counter() - began
            for name, make in methods(pipe, source, options.tile):
                began = time.perf_counter()
                made, lines = make()
                took = (time.perf_counter() - began) / unit
                numbers = seam(made, whole, lines), step(made, whole, lines), rmse(made, whole)
                cells = [f"{number:.3f}" for number in numbers] + [f"{took:.1f}"]
                say(f"| {draw.__name__.replace('_', ' ')} | {name} | {' | '.join(cells)} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
