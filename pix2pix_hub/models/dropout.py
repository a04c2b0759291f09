"""Dropout at inference, the source of randomness in the paper (Isola et al. 2017, §3.1), repeatable image by image."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Seed = tuple[int, ...]  # non-negative


def dropout_layers(network: nn.Module) -> list[nn.Dropout]:
    """Those that drop anything."""
    return [module for module in network.modules() if isinstance(module, nn.Dropout) and module.p > 0]


@contextmanager
def seeded_dropout(network: nn.Module, seeds: Sequence[Seed]) -> Iterator[None]:
    """Inside, a network in evaluation mode drops activations, of each sample of a batch by a seed of its own.

    What is dropped depends on the seed, the layer and the map's shape, on nothing else: not on the rest of the batch,
    nor on the device. All other layers stay in evaluation mode.
    """
    hooks = [
        layer.register_forward_hook(_Drop(layer.p, number, seeds))
        for number, layer in enumerate(dropout_layers(network))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Drop:
    """A forward hook: what the layer passed on → the same with activations dropped, the others scaled up."""

    def __init__(self, probability: float, layer: int, seeds: Sequence[Seed]) -> None:
        self.probability, self.layer, self.seeds = probability, layer, seeds

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        kept = torch.stack([self._kept(seed, output.shape[1:]) for seed in self.seeds])
        return output * kept.to(output.device) / (1.0 - self.probability)

    def _kept(self, seed: Seed, shape: torch.Size) -> Tensor:
        state = np.random.SeedSequence((*seed, self.layer)).generate_state(1, np.uint64)
        return torch.rand(shape, generator=torch.Generator().manual_seed(int(state[0]))) >= self.probability


def content_seed(stored: Tensor) -> int:
    """A number that follows from an image's values, so that its noise depends on nothing else it comes with."""
    return zlib.crc32(stored.contiguous().numpy().tobytes())
