"""A real Chromium, hosts of static files, packages of npm, and axe-core, for tests and benchmarks."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
CHROMIUM_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()
AXE = Path(os.environ.get("AXE", f"{sys.prefix}/node_modules/axe-core/axe.min.js"))


def cannot_run(reason: str) -> None:
    """Skip the test; on a machine that is made for tests it fails."""
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """Debian's, with a camera that films a test picture."""
    if not Path(CHROMIUM).exists():
        cannot_run(f"no Chromium at {CHROMIUM}: apt-get install chromium, or set CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*CHROMIUM_OPTIONS, *options])
        yield browser
        browser.close()


class QuietHandler(SimpleHTTPRequestHandler):
    """Python's own: no special headers."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path, handler: type[QuietHandler] = QuietHandler) -> Iterator[str]:
    """The address of a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def npm_package(name: str, version: str) -> Path:
    """The unpacked package, from a cache where an earlier test left it; without npm the test is skipped."""
    from pix2pix_hub.util import one_at_a_time  # imports torch, which reads what conftest.py sets before

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
                cannot_run(f"npm pack {name}@{version} failed ({getattr(error, 'stderr', None) or error})")
    return folder / "package"


def inject_axe(page: Page) -> None:
    """For `serious_faults`."""
    if not AXE.exists():
        cannot_run(f"no axe-core at {AXE}: npm install --prefix {sys.prefix} axe-core, or set AXE")
    page.evaluate(AXE.read_text())


def serious_faults(page: Page) -> list[tuple[str, str]]:
    """The name of each rule that the page breaks as it is now, and an element that does."""
    found = page.evaluate("axe.run().then((found) => found.violations)")
    return [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
