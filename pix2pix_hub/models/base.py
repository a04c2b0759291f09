"""What all networks share: saving to and loading from a folder or the Hugging Face Hub, strictly; seeded dropout.

The only module that touches the Hub mixin. The mixin's own way to load builds what any `config.json` asks for, loads
mismatched weights silently, starts from fresh weights where the config is missing, and falls back on pickles; here
`config.json` and the weights' header are checked before memory is spent, and only safetensors are read.
"""

from __future__ import annotations

import reprlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pix2pix_hub.export import CONFIG_NAME, WEIGHTS_NAME
from pix2pix_hub.models.fetch import commit_of, fetch_files, split_revision
from pix2pix_hub.util import UserError, read_object, write_aside, write_json

MAX_HEADER_BYTES = 4 << 20  # real ones have some ten thousand
LENGTH_BYTES = 8
NAMES_SHOWN = 4
FLOAT_TYPES = ("F32", "F16", "BF16", "F64")
COUNT_TYPES = ("I64",)
Seed = tuple[int, ...]  # non-negative

Network = TypeVar("Network", bound=nn.Module)
Model = TypeVar("Model", bound="HubModel")


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
    retired_options: ClassVar[Mapping[str, Any]] = {}
    """Arguments that earlier versions wrote into `config.json`, with the value that still means what is built."""

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in. It takes any floating dtype, and gives back the one that came."""
        return next(self.parameters()).dtype

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments: the content of `config.json` without `architecture`."""
        assert isinstance(self._hub_mixin_config, dict)
        return {key: value for key, value in self._hub_mixin_config.items() if key != "architecture"}

    def _save_pretrained(self, save_directory: Path) -> None:
        write_json(save_directory / CONFIG_NAME, {"architecture": type(self).__name__, **self.config})
        with write_aside(save_directory / WEIGHTS_NAME) as partial:
            save_model(self, str(partial))
            shutil.copymode(save_directory / CONFIG_NAME, partial)  # safetensors' files are for their owner alone

    def save_files(self, directory: str | Path) -> None:
        """Write `config.json` and `model.safetensors` and nothing else (`save_pretrained` adds a model card)."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._save_pretrained(Path(directory))

    def snapshot(self) -> Self:
        """A copy that keeps the values of this moment, on the same device, without hooks, wrappers and compilation."""
        network = build_empty(lambda: type(self)(**self.config))
        values = {name: value.clone() for name, value in self.state_dict().items()}
        network.load_state_dict(values, assign=True)
        return network

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
        return load_network(
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
    classes: Sequence[type[Model]],
    *,
    subfolders: Sequence[str] = ("",),
    map_location: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **hub_options: Any,
) -> Model:
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


def _read_config(path: Path, classes: Sequence[type[Model]]) -> tuple[type[Model], dict[str, Any]]:
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
    retired = found[0].retired_options
    config = {key: value for key, value in config.items() if key not in retired or value != retired[key]}
    known = list(found[0]._hub_mixin_init_parameters)[1:]  # without self
    unknown = [reprlib.repr(key) for key in config if key not in known]
    if unknown:
        raise UserError(f"{path} has options unknown to {name}: {some(unknown)}. Known ones: {', '.join(known)}.")
    return found[0], config


def _names(classes: Sequence[type[HubModel]]) -> str:
    return " or ".join(network_class.__name__ for network_class in classes)


def check_image_batch(images: Tensor, channels: int, name: str) -> None:
    """Raise `ValueError` unless `images` is a float batch (N, `channels`, H, W)."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"{name} has shape {tuple(images.shape)}, expected (N, {channels}, H, W).")
    if not torch.is_floating_point(images):
        raise ValueError(f"{name} is {images.dtype}, expected floats in [-1, 1] (see pix2pix_hub.image).")


# --- weights ---
#
# They go into a network that has none yet, built on the meta device, where tensors have shapes and no memory. The
# file's header names all tensors and must agree with it; safetensors itself sees to it that the file holds what its
# header says. So memory is bounded by the size of the file, whatever `config.json` asks for.


