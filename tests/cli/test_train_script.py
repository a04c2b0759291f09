"""`pix2pix-hub train` and `train_accelerate.py` as their user meets them: help, errors, and what it says at the end."""

import ast
import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from launching import LAUNCH, ROOT, TINY, environment, finish
from PIL import Image

from pix2pix_hub.cli import main, parse_training_config
from pix2pix_hub.config import TrainingConfig, flag, preset_config
from pix2pix_hub.training import report
from pix2pix_hub.training.checkpoint import Progress


def picture(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def test_help_names_every_option_and_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = "".join(capsys.readouterr().out.split())
    documented: dict[str, str] = {}
    for node in ast.walk(ast.parse((ROOT / "pix2pix_hub" / "config.py").read_text())):
        classes = [cls.__name__ for cls in TrainingConfig.__mro__]
        body = node.body if isinstance(node, ast.ClassDef) and node.name in classes else []
        for option, after in zip(body, body[1:], strict=False):
            if isinstance(option, ast.AnnAssign) and isinstance(after, ast.Expr):
                documented[ast.unparse(option.target)] = ast.literal_eval(after.value)
    for field in dataclasses.fields(TrainingConfig):
        assert flag(field.name) in told, field.name
        assert "".join(documented[field.name].split())[:40] in told.replace("│", ""), field.name


BAD = {
    "unknown data set": (["--dataset", "no/such-pairs"], ["--dataset 'no/such-pairs'", "folder", "Hub"]),
    "empty folder": (["--dataset", "empty"], ["empty", "train/"]),
    "not a side-by-side pair": (["--dataset", "square"], ["square", "a.png", "64x64"]),
    "unreadable image": (["--dataset", "broken"], ["b.png"]),
    "one pair": (["--dataset", "single"], ["single", "pair"]),
    "indivisible size": (["--image-size", "100"], ["--image-size 100", "96x96 or 128x128"]),
    "unknown flag": (["--epoch", "3"], ["--epoch", "--epochs"]),
    "unknown preset": (["--preset", "huge"], ["huge", "demo", "paper"]),
    "resume of nothing": (["--resume"], ["--resume found no run", "--output-dir"]),
    "resume of a folder that is not there": (["--resume", "--output-dir", "nothere"], ["no run in nothere"]),
    "unwritable number": (["--batch-size", "many"], ["--batch-size", "many"]),
    "fp16 on a CPU": (["--mixed-precision", "fp16"], ["--mixed-precision fp16", "auto"]),
    "missing split": (["--dataset", "fine", "--train-split", "trian"], ["trian", "train"]),
    "unknown column": (["--dataset", "fine", "--source-column", "x"], ["--target-column"]),
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "empty").mkdir()
    for name in ("a", "b"):
        picture(folder / "square" / "train" / f"{name}.png", 64, 64)
        picture(folder / "broken" / "train" / f"{name}.png", 128, 64)
        picture(folder / "fine" / "train" / f"{name}.png", 128, 64)
    picture(folder / "single" / "train" / "a.png", 128, 64)
    (folder / "broken" / "train" / "b.png").write_bytes((folder / "fine" / "train" / "b.png").read_bytes()[:500])
    return folder


def run(arguments: list[str]) -> int:
    """`pix2pix-hub train` in this process; its exit status."""
    from accelerate.state import AcceleratorState

    try:
        return main(["train", *arguments])
    except SystemExit as end:  # options that cannot be parsed
        return int(str(end.code))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def assert_answered(name: str, status: int, output: str) -> None:
    assert status == 2, output
    assert "Traceback" not in output
    for word in BAD[name][1]:
        assert word in " ".join(output.split()), output


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_answered_in_words_and_writes_nothing(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("COLUMNS", "200")
    before = sorted(workplace.rglob("*"))
    assert_answered(name, run(BAD[name][0]), "".join(capsys.readouterr()))
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize("name", ["unreadable image", "unknown flag"])
def test_bad_input_ends_the_process_without_a_traceback(name: str, workplace: Path) -> None:
    assert_answered(name, *finish(*BAD[name][0], cwd=workplace))


def test_a_dry_run_describes_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*TINY, "--dry-run"]) == 0
    output = capsys.readouterr().err
    for words in ("10 training and 3 validation pairs", "parameters", "15 steps", "runs/synthetic_demo_001"):
        assert words in output
    assert re.search(
        r"\nestimate   about \d+ .*s for 15 steps of \d\S* s, .*; \d\S* GB of memory, \S+ GB are free\n", output
    )
    assert not list(tmp_path.iterdir())


