"""Draw: a canvas with the model's own colours; the picture beside it comes alive whenever the pen lifts."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from pix2pix_hub.ui.components import board_setup, drawing_board, example_pictures, example_strip
from pix2pix_hub.ui.events import Newest, answering, chosen_index, on_gpu
from pix2pix_hub.ui.exports import Export
from pix2pix_hub.ui.pictures import decode_drawing, shown
from pix2pix_hub.ui.tabs.context import Context, Followers, first_example


def draw_tab(context: Context, tab: gr.Tab) -> Followers:
    """Lay the tab out and connect it."""
    handlers, newest = context.handlers, Newest()
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            board = drawing_board(context.export, label="Your drawing", elem_id="board")
        with gr.Column(scale=1, min_width=300):
            result = gr.Image(
                value=_first_result(context.export),
                label="What the model makes of it",
                type="pil",
                format="png",
                interactive=False,
                alt_text="What the model makes of the drawing",
                buttons=["download", "fullscreen"],
                elem_id="draw-result",
            )
            gr.Markdown("Start from an example", elem_classes="hint")
            examples = example_strip(context.export, "draw-examples")
            note = gr.Markdown(_note(context.export), elem_classes="hint")

    @answering
    @on_gpu
    def draw_board(drawing: str | None, model: str, request: gr.Request) -> Any:
        """Translate the drawing, unless a newer one has come before this is ready."""
        number = newest.number(request.session_hash)
        made = shown(handlers.draw(decode_drawing(drawing) if drawing else None, model))
        return made if newest.is_newest(request.session_hash, number) else gr.skip()

    @answering
    def start(model: str, chosen: gr.EventData) -> Any:
        """Put an example on the board."""
        return gr.HTML(setup=board_setup(handlers.store.export(model), chosen_index(chosen), publish=True))

    board.change(
        draw_board,
        [board, context.picker],
        result,
        trigger_mode="always_last",
        show_progress="hidden",
        api_visibility="private",
    )
    examples.select(start, context.picker, board, api_visibility="private", show_progress="hidden")

    def follow(export: Export) -> list[Any]:
        return [
            gr.HTML(setup=board_setup(export, 0)),
            _first_result(export),
            example_pictures(export),
            _note(export),
        ]

    return Followers([board, result, examples, note], follow)


def _first_result(export: Export | None) -> Image.Image | None:
    example = first_example(export)
    return shown(example.generated) if example else None


def _note(export: Export | None) -> str:
    if export is None or export.source.paints:
        return "Every colour is a class the model was trained on. Fill paints a whole area; Undo takes back any step."
    return "This model was trained on photos: it makes little of flat drawings, but you can paint over an example."
