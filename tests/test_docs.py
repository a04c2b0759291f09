"""README.md and docs/ are true: what they show runs as pasted, what they name exists."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState
from convert.foreign_networks import CycleGANResNet, save
from gradio_client import Client, handle_file
from hub_server import HubServer
from launching import ROOT, TINY, environment, free_port, reachable, start_command, wait_for
from PIL import Image
from tiny_options import TINY_OPTIONS

import pix2pix_hub
from pix2pix_hub.cli import main
from pix2pix_hub.config import PRESETS, preset_config
from pix2pix_hub.image.read import read_image
from pix2pix_hub.models import ResNetGenerator
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.training.setup import make_networks
from pix2pix_hub.ui.store import Limits

PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
NOT_PASTED = ("docs/results.md", "docs/app.md")  # long runs; needs a running app
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+")
NOT_RUN = set("pip pytest hf .ci/run curl path= data= event=".split())
PROGRAMS = NOT_RUN | {"python", "accelerate", "pix2pix-hub"}
SMALL = {"evaluate": "--max-pairs 4 --metrics l1 --no-checks --segmenter-steps 2 --cpu-threads 1"}  # appended
OF_OTHERS = (
    "cpu directory help machine-rank main-process-ip main-process-port multi-gpu num-machines num-processes quiet "
    "master-addr master-port nnodes node-rank nproc-per-node"
)


def read(page: str) -> str:
    return (ROOT / page).read_text()


@cache
def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks of a page, then of the indented ones."""
    indented = INDENTED.findall(FENCED.sub("", read(page)))
    return FENCED.findall(read(page)) + [("", re.sub("^    ", "", text, flags=re.MULTILINE)) for text in indented]


def command_lines(language: str, text: str) -> list[list[str]]:
    """The words of the commands of a block, without comments."""
    if language not in ("", "bash"):
        return []
    lines = text.replace(" && ", "\n").splitlines()
    found = [line for line in lines if re.match(r"[^\s=]*=?", line)[0] in PROGRAMS]  # type: ignore[index]
    assert not language or len(found) == len(lines), f"a program that is not in PROGRAMS: {text}"
    return [shlex.split(line, comments=True) for line in found if "$(" not in line and "'" not in line]


def commands(*pages: str) -> list[list[str]]:
    """The words of all command lines that are ours, each once."""
    lines = {tuple(words) for page in pages for block in blocks(page) for words in command_lines(*block)}
    return [list(words) for words in sorted(lines) if words[0] not in NOT_RUN]


def subcommand(words: list[str]) -> tuple[str, ...]:
    """Whose --help describes a command line: that of `pix2pix-hub NAME`, or of a script."""
    if words[0] == "pix2pix-hub":
        return tuple(words[1:3] if words[1] in ("data", "space") else words[1:2])
    return (next(word for word in words if word.endswith(".py") or word == "tests/campaigns"),)


