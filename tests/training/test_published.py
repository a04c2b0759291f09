"""Runs that begin with a published model: its weights are there, and what does not fit is said before training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_results import Tiny, train
from safetensors.torch import load_file
from tiny_options import TINY_OPTIONS

from pix2pix_hub.cli import parse_training_config
from pix2pix_hub.config import preset_config
from pix2pix_hub.models import ResNetGenerator, UNetGenerator, base, generators
from pix2pix_hub.models.base import Generator
from pix2pix_hub.training.trainer import Pix2PixTrainer
from pix2pix_hub.util import UserError

NETWORK = dict(base_channels=4, num_downs=3, image_size="32", upsampling="resize")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a run of 2 epochs of 3 steps, with a learning rate that falls all the time."""
    folder = tmp_path_factory.mktemp("published") / "run"
    config = preset_config("demo", **(TINY_OPTIONS | {"output_dir": str(folder), "decay_epochs": 2, "dropout": 0.25}))
    return train(config).run_folder / "model"


def assert_holds(network: torch.nn.Module, folder: Path) -> None:
    ours, theirs = network.state_dict(), load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_fine_tuning_begins_with_both_published_networks(
    published: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    for module in (base, generators):
        load = module.load_network
        monkeypatch.setattr(module, "load_network", lambda *a, load=load, **o: loaded.append(a[0]) or load(*a, **o))
    trainer = Pix2PixTrainer(tiny(init_from=str(published), learning_rate=1e-5, dropout=0.5))
    assert len(loaded) == 2  # the generator, the discriminator: once each
    assert_holds(trainer.learner.generator, published)
    assert_holds(trainer.learner.exported_generator, published)
    assert_holds(trainer.learner.discriminator, published / "discriminator")
    assert (trainer.progress.step, trainer.learner.schedules[0].get_last_lr()) == (0, [1e-5])
    assert f"begins     with {published}\n" in trainer.describe()
    result = trainer.train()
    assert result.step == 6
    options = json.loads((result.run_folder / "model" / "training_config.json").read_text())["options"]
    assert options["init_from"] == "model"  # where the folder lay is not published


def test_a_run_folder_means_its_model_and_a_missing_discriminator_begins_afresh(
    published: Path, tiny: Tiny, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(published, copy / "model")
    shutil.rmtree(copy / "model" / "discriminator")
    trainer = Pix2PixTrainer(tiny(init_from=str(copy)))
    assert_holds(trainer.learner.generator, published)
    assert "a new discriminator" in trainer.describe()


def test_the_command_line_takes_the_architecture_from_the_published_model(published: Path) -> None:
    config = parse_training_config(["--init-from", str(published), "--epochs", "7"])
    for name, value in (NETWORK | {"dropout": 0.25, "discriminator_base_channels": 4, "epochs": 7}).items():
        assert getattr(config, name) == ("32x32" if name == "image_size" else value)
    assert parse_training_config(["--init_from", str(published), "--image-size", "64"]).image_size == "64"


def test_a_residual_generator_is_recognised_and_fine_tuned(tiny: Tiny, tmp_path: Path) -> None:
    ResNetGenerator(base_channels=4, num_blocks=6, dropout=0.5).save_files(tmp_path / "bare")
    config = parse_training_config(["--init-from", str(tmp_path / "bare")])
    assert (config.generator, config.base_channels) == ("resnet_6", 4)
    options = tiny(init_from=str(tmp_path / "bare"), generator="resnet_6", num_downs=5, upsampling="transposed")
    trainer = Pix2PixTrainer(options)
    assert_holds(trainer.learner.generator, tmp_path / "bare")
    ResNetGenerator(base_channels=4, num_blocks=2).save_files(tmp_path / "short")
    with pytest.raises(UserError, match="--generator 'resnet_2' is unknown"):
        parse_training_config(["--init-from", str(tmp_path / "short")])


@pytest.mark.parametrize(
    ("network", "chosen"),
    [
        (ResNetGenerator(base_channels=4, num_blocks=6, norm="batch", norm_statistics="running"), "resnet_6"),
        (UNetGenerator(base_channels=4, num_downs=3, dropout_stages=2, first_dropout_stage=1, dropout=0.5), "unet"),
    ],
)
def test_a_converted_model_is_fine_tuned(network: Generator, chosen: str, tmp_path: Path) -> None:
    network.save_files(tmp_path / "converted")
    arguments = ["--init-from", str(tmp_path / "converted"), "--image-size", "32", "--max-train-pairs", "4"]
    config = parse_training_config([*arguments, "--max-validation-pairs", "2", "--output-dir", str(tmp_path / "run")])
    assert config.generator == chosen
    trainer = Pix2PixTrainer(config)
    assert_holds(trainer.learner.generator, tmp_path / "converted")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_channels": 8}, r"its UNetGenerator has base_channels 4 \(here 8\). Leave out"),
        ({"upsampling": "transposed"}, r"UNetGenerator has upsampling resize \(here transposed\)"),
        ({"spectral_norm": False}, r"PatchGANDiscriminator has spectral_norm True \(here False\)"),
        ({"source_mode": "gray"}, r"its source images are 8-bit RGB, those of these pairs are 8-bit gray.*mode rgb"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(
    options: dict[str, Any], words: str, published: Path, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        Pix2PixTrainer(tiny(init_from=str(published), **options))
    assert not list(tmp_path.iterdir())


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="--hub-private, --push-every says how to publish: add --push-to-hub"):
        preset_config("demo", hub_private=True, push_every=2)
    with pytest.raises(UserError, match=r"call pix2pix_hub.hub.push.push_export"):
        Pix2PixTrainer(preset_config("demo", push_to_hub="user/name"))


def test_resuming_a_fine_tuned_run_does_not_need_what_it_began_with(
    published: Path, tiny: Tiny, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    config = tiny(init_from=str(copy), epochs=1)
    train(config)
    shutil.rmtree(copy)
    assert train(replace(config, resume=True, epochs=2)).step == 6
