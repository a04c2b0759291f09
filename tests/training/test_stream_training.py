"""Whole runs on streamed sets, in processes of their own: killed and resumed they end the same, bitwise."""

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from launching import LAUNCH_TWO, TINY, finish, send, start, wait_for
from safetensors.torch import load_file
from sharded_sets import write_parquet

from pix2pix_hub.data.stream_source import StreamedPairs, open_stream
from pix2pix_hub.errors import UserError
from pix2pix_hub.training.trainer import Pix2PixTrainer

BAD = b"no image"
LENGTHS = (9, 4, 8)


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a run over 21 pairs in three shards, in three epochs of 11 steps."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    folder = write_parquet(tmp_path / "set", LENGTHS)
    stream = ["--streaming", "--shuffle-buffer", "4", "--checkpoint-every", "2"]
    return [*TINY, "--max-train-pairs", "21", "--dataset", str(folder), *stream]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"checkpoint_{step}" / "manifest.json"


@pytest.mark.parametrize("workers,launcher,step", [("0", (), 14), ("2", (), 12), ("2", LAUNCH_TWO, 8)])
def test_killed_and_resumed_it_ends_the_same(
    workers: str, launcher: tuple[str, ...], step: int, parquet: list[str], tmp_path: Path
) -> None:
    options = [*parquet, "--num-workers", workers]
    status, output = finish(*options, "--output-dir", "whole", cwd=tmp_path, launcher=launcher)
    assert status == 0, output
    process = start(*options, "--output-dir", "parts", cwd=tmp_path, launcher=launcher)
    wait_for(process, checkpoint(tmp_path / "parts", step).exists)
    send(process, signal.SIGKILL)
    assert not (tmp_path / "parts" / "model").exists(), "it had ended already"
    status, output = finish("--resume", "--output-dir", "parts", cwd=tmp_path, launcher=launcher)
    assert status == 0, output
    ours, expected = (weights(tmp_path / name) for name in ("parts", "whole"))
    assert not [name for name in expected if not torch.equal(ours[name], expected[name])]
    if not launcher:
        logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("parts", "whole")]
        losses = [[(e["step"], e.get("g_l1")) for e in map(json.loads, log)] for log in logs]
        assert losses[0] == losses[1]
        assert losses[0][-2][0] == 33  # three epochs of 11 steps


def test_another_number_of_workers_cannot_go_on(parquet: list[str], tmp_path: Path) -> None:
    options = [*parquet, "--output-dir", "run", "--max-steps", "3"]
    status, output = finish(*options, cwd=tmp_path)
    assert status == 0, output
    status, output = finish("--resume", "--output-dir", "run", "--num-workers", "2", "--max-steps", "4", cwd=tmp_path)
    assert status == 2
    assert "--num-workers 1" in output


def test_a_bad_pair_stops_the_run_and_is_named(parquet: list[str], tmp_path: Path) -> None:
    import datasets

    rows = [{"source": {"bytes": BAD}, "target": {"bytes": BAD}}]
    features = datasets.Features({"source": datasets.Image(), "target": datasets.Image()})
    file = tmp_path / "set" / "train-00001-of-00003.parquet"
    datasets.Dataset.from_list(rows, features=features).to_parquet(file)
    status, output = finish(*parquet, "--output-dir", "run", "--num-workers", "1", cwd=tmp_path)
    assert status == 2, output
    assert "row 0 of shard 1 of split train" in output
    assert "Traceback" not in output
    status, output = finish(*parquet, "--output-dir", "skipped", "--on-bad-pair", "skip", cwd=tmp_path)
    assert status == 0, output
    assert "Left out: row 0 of shard 1 of split train" in output


@pytest.fixture
def unknown(parquet: list[str], tmp_path: Path, datasets_cache: Path) -> StreamedPairs:
    return open_stream(str(tmp_path / "set"), image_size=(32, 32), lengths={"train": [None] * 3})


def test_a_stream_of_unknown_length_needs_max_steps(tiny: Callable, unknown: StreamedPairs) -> None:
    with pytest.raises(UserError, match="--max-steps"):
        Pix2PixTrainer(tiny(streaming=True), unknown)


def test_a_stream_of_unknown_length_is_trained_on_to_max_steps(tiny: Callable, unknown: StreamedPairs) -> None:
    result = Pix2PixTrainer(tiny(streaming=True, max_steps=15), unknown).train()
    assert (result.step, result.epoch) == (15, 2)  # 11 steps in the first, 4 in the second


def test_the_size_that_the_set_states_is_enough_to_plan_with(tiny: Callable, unknown: StreamedPairs) -> None:
    stated = dataclasses.replace(unknown, expected_pairs=21)
    assert Pix2PixTrainer(tiny(streaming=True, epochs=2), stated).total_steps == 22
