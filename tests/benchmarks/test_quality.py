"""The comparison of fast with plain training: runs that cannot stand in one table are refused, by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import quality  # noqa: E402

SETTINGS = {"epochs": 3, "image_size": "64", "batch_size": 4, "base_channels": 8}
OPTIONS = ["--epochs", "3", "--image-size", "64", "--batch-size", "4", "--base-channels", "8"]


def write_run(runs: Path, name: str, **changed: object) -> None:
    """A finished run: its settings and its last epoch."""
    (runs / name / "model").mkdir(parents=True)
    (runs / name / "training_config.json").write_text(json.dumps({"options": SETTINGS | changed}))
    entry = {"event": "validation", "l1": 0.25, "psnr": 15.0, "ssim": 0.5, "train_d_loss": 0.6}
    (runs / name / "metrics.jsonl").write_text(json.dumps(entry) + "\n")


def run_quality(monkeypatch: pytest.MonkeyPatch, runs: Path, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["quality.py", "--runs", str(runs), "--seeds", "1", *words])
    monkeypatch.setattr(quality.subprocess, "run", lambda *_, **__: pytest.fail("a run was started"))
    quality.main()


@pytest.mark.parametrize("changed", [{"epochs": 5}, {"image_size": "128"}, {"batch_size": 1}, {"base_channels": 32}])
@pytest.mark.parametrize("words", [OPTIONS, ["--table"]])
def test_runs_of_other_settings_are_refused(
    changed: dict[str, object],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path, "fast_0")
    write_run(tmp_path, "plain_0", **changed)
    with pytest.raises(SystemExit) as stopped:
        run_quality(monkeypatch, tmp_path, *words)
    assert stopped.value.code == 2
    ((name, value),) = changed.items()
    assert f"{tmp_path / 'plain_0'} holds a run of other settings: {name} {value}, not" in capsys.readouterr().err


@pytest.mark.parametrize("words", [OPTIONS, ["--table"]])
def test_finished_runs_of_the_same_settings_are_compared(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("fast_0", "plain_0"):
        write_run(tmp_path, name)
    run_quality(monkeypatch, tmp_path, *words)
    assert "| plain | 1 | 0.25 (0.25 to 0.25) |" in capsys.readouterr().out


def test_a_table_without_runs_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_quality(monkeypatch, tmp_path, "--table")
    assert stopped.value.code == 2
    assert f"{tmp_path} holds no finished run" in capsys.readouterr().err
