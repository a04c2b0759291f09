"""What all networks share: saving to and loading from a folder or the Hugging Face Hub, strictly.

The only module that touches the Hub mixin. The mixin's own way to load builds what any `config.json` asks for, loads
mismatched weights silently, starts from fresh weights where the config is missing, and falls back on pickles; here
`config.json` and the weights' header are checked before memory is spent, and only safetensors are read.
"""

from __future__ import annotations

import json
import reprlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save_model
from torch import Tensor, nn

from pix2pix_hub.models.fetch import commit_of, fetch_files, split_revision
from pix2pix_hub.models.weights import build_empty, load_weights
from pix2pix_hub.util import UserError, read_object, write_aside

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
        config = {"architecture": type(self).__name__, **self.config}
        with write_aside(save_directory / CONFIG_NAME) as partial:
            partial.write_text(json.dumps(config, indent=2) + "\n")
        with write_aside(save_directory / WEIGHTS_NAME) as partial:
            save_model(self, str(partial))
            shutil.copymode(save_directory / CONFIG_NAME, partial)  # safetensors' files are for their owner alone

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
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        map_location: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load a network in evaluation mode. Every tensor of the file belongs to it and the other way round.

        Args:
            pretrained_model_name_or_path: a local folder or a Hub repository id (`user/name`, `user/name@revision`).
            subfolder: folder inside it; default: the one this network has in an export, where that exists.
            revision, token, cache_dir, force_download, local_files_only: as in `huggingface_hub`.
            map_location: device to load to.
            dtype: of the loaded weights, whatever the file holds.

        Raises:
            UserError: as `fetch_files`; no `config.json`, a config of another network or with values that cannot
                work, weights that do not fit.
        """
        network = load_network(
            pretrained_model_name_or_path,
            [cls],
            subfolders=list(dict.fromkeys((cls.hub_subfolder, ""))) if subfolder is None else [subfolder],
            map_location=map_location,
            dtype=dtype,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        assert isinstance(network, cls)
        return network


class Generator(HubModel):
    """Source image → generated image of the same size. What every generator tells about itself."""

    in_channels: int
    out_channels: int
    size_multiple: int
    """Height and width of a source must be multiples of this many pixels."""
    minimum_size: int
    """Height and width of a source, at least (pixels); a multiple of `size_multiple`."""

    def check_source(self, source: Tensor) -> None:
        """Raise `ValueError` unless `source` is a float batch (N, in_channels, H, W) of a size that works."""
        check_image_batch(source, self.in_channels, "source")
        height, width = source.shape[-2:]
        step, least = self.size_multiple, self.minimum_size
        if height % step or width % step or min(height, width) < least:
            fitting = "x".join(str(max(least, -(-side // step) * step)) for side in (height, width))
            raise ValueError(
                f"source is {height}x{width}: height and width must be multiples of {step}, from {least}; the next "
                f"size that works is {fitting}."
            )


def load_network(
    repo_or_folder: str | Path,
    classes: Sequence[type[HubModel]],
    *,
    subfolders: Sequence[str] = ("",),
    map_location: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **hub_options: Any,
) -> HubModel:
    """The network, one of `classes`, of the first of `subfolders` with a `config.json`, in evaluation mode.

    The config is looked at before the weights are fetched. `hub_options` are those of `fetch_files`.

    Raises:
        UserError: as `HubModel.from_pretrained`.
    """
    folders = [f"{subfolder}/" if subfolder else "" for subfolder in subfolders]
    root = fetch_files(repo_or_folder, [folder + CONFIG_NAME for folder in folders], **hub_options)
    present = [folder for folder in folders if (root / folder / CONFIG_NAME).is_file()]
    if not present:
        raise UserError(
            f"{repo_or_folder} holds no {folders[0]}{CONFIG_NAME}: expected an export (a run's model/ or model_best/) "
            f"or a folder written by {_names(classes)}."
        )
    network_class, options = _read_config(root / present[0] / CONFIG_NAME, classes)
    place = repo_or_folder
    if commit := commit_of(root):  # weights of the same commit, whatever is pushed meanwhile
        place, hub_options["revision"] = split_revision(str(repo_or_folder))[0], commit
    root = fetch_files(place, [present[0] + WEIGHTS_NAME], **hub_options)
    weights = root / present[0] / WEIGHTS_NAME
    if not weights.is_file():
        raise UserError(
            f"{repo_or_folder} holds no {present[0]}{WEIGHTS_NAME}, and pickled weights (.bin, .pth, .pt) are never "
            "loaded, since they can run code. Save the model again with this version."
        )
    try:
        network = build_empty(lambda: network_class(**options))
    except ValueError as error:
        raise UserError(f"{repo_or_folder}: {present[0]}{CONFIG_NAME} cannot be built: {error}") from error
    load_weights(network, weights, map_location, dtype)
    return network.eval()


def _read_config(path: Path, classes: Sequence[type[HubModel]]) -> tuple[type[HubModel], dict[str, Any]]:
    """Class and constructor arguments that a config names.

    Raises:
        UserError: as `read_object`; of no network of `classes`, with options it does not have.
    """
    config = read_object(path)
    name = config.pop("architecture", None)
    found = [network_class for network_class in classes if network_class.__name__ == name]
    if not found:
        described = "an unnamed network" if name is None else reprlib.repr(name).strip("'")
        raise UserError(f"{path} describes {described}, expected {_names(classes)}.")
    known = list(found[0]._hub_mixin_init_parameters)[1:]  # without self
    unknown = [reprlib.repr(key) for key in config if key not in known]
    if unknown:
        some = ", ".join(unknown[:10])
        raise UserError(f"{path} has options unknown to {name}: {some}. Known ones: {', '.join(known)}.")
    return found[0], config


def _names(classes: Sequence[type[HubModel]]) -> str:
    return " or ".join(network_class.__name__ for network_class in classes)


def check_image_batch(images: Tensor, channels: int, name: str) -> None:
    """Raise `ValueError` unless `images` is a float batch (N, `channels`, H, W)."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"{name} has shape {tuple(images.shape)}, expected (N, {channels}, H, W).")
    if not torch.is_floating_point(images):
        raise ValueError(f"{name} is {images.dtype}, expected floats in [-1, 1] (see pix2pix_hub.image).")
