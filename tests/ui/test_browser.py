"""Each tab's main path in a real browser, with real clicks, strokes and files."""

from __future__ import annotations

import base64
import io
import re
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browsing import inject_axe, serious_faults
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from running_app import RunningApp

from pix2pix_hub.image.read import Decoded, read_image
from pix2pix_hub.image.write import encode
from pix2pix_hub.synthetic import CMP_CLASSES, render_pair
from pix2pix_hub.ui.guard import Newest
from pix2pix_hub.ui.handlers import Handlers, shown
from pix2pix_hub.ui.store import Deadline

PATIENCE = 60_000  # milliseconds: the machine may be busy
IMAGE_AS_BYTES = """async (image) => {
  await image.decode();
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}"""

expect.set_options(timeout=PATIENCE)


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def give(page: Page, place: str, *files: Path) -> None:
    """Choose files where they are uploaded."""
    page.locator(f"{place} input[type=file]").first.set_input_files(files)


def pixels(image: Locator) -> NDArray[np.int16]:
    """What an <img> shows, (H, W, 3)."""
    data = base64.b64decode(image.evaluate(IMAGE_AS_BYTES))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)


def wait_for_another(image: Locator, source: str | None) -> None:
    """Until the <img> shows another file."""
    expect(image).not_to_have_attribute("src", source or "")


