"""The page, in a real browser and with real strokes, files and frames, against what the pipeline makes."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browsing import inject_axe, serious_faults
from hub_routes import Repo
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.synthetic import CMP_CLASSES, render_pair
from pix2pix_hub.ui.models import SHIPPED, SHIPPED_DRAWING
from pix2pix_hub.web.site import CDN, RUNTIME

PATIENCE = 120_000  # milliseconds: the machine may be busy
Open = Callable[[str], Page]

expect.set_options(timeout=PATIENCE)


def pixels(page: Page, canvas: str) -> NDArray[np.uint8]:
    """What a canvas shows, (H, W, 3)."""
    data = page.locator(canvas).evaluate("canvas => canvas.toDataURL('image/png').split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def answered(page: Page, number: int = 1) -> None:
    """Wait until the page has shown so many results."""
    page.wait_for_function("number => document.querySelector('#result')?.dataset.count >= number", arg=number)


def settled(page: Page) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Drawing and result, once the result is that of the drawing."""
    page.wait_for_function("ready && !running && !dirty && !photo")
    return pixels(page, "#board canvas"), pixels(page, "#result")


def stroke(page: Page, *points: tuple[float, float], lift: bool = True) -> None:
    """With the mouse, in fractions of the canvas."""
    box = page.locator("#board canvas").bounding_box()
    (first, *rest) = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*first)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point, steps=3)
    if lift:
        page.mouse.up()


