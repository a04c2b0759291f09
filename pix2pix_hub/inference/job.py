"""What is to be made of one image."""

from __future__ import annotations

from dataclasses import dataclass

from pix2pix_hub.inference.inputs import Prepared
from pix2pix_hub.inference.padding import Axis
from pix2pix_hub.inference.pieces import Piece, spans
from pix2pix_hub.inference.results import Canvas
from pix2pix_hub.inference.splits import Split
from pix2pix_hub.inference.streamed_norms import StreamedNorms
from pix2pix_hub.models.dropout import Seed


@dataclass(frozen=True, eq=False)
class Job:
    """One sample of one image."""

    image: Prepared
    rows: Axis  # of the padded image
    columns: Axis
    canvas: Canvas  # where it is to be put
    seed: Seed | None  # of its dropout
    network: Split | None  # the generator in parts, where the image is to be cut into tiles
    tile_size: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the padded image."""
        return self.rows.padded, self.columns.padded

    def pieces(self, network: Split) -> list[Piece]:
        """The tiles, from the upper left."""
        rows, columns = (spans(length, self.tile_size, network.factor, network.margin) for length in self.size)
        return [Piece(row, column) for row in rows for column in columns]

    @property
    def steps(self) -> int:
        """Units of progress: 1, or passes over tiles: one for each norm layer, one for the inner map and the result."""
        if self.network is None:
            return 1
        passes = len(StreamedNorms(self.network.layers()).layers) + (2 if self.network.has_body else 1)
        return passes * len(self.pieces(self.network))
