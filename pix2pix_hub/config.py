"""Every option, stated once: which pairs (`DatasetOptions`, `PairOptions`), how to train on them (`TrainingConfig`),
how to measure what came of it (`EvaluationOptions`).

Command lines, `training_config.json` and the code that does the work all read these classes. A field's annotation
says what its value must be, its docstring is `--help`. Nothing heavy is imported here, so that `--help` is quick.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pix2pix_hub.util import UserError, read_object

PresetName = Literal["demo", "default", "strong", "specification", "compact", "paper"]
MetricName = Literal["l1", "psnr", "ssim", "ms_ssim", "lpips", "fid", "kid"]
PixelMode = Literal["auto", "gray", "rgb", "rgba", "labels"]
Direction = Literal["AtoB", "BtoA"]
Resize = Literal["exact", "crop", "pad", "native"]
OnBadPair = Literal["stop", "skip"]
MakerKind = Literal["edges", "gray", "lowres", "blur", "noise", "mask", "palette"]
Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab"]

SMALLEST_SIDE, LARGEST_SIDE = 32, 16_384  # pixels, to train at; a typing error above


@dataclass(frozen=True)
class Range:
    """Numbers that an option takes: `least` and `most` are among them, `above` and `below` are not."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        words = {"above": self.above, "at least": self.least, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {bound:g}" for word, bound in words.items() if math.isfinite(bound))


Count = Annotated[int, Range(above=0)]
WholeNumber = Annotated[int, Range(least=0)]
Amount = Annotated[float, Range(least=0)]
BelowOne = Annotated[float, Range(least=0, below=1)]
Width = Annotated[int, Range(above=0, most=4096)]
Several = Annotated[int, Range(least=2)]


def flag(name: str) -> str:
    """ "image_size" → "--image-size"."""
    return "--" + name.replace("_", "-")


def check_options(options: Any) -> None:
    """Check each field of a dataclass by its annotation: type, choices of a `Literal`, `Range`.

    Raises:
        UserError: for the first value that cannot work, naming the flag.
    """
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        _check_value(flag(name), getattr(options, name), hint)


def _check_value(name: str, value: Any, hint: Any) -> None:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is not None:
            _check_value(name, value, next(one for one in inner if one is not types.NoneType))
    elif origin is Annotated:
        _check_value(name, value, inner[0])
        for allowed in inner[1:]:
            if isinstance(allowed, Range) and value not in allowed:
                raise UserError(f"{name} {value} cannot work: it must be {allowed}.")
    elif origin is Literal:
        if value not in inner:
            raise UserError(f"{name} {value!r} is unknown: choose one of {', '.join(map(str, inner))}.")
    else:
        kind: Any = (int, float) if hint is float else origin or hint
        if not isinstance(value, kind) or (isinstance(value, bool) and hint is not bool):
            raise UserError(f"{name} is {value!r}, which is no {getattr(hint, '__name__', hint)}.")
        for one in value if origin is tuple else ():
            _check_value(name, one, inner[0])


