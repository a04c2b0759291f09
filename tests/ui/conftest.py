"""The app on a free port, in this process, and its page in a real Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torchmetrics.functional.image  # noqa: F401  # takes its time, which no test shall wait for
from playwright.sync_api import Browser, ConsoleMessage, Page
from running_app import RunningApp
from tiny_exports import GRAY, RGB, RGB16, write_tiny_export

from pix2pix_hub.config import MakerOptions
from pix2pix_hub.export import PREPROCESSOR_NAME
from pix2pix_hub.ui.models import SHIPPED, SHIPPED_DRAWING
from pix2pix_hub.ui.store import Limits, ModelStore


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """One app for all tests: the shipped models, tiny ones of 16 bits and of edges, and two that cannot be used."""
    folder = tmp_path_factory.mktemp("models")
    sixteen = write_tiny_export(folder / "sixteen", replace(RGB16, high=30_000.0, clip=True), RGB16, dropout=0.5)
    edges = write_tiny_export(folder / "edges", GRAY, RGB, maker=MakerOptions("edges", shorter_side=48))
    config = json.loads((edges / PREPROCESSOR_NAME).read_text()) | {"source_half": "right"}
    (edges / PREPROCESSOR_NAME).write_text(json.dumps(config))
    damaged = shutil.copytree(SHIPPED, folder / "damaged")
    (damaged / "model.safetensors").write_bytes(b"not weights")
    (folder / "empty").mkdir()
    files = tmp_path_factory.mktemp("files")
    os.environ |= {"GRADIO_TEMP_DIR": str(files), "GRADIO_ANALYTICS_ENABLED": "False"}
    from pix2pix_hub.ui.page import build_demo, launch_options

    limits = Limits(max_megapixels=2.0, max_upload_mb=5, max_request_mb=12, max_queue=48, max_places=40, max_models=2)
    models = {"demo": SHIPPED, "drawing": SHIPPED_DRAWING, "sixteen": sixteen, "edges": edges, "damaged": damaged}
    models["empty"] = folder / "empty"
    store = ModelStore(models, limits)
    demo = build_demo(store)
    with pytest.MonkeyPatch.context() as slow:  # a machine on which Gradio's own look at the page takes too long
        slow.setattr("gradio.networking.url_ok", lambda url: False)
        _, url, _ = demo.launch(prevent_thread_lock=True, inbrowser=False, **launch_options(limits))
    yield RunningApp(url, store, limits, files)
    demo.close()


@pytest.fixture
def page(app: RunningApp, browser: Browser) -> Iterator[Page]:
    """The app's page, opened; a test that uses it fails where the browser had anything to complain of."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    page, own = context.new_page(), (app.url.rstrip("/"), "data:", "blob:")
    complaints: list[str] = []
    page.set_default_timeout(60_000)  # the machine may be busy

    def complain(said: ConsoleMessage) -> None:  # Gradio's page closes a stream after the camera, though none is open
        if said.type == "error" and not re.search("/gradio_api/stream/[0-9a-f]+/close$", said.location["url"]):
            complaints.append(f"{said.text} {said.location}")

    page.on("console", complain)
    page.on("request", lambda asked: None if asked.url.startswith(own) else complaints.append(f"others: {asked.url}"))
    page.on("pageerror", lambda error: complaints.append(f"page: {error}"))
    page.goto(app.url)
    page.get_by_role("tab", name="Translate").wait_for()
    yield page
    context.close()
    assert complaints == []
