"""What both networks share: saving to and loading from a folder or the Hugging Face Hub, strictly.

The only module that touches the Hub mixin. The mixin's own defaults load mismatched weights silently and start from
fresh weights where `config.json` is missing; here both are errors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from torch import Tensor, nn

from pix2pix_hub.errors import UserError
from pix2pix_hub.models.fetch import fetch_files

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


class HubModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="pix2pix-hub",
    pipeline_tag="image-to-image",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/1611.07004",
):
    """A network that is rebuilt from `config.json` (JSON values only) and `model.safetensors`."""

    hub_subfolder: ClassVar[str] = ""
    """Folder of a published repository (and of an export) that holds this network."""

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments: the content of `config.json` without `architecture`."""
        assert isinstance(self._hub_mixin_config, dict)
        return {key: value for key, value in self._hub_mixin_config.items() if key != "architecture"}

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        config = {"architecture": type(self).__name__, **self.config}
        (save_directory / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")

    def save_files(self, directory: str | Path) -> None:
        """Write `config.json` and `model.safetensors` and nothing else (`save_pretrained` adds a model card)."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._save_pretrained(Path(directory))

    @classmethod
    def from_pretrained(  # type: ignore[override]  # it takes no keyword arguments for the constructor
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        subfolder: str | None = None,
        strict: bool = True,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        map_location: str = "cpu",
    ) -> Self:
        """Load a network in evaluation mode.

        Args:
            pretrained_model_name_or_path: a local folder or a Hub repository id (`user/name`).
            subfolder: folder inside it; default: the one this network has in an export, where that exists.
            strict: every tensor of the file must belong to the network and the other way round.
            revision, token, cache_dir, force_download, local_files_only: as in `huggingface_hub`.
            map_location: device to load to.

        Raises:
            UserError: no such folder, no `config.json`, a config of another network, weights that do not fit.
        """
        subfolder = cls.hub_subfolder if subfolder is None else subfolder
        prefix = f"{subfolder}/" if subfolder else ""
        root = fetch_files(
            pretrained_model_name_or_path,
            [prefix + CONFIG_NAME, prefix + WEIGHTS_NAME],
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        folder = root / subfolder if (root / subfolder / CONFIG_NAME).is_file() else root
        cls._check_config(folder)
        return super().from_pretrained(folder, map_location=map_location, strict=strict)

    @classmethod
    def _check_config(cls, folder: Path) -> None:
        """Refuse a folder whose config is missing or describes another network."""
        path = folder / CONFIG_NAME
        if not path.is_file():
            raise UserError(f"{folder} holds no {CONFIG_NAME}: expected a folder written by {cls.__name__}.")
        try:
            config = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path} is not valid JSON ({error}): save the model again.") from error
        if not isinstance(config, dict):
            raise UserError(f"{path} must hold a JSON object, not {type(config).__name__}.")
        architecture = config.get("architecture")
        if architecture != cls.__name__:
            raise UserError(f"{path} describes {architecture or 'an unnamed network'}, expected {cls.__name__}.")
        unknown = sorted(set(config) - set(cls._hub_mixin_init_parameters) - {"architecture"})
        if unknown:
            raise UserError(f"{path} has options unknown to {cls.__name__}: {', '.join(unknown)}.")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, map_location: str = "cpu", strict: bool = True, **options: Any) -> Self:
        """Build the network and load the local file; `from_pretrained` has already fetched it."""
        hub_options = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        path = Path(model_id) / WEIGHTS_NAME
        if not path.is_file():
            raise UserError(f"{model_id} holds no {WEIGHTS_NAME}: only safetensors weights are loaded.")
        try:
            model = cls(**{name: value for name, value in options.items() if name not in hub_options})
            return cls._load_as_safetensor(model, str(path), map_location, strict)
        except (TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{path} does not fit {cls.__name__} as {CONFIG_NAME} describes it: {error}") from error


def check_image_batch(images: Tensor, channels: int, name: str) -> None:
    """Raise `ValueError` unless `images` is a float batch (N, `channels`, H, W)."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"{name} has shape {tuple(images.shape)}, expected (N, {channels}, H, W).")
    if not torch.is_floating_point(images):
        raise ValueError(f"{name} is {images.dtype}, expected floats in [-1, 1] (see pix2pix_hub.images).")
