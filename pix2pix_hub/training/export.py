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

from pix2pix_hub.files import write_folder_aside
from pix2pix_hub.images import PREPROCESSOR_NAME
from pix2pix_hub.models import PatchGANDiscriminator
from pix2pix_hub.models.auto import Generator

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
    """Local paths shortened to their last part: where a folder lies is nobody else's business."""
    content = json.loads(json.dumps(training_config))
    options = content["options"]
    content["dataset"]["id"] = _last_part(content["dataset"]["id"])
    for name in ("dataset", "init_from", "resume_from_hub"):
        options[name] = options[name] and _last_part(options[name])
    if content["command"] is not None:
        content["command"] = shlex.join(_last_part(word) for word in shlex.split(content["command"]))
    return content


def _last_part(text: str) -> str:
    """Of a path, also in `--flag=path`; other texts as they are."""
    flag, equals, value = text.partition("=") if text.startswith("--") else ("", "", text)
    is_path = Path(value).is_absolute() or Path(value).exists()
    return flag + equals + (Path(value).name if is_path else value)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
