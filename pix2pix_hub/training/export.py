"""The export: the folder that people share, made from a run and holding nothing private to it.

model/
    config.json model.safetensors preprocessor_config.json    the generator
    discriminator/config.json model.safetensors
    training_config.json metrics.json samples.png
    README.md                                                 where the command line trains: `hub/card.py`
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from pix2pix_hub.image.format import PREPROCESSOR_NAME
from pix2pix_hub.models import PatchGANDiscriminator
from pix2pix_hub.models.auto import Generator
from pix2pix_hub.util import public_name, write_folder_aside

TRAINING_CONFIG_NAME = "training_config.json"


def write_export(
    folder: Path,
    *,
    generator: Generator,
    discriminator: PatchGANDiscriminator,
    preprocessor: dict[str, Any],
    training_config: Path,
    metrics: dict[str, Any],
    samples: Path,
    complete: Callable[[Path, Path], None] | None = None,
) -> None:
    """Write `folder` whole, in place of what was there.

    Args:
        folder: where to.
        generator, discriminator: networks to export; their weights are saved as they are.
        preprocessor: content of `preprocessor_config.json`.
        training_config: file to copy, with local paths shortened.
        metrics: content of `metrics.json`.
        samples: sample grid to copy.
        complete: called last, with the folder as it is being filled and the one whose place it takes: adds files.
    """
    with write_folder_aside(folder) as partial:
        generator.save_files(partial)
        discriminator.save_files(partial / discriminator.hub_subfolder)
        _write_json(partial / PREPROCESSOR_NAME, preprocessor)
        _write_json(partial / "metrics.json", metrics)
        _write_json(partial / TRAINING_CONFIG_NAME, _shareable(json.loads(training_config.read_text())))
        shutil.copyfile(samples, partial / "samples.png")
        if complete is not None:
            complete(partial, folder)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def _shareable(training_config: dict[str, Any]) -> dict[str, Any]:
    """Without what says where folders lie on this machine."""
    content = json.loads(json.dumps(training_config))
    options = content["options"]
    content["dataset"]["id"] = public_name(content["dataset"]["id"])
    for name in ("dataset", "init_from"):
        options[name] = options[name] and public_name(options[name])
    if content["command"] is not None:
        content["command"] = shlex.join(_shareable_word(word) for word in shlex.split(content["command"]))
    return content


def _shareable_word(word: str) -> str:
    """Of a command that others can type: paths that lead out of the current folder, also in `--flag=path`, begin with
    `path/to/`; other words are as they are."""
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    path = Path(value)
    leads_out = path.is_absolute() or value.startswith("~") or ".." in path.parts
    return flag + equals + (f"path/to/{path.name}" if leads_out else value)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
