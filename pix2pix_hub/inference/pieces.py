"""Rectangles that an image is cut into, and where they lie in its maps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Span:
    """A piece's place along one axis, in pixels of the padded image."""

    window: slice  # what is looked at
    core: slice  # the part of it whose result counts; the cores of all pieces make up the image

    def within(self, factor: int = 1) -> slice:
        """Where the core lies in a map of the window whose pixels are `factor` image pixels wide."""
        start = (self.core.start - self.window.start) // factor
        return slice(start, start + (self.core.stop - self.core.start) // factor)


@dataclass(frozen=True)
class Piece:
    """A rectangle of an image."""

    rows: Span
    columns: Span

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns that are looked at."""
        return self.rows.window, self.columns.window

    def core_of(self, made: Tensor) -> Tensor:
        """Of a map `(…, h, w)` of the window, at any scale, the part that counts."""
        factor = (self.rows.window.stop - self.rows.window.start) // made.shape[-2]
        return made[..., self.rows.within(factor), self.columns.within(factor)]


def spans(length: int, tile_size: int, factor: int, margin: int) -> list[Span]:
    """Along one axis: cores of at most `tile_size` that begin at multiples of `factor`, as few and as even as can be;
    windows of `margin` more at both ends, where the image goes on."""
    units = length // factor
    count = -(-units // max(1, tile_size // factor))
    borders = [factor * (units * number // count) for number in range(count + 1)]
    return [
        Span(slice(max(0, start - margin), min(length, stop + margin)), slice(start, stop))
        for start, stop in zip(borders, borders[1:], strict=False)
    ]


def scaled(span: slice, factor: int) -> slice:
    """The same on a map `factor` times smaller."""
    return slice(span.start // factor, span.stop // factor)
