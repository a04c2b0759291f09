"""Translate: one picture of any size, before and after, with variants."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from pix2pix_hub.export import HALVES
from pix2pix_hub.ui.components import (
    PANE,
    PRIVATE,
    QUIET,
    SMALL_BUTTONS,
    Followers,
    example_pictures,
    example_strip,
    gallery,
    note,
    picture_pane,
    small_buttons,
)
from pix2pix_hub.ui.guard import Newest, answering, chosen_index, computing, said
from pix2pix_hub.ui.handlers import MAX_SEED, PAIR, PHOTO, Handlers, shown
from pix2pix_hub.ui.models import ModelInfo
from pix2pix_hub.util import UserError

ABOUT_VARIANTS = (
    "With dropout left on, as in the paper, every seed gives another picture, and the same seed the same one."
)
MAKE_SOURCE = f"{PHOTO}: first make a source of it, as was done for training"
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}  # models see little more, and are soon done
WHOLE = "whole"
FORGET = """() => [{ __type__: "update", value: [], visible: false },
                    { __type__: "update", value: null, interactive: false }, ""]"""  # in the browser, at once


def translate_tab(
    handlers: Handlers, picker: gr.HTML, info: ModelInfo | None
) -> tuple[Followers, tuple[Callable[..., Any], list[Any], list[Any]]]:
    """Lay the tab out and connect it; also returns what to do after another model was picked: an event's arguments."""
    newest, most = Newest(), handlers.limits.max_variants

    def first_file(info: ModelInfo | None) -> gr.DownloadButton:
        """The picture that is shown before anybody has asked for one."""
        file = handlers.example_file(0, info.name, generated=True) if info and info.examples else None
        return gr.DownloadButton(value=file, interactive=file is not None)

    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            look: dict[str, Any] = {"height": PANE, "buttons": [], "sources": ["upload", "clipboard", "webcam"]}
            look["webcam_options"] = gr.WebcamOptions(constraints=CAMERA)
            picture = picture_pane(handlers, picker, "Your picture", "translate-input", **look)
            photo = gr.Checkbox(label=MAKE_SOURCE, elem_id="translate-photo", visible=_takes_photos(info))
            choices = [("no, use it whole", WHOLE), *((f"{half} half", half) for half in HALVES)]
            half = gr.Radio(choices, value=WHOLE, label=PAIR, elem_id="translate-half", visible=_takes_pairs(info))
            gr.Markdown("Or take an example", elem_classes="hint")
            examples = example_strip(info, "translate-examples")
            with gr.Accordion("Variants", open=False):
                gr.Markdown(ABOUT_VARIANTS, elem_classes="hint")
                with gr.Row():
                    variants = gr.Slider(1, most, value=1, step=1, label="Variants (1: the model's plain answer)")
                    seed = gr.Number(value=0, minimum=0, maximum=MAX_SEED, precision=0, label="Seed", min_width=120)
            button = gr.Button("Translate", variant="primary", elem_id="translate-button")
        with gr.Column(scale=6, min_width=300, elem_id="translate-out"):
            look = {"height": PANE, "max_height": PANE, "buttons": ["fullscreen"], "elem_id": "translate-result"}
            look |= {"type": "pil", "format": "png", "interactive": False}
            slider = gr.ImageSlider(value=_first_pair(info), label="Before | after", **look)
            several = gallery("Variants", "translate-variants", columns=4, height=220, visible=False)
            told = note("translate-note", _first_note(info))
            with gr.Row(elem_classes="small-buttons"):
                look = {"size": "sm", "scale": 0, "min_width": 110, "elem_id": "translate-download"}
                download = gr.DownloadButton("Download", interactive=False, **look)
                small_buttons("translate", *SMALL_BUTTONS)

    def translate_picture(
        path: Path | None,
        model: str,
        number: int,
        chosen_seed: int | None,
        is_photo: bool,
        part: str | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),
    ) -> Any:
        """Translate the picture in the pane, unless another was put there before this is ready."""
        is_newest = newest.begin(request.session_hash)
        options: dict[str, Any] = {"stochastic": True, "seed": chosen_seed} if number > 1 else {}
        options |= {
            "variants": int(number),
            "make_source": is_photo,
            "half": part if part in HALVES else None,
            "report": lambda *parts: progress(parts, unit="tiles"),
        }
        file, (source, *results), words = handlers.translate(path, model, **options)
        if not is_newest():
            return gr.skip()
        named = [(each, f"variant {place}") for place, each in enumerate(results, 1)] if len(results) > 1 else []
        return [
            (source, results[0]),
            gr.Gallery(value=named, visible=bool(named)),
            gr.DownloadButton(value=file, interactive=True),
            said(html.escape(words)),
        ]

    @functools.wraps(translate_picture)  # by its arguments Gradio gives it the request and its progress
    def translate_new_picture(path: Path | None, model: str, *arguments: Any, **options: Any) -> Any:
        try:
            info: ModelInfo | None = handlers.store.info(model)
        except UserError:  # which the page's head says
            info = path = None
        if path is None:  # it was taken away
            newest.begin(arguments[4].session_hash)
            return [value(info) for value in results.values()]
        return translate_picture(path, model, *arguments, **options)

    @functools.wraps(translate_picture)
    def translate_by_another_model(path: Path | None, *arguments: Any, **options: Any) -> Any:
        """Without a picture leave what is shown: one may have come, and be translated, in the meantime."""
        return gr.skip() if path is None else translate_new_picture(path, *arguments, **options)

    @answering
    def take_example(model: str, chosen: gr.EventData) -> Any:
        """Put an example's source where a picture is uploaded."""
        return handlers.example_file(chosen_index(chosen), model), False, WHOLE

    results: Followers = {
        slider: _first_pair,
        several: lambda info: gr.Gallery(value=[], visible=False),
        download: first_file,
        told: lambda info: said(_first_note(info)),
    }
    emptied = [None, gr.update(value=[], visible=False), gr.update(value=None, interactive=False)]
    inputs, outputs = [picture, picker, variants, seed, photo, half], [*results]
    translate_again = computing(translate_new_picture, emptied)
    for event, translate in (
        (button.click, computing(translate_picture, emptied)),
        (picture.change, translate_again),
        (photo.input, translate_again),
        (half.input, translate_again),
    ):
        forgotten = event(None, None, outputs[1:], js=FORGET, **QUIET)
        forgotten.then(translate, inputs, outputs, trigger_mode="always_last", show_progress_on=slider, **PRIVATE)
    if info is not None:
        gr.on(None, lambda: first_file(info), None, download, **QUIET)  # when the page is opened
    examples.select(take_example, picker, [picture, photo, half], **QUIET)
    followers: Followers = {
        examples: example_pictures,
        photo: lambda info: gr.Checkbox(value=False, visible=_takes_photos(info)),
        half: lambda info: gr.Radio(value=WHOLE, visible=_takes_pairs(info)),
        **results,
    }
    return followers, (computing(translate_by_another_model, emptied), inputs, outputs)


def _first_pair(info: ModelInfo | None) -> tuple[Any, Any] | None:
    """Before and after of the model's first example, shown before anybody has asked for anything."""
    if not (info and info.examples):
        return None
    return shown(info.examples[0].source, exact=True), shown(info.examples[0].generated)


def _takes_photos(info: ModelInfo | None) -> bool:
    return info is not None and info.maker is not None


def _takes_pairs(info: ModelInfo | None) -> bool:
    return info is not None and info.half is not None


def _first_note(info: ModelInfo | None) -> str:
    return "One of the model's own examples." if info and info.examples else ""
