"""Whole runs on streamed sets, in processes of their own: killed and resumed they end the same, bitwise."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from launching import TINY, TORCHRUN_TWO, finish, kill, start, wait_for
from PIL import Image
from run_results import Tiny, same, train, weights
from sharded_sets import write_parquet, write_tars

from pix2pix_hub.training.trainer import Pix2PixTrainer
from pix2pix_hub.util import UserError

LENGTHS = (9, 4, 8)
BAD = {2: (0, 2), 10: (1, 1), 20: (2, 7)}  # number of the pair: its shard and row; the first is found before training
STREAM = ["--streaming", "--shuffle-buffer", "4", "--checkpoint-every", "2"]
COUNTED = ["--max-train-pairs", "21"]  # three epochs of 11 steps


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"checkpoint_{step}" / "manifest.json"


def left_out(run: Path) -> list[tuple[str, int, int]]:
    """Split, shard and row of the pairs in `bad_pairs.jsonl`, whose count and reasons are right."""
    entries = [json.loads(line) for line in (run / "bad_pairs.jsonl").read_text().splitlines()]
    assert json.loads((run / "training_config.json").read_text())["dataset"]["left_out"] == len(entries)
    assert json.loads((run / "model" / "training_config.json").read_text())["dataset"]["left_out"] == len(entries)
    for entry in entries:
        name = "row {row} of shard {shard} of split {split}".format(**entry)
        assert entry["reason"].startswith(f"{name}, column source"), entry
    return [(entry["split"], entry["shard"], entry["row"]) for entry in entries]


@pytest.mark.parametrize(
    ("parquet", "workers", "launcher", "step"),
    [(True, "0", (), 14), (True, "2", TORCHRUN_TWO, 8), (False, "1", TORCHRUN_TWO, 8)],
)
def test_killed_and_resumed_it_ends_the_same(
    parquet: bool, workers: str, launcher: tuple[str, ...], step: int, tmp_path: Path
) -> None:
    """The same weights, and the same pairs left out, each once."""
    if parquet:
        folder = write_parquet(tmp_path / "set", LENGTHS, bad=BAD)
    else:
        folder = write_tars(tmp_path / "set", LENGTHS, bad=BAD)
    options = [*TINY, *STREAM, *COUNTED, "--dataset", str(folder), "--num-workers", workers, "--on-bad-pair", "skip"]
    how: dict[str, Any] = dict(cwd=tmp_path, launcher=launcher)
    status, output = finish(*options, "--output-dir", "whole", **how)
    assert status == 0, output
    assert output.count("Left out: row 1 of shard 1 of split train") == 1  # however many epochs meet it
    process = start(*options, "--output-dir", "parts", **how)
    wait_for(process, checkpoint(tmp_path / "parts", step).exists)
    kill(process)
    assert not (tmp_path / "parts" / "model").exists(), "it had ended already"
    status, output = finish("--resume", "--output-dir", "parts", **how)
    assert status == 0, output
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert left_out(tmp_path / "whole") == [("train", *place) for place in BAD.values()]
    assert (tmp_path / "parts" / "bad_pairs.jsonl").read_text() == (tmp_path / "whole" / "bad_pairs.jsonl").read_text()
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("parts", "whole")]
    losses = [[(e["step"], e.get("g_l1")) for e in map(json.loads, log)] for log in logs]
    assert losses[0] == losses[1]
    if parquet and not launcher:
        assert losses[0][-2][0] == 33  # three epochs of 11 steps


def test_another_number_of_workers_cannot_go_on(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", LENGTHS)
    options = dict(dataset=str(folder), streaming=True, max_train_pairs=None)
    train(tiny(**options, max_steps=3))
    with pytest.raises(UserError, match="Go on with --num-workers 1"):
        train(tiny(**options, max_steps=4, resume=True, num_workers=2))


@pytest.mark.parametrize("accumulation", ["1", "100"])  # with the latter in the middle of a step
def test_a_bad_pair_stops_both_processes_and_is_named(accumulation: str, tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", LENGTHS, bad=[10])
    options = [*TINY, *STREAM, *COUNTED, "--dataset", str(folder), "--num-workers", "1", "--output-dir", "run"]
    options += ["--gradient-accumulation-steps", accumulation]
    status, output = finish(*options, cwd=tmp_path, launcher=TORCHRUN_TWO)
    assert status != 0, output
    stop = "" if accumulation == "100" else r"stopped after step (\d+), which is saved: "
    steps = re.findall(rf"error: {stop}row 1 of shard 1 of split train", output)
    assert len(steps) == 2 and len(set(steps)) == 1, output  # both processes end of themselves
    assert accumulation == "100" or checkpoint(tmp_path / "run", int(steps[0])).exists()


def test_a_file_that_goes_missing_stops_both_processes_and_is_named(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "pairs").mkdir(exist_ok=True)
        Image.new("RGB", (64, 32)).save(tmp_path / "pairs" / f"{number:02}.png")
    options = [*TINY, "--dataset", "pairs", "--cache", "off", "--epochs", "500", "--output-dir", "run"]
    options += ["--eval-metrics", "psnr"]  # which looks at no training pairs
    process = start(*options, cwd=tmp_path, launcher=TORCHRUN_TWO)
    wait_for(process, (tmp_path / "run" / "metrics.jsonl").exists)
    for file in sorted((tmp_path / "pairs").iterdir())[:4]:
        file.unlink()
    output, _ = process.communicate(timeout=120)
    assert len(re.findall(r"error: .*the next pairs cannot be read \(0[0-3].png.*add --resume", output)) == 2, output


def test_stopped_at_a_bad_pair_it_goes_on_as_if_it_had_skipped_from_the_start(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", LENGTHS, bad=[10])
    options = dict(dataset=str(folder), streaming=True, shuffle_buffer=4, max_train_pairs=None)
    for resume in (False, True):  # and stops again where it stands
        with pytest.raises(UserError, match="row 1 of shard 1 of split train.*add --resume --on-bad-pair skip"):
            train(tiny(**options, resume=resume))
    saved = [int(path.name.removeprefix("checkpoint_")) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert saved and not (tmp_path / "run" / "bad_pairs.jsonl").exists()
    result = train(tiny(**options, resume=True, on_bad_pair="skip"))
    assert left_out(result.run_folder) == [("train", 1, 1)]
    whole = train(tiny(**options, output_dir=str(tmp_path / "whole"), on_bad_pair="skip"))
    assert result.step == whole.step == 22
    assert same(weights(result.run_folder), weights(whole.run_folder))
    with pytest.raises(UserError, match="--on-bad-pair stop .the run has skip"):
        Pix2PixTrainer(tiny(**options, resume=True))


def test_shards_are_counted_once_for_a_run(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tars(tmp_path / "set", LENGTHS)
    columns = dict(source_column="source.png", target_column="target.png")
    options = dict(dataset=str(folder), streaming=True, max_train_pairs=10, epochs=1, **columns)
    assert train(tiny(**options)).step == 5
    monkeypatch.setattr("pix2pix_hub.data.stream.shard_lengths", lambda *a: pytest.fail("they were counted again"))
    assert train(tiny(**options | {"epochs": 2}, resume=True)).step == 10
