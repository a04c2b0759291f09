"""README.md and docs/ are true: what they show runs as pasted, what they name exists."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from convert.foreign_networks import CycleGANResNet, save
from hub_server import HubServer
from launching import ROOT, TINY, environment, start_command, wait_for
from PIL import Image
from tiny_options import TINY_OPTIONS

import pix2pix_hub
from pix2pix_hub.cli import main, train
from pix2pix_hub.config import PRESETS, preset_config
from pix2pix_hub.models import ResNetGenerator
from pix2pix_hub.training.setup import make_networks
from pix2pix_hub.ui.limits import Limits

PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
PAIRS = "path/to/pairs"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+")
NOT_RUN = {
    "pip",
    "pytest",
    "hf",
    ".ci/run",
    "path",
    "data",
    "event",
    "curl",
}  # those of the app's page have a test of their own
NOT_PASTED = ("docs/results.md", "docs/app.md")  # 49 long runs; needs an app: below
PROGRAMS = NOT_RUN | {"python", "accelerate", "pix2pix-hub"}
# what keeps a command small, appended to it
SMALL = {
    "evaluate": "--max-pairs 4 --metrics l1 --no-checks --segmenter-steps 2 --cpu-threads 1",
}


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    text: str
    language: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each of its command lines, without comments."""
        lines = self.text.replace(" && ", "\n").splitlines() if self.language in ("", "bash") else []
        found = [line for line in lines if re.split(r"[\s=]", line)[0] in PROGRAMS]
        assert self.language != "bash" or len(found) == len(lines), f"{self.page} has an unknown program: {self.text}"
        return [shlex.split(line, comments=True) for line in found if not line.startswith(("path=", "data=", "event="))]


def read(page: str) -> str:
    return (ROOT / page).read_text()


