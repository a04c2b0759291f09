"""What the values of `TrainingConfig` must be, checked before anything is downloaded or computed."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pix2pix_hub.errors import UserError

if TYPE_CHECKING:
    from pix2pix_hub.config import TrainingConfig

SMALLEST_SIDE = 32  # pixels

_POSITIVE = [
    "base_channels",
    "discriminator_base_channels",
    "num_downs",
    "epochs",
    "max_steps",
    "batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "checkpoint_every",
    "push_every",
    "keep_checkpoints",
    "log_every",
    "sample_count",
    "max_train_pairs",
    "max_validation_pairs",
    "shuffle_buffer",
]
_NOT_NEGATIVE = [
    "rotation_degrees",
    "color_jitter",
    "gan_weight",
    "l1_weight",
    "l2_weight",
    "perceptual_weight",
    "discriminator_weight",
    "buffer_size",
    "decay_epochs",
    "max_grad_norm",
    "seed",
    "num_workers",
    "cpu_threads",
    "early_stopping_patience",
]
_UNET_ONLY = ["num_downs", "encoder_activation", "bottleneck", "encoder_bias"]
_BELOW_ONE = ["dropout", "beta1", "beta2", "ema_decay"]


def check_options(config: TrainingConfig, preset: Mapping[str, Any]) -> None:
    """Every option by itself, then those that must go together; `preset` is what the preset sets.

    Raises:
        UserError: for the first value that cannot work, naming the flag and what to type.
    """
    _check_types(config)
    _check_choices(config)
    _check_ranges(config)
    _check_generator(config, preset)
    _check_size(config)
    if config.decay_epochs is not None and config.decay_epochs > config.epochs:
        raise UserError(
            f"--decay-epochs {config.decay_epochs} is more than --epochs {config.epochs}, which counts all epochs: "
            f"type --epochs {config.epochs + config.decay_epochs} for {config.epochs} constant and "
            f"{config.decay_epochs} falling ones."
        )
    if config.best_metric not in config.eval_metrics:
        raise UserError(
            f"--best-metric {config.best_metric} is not computed: add it to --eval-metrics "
            f"{' '.join(config.eval_metrics)}, or choose one of those."
        )
    if config.streaming and config.cache in ("memory", "disk"):
        raise UserError(f"--cache {config.cache} keeps all pairs, --streaming none: leave one of them out.")
    publishing = {"--hub-private": config.hub_private, "--hub-revision": config.hub_revision}
    alone = [flag for flag, value in (publishing | {"--push-every": config.push_every}).items() if value]
    if alone and config.push_to_hub is None:
        raise UserError(f"{', '.join(alone)} says how to publish: add --push-to-hub user/name, or leave it out.")
    if max(config.gan_weight, config.l1_weight, config.l2_weight, config.perceptual_weight) == 0:
        raise UserError("all weights of the generator's losses are 0: give at least --l1-weight 100.")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_types(config: TrainingConfig) -> None:
    """Numbers are numbers and texts are texts, wherever they come from."""
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if not any(_is_of(value, choice) for choice in choices):
            raise UserError(f"{_flag(name)} is {value!r}, which is no {getattr(hint, '__name__', hint)}.")


def _is_of(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is Literal:
        return True  # looked at below
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, typing.get_origin(hint) or hint)


def _check_choices(config: TrainingConfig) -> None:
    """`Literal` fields hold one of their values (the command line checks this too; files and callers need not)."""
    for name, hint in typing.get_type_hints(type(config)).items():
        several = typing.get_origin(hint) is tuple
        values, kind = (getattr(config, name), typing.get_args(hint)[0]) if several else ([getattr(config, name)], hint)
        if typing.get_origin(kind) is not Literal:
            continue
        for value in values:
            if value not in typing.get_args(kind):
                choices = ", ".join(str(choice) for choice in typing.get_args(kind))
                raise UserError(f"{_flag(name)} {value!r} is unknown: choose one of {choices}.")


def _check_ranges(config: TrainingConfig) -> None:
    """Numbers lie where they make sense; None means "not given" and passes."""
    rules = [
        (_POSITIVE, lambda value: value > 0, "above 0"),
        (_NOT_NEGATIVE, lambda value: value >= 0, "0 or more"),
        (_BELOW_ONE, lambda value: 0 <= value < 1, "at least 0 and below 1"),
        (["flip_probability"], lambda value: 0 <= value <= 1, "between 0 and 1"),
        (["jitter_scale"], lambda value: value >= 1, "1 or more (1: no jitter)"),
        (["rotation_degrees"], lambda value: value <= 45, "at most 45 degrees"),
        (["color_jitter"], lambda value: value <= 1, "at most 1"),
        (["base_channels", "discriminator_base_channels"], lambda value: value <= 4096, "at most 4096"),
        (["num_downs"], lambda value: value <= 12, "at most 12"),
    ]
    for names, holds, expected in rules:
        for name in names:
            value = getattr(config, name)
            if value is not None and not (math.isfinite(value) and holds(value)):
                raise UserError(f"{_flag(name)} {value} cannot work: it must be {expected}.")


def _check_generator(config: TrainingConfig, preset: Mapping[str, Any]) -> None:
    """Options of the U-Net are not given for another generator (a preset's values are nobody's wish)."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)} | dict(preset)
    for name in _UNET_ONLY if config.generator != "unet" else []:
        if getattr(config, name) != defaults[name]:
            raise UserError(
                f"{_flag(name)} {getattr(config, name)} is for --generator unet, and {config.generator} has no such "
                "part: leave one of them out."
            )


def _check_size(config: TrainingConfig) -> None:
    """The image size suits the depth of the generator."""
    height, width = config.image_height_width
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(
            f"--image-size {config.image_size} is too small: each side needs at least {SMALLEST_SIDE} pixels."
        )
    step = 2**config.generator_downs
    if height % step or width % step:
        below, above = (
            "x".join(str(max(step, rounding(side / step) * step)) for side in (height, width))
            for rounding in (math.floor, math.ceil)
        )
        raise UserError(
            f"--image-size {config.image_size}: each side must be a multiple of {step}, since the generator halves "
            f"it {config.generator_downs} times. Next sizes that work: {below} or {above} (height x width); or give "
            "a smaller --num-downs."
        )
