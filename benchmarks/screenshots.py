"""Pictures of every tab of the app, and of the page of `pix2pix-hub web`, light and dark, 1280 and 390 pixels wide.

python benchmarks/screenshots.py FOLDER          # needs Chromium and npm: apt-get install chromium npm
python benchmarks/screenshots.py FOLDER --docs   # also those that README and docs/app.md show
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # a checkout needs no installation

from browsing import chromium, npm_package, served  # noqa: E402

DOCS = ROOT / "docs"
TABS = ("Translate", "Draw", "Compare", "Batch", "About")
IN_DOCS = {
    "translate_light_1280": "app_translate.png",
    "draw_dark_1280": "app_draw.png",
    "web_light_1280": "web_page.png",
    "web_dark_390": "web_phone.png",
}
DOCS_WIDTH, DOCS_COLORS = 960, 256
PATIENCE = 120_000  # milliseconds


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def draw(page: Page) -> None:
    """A shop and a pillar on the example."""
    canvas = page.locator("#board canvas")
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
            before = page.locator("#draw-result img").get_attribute("src") or ""
            draw(page)
            expect(page.locator("#draw-result img")).not_to_have_attribute("src", before)
        if name == "Compare":
            expect(page.locator("#compare-numbers b").first).not_to_have_text("–")
        if name == "Batch":
            with tempfile.TemporaryDirectory() as pictures:
                fill_batch(page, Path(pictures))
        page.wait_for_timeout(1000)  # until transitions are over
        page.screenshot(path=folder / f"{name.split()[0].lower()}_{scheme}_{width}.png", full_page=True)
    page.close()


def photograph_site(browser: Browser, url: str, folder: Path, scheme: str, width: int) -> None:
    """The page in one look; on a phone as much as it shows at once."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.wait_for_function("document.querySelector('#result')?.dataset.count && ready && !running && !dirty")
    draw(page)
    page.mouse.move(0, 0)
    page.wait_for_function("ready && !running && !dirty")
    page.screenshot(path=folder / f"web_{scheme}_{width}.png", full_page=width > 760)
    page.close()


def main() -> None:
    """Launch the app with the models that are shipped and serve the site of one, and photograph them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from pix2pix_hub.ui.models import SHIPPED, SHIPPED_DRAWING
    from pix2pix_hub.ui.page import build_demo, launch_options
    from pix2pix_hub.ui.store import Limits, ModelStore
    from pix2pix_hub.web.site import RUNTIME_VERSION, write_site

    demo = build_demo(ModelStore({"demo": SHIPPED, "drawing": SHIPPED_DRAWING}, Limits()))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options(Limits()))
    expect.set_options(timeout=PATIENCE)
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        site = Path(name) / "site"
        write_site({"demo": SHIPPED}, site, vendor=npm_package("onnxruntime-web", RUNTIME_VERSION))
        with served(site) as site_url:
            for scheme in ("light", "dark"):
                for width in (1280, 390):
                    photograph(browser, url, options.folder, scheme, width)
                    photograph_site(browser, site_url, options.folder, scheme, width)
    demo.close()
    if options.docs:
        for source, name in IN_DOCS.items():
            picture = Image.open(options.folder / f"{source}.png").convert("RGB")
            picture.thumbnail((DOCS_WIDTH, DOCS_WIDTH), Image.Resampling.LANCZOS)
            picture.quantize(DOCS_COLORS, dither=Image.Dither.FLOYDSTEINBERG).save(DOCS / name, optimize=True)


if __name__ == "__main__":
    main()