@cache
def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, then the indented ones."""
    text = read(page)
    found = [Block(page, match[2], match[1]) for match in FENCED.finditer(text)]
    indented = INDENTED.findall(FENCED.sub("", text))
    return found + [Block(page, re.sub("^    ", "", block, flags=re.MULTILINE), "") for block in indented]


def commands(program: str, pages: list[str] = PAGES) -> list[list[str]]:
    """All command lines that name `program` first or, after `accelerate launch`, as the script."""
    lines = [words for page in pages for block in blocks(page) for words in block.commands]
    return [words for words in lines if program in words[:1] or (words[0] == "accelerate" and program in words)]


# ------------------------------------------------------------------------------------------------- run as pasted


@pytest.fixture(autouse=True)
def _fresh_accelerate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Accelerate keeps its state in singletons; a page gets its own, and its own caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    forget_accelerate()


def forget_accelerate() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def write_pairs(folder: Path, count: int, size: int = 32) -> None:
    """Side-by-side images: a few flat colours, as label maps have, and noise."""
    folder.mkdir(parents=True)
    colors = torch.tensor([[0, 0, 170], [255, 85, 0], [0, 255, 255]], dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        classes = torch.randint(3, (size // 8, size // 8), generator=generator)
        labels = colors[classes.repeat_interleave(8, 0).repeat_interleave(8, 1)]
        photo = torch.randint(256, (size, size, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(torch.cat([labels, photo], 1).numpy()).save(folder / f"{number:04}.png")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the pages suppose: a run of README's first command, pairs, photos, a checkpoint."""
    place = tmp_path_factory.mktemp("place")
    for folder in (PAIRS, "path/to/facades"):
        write_pairs(place / folder / "train", 10)
        write_pairs(place / folder / "val", 3)
    write_pairs(place / "path/to/photos", 2)
    (place / "more").mkdir()
    shutil.copytree(ROOT / "docs", place / "docs")
    for name in ("map.png", "photo.png", "drawing.png", "a.png", "b.png", "more/c.jpg"):
        Image.open(ROOT / "docs" / "label_map.png").convert("RGB").save(place / name)
    save(CycleGANResNet(6, "instance"), place / "latest_net_G.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        (first, *_) = commands("train_accelerate.py", ["README.md"])
        assert first[2:] == ["train_accelerate.py"]
        assert train(TINY) == 0
        forget_accelerate()
        # in place of what is on the Hub: a path that exists comes first
        shutil.copytree("runs/synthetic_demo_001/model", "user/pix2pix-facades")
        assert main(["data", "build", PAIRS, "--output", "user/pairs"]) == 0
    return place


@pytest.fixture
def place(prepared: Path, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of that folder, as the current one, and a Hub whose user is called "user"."""
    hub.user = "user"
    monkeypatch.chdir(shutil.copytree(prepared, tmp_path / "place"))
    monkeypatch.setattr(pix2pix_hub, "preset_config", lambda name, **given: preset_config(name, **given | TINY_OPTIONS))


def run(words: list[str], hub: HubServer) -> None:
    """One command line, small, in this process; what nobody would want tests to do is not run."""
    forget_accelerate()
    if words[0] == "accelerate" and "train_accelerate.py" in words:
        options = words[words.index("train_accelerate.py") + 1 :]
        assert train([*options, *TINY, *([] if "--resume" in words else ["--dry-run"])]) == 0, words
    elif words[0] == "pix2pix-hub":
        if words[1] == "space" and ("models", "user/pix2pix-facades") not in hub.repos:
            hub.add_folder("user/pix2pix-facades", Path("user/pix2pix-facades"))
        assert main([*words[1:], *SMALL.get(words[1], "").split()]) == 0, words


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page) and page not in NOT_PASTED])
@pytest.mark.usefixtures("place")
def test_a_page_runs_as_pasted(page: str, hub: HubServer) -> None:
    """From top to bottom, each command and snippet where the ones before it left off."""
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "python":
            forget_accelerate()
            exec(compile(block.text, page, "exec"), names)
        for words in block.commands:
            run(words, hub)
    if page == "docs/converting.md":
        assert isinstance(names["generator"], ResNetGenerator)
        assert names["generated"].shape == (1, 3, 256, 512)
    if page == "docs/using.md":
        assert names["generated"].shape == (1, 3, 128, 128) and len(names["variants"]) == 4


@pytest.mark.usefixtures("place")
def test_the_app_answers_as_its_page_says(hub: HubServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def reachable() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    names: dict[str, Any] = {}
    app = start_command([str(ROOT / "app.py"), "--port", str(port)], cwd=Path.cwd())
    try:
        wait_for(app, reachable)
        (snippet,) = [block for block in blocks("docs/app.md") if block.language == "python"]
        exec(snippet.text.replace("7860", str(port)), names)
        assert len(names["outcomes"]) == 2 and {"l1", "psnr", "ssim"} <= set(names["metrics"])
        (plain,) = [block for block in blocks("docs/app.md") if "curl" in block.text]
        asked = subprocess.run(["bash", "-euc", plain.text.replace("7860", str(port))], capture_output=True, text=True)
        assert "event: complete" in asked.stdout, asked
    finally:
        app.terminate()
        app.communicate()
    for words in commands("pix2pix-hub", ["docs/app.md"]):
        run(words, hub)


# ------------------------------------------------------------------------------------------------ what is named exists


@cache
def help_of(*words: str) -> str:
    """What a command answers to --help."""
    scripts = {"app": [str(ROOT / "app.py")], "train": [str(ROOT / "train_accelerate.py")]}
    call = scripts.get(words[0], ["-m", "pix2pix_hub.cli", *words])
    done = subprocess.run([sys.executable, *call, "--help"], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def options(text: str) -> set[str]:
    """The long options that a text names, with dashes."""
    return {name.replace("_", "-") for name in re.findall(r"(?<![\w-])--[a-z][\w-]*\w", text)}


def described(words: list[str]) -> str:
    """The help of the command of a line."""
    if "train_accelerate.py" in words:
        return help_of("train")
    if words[0] == "pix2pix-hub":
        return help_of(*words[1 : 3 if words[1] in ("data", "space") else 2])
    folder = "benchmarks" if words[1].startswith("benchmarks") else "tests/campaigns"
    return help_of("app") if words[1] == "app.py" else sources(folder)


def sources(folder: str) -> str:
    """All scripts of a folder, which share their options."""
    return "".join(path.read_text() for path in sorted((ROOT / folder).glob("*.py")))


ACCELERATES = "cpu machine-rank main-process-ip main-process-port multi-gpu num-machines num-processes quiet".split()
OTHERS = {f"--{name}" for name in [*ACCELERATES, "help", "index-url"]}


def test_the_options_of_every_command_line_exist() -> None:
    lines = [words for program in ("python", "accelerate", "pix2pix-hub") for words in commands(program)]
    assert len(lines) > 60
    for words in map(list, dict.fromkeys(map(tuple, lines))):
        assert options(" ".join(words)) <= options(described(words)) | OTHERS, words


def test_options_named_in_the_text_exist() -> None:
    names = {tuple(words[1 : 3 if words[1] in ("data", "space") else 2]) for words in commands("pix2pix-hub")}
    assert len(names) == 9, "every command is shown once"
    texts = [help_of(*name) for name in [*names, ("train",), ("app",)]]
    known = options("".join([*texts, sources("benchmarks"), sources("tests/campaigns")])) | OTHERS
    for page in PAGES:
        assert options(INDENTED.sub("", FENCED.sub("", read(page)))) <= known, page


def test_files_pictures_and_headings_that_are_linked_exist() -> None:
    linked = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)\s]+)\)", read(page))]
    assert len(linked) > 60
    for page, target in linked:
        if "://" not in target:
            name, _, anchor = target.partition("#")
            path = (ROOT / page).parent / name if name else ROOT / page
            assert path.is_file(), f"{page}: {target}"
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE) if anchor else []
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert not anchor or anchor in slugs, f"{page}: {target}"


def test_files_of_code_that_are_named_exist() -> None:
    named = {(page, name) for page in PAGES for name in re.findall(r"`(\w+/[\w/]+\.py)`", read(page))}
    assert len(named) > 8
    for page, name in named:
        assert (ROOT / name).is_file() or (ROOT / "pix2pix_hub" / name).is_file(), f"{page}: {name}"


def test_every_page_is_linked_from_readme_and_says_what_its_reader_wants() -> None:
    readme = read("README.md")
    assert len(readme.splitlines()) <= 150
    for page in PAGES[1:]:
        assert f"({page})" in readme, page
    for page in PAGES[3:]:
        if page != "docs/results.md":
            assert re.match(r"# .*\n\nYou (want|have|know)", read(page)), page


def test_commands_are_called_by_their_name() -> None:
    """`-m pix2pix_hub.cli` is for accelerate's launcher alone, which starts no commands."""
    for page in PAGES:
        for start in re.findall(r"(.*)-m pix2pix_hub\.cli", read(page)):
            assert re.search(r"accelerate launch (--num_processes \d )?$", start), f"{page}: {start}"


# ---------------------------------------------------------------------------------------- numbers are the code's


def table(page: str, first_cell: str) -> list[list[str]]:
    """The cells of the table rows whose first cell is `first_cell`."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in read(page).splitlines() if line[:1] == "|"]
    return [row for row in rows if row[0] == first_cell]


def test_the_table_of_presets_counts_right() -> None:
    (counts,) = table("docs/training.md", "generator, discriminator parameters")
    assert list(PRESETS) == ["default", "compact", "demo", "paper"]
    for name, cell in zip(PRESETS, counts[1:], strict=True):
        networks = make_networks(preset_config(name, image_size="256"), 3, 3)
        assert cell == ", ".join(f"{sum(values.numel() for values in each.parameters()):,}" for each in networks)


def test_the_table_of_limits_is_that_of_the_app() -> None:
    for field in dataclasses.fields(Limits):
        ((_, default, _),) = table("docs/app.md", f"`{field.name.removeprefix('max_').upper()}`")
        assert float(default) == field.default


def test_ci_runs_the_test_command_verbatim() -> None:
    (command,) = re.findall(r"^pip .* && pytest$", read("README.md"), re.MULTILINE)
    assert read(".ci/run").splitlines()[-1] == command
