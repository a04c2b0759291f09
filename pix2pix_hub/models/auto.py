"""A generator of whichever class its `config.json` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pix2pix_hub.models.base import Generator as Generator
from pix2pix_hub.models.base import load_network
from pix2pix_hub.models.generator import UNetGenerator
from pix2pix_hub.models.resnet_generator import ResNetGenerator

GENERATORS: dict[str, type[UNetGenerator] | type[ResNetGenerator]] = {
    "UNetGenerator": UNetGenerator,
    "ResNetGenerator": ResNetGenerator,
}


def load_generator(
    repo_or_folder: str | Path,
    *,
    map_location: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **hub_options: Any,
) -> Generator:
    """The generator of an export, in evaluation mode.

    Args:
        repo_or_folder: a local export, or a Hub repository id (`user/name`, `user/name@revision`).
        map_location: device to load to.
        dtype: of the loaded weights, whatever the file holds.
        **hub_options: `revision`, `token`, … of `fetch_files`.

    Raises:
        UserError: as `HubModel.from_pretrained`; or the config names none of `GENERATORS`.
    """
    network = load_network(
        repo_or_folder, list(GENERATORS.values()), map_location=map_location, dtype=dtype, **hub_options
    )
    assert isinstance(network, Generator)
    return network