def parse_image_size(text: str) -> tuple[int, int]:
    """`"256"` or `"256x512"` (height x width) → (height, width).

    Raises:
        UserError: for any other text.
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--image-size {text!r} is no size: give one number (256) or height x width (256x512).")
    if max(int(part) for part in parts) > LARGEST_SIDE:
        raise UserError(f"--image-size {text!r}: sides of more than {LARGEST_SIDE:,} pixels are not taken.")
    return int(parts[0]), int(parts[-1])


def parse_range(text: str) -> tuple[float, float, bool]:
    """`"0-10000"` or `"2-98%"` → lowest and highest, and whether they are percentiles.

    Raises:
        UserError: for any other text.
    """
    number = r"(-?\d{1,30}(?:\.\d{1,30})?)"
    found = re.fullmatch(rf"{number}-{number}(%?)", text.strip())
    if not found:
        raise UserError(f"--range {text!r} is no range: give two values (0-10000), or two percentiles (2-98%).")
    low, high = float(found[1]), float(found[2])
    if low >= high:
        raise UserError(f"--range {text!r}: the first value must be the smaller one.")
    if found[3] and not 0 <= low < high <= 100:
        raise UserError(f"--range {text!r}: percentiles are from 0 to 100.")
    return low, high, bool(found[3])


def sizes_nearby(size: tuple[int, int], step: int, least: int = 1) -> str:
    """The next sizes, below and above, whose sides are multiples of `step`: "192x256 or 256x256"."""
    below = (max(step, least, side // step * step) for side in size)
    above = (max(step, least, -(-side // step) * step) for side in size)
    return " or ".join("x".join(map(str, sides)) for sides in (below, above))


@dataclass(frozen=True)
class DatasetOptions:
    """Which images: those of a data set, by columns, in one direction.

    Raises `UserError` on construction when a value cannot work, naming the flag and what to type; so do its heirs.
    """

    dataset: str = "synthetic"
    """Pairs: `synthetic` (embedded), a folder of side-by-side images or of folders A and B, a table file, a Hub id,
    two rasters of the same ground (`a.tif,b.tif`)."""
    dataset_revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    source_column: str | None = None
    """Image column (or folder) A, where its name is not a known one."""
    target_column: str | None = None
    """Image column (or folder) B, where its name is not a known one."""
    direction: Direction = "AtoB"
    """Which side is the source: AtoB reads the left half (or first column) and paints the right one."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def rasters(self) -> list[Path]:
        """GeoTIFFs, source and target of each two (`a.tif,b.tif,…`); empty for any other data set."""
        files = [Path(name).expanduser() for name in self.dataset.split(",")]
        return files if len(files) > 1 and all(file.suffix.lower() in (".tif", ".tiff") for file in files) else []

    @property
    def swap(self) -> bool:
        """Whether B is the source."""
        return self.direction == "BtoA"

    @property
    def named_columns(self) -> tuple[str, str] | None:
        """Columns (or folders) A and B, where both were named."""
        if self.source_column is None or self.target_column is None:
            return None
        return self.source_column, self.target_column


MAKER_DEFAULTS: dict[str, dict[str, Any]] = {  # of each kind, the options that it takes besides those of all
    "edges": {"style": "canny"},
    "gray": {},
    "lowres": {"factor": 4, "jpeg_quality": None, "noise": 0.0, "seed": 0},
    "blur": {"radius": 2.0},
    "noise": {"noise": 25.0, "seed": 0},
    "mask": {"seed": 0},
    "palette": {"colors": 8},
}


@dataclass(frozen=True)
class MakerOptions:
    """How the source of a pair is made from a photo, its target.

    Recorded with the pairs, and with the model that is trained on them. Raises `UserError` on construction, as
    `DatasetOptions` does; also for an option of another kind. What was not given is the kind's default.
    """

    kind: MakerKind
    """edges: a line drawing; lowres: made small, then enlarged; mask: magenta holes to fill; palette: few colours."""
    style: Literal["canny", "pencil"] | None = None
    """Of edges. canny: black lines on white (default); pencil: soft shades."""
    factor: Annotated[int, Range(least=2, most=8)] | None = None
    """Of lowres: how many times smaller (ratio, default 4)."""
    jpeg_quality: Annotated[int, Range(least=1, most=95)] | None = None
    """Of lowres: compress the small picture as JPEG of that quality; by default not."""
    noise: Annotated[float, Range(least=0, most=255)] | None = None
    """Of noise (default 25) and lowres (default 0): standard deviation (levels of 255)."""
    radius: Annotated[float, Range(above=0, most=64)] | None = None
    """Of blur: standard deviation (pixels, default 2)."""
    colors: Annotated[int, Range(least=2, most=256)] | None = None
    """Of palette: how many (default 8)."""
    seed: Annotated[int, Range(least=0, most=2**63 - 1)] | None = None
    """Of noise, lowres and mask: seed of what is drawn, which follows from it and the photo's pixels (default 0)."""
    shorter_side: Annotated[int, Range(least=1, most=LARGEST_SIDE)] | None = None
    """First shrink photos to that height or width, whichever is less (pixels); by default they stay as they are."""

    def __post_init__(self) -> None:
        check_options(self)
        defaults = MAKER_DEFAULTS[self.kind]
        taken = {"kind", "shorter_side", *defaults}
        for name, value in vars(self).items():
            if value is not None and name not in taken:
                kinds = ", ".join(kind for kind, options in MAKER_DEFAULTS.items() if name in options)
                raise UserError(f"{flag(name)} is of {kinds}, and {self.kind} has no use for it: leave it out.")
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: what is not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class TranslationOptions:
    """How the model makes its images."""

    stochastic: bool = False
    """Leave dropout on."""
    seed: int | None = None
    """Of the dropout."""
    tile_size: int = 1024
    """Height or width in pixels beyond which an image is made in tiles."""
    batch_size: int | None = None
    """Images of one size that are run together; by default 1 on a CPU, else up to 32."""
    dtype: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Numbers to compute in; auto: bf16 or fp16 where the device has units for it, else float32."""
    compile: bool = False
    """Compile the network for each size of image: some ten seconds each, pays for hundreds of one size."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model."""

    @property
    def of_calls(self) -> dict[str, Any]:
        """Those of `Pix2PixPipeline.__call__`."""
        return {name: getattr(self, name) for name in ("stochastic", "seed", "tile_size", "batch_size")}


