"""Norm layers that see an image piece by piece and normalise by the statistics of the whole.

Instance norm takes mean and variance over all pixels of a map. In a piece of an image they are others than in the whole
(a piece of blank wall has no contrast at all), so that each piece would be painted in a style of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn

from pix2pix_hub.inference.pieces import Piece
from pix2pix_hub.models.layers import BatchNorm2d


class _MeasuredInstead(Exception):  # noqa: N818  (ends a forward, is no error)
    """A norm layer was reached whose statistics were not known yet."""


class StreamedNorms:
    """Inside this context, layers use statistics of the whole image, which `sweep` finds out layer by layer."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self.layers = [layer for layer in layers if _per_image(layer)]
        self._scale_shift: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._piece: Piece | None = None
        self._layer: nn.Module | None = None  # that is being measured, and where its input lies
        self._device = torch.device("cpu")
        self._moments = _Moments()

    def __enter__(self) -> StreamedNorms:
        for layer in self.layers:
            layer.forward = partial(self._normalise, layer)
        return self

    def __exit__(self, *error: object) -> None:
        for layer in self.layers:
            del layer.forward

    def sweep(self, pieces: Sequence[Piece], run: Callable[[Piece], object], step: Callable[[], object]) -> None:
        """Run over all pieces, once for each layer met whose statistics are not known, and at last to the end.

        `step` is called after each piece of each pass.
        """
        while True:
            for piece in pieces:
                self._piece = piece
                with suppress(_MeasuredInstead):
                    run(piece)
                step()
            if self._layer is None:
                return
            self._settle()

    def _normalise(self, layer: nn.Module, x: Tensor) -> Tensor:
        """In place of the layer's forward."""
        if layer not in self._scale_shift:
            assert self._piece is not None and self._layer in (None, layer)
            self._layer, self._device = layer, x.device
            self._moments.add(self._piece.core_of(x))
            raise _MeasuredInstead
        scale, shift = self._scale_shift[layer]
        return torch.addcmul(shift, x.float(), scale).to(x.dtype)

    def _settle(self) -> None:
        """All pieces have been seen: from now on the layer can normalise."""
        layer = self._layer
        assert isinstance(layer, nn.InstanceNorm2d | BatchNorm2d)
        mean, variance = self._moments.result()
        scale = (variance + layer.eps).rsqrt()
        shift = -mean * scale
        if layer.weight is not None:
            weight, bias = layer.weight.cpu().double(), layer.bias.cpu().double()
            scale, shift = scale * weight, shift * weight + bias
        scale, shift = (part.float().to(self._device)[:, None, None] for part in (scale, shift))
        self._scale_shift[layer] = scale, shift
        self._layer, self._moments = None, _Moments()


class _Moments:
    """Mean and variance of each channel over pieces (Chan et al. 1979: exact, and safe where the mean is large)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """`(1, C, h, w)`."""
        count = x[0, 0].numel()
        # to the CPU, since not every accelerator has float64
        variance, mean = (part.cpu().double() for part in torch.var_mean(x.float(), (0, 2, 3), correction=0))
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + variance * count + delta.square() * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance, `(C,)` in float64 on the CPU."""
        return self.mean, self.squares / self.count


def _per_image(layer: nn.Module) -> bool:
    """Whether it takes statistics from the image, not from training."""
    if isinstance(layer, BatchNorm2d):
        return layer.statistics == "image"
    return isinstance(layer, nn.InstanceNorm2d)