def tool(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def paint(page: Page, name: str) -> None:
    page.locator("#board").get_by_text(name, exact=True).click()


def made_by(folder: Path, source: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The pipeline's own answer."""
    pipe = Pix2PixPipeline.from_pretrained(folder, device="cpu", dtype="float32")
    return np.asarray(pipe(Image.fromarray(source))).astype(np.int16)


def give(page: Page, *files: Path) -> None:
    page.locator("#file").set_input_files(files)


def test_the_site_of_a_space_is_one_commit_small_and_complete(space: Repo) -> None:
    """The shipped model's, beside the runtime: 3 MB."""
    assert len(space.commits) == 2  # the first is the Hub's
    site, own = json.loads(space.read("site.json")), space.files() - {".gitattributes", "README.md"}
    assert own == {"site.json", *site["files"]} and site["runtime"] == {"base": CDN, "integrity": RUNTIME}
    assert "\nsdk: static\napp_file: index.html\n" in space.read("README.md").decode()
    assert 2e6 < sum(len(space.read(name)) for name in own) < 3e6
    facts = json.loads(space.read("models/tester-maps/model.json"))
    assert facts["precision"] == "int8" and facts["facts"]["Parameters"] == "2,323,023"
    assert [each["name"] for each in facts["board"]["colors"][:2]] == ["background", "facade"]


@pytest.mark.parametrize(
    ("site", "weights"),
    [
        ("whole/?threads=2&check", "float32, WASM, 2 threads"),
        ("half/?check", "float16, WASM, 1 thread"),
        ("a/b/?threads=1&check", "int8, WASM, 1 thread"),
    ],
)
def test_every_shipped_example_gives_what_the_pipeline_gives(
    opened: Open, site: str, weights: str, exports: dict[str, Path]
) -> None:
    """Within 1 level in float32, 40 dB with weights of fewer bits; whatever the number of threads."""
    page = opened(site)
    page.wait_for_selector("body[data-check]")
    rows = [row.split("\t") for row in page.locator("#check tbody").inner_text().splitlines()]
    assert {row[0] for row in rows} == ({"tester/maps"} if site.startswith("a/b/") else {*exports})
    assert {row[1] for row in rows} == {weights} and len(rows) == (4 if site.startswith("a/b/") else 12)
    if weights.startswith("float32"):
        assert {float(row[3]) for row in rows} <= {0.0, 1.0}
    else:
        assert all(float(row[4]) > 45 for row in rows)
    assert {row[5] for row in rows} == {"as it should"} and page.locator("body").get_attribute("data-check") == "passed"


def test_the_result_follows_the_pen_and_is_the_pipelines(opened: Open) -> None:
    page = opened("whole/")
    answered(page)
    drawing, result = settled(page)
    paint(page, "shop")
    stroke(page, (0.1, 0.9), (0.5, 0.9), lift=False)
    page.wait_for_function("document.querySelector('#result')?.dataset.count > 1")  # before the pen lifts
    page.mouse.up()
    after, changed = settled(page)
    touched = (drawing != after).any(axis=2)
    assert touched.any() and {tuple(color) for color in after[touched]} == {CMP_CLASSES["shop"]}
    assert np.abs(changed.astype(int) - result)[220:].mean() > 3
    assert np.abs(made_by(SHIPPED, after) - changed).max() <= 1

    tool(page, "Rectangle")
    stroke(page, (0.25, 0.25), (0.6, 0.9), (0.5, 0.5))  # only its last corner counts
    square, _ = settled(page)
    wanted = after.copy()
    wanted[64:129, 64:129] = CMP_CLASSES["shop"]
    np.testing.assert_array_equal(square, wanted)
    tool(page, "Line")
    page.get_by_label("Pen size in pixels").fill("1")
    stroke(page, (0.1, 0.1), (0.9, 0.5), (0.9, 0.1))
    line, _ = settled(page)
    assert {*np.nonzero((line != square).any(axis=2))[0]} <= {25, 26} and (line != square).any(axis=2).sum() > 150
    for name, wanted in (("Undo", square), ("Undo", after), ("Undo", drawing), ("Redo", after)):
        tool(page, name)
        np.testing.assert_array_equal(settled(page)[0], wanted)
    np.testing.assert_array_equal(settled(page)[1], changed)

    page.locator("#board canvas").focus()  # a rectangle by keyboard
    tool(page, "Rectangle")
    page.locator("#board canvas").focus()
    for key in ("Space", "Shift+ArrowRight", "Shift+ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert 1 <= (settled(page)[0] != after).any(axis=2).sum() <= 4


def test_a_link_holds_the_drawing_and_the_model(opened: Open, context: BrowserContext) -> None:
    page = opened("whole/")
    answered(page)
    page.locator("#model").select_option("drawing")
    expect(page.locator("#board canvas")).to_have_attribute("data-ready", "drawing 1")
    tool(page, "Clear")
    stroke(page, (0.2, 0.2), (0.8, 0.8), (0.2, 0.8))
    drawing, result = settled(page)
    tool(page, "Copy link")
    expect(page.locator(".told")).to_contain_text("is copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(page.url.split("#")[0] + "#model=drawing&drawing=") and len(link) < 3000
    assert np.abs(made_by(SHIPPED_DRAWING, drawing) - result).max() <= 1

    other = context.browser.new_context()
    fresh = other.new_page()
    fresh.goto(link)
    fresh.wait_for_function("document.querySelector('#result')?.dataset.count >= 1", timeout=PATIENCE)
    assert fresh.locator("#model").input_value() == "drawing"
    np.testing.assert_array_equal(settled(fresh)[0], drawing)
    np.testing.assert_array_equal(settled(fresh)[1], result)
    for damage in (link[:-9], link.split("&")[0] + "&drawing=" + 300 * "A"):
        fresh.goto("about:blank")
        fresh.goto(damage)
        expect(fresh.locator(".told")).to_contain_text("is damaged")
        answered(fresh)
    other.close()


def test_pictures_of_any_size_and_files_that_are_none(opened: Open, tmp_path: Path) -> None:
    page = opened("whole/")
    answered(page)
    random = np.random.default_rng(0)
    for width, height in ((1, 1), (37, 501), (1024, 1024)):
        source = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(source).save(tmp_path / "a.png")
        give(page, tmp_path / "a.png")
        page.wait_for_function(f"document.querySelector('#board canvas').height === {height}")
        drawing, result = settled(page)
        np.testing.assert_array_equal(drawing, source)
        assert np.abs(made_by(SHIPPED, source) - result).max() <= 1, (width, height)
    expect(page.locator("#said")).to_have_text("")
    (tmp_path / "notes.png").write_text("no picture")
    give(page, tmp_path / "notes.png")
    expect(page.locator("#said")).to_have_text("notes.png is no picture that this browser opens.")
    np.testing.assert_array_equal(settled(page)[0], source)
    with page.expect_download() as download:
        tool(page, "Save")
    np.testing.assert_array_equal(np.asarray(Image.open(download.value.path()).convert("RGB")), result)

    house, _ = render_pair(3, (64, 64), seed=5)  # pasted, and dropped
    house.save(tmp_path / "house.png")
    data = base64.b64encode((tmp_path / "house.png").read_bytes()).decode()
    for kind, holder in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        page.locator("#examples button").first.click()
        page.wait_for_function("document.querySelector('#board canvas').height === 256")
        page.evaluate(
            """async ([kind, holder, data]) => {
              const file = new File([await (await fetch(`data:image/png;base64,${data}`)).blob()], "house.png");
              const held = new DataTransfer();
              held.items.add(new File([file], "house.png", { type: "image/png" }));
              const types = { paste: ClipboardEvent, drop: DragEvent };
              document.dispatchEvent(new types[kind](kind, { [holder]: held, cancelable: true }));
            }""",
            [kind, holder, data],
        )
        page.wait_for_function("document.querySelector('#board canvas').height === 64")
        np.testing.assert_array_equal(settled(page)[0], np.asarray(house))

    Image.new("RGB", (4000, 3000), (0, 0, 170)).save(tmp_path / "large.png")
    give(page, tmp_path / "large.png")
    expect(page.locator("#said")).to_contain_text("4000x3000 pixels, and is shown here with 1024x768")
    page.wait_for_function("document.querySelector('#board canvas').width === 1024 && running")
    page.evaluate("stopWorker('out of memory')")
    page.wait_for_function("document.querySelector('#result').width === 256")
    assert settled(page)[0].shape == (256, 256, 3)
    expect(page.locator("#said")).to_contain_text(
        "1024x768 pixels were too much (out of memory): the model started again"
    )


def test_photos_become_the_drawings_that_the_model_was_trained_on(opened: Open, tmp_path: Path) -> None:
    """As the pipeline makes them, all but 1 in 1000 pixels, which rounding decides; and so do the camera's frames."""
    page = opened("whole/#model=drawing")
    answered(page)
    photo = render_pair(4, (160, 224), seed=3)[1]
    photo.save(tmp_path / "photo.png")
    give(page, tmp_path / "photo.png")
    page.wait_for_function("document.querySelector('#board canvas').width === 224")
    pipe = Pix2PixPipeline.from_pretrained(SHIPPED_DRAWING, device="cpu", dtype="float32")
    wanted = np.asarray(pipe.make_source(photo).over_white())
    drawing, result = settled(page)
    assert 0.05 < (wanted == 0).mean() < 0.5
    assert (drawing != wanted).any(axis=2).mean() < 1e-3
    assert np.abs(made_by(SHIPPED_DRAWING, drawing) - result).max() <= 1

    page.get_by_role("checkbox", name="make line drawings of photos").uncheck()
    give(page, tmp_path / "photo.png")
    page.wait_for_function(
        "new Set(document.querySelector('#board canvas').getContext('2d').getImageData(0, 0, 224, 160).data).size > 50"
    )

    page.get_by_role("checkbox", name="make line drawings of photos").check()
    count = int(page.locator("#result").get_attribute("data-count"))
    tool(page, "Camera")
    answered(page, count + 3)
    expect(page.get_by_role("button", name="Camera")).to_have_attribute("aria-pressed", "true")
    tool(page, "Camera")
    filmed, _ = settled(page)
    assert filmed.shape == (256, 256, 3) and {*np.unique(filmed)} == {0, 255}


def test_the_slider_uncovers_the_drawing(opened: Open) -> None:
    page = opened("whole/")
    answered(page)
    slider = page.get_by_label("How much of the drawing to show")
    slider.focus()
    page.keyboard.press("End")
    assert page.locator("#before").evaluate("each => getComputedStyle(each).clipPath") == "inset(0px 0% 0px 0px)"
    np.testing.assert_array_equal(pixels(page, "#before"), settled(page)[0])


def test_it_works_offline_after_the_first_visit_and_with_threads(opened: Open, context: BrowserContext) -> None:
    """From a sub-path of a host that sets no headers."""
    page = opened("a/b/")
    answered(page)
    _, result = settled(page)
    assert page.evaluate("crossOriginIsolated && self.isSecureContext")
    context.set_offline(True)
    page.reload()
    page.wait_for_function("document.querySelector('#result')?.dataset.count >= 1")
    np.testing.assert_array_equal(settled(page)[1], result)


def test_on_a_phone_the_result_stays_in_view_and_a_finger_and_a_pen_draw(context: BrowserContext, opened: Open) -> None:
    page = opened("whole/")
    answered(page)
    for width in (390, 760, 1920):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 390, "height": 844})
    canvas = page.locator("#board canvas")
    canvas.focus()  # scrolls there
    above, drawn = page.locator("#result").bounding_box(), canvas.bounding_box()
    top, bottom = (each["y"] + each["height"] for each in (above, drawn))
    assert above["y"] >= 0 and top <= drawn["y"] and bottom < 844, (above, drawn)
    tool(page, "Clear")
    paint(page, "shop")
    canvas.focus()
    devices, drawn = context.new_cdp_session(page), canvas.bounding_box()
    for force in (0.25, 0.5, 1):
        at = {"x": drawn["x"] + drawn["width"] * force * 0.9, "y": drawn["y"] + 50, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            devices.send("Input.dispatchMouseEvent", {"type": kind, "pointerType": "pen", "force": force, **at})
    row = (settled(page)[0] == CMP_CLASSES["shop"]).all(axis=2).any(axis=0)
    edges = np.flatnonzero(np.diff(row.astype(int)))
    widths = np.diff(edges)[::2]
    assert len(widths) == 3 and widths[0] < widths[1] < widths[2], widths  # as hard as the pen is pressed
    tool(page, "Clear")
    canvas.focus()
    drawn = canvas.bounding_box()
    touch = {"x": drawn["x"] + 30, "y": drawn["y"] + 30}
    devices.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    devices.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [touch]})
    devices.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{**touch, "y": touch["y"] + 150}]})
    devices.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    column = (settled(page)[0] == CMP_CLASSES["shop"]).all(axis=2).any(axis=1)
    assert column.sum() > 256 * 140 / drawn["height"]  # the page did not scroll instead