# ------------------------------------------------------------------------------------------------------- runs as pasted


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the pages suppose: a run of README's first command, pairs, pictures, a checkpoint."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(ROOT / "docs", place / "docs")
    labels, photos = (Image.open(ROOT / "docs" / f"{name}.png").convert("RGB") for name in ("label_map", "result_good"))
    for name in ("map.png", "photo.png", "drawing.png", "a.png", "b.png", "more/c.jpg", "path/to/photos/d.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        labels.save(place / name)
    pair = Image.new("RGB", (64, 32))
    pair.paste(labels.resize((32, 32), Image.Resampling.NEAREST), (0, 0))
    pair.paste(photos.resize((64, 32)).crop((0, 0, 32, 32)), (32, 0))
    for folder, count in (("pairs/train", 10), ("pairs/val", 3), ("facades/train", 10), ("facades/val", 3)):
        (place / "path" / "to" / folder).mkdir(parents=True)
        for number in range(count):
            pair.save(place / "path" / "to" / folder / f"{number:04}.png")
    save(CycleGANResNet(6, "instance"), place / "latest_net_G.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert ["accelerate", "launch", "train_accelerate.py"] in commands("README.md")
        assert main(["train", *TINY]) == 0
        # in place of what is on the Hub: a path that exists comes first
        shutil.copytree("runs/synthetic_demo_001/model", "user/pix2pix-facades")
        assert main(["data", "build", "path/to/pairs", "--output", "user/pairs"]) == 0
    return place


@pytest.fixture
def place(prepared: Path, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A copy of that folder, as the current one, a Hub whose user is called "user", and small runs from Python."""
    hub.user = "user"
    hub.add_folder("user/pix2pix-facades", prepared / "user" / "pix2pix-facades")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(shutil.copytree(prepared, tmp_path / "place"))
    monkeypatch.setattr(pix2pix_hub, "preset_config", lambda name, **given: preset_config(name, **given | TINY_OPTIONS))
    yield
    forget_accelerate()


def forget_accelerate() -> None:
    """Accelerate keeps its state in singletons; each command gets its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def run(words: list[str]) -> None:
    """One command line, made small, in this process; a training is a dry run, unless it resumes the run here."""
    forget_accelerate()
    if words[0] == "accelerate":
        words = ["pix2pix-hub", "train", *words[words.index("train_accelerate.py") + 1 :]]
    if words[:2] == ["pix2pix-hub", "train"]:
        assert main([*words[1:], *TINY, *([] if "--resume" in words else ["--dry-run"])]) == 0, words
    elif words[0] == "pix2pix-hub" and words[1] != "app":  # which stays
        assert main([*words[1:], *SMALL.get(words[1], "").split()]) == 0, words


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page) and page not in NOT_PASTED])
@pytest.mark.usefixtures("place")
def test_a_page_runs_as_pasted(page: str) -> None:
    """From top to bottom, each command and snippet where the ones before it left off."""
    names: dict[str, Any] = {}
    for language, text in blocks(page):
        if page == "docs/data.md" and any(word in text for word in ("pix2pix-hub app", "data tile", "brightfield")):
            continue  # have tests of their own
        forget_accelerate()
        exec(compile(text, page, "exec") if language == "python" else "", names)
        for words in command_lines(language, text):
            run(words)
    if page == "docs/converting.md":
        assert isinstance(names["generator"], ResNetGenerator) and names["generated"].shape == (1, 3, 256, 512)
    if page == "docs/using.md":
        assert names["generated"].shape == (1, 3, 128, 128) and len(names["variants"]) == 4


def test_the_designers_walk_as_it_stands(tmp_path: Path) -> None:
    """Photos → drawings → model → app, in five commands; the app gives the picture that `translate` gave."""
    photos = tmp_path / "path" / "to" / "photos"
    photos.mkdir(parents=True)
    for number in range(4):
        render_pair(number, (160, 200))[1].save(photos / f"{number}.png")
    (walk,) = [text for _, text in blocks("docs/data.md") if "pix2pix-hub app" in text]
    *commands, last = walk.splitlines()
    assert len(commands) == 4
    port = free_port()
    variables = environment() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands:
        subprocess.run(["bash", "-euc", command], cwd=tmp_path, env=variables, check=True)
    assert last == "pix2pix-hub app"
    app = start_command(["-m", "pix2pix_hub.cli", "app"], cwd=tmp_path, variables={"GRADIO_SERVER_PORT": str(port)})
    try:
        wait_for(app, lambda: reachable(port))
        client = Client(f"http://127.0.0.1:{port}", verbose=False)
        answer = client.predict(handle_file(photos / "3.png"), make_source=True, api_name="/translate")
        made = [np.asarray(Image.open(path)) for path in (answer, tmp_path / "redrawn" / "3.png")]
    finally:
        app.terminate()
        app.communicate()
    assert made[0].shape == (128, 160, 3) and np.array_equal(*made)


def test_the_walk_with_rasters_as_it_stands(tmp_path: Path) -> None:
    """Two GeoTIFFs → tiles → model → GeoTIFF."""
    rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed")
    place = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(500_000, 5_400_000, 2, 2)}
    for name, side in (("aerial", 1), ("map", 0), ("elsewhere", 1)):
        halves = [np.asarray(render_pair(number, (384, 256))[side]) for number in range(2)]
        values = np.moveaxis(np.concatenate(halves, axis=1), -1, 0)
        size = {"count": 3, "height": 384, "width": 512, "dtype": "uint8"}
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", **size, **place) as raster:
            raster.write(values)
    (walk,) = [text for _, text in blocks("docs/data.md") if "data tile" in text]
    variables = environment() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in walk.splitlines():
        subprocess.run(["bash", "-euc", command], cwd=tmp_path, env=variables, check=True)
    with rasterio.open(tmp_path / "maps" / "elsewhere.tif") as made:
        assert (made.crs, made.transform, made.shape) == (*place.values(), (384, 512)) and made.read().std() > 10


