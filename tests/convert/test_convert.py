"""Converted checkpoints: the same function as the network they come from, and everything else refused."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
import torch
from foreign_networks import CycleGANResNet, CycleGANUNet, give_weights, save, set_test_mode
from launching import start_command
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from pix2pix_hub.cli import main
from pix2pix_hub.convert.checkpoint import convert_checkpoint, read_checkpoint
from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.models import load_generator
from pix2pix_hub.util import UserError

NETWORKS = {
    "unet_256 batch": (lambda: CycleGANUNet(8, "batch"), 256),
    "unet_128 batch": (lambda: CycleGANUNet(7, "batch", source=1, target=2), 128),
    "unet_128 instance": (lambda: CycleGANUNet(7, "instance"), 128),
    "unet_32 none": (lambda: CycleGANUNet(5, "none"), 64),
    "resnet_9blocks instance": (lambda: CycleGANResNet(9, "instance"), 32),
    "resnet_9blocks instance, early PyTorch": (lambda: CycleGANResNet(9, "instance", tracked=True), 32),
    "resnet_6blocks batch dropout": (lambda: CycleGANResNet(6, "batch", dropout=True), 32),
    "resnet_6blocks none": (lambda: CycleGANResNet(6, "none"), 32),
    "resnet_6blocks batch resized": (lambda: CycleGANResNet(6, "batch", resized=True), 32),
    "resnet_6blocks instance resized": (lambda: CycleGANResNet(6, "instance", resized=True), 32),
}
CASES = [(name, "image") for name in NETWORKS] + [(name, "running") for name in NETWORKS if "batch" in name]
EXPORT = ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A network with weights, and two images for it."""
    torch.manual_seed(0)
    make, size = NETWORKS[name]
    network = make()
    images = torch.rand(2, next(network.parameters()).shape[1], size, size) * 2 - 1
    give_weights(network, images)
    return network, images


@pytest.mark.parametrize(("name", "statistics"), CASES)
def test_a_converted_network_computes_the_same(name: str, statistics: str, tmp_path: Path) -> None:
    theirs, images = made(name)
    path = save(theirs, tmp_path / "latest_net_G.pth", "module." if "dropout" in name else "")
    layout, _ = convert_checkpoint(path, tmp_path / "export", norm_statistics=statistics, nearest="resized" in name)
    assert [layout.architecture, layout.norm] == name.removesuffix(", early PyTorch").split()[:2]
    ours = load_generator(tmp_path / "export")
    set_test_mode(theirs, statistics)
    with torch.no_grad():
        expected, generated = (torch.cat([network(image[None]) for image in images]) for network in (theirs, ours))
    assert expected.std() > 0.1
    torch.testing.assert_close(generated, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("unet_256 batch", [4, 8, 16]),
        ("unet_128 batch", [4, 8]),
        ("resnet_6blocks batch dropout", [8] * 6),
        ("resnet_9blocks instance", []),
    ],
)
def test_dropout_stays_where_it_was(name: str, at: list[int], tmp_path: Path) -> None:
    """The places of dropout layers in the order of execution, by the size of the maps that they see."""
    theirs, images = made(name)
    _, ours = convert_checkpoint(save(theirs, tmp_path / "G.pth"), tmp_path / "out")
    for network in (ours, theirs):
        seen: list[int] = []
        for module in network.modules():
            if isinstance(module, nn.Dropout) and module.p > 0:
                module.register_forward_hook(lambda module, args, output, seen=seen: seen.append(args[0].shape[2]))
        network(images[:1])
        assert seen == at


def test_the_command_writes_an_export_that_the_pipeline_opens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, images = made("unet_128 batch")
    path = save(theirs, tmp_path / "latest_net_G.pth")
    assert main(["convert", str(path), "--output", str(tmp_path / "converted")]) == 0
    assert "unet_128 of pytorch-CycleGAN-and-pix2pix, norm batch" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "converted").iterdir()) == EXPORT
    preprocessor = json.loads((tmp_path / "converted" / "preprocessor_config.json").read_text())
    assert (preprocessor["image_size"], preprocessor["size_multiple"]) == ([128, 128], 128)
    assert (preprocessor["source"]["mode"], preprocessor["target"]["mode"]) == ("gray", "channels")
    pipe = Pix2PixPipeline.from_pretrained(tmp_path / "converted", device="cpu")
    set_test_mode(theirs, "image")
    with torch.no_grad():
        torch.testing.assert_close(pipe(images[:1]), theirs(images[:1]), rtol=0, atol=1e-5)
    gray = Image.effect_noise((70, 50), 64)
    assert pipe(gray, output_type="numpy").shape == (50, 70, 2)
    assert main(["convert", str(path), "--output", str(tmp_path / "converted")]) == 2  # which is never overwritten


