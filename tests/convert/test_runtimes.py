"""Files for other runtimes: opened by those runtimes, at sizes other than those that were traced or checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pix2pix_hub.cli import main
from pix2pix_hub.convert import runtimes
from pix2pix_hub.convert.runtimes import Runner, write_runtime_file
from pix2pix_hub.models import ResNetGenerator, UNetGenerator
from pix2pix_hub.models.auto import Generator
from pix2pix_hub.util import UserError

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


def opened(path: Path, format: str) -> Runner:
    if format == "torchscript":
        return torch.jit.load(str(path))
    if format == "torch-export":
        return torch.export.load(path).module()
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnx onnxscript onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert given.name == "source"
    return lambda source: torch.from_numpy(session.run(["generated"], {"source": source.numpy()})[0])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.jit's, that it will go one day
@pytest.mark.parametrize(
    ("format", "name"),
    [("onnx", "paper"), ("onnx", "resnet"), ("torch-export", "paper"), ("torch-export", "resize")]
    + [("torchscript", name) for name in NETWORKS],
)
def test_the_file_gives_what_the_model_gives_at_any_size(format: str, name: str, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxscript", reason="pip install onnx onnxscript onnxruntime")
    generator = network(name)
    path = tmp_path / f"model{runtimes.SUFFIXES[format]}"
    assert write_runtime_file(generator, path, format) <= 1e-4
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    run = opened(path, format)
    step, least = generator.size_multiple, generator.minimum_size
    for size in [(1, least, least), (1, least + 5 * step, least), (5, least + 4 * step, least + 7 * step)]:
        source = torch.rand(size[0], generator.in_channels, *size[1:]) * 2 - 1
        expected = generator(source).detach()
        assert expected.std() > 0.01
        torch.testing.assert_close(run(source).detach(), expected, rtol=0, atol=1e-4)


def test_a_file_that_gives_something_else_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(generator: Generator, path: Path) -> Runner:
        path.write_bytes(b"wrong")

        def run(source: Tensor) -> Tensor:
            return generator(source) + 2e-4

        return run

    monkeypatch.setattr(runtimes, "_write_torchscript", write)
    with pytest.raises(UserError, match=r"differs from the model by 2\.0e-04, more than 0\.0001: nothing was written"):
        write_runtime_file(network("default"), tmp_path / "model.pt", "torchscript")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_command_takes_runs_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    network("default").save_files(tmp_path / "my_run" / "model")
    assert main(["export", "my_run", "--format", "torchscript"]) == 0
    assert "(N, 3, H, W) in [-1, 1], H and W multiples of 4 from 8" in capsys.readouterr().out
    content = Path("my_run.torchscript.pt").read_bytes()
    assert main(["export", "my_run", "--format", "torchscript"]) == 2
    assert Path("my_run.torchscript.pt").read_bytes() == content
    assert main(["export", "my_run", "--format", "torchscript", "--output", "nowhere/model.pt"]) == 2
    assert not Path("nowhere").exists()
    assert "exists and is never overwritten" in capsys.readouterr().err


def test_missing_packages_are_named_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnxscript" else object())
    assert main(["export", "no/model", "--format", "onnx"]) == 2
    assert "needs onnxscript: pip install onnx onnxscript onnxruntime" in capsys.readouterr().err
