"""`pix2pix-hub`: help that waits for nothing, and how commands end."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from launching import environment

from pix2pix_hub import cli
from pix2pix_hub.cli.options import ELSEWHERE, option_names
from pix2pix_hub.config import TrainingConfig

HEAVY = {"torch", "torchvision", "datasets", "accelerate", "gradio", "matplotlib", "scipy", "pandas"}

CODE = f"""
import sys
import pix2pix_hub
assert not (loaded := {HEAVY} & set(sys.modules)), f"the package: {{loaded}}"
assert dir(pix2pix_hub) == sorted(pix2pix_hub.__all__), dir(pix2pix_hub)
from pix2pix_hub.cli import COMMANDS, main

calls = {{name: lambda name=name: main([*name.split(), "--help"]) for name in ("", "data", *COMMANDS)}}
for name, call in calls.items():
    try:
        call()
    except SystemExit as end:
        assert not end.code, (name, end.code)
    assert not (loaded := {HEAVY} & set(sys.modules)), f"{{name}}: {{loaded}}"
print("asked:", len(calls))
"""


def test_no_help_text_imports_anything_heavy(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    asked = int(run.stdout.splitlines()[-1].removeprefix("asked: "))
    assert asked >= 10, run.stdout[-500:]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("", 0, "usage: "),
        ("paint", 2, "error: no command 'paint'"),
        ("tranlsate a.png", 2, "error: no command 'tranlsate': did you mean translate?"),
        ("data --help", 0, "usage: pix2pix-hub data"),
        ("space", 0, "usage: pix2pix-hub space"),
        ("data inspct x", 2, "error: no command 'data inspct': did you mean data inspect?"),
    ],
)
def test_without_a_known_command_all_are_listed(
    words: str, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == status
    answer = capsys.readouterr().out
    group = words.split()[0] if words.startswith(("data", "space")) else ""
    for name in cli.COMMANDS:
        assert (f"\n  {name} " in answer) == name.startswith(group), name
    assert said in answer


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_options_are_known_by_the_names_that_help_shows_and_others_answered(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "129")  # the widest without two columns of groups
    with pytest.raises(SystemExit):
        cli.main([*name.split(), "--help"])
    told = capsys.readouterr().out
    assert not re.search(r"^ +\[*(STR|INT|PATH)", told, re.MULTILINE), "a positional without a name"
    assert not set(told) & set("│╭─"), "no terminal, no boxes"
    shown = set(re.findall(r"(?:^ +|, )(--?[a-z][a-z0-9-]*)", told, re.MULTILINE))
    assert option_names(TrainingConfig if name == "train" else cli.COMMANDS[name]) == shown
    assert cli.main([*name.split(), "--x", "--hepl"]) == 2
    assert "there is no option --x\nthere is no option --hepl; did you mean --help?" in capsys.readouterr().err


def test_names_of_other_projects_are_answered_with_ours(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"lr": "learning-rate", "imgsz": "image-size", "resolution": "image-size", "num_train_epochs": "epochs"}
    for theirs, ours in names.items() | {"train_batch_size": "batch-size"}.items():
        assert cli.main(["train", f"--{theirs}", "3"]) == 2
        assert f"--{theirs} is called --{ours} here" in capsys.readouterr().err
    for theirs, ours in {"flip": "flip-probability", "epoch": "epochs", "learningrate": "learning-rate"}.items():
        assert cli.main(["train", f"--{theirs}", "3"]) == 2
        assert f"no option --{theirs}; did you mean --{ours}?" in capsys.readouterr().err
    train, others = option_names(TrainingConfig), set().union(*map(option_names, cli.COMMANDS.values()))
    for theirs, ours in ELSEWHERE.items():
        assert f"--{theirs}" not in train and f"--{ours}" in train | others


def test_a_command_that_is_interrupted_says_so_in_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait() -> None:
        """Wait for somebody's Ctrl-C."""
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "wait", wait)
    assert cli.main(["wait"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"


def test_the_app_says_at_once_that_a_port_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (99999, taken.getsockname()[1]):
            assert cli.main(["app", "--port", str(port)]) == 2
            assert re.fullmatch(rf"error: --port {port} cannot be used \(.*\): .*\n", capsys.readouterr().err)