def build_empty(make: Callable[[], Network]) -> Network:
    """What `make` builds, on the meta device: shapes without memory."""
    with torch.device("meta"), _NothingComputed():
        return make()


class _NothingComputed(TorchFunctionMode):
    """Answers what initial weights and spectral norm's first power iterations ask for with the right shape at once.

    Left to the meta device the same takes seconds: most of these operations have Python kernels there, which import
    half of torch's compiler. An operation that is not listed is merely slow.
    """

    in_place = ("normal_", "uniform_", "kaiming_uniform_", "fill_", "zero_", "ones_", "zeros_", "normalize")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, options = getattr(func, "__name__", ""), kwargs or {}
        if name in self.in_place:
            return args[0] if args else options["tensor"]
        if name == "mv":
            return args[0].new_empty(args[0].shape[0])
        if name in ("vdot", "div"):
            return args[0].new_empty(() if name == "vdot" else args[0].shape)
        return func(*args, **options)


def load_weights(network: nn.Module, path: Path, device: str, dtype: torch.dtype) -> None:
    """Give `network`, built on the meta device, the tensors of the file.

    Args:
        network: of any module; every tensor is in its state dict.
        path: the safetensors file.
        device: where the tensors go.
        dtype: what floating point tensors become, whatever the file holds.

    Raises:
        UserError: the file is damaged, or its tensors are not exactly those of the network.
    """
    check_header_length(path)
    try:
        with safe_open(path, framework="pt") as file:
            _check_tensors(network, file, path)
            tensors = {}
            for name in file.keys():  # noqa: SIM118  # a handle, not a dict
                tensor = file.get_tensor(name)
                # Out of the mapped file into memory of its own. Used as mapped, the weights would change under the
                # network with the file, and lie at any byte, for which some kernels round otherwise.
                number_type = dtype if tensor.is_floating_point() else tensor.dtype
                tensors[name] = tensor.to(device, number_type, copy=True)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged, or no safetensors file ({error}): fetch or save it again.") from error
    network.load_state_dict(tensors, strict=True, assign=True)


def check_header_length(path: Path) -> None:
    """Raise `UserError` where the header of a safetensors file would be larger than any model's."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        raise UserError(
            f"{path} is damaged, or no safetensors file: its header would have {length} bytes, expected at most "
            f"{MAX_HEADER_BYTES}. Fetch or save it again."
        )


def _check_tensors(network: nn.Module, file: Any, path: Path) -> None:
    """Names, shapes and kinds of the file's tensors are those of the network."""
    expected: Mapping[str, Tensor] = network.state_dict()
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # a handle, not a dict
    misshapen, mistyped = [], []
    for name in expected.keys() & found.keys():
        shape, dtype, wanted = tuple(found[name].get_shape()), found[name].get_dtype(), expected[name]
        types = FLOAT_TYPES if wanted.is_floating_point() else COUNT_TYPES
        if shape != tuple(wanted.shape):
            misshapen.append(f"{name} {shape}, expected {tuple(wanted.shape)}")
        if dtype not in types:
            mistyped.append(f"{name} {dtype}, expected {' or '.join(types)}")
    faults = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "of another shape": sorted(misshapen),
        "of another type": sorted(mistyped),
    }
    words = [f"{kind}: {some(names)}" for kind, names in faults.items() if names]
    if words:
        values = sum(tensor.numel() for tensor in expected.values())
        raise UserError(
            f"{path} does not fit {type(network).__name__} as config.json describes it ({values:,} values in "
            f"{len(expected)} tensors). Tensors {'; '.join(words)}. Use config.json and weights of one export."
        )


def some(names: Sequence[str]) -> str:
    """The first few of a list of names, which may be anybody's, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(name[:200] for name in names[:NAMES_SHOWN]) + more


# --- dropout at inference
#
# The source of randomness in the paper (Isola et al. 2017, §3.1), repeatable image by image.


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
        self._hooks: list[Any] = []

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
