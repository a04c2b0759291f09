"""`pix2pix-hub`: help that waits for nothing, and how commands end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from launching import environment

from pix2pix_hub import cli

HEAVY = {"torch", "torchvision", "datasets", "accelerate", "gradio", "matplotlib", "scipy", "pandas"}

CODE = f"""
import sys
import pix2pix_hub
assert not (loaded := {HEAVY} & set(sys.modules)), f"the package: {{loaded}}"
from pix2pix_hub.cli import COMMANDS, main, train
from pix2pix_hub.ui.serve import serve

calls = {{name: lambda name=name: main([*name.split(), "--help"]) for name in ("", *COMMANDS)}}
calls |= {{"train": lambda: train(["--help"]), "app": lambda: serve(["--help"])}}
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


@pytest.mark.parametrize(("words", "status", "said"), [([], 0, "usage: "), (["paint"], 2, "error: no command 'paint'")])
def test_without_a_known_command_all_are_listed(
    words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == status
    answer = capsys.readouterr().out
    assert said in answer and all(f"\n  {name} " in answer for name in cli.COMMANDS)


def test_a_command_that_is_interrupted_says_so_in_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait() -> None:
        """Wait for somebody's Ctrl-C."""
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "wait", wait)
    assert cli.main(["wait"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"
