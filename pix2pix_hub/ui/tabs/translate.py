"""Translate: one picture of any size, before and after, with variants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from pix2pix_hub.ui.components import example_pictures, example_strip, picture_input
from pix2pix_hub.ui.events import Newest, answering, chosen_index, on_gpu
from pix2pix_hub.ui.exports import Export
from pix2pix_hub.ui.handlers import MAX_SEED, Translation
from pix2pix_hub.ui.pictures import in_colors, shown
from pix2pix_hub.ui.tabs.context import PANE, Context, Followers, first_example


def translate_tab(context: Context, tab: gr.Tab) -> Followers:
    """Lay the tab out and connect it."""
    handlers, limits, newest = context.handlers, context.handlers.limits, Newest()
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            picture = picture_input(
                label="Your picture",
                sources=["upload", "clipboard", "webcam"],
                height=PANE,
                buttons=[],
                elem_id="translate-input",
            )
            gr.Markdown("Or take an example", elem_classes="hint")
            examples = example_strip(context.export, "translate-examples")
            with gr.Accordion("Variants", open=False):
                gr.Markdown(
                    "With dropout left on, as in the paper, every seed gives another picture: the same seed, the same.",
                    elem_classes="hint",
                )
                with gr.Row():
                    variants = gr.Slider(
                        1, limits.max_variants, value=1, step=1, label="Variants (1: the model's plain answer)"
                    )
                    seed = gr.Number(value=0, minimum=0, maximum=MAX_SEED, precision=0, label="Seed", min_width=120)
            button = gr.Button("Translate", variant="primary", elem_id="translate-button")
        with gr.Column(scale=6, min_width=300, elem_id="translate-out"):
            slider = gr.ImageSlider(
                value=_first_pair(context.export),
                label="Before | after",
                type="pil",
                format="png",
                interactive=False,
                height=PANE,
                max_height=PANE,
                buttons=["fullscreen"],
                elem_id="translate-result",
            )
            gallery = gr.Gallery(
                label="Variants",
                columns=4,
                height=220,
                object_fit="contain",
                visible=False,
                buttons=["fullscreen"],
                format="png",
                elem_id="translate-variants",
                interactive=False,
            )
            with gr.Row(elem_id="translate-said"):
                note = gr.Markdown(_first_note(context.export), elem_classes="hint", elem_id="translate-note")
                download = gr.DownloadButton(
                    "Download", interactive=False, size="sm", scale=0, min_width=140, elem_id="translate-download"
                )

    def answer(made: Translation) -> list[Any]:
        several = len(made.results) > 1
        pictures = [(each, f"variant {number}") for number, each in enumerate(made.results, 1)]
        width, height = made.size
        said = f"{width}x{height} pixels" + (f", seed {made.seed}" if made.seed is not None else "")
        return [
            (made.source, made.results[0]),
            gr.Gallery(value=pictures if several else [], visible=several),
            gr.DownloadButton(value=made.file, interactive=True),
            said,
        ]

    @answering
    @on_gpu
    def translate_picture(
        path: Path | None,
        model: str,
        number: int,
        chosen_seed: int | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),
    ) -> Any:
        """Translate the picture in the pane, unless another was put there before this is ready."""
        mine, stochastic = newest.number(request.session_hash), number > 1
        made = handlers.translate(
            path,
            model,
            stochastic=stochastic,
            seed=chosen_seed if stochastic else None,
            variants=int(number),
            report=lambda done, total: progress((done, total), unit="tiles"),
        )
        return answer(made) if newest.is_newest(request.session_hash, mine) else gr.skip()

    @answering
    @on_gpu
    def translate_new_picture(
        path: Path | None,
        model: str,
        number: int,
        chosen_seed: int | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),
    ) -> Any:
        """The same, where there is a picture."""
        return gr.skip() if path is None else translate_picture(path, model, number, chosen_seed, request, progress)

    @answering
    def take_example(model: str, chosen: gr.EventData) -> Any:
        """Put an example's source where a picture is uploaded."""
        return in_colors(handlers.example(chosen_index(chosen), model)[0], handlers.store.export(model).source)

    inputs, outputs = [picture, context.picker, variants, seed], [slider, gallery, download, note]
    options: dict[str, Any] = {"trigger_mode": "always_last", "api_visibility": "private"}
    button.click(translate_picture, inputs, outputs, **options)
    picture.change(translate_new_picture, inputs, outputs, **options)
    examples.select(take_example, context.picker, picture, api_visibility="private", show_progress="hidden")

    def follow(export: Export) -> list[Any]:
        return [
            example_pictures(export),
            _first_pair(export),
            gr.Gallery(value=[], visible=False),
            gr.DownloadButton(value=None, interactive=False),
            _first_note(export),
        ]

    return Followers([examples, slider, gallery, download, note], follow, (translate_new_picture, inputs, outputs))


def _first_pair(export: Export | None) -> tuple[Any, Any] | None:
    """What the model made of its first example, before anybody has asked for anything."""
    example = first_example(export)
    return (shown(example.source, exact=True), shown(example.generated)) if example else None


def _first_note(export: Export | None) -> str:
    return "An example of the model's own." if first_example(export) else ""
