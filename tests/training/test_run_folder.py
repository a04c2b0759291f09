"""The folder of a run: who may work in it, and what happens where it cannot be written to."""

import fcntl
import os
import platform
import shutil
from pathlib import Path

import pytest
from run_results import Tiny, train

from pix2pix_hub.training.run_folder import claimed
from pix2pix_hub.training.trainer import Pix2PixTrainer
from pix2pix_hub.util import UserError


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_where_a_run_is_at_work_is_left_to_it(resume: bool, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if resume:
        train(tiny(epochs=1))
    else:
        folder.mkdir()
    before = contents(folder)
    with (folder / ".lock").open("a") as lock:
        lock.truncate(0)
        lock.write("process 12345 on the other machine\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        trainer = Pix2PixTrainer(tiny(resume=resume))
        with pytest.raises(UserError, match=r"at work in .*run \(process 12345 on .*--resume.*--output-dir"):
            trainer.train()
        assert contents(folder) == before
        assert (folder / ".lock").read_text() == "process 12345 on the other machine\n"
    assert trainer.train().step == 6


def test_a_run_says_in_its_lock_who_it_is_and_lets_go_at_its_end(tiny: Tiny) -> None:
    seen = []

    def look(export: Path) -> None:
        seen.append((export.parent / ".lock").read_text())
        with (export.parent / ".lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    folder = Pix2PixTrainer(tiny(), on_export=look).train().run_folder
    assert set(seen) == {f"process {os.getpid()} on {platform.node()}\n"}
    with (folder / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_loader_worker_that_outlives_its_run_does_not_hold_the_lock(tiny: Tiny, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    forked, ready = os.pipe()
    with claimed(tiny(), tmp_path / "run", None) as folder:
        worker = os.fork()
        if worker == 0:
            os.close(writing)
            os.write(ready, b"x")
            os.read(reading, 1)  # until the test ends, however
            os._exit(0)
        os.read(forked, 1)
    with (folder / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(writing)
    os.waitpid(worker, 0)


def test_what_another_run_did_between_the_look_and_the_lock_is_seen(tiny: Tiny) -> None:
    late = {resume: Pix2PixTrainer(tiny(resume=resume)) for resume in (False, True)}
    Pix2PixTrainer(tiny(epochs=1)).train()
    with pytest.raises(UserError, match="already holds a run"):
        late[False].train()
    with pytest.raises(UserError, match="meanwhile.*try again"):
        late[True].train()


def test_two_runs_that_take_the_same_number_get_one_each(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainers = [Pix2PixTrainer(tiny(output_dir=None, epochs=1)) for _ in range(2)]
    assert [trainer.run_folder.name for trainer in trainers] == ["synthetic_demo_001"] * 2
    assert [trainer.train().run_folder.name for trainer in trainers] == ["synthetic_demo_001", "synthetic_demo_002"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_as_it_began_is_begun_again(resume: bool, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in (".lock", "training_config.json.partial"):
        (tmp_path / "run" / name).touch()
    assert Pix2PixTrainer(tiny(resume=resume, epochs=1)).train().step == 3


OBSTACLES = (  # to writing, each at its own moment: folders where files should go, files where folders should
    "training_config.json.partial/",
    "metrics.jsonl.partial/",
    "samples/epoch_0002.png.partial/",
    "curves.png.partial/",
    "checkpoints/checkpoint_6.partial",
    "model.partial",
)


def test_what_cannot_be_written_is_said_and_the_run_goes_on_later_as_if_it_had_been(tiny: Tiny, tmp_path: Path) -> None:
    begun = Pix2PixTrainer(tiny(epochs=1)).train().run_folder
    copies = [tmp_path / str(number) for number in range(len(OBSTACLES) + 1)]
    for copy in copies:
        shutil.copytree(begun, copy)
    expected = Pix2PixTrainer(tiny(resume=True, output_dir=str(copies[-1]))).train().run_folder
    for copy, name in zip(copies, OBSTACLES, strict=False):
        config, obstacle = tiny(resume=True, output_dir=str(copy)), copy / name
        obstacle.mkdir() if name.endswith("/") else obstacle.touch()
        with pytest.raises(UserError, match=f"could not be written to .*{obstacle.name}.*checkpoint_.*--resume"):
            Pix2PixTrainer(config).train()
        assert (copy / "checkpoints" / "checkpoint_3" / "manifest.json").exists()
        obstacle.rmdir() if name.endswith("/") else obstacle.unlink()
        Pix2PixTrainer(config).train()
        ours, theirs = contents(copy), contents(expected)
        assert ours.keys() == theirs.keys(), name
        assert not [path for path in ours if path.endswith((".safetensors", ".png")) and ours[path] != theirs[path]]
