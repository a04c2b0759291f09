"""What README says is true: its commands, options, presets and snippets."""

import dataclasses
import re
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import pytest

from pix2pix_hub.cli import COMMANDS
from pix2pix_hub.config import PRESETS, TrainingConfig, preset_config
from pix2pix_hub.training.setup import make_networks, parameter_count
from pix2pix_hub.training.trainer import Pix2PixTrainer
from pix2pix_hub.ui.serve import AppOptions

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block_with(text: str) -> str:
    """The indented block of README that contains `text`."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, flags=re.MULTILINE)
    (found,) = [block for block in blocks if text in block]
    return "\n".join(line.removeprefix("    ") for line in found.splitlines())


def test_ci_runs_the_test_command() -> None:
    assert "pip install -r requirements.txt && pytest\n" in README
    assert "pip install --quiet -r requirements.txt && pytest\n" in (ROOT / ".ci" / "run").read_text()


def test_options_that_are_named_exist() -> None:
    commands = {
        f"--{name}".replace("_", "-") for command in COMMANDS.values() for name in signature(command).parameters
    }
    accelerates = {"--multi_gpu", "--cpu", "--num_processes", "--quiet", "--help"}
    apps = {f"--{field.name}".replace("_", "-") for field in dataclasses.fields(AppOptions)}
    known = (
        {"--" + field.name.replace("_", "-") for field in dataclasses.fields(TrainingConfig)}
        | accelerates
        | apps
        | commands
    )
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", README))
    assert len(named) > 15
    assert named <= known, named - known


def test_the_table_of_presets_counts_right() -> None:
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in README.splitlines() if line.startswith("|")}
    counts = rows["generator, discriminator parameters"]
    for name, cell in zip(["default", "compact", "demo", "paper"], counts, strict=True):
        networks = make_networks(preset_config(name, image_size="256"), 3, 3)
        assert cell.strip() == ", ".join(f"{parameter_count(network):,}" for network in networks)
    assert set(PRESETS) == {"default", "compact", "demo", "paper"}


def test_files_of_the_map_exist() -> None:
    names = re.findall(r"[\w/]+\.py", block_with("the door: hands its arguments"))
    assert len(names) > 15
    for name in names:
        assert list(ROOT.glob(name)) or list((ROOT / "pix2pix_hub").rglob(Path(name).name)), name


def test_the_snippets_run(tiny: Callable[..., TrainingConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Pix2PixTrainer(tiny(output_dir=None, epochs=1)).train()
    names: dict = {}
    exec(block_with("Pix2PixPipeline.from_pretrained"), names)
    assert names["generated"].size == names["label_map"].size == (128, 128)
    assert len(names["variants"]) == 4 and names["realism"].shape == (8, 8)
    exec(block_with("UNetGenerator.from_pretrained"), names)
    assert names["generated"].shape == (1, 3, 128, 128)
    assert names["realism"].shape == (1, 1, 8, 8)


def test_the_pictures_are_there() -> None:
    names = re.findall(r"!\[.*\]\((.*)\)", README)
    assert len(names) == 3
    for name in names:
        assert (ROOT / name).is_file(), name
