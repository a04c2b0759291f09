"""Options: presets, sizes, and errors that name the flag."""

import dataclasses
import json

import pytest

from pix2pix_hub.config import PRESETS, DatasetOptions, PairOptions, TrainingConfig, parse_image_size, preset_config
from pix2pix_hub.util import UserError


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_named(name: str) -> None:
    assert preset_config(name).preset == name


def test_a_preset_names_only_options_that_differ_from_the_defaults() -> None:
    defaults = dataclasses.asdict(TrainingConfig())
    for name, values in PRESETS.items():
        assert not [option for option, value in values.items() if defaults[option] == value], name


def test_image_size_is_height_by_width_and_nothing_else() -> None:
    assert [parse_image_size(text) for text in ("256", "256x512", "96X32")] == [(256, 256), (256, 512), (96, 32)]
    for text in ("", "big", "256x", "x256", "1x2x3", "-4", "0", "12.5", "20000"):
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
        ({"epochs": 0}, "--epochs 0 cannot work: it must be above 0"),
        ({"batch_size": -1}, "--batch-size"),
        ({"resize": "native", "rotation_degrees": 5.0}, "--rotation-degrees 5 .*type --rotation-degrees 0"),
        ({"resize": "native", "jitter_scale": 1.5}, "--jitter-scale 1.5 .*type --jitter-scale 1"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"dropout": 1.0}, "--dropout 1.0 cannot work: it must be at least 0 and below 1"),
        ({"ema_decay": 1.5}, "--ema-decay"),
        ({"flip_probability": 1.1}, "--flip-probability"),
        ({"jitter_scale": 0.9}, "--jitter-scale"),
        ({"rotation_degrees": 90.0}, "--rotation-degrees"),
        ({"color_jitter": 1.5}, "--color-jitter"),
        ({"l1_weight": -1.0}, "--l1-weight"),
        ({"decay_epochs": 201}, "--decay-epochs"),
        ({"norm": "layer"}, "--norm 'layer' is unknown: choose one of instance, batch, none"),
        ({"output_stride": 4}, "--output-stride"),
        ({"image_size": "16"}, "--image-size"),
        ({"gan_weight": 0.0, "l1_weight": 0.0}, "--l1-weight"),
        ({"perceptual_network": "squeezenet"}, "--perceptual-network is for the perceptual loss, whose weight is 0"),
        ({"perceptual_file": "weights.pth"}, "--perceptual-file is for the perceptual loss, whose weight is 0"),
        ({"seed": -1}, "--seed"),
        ({"epochs": "two"}, "--epochs is 'two', which is no int"),
        ({"num_workers": 0.5}, "--num-workers"),
        ({"streaming": True, "cache": "disk", "dataset": "pairs"}, "--cache disk"),
        ({"dataset": 3}, "--dataset"),
        ({"resume": "yes"}, "--resume"),
        ({"report_to": "wandb"}, "--report-to"),
        ({"report_to": ("paper",)}, "--report-to 'paper' is unknown"),
        ({"best_metric": "fid"}, "--best-metric fid"),
        ({"hub_private": True}, "--push-to-hub"),
        ({"image_size": "1"}, "--image-size 1 is too small"),
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


def test_an_unknown_stored_option_is_an_error_where_it_was_used() -> None:
    with pytest.raises(UserError, match="lambda_l1"):
        TrainingConfig.from_dict({"lambda_l1": 10})
    assert TrainingConfig.from_dict({"lambda_l1": None, "epochs": 3}).epochs == 3


def test_a_set_of_images_needs_one_column_and_pairs_need_both() -> None:
    assert DatasetOptions("photos", source_column="image").named_columns is None
    assert PairOptions("pairs", source_column="a", target_column="b").named_columns == ("a", "b")
    with pytest.raises(UserError, match="Only one of --source-column and --target-column"):
        PairOptions("pairs", target_column="b")
