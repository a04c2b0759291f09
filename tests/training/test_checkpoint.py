"""Checkpoints: which one is taken, what is kept, and what happens when the disk is full."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from pix2pix_hub.training.checkpoint import (
    Progress,
    list_checkpoints,
    load_checkpoint,
    newest_sound_checkpoint,
    remove_after,
    save_checkpoint,
)
from pix2pix_hub.training.image_buffer import ImageBuffer
from pix2pix_hub.util import UserError

ROOT = Path(__file__).parents[2]


def prepared(width: int = 4) -> tuple[Accelerator, nn.Module, Progress]:
    """An accelerator that holds one layer and a progress record."""
    accelerator = Accelerator(cpu=True)
    layer = nn.Linear(width, width)
    optimizer = torch.optim.Adam(layer.parameters())
    accelerator.prepare(layer, optimizer)
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    return accelerator, layer, progress


def test_everything_comes_back(tmp_path: Path) -> None:
    accelerator, layer, progress = prepared()
    buffer = ImageBuffer(3, seed=1)
    buffer.query(torch.rand(3, 2, 4, 4))
    progress.step, progress.epoch_sums = 7, {"d_loss": 1.5, "batches": 3.0}
    weights = layer.weight.detach().clone()
    path = save_checkpoint(accelerator, tmp_path, 7, {"image_buffer": buffer}, keep=2)
    drawn = torch.rand(3)
    expected = [buffer.query(torch.zeros(1, 2, 4, 4)) for _ in range(5)]

    nn.init.zeros_(layer.weight)
    progress.step, progress.epoch_sums = 0, {}
    again = ImageBuffer(3)
    load_checkpoint(accelerator, path, {"image_buffer": again})
    assert torch.equal(layer.weight, weights)
    assert (progress.step, progress.epoch_sums) == (7, {"d_loss": 1.5, "batches": 3.0})
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(again.query(torch.zeros(1, 2, 4, 4)), value) for value in expected)


def test_a_run_of_another_machines_gpu_goes_on_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor in the files says that it was on the sixth GPU."""
    accelerator, layer, _ = prepared()
    buffer = ImageBuffer(3, seed=1)
    buffer.query(torch.rand(3, 2, 4, 4))
    with monkeypatch.context() as patched:
        patched.setattr(torch.serialization, "location_tag", lambda storage: "cuda:5")
        path = save_checkpoint(accelerator, tmp_path, 7, {"image_buffer": buffer}, keep=2)
    again = ImageBuffer(3)
    load_checkpoint(accelerator, path, {"image_buffer": again})
    assert torch.equal(again.state_dict()["images"], buffer.state_dict()["images"])


def test_only_the_newest_are_kept_ordered_by_number_and_no_unfinished_one(tmp_path: Path) -> None:
    accelerator, _, _ = prepared()
    leftover = tmp_path / "checkpoints" / "checkpoint_5.partial"
    leftover.mkdir(parents=True)
    assert newest_sound_checkpoint(tmp_path) is None
    for step in (2, 9, 10, 100):
        save_checkpoint(accelerator, tmp_path, step, {}, keep=3)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint_100", "checkpoint_10", "checkpoint_9"]
    assert not leftover.exists()


BAD_MANIFESTS = {
    "cut manifest": "{",
    "manifest without number of processes": '{"step": 2, "files": {}}',
    "manifest with a list of files": '{"step": 2, "num_processes": 1, "files": ["model.safetensors"]}',
    "manifest without checksums": '{"step": 2, "num_processes": 1, "files": {"model.safetensors": 99}}',
    "bottomless manifest": "[" * 10**5,
    "binary manifest": "\0" * 99,
}


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "no manifest", *BAD_MANIFESTS])
def test_a_damaged_checkpoint_is_passed_over_and_removed(damage: str, tmp_path: Path) -> None:
    accelerator, _, _ = prepared()
    older, newer = (save_checkpoint(accelerator, tmp_path, step, {}, keep=3) for step in (1, 2))
    assert newest_sound_checkpoint(tmp_path) == newer
    weights, manifest = newer / "model.safetensors", newer / "manifest.json"
    content = bytearray(weights.read_bytes())
    if damage == "truncated":
        weights.write_bytes(content[:-1])
    elif damage == "flipped":
        content[-1] ^= 255
        weights.write_bytes(content)
    elif damage == "missing":
        weights.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(BAD_MANIFESTS[damage])
    assert newest_sound_checkpoint(tmp_path) == older
    remove_after(tmp_path, older)
    assert list_checkpoints(tmp_path) == [older]
    remove_after(tmp_path, None)
    assert list_checkpoints(tmp_path) == []


def test_networks_of_another_shape_and_another_number_of_processes_are_refused(tmp_path: Path) -> None:
    accelerator, _, _ = prepared(4)
    path = save_checkpoint(accelerator, tmp_path, 1, {}, keep=2)
    other, _, _ = prepared(5)
    with pytest.raises(UserError, match="does not fit these networks"):
        load_checkpoint(other, path, {})
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"num_processes": 2}))
    with pytest.raises(UserError, match="--num_processes 2"):
        load_checkpoint(accelerator, path, {})


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from test_checkpoint import UserError, newest_sound_checkpoint, prepared, save_checkpoint

folder = Path(sys.argv[1])
accelerator, _, _ = prepared(64)
first = save_checkpoint(accelerator, folder, 1, {}, keep=2)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    save_checkpoint(accelerator, folder, 2, {}, keep=2)
except UserError as error:
    print(error)
    assert newest_sound_checkpoint(folder) == first
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint_1"]
    sys.exit(7)
"""


@pytest.mark.parametrize("bytes_left", [0, 1000, 12_000])
def test_a_full_disk_leaves_the_earlier_checkpoint(bytes_left: int, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), str(bytes_left)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 7, run.stdout + run.stderr
    assert "step 2 could not be written" in run.stdout
    assert "checkpoint_1 is untouched" in run.stdout
    assert "--resume" in run.stdout