def becomes(page: Page, seen: Callable[[], NDArray[np.generic]], wanted: NDArray[np.generic]) -> None:
    """Wait until they are the same: answers to what was drawn earlier may still come before it."""
    for _ in range(PATIENCE // 100):
        if np.array_equal(seen(), wanted):
            return
        page.wait_for_timeout(100)
    np.testing.assert_array_equal(seen(), wanted)


def expected(app: RunningApp, source: Image.Image) -> NDArray[np.int16]:
    """The pipeline's own answer."""
    with app.store.use("demo", Deadline(app.limits)) as pipeline:
        return np.asarray(pipeline(source)).astype(np.int16)


def facade(path: Path, index: int, size: tuple[int, int] = (128, 128)) -> Image.Image:
    """A label map that the model was not trained on, saved."""
    source, _ = render_pair(index, size, seed=7)
    source.save(path)
    return source


def test_translate_an_upload_move_the_slider_and_download(page: Page, app: RunningApp, tmp_path: Path) -> None:
    source = facade(tmp_path / "my façade.png", 1, (96, 160))
    result = page.locator("#translate-result img")
    assert result.last.bounding_box()["y"] < 1000, "the first screen shows a translated example"
    assert np.abs(pixels(result.first) - pixels(result.last)).mean() > 20, "before and after show the same"
    example = result.last.get_attribute("src")
    with page.expect_file_chooser() as chooser:
        page.locator("#translate-input").get_by_role("button", name="Click to Upload").click()
    chooser.value.set_files(tmp_path / "my façade.png")
    wait_for_another(result.last, example)
    expect(page.locator("#translate-note")).to_contain_text("160x96 pixels")

    handle = page.get_by_role("slider", name="Border between before and after")
    box = handle.bounding_box()
    clip = result.last.get_attribute("style")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 120, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    expect(result.last).not_to_have_attribute("style", clip)
    clip = result.last.get_attribute("style")
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(result.last).not_to_have_attribute("style", clip)

    with page.expect_download() as download:
        page.locator("#translate-download").click()
    made = np.asarray(Image.open(download.value.path())).astype(np.int16)
    np.testing.assert_array_equal(made, expected(app, source))


def test_variants_follow_from_their_seed(page: Page, tmp_path: Path) -> None:
    facade(tmp_path / "one.png", 2)
    give(page, "#translate-input", tmp_path / "one.png")
    expect(page.locator("#translate-note")).to_contain_text("128x128 pixels")
    page.get_by_role("button", name="Variants").click()
    page.get_by_label("Seed").fill("5")
    page.get_by_label(re.compile("number input for Variants")).fill("2")
    found = []
    for seed in ("5", "6", "5"):
        page.get_by_label("Seed").fill(seed)
        page.locator("#translate-button").click()
        expect(page.locator("#translate-note")).to_contain_text(f"seed {seed}")
        images = page.locator("#translate-variants img")
        expect(images).to_have_count(2)
        found.append([pixels(images.nth(number)) for number in range(2)])
    assert np.abs(found[0][0] - found[0][1]).max() > 0, "both variants are the same"
    assert np.abs(found[0][0] - found[1][0]).max() > 0, "the seed changes nothing"
    np.testing.assert_array_equal(found[0], found[2])


def shown_answer(app: RunningApp, source: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same of a drawing, as the page shows it."""
    return np.asarray(shown(Image.fromarray(expected(app, Image.fromarray(source)).astype(np.uint8))))


def stroke(page: Page, canvas: Locator, points: list[tuple[float, float]]) -> None:
    """With the mouse, in fractions of the canvas."""
    box = canvas.bounding_box()
    (first, *rest) = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*first)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point, steps=2)
    page.mouse.up()


def drawing(canvas: Locator) -> NDArray[np.uint8]:
    data = base64.b64decode(canvas.evaluate("canvas => canvas.toDataURL('image/png').split(',')[1]"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_stroke_changes_the_picture_where_it_was_drawn(page: Page, app: RunningApp) -> None:
    open_tab(page, "Draw")
    canvas, result = page.locator("#board canvas"), page.locator("#draw-result img")
    before, before_source = drawing(canvas), result.get_attribute("src")
    page.get_by_text("shop", exact=True).click()
    stroke(page, canvas, [(0.1, 0.9), (0.9, 0.9)])
    after = drawing(canvas)
    changed = (before != after).any(axis=2)
    assert 300 < changed.sum() < 4000 and changed[: 128 * 7 // 10].sum() == 0
    assert {tuple(color) for color in after[changed]} == {CMP_CLASSES["shop"]}, "only the class's own colour is drawn"
    wait_for_another(result, before_source)
    becomes(page, lambda: pixels(result), shown_answer(app, after))
    example = np.asarray(shown(app.store.info("demo").examples[0].generated))
    far, near = (np.abs(pixels(result) - example)[rows].mean() for rows in (slice(0, 250), slice(400, 512)))
    assert near > 10 and near > 5 * far


def test_shapes_and_a_link_that_holds_the_drawing(page: Page, app: RunningApp) -> None:
    """While the pen is down the picture follows it."""
    open_tab(page, "Draw")
    canvas, result = page.locator("#board canvas"), page.locator("#draw-result img")
    start, source = drawing(canvas), result.get_attribute("src")
    page.get_by_text("door", exact=True).click()
    page.get_by_role("button", name="Rectangle").click()
    box = canvas.bounding_box()
    for x, y, press in ((0.25, 0.25, page.mouse.down), (0.5, 0.75, lambda: wait_for_another(result, source))):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        press()
    page.mouse.up()
    wanted, (height, width) = start.copy(), start.shape[:2]
    wanted[height // 4 : 3 * height // 4 + 1, width // 4 : width // 2 + 1] = CMP_CLASSES["door"]
    np.testing.assert_array_equal(drawing(canvas), wanted)
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_function("location.hash.includes('&drawing=')")
    page.reload()
    becomes(page, lambda: drawing(canvas), wanted)
    becomes(page, lambda: pixels(result), shown_answer(app, wanted))
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#board .told")).to_contain_text("The link to this drawing")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator("#draw-note")).to_contain_text("The sheet is empty")
    expect(page.locator("#board .told")).to_have_text("")


def test_fill_undo_keyboard_and_example(page: Page, app: RunningApp) -> None:
    open_tab(page, "Draw")
    canvas = page.locator("#board canvas")
    start = drawing(canvas)
    page.get_by_role("button", name="Fill").click()
    page.get_by_text("door", exact=True).click()
    stroke(page, canvas, [(0.02, 0.02)])
    filled = drawing(canvas)
    assert (filled[0, 0] == CMP_CLASSES["door"]).all()
    connected = (start == start[0, 0]).all(axis=2)
    assert ((filled != start).any(axis=2) <= connected).all(), "fill stays in the area it was poured into"
    page.get_by_role("button", name="Undo").click()
    np.testing.assert_array_equal(drawing(canvas), start)
    page.get_by_role("button", name="Redo").click()
    np.testing.assert_array_equal(drawing(canvas), filled)
    page.get_by_role("button", name="Pen").click()
    page.get_by_text("pillar", exact=True).click()
    canvas.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    assert (drawing(canvas) != filled).any()
    page.keyboard.press("Control+z")
    np.testing.assert_array_equal(drawing(canvas), filled)
    result = page.locator("#draw-result img")
    before = result.get_attribute("src")
    page.locator("#draw-examples").get_by_role("button").nth(2).click()
    wait_for_another(result, before)
    becomes(page, lambda: drawing(canvas), np.asarray(app.store.info("demo").examples[2].source))


def test_compare_a_validation_pair_and_ones_own(page: Page, app: RunningApp, tmp_path: Path) -> None:
    open_tab(page, "Compare")
    numbers = page.locator("#compare-numbers b")
    expect(numbers.first).not_to_have_text("–")  # the first pair, by itself
    first = numbers.all_inner_texts()
    page.locator("#compare-examples").get_by_role("button").nth(1).click()
    expect(numbers.first).not_to_have_text(first[0])
    example = app.store.info("demo").examples[1]
    l1 = np.abs(expected(app, example.source) - np.asarray(example.target)).mean() / 255
    assert abs(float(numbers.first.inner_text()) - l1) < 2e-3
    heat, generated = (pixels(page.locator(f"#compare-{name} img")) for name in ("realism", "generated"))
    assert heat.shape == generated.shape and 1 < np.abs(heat - generated).mean() < 120
    for name in ("source", "target"):
        assert pixels(page.locator(f"#compare-{name} img")).shape == generated.shape
    expect(page.get_by_text("looks real to the discriminator")).to_be_visible()

    source, target = render_pair(3, (64, 64), seed=7)
    source.save(tmp_path / "source.png")
    target.save(tmp_path / "target.png")
    page.get_by_role("button", name="A pair of your own").click()
    for name in ("source", "target"):
        give(page, f"#compare-own-{name}", tmp_path / f"{name}.png")
        expect(page.locator(f"#compare-own-{name} img")).to_be_visible()
    expect(numbers.first).to_have_text("–")  # what was measured is of another pair
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(numbers.first).not_to_have_text("–")
    l1 = np.abs(expected(app, source) - np.asarray(target)).mean() / 255
    assert abs(float(numbers.first.inner_text()) - l1) < 2e-3


def test_batch_gives_a_gallery_and_a_zip_and_lists_the_bad_file(page: Page, app: RunningApp, tmp_path: Path) -> None:
    sources = {f"house {number}.png": facade(tmp_path / f"house {number}.png", number) for number in (1, 2)}
    (tmp_path / "notes.png").write_text("no picture")
    open_tab(page, "Batch")
    render_pair(3, (64, 64), seed=7)[1].save(tmp_path / "photo.png")
    give(page, "#batch-files", *(tmp_path / name for name in (*sources, "notes.png", "photo.png")))
    expect(page.locator("#batch-files")).to_contain_text("notes")
    page.evaluate("""() => {
      window.announced = "";
      const note = () => document.querySelectorAll("[aria-live]").forEach((each) => (announced += each.textContent));
      new MutationObserver(note).observe(document.body, { childList: true, subtree: true, characterData: true });
    }""")
    page.get_by_role("button", name="Translate all").click()
    expect(page.locator("#batch-gallery img")).to_have_count(3)
    expect(page.locator("#batch-outcomes")).to_contain_text("is not a picture")
    expect(page.locator("#batch-outcomes")).to_contain_text("translated, but photo.png looks like a photo")
    expect(page.locator("#batch-note")).to_contain_text("3 of 4 files translated")
    page.wait_for_function("announced.includes('Done')")
    assert "common." not in page.evaluate("announced")
    with page.expect_download() as download:
        page.locator("#batch-zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sorted(archive.namelist()) == ["house_1.png", "house_2.png", "photo.png"]
        made = np.asarray(Image.open(io.BytesIO(archive.read("house_2.png")))).astype(np.int16)
    np.testing.assert_array_equal(made, expected(app, sources["house 2.png"]))


def choose_model(page: Page, name: str) -> None:
    page.locator("#model").get_by_text(name, exact=True).click()


def test_my_picture_is_a_photo_or_a_pair(page: Page, app: RunningApp, tmp_path: Path) -> None:
    """Offered where a model's sources were made of photos, or halves of files; what is used is what is shown before."""
    photo = render_pair(5, (64, 96), seed=7)[1]
    photo.save(tmp_path / "photo.png")
    box, result = page.get_by_label("My picture is a photo"), page.locator("#translate-result img")
    expect(box).to_be_hidden()
    choose_model(page, "edges")
    expect(box).to_be_visible()
    give(page, "#translate-input", tmp_path / "photo.png")
    expect(page.locator("#translate-note")).to_contain_text("96x64")
    plain = result.last.get_attribute("src")
    box.check()
    wait_for_another(result.last, plain)
    expect(page.locator("#translate-note")).to_contain_text("72x48")
    with app.store.use("edges", Deadline(app.limits)) as pipeline:
        source = pipeline.make_source(photo)
    np.testing.assert_array_equal(pixels(result.first), np.asarray(shown(source, exact=True)))
    box.uncheck()
    facade(tmp_path / "pair.png", 6, (64, 128))
    page.locator("#translate-input").get_by_label("Remove Image").click()
    give(page, "#translate-input", tmp_path / "pair.png")
    expect(page.locator("#translate-note")).to_contain_text('choose "right half" at "My picture is a pair"')
    whole = result.last.get_attribute("src")
    page.get_by_label("right half").check()
    wait_for_another(result.last, whole)
    expect(page.locator("#translate-note")).to_have_text("64x64 pixels")
    right = Image.open(tmp_path / "pair.png").crop((64, 0, 128, 64))
    np.testing.assert_array_equal(pixels(result.first), np.asarray(shown(right, exact=True)))
    choose_model(page, "demo")
    for offered in (box, page.get_by_label("right half")):
        expect(offered).to_be_hidden()


def test_the_camera_takes_a_picture(page: Page, app: RunningApp) -> None:
    page.context.grant_permissions(["camera"], origin=app.url.rstrip("/"))
    choose_model(page, "edges")
    place, result = page.locator("#translate-input"), page.locator("#translate-result img")
    for name in ("Capture from camera", "Click to Access Webcam"):
        place.get_by_role("button", name=name).click()
    page.wait_for_function("document.querySelector('#translate-input video')?.videoWidth > 0")  # Gradio takes no other
    place.get_by_role("button", name="capture photo").click()
    expect(page.locator("#translate-note")).to_contain_text("pixels")
    expect(result).to_have_count(2)
    red, green, blue = pixels(place.locator("img")).reshape(-1, 3).T
    assert green.min() > 120 and blue.max() < 60 and len({*red.tolist()}) > 1, "Chromium films a green pie on green"
    with app.store.use("edges", Deadline(app.limits)) as pipeline:
        taken = np.asarray(pipeline(Image.fromarray(pixels(place.locator("img")).astype(np.uint8))))
    assert np.abs(pixels(result.last) - np.asarray(shown(Image.fromarray(taken)))).mean() < 1


def test_a_picture_that_comes_right_after_another_model_keeps_its_result(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model's choice asked for, when there was no picture, is answered last."""
    release, begin = threading.Event(), Newest.begin

    def held(self: Newest, session: str | None) -> Callable[[], bool]:
        caller = sys._getframe(1)
        if caller.f_code.co_name == "translate_new_picture" and caller.f_locals["path"] is None:
            release.wait(PATIENCE / 1000)
        return begin(self, session)

    monkeypatch.setattr(Newest, "begin", held)
    choose_model(page, "edges")
    expect(page.locator("#status")).to_contain_text("model edges")
    page.wait_for_timeout(500)
    facade(tmp_path / "one.png", 4, (64, 64))
    give(page, "#translate-input", tmp_path / "one.png")
    expect(page.locator("#translate-note")).to_contain_text("64x64")
    release.set()
    page.wait_for_timeout(1000)
    expect(page.locator("#translate-note")).to_contain_text("64x64")
    expect(page.locator("#translate-result img")).to_have_count(2)


def test_another_model_is_picked_and_a_damaged_one_says_why(page: Page, tmp_path: Path) -> None:
    facade(tmp_path / "one.png", 4, (64, 64))
    give(page, "#translate-input", tmp_path / "one.png")
    expect(page.locator("#translate-note")).to_contain_text("64x64")
    result = page.locator("#translate-result img").last
    with_demo = result.get_attribute("src")
    choose_model(page, "sixteen")
    expect(page.locator("#status")).to_contain_text("16-bit RGB (0 … 30000) → 16-bit RGB")
    wait_for_another(result, with_demo)  # the same picture, translated by the other model
    choose_model(page, "damaged")
    expect(page.get_by_role("alert")).to_have_text(re.compile("^The model damaged cannot be used"))
    expect(page.locator("#translate-result img")).to_have_count(0)
    for name in ("Draw", "About"):
        open_tab(page, name)
        expect(page.locator("#draw-result img" if name == "Draw" else "#about-samples img")).to_be_visible()
    choose_model(page, "empty")  # of which nothing is known; said once
    expect(page.locator("#title")).to_have_text("empty")
    expect(page.get_by_role("alert")).to_have_text(re.compile("^The model empty has no preprocessor_config.json"))
    for place in ("#translate-examples", "#translate-result", "#draw-examples", "#draw-result", "#about-samples"):
        expect(page.locator(f"{place} img")).to_have_count(0)
    expect(page.get_by_text("Every colour is a class")).to_have_count(0)
    expect(page.locator("#about-card")).to_have_text("")
    expect(page.locator("#about-metrics")).not_to_contain_text("PSNR")
    open_tab(page, "Translate")
    choose_model(page, "demo")
    expect(page.locator("#status")).to_contain_text("8-bit RGB")
    expect(result).to_have_attribute("src", with_demo)


def test_about_shows_the_card_and_the_metrics(page: Page, app: RunningApp) -> None:
    open_tab(page, "About")
    expect(page.locator("#about-card")).to_contain_text("demo")
    expect(page.locator("#about-metrics")).to_contain_text(f"{app.store.info('demo').numbers['psnr']:.2f} dB")
    grid, label = (page.locator(f"#about-samples {part}").first for part in ("img", "label"))
    expect(grid).to_be_visible()
    assert label.bounding_box()["y"] + label.bounding_box()["height"] <= grid.bounding_box()["y"], "it hides titles"


def test_a_text_file_is_refused_in_words_whatever_its_name(page: Page, tmp_path: Path) -> None:
    dropped = page.evaluate_handle("""() => {
      const files = new DataTransfer();
      files.items.add(new File(["no picture at all"], "notes.txt", { type: "text/plain" }));
      return files;
    }""")
    place = page.locator("#translate-input")
    place.get_by_role("button", name="Click to Upload").dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.get_by_role("alert")).to_have_text(re.compile("^notes.txt is not a picture that can be read"))
    expect(page.get_by_text("Error", exact=True)).to_have_count(0)
    expect(place.locator("img")).to_be_hidden()
    place.get_by_label("Remove Image").click()
    (tmp_path / "notes.png").write_text("no picture at all")
    give(page, "#translate-input", tmp_path / "notes.png")
    expect(page.get_by_role("alert")).to_have_text(re.compile("^notes.png is not a picture that can be read"))
    expect(page.get_by_text("Error", exact=True)).to_have_count(0)
    assert "Traceback" not in page.content() and str(tmp_path) not in page.content()


def test_old_results_go_with_the_picture_they_are_of(page: Page, tmp_path: Path) -> None:
    facade(tmp_path / "one.png", 4, (64, 64))
    note, download = page.locator("#translate-note"), page.locator("#translate-download")
    give(page, "#translate-input", tmp_path / "one.png")
    expect(note).to_contain_text("64x64")
    expect(download).to_be_enabled()
    page.locator("#translate-input").get_by_label("Remove Image").click()
    expect(note).to_have_text("One of the model's own examples.")
    with page.expect_download() as first:
        download.click()
    assert first.value.suggested_filename == "demo_example_1.png"
    give(page, "#translate-input", tmp_path / "one.png")
    expect(note).to_contain_text("64x64")
    (tmp_path / "notes.png").write_text("no picture")
    page.locator("#translate-input").get_by_label("Remove Image").click()
    give(page, "#translate-input", tmp_path / "notes.png")
    expect(page.get_by_role("alert")).to_be_visible()
    for button in (download, page.locator("#translate-copy")):
        expect(button).to_be_disabled()
    expect(page.locator("#translate-result img")).to_have_count(0)

    open_tab(page, "Batch")
    give(page, "#batch-files", tmp_path / "one.png")
    page.get_by_role("button", name="Translate all").click()
    expect(page.locator("#batch-note")).to_have_text("1 of 1 file translated.")
    choose_model(page, "sixteen")
    expect(page.locator("#batch-note")).to_have_text("")
    expect(page.locator("#batch-gallery img")).to_have_count(0)
    expect(page.locator("#batch-zip")).to_be_disabled()


def test_a_tiff_is_shown(page: Page, app: RunningApp, tmp_path: Path) -> None:
    """In the pane it is chosen in, where browsers show none; the file itself is what is translated."""
    values = np.random.default_rng(0).integers(0, 65536, (40, 56, 3), np.uint16)
    (tmp_path / "deep.tif").write_bytes(encode(Decoded(values, "rgb"), "deep.tif", ".tif"))
    choose_model(page, "sixteen")
    give(page, "#translate-input", tmp_path / "deep.tif")
    expect(page.locator("#translate-note")).to_contain_text("56x40")
    pane = page.locator("#translate-input img")
    expect(pane).to_have_attribute("src", re.compile("^data:image/png"))
    bright = shown(Decoded(values, "rgb"), app.store.info("sixteen").source, exact=True)  # of the model's range
    np.testing.assert_array_equal(pixels(pane), np.asarray(bright))
    with page.expect_download() as download:
        page.locator("#translate-download").click()
    with app.store.use("sixteen", Deadline(app.limits)) as pipeline:
        np.testing.assert_array_equal(read_image(download.value.path(), "result").values, pipeline(values))
    choose_model(page, "demo")  # which has no such range
    enlarged = (values >> 8).repeat(9, axis=0).repeat(9, axis=1)  # which the page does with tiny pictures
    becomes(page, lambda: pixels(pane), enlarged)


def test_a_tiff_is_shown_though_the_page_is_still_busy_with_another_model(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the choice of a model asks for is on its way when the file comes."""
    uploaded, preview = threading.Event(), Handlers.preview

    def held(self: Handlers, picture: Path | None, model: str | None) -> str:
        if picture is None:
            uploaded.wait(PATIENCE / 1000)
        return preview(self, picture, model)

    monkeypatch.setattr(Handlers, "preview", held)
    Image.new("RGB", (40, 24), "red").save(tmp_path / "red.tif")
    choose_model(page, "drawing")
    give(page, "#translate-input", tmp_path / "red.tif")
    expect(page.locator("#translate-note")).to_contain_text("40x24")
    uploaded.set()
    expect(page.locator("#translate-input img")).to_have_attribute("src", re.compile("^data:image/png"))


def test_copy_a_pair_and_a_link_that_opens_it(page: Page, app: RunningApp) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=app.url.rstrip("/"))
    page.locator("#translate-surprise").click()
    expect(page.locator("#translate-note")).to_contain_text("pixels")
    page.locator("#translate-copy").click()
    expect(page.locator("#translate-copy")).to_have_text("Copied")
    data = page.evaluate("""async () => {
      const blob = await (await navigator.clipboard.read())[0].getType("image/png");
      return btoa(Array.from(new Uint8Array(await blob.arrayBuffer()), (byte) => String.fromCharCode(byte)).join(""));
    }""")
    both = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    images = page.locator("#translate-result img")
    np.testing.assert_array_equal(both, np.hstack([pixels(images.first), pixels(images.last)]))
    page.locator("#translate-link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    number = int(re.fullmatch(r".*/\?model=demo&example=(\d)", link)[1])
    page.goto(link)
    wanted = np.asarray(shown(app.store.info("demo").examples[number].source, exact=True))
    expect(page.locator("#translate-note")).to_contain_text("pixels")
    np.testing.assert_array_equal(pixels(images.first), wanted)
    others = [page.context.new_page() for _ in range(2)]  # no page is left while something comes
    others[0].goto(f"{app.url}?model=nope")
    expect(others[0].get_by_role("alert")).to_contain_text("The model 'nope' is not offered here")
    others[1].goto(f"{app.url}?model=edges&example=99")
    expect(others[1].get_by_role("alert")).to_have_text("There is no example 99: the model has 0.")
    expect(others[1].get_by_role("heading", level=1)).to_have_text("edges → photo")
    expect(others[1].get_by_role("radio", name="edges edges → photo")).to_be_checked()


def test_an_empty_sheet_gives_an_empty_sheet(page: Page) -> None:
    open_tab(page, "Draw")
    result = page.locator("#draw-result img")
    expect(result).to_be_visible()
    before = result.get_attribute("src")
    page.get_by_role("button", name="Clear", exact=True).click()
    wait_for_another(result, before)
    expect(page.locator("#draw-note")).to_contain_text("The sheet is empty")
    assert (pixels(result) == 255).all()


def test_a_model_of_drawings_has_a_thin_pen_and_paper(page: Page) -> None:
    choose_model(page, "drawing")
    open_tab(page, "Draw")
    expect(page.locator("#board .swatches label")).to_have_text(["paper", "pen"])
    canvas = page.locator("#board canvas")
    expect(canvas).to_have_attribute("data-ready", re.compile("^drawing"))
    page.get_by_role("button", name="Clear", exact=True).click()
    stroke(page, canvas, [(0.2, 0.5), (0.8, 0.5)])
    rows = (drawing(canvas) == 0).all(axis=2).sum(axis=0)
    assert set(rows[70:180]) <= {1, 2, 3} and (rows[:40] == 0).all(), rows


def test_on_a_phone_the_result_stays_in_view_and_the_page_scrolls_beside_the_drawing(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_tab(page, "Draw")
    canvas, result = page.locator("#board canvas"), page.locator("#draw-result img")
    top = result.bounding_box()["y"]
    page.mouse.wheel(0, top + 40)
    page.wait_for_function("scrollY > 100")
    above, drawn = result.bounding_box(), canvas.bounding_box()
    assert 0 <= above["y"] < 5 and above["y"] + above["height"] <= drawn["y"] < 844 - 100, (above, drawn)
    assert drawn["x"] > 20 and drawn["x"] + drawn["width"] < 370
    page.set_viewport_size({"width": 390, "height": 667})  # where colours are chosen, most of the drawing is seen
    page.evaluate("document.querySelector('#board .palette').scrollIntoView()")
    page.evaluate("scrollBy(0, -document.querySelector('#draw-result').getBoundingClientRect().height)")
    above, drawn = page.locator("#draw-result").bounding_box(), canvas.bounding_box()
    seen = min(667, drawn["y"] + drawn["height"]) - max(drawn["y"], above["y"] + above["height"])
    assert seen > 0.7 * drawn["height"], (above, drawn)


def test_axe_finds_no_serious_fault(page: Page, tmp_path: Path) -> None:
    """Light and dark, with results, and with an error on the page."""
    inject_axe(page)
    (tmp_path / "notes.png").write_text("no picture")
    facade(tmp_path / "one.png", 1)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # half-faded text would be too pale
        page.evaluate(f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})")
        for name in ("Translate", "Draw", "Compare", "Batch", "About"):
            open_tab(page, name)
            if name == "Compare":
                expect(page.locator("#compare-numbers b").first).not_to_have_text("–")
            if name == "Batch" and scheme == "light":
                give(page, "#batch-files", tmp_path / "one.png", tmp_path / "notes.png")
                page.get_by_role("button", name="Translate all").click()
                expect(page.locator("#batch-note")).not_to_have_text("")
            assert serious_faults(page) == [], (scheme, name)


def test_every_control_has_a_name_and_tab_reaches_it(page: Page) -> None:
    for name in ("Translate", "Draw", "Compare", "Batch", "About"):
        open_tab(page, name)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, canvas[tabindex], [role=slider]")]
              .filter((each) => each.offsetParent && !["file", "hidden"].includes(each.type))
              .filter((each) => !(each.getAttribute("aria-label") || each.innerText?.trim() || each.labels?.length
                                  || each.title || each.getAttribute("aria-labelledby")
                                  || each.querySelector("img[alt]:not([alt=''])")))
              .map((each) => each.outerHTML.slice(0, 200))"""
        )
        assert nameless == [], name
    open_tab(page, "Draw")
    page.get_by_role("tab", name="Draw").focus()
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
        )
    assert {"Pen", "Fill", "Eraser", "Clear", "Pen size in pixels"} <= reached
    assert any(name and name.startswith("Drawing.") for name in reached), reached


def test_nothing_is_wider_than_the_window_and_results_move_nothing(page: Page, tmp_path: Path) -> None:
    for width, size in ((390, (128, 128)), (1280, (64, 96))):
        page.set_viewport_size({"width": width, "height": 900})
        for name in ("Draw", "Compare", "Batch", "About", "Translate"):
            open_tab(page, name)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        place = page.locator("#translate-button").bounding_box()
        facade(tmp_path / f"{width}.png", 5, size)
        give(page, "#translate-input", tmp_path / f"{width}.png")
        expect(page.locator("#translate-note")).to_contain_text(f"{size[1]}x{size[0]} pixels")
        assert page.locator("#translate-button").bounding_box() == place


def test_a_late_answer_never_takes_the_place_of_a_newer_one(page: Page, app: RunningApp) -> None:
    """The first stroke's translation is held up until the second stroke is drawn."""
    open_tab(page, "Draw")
    canvas, result = page.locator("#board canvas"), page.locator("#draw-result img")
    begun, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        begun.set()
        go_on.wait(PATIENCE / 1000)

    with app.store.use("demo", Deadline(app.limits)) as pipeline:
        hook = pipeline.generator.register_forward_pre_hook(hold)
    page.get_by_text("shop", exact=True).click()
    stroke(page, canvas, [(0.1, 0.9), (0.9, 0.9)])
    assert begun.wait(PATIENCE / 1000)
    last = result.get_attribute("src")
    stroke(page, canvas, [(0.1, 0.1), (0.9, 0.1)])
    hook.remove()
    go_on.set()
    wanted_pixels = shown_answer(app, drawing(canvas))
    for _ in range(2):  # the answer to the first stroke may be shown before that to the second, and no other
        wait_for_another(result, last)
        last = result.get_attribute("src")
        if np.array_equal(pixels(result), wanted_pixels):
            break
    np.testing.assert_array_equal(pixels(result), wanted_pixels)
    open_tab(page, "Compare")  # its answer comes the same way, after all that were sent before
    expect(page.locator("#compare-numbers b").first).not_to_have_text("–")
    open_tab(page, "Draw")
    np.testing.assert_array_equal(pixels(result), wanted_pixels)