def test_the_walk_with_stacks_as_it_stands(tmp_path: Path) -> None:
    """Five planes of 16 bits → model → 16 bits, of any size."""
    random = np.random.default_rng(0)
    for number, size in enumerate([(130, 150), (128, 128), (140, 131), (128, 200), (150, 150)]):
        stain = np.kron(random.integers(0, 40_000, (20, 20)), np.ones((10, 10)))[: size[0], : size[1]].astype(np.uint16)
        planes = [Image.fromarray(stain // 2 + random.integers(0, 9000, stain.shape, np.uint16)) for _ in range(5)]
        place = tmp_path / "path" / "to" / "cells" / ("train" if number < 3 else "val")
        for folder, pages in ((place / "brightfield", planes), (place / "stain", [Image.fromarray(stain)])):
            folder.mkdir(parents=True, exist_ok=True)
            pages[0].save(folder / f"{number}.tif", save_all=True, append_images=pages[1:])
    shutil.copytree(place / "brightfield", tmp_path / "path" / "to" / "stacks")
    (tmp_path / "train_accelerate.py").symlink_to(ROOT / "train_accelerate.py")
    (walk,) = [text for _, text in blocks("docs/data.md") if "brightfield" in text]
    assert len(walk.splitlines()) == 5
    variables = environment() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in walk.splitlines():
        subprocess.run(["bash", "-euc", command], cwd=tmp_path, env=variables, check=True)
    made = read_image(tmp_path / "stained" / "3.tif", "3.tif").values
    assert made.shape == (128, 200, 1) and made.dtype == np.uint16 and made.std() > 500
    assert "psnr" in json.loads((tmp_path / "measured" / "metrics.json").read_text())


@pytest.mark.usefixtures("place")
def test_the_app_answers_as_its_page_says() -> None:
    port = free_port()
    names: dict[str, Any] = {}
    app = start_command([str(ROOT / "app.py"), "--port", str(port)], cwd=Path.cwd())
    try:
        wait_for(app, lambda: reachable(port))
        for language, text in blocks("docs/app.md"):
            if language == "python":
                exec(text.replace("7860", str(port)), names)
            elif "curl" in text:
                asked = ["bash", "-euc", text.replace("7860", str(port))]
                assert "event: complete" in subprocess.run(asked, capture_output=True, text=True).stdout
    finally:
        app.terminate()
        app.communicate()
    assert len(names["outcomes"]) == 2 and {"l1", "psnr", "ssim"} <= set(names["metrics"])
    for words in commands("docs/app.md"):
        run(words)


NOTEBOOK_CODE = """
import json, os, sys

shown = []
names = {"display": lambda *things: shown.extend(type(thing).__name__ for thing in things)}
cells = [cell["source"] for cell in json.load(open(sys.argv[1]))["cells"] if cell["cell_type"] == "code"]
small = {"128, 200": "32, 1", 'config("demo"': 'config("demo", base_channels=4'}
for source in map("".join, cells):
    for text, smaller in small.items():
        source = source.replace(text, smaller)
    exec(source, names)
print("shown:", *shown)
push = "".join(cells[-1]).replace('REPO = ""', 'REPO = "tester/mine"')
exec(push, names)
os.environ["HF_TOKEN"] = ""
exec(push, names)
"""


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, hub: HubServer) -> None:
    """At a tiny size; it pushes only with a name and a token."""
    notebook = ROOT / "examples" / "train_your_own.ipynb"
    run = subprocess.run(
        [sys.executable, "-c", NOTEBOOK_CODE, str(notebook)],
        cwd=tmp_path,
        env=environment() | hub.environment(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "paired folders: 10 train" in run.stdout and len(list(tmp_path.glob("pairs/?/*.png"))) == 20
    said = run.stdout.splitlines()[-4:]
    assert said[1].split()[1:] == ["PngImageFile", "PngImageFile", "PngImageFile", "Pix2PixPipeline", "Image"]
    assert said[0] == said[3] == "Nothing was pushed: that needs a name in REPO, and a token."
    assert said[2].endswith(f"/tester/mine/commit/{hub.repo('tester/mine').head().oid}")
    assert not any(cell.get("outputs") for cell in json.loads(notebook.read_text())["cells"])


# ------------------------------------------------------------------------------------------------- what is named exists


@cache
def options_of(*names: str) -> set[str]:
    """The options that a command or script has."""
    if names[0].startswith(("benchmarks/", "tests/")):  # scripts of one folder share theirs
        folder = ROOT / names[0].removesuffix(Path(names[0]).name if ".py" in names[0] else "")
        return options("".join(path.read_text() for path in folder.glob("*.py")))
    call = [str(ROOT / names[0])] if names[0].endswith(".py") else ["-m", "pix2pix_hub.cli", *names]
    help_text = subprocess.run([sys.executable, *call, "--help"], env=environment(), capture_output=True, text=True)
    assert help_text.returncode == 0, help_text.stderr
    return options(help_text.stdout)


def options(text: str) -> set[str]:
    """The long options that a text names, with dashes."""
    return {name.replace("_", "-") for name in re.findall(r"(?<![\w-])--[a-z][\w-]*\w", text)}


def test_options_exist() -> None:
    """Those of a command line are that command's, those named in the text of any."""
    lines, others = commands(*PAGES), {f"--{name}" for name in OF_OTHERS.split()}
    assert len({subcommand(words) for words in lines if words[0] == "pix2pix-hub"}) == 14, "every command is shown"
    for words in lines:
        assert options(" ".join(words)) <= options_of(*subcommand(words)) | others, words
    known = others.union(*(options_of(*subcommand(words)) for words in lines))
    for page in PAGES:
        assert options(read(page)) <= known, page


def test_files_and_headings_that_are_linked_or_named_exist() -> None:
    linked = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)\s]+)\)", read(page))]
    named = [(page, name) for page in PAGES for name in re.findall(r"`(\w+/[\w/]+\.py)`", read(page))]
    assert len(linked) > 60 and len(named) > 8
    for page, target in linked:
        if "://" not in target:
            name, _, anchor = target.partition("#")
            path = (ROOT / page).parent / name if name else ROOT / page
            assert path.is_file(), f"{page}: {target}"
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE) if anchor else [""]
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], target
    for page, name in named:
        assert (ROOT / name).is_file() or (ROOT / "pix2pix_hub" / name).is_file(), f"{page}: {name}"


