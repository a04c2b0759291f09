"""README's sections on old checkpoints and other runtimes work as pasted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from foreign_networks import CycleGANResNet, save

from pix2pix_hub.cli import main
from pix2pix_hub.models import ResNetGenerator

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(section: str) -> list[str]:
    """The indented blocks of a section."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", "\n" + text, flags=re.MULTILINE)
    return ["\n".join(line.removeprefix("    ") for line in block.splitlines()).strip() for block in found]


def arguments(block: str, command: str) -> list[str]:
    """Those of the line of a block that calls `command`."""
    (line,) = [line for line in block.splitlines() if line.startswith(f"python -m pix2pix_hub.cli {command}")]
    return shlex.split(line, comments=True)[3:]


def test_old_checkpoints_and_other_runtimes_work_as_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(CycleGANResNet(6, "instance"), Path("latest_net_G.pth"))
    convert, load = blocks("Old checkpoints")
    assert main(arguments(convert, "convert")) == 0
    names: dict = {}
    exec(load, names)
    assert isinstance(names["generator"], ResNetGenerator)

    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript onnxruntime")
    export, use = blocks("Other runtimes")
    Path("user").mkdir()
    Path("facades_label2photo").rename("user/pix2pix-facades")  # in place of a model on the Hub
    assert main(arguments(export, "export")) == 0
    exec(use, names)
    expected = names["generator"](torch.from_numpy(names["source"])).detach()
    torch.testing.assert_close(torch.from_numpy(names["generated"]), expected, rtol=0, atol=1e-4)
