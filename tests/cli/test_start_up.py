"""What asks for help waits for nothing: no help text imports torch, nor does the package by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from launching import environment

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
