"""Options: presets, sizes, and errors that name the flag."""

import dataclasses
import json

import pytest

from pix2pix_hub.config import PRESETS, TrainingConfig, parse_image_size, preset_config
from pix2pix_hub.util import UserError


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_named(name: str) -> None:
    assert preset_config(name).preset == name


def test_a_preset_names_only_options_that_differ_from_the_defaults() -> None:
    defaults = dataclasses.asdict(TrainingConfig())
    for name, values in PRESETS.items():
        assert not [option for option, value in values.items() if defaults[option] == value], name


@pytest.mark.parametrize(("text", "size"), [("256", (256, 256)), ("256x512", (256, 512)), ("96X32", (96, 32))])
def test_image_size_is_height_by_width(text: str, size: tuple[int, int]) -> None:
    assert parse_image_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "256x", "x256", "1x2x3", "-4", "0", "12.5"])
def test_other_image_sizes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--image-size"):
        parse_image_size(text)


@pytest.mark.parametrize(
    ("preset", "size", "downs"),
    [("default", "256", 7), ("default", "512", 7), ("default", "128", 6), ("default", "64x512", 5), ("paper", "256", 8)]
    + [("paper", "128", 7), ("demo", "128", 5), ("default", "32", 4)],
)
def test_depth_follows_the_image_size(preset: str, size: str, downs: int) -> None:
    assert preset_config(preset, image_size=size).generator_downs == downs


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_resnet(preset: str) -> None:
    config = preset_config(preset, generator="resnet_6", image_size="36x64")
    assert config.generator_downs == 2
    assert config.generator_options()["num_blocks"] == 6


def test_a_size_the_depth_does_not_divide_names_the_next_ones() -> None:
    with pytest.raises(UserError, match=r"multiple of 64.*192x256 or 256x256"):
        TrainingConfig(image_size="200x256", num_downs=6)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": -1}, "--batch-size"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"dropout": 1.0}, "--dropout"),
        ({"ema_decay": 1.5}, "--ema-decay"),
        ({"flip_probability": 1.1}, "--flip-probability"),
        ({"jitter_scale": 0.9}, "--jitter-scale"),
        ({"rotation_degrees": 90.0}, "--rotation-degrees"),
        ({"color_jitter": 1.5}, "--color-jitter"),
        ({"l1_weight": -1.0}, "--l1-weight"),
        ({"decay_epochs": 201}, "--decay-epochs"),
        ({"norm": "layer"}, "--norm"),
        ({"output_stride": 4}, "--output-stride"),
        ({"image_size": "16"}, "--image-size"),
        ({"gan_weight": 0.0, "l1_weight": 0.0}, "--l1-weight"),
        ({"seed": -1}, "--seed"),
        ({"epochs": "two"}, "--epochs"),
        ({"num_workers": 0.5}, "--num-workers"),
        ({"streaming": True, "cache": "disk", "dataset": "pairs"}, "--cache disk"),
        ({"dataset": 3}, "--dataset"),
        ({"resume": "yes"}, "--resume"),
        ({"report_to": "wandb"}, "--report-to"),
        ({"base_channels": 5000}, "--base-channels"),
        ({"num_downs": 13}, "--num-downs"),
        ({"generator": "resnet_12"}, "--generator"),
        ({"generator": "resnet_9", "num_downs": 5}, "--num-downs 5 is for --generator unet"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_flag(options: dict, flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        TrainingConfig(**options)


def test_options_survive_json() -> None:
    config = preset_config("paper", report_to=("tensorboard",), image_size="128x256", epochs=3)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_stored_option_is_an_error() -> None:
    with pytest.raises(UserError, match="lambda_l1"):
        TrainingConfig.from_dict({"lambda_l1": 10})


@pytest.mark.parametrize(
    ("epochs", "decay", "constant"), [(200, None, 0.5), (200, 100, 0.5), (10, 0, 1.0), (10, 10, 0.0), (12, 3, 0.75)]
)
def test_the_learning_rate_is_constant_for_the_first_part(epochs: int, decay: int | None, constant: float) -> None:
    assert TrainingConfig(epochs=epochs, decay_epochs=decay).constant_fraction == pytest.approx(constant)