@pytest.mark.parametrize(
    ("name", "statistics", "words"),
    [
        ("unet_128 batch", "image", "batch norm with the statistics of each image, as that project tests"),
        ("unet_128 batch", "running", "batch norm with the averages of training"),
        ("resnet_9blocks instance", "image", "Dropout: none"),
    ],
)
def test_the_card_says_where_it_is_from_and_how_it_normalises(
    name: str, statistics: str, words: str, tmp_path: Path
) -> None:
    convert_checkpoint(save(made(name)[0], tmp_path / "my_net_G.pth"), tmp_path / "out", norm_statistics=statistics)
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(each in card for each in (words, "`my_net_G.pth`", f"`{name.split()[0]}`"))
    assert card.startswith("---\nlibrary_name: pix2pix-hub\npipeline_tag: image-to-image\n")
    assert str(tmp_path) not in card and "{{" not in card and "\n\n\n" not in card


def halves(network: nn.Module) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def test_half_precision_and_safetensors_are_read(tmp_path: Path) -> None:
    theirs, images = made("resnet_6blocks batch dropout")
    save_file(halves(theirs), tmp_path / "G.safetensors")
    _, ours = convert_checkpoint(tmp_path / "G.safetensors", tmp_path / "out")
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    theirs.load_state_dict(halves(theirs))
    set_test_mode(theirs, "image")
    torch.testing.assert_close(ours(images[:1]), theirs(images[:1]), rtol=0, atol=1e-5)