@dataclass(frozen=True)
class ImageOptions(DatasetOptions):
    """How the images of pairs are read."""

    image_size: str = "256"
    """Height and width in pixels to train at: `256`, or `256x512` (height x width)."""
    resize: Resize = "exact"
    """How images get that size: exact changes their aspect ratio, crop cuts what sticks out, pad reflects borders;
    native: they keep their own, and crops of that size are cut out of them (so it is with rasters)."""
    source_mode: PixelMode = "auto"
    """Pixels of the source; auto: gray if all are, else RGB on white; labels: class values become channels."""
    target_mode: PixelMode = "auto"
    """Pixels of the target, as --source-mode."""
    range: str | None = None
    """Values to train on, where they have more than 8 bits: `0-10000`, or percentiles of the training pairs, `2-98%`.
    Others are clipped. By default: all that 16 bits hold, and of floats all that occur."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_image_size(self.image_size)
        if self.range is not None:
            parse_range(self.range)
        if len(self.rasters) % 2:
            raise UserError(f"--dataset has {len(self.rasters)} rasters: name them two by two, a.tif,b.tif.")
        if self.rasters:
            if self.resize not in ("exact", "native"):
                raise UserError(f"--resize {self.resize}: rasters are trained on as they are, in crops. Leave it out.")
            object.__setattr__(self, "resize", "native")

    @property
    def image_height_width(self) -> tuple[int, int]:
        """`image_size` as (height, width) in pixels."""
        return parse_image_size(self.image_size)

    @property
    def least_size(self) -> tuple[int, int]:
        """Height and width that the images of a pair need at least."""
        return self.image_height_width if self.resize == "native" else (1, 1)


@dataclass(frozen=True)
class PairOptions(ImageOptions):
    """Which pairs train and which validate."""

    train_split: str = "train"
    """Split to train on (a name of the dataset's)."""
    validation_split: str | None = None
    """Split to validate on; None: `val`, `validation` or `test`, else a seeded part of the training split."""
    on_bad_pair: OnBadPair = "stop"
    """What to do about pairs that cannot be used: stop and list them, or skip them and write bad_pairs.jsonl."""
    max_train_pairs: Count | None = None
    """Use only the first N training pairs (pairs)."""
    max_validation_pairs: Count | None = None
    """Use only the first N validation pairs (pairs)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.source_column is None) != (self.target_column is None):
            raise UserError("Only one of --source-column and --target-column came; give both or neither.")


@dataclass(frozen=True)
class TileOptions:
    """How rasters are cut into pairs. Raises `UserError` on construction, as `DatasetOptions` does."""

    size: Annotated[int, Range(least=SMALLEST_SIDE, most=LARGEST_SIDE)] = 256
    """Height and width of a tile (pixels)."""
    stride: Count | None = None
    """From one tile to the next; None: as --size. Less: they overlap (pixels)."""
    max_nodata: Annotated[float, Range(least=0, most=1)] = 0.1
    """Share of a tile that may be without data in either raster; tiles with more are left out."""
    validation: Annotated[float, Range(least=0, most=0.9)] = 0.1
    """Share of the tiles to validate on, in places of their own; 0: all train."""
    resampling: Literal["auto", "nearest", "bilinear", "cubic", "average"] = "auto"
    """How the second raster is brought onto the first one's grid; auto: nearest for classes, average where it is finer,
    else bilinear."""
    seed: Annotated[int, Range(least=0, most=2**63 - 1)] = 0
    """Of the places to validate on."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class EvaluationOptions:
    """How a model is measured. Raises `UserError` on construction, as `DatasetOptions` does."""

    split: str | None = None
    """Split to measure on; None: the one that training on this set validates with."""
    metrics: tuple[MetricName, ...] = ("l1", "psnr", "ssim", "ms_ssim", "lpips", "fid", "kid")
    """Numbers to compute. What cannot be had is reported as missing, with the reason."""
    output: Path = Path("evaluation")
    """Folder to write to; earlier results in it are replaced."""
    task: Literal["none", "segmentation", "labels"] = "none"
    """segmentation: score generated photos by a network trained on the set's real photos and label maps; labels: score
    generated label maps by their classes."""
    checks: bool = True
    """Memorisation, use of the source, collapse, sharpness, checkerboard, colour bias."""
    num_samples: Count = 1
    """Above 1: translate every source this many times with dropout on, and report diversity (samples)."""
    seed: Annotated[int, Range(least=0, most=2**63 - 1)] = 0
    """Seed of dropout, shuffled sources and the bootstrap."""
    image_size: str | None = None
    """Height x width to measure at; None: as trained."""
    max_pairs: Several | None = None
    """Use only the first N pairs (pairs)."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Arithmetic of the generator; no: float32."""
    batch_size: Count | None = None
    """Pairs a process translates at once; None: as many as validation in training did."""
    num_workers: WholeNumber = 0
    """Processes that read pairs, per process; 0: none."""
    cpu_threads: WholeNumber = 0
    """Threads of a process on a CPU; 0: the cores shared out over the processes."""
    segmenter_steps: Several = 1000
    """Length of the segmentation network's training (steps)."""
    on_bad_pair: OnBadPair = "stop"
    """What to do about pairs that cannot be used."""
    direction: Direction | None = None
    """Which side is the source; None: as trained."""
    source_column: str | None = None
    """Image column (or folder) A; None: as trained."""
    target_column: str | None = None
    """Image column (or folder) B; None: as trained."""
    train_split: str | None = None
    """Split whose targets might have been memorised; None: as trained."""
    revision: str | None = None
    """Branch, tag or commit of a model on the Hub."""
    dataset_revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""

    def __post_init__(self) -> None:
        check_options(self)
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise UserError(f"--metrics {' '.join(self.metrics)}: name each metric once, and at least one.")
        if self.image_size is not None:
            parse_image_size(self.image_size)


@dataclass(frozen=True)
class TrainingPairs(PairOptions):
    """Which pairs train and which validate, and how they are read."""

    streaming: bool = False
    """Read Parquet, Arrow or WebDataset shards as they come: nothing downloaded ahead, bounded memory."""
    shuffle_buffer: Count = 1000
    """Consecutive pairs of a shard that are put in random order, held by each worker (pairs); --streaming only."""


@dataclass(frozen=True)
class StartOptions:
    """What a run begins with."""

    preset: PresetName = "default"
    """Set of defaults that the other options start from (demo: small, minutes on a CPU; paper: Isola et al. 2017)."""
    init_from: str | None = None
    """Fine-tune: begin with both networks of a published model, user/name[@revision], or of an export or run here."""


@dataclass(frozen=True)
class AugmentationOptions:
    """How pairs are varied, drawn once for both images of a pair."""

    flip_probability: Annotated[float, Range(least=0, most=1)] = 0.5
    """Chance that a pair is mirrored left to right, in [0, 1]."""
    rotation_degrees: Annotated[float, Range(least=0, most=45)] = 0.0
    """Largest rotation either way (degrees); cropped so that no empty corner shows; 0: none."""
    jitter_scale: Annotated[float, Range(least=1)] = 286 / 256
    """Resize to this multiple of the image size, then crop at random (ratio, the paper's 286/256); 1 and with --resize
    native: none."""
    color_jitter: Annotated[float, Range(least=0, most=1)] = 0.0
    """Strength of brightness, contrast and saturation changes (fraction); 0: none."""
    color_jitter_side: Literal["source", "target", "both"] = "source"
    """Which side the colour changes touch."""


@dataclass(frozen=True)
class NetworkOptions:
    """Both networks."""

    generator: Literal["unet", "resnet_6", "resnet_9"] = "unet"
    """Generator: a U-Net, or residual blocks at a quarter of the size (for pairs not aligned to the pixel)."""
    base_channels: Width = 64
    """Width: channels of the first stage of either network."""
    discriminator_base_channels: Width | None = None
    """Width of the discriminator where it differs; None: as --base-channels."""
    num_downs: Annotated[int, Range(above=0, most=12)] = 7
    """Halvings in the U-Net, at most; fewer where the image is small."""
    norm: Literal["instance", "batch", "none"] = "instance"
    """Normalisation in both networks."""
    encoder_activation: Literal["relu", "leaky_relu"] = "relu"
    """Activation of the U-Net's encoder (leaky_relu: slope 0.2)."""
    bottleneck: Literal["conv", "none"] = "conv"
    """conv: a stride-1 3x3 convolution between the U-Net's halves; none: down to 1x1, as in the paper."""
    encoder_bias: bool = True
    """Bias on the U-Net's encoder convolutions that no norm follows (the published network has none)."""
    upsampling: Literal["transposed", "resize"] = "resize"
    """How the decoder enlarges; transposed leaves a grid of dots, resize takes up to a third longer."""
    dropout: BelowOne = 0.5
    """Dropout of the three deepest decoder stages (of every block, in a resnet) while training (probability)."""
    spectral_norm: bool = True
    """Spectrally normalise every convolution of the discriminator."""
    output_stride: Literal[8, 16] = 16
    """Pixels per discriminator output: 16 gives 16x16 patches from 256x256, 8 the paper's 30x30."""


@dataclass(frozen=True)
class LossOptions:
    """What the networks minimise."""

    gan_loss: Literal["bce", "lsgan", "hinge"] = "bce"
    """Adversarial loss."""
    gan_weight: Amount = 1.0
    """Weight of the adversarial loss in the generator's objective."""
    l1_weight: Amount = 100.0
    """Weight of the L1 loss (the paper's lambda)."""
    l2_weight: Amount = 0.0
    """Weight of the L2 loss."""
    perceptual_weight: Amount = 0.0
    """Weight of the perceptual loss: 1 for vgg16, 300 for squeezenet; above 0 weights are downloaded once."""
    perceptual_network: Literal["vgg16", "squeezenet"] = "vgg16"
    """ImageNet classifier whose features the perceptual loss compares (downloads: 528 MB, 5 MB)."""
    perceptual_file: str | None = None
    """File of its weights, .safetensors or .pth in torchvision's layout; None: torchvision's, downloaded once."""
    feature_matching_weight: Amount = 0.0
    """Weight of the L1 distance between the discriminator's features of generated and real pairs (pix2pixHD: 10)."""
    discriminator_weight: Amount = 1.0
    """Factor on the discriminator's loss (0.5 in the paper)."""
    buffer_size: WholeNumber = 50
    """Past generated pairs kept to train the discriminator on (pairs); 0: none."""


@dataclass(frozen=True)
class ScheduleOptions:
    """How long, and by what steps."""

    epochs: Count = 200
    """Passes over the training pairs, in all."""
    decay_epochs: WholeNumber | None = None
    """How many of the epochs, at the end, the learning rate falls linearly to zero in; None: the second half."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps, with the schedule fitted to them; None: by epochs alone."""
    batch_size: Count = 1
    """Pairs per step and process."""
    gradient_accumulation_steps: Count = 1
    """Batches per optimizer step."""
    learning_rate: Annotated[float, Range(above=0)] = 2e-4
    """Adam's learning rate, both networks."""
    beta1: BelowOne = 0.5
    """Adam's first moment decay."""
    beta2: BelowOne = 0.999
    """Adam's second moment decay."""
    max_grad_norm: Amount = 0.0
    """Clip the gradients of each network to this L2 norm; 0: no clipping."""
    ema_decay: BelowOne = 0.999
    """Decay of the generator's moving average, which is what gets exported; 0: export the raw weights."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Arithmetic of the networks; auto: bf16 where the device has units for it, else float32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """on: torch.compile the networks, a minute or more; auto: on a GPU what pays, steps replayed as a CUDA graph."""
    seed: WholeNumber = 0
    """Seed of initial weights, sample order, augmentation and dropout."""


@dataclass(frozen=True)
class RunOptions:
    """Where the run is kept, what it reports, and what it may take of the machine."""

    output_dir: str | None = None
    """Run folder; None: a new numbered folder under runs/."""
    resume: bool = False
    """Go on from the newest sound checkpoint of --output-dir (without it: of the newest run under runs/)."""
    checkpoint_every: Count | None = None
    """Optimizer steps between checkpoints (steps); None: at the end of an epoch, a minute or more after the last."""
    keep_checkpoints: Count = 2
    """How many checkpoints stay on disk, newest first (checkpoints)."""
    num_workers: WholeNumber | None = None
    """Processes that read and augment pairs, per training process; 0: none; None: by cores and shared memory."""
    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Keep decoded pairs between epochs; auto: in memory, where they take at most half of what is free."""
    cpu_threads: WholeNumber = 0
    """Threads of a training process on a CPU; 0: the cores shared out over the processes."""
    log_every: Count = 10
    """Steps between lines in metrics.jsonl and fetches of the losses (steps)."""
    sample_count: Count = 6
    """Validation pairs shown in the sample grids (pairs)."""
    eval_metrics: tuple[MetricName, ...] = ("l1", "psnr", "ssim")
    """Metrics of the validation pairs, computed every epoch; lpips, fid and kid need published weights."""
    best_metric: MetricName = "l1"
    """Which of --eval-metrics picks the export in model_best/ and stops early."""
    early_stopping_patience: WholeNumber = 0
    """Stop after this many epochs without a better --best-metric (epochs); 0: never."""
    report_to: tuple[Tracker, ...] = ()
    """Experiment trackers to log to, besides metrics.jsonl."""
    dry_run: bool = False
    """Check everything, say what would be trained and how long it takes, by a few steps; write nothing."""


@dataclass(frozen=True)
class HubOptions:
    """Where the model is published."""

    push_to_hub: str | None = None
    """Model repository on the Hub, user/name, to publish model/ in; made where it is new. Needs `hf auth login`."""
    hub_private: bool = False
    """Make that repository private."""
    hub_revision: str | None = None
    """Branch of that repository to push to; None: the main one."""
    push_every: Count | None = None
    """Epochs between pushes, in the background (epochs); None: only at the end."""


@dataclass(frozen=True)
class TrainingConfig(
    HubOptions,
    RunOptions,
    ScheduleOptions,
    LossOptions,
    NetworkOptions,
    AugmentationOptions,
    StartOptions,
    TrainingPairs,
):
    """Every option of a training run. Defaults are preset `default`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (contradiction := next(self._contradictions(), None)) is not None:
            raise UserError(contradiction)

    def _contradictions(self) -> Iterator[str]:
        """Yield a sentence for each group of options that do not go together."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)} | PRESETS[self.preset]
        for name in UNET_ONLY if self.generator != "unet" else ():
            if (value := getattr(self, name)) != defaults[name]:
                told = f"{flag(name)} {value} is for --generator unet, and {self.generator} has no such part"
                yield f"{told}: leave one of them out."
        size, step = self.image_height_width, 2**self.generator_downs
        if min(size) < SMALLEST_SIDE:
            yield f"--image-size {self.image_size} is too small: each side needs at least {SMALLEST_SIDE} pixels."
        if any(side % step for side in size):
            yield (
                f"--image-size {self.image_size}: each side must be a multiple of {step}, since the generator halves "
                f"it {self.generator_downs} times. Next sizes that work: {sizes_nearby(size, step)} (height x width); "
                "or give a smaller --num-downs."
            )
        for name, none in (("rotation_degrees", 0.0), ("jitter_scale", 1.0)) if self.resize == "native" else ():
            if (value := getattr(self, name)) not in (none, getattr(TrainingConfig, name)):
                yield f"{flag(name)} {value:g} resizes pairs, and --resize native does not: type {flag(name)} {none:g}."
        if (decay := self.decay_epochs or 0) > self.epochs:
            yield (
                f"--decay-epochs {decay} is more than --epochs {self.epochs}, which counts all epochs: type --epochs "
                f"{self.epochs + decay} for {self.epochs} constant and {decay} falling ones."
            )
        if self.best_metric not in self.eval_metrics:
            yield (
                f"--best-metric {self.best_metric} is not computed: add it to --eval-metrics "
                f"{' '.join(self.eval_metrics)}, or choose one of those."
            )
        if self.streaming and self.rasters:
            yield "--streaming is for shards, and rasters are read window by window anyway: leave it out."
        if self.streaming and self.cache in ("memory", "disk"):
            yield f"--cache {self.cache} keeps all pairs, --streaming none: leave one of them out."
        names = ("perceptual_network", "perceptual_file") if not self.perceptual_weight else ()
        if idle := [flag(name) for name in names if getattr(self, name) != defaults[name]]:
            yield (
                f"{', '.join(idle)} is for the perceptual loss, whose weight is 0: add --perceptual-weight (300 for "
                "squeezenet, 1 for vgg16), or leave it out."
            )
        publishing = [flag(name) for name in ("hub_private", "hub_revision", "push_every") if getattr(self, name)]
        if publishing and self.push_to_hub is None:
            yield f"{', '.join(publishing)} says how to publish: add --push-to-hub user/name, or leave it out."
        parts = ("gan", "l1", "l2", "perceptual", "feature_matching")
        if not any(getattr(self, f"{part}_weight") for part in parts):
            yield "all weights of the generator's losses are 0: give at least --l1-weight 100."

    @property
    def generator_downs(self) -> int:
        """Halvings the generator really makes: at most `num_downs`, ending in a map of at least 2x2 (1x1 without
        a bottleneck convolution). A resnet makes two."""
        if self.generator != "unet":
            return 2
        smallest_map = 2 if self.bottleneck == "conv" else 1
        return max(1, min(self.num_downs, (min(self.image_height_width) // smallest_map).bit_length() - 1))

    def generator_options(self) -> dict[str, Any]:
        """Keyword arguments of the generator (channel counts are the data's and are added by the trainer)."""
        options = {name: getattr(self, name) for name in ("base_channels", "norm", "upsampling", "dropout")}
        if self.generator != "unet":
            return options | {"num_blocks": int(self.generator.removeprefix("resnet_"))}
        return options | {name: getattr(self, name) for name in UNET_ONLY} | {"num_downs": self.generator_downs}

    def discriminator_options(self) -> dict[str, Any]:
        """Keyword arguments of `PatchGANDiscriminator` (channel counts are added by the trainer)."""
        return dict(
            base_channels=self.discriminator_base_channels or self.base_channels,
            output_stride=self.output_stride,
            norm=self.norm,
            spectral_norm=self.spectral_norm,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary of all options."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """The options of `to_dict`; of options that are gone, those that were not used are passed over.

        Raises:
            UserError: for a name that is no option.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(name for name in values if name not in known and values[name] is not None)
        if unknown:
            raise UserError(f"training options {unknown} are unknown to this version; known ones: {sorted(known)}.")
        frozen: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**{name: value for name, value in frozen.items() if name in known})

    @classmethod
    def from_json(cls, path: Path) -> TrainingConfig:
        """The options a run was started with, from its `training_config.json`."""
        try:
            return cls.from_dict(read_object(path)["options"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged or not of this version: {error!r}. Put it back as it was.") from error


UNET_ONLY = ("num_downs", "encoder_activation", "bottleneck", "encoder_bias")

# Presets are plain values: what differs from the class defaults above, nothing else.
_SPECIFICATION: dict[str, Any] = dict(upsampling="transposed", rotation_degrees=10.0, color_jitter=0.2)
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "strong": dict(
        gan_loss="hinge",
        feature_matching_weight=10.0,
        l1_weight=50.0,
        perceptual_weight=300.0,
        perceptual_network="squeezenet",
    ),
    "specification": _SPECIFICATION,
    "compact": _SPECIFICATION | dict(base_channels=29, discriminator_base_channels=52),
    "demo": dict(
        image_size="128",
        base_channels=16,
        num_downs=5,
        dropout=0.2,
        jitter_scale=1.0,
        epochs=10,
        batch_size=4,
        learning_rate=2e-3,
    ),
    "paper": dict(
        num_downs=8,
        norm="batch",
        encoder_activation="leaky_relu",
        bottleneck="none",
        encoder_bias=False,
        upsampling="transposed",
        spectral_norm=False,
        output_stride=8,
        discriminator_weight=0.5,
        buffer_size=0,
    ),
}


def preset_config(name: str, **overrides: Any) -> TrainingConfig:
    """The options of preset `name`, changed by `overrides`.

    Raises:
        UserError: for an unknown preset or a value that cannot work.
    """
    if name not in PRESETS:
        raise UserError(f"--preset {name!r} is unknown: choose one of {', '.join(PRESETS)}.")
    return TrainingConfig(**{"preset": name, **PRESETS[name], **overrides})
