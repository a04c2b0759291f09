"""Translate: one picture of any size, before and after, with variants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from pix2pix_hub.ui.components import (
    PANE,
    PRIVATE,
    QUIET,
    Followers,
    example_pictures,
    example_strip,
    gallery,
    picture_input,
)
from pix2pix_hub.ui.exports import Export
from pix2pix_hub.ui.guard import Newest, answering, chosen_index, on_gpu
from pix2pix_hub.ui.handlers import MAX_SEED, Handlers, in_colors, shown

ABOUT_VARIANTS = "With dropout left on, as in the paper, every seed gives another picture: the same seed, the same."


def translate_tab(
    handlers: Handlers, picker: gr.Dropdown, export: Export | None
) -> tuple[Followers, tuple[Callable[..., Any], list[Any], list[Any]]]:
    """Lay the tab out and connect it; also returns what to do after another model was picked: an event's arguments."""
    newest, most = Newest(), handlers.limits.max_variants
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
            examples = example_strip(export, "translate-examples")
            with gr.Accordion("Variants", open=False):
                gr.Markdown(ABOUT_VARIANTS, elem_classes="hint")
                with gr.Row():
                    variants = gr.Slider(1, most, value=1, step=1, label="Variants (1: the model's plain answer)")
                    seed = gr.Number(value=0, minimum=0, maximum=MAX_SEED, precision=0, label="Seed", min_width=120)
            button = gr.Button("Translate", variant="primary", elem_id="translate-button")
        with gr.Column(scale=6, min_width=300, elem_id="translate-out"):
            slider = gr.ImageSlider(
                value=_first_pair(export),
                label="Before | after",
                type="pil",
                format="png",
                interactive=False,
                height=PANE,
                max_height=PANE,
                buttons=["fullscreen"],
                elem_id="translate-result",
            )
            several = gallery("Variants", "translate-variants", columns=4, height=220, visible=False)
            with gr.Row(elem_id="translate-said"):
                note = gr.Markdown(_first_note(export), elem_classes="hint", elem_id="translate-note")
                look: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 140, "elem_id": "translate-download"}
                download = gr.DownloadButton("Download", interactive=False, **look)

    def translating(*, without_picture: bool) -> Callable[..., Any]:
        """An event; without a picture it is refused, or else does nothing."""

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
            if path is None and without_picture:
                return gr.skip()
            is_newest = newest.begin(request.session_hash)
            options: dict[str, Any] = {"stochastic": True, "seed": chosen_seed} if number > 1 else {}
            options |= {"variants": int(number), "report": lambda *parts: progress(parts, unit="tiles")}
            file, (source, *results), said = handlers.translate(path, model, **options)
            if not is_newest():
                return gr.skip()
            named = [(each, f"variant {place}") for place, each in enumerate(results, 1)] if len(results) > 1 else []
            return [
                (source, results[0]),
                gr.Gallery(value=named, visible=bool(named)),
                gr.DownloadButton(value=file, interactive=True),
                said,
            ]

        return translate_picture

    @answering
    def take_example(model: str, chosen: gr.EventData) -> Any:
        """Put an example's source where a picture is uploaded."""
        return in_colors(handlers.example(chosen_index(chosen), model)[0], handlers.store.export(model).source)

    inputs, outputs = [picture, picker, variants, seed], [slider, several, download, note]
    translate_new_picture = translating(without_picture=True)
    button.click(translating(without_picture=False), inputs, outputs, trigger_mode="always_last", **PRIVATE)
    picture.change(translate_new_picture, inputs, outputs, trigger_mode="always_last", **PRIVATE)
    examples.select(take_example, picker, picture, **QUIET)
    followers: Followers = {
        examples: example_pictures,
        slider: _first_pair,
        several: lambda export: gr.Gallery(value=[], visible=False),
        download: lambda export: gr.DownloadButton(value=None, interactive=False),
        note: _first_note,
    }
    return followers, (translate_new_picture, inputs, outputs)


def _first_pair(export: Export | None) -> tuple[Any, Any] | None:
    """What the model made of its first example, before anybody has asked for anything."""
    if not (export and export.examples):
        return None
    return shown(export.examples[0].source, exact=True), shown(export.examples[0].generated)


def _first_note(export: Export | None) -> str:
    return "An example of the model's own." if export and export.examples else ""
