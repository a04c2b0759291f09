"""A published model as the beginning of a run: `--init-from` fine-tunes it.

An export holds weights (of the generator the moving average), but neither optimizers nor random states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import signature
from pathlib import Path
from typing import Any

from accelerate import PartialState

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.data.preprocessor import Preprocessor
from pix2pix_hub.image.format import PREPROCESSOR_NAME, PixelFormat
from pix2pix_hub.models import PatchGANDiscriminator, UNetGenerator
from pix2pix_hub.models.auto import GENERATORS, Generator, load_generator
from pix2pix_hub.models.base import CONFIG_NAME, WEIGHTS_NAME, HubModel
from pix2pix_hub.models.fetch import commit_of, export_of, fetch_files
from pix2pix_hub.training.checkpoint import newest_sound_checkpoint
from pix2pix_hub.util import UserError, read_object

DISCRIMINATOR = PatchGANDiscriminator.hub_subfolder
FACTS = (CONFIG_NAME, f"{DISCRIMINATOR}/{CONFIG_NAME}", PREPROCESSOR_NAME)
WEIGHTS = (WEIGHTS_NAME, f"{DISCRIMINATOR}/{WEIGHTS_NAME}")
OPTIONS = {field.name for field in fields(TrainingConfig)}
# These may differ from the published network's.
NOT_IN_WEIGHTS = {"dropout", "dropout_stages", "first_dropout_stage", "norm_statistics"}
STRUCTURE = {"in_channels", "out_channels", "num_blocks"}  # of the pairs, and of `--generator`


@dataclass(frozen=True)
class Published:
    """The files of a published model, in a folder."""

    name: str  # as it was given
    folder: Path

    @property
    def has_discriminator(self) -> bool:
        """Exports of our own have one; converted ones need not."""
        return (self.folder / DISCRIMINATOR / CONFIG_NAME).is_file()

    @property
    def commit(self) -> str | None:
        """On the Hub; None for a folder of this machine."""
        return commit_of(self.folder)

    def describe(self) -> str:
        """A line for people."""
        commit = f" (commit {self.commit[:12]})" if self.commit else ""
        return f"{self.name}{commit}{'' if self.has_discriminator else ' and a new discriminator, since it has none'}"

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file's object, {} where there is no such file.

        Raises:
            UserError: the file is damaged.
        """
        try:
            return read_object(self.folder / name)
        except UserError as error:
            raise UserError(f"--init-from {self.name}: {error}") from error

    def load(self) -> tuple[Generator, PatchGANDiscriminator | None]:
        """Both networks, on the CPU.

        Raises:
            UserError: weights missing, damaged or of another architecture.
        """
        try:
            generator = load_generator(self.folder)
            judge = PatchGANDiscriminator.from_pretrained(self.folder) if self.has_discriminator else None
        except UserError as error:
            raise UserError(f"--init-from {self.name}: {error}") from error
        return generator, judge

    def give_weights(self, generator: Generator, discriminator: PatchGANDiscriminator) -> None:
        """Put the published weights into both networks (a discriminator that there is none of stays as it is).

        Raises:
            UserError: as `load`; the networks are not the published ones' kind.
        """
        for theirs, ours in zip(self.load(), (generator, discriminator), strict=True):
            if theirs is not None:
                self._check_same_network(theirs, ours)
                ours.load_state_dict(theirs.state_dict())

    def _check_same_network(self, theirs: HubModel, ours: HubModel) -> None:
        kinds = {"architecture": (type(theirs).__name__, type(ours).__name__)}
        options = {name: (theirs.config[name], ours.config.get(name)) for name in theirs.config}
        differing = {
            name: f"{name} {there} (here {here})"
            for name, (there, here) in (kinds | options).items()
            if there != here and name not in NOT_IN_WEIGHTS
        }
        if not differing:
            return
        raise UserError(
            f"--init-from {self.name}: its {type(theirs).__name__} has {', '.join(differing.values())}. Leave out the "
            "options that change it; channels come from the pairs, and num_downs needs an --image-size as large."
        )

    def check_trainable(self) -> None:
        """The generator is one that training options build.

        Raises:
            UserError: it has layers that no option asks for, as huggan's; says what to type instead.
        """
        config = self.read(CONFIG_NAME)
        known = OPTIONS | NOT_IN_WEIGHTS | STRUCTURE
        defaults = signature(GENERATORS.get(str(config.get("architecture")), UNetGenerator)).parameters
        others = {name: value for name, value in config.items() if name in defaults and name not in known}
        foreign = [f"{name} {value}" for name, value in others.items() if value != defaults[name].default]
        if foreign:
            raise UserError(
                f"--init-from {self.name}: its generator has layers of another project ({', '.join(foreign)}), which "
                "no training option builds. It translates as it is (`pix2pix-hub translate`), but cannot be trained "
                f"further: leave --init-from out and train anew (--preset paper is nearest to it), or begin with a "
                "model trained here or converted from pytorch-CycleGAN-and-pix2pix."
            )

    def check_formats(self, formats: Mapping[str, PixelFormat]) -> None:
        """The pairs have the channels that the published model was trained on, with the same meaning.

        Raises:
            UserError: for a side that does not.
        """
        if not (self.folder / PREPROCESSOR_NAME).is_file():
            return  # a bare network; its channels are looked at with the weights
        published = Preprocessor.from_folder(self.folder)
        for side, there in (("source", published.source), ("target", published.target)):
            here = formats[side]
            if (there.mode, there.channels, there.classes) != (here.mode, here.channels, here.classes):
                mode = there.mode if there.mode != "channels" else "auto"
                raise UserError(
                    f"--init-from {self.name}: its {side} images are {there.describe()}, those of these pairs are "
                    f"{here.describe()}: try --{side}-mode {mode}, another --direction, or other pairs."
                )


def find_start(config: TrainingConfig, run_folder: Path, state: PartialState) -> Published | None:
    """The published model that the run in `run_folder` begins with now, fetched by one process for all; None: none.

    Raises:
        UserError: see `fetch_published`.
    """
    if config.resume and newest_sound_checkpoint(run_folder) is not None:
        return None  # it began long ago
    if config.init_from is None:
        return None
    with state.local_main_process_first():
        published = fetch_published(config.init_from)
    published.check_trainable()  # what is wrong with it is said before any pair is read
    published.load()
    return published


def fetch_published(name: str, weights: bool = True) -> Published:
    """The model `name`: an export, a run (its `model/`), or `user/name[@revision]`.

    Raises:
        UserError: see `fetch_files`.
    """
    try:
        folder = fetch_files(export_of(name), FACTS + (WEIGHTS if weights else ()))
    except UserError as error:
        raise UserError(f"--init-from {name}: {error}") from error
    return Published(name, folder)


def architecture_options(published: Published) -> dict[str, Any]:
    """The training options that build networks of the published kind, and the image size they were trained at.

    Raises:
        UserError: damaged files, or a generator that no option builds.
    """
    published.check_trainable()
    config, judge = published.read(CONFIG_NAME), published.read(f"{DISCRIMINATOR}/{CONFIG_NAME}")
    options = {name: value for name, value in config.items() if name in OPTIONS}
    options["generator"] = "unet" if "num_blocks" not in config else f"resnet_{config['num_blocks']}"
    if judge:
        options["discriminator_base_channels"] = judge.get("base_channels")
        options |= {name: judge[name] for name in ("output_stride", "spectral_norm") if name in judge}
    if (published.folder / PREPROCESSOR_NAME).is_file():
        options["image_size"] = "{}x{}".format(*Preprocessor.from_folder(published.folder).image_size)
    return options
