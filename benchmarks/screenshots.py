"""Pictures of every tab of the app, light and dark, at 1280 and 390 pixels' width.

python benchmarks/screenshots.py FOLDER          # needs Chromium: apt-get install chromium
python benchmarks/screenshots.py FOLDER --docs   # also the two that README and docs/app.md show
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installation

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
DOCS = Path(__file__).parents[1] / "docs"
TABS = ("Translate", "Draw", "Compare", "Batch", "About")
IN_DOCS = {("Translate", "light"): "app_translate.png", ("Draw", "dark"): "app_draw.png"}
DOCS_WIDTH, DOCS_COLORS = 960, 256
PATIENCE = 120_000  # milliseconds


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def draw(page: Page) -> None:
    """A door, a row of windows and a cornice on the example."""
    canvas, result = page.locator("#board canvas"), page.locator("#draw-result img")
    before = result.get_attribute("src") or ""
    for paint, points in (("shop", [(0.35, 0.86), (0.8, 0.86)]), ("pillar", [(0.5, 0.32), (0.5, 0.7)])):
        page.locator("#board").get_by_text(paint, exact=True).click()
        canvas.evaluate("canvas => canvas.scrollIntoView({block: 'end'})")  # below the result, which stays in view
        box = canvas.bounding_box()
        assert box is not None
        (first, last) = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        page.mouse.move(*first)
        page.mouse.down()
        page.mouse.move(*last, steps=5)
        page.mouse.up()
    expect(result).not_to_have_attribute("src", before)


def fill_batch(page: Page, folder: Path) -> None:
    """Some pictures, and a file that is none."""
    from pix2pix_hub.synthetic import render_pair

    names = [folder / f"house_{number}.png" for number in range(5)]
    for number, name in enumerate(names):
        render_pair(1000 + number, (128, 128))[0].save(name)
    (folder / "notes.png").write_text("no picture")
    page.locator("#batch-files input[type=file]").set_input_files([*names, folder / "notes.png"])
    expect(page.locator("#batch-files")).to_contain_text("notes")
    page.locator("#batch-button").click()
    expect(page.locator("#batch-gallery img")).to_have_count(len(names))


def photograph(browser: Browser, url: str, folder: Path, scheme: str, width: int) -> None:
    """All tabs of one look."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.get_by_role("tab", name="Translate").wait_for()
    for name in TABS:
        open_tab(page, name)
        if name == "Draw":
            draw(page)
        if name == "Compare":
            expect(page.locator("#compare-numbers b").first).not_to_have_text("–")
        if name == "Batch":
            with tempfile.TemporaryDirectory() as pictures:
                fill_batch(page, Path(pictures))
        page.wait_for_timeout(1000)  # until transitions are over
        page.screenshot(path=folder / f"{name.split()[0].lower()}_{scheme}_{width}.png", full_page=True)
    page.close()


def main() -> None:
    """Launch the app with the model that is shipped, and photograph it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from pix2pix_hub.ui.models import SHIPPED, SHIPPED_DRAWING
    from pix2pix_hub.ui.page import build_demo, launch_options
    from pix2pix_hub.ui.store import Limits, ModelStore

    demo = build_demo(ModelStore({"demo": SHIPPED, "drawing": SHIPPED_DRAWING}, Limits()))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options(Limits()))
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        for scheme in ("light", "dark"):
            for width in (1280, 390):
                photograph(browser, url, options.folder, scheme, width)
        browser.close()
    demo.close()
    if options.docs:
        for (tab, scheme), name in IN_DOCS.items():
            picture = Image.open(options.folder / f"{tab.lower()}_{scheme}_1280.png").convert("RGB")
            picture.thumbnail((DOCS_WIDTH, DOCS_WIDTH), Image.Resampling.LANCZOS)
            picture.quantize(DOCS_COLORS, dither=Image.Dither.FLOYDSTEINBERG).save(DOCS / name, optimize=True)


if __name__ == "__main__":
    main()
