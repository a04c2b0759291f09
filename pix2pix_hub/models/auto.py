"""A generator of whichever class its `config.json` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pix2pix_hub.errors import UserError
from pix2pix_hub.models.base import CONFIG_NAME, WEIGHTS_NAME
from pix2pix_hub.models.fetch import fetch_files
from pix2pix_hub.models.generator import UNetGenerator

Generator = UNetGenerator
GENERATORS: dict[str, type[Generator]] = {"UNetGenerator": UNetGenerator}


def load_generator(repo_or_folder: str | Path, *, map_location: str = "cpu", **hub_options: Any) -> Generator:
    """The generator of an export, in evaluation mode.

    Args:
        repo_or_folder: a local export, or a Hub repository id (`user/name`).
        map_location: device to load to.
        **hub_options: `revision`, `token`, … of `fetch_files`.

    Raises:
        UserError: as `HubModel.from_pretrained`; or the config names none of `GENERATORS`.
    """
    folder = fetch_files(repo_or_folder, [CONFIG_NAME, WEIGHTS_NAME], **hub_options)
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise UserError(f"{folder} holds no {CONFIG_NAME}: expected an export (a run's model/ or model_best/).")
    try:
        name = json.loads(path.read_text())["architecture"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} names no architecture ({error!r}): save the model again.") from error
    if name not in GENERATORS:
        raise UserError(f"{path} describes {name!r}, which is no generator: expected one of {', '.join(GENERATORS)}.")
    return GENERATORS[name].from_pretrained(folder, map_location=map_location)
