"""Draw: a canvas with the model's own colours; the picture beside it follows the pen.

Why not `gr.ImageEditor` (of Gradio 6.31): it says nothing of the first stroke, smooths strokes into colours that no
class has, cannot fill, sends three pictures a stroke, and takes seconds a stroke where there is no GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageColor

from pix2pix_hub.image.read import from_memory
from pix2pix_hub.ui.components import (
    QUIET,
    Followers,
    example_pictures,
    example_strip,
    note,
    picture_output,
    small_buttons,
)
from pix2pix_hub.ui.guard import Newest, answering, chosen_index, computing, said
from pix2pix_hub.ui.handlers import Handlers, decode_drawing, encode_drawing, safe_stem, shown
from pix2pix_hub.ui.models import BLACK_AND_WHITE, ModelInfo, board_setup, draws_lines, paints

CANVAS = Path(__file__).with_name("canvas")
EVERY = 150  # milliseconds between two drawings that are sent while the pen is down
EMPTY = "The sheet is empty: draw something, or start from an example."
OF_CLASSES = "Every colour is a class the model was trained on. Fill paints a whole area; Undo takes back any step."
OF_LINES = "This model was trained on line drawings: draw outlines with the thin pen."
OF_PHOTOS = "This model was trained on photos: it makes little of flat drawings, but you can paint over an example."


def draw_tab(handlers: Handlers, picker: gr.HTML, info: ModelInfo | None) -> Followers:
    """Lay the tab out and connect it."""
    newest = Newest()
    html, css, script = ((CANVAS / f"canvas.{suffix}").read_text() for suffix in ("html", "css", "js"))
    files: dict[str, Any] = {"html_template": html, "css_template": css, "js_on_load": script}
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            look: dict[str, Any] = {"label": "Your drawing", "elem_id": "board", "apply_default_css": False}
            board = gr.HTML(setup=_setup(info, 0), **files, **look)  # its value: the drawing, a PNG data URL
        with gr.Column(scale=1, min_width=300, elem_id="draw-out"):
            look = {"alt_text": "What the model makes of the drawing", "buttons": ["download", "fullscreen"]}
            result = picture_output("What the model makes of it", "draw-result", value=_first_result(info), **look)
            told = note("draw-note")
            with gr.Row(elem_classes="small-buttons"):
                small_buttons("draw", "copy", "surprise")
            gr.Markdown("Start from an example", elem_classes="hint")
            examples = example_strip(info, "draw-examples")
            hint = gr.Markdown(_hint(info), elem_classes="hint")

    def draw_board(drawing: str | None, model: str, request: gr.Request) -> Any:
        """Translate the drawing, unless a newer one has come before this is ready."""
        is_newest = newest.begin(request.session_hash)
        picture = decode_drawing(drawing) if drawing else None
        sheet = ImageColor.getrgb(board_setup(info := handlers.store.info(model))["background"])
        if picture and [color for _, color in picture.getcolors(1) or []] == [sheet]:
            return [shown(Image.new("RGB", picture.size, "white")), said(EMPTY)]
        made = from_memory(shown(handlers.draw(picture, model), info.target), "what was made")
        return [handlers.save(made, f"{safe_stem(info.name)}_drawn"), ""] if is_newest() else gr.skip()

    @answering
    def start(model: str, chosen: gr.EventData) -> Any:
        """Put an example on the board."""
        return gr.HTML(setup=_setup(handlers.store.info(model), chosen_index(chosen), publish=True))

    drawn = computing(draw_board, [None])
    board.change(drawn, [board, picker], [result, told], trigger_mode="always_last", **QUIET)
    examples.select(start, picker, board, **QUIET)
    followers: Followers = {result: _first_result, examples: example_pictures, hint: _hint, told: lambda info: ""}
    return {board: lambda info: gr.HTML(setup=_setup(info, 0)), **followers}


def _setup(info: ModelInfo | None, example: int, *, publish: bool = False) -> dict[str, Any]:
    """Describe the canvas as it starts.

    Args:
        info: the model to draw for; None: nothing yet.
        example: the validation pair whose source is on it, where the model has so many.
        publish: translate it at once.
    """
    if info is None:
        empty = {"width": 256, "height": 256, "background": "#ffffff", "colors": BLACK_AND_WHITE, "free": True}
        return empty | {"pen": None, "image": None, "publish": publish, "key": "empty", "every": EVERY}
    image = encode_drawing(info.examples[example].source) if example < len(info.examples) else None
    own = {"image": image, "publish": publish, "key": f"{info.name} {example}", "every": EVERY}
    return board_setup(info) | own


def _first_result(info: ModelInfo | None) -> Image.Image | None:
    return shown(info.examples[0].generated) if info and info.examples else None


def _hint(info: ModelInfo | None) -> str:
    if info is None:
        return ""
    return OF_LINES if draws_lines(info) else OF_CLASSES if paints(info.source) else OF_PHOTOS
