"""Dropout at inference, the source of randomness in the paper (Isola et al. 2017, §3.1), repeatable image by image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Seed = tuple[int, ...]  # non-negative


def dropout_layers(network: nn.Module) -> list[nn.Dropout]:
    """Those that drop anything."""
    return [module for module in network.modules() if isinstance(module, nn.Dropout) and module.p > 0]


class SeededDropout:
    """Inside this context, a network in evaluation mode drops activations, of each sample of a batch by its own seed.

    What is dropped depends on the seed, the layer and the shape of the whole map, on nothing else: not on the rest of
    the batch, nor on the device, nor on the pieces that an image is made in. All other layers stay in evaluation mode.

    Attributes:
        window: rows and columns of the image that the network is about to see; None: all.
        size: height and width of the image, which windows need.
    """

    def __init__(self, network: nn.Module, seeds: Sequence[Seed]) -> None:
        self.layers, self.seeds = dropout_layers(network), seeds
        self.window: tuple[slice, slice] | None = None
        self.size = (0, 0)
        self._kept: dict[tuple[int, Seed], Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> SeededDropout:
        self._hooks = [
            layer.register_forward_hook(partial(self._drop, number)) for number, layer in enumerate(self.layers)
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _drop(self, number: int, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """A forward hook: what the layer passed on → the same with activations dropped, the others scaled up."""
        assert isinstance(layer, nn.Dropout)
        kept = torch.stack([self._kept_part(number, layer.p, seed, output.shape[1:]) for seed in self.seeds])
        return output * kept.to(output.device) / (1.0 - layer.p)

    def _kept_part(self, number: int, probability: float, seed: Seed, shape: torch.Size) -> Tensor:
        """Boolean `(C, h, w)`: what of the present window is kept."""
        if self.window is None:
            return _kept((*seed, number), probability, shape)
        rows, columns = self.window
        factor = (rows.stop - rows.start) // shape[1]
        whole = torch.Size((shape[0], self.size[0] // factor, self.size[1] // factor))
        if (number, seed) not in self._kept:
            self._kept[number, seed] = _kept((*seed, number), probability, whole)
        return self._kept[number, seed][
            :, rows.start // factor : rows.stop // factor, columns.start // factor : columns.stop // factor
        ]


def _kept(seed: Seed, probability: float, shape: torch.Size) -> Tensor:
    """Drawn channel by channel: the numbers themselves would take four times the memory."""
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    random = torch.Generator().manual_seed(int(state[0]))
    return torch.stack([torch.rand(shape[1:], generator=random) >= probability for _ in range(shape[0])])
