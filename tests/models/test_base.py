"""Saving and loading: what comes back is what was saved, and nothing else is accepted."""

import json
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pix2pix_hub.models import PatchGANDiscriminator, UNetGenerator, load_generator
from pix2pix_hub.models.base import HubModel
from pix2pix_hub.util import UserError


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
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1  # whoever may read one may read the other


def test_both_networks_load_from_one_export_folder(tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    small_discriminator().save_files(tmp_path / "discriminator")
    assert UNetGenerator.from_pretrained(tmp_path).in_channels == 1
    assert PatchGANDiscriminator.from_pretrained(tmp_path).in_channels == 3
    assert PatchGANDiscriminator.from_pretrained(tmp_path / "discriminator").in_channels == 3


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="holds no config.json"):
        UNetGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lambda": 1}, "unknown to UNetGenerator: 'lambda'. Known ones: in_channels, "),
        ({"norm": "layer"}, "norm 'layer' is unknown: expected 'instance', 'batch' or 'none'"),
        ({"norm": ["batch"]}, "norm \\['batch'\\] is unknown"),
        ({"base_channels": "four"}, "base_channels is 'four', expected a whole number from 1 to 4096"),
        ({"base_channels": 10**15}, "base_channels is 1000000000000000, expected"),
        ({"base_channels": True}, "base_channels is True, expected"),
        ({"num_downs": 10**6}, "num_downs is 1000000, expected a whole number from 1 to 12"),
        ({"in_channels": -1}, "in_channels is -1, expected"),
        ({"dropout": "half"}, "dropout is 'half', expected a number"),
        ({"dropout": float("nan")}, "NaN in place of a number"),
        ({"encoder_bias": 1}, "encoder_bias is 1, expected true or false"),
        ({"base_channels": 8}, "does not fit"),
        ({"num_downs": 4}, "does not fit"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(change: dict, words: str, tmp_path: Path) -> None:
    save_changed(tmp_path, change)
    with pytest.raises(UserError, match=words):
        UNetGenerator.from_pretrained(tmp_path)


def save_changed(folder: Path, change: dict) -> None:
    """A small generator whose config says something else."""
    small_generator().save_files(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_options_of_earlier_versions_are_read_where_they_say_what_is_built(tmp_path: Path) -> None:
    save_changed(tmp_path, {"skip_activation": "relu", "output_layer": "matching"})
    assert UNetGenerator.from_pretrained(tmp_path).config == small_generator().config
    save_changed(tmp_path, {"skip_activation": "none"})
    with pytest.raises(UserError, match=r"options unknown to UNetGenerator: 'skip_activation'\."):
        UNetGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("missing", "Tensors missing: bottleneck.conv.bias"),
        ("extra", "unknown: surplus"),
        ("misshapen", r"of another shape: bottleneck.conv.bias \(1, 1\), expected \(16,\)"),
        ("integer", "of another type: bottleneck.conv.bias I64, expected F32 or F16"),
    ],
)
def test_weights_that_do_not_fit_are_refused(damage: str, words: str, tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    if damage == "missing":
        del tensors[name]
    elif damage == "extra":
        tensors["surplus"] = torch.zeros(1)
    elif damage == "integer":
        tensors[name] = torch.zeros(16, dtype=torch.int64)
    else:
        tensors[name] = torch.zeros(1, 1)
    save_file(tensors, path)
    with pytest.raises(UserError, match=words):
        UNetGenerator.from_pretrained(tmp_path)


DEEP = b"[" * 30_000 + b"]" * 30_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b"not json", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (DEEP, "not valid JSON"),
        (b"[]", "must hold a JSON object, not list"),
        (b"{}", "describes an unnamed network"),
        (b'{"architecture": ["UNetGenerator"]}', "describes ..UNetGenerator.., expected UNetGenerator"),
        (b" " * (1 << 20) + b"{}", "more than 1048576 bytes"),
    ],
)
def test_a_damaged_config_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=words):
        UNetGenerator.from_pretrained(tmp_path)


def test_a_config_that_asks_for_petabytes_costs_nothing(tmp_path: Path) -> None:
    """With 1 GB of addresses to spare; the network of that config would need 1.5 TB."""
    save_changed(tmp_path, {"base_channels": 4096, "num_downs": 12})
    limit, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), hard))
    try:
        with pytest.raises(UserError, match=r"does not fit UNetGenerator .*\(\d{3},\d{3},\d{3},\d{3} values"):
            UNetGenerator.from_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


@pytest.mark.parametrize("damage", ["truncated", "empty", "header", "no safetensors"])
def test_a_damaged_weights_file_is_refused(damage: str, tmp_path: Path) -> None:
    small_generator().save_files(tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    damaged = {
        "truncated": content[:-100],
        "empty": b"",
        "header": (1 << 40).to_bytes(8, "little") + content[8:],
        "no safetensors": b"PK" + bytes(100),
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match="is damaged, or no safetensors file"):
        UNetGenerator.from_pretrained(tmp_path)


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_pickles_are_never_loaded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_generator().save_files(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"weights": Bomb()}, tmp_path / name)
    with pytest.raises(UserError, match=r"no safetensors file|never loaded"):
        UNetGenerator.from_pretrained(tmp_path)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_become_float32_unless_asked_otherwise(stored: torch.dtype, tmp_path: Path) -> None:
    network = small_generator()
    network.save_files(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {
        name: tensor.to(stored) if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()
    }
    save_file(tensors, path)
    loaded = UNetGenerator.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert all(
        torch.equal(loaded.state_dict()[name], tensor.to(loaded.state_dict()[name])) for name, tensor in tensors.items()
    )
    asked = UNetGenerator.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert asked(torch.zeros(1, 1, 32, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_loaded_weights_can_be_saved_over_themselves_and_trained(tmp_path: Path) -> None:
    small_discriminator().save_files(tmp_path)
    network = PatchGANDiscriminator.from_pretrained(tmp_path)
    before = network(torch.ones(1, 3, 32, 32))
    network.save_files(tmp_path)
    assert torch.equal(PatchGANDiscriminator.from_pretrained(tmp_path)(torch.ones(1, 3, 32, 32)), before)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    network.train()(torch.rand(1, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_another_network_is_refused(tmp_path: Path) -> None:
    network = small_generator()
    network.save_files(tmp_path)
    assert load_generator(tmp_path).config == network.config
    small_discriminator().save_files(tmp_path)
    with pytest.raises(UserError, match=r"describes PatchGANDiscriminator, expected UNetGenerator"):
        load_generator(tmp_path)
    with pytest.raises(UserError, match="describes PatchGANDiscriminator, expected UNetGenerator"):
        UNetGenerator.from_pretrained(tmp_path)
