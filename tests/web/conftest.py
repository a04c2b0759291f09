"""Sites of several models, served as any host of static files does, and pages of them in a real Chromium."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from browsing import QuietHandler, npm_package, served
from hub_routes import Repo
from hub_server import HubServer
from huggingface_hub import close_session
from playwright.sync_api import Browser, BrowserContext, Page
from tiny_exports import GRAY, LABELS, RGB, noise

from pix2pix_hub.cli import main
from pix2pix_hub.convert.onnx import shrink_weights
from pix2pix_hub.export import PREPROCESSOR_NAME, SAMPLES_NAME, Preprocessor
from pix2pix_hub.image.format import PixelFormat, save_grid, to_model_range
from pix2pix_hub.models import ResNetGenerator, UNetGenerator
from pix2pix_hub.models.base import Generator
from pix2pix_hub.ui.models import SHIPPED, SHIPPED_DRAWING
from pix2pix_hub.web.site import CDN, RUNTIME_VERSION, write_site

PATIENCE = 120_000  # milliseconds: the machine may be busy


@pytest.fixture(scope="session")
def vendor() -> Path:
    """ONNX Runtime Web as npm has it."""
    return npm_package("onnxruntime-web", RUNTIME_VERSION)


def write_export(folder: Path, generator: Generator, source: PixelFormat, target: PixelFormat, size: int) -> Path:
    """An export with untrained weights and two examples of noise."""
    for name, parameter in generator.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0.0, 2.0 / parameter[0].numel() ** 0.5)
        elif "bias" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    generator.save_files(folder)
    config = Preprocessor(source, target, (size, size), "exact", generator.size_multiple).to_dict()
    (folder / PREPROCESSOR_NAME).write_text(json.dumps(config))
    rows = []
    for seed in range(2):
        values = torch.from_numpy(noise((source.channels, size // 8, size // 8), seed=seed))
        values = values.repeat_interleave(8, 1).repeat_interleave(8, 2)
        if source.mode == "labels":
            values = torch.tensor(source.classes, dtype=torch.uint8)[values[:1].long() % len(source.classes)]
        made = torch.zeros(target.channels, size, size)
        rows.append((to_model_range(values, source), made, made))
    save_grid(rows, folder / SAMPLES_NAME, [source, target, target])
    return folder


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The models that are shipped, and architectures that these have not: name → folder."""
    folder = tmp_path_factory.mktemp("exports")
    torch.manual_seed(0)
    quarter = UNetGenerator(1, 3, base_channels=16)
    resnet = ResNetGenerator(3, 3, base_channels=8, num_blocks=6)
    return {
        "demo": SHIPPED,
        "drawing": SHIPPED_DRAWING,
        "default at quarter width": write_export(folder / "quarter", quarter, GRAY, RGB, quarter.size_multiple),
        "resnet_6 of labels": write_export(folder / "resnet", resnet, LABELS, RGB, 64),
    }


@pytest.fixture(scope="session")
def space(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The static Space of the shipped model that `space push` leaves on the Hub."""
    with HubServer(tmp_path_factory.mktemp("hub")) as hub, pytest.MonkeyPatch.context() as patch:
        hub.use_in_process(patch)
        hub.add_folder("tester/maps", SHIPPED)
        assert main(["space", "push", "tester/demo", "--model", "tester/maps", "--sdk", "static"]) == 0
        close_session()
        assert not hub.unknown
        return hub.repo("tester/demo", "spaces")


@pytest.fixture(scope="session")
def sites(
    exports: dict[str, Path], space: Repo, vendor: Path, cdn: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A host's folder: all models in float32 in `whole/`, in float16 in `half/`; in `a/b/` the Space's files.

    These have ONNX Runtime Web from another origin.
    """
    folder = tmp_path_factory.mktemp("host")
    write_site(exports, folder / "whole", precision="float32", vendor=vendor)
    shutil.copytree(folder / "whole", folder / "half", ignore=lambda *_: ["runtime", "model.onnx"])
    (folder / "half" / "runtime").symlink_to(folder / "whole" / "runtime")
    for facts in (folder / "half").rglob("model.json"):
        shrink_weights(
            folder / "whole" / "models" / facts.parent.name / "model.onnx",
            "float16",
            file := facts.with_name("model.onnx"),
        )
        stored = {
            "precision": "float16",
            "bytes": file.stat().st_size,
            "digest": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        facts.write_text(json.dumps(json.loads(facts.read_text()) | stored))
    for name in space.files():
        (path := folder / "a" / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(space.read(name))
    listed = (folder / "a" / "b" / "site.json").read_text()
    (folder / "a" / "b" / "site.json").write_text(listed.replace(CDN, cdn))
    return folder


class CdnHandler(QuietHandler):
    """In the place of a public network of servers: pages of any origin may read what it has."""

    def end_headers(self) -> None:
        """Say so."""
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


@pytest.fixture(scope="session")
def cdn(vendor: Path) -> Iterator[str]:
    """Another origin, which has ONNX Runtime Web."""
    with served(vendor / "dist", CdnHandler) as address:
        yield address


@pytest.fixture(scope="session")
def host(sites: Path) -> Iterator[str]:
    """The address of `sites`."""
    with served(sites) as address:
        yield address


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    context.grant_permissions(["camera", "clipboard-read", "clipboard-write"])
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def opened(context: BrowserContext, host: str, cdn: str) -> Iterator[Callable[[str], Page]]:
    """Open pages of the host; the test fails where the browser had anything to complain of, or asked others.

    The Space's files may ask `cdn`.
    """
    complaints: list[str] = []

    def open_page(path: str) -> Page:
        page, own = context.new_page(), (host, "data:", "blob:", *([cdn] if path.startswith("a/b/") else []))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("request", lambda asked: None if asked.url.startswith(own) else complaints.append(f"to {asked.url}"))
        page.on("pageerror", lambda error: complaints.append(f"page: {error}"))
        page.goto(f"{host}{path}")
        return page

    yield open_page
    assert complaints == []
