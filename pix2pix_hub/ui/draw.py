"""Draw: a canvas with the model's own colours; the picture beside it follows the pen.

Why not `gr.ImageEditor` (of Gradio 6.31): it says nothing of the first stroke, smooths strokes into colours that no
class has, cannot fill, sends three pictures a stroke, and takes seconds a stroke where there is no GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from pix2pix_hub.ui.components import QUIET, Followers, example_pictures, example_strip, picture_output
from pix2pix_hub.ui.guard import Newest, answering, chosen_index, computing
from pix2pix_hub.ui.handlers import Handlers, decode_drawing, encode_drawing, shown
from pix2pix_hub.ui.models import BLACK_AND_WHITE, ModelInfo, board_setup, paints

CANVAS = Path(__file__).with_name("canvas")
EVERY = 150  # milliseconds between two drawings that are sent while the pen is down
OF_CLASSES = "Every colour is a class the model was trained on. Fill paints a whole area; Undo takes back any step."
OF_PHOTOS = "This model was trained on photos: it makes little of flat drawings, but you can paint over an example."


def draw_tab(handlers: Handlers, picker: gr.Dropdown, info: ModelInfo | None) -> Followers:
    """Lay the tab out and connect it."""
    newest = Newest()
    html, css, script = ((CANVAS / f"canvas.{suffix}").read_text() for suffix in ("html", "css", "js"))
    files: dict[str, Any] = {"html_template": html, "css_template": css, "js_on_load": script}
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            look: dict[str, Any] = {"label": "Your drawing", "elem_id": "board", "apply_default_css": False}
            board = gr.HTML(setup=_setup(info, 0), **files, **look)  # its value: the drawing, a PNG data URL
        with gr.Column(scale=1, min_width=300):
            look = {"alt_text": "What the model makes of the drawing", "buttons": ["download", "fullscreen"]}
            result = picture_output("What the model makes of it", "draw-result", value=_first_result(info), **look)
            gr.Markdown("Start from an example", elem_classes="hint")
            examples = example_strip(info, "draw-examples")
            note = gr.Markdown(_note(info), elem_classes="hint")

    @computing
    def draw_board(drawing: str | None, model: str, request: gr.Request) -> Any:
        """Translate the drawing, unless a newer one has come before this is ready."""
        is_newest = newest.begin(request.session_hash)
        made = shown(handlers.draw(decode_drawing(drawing) if drawing else None, model))
        return made if is_newest() else gr.skip()

    @answering
    def start(model: str, chosen: gr.EventData) -> Any:
        """Put an example on the board."""
        return gr.HTML(setup=_setup(handlers.store.info(model), chosen_index(chosen), publish=True))

    board.change(draw_board, [board, picker], result, trigger_mode="always_last", **QUIET)
    examples.select(start, picker, board, **QUIET)
    followers: Followers = {result: _first_result, examples: example_pictures, note: _note}
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
        return empty | {"image": None, "publish": publish, "key": "empty", "every": EVERY}
    image = encode_drawing(info.examples[example].source) if example < len(info.examples) else None
    return board_setup(info) | {
        "image": image,
        "publish": publish,
        "key": f"{info.name} {example}",
        "every": EVERY,
    }


def _first_result(info: ModelInfo | None) -> Image.Image | None:
    return shown(info.examples[0].generated) if info and info.examples else None


def _note(info: ModelInfo | None) -> str:
    return OF_CLASSES if info is None or paints(info.source) else OF_PHOTOS
