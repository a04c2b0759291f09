"""Sites of several models, served as any host of static files does, and pages of them in a real Chromium."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page
from tiny_exports import GRAY, LABELS, RGB, noise

from pix2pix_hub.export import PREPROCESSOR_NAME, SAMPLES_NAME, Preprocessor
from pix2pix_hub.image.format import PixelFormat, save_grid, to_model_range
from pix2pix_hub.models import ResNetGenerator, UNetGenerator
from pix2pix_hub.models.base import Generator
from pix2pix_hub.ui.models import SHIPPED, SHIPPED_DRAWING
from pix2pix_hub.util import one_at_a_time
from pix2pix_hub.web.site import RUNTIME_VERSION, write_site

PATIENCE = 120_000  # milliseconds: the machine may be busy


def npm_package(name: str, version: str) -> Path:
    """The unpacked package, from a cache where an earlier test left it; without npm the test is skipped."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pix2pix_hub"
    folder = cache / f"{name}-{version}"
    with one_at_a_time(folder):
        if not (folder / "package" / "package.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                packed = subprocess.run(
                    ["npm", "pack", f"{name}@{version}"], cwd=folder, check=True, capture_output=True, text=True
                )
                shutil.unpack_archive(folder / packed.stdout.split()[-1], folder)
            except (OSError, subprocess.CalledProcessError) as error:
                text = f"npm pack {name}@{version} failed ({getattr(error, 'stderr', None) or error})"
                pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    return folder / "package"


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
def sites(exports: dict[str, Path], vendor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's folder: `whole/` with all models in float32, and `a/b/` with the first as it is by default."""
    folder = tmp_path_factory.mktemp("host")
    write_site(exports, folder / "whole", precision="float32", vendor=vendor)
    write_site({"demo": SHIPPED}, folder / "a" / "b", vendor=vendor)
    return folder


class QuietHandler(SimpleHTTPRequestHandler):
    """Python's own: no special headers."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def served(folder: Path) -> Iterator[str]:
    """The address of a folder while the fixture that this is yields."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def host(sites: Path) -> Iterator[str]:
    """The address of `sites`."""
    yield from served(sites)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    context.grant_permissions(["camera", "clipboard-read", "clipboard-write"])
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def opened(context: BrowserContext, host: str) -> Iterator[Callable[[str], Page]]:
    """Open pages of the host; the test fails where the browser had anything to complain of, or asked others."""
    complaints: list[str] = []

    def open_page(path: str) -> Page:
        page, own = context.new_page(), (host, "data:", "blob:")
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("request", lambda asked: None if asked.url.startswith(own) else complaints.append(f"to {asked.url}"))
        page.on("pageerror", lambda error: complaints.append(f"page: {error}"))
        page.goto(f"{host}{path}")
        return page

    yield open_page
    assert complaints == []
