"""Saving and loading: what comes back is what was saved, and nothing else is accepted."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pix2pix_hub.errors import UserError
from pix2pix_hub.models import PatchGANDiscriminator, UNetGenerator
from pix2pix_hub.models.base import HubModel


def small_generator() -> UNetGenerator:
    return UNetGenerator(1, 2, base_channels=4, num_downs=3, norm="batch", upsampling="resize")


def small_discriminator() -> PatchGANDiscriminator:
    return PatchGANDiscriminator(3, base_channels=4)


@pytest.mark.parametrize(
    "network", [small_generator(), small_discriminator()], ids=lambda network: type(network).__name__
)
def test_a_saved_network_comes_back_bitwise_and_in_evaluation_mode(network: HubModel, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    loaded = type(network).from_pretrained(tmp_path)
    assert not loaded.training
    assert loaded.config == network.config
    images = torch.rand(1, network.in_channels, 32, 32)
    assert torch.equal(loaded(images), network.eval()(images))


def test_save_files_writes_two_files(tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "UNetGenerator"


def test_both_networks_load_from_one_export_folder(tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    small_discriminator().save_files(tmp_path / "discriminator")
    assert UNetGenerator.from_pretrained(tmp_path).in_channels == 1
    assert PatchGANDiscriminator.from_pretrained(tmp_path).in_channels == 3
    assert PatchGANDiscriminator.from_pretrained(tmp_path / "discriminator").in_channels == 3


def test_another_network_is_refused(tmp_path: Path) -> None:
    small_discriminator().save_files(tmp_path)
    with pytest.raises(UserError, match="describes PatchGANDiscriminator, expected UNetGenerator"):
        UNetGenerator.from_pretrained(tmp_path)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="holds no config.json"):
        UNetGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lambda": 1}, "unknown to UNetGenerator: lambda"),
        ({"norm": "layer"}, "norm 'layer' is unknown"),
        ({"base_channels": "four"}, "does not fit"),
        ({"base_channels": 8}, "does not fit"),
        ({"num_downs": 4}, "does not fit"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(change: dict, words: str, tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=words):
        UNetGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "extra", "misshapen"])
def test_weights_that_do_not_fit_are_refused(damage: str, tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    if damage == "missing":
        del tensors[name]
    elif damage == "extra":
        tensors["surplus"] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(1, 1)
    save_file(tensors, path)
    with pytest.raises(UserError, match="does not fit"):
        UNetGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not json", b"[]"])
def test_a_damaged_config_is_refused(content: bytes, tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match="config.json"):
        UNetGenerator.from_pretrained(tmp_path)


def test_a_truncated_weights_file_is_refused(tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="does not fit"):
        UNetGenerator.from_pretrained(tmp_path)
