"""A published model as the beginning of a run: `--init-from` fine-tunes it.

An export holds weights (of the generator the moving average), but neither optimizers nor random states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from accelerate import PartialState

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.devices import sharing_failures
from pix2pix_hub.export import (
    CONFIG_NAME,
    DISCRIMINATOR,
    DISCRIMINATOR_FILES,
    GENERATOR_FILES,
    PREPROCESSOR_NAME,
    WEIGHTS_NAME,
    Export,
    Preprocessor,
    export_of,
)
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.models import PatchGANDiscriminator, load_generator
from pix2pix_hub.models.base import Generator
from pix2pix_hub.models.fetch import commit_of, fetch_files
from pix2pix_hub.util import UserError

# These may differ from the published network's.
NOT_IN_WEIGHTS = {"dropout", "dropout_stages", "first_dropout_stage", "norm_statistics"}


class Published:
    """Both networks of a published model, loaded on the CPU, for `give_weights`.

    Args:
        name: as it was given to `--init-from`.
        folder: of its files.

    Raises:
        UserError: weights missing, damaged or of another architecture.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        self.commit = commit_of(folder)  # on the Hub; None for a folder of this machine
        judge = PatchGANDiscriminator.from_pretrained(folder) if Export(folder).has_discriminator else None
        self._networks: tuple[Generator, PatchGANDiscriminator | None] | None = load_generator(folder), judge
        commit = f" (commit {self.commit[:12]})" if self.commit else ""
        self.description = f"{name}{commit}{'' if judge else ' and a new discriminator, since it has none'}"

    def give_weights(self, generator: Generator, discriminator: PatchGANDiscriminator) -> None:
        """Put the loaded weights into both networks (a discriminator that there is none of stays as it is), once.

        Raises:
            UserError: the networks are not the published ones' kind.
        """
        assert self._networks is not None, "they were given before"
        for theirs, ours in zip(self._networks, (generator, discriminator), strict=True):
            if theirs is None:
                continue
            kinds = {"architecture": (type(theirs).__name__, type(ours).__name__)}
            options = {name: (theirs.config[name], ours.config.get(name)) for name in theirs.config}
            differing = [
                f"{name} {there} (here {here})"
                for name, (there, here) in (kinds | options).items()
                if there != here and name not in NOT_IN_WEIGHTS
            ]
            if differing:
                raise UserError(
                    f"--init-from {self.name}: its {type(theirs).__name__} has {', '.join(differing)}. Leave out the "
                    "options that change it; channels come from the pairs, and num_downs needs an --image-size as "
                    "large."
                )
            ours.load_state_dict(theirs.state_dict())
        self._networks = None  # their memory is wanted for training

    def check_formats(self, formats: Mapping[str, PixelFormat]) -> None:
        """The pairs have the channels that the published model was trained on, with the same meaning.

        Raises:
            UserError: for a side that does not.
        """
        if not (self._folder / PREPROCESSOR_NAME).is_file():
            return  # a bare network; its channels are looked at with the weights
        published = Preprocessor.from_folder(self._folder)
        for side, there in (("source", published.source), ("target", published.target)):
            here = formats[side]
            if (there.mode, there.channels, there.classes) != (here.mode, here.channels, here.classes):
                mode = there.mode if there.mode != "channels" else "auto"
                raise UserError(
                    f"--init-from {self.name}: its {side} images are {there.describe()}, those of these pairs are "
                    f"{here.describe()}: try --{side}-mode {mode}, another --direction, or other pairs."
                )


def find_start(config: TrainingConfig, state: PartialState) -> Published | None:
    """The published model that a run begins with, fetched by one process of each machine; None: none.

    Raises:
        UserError: see `fetch_files` and `Published`.
    """
    if config.init_from is None:
        return None
    with _naming(config.init_from):
        for turn in (True, False):
            with sharing_failures():
                if state.is_local_main_process == turn:
                    folder = fetch_files(export_of(config.init_from), GENERATOR_FILES + DISCRIMINATOR_FILES)
                    published = Published(config.init_from, folder)  # whose faults are named before pairs are read
    return published


def architecture_options(name: str) -> dict[str, Any]:
    """The training options that build networks of the kind of model `name`, and the image size it was trained at.

    Args:
        name: an export, a run (its `model/`), or `user/name[@revision]`.

    Raises:
        UserError: see `fetch_files`; damaged files.
    """
    with _naming(name):
        files = [file for file in GENERATOR_FILES + DISCRIMINATOR_FILES if not file.endswith(WEIGHTS_NAME)]
        published = Export(fetch_files(export_of(name), files))
        config, judge = published.read(CONFIG_NAME), published.read(f"{DISCRIMINATOR}/{CONFIG_NAME}")
        known = {field.name for field in fields(TrainingConfig)}
        options = {option: value for option, value in config.items() if option in known}
        options["generator"] = "unet" if "num_blocks" not in config else f"resnet_{config['num_blocks']}"
        if judge:
            options["discriminator_base_channels"] = judge.get("base_channels")
            options |= {option: judge[option] for option in ("output_stride", "spectral_norm") if option in judge}
        if (published.folder / PREPROCESSOR_NAME).is_file():
            options["image_size"] = "{}x{}".format(*published.pixels["image_size"])
        return options


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Make errors say that they come from `--init-from`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"--init-from {name}: {error}") from error
