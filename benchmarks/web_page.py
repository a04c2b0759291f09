"""How soon the page of `pix2pix-hub web` answers, and what memory it takes, in Chromium with WebAssembly.

python benchmarks/web_page.py [--strokes 500] [--threads 2]     # needs Chromium and npm: apt-get install chromium npm

The site of the shipped model, served by Python's file server, with drawings of three sizes. Prints milliseconds from a
movement of the pen to the frame with its result, from one frame to the next while the pen moves, and from the start of
a later visit to its first result; and memory over many strokes, and at its highest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import BrowserContext, Page

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # a checkout needs no installation

from browsing import chromium, npm_package, served  # noqa: E402

from pix2pix_hub.ui.models import SHIPPED  # noqa: E402
from pix2pix_hub.web.site import RUNTIME_VERSION, write_site  # noqa: E402

SIZES = {128: 30, 256: 20, 1024: 3}  # pixels a side → strokes
PATIENCE = 600_000  # milliseconds
STEADY_AFTER = 100  # strokes: undo keeps the last 50 drawings
WATCH = """() => {
  const seen = (window.seen = { frames: [], results: [], asked: [] });
  addEventListener("pointermove", () => (seen.moved ??= performance.now()), true);
  const { postMessage } = Worker.prototype;
  Worker.prototype.postMessage = function (message, ...others) {
    if (message.to === "run") {
      seen.asked.push(seen.moved); // the first movement that this result will show
      seen.moved = undefined;
    }
    postMessage.call(this, message, ...others);
  };
  const watcher = new MutationObserver(() => {
    const moved = seen.asked.shift();
    requestAnimationFrame(() => {
      seen.first ??= performance.now();
      if (moved !== undefined) seen.results.push(performance.now() - moved);
    });
  });
  addEventListener("DOMContentLoaded", () =>
    watcher.observe(document.querySelector("#result"), { attributeFilter: ["data-count"] }));
  let last;
  const frame = (now) => {
    if (last !== undefined && seen.drawing) seen.frames.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""


def say(text: str) -> None:
    """A line of the answer."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def settled(page: Page) -> None:
    """Wait until the result is that of the drawing."""
    page.wait_for_function("document.querySelector('#result')?.dataset.count && ready && !running && !dirty")


def stroke(page: Page, row: float, moves: int) -> None:
    """One from left to right; the pen's first movement is what is timed."""
    box = page.locator("#board canvas").bounding_box()
    assert box is not None
    y = box["y"] + row * box["height"]
    page.mouse.move(box["x"] + 0.1 * box["width"], y)
    page.mouse.down()  # draws a dot
    settled(page)
    page.evaluate("seen.moved = undefined")
    page.mouse.move(box["x"] + (0.2 + 0.7 * row) * box["width"], y, steps=moves)
    page.mouse.up()
    settled(page)


def open_page(context: BrowserContext, url: str) -> Page:
    """The page with its first result."""
    page = context.new_page()
    page.add_init_script(f"({WATCH})()")
    page.goto(url)
    settled(page)
    page.wait_for_function("seen.first")
    return page


def peak_memory(page: Page) -> float:
    """MiB of resident memory that the page's process has had at most."""
    browser = page.context.browser
    assert browser is not None
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    peaks = []
    for process in processes:
        if process["type"] == "renderer":
            status = Path(f"/proc/{process['id']}/status").read_text()
            peaks += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(peaks)


def heap(page: Page) -> tuple[float, float]:
    """MiB after a garbage collection: of the page's JavaScript, and of all that it holds, its worker's included."""
    page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
    own = page.evaluate("performance.memory.usedJSHeapSize")
    return own / 2**20, page.evaluate("performance.measureUserAgentSpecificMemory().then(({ bytes }) => bytes)") / 2**20


def spread(milliseconds: list[float]) -> str:
    """Their median, least and most."""
    return f"{statistics.median(milliseconds):.0f} ms ({min(milliseconds):.0f} to {max(milliseconds):.0f})"


def measure_visits(context: BrowserContext, url: str) -> None:
    """Later ones: everything has been fetched before."""
    visits = []
    for _ in range(5):
        page = open_page(context, url)
        visits.append(page.evaluate("seen.first"))
        page.close()
    say(f"a later visit to its first result: {spread(visits)}")


def measure_sizes(page: Page, folder: Path) -> None:
    """Strokes on drawings of each size."""
    example = Image.open(folder / "site" / "models" / "demo" / "example_1.png")
    for size, count in SIZES.items():
        example.resize((size, size), Image.Resampling.NEAREST).save(folder / "drawing.png")
        page.locator("#file").set_input_files(folder / "drawing.png")
        page.wait_for_function(f"document.querySelector('#result').width === {size}")
        settled(page)
        page.evaluate("seen.results = []; seen.frames = []; seen.drawing = true")
        for row in np.linspace(0.05, 0.95, count):
            stroke(page, float(row), 12)
        results, frames = page.evaluate("seen.drawing = false; [seen.results, seen.frames]")
        say(f"{size}²: from the pen to its result {spread(results)}, {page.locator('#speed').inner_text()}")
        middle, most = np.percentile(frames, (50, 95))
        say(f"    from frame to frame {middle:.1f} ms, of 95 % less than {most:.1f}")
        say(f"    the page's process had at most {peak_memory(page):.0f} MiB")


def measure_memory(page: Page, strokes: int) -> None:
    """Of one page in which somebody draws on and on."""
    for number in range(strokes + 1):
        if number >= STEADY_AFTER and number % 100 == 0:
            own, everything = heap(page)
            say(f"after {number} strokes: {own:.2f} MiB of JavaScript, {everything:.1f} MiB in all")
        stroke(page, number % 97 / 97, 2)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strokes", type=int, default=500)
    parser.add_argument("--threads", type=int, default=0, help="of WebAssembly; 0: as many as the page chooses")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vendor = npm_package("onnxruntime-web", RUNTIME_VERSION)
        (written,) = write_site({"demo": SHIPPED}, folder / "site", vendor=vendor)
        say(f"the model has {written.size / 1e6:.1f} MB")
        with served(folder / "site") as url, chromium("--enable-precise-memory-info") as browser:
            context = browser.new_context(viewport={"width": 1280, "height": 1000})
            context.set_default_timeout(PATIENCE)
            url += f"?threads={options.threads}"
            open_page(context, url).close()
            measure_visits(context, url)
            measure_sizes(open_page(context, url), folder)
            measure_memory(open_page(context, url), options.strokes)


if __name__ == "__main__":
    main()