def refusal(path: Path, tmp_path: Path, **options: object) -> str:
    """The words with which a file is refused; nothing is left behind."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError) as caught:
        convert_checkpoint(path, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == before
    return str(caught.value)


def test_an_unknown_file_is_told_what_was_expected_and_what_came(tmp_path: Path) -> None:
    discriminator = nn.Sequential(nn.Conv2d(6, 8, 4), nn.LeakyReLU(), nn.Conv2d(8, 1, 4))
    words = refusal(save(discriminator, tmp_path / "latest_net_D.pth", "model."), tmp_path)
    for expected in ("unet_256", "resnet_9blocks", "model.0.weight (8, 6, 4, 4)", "not latest_net_D.pth"):
        assert expected in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.model.1.model.3.model.1.weight": None}, "missing: model.model.1.model.3.model.1.weight"),
        ({"model.model.3.weight": None}, "missing: model.model.3.weight"),
        ({"model.attention.weight": (4, 4)}, "unknown: model.attention.weight (4, 4)"),
        ({"model.model.0.bias": (4,)}, "unknown: model.model.0.bias"),  # before no norm
        (
            {"model.model.1.model.1.weight": (8, 4, 3, 3)},
            "misshaped: model.model.1.model.1.weight (8, 4, 3, 3), expected (8, 4, 4, 4)",
        ),
        ({"model.model.0.weight": (5, 3, 4, 4)}, "misshaped: "),
    ],
)
def test_a_changed_network_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    state = dict(CycleGANUNet(5, "batch").state_dict())
    state |= {name: torch.zeros(shape) for name, shape in change.items() if shape}
    kept = {name: tensor for name, tensor in state.items() if change.get(name, True)}
    torch.save(kept, tmp_path / "G.pth")
    said = refusal(tmp_path / "G.pth", tmp_path)
    assert "looks like unet_32 of pytorch-CycleGAN-and-pix2pix, but is not" in said
    assert words in said


def test_options_that_do_not_fit_the_file_are_refused(tmp_path: Path) -> None:
    instance = save(CycleGANUNet(5, "instance"), tmp_path / "instance.pth")
    assert "norm 'instance', which keeps no statistics" in refusal(instance, tmp_path, norm_statistics="running")
    assert "--nearest: the network enlarges with transposed" in refusal(instance, tmp_path, nearest=True)
    resized = save(CycleGANResNet(6, "instance", resized=True), tmp_path / "resized.pth")
    assert "Type --nearest if it was nearest" in refusal(resized, tmp_path)


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("unpickled"),)


def test_nothing_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model.model.0.weight": Bomb()}, "bomb.pth")
    assert "holds more than tensors" in refusal(Path("bomb.pth"), tmp_path)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "state_dict": {}}, "a dictionary with epoch, state_dict"),
        (OrderedDict(), "an empty OrderedDict"),
        ([torch.zeros(1)], "a list"),
        ({"model.1.weight": torch.zeros(1).expand(4, 10**6, 10**4)}, "claims more values than it has bytes"),
        ({"model.1.weight": torch.eye(2).to_sparse()}, "holds more than tensors"),
        ({1: torch.zeros(1)}, "names that are no text"),
        ({"model.1.weight": torch.zeros(2, dtype=torch.int64)}, "as torch.int64; expected floats"),
        ({"model.1.weight": torch.zeros(2, dtype=torch.bool)}, "as torch.bool; expected floats"),
        ({"model.1.weight": torch.zeros(2, dtype=torch.complex64)}, "as torch.complex64; expected floats"),
        ({"model.1.weight": torch.tensor([1.0, torch.nan])}, "holds NaN or infinite values in model.1.weight"),
        ({"model.1.weight": torch.tensor([torch.inf, -torch.inf])}, "holds NaN or infinite values in model.1.weight"),
    ],
)
def test_what_is_no_state_dict_is_refused(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "G.pth")
    assert words in refusal(tmp_path / "G.pth", tmp_path)


def rezipped(path: Path, data_pkl: bytes | None = None, method: int = ZIP_STORED) -> Path:
    """The checkpoint's entries written again, perhaps with another `data.pkl`."""
    with ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with ZipFile(path, "w", method) as new:
        for name, content in entries.items():
            new.writestr(name, data_pkl if data_pkl is not None and name.endswith("data.pkl") else content)
    return path


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """With less address space to spare than it would unpack to."""
    torch.save({"model.1.weight": torch.zeros(2)}, tmp_path / "G.pth")
    assert "entries are compressed" in refusal(rezipped(tmp_path / "G.pth", method=ZIP_DEFLATED), tmp_path)
    with ZipFile(tmp_path / "G.pth", "w", ZIP_DEFLATED) as archive, archive.open("G/data/0", "w") as entry:
        for _ in range(1 << 7):
            entry.write(bytes(1 << 23))
    limit, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), hard))
    try:
        assert "entries are compressed" in refusal(tmp_path / "G.pth", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


PICKLES = {
    b"\x80\x02(.": "IndexError",  # a mark and nothing
    b"\x80\x02h\x07.": "KeyError",  # what was never remembered
    b"\x80\x02.": "IndexError",
    b"\x80\x02": "EOF|exhausted",
    b"\x80\x02" + b")\x85" * 5 + b"Q.": "persistent|saved_id|AssertionError|more than tensors",
    b"\x80\x02]" + b"]a" * (1 << 16) + b".": "exhausted",
    b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.": "holds more than tensors",
    b"\x80\x02ctorch._utils\n_rebuild_meta_tensor_no_storage\n.": "holds more than tensors",
}


@pytest.mark.parametrize("content", PICKLES)
def test_whatever_the_unpickler_stumbles_over_is_a_sentence(content: bytes, tmp_path: Path) -> None:
    torch.save({"model.1.weight": torch.zeros(2)}, tmp_path / "G.pth")
    assert re.search(PICKLES[content], refusal(rezipped(tmp_path / "G.pth", data_pkl=content), tmp_path))


@pytest.mark.parametrize("early", [False, True])
def test_a_damaged_value_or_a_missing_one_is_found(early: bool, tmp_path: Path) -> None:
    path = tmp_path / "G.pth"
    torch.save({"model.1.weight": torch.ones(64)}, path, _use_new_zipfile_serialization=not early)
    whole, value = path.read_bytes(), torch.ones(64).numpy().tobytes()
    at = whole.index(value)
    flipped = whole[: at + 8] + b"\1" + whole[at + 9 :]
    for content in (whole[:-8], *((whole + b"\0",) if early else (flipped, whole[:at]))):
        path.write_bytes(content)
        assert "G.pth is damaged" in refusal(path, tmp_path)


def test_values_that_an_early_file_does_not_have_are_not_taken_from_memory(tmp_path: Path) -> None:
    path = tmp_path / "G.pth"
    torch.save({"model.1.weight": torch.ones(64)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    names = whole.rindex(b"\x80\x02")  # the last pickle: names of the storages whose values follow
    path.write_bytes(whole[:names] + b"\x80\x02]." + bytes(512))
    assert "has not the values of these tensors" in refusal(path, tmp_path)


def test_converting_takes_less_than_three_times_the_files_size(tmp_path: Path) -> None:
    """Of files in half precision, whose weights become twice as large."""
    state = halves(CycleGANUNet(8, "batch", width=64))
    torch.save(state, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "early.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "G.safetensors")
    program = """
import sys
from pathlib import Path
import safetensors.torch
from pix2pix_hub.convert.checkpoint import convert_checkpoint
def most():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10
convert_checkpoint(Path(sys.argv[1]), Path(sys.argv[1] + ".first"))  # what is imported late is imported now
Path("/proc/self/clear_refs").write_text("5")
before = most()
convert_checkpoint(Path(sys.argv[2]), Path(sys.argv[2] + ".out"))
print((most() - before) / Path(sys.argv[2]).stat().st_size)
"""
    small = save(CycleGANUNet(5, "batch"), tmp_path / "small.pth")
    for path in sorted(tmp_path.glob("*.*")):
        process = start_command(["-c", program, str(small), str(path)], cwd=tmp_path)
        output, _ = process.communicate(timeout=120)
        shutil.rmtree(f"{small}.first")
        assert path == small or float(output) < 3, f"{path.name}: {output}"


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00."])
def test_damaged_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "G.pth").write_bytes(content)
    assert "G.pth" in refusal(tmp_path / "G.pth", tmp_path)
    (tmp_path / "G.safetensors").write_bytes(content)
    assert "is damaged" in refusal(tmp_path / "G.safetensors", tmp_path)
    assert "is no file" in refusal(tmp_path / "absent.pth", tmp_path)


def test_files_of_early_pytorch_and_of_data_parallel_are_read(tmp_path: Path) -> None:
    state = CycleGANUNet(5, "batch").state_dict()
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(prefixed, tmp_path / "G.pth", _use_new_zipfile_serialization=False)
    found = read_checkpoint(tmp_path / "G.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
