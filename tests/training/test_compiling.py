"""`--compile`: what it comes to, and that a compiled run can be stopped and go on."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.training import compiling
from pix2pix_hub.training.compiling import choose_compilation
from pix2pix_hub.training.trainer import Pix2PixTrainer
from pix2pix_hub.util import UserError


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Of everything that is exported."""
    files = sorted(run.glob("model/**/*.safetensors"))
    assert len(files) == 2
    return {f"{file.parent.name}:{name}": value for file in files for name, value in load_file(file).items()}


def test_a_compiled_run_resumed_ends_as_the_uninterrupted_one(
    tiny: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    options = dict(compile="on", max_steps=4, checkpoint_every=2, epochs=2, num_downs=2, spectral_norm=True)
    trainer = Pix2PixTrainer(tiny(**options, output_dir=str(tmp_path / "whole")))
    trainer.train()
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole", stopped)
    for later in ("checkpoints/checkpoint_4", "model", "model_best"):
        shutil.rmtree(stopped / later)
    assert Pix2PixTrainer(tiny(**options, output_dir=str(stopped), resume=True)).train().step == 4
    ours, expected = weights(stopped), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert torch._dynamo.utils.counters["frames"]["ok"], "nothing was compiled"


def test_off_and_auto_compile_nothing_here() -> None:
    assert choose_compilation("off", "cpu", 1, True).mode is None
    assert choose_compilation("auto", "cpu", 1, True).mode is None


def test_on_without_a_compiler_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"no C\+\+ compiler.*apt-get install g\+\+"):
        choose_compilation("on", "cpu", 1, True)


@pytest.mark.parametrize(
    ("batch_size", "plain_loop", "mode"),
    [(1, True, "reduce-overhead"), (16, True, "default"), (1, False, "default")],
)
def test_graphs_are_for_small_batches_of_a_plain_loop_on_cuda(
    batch_size: int, plain_loop: bool, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "missing_for_compilation", lambda device_type: None)
    assert choose_compilation("on", "cuda", batch_size, plain_loop).mode == mode