def test_axe_finds_no_serious_fault(opened: Open) -> None:
    page = opened("a/b/")
    answered(page)
    inject_axe(page)
    page.get_by_text("About this model").click()
    page.evaluate("say('no picture', true)")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert serious_faults(page) == [], (scheme, width)


def test_what_is_missing_or_damaged_is_said_and_breaks_nothing(context: BrowserContext, host: str, cdn: str) -> None:
    page, anybody = context.new_page(), {"Access-Control-Allow-Origin": "*"}
    context.route(f"{cdn}ort.wasm.min.mjs", lambda route: route.fulfill(body="export default 666;", headers=anybody))
    page.goto(f"{host}a/b/")
    expect(page.locator("#said")).to_contain_text("is not reached, or is another file than expected")
    context.route("**/demo/model.onnx*", lambda route: route.fulfill(body=b"cut short"))
    page.goto(f"{host}whole/")
    expect(page.locator("#said")).to_contain_text("the file of demo has 9 bytes of")
    page.locator("#model").select_option("resnet_6 of labels")
    answered(page)
    expect(page.locator("#said")).to_have_text("")
    page.add_init_script("delete WebAssembly")
    page.goto(f"{host}whole/")
    expect(page.locator("#said")).to_contain_text("This browser has no WebAssembly")