def test_the_estimate_is_that_of_the_timed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1 s, 2 s, 3 s and 4 s, the first warms up; a break that is no training, of 100 s, is left out."""
    clock = iter([0, 0, 1, 1, 3, 3, 103, 106, 106, 110, 110])
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    pace = report.Pace(torch.device("cpu"))
    pace.start_clock()
    assert pace.step(9) is None and pace.step(8) is None
    pace.start_clock()
    assert pace.step(7) is None
    assert (pace.step(1203) or "").startswith("estimate   about 1 h 0 min for 1203 steps of 3 s, ")
    assert pace.step(5) is None


def test_epochs_are_a_table_where_a_terminal_is_and_sentences_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = report.Reporter(Accelerator(cpu=True), preset_config("demo"), tmp_path, Progress(epoch=7), 10)
    said: list[str] = []
    monkeypatch.setattr(report.logger, "info", lambda text, *values: said.append(text % values))
    for terminal in (False, True, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        reporter.say_epoch({"l1": 0.123456, "psnr": 17.0}, 1.5)
    row = "    7    0.1235        17     1.500"
    head = "\033[1mepoch        L1      PSNR    D loss\033[0m"
    assert said == ["Epoch 7: L1 0.1235, PSNR 17, D loss 1.500.", head, row, row]


def test_it_ends_by_saying_where_the_model_is_and_commands_that_work(tmp_path: Path) -> None:
    status, output = finish(*TINY, "--epochs", "1", cwd=tmp_path, launcher=LAUNCH)
    assert status == 0, output
    assert "The model is in runs/synthetic_demo_001/model" in output
    recorded = json.loads((tmp_path / "runs" / "synthetic_demo_001" / "training_config.json").read_text())["command"]
    assert recorded == shlex.join(["accelerate", "launch", "train_accelerate.py", *TINY, "--epochs", "1"])
    commands = [line.strip() for line in output.splitlines() if line.startswith(("  accelerate", "  pix2pix-hub"))]
    resume, translate, app, push, own_pairs = map(shlex.split, commands)
    status, output = finish(*resume[3:], cwd=tmp_path)
    assert status == 0, output
    for name in ("a", "b", "c"):
        picture(tmp_path / "path" / "to" / "images" / f"{name}.png", 40, 30)
        picture(tmp_path / "path" / "to" / "your" / "pairs" / f"{name}.png", 128, 64)
    status, output = finish(*own_pairs[3:], "--image-size", "64", "--dry-run", cwd=tmp_path)
    assert status == 0, output
    translated = subprocess.run(
        [sys.executable, "-m", "pix2pix_hub.cli", *translate[1:]],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert translated.returncode == 0, translated.stderr
    assert sorted(path.name for path in (tmp_path / "translated").iterdir()) == ["a.png", "b.png", "c.png"]
    assert app == ["pix2pix-hub", "app", "--model", "runs/synthetic_demo_001"]
    assert push == ["pix2pix-hub", "push", "runs/synthetic_demo_001", "user/name"]


def test_with_a_dataset_the_preset_is_default_and_without_demo(workplace: Path) -> None:
    assert parse_training_config([]).preset == "demo"
    assert parse_training_config(["--dataset", "fine"]).preset == "default"
    assert parse_training_config(["--dataset=fine", "--preset", "compact"]).base_channels == 29
    assert parse_training_config(["--batch_size", "3"]).batch_size == 3
