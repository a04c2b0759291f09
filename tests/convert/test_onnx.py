"""ONNX files: opened by onnxruntime, at sizes other than those that were traced or checked."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from pix2pix_hub.cli import main
from pix2pix_hub.convert import onnx
from pix2pix_hub.convert.onnx import shrink_weights, write_onnx
from pix2pix_hub.models import ResNetGenerator, UNetGenerator
from pix2pix_hub.models.base import Generator
from pix2pix_hub.util import UserError

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnx onnxscript onnxruntime")
pytest.importorskip("onnxscript", reason="pip install onnx onnxscript onnxruntime")

NETWORKS: dict[str, Generator] = {
    "paper": UNetGenerator(1, 2, base_channels=4, num_downs=3, norm="batch", bottleneck="none"),
    "default": UNetGenerator(3, 3, base_channels=4, num_downs=2),
    "resize": UNetGenerator(3, 3, 4, 2, norm="batch", norm_statistics="running", upsampling="resize"),
    "resnet": ResNetGenerator(3, 1, base_channels=4, num_blocks=1),
}


def network(name: str) -> Generator:
    torch.manual_seed(0)
    made = NETWORKS[name]
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_gives_what_the_model_gives_at_any_size(name: str, tmp_path: Path) -> None:
    generator = network(name)
    path = tmp_path / "model.onnx"
    assert write_onnx(generator, path) <= 1e-4
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["source"]
    step, least = generator.size_multiple, generator.minimum_size
    for size in [(1, least, least), (1, least + 5 * step, least), (5, least + 4 * step, least + 7 * step)]:
        source = torch.rand(size[0], generator.in_channels, *size[1:]) * 2 - 1
        expected = generator(source).detach()
        assert expected.std() > 0.01
        generated = torch.from_numpy(session.run(["generated"], {"source": source.numpy()})[0])
        torch.testing.assert_close(generated, expected, rtol=0, atol=1e-4)


def test_a_file_that_gives_something_else_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "largest_difference", lambda generator, path: 2e-4)
    with pytest.raises(UserError, match=r"differs from the model by 2\.0e-04, more than 0\.0001: nothing was written"):
        write_onnx(network("resnet"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_takes_runs_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    network("default").save_files(tmp_path / "my_run" / "model")
    assert main(["export", "my_run", "--format", "onnx"]) == 0
    assert "(N, 3, H, W) in [-1, 1], H and W multiples of 4 from 8" in capsys.readouterr().out
    content = Path("my_run.onnx").read_bytes()
    assert main(["export", "my_run", "--format", "onnx"]) == 2
    assert Path("my_run.onnx").read_bytes() == content
    assert main(["export", "my_run", "--format", "onnx", "--output", "nowhere/model.onnx"]) == 2
    assert not Path("nowhere").exists()
    assert "exists and is never overwritten" in capsys.readouterr().err


def test_missing_packages_are_named_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else object())
    assert main(["export", "no/model", "--format", "onnx"]) == 2
    assert "needs onnxscript: pip install onnx onnxscript onnxruntime" in capsys.readouterr().err


@pytest.mark.parametrize(("precision", "share", "least"), [("float16", 0.5, 60.0), ("int8", 0.25, 35.0)])
def test_weights_of_fewer_bits_give_nearly_the_same(precision: str, share: float, least: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = UNetGenerator(3, 3, base_channels=24, num_downs=2).eval()
    write_onnx(generator, tmp_path / "whole.onnx")
    shrink_weights(tmp_path / "whole.onnx", precision, tmp_path / "small.onnx")
    weights = 4 * sum(parameter.numel() for parameter in generator.parameters())
    assert (tmp_path / "small.onnx").stat().st_size < share * weights + 40_000
    source = torch.rand(1, 3, 32, 48) * 2 - 1
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    generated = torch.from_numpy(session.run(None, {"source": source.numpy()})[0])
    expected = generator(source).detach()
    assert 10 * math.log10(float(expected.square().mean() / (generated - expected).square().mean())) > least