def test_every_page_is_linked_from_readme_and_says_what_its_reader_wants() -> None:
    assert len(read("README.md").splitlines()) <= 150
    for page in PAGES[1:]:
        assert f"({page})" in read("README.md"), page
        assert not page.startswith("docs/") or re.match("# .*\n\nYou (want|have|know)", read(page)), page


def test_commands_are_called_by_their_name() -> None:
    """`-m pix2pix_hub.cli` is for accelerate's launcher alone, which starts no commands."""
    for page in PAGES:
        for start in re.findall(r"(.*)-m pix2pix_hub\.cli", read(page)):
            assert re.search(r"accelerate launch (--num_processes \d )?$", start), f"{page}: {start}"


# ---------------------------------------------------------------------------------------------- numbers are the code's


def row(page: str, first_cell: str) -> list[str]:
    """The further cells of the one table row that begins with `first_cell`."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in read(page).splitlines() if line[:1] == "|"]
    (found,) = [cells[1:] for cells in rows if cells[0] == first_cell]
    return found


def test_the_table_of_presets_counts_right() -> None:
    assert list(PRESETS) == ["default", "strong", "specification", "compact", "demo", "paper"]
    for name, cell in zip(PRESETS, row("docs/training.md", "generator, discriminator parameters"), strict=True):
        networks = make_networks(preset_config(name, image_size="256"), 3, 3)
        assert cell == ", ".join(f"{sum(values.numel() for values in each.parameters()):,}" for each in networks)


def test_the_table_of_limits_is_the_apps() -> None:
    for field in dataclasses.fields(Limits):
        assert float(row("docs/app.md", f"`{field.name.removeprefix('max_').upper()}`")[0]) == field.default


def test_ci_runs_the_test_command_verbatim() -> None:
    (command,) = re.findall(r"^pip .* && pytest$", read("README.md"), re.MULTILINE)
    assert read(".ci/run").splitlines()[-1] == command
