"""Dropout at inference: the right share, of each sample its own, and the same in pieces as in the whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pix2pix_hub.models.base import SeededDropout, dropout_layers


def test_the_right_share_is_dropped_and_the_rest_scaled_up() -> None:
    network = nn.Dropout(0.25).eval()
    with SeededDropout(network, [(1,)]):
        made = network(torch.ones(1, 8, 100, 100))
    assert made.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (made == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(network(torch.ones(1, 2, 3, 3)), torch.ones(1, 2, 3, 3))


def test_samples_and_layers_drop_apart() -> None:
    """A seed gives the same in every batch; two layers of one shape differ."""
    network = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5)).eval()
    ones = torch.ones(2, 3, 20, 20)
    with SeededDropout(network, [(1,), (2,)]):
        pair = network(ones)
    with SeededDropout(network, [(2,)]):
        alone = network(ones[:1])
    assert torch.equal(pair[1:], alone) and not torch.equal(pair[:1], alone)
    assert (alone > 0).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_layers_that_drop_nothing_do_not_count() -> None:
    assert len(dropout_layers(nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.1)))) == 1
