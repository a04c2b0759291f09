"""A large image in tiles, with the result that the whole would have: no seams to hide, in bounded memory.

Tiles look a margin beyond their core, as far as their result depends on it; norm layers use statistics of the whole
image. docs/tiling.md says what was measured, and what else was tried.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pix2pix_hub.inference.job import Job
from pix2pix_hub.inference.pieces import Piece, scaled
from pix2pix_hub.inference.splits import Split
from pix2pix_hub.inference.streamed_norms import StreamedNorms
from pix2pix_hub.models.dropout import SeededDropout
from pix2pix_hub.util import UserError

TILE_SIZE = 1024  # pixels
LEAST_TILE = 64  # pixels


def check_tile_size(tile_size: int) -> None:
    """Raises `UserError` for tiles too small to be worth it."""
    if tile_size < LEAST_TILE:
        raise UserError(f"tile_size is {tile_size}; expected {LEAST_TILE} pixels or more.")


def translate_in_tiles(
    job: Job,
    network: Split,
    to_device: Callable[[Tensor], Tensor],
    dropout: SeededDropout | None,
    step: Callable[[], object],
) -> None:
    """Fill the canvas.

    Args:
        job: what is to be made.
        network: the generator in parts.
        to_device: brings source pixels `(1, C, h, w)` to where the network is.
        dropout: active, told which window the network is about to see.
        step: called after each tile of each pass.
    """
    factor, pieces = network.factor, job.pieces(network)
    if dropout is not None:
        dropout.size = job.size
    inner = torch.empty(0)

    def source(piece: Piece) -> Tensor:
        if dropout is not None:
            dropout.window = piece.window
        rows, columns = piece.window
        return to_device(job.image.piece(job.rows.index[rows], job.columns.index[columns])[None])

    def head(piece: Piece) -> None:
        nonlocal inner
        made = network.head(source(piece))
        if not inner.numel():
            inner = made.new_empty(1, made.shape[1], job.rows.padded // factor, job.columns.padded // factor)
        inner[..., scaled(piece.rows.core, factor), scaled(piece.columns.core, factor)] = piece.core_of(made)

    def tail(piece: Piece) -> None:
        rows, columns = (scaled(window, factor) for window in piece.window)
        made = network.tail(inner[..., rows, columns] if network.has_body else None, source(piece))
        top, left = piece.rows.core.start - job.rows.before, piece.columns.core.start - job.columns.before
        job.canvas.place(top, left, piece.core_of(made)[0].float().cpu())

    with StreamedNorms(network.layers()) as norms:
        if network.has_body:
            norms.sweep(pieces, head, step)
            if dropout is not None:
                dropout.window = None
            inner = network.body(inner)
        norms.sweep(pieces, tail, step)
