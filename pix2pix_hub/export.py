"""The export: the folder that people share, and the repository that it becomes. Which files it has, writing one, and
reading one, which may be anybody's.

    runs/<name>/model/                                            or model_best/
        config.json model.safetensors preprocessor_config.json    the generator
        discriminator/config.json model.safetensors
        training_config.json metrics.json samples.png             what the run was
        README.md                                                 the card: `hub/card.py`
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pix2pix_hub.config import MakerOptions
from pix2pix_hub.image.read import FULL_SCALE, PICTURE_MODES
from pix2pix_hub.image.tiff import MAX_CHANNELS
from pix2pix_hub.util import UserError, is_own_file, public_name, read_object, write_folder_aside

if TYPE_CHECKING:
    from pix2pix_hub.image.format import PixelFormat  # brings PyTorch with it

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
DISCRIMINATOR = "discriminator"  # folder of its two files
PREPROCESSOR_NAME = "preprocessor_config.json"
TRAINING_CONFIG_NAME, METRICS_NAME, SAMPLES_NAME = "training_config.json", "metrics.json", "samples.png"
CARD_NAME, CURVES_NAME = "README.md", "curves.png"  # the curves lie in the run, and in the shipped model

GENERATOR_FILES = (CONFIG_NAME, WEIGHTS_NAME, PREPROCESSOR_NAME)
DISCRIMINATOR_FILES = (f"{DISCRIMINATOR}/{CONFIG_NAME}", f"{DISCRIMINATOR}/{WEIGHTS_NAME}")
EXPORT_FILES = (
    CARD_NAME,
    *GENERATOR_FILES,
    *DISCRIMINATOR_FILES,
    TRAINING_CONFIG_NAME,
    METRICS_NAME,
    SAMPLES_NAME,
)
MODEL, BEST_MODEL = EXPORT_FOLDERS = ("model", "model_best")  # of a run

MAX_SIDE, MAX_MULTIPLE = 2**16, 2**12
HALVES = ("left", "right")
FLOAT_MAX = 1e30  # beyond which float32 computes infinities


def export_in(place: Path, *, best: bool = False) -> Path | None:
    """The folder itself where it is an export; else that of a run: `model/`, `model_best/` with `best`."""
    places = [place / BEST_MODEL] if best else [place, place / MODEL]
    return next((folder for folder in places if os.path.isfile(folder / CONFIG_NAME)), None)


def export_of(repo_or_folder_or_run: str | Path) -> str | Path:
    """The export in a folder of this machine; anything else, as the id of a repository, as it is."""
    return export_in(local_path(repo_or_folder_or_run)) or repo_or_folder_or_run


def local_path(name: str | Path) -> Path:
    """Where on this machine `name` would be; whatever it is, `os.path` says of it whether it is there, or no."""
    return Path(os.path.expanduser(name))


# --- reading ---


class Export:
    """The files of an export that say what it is; anybody's: bounded, and checked where there is something to check.

    Args:
        folder: where they lie; of a published model that of the Hub's cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        """Whether it has a file of its own of that name: what a link leads to is not shown to anybody."""
        return (self.folder / name).is_file() and is_own_file(self.folder / name, self.folder)

    @property
    def has_discriminator(self) -> bool:
        """Exports of our own have one; converted ones need not."""
        return (self.folder / DISCRIMINATOR / CONFIG_NAME).is_file()

    def check_whole(self) -> None:
        """Raise `UserError` unless everything that a generator needs is there, and nothing that lies elsewhere."""
        if missing := [name for name in GENERATOR_FILES if not (self.folder / name).is_file()]:
            raise UserError(f"{self.folder} is no whole export: {', '.join(missing)} missing. Name a run's model/.")
        if linked := [name for name in EXPORT_FILES if not is_own_file(self.folder / name, self.folder)]:
            raise UserError(
                f"{self.folder} has links to files that lie elsewhere, which would be published: {', '.join(linked)}. "
                "Put the files themselves in their place if they may be."
            )

    def read(self, name: str) -> dict[str, Any]:
        """The object of a JSON file; {} where there is no such file.

        Raises:
            UserError: as `read_object`.
        """
        return read_object(self.folder / name)

    @cached_property
    def run(self) -> dict[str, Any]:
        """What the run was: the content of `training_config.json`. Raises as `read`."""
        return self.read(TRAINING_CONFIG_NAME)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`: where the run stood, and name → {"value": …}. Raises as `read`."""
        return self.read(METRICS_NAME)

    @cached_property
    def pixels(self) -> dict[str, Any]:
        """The content of `preprocessor_config.json`, checked.

        Raises:
            UserError: the file is missing, or does not say what it should.
        """
        path = self.folder / PREPROCESSOR_NAME
        if not path.is_file():
            raise UserError(
                f"{self.folder} holds no {PREPROCESSOR_NAME}, which says how to read images: expected an export (a "
                "run's model/ or model_best/) or the Hub repository of one. A bare generator loads with "
                "UNetGenerator.from_pretrained."
            )
        content = self.read(PREPROCESSOR_NAME)
        try:
            height, width = content["image_size"]
            for value, most in ((height, MAX_SIDE), (width, MAX_SIDE), (content["size_multiple"], MAX_MULTIPLE)):
                _check_whole(value, 1, most)
            if not isinstance(content["resize"], str):
                raise ValueError(f"resize {content['resize']!r}")
            _check_side(content["source"])
            _check_side(content["target"])
            if content.get("source_half") not in (None, *HALVES):
                raise ValueError(f"source_half {content['source_half']!r}")
            if "source_maker" in content:
                MakerOptions(**content["source_maker"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = repr(error)[:300]
            raise UserError(f"{path} is not as an export has it ({reason}): export the model again.") from error
        return content


def _check_side(values: Mapping[str, Any]) -> None:
    """One side of `preprocessor_config.json` is a pixel format that can be. Raises `ValueError`, `TypeError`, …"""
    mode, channels, dtype = values.get("mode", "rgb"), values.get("channels", 3), values.get("dtype", "uint8")
    low, high = values.get("low", 0.0), values.get("high", 255.0)
    classes, colors, palette = (list(values.get(name, ())) for name in ("classes", "colors", "palette"))
    _check_whole(channels, 1, MAX_CHANNELS)
    if channels != {**PICTURE_MODES, "channels": channels, "labels": len(classes)}.get(mode):
        raise ValueError(f"mode {mode!r} with {channels!r} channels")
    if dtype not in FULL_SCALE or not -math.inf < low < high < math.inf:
        raise ValueError(f"{dtype!r} from {low!r} to {high!r}")
    if (clip := values.get("clip", False)) is not False:  # a range that was chosen
        least, most = (0, FULL_SCALE[dtype]) if dtype == "uint16" else (-FLOAT_MAX, FLOAT_MAX)
        if clip is not True or dtype == "uint8" or mode == "labels" or not least <= low < high <= most:
            raise ValueError(f"clip {clip!r} of {dtype} to {low!r} … {high!r}")
    if len(colors) not in (0, len(classes)) or len(set(classes)) != len(classes):
        raise ValueError(f"{len(colors)} colors of {len(classes)} classes, or one class twice")
    _check_whole(len(palette), 0, MAX_CHANNELS)
    colors += [itemgetter("color", "name", "share")(entry)[0] for entry in palette]  # which all are there
    if any(len(color) != 3 for color in colors):
        raise ValueError("a color of another number of parts than 3")
    for value in (*classes, *(part for color in colors for part in color)):
        _check_whole(value, 0, 255)


def _check_whole(value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r}, where a whole number from {least} to {most} is expected")


@dataclass(frozen=True)
class Preprocessor:
    """How training read its images, and with that how a model wants its input."""

    source: PixelFormat
    target: PixelFormat
    image_size: tuple[int, int]  # height and width that it was trained at
    resize: str  # what training did to images of another size; inference keeps every image's own
    size_multiple: int  # heights and widths that the generator takes are multiples of this
    maker: MakerOptions | None = None  # how the sources were made from photos, where `data make` did it
    half: str | None = None  # one of `HALVES`, where pairs were files that show both sides: the source's

    @classmethod
    def from_folder(cls, folder: Path) -> Preprocessor:
        """That of an export. Raises as `Export.pixels`."""
        from pix2pix_hub.image.format import PixelFormat

        content = Export(folder).pixels
        source, target = (PixelFormat.from_dict(content[side]) for side in ("source", "target"))
        height, width = content["image_size"]
        maker = MakerOptions(**content["source_maker"]) if "source_maker" in content else None
        how = (str(content["resize"]), content["size_multiple"], maker, content.get("source_half"))
        return cls(source, target, (height, width), *how)

    def check_channels(self, in_channels: int, out_channels: int, folder: Path) -> None:
        """Raise `UserError` unless these are the channels of both sides: those of the generator in `folder`."""
        for side, described, made in (("source", self.source, in_channels), ("target", self.target, out_channels)):
            if described.channels != made:
                raise UserError(
                    f"{folder / PREPROCESSOR_NAME} says {described.describe()} for the {side}, but the generator of "
                    f"{CONFIG_NAME} has {made} channels there: the files belong to different models."
                )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: how a stored image becomes the generator's input, and its output an image again."""
        return {
            "image_size": list(self.image_size),
            "resize": self.resize,
            "size_multiple": self.size_multiple,
            "resample": "bilinear, antialiased; labels nearest",
            "model_range": [-1.0, 1.0],
            "source": self.source.to_dict(),
            "target": self.target.to_dict(),
            **({"source_maker": self.maker.to_dict()} if self.maker is not None else {}),
            **({"source_half": self.half} if self.half is not None else {}),
        }


# --- writing ---


class Network(Protocol):
    """What writes its `config.json` and `model.safetensors` into a folder."""

    def save_files(self, directory: str | Path) -> None: ...


def write_export(
    folder: Path,
    generator: Network,
    preprocessor: Preprocessor,
    *,
    discriminator: Network | None = None,
    training_config: Path | None = None,
    metrics: dict[str, Any] | None = None,
    samples: Path | None = None,
    complete: Callable[[Path, Path], object] | None = None,
) -> None:
    """Write `folder` whole, in place of what was there.

    Args:
        folder: where to.
        generator, discriminator: networks to export; their weights are saved as they are.
        preprocessor: how the generator reads images.
        training_config: the run's file, which is copied without what says where folders lie on this machine.
        metrics: content of `metrics.json`.
        samples: grid of samples to copy.
        complete: called last, with the folder as it is being filled and the one whose place it takes: adds files.
    """
    with write_folder_aside(folder) as partial:
        generator.save_files(partial)
        contents = {PREPROCESSOR_NAME: preprocessor.to_dict(), METRICS_NAME: metrics}
        if discriminator is not None:
            discriminator.save_files(partial / DISCRIMINATOR)
        if training_config is not None:
            contents[TRAINING_CONFIG_NAME] = _shareable(json.loads(training_config.read_text()))
        if samples is not None:
            shutil.copyfile(samples, partial / SAMPLES_NAME)
        for name, content in contents.items():
            if content is not None:
                (partial / name).write_text(json.dumps(content, indent=2) + "\n")
        if complete is not None:
            complete(partial, folder)


def _shareable(content: dict[str, Any]) -> dict[str, Any]:
    """A run's `training_config.json` without what says where folders lie on this machine."""
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
    paths = [Path(part) for part in value.split(",")]  # of rasters there are several
    if not any(path.is_absolute() or ".." in path.parts or str(path).startswith("~") for path in paths):
        return word
    return flag + equals + ",".join(f"path/to/{path.name}" for path in paths)
