"""Compare: the generated image beside the target, measured, and where the discriminator takes it for real."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pix2pix_hub.ui.components import (
    PRIVATE,
    QUIET,
    Followers,
    example_pictures,
    example_strip,
    note,
    picture_output,
    picture_pane,
)
from pix2pix_hub.ui.guard import chosen_index, computing
from pix2pix_hub.ui.handlers import FAKE, REAL, Handlers
from pix2pix_hub.ui.models import ModelInfo, hex_color

LEGEND = f"""<div class="legend" role="note">
<span><i style="background:{hex_color(REAL)}"></i>blue: looks real to the discriminator</span>
<span><i style="background:{hex_color(FAKE)}"></i>orange: looks generated</span>
<span><i></i>no tint: it cannot tell</span></div>"""
METRICS = {  # name → (what it is called, how it is written); of `pix2pix_hub.metrics`, which takes long to import
    "l1": ("L1 in [0, 1] (lower is better)", "{:.4f}"),
    "psnr": ("PSNR (higher is better)", "{:.2f} dB"),
    "ssim": ("SSIM (higher is better)", "{:.4f}"),
    "lpips": ("LPIPS (lower is better)", "{:.4f}"),
    "ms_ssim": ("MS-SSIM (higher is better)", "{:.4f}"),
    "fid": ("FID (lower is better)", "{:.2f}"),
    "kid": ("KID (lower is better)", "{:.4f}"),
    "realism": ("realism of the generated image, 0 to 1", "{:.2f}"),
    "realism_target": ("realism of the target, 0 to 1", "{:.2f}"),
}
MEASURED = ("l1", "psnr", "ssim", "realism", "realism_target")


def compare_tab(tab: gr.Tab, handlers: Handlers, picker: gr.HTML, info: ModelInfo | None) -> Followers:
    """Lay the tab out and connect it."""
    gr.Markdown("Choose one of the model's validation pairs, or bring a pair of your own.", elem_classes="hint")
    examples = example_strip(info, "compare-examples")
    with gr.Accordion("A pair of your own", open=False), gr.Row():
        own: dict[str, Any] = {"sources": ["upload", "clipboard"], "height": 200}
        source = picture_pane(handlers, picker, "Source", "compare-own-source", **own)
        target = picture_pane(handlers, picker, "Target", "compare-own-target", **own)
        button = gr.Button("Compare", variant="primary", min_width=120, elem_id="compare-button")
    told = note("compare-note")
    with gr.Row():
        pictures = [
            picture_output(label, f"compare-{label.split()[0].lower()}", height=300, min_width=150)
            for label in ("Source", "Generated", "Target", "Realism of the generated image")
        ]
    gr.HTML(LEGEND, elem_id="compare-legend")
    numbers = gr.HTML(numbers_html({}), elem_id="compare-numbers")
    compared = gr.State("")  # the model whose pair is shown
    outputs, emptied = [compared, *pictures, numbers, told], ["", *(None for _ in pictures), numbers_html({})]

    def measure(source: Any, target: Any, model: str) -> list[Any]:
        """Compare a pair, of the person's own or of the model's."""
        *shown, metrics = handlers.compare(source, target, model)
        return [model, *shown, numbers_html(metrics), ""]

    def compare_example(model: str, chosen: gr.EventData) -> list[Any]:
        """Compare a validation pair."""
        return measure(*handlers.example(chosen_index(chosen), model), model)

    def compare_first(compared: str, model: str) -> Any:
        """Compare the first pair of a model when the tab is first opened with it."""
        if compared == model or not handlers.store.info(model).examples:
            return gr.skip()
        return measure(*handlers.example(0, model), model)

    options = PRIVATE | {"show_progress": "minimal", "show_progress_on": pictures}
    tab.select(computing(compare_first, emptied), [compared, picker], outputs, **options)
    computed = computing(compare_example, emptied)
    examples.select(computed, picker, outputs, trigger_mode="always_last", **options)
    button.click(computing(measure, emptied), [source, target, picker], outputs, **options)
    for pane in (source, target):  # what is shown is of another pair
        pane.input(lambda: [*emptied, ""], None, outputs, **QUIET)
    parts: Followers = dict.fromkeys([source, target, *pictures], lambda info: None)
    parts |= {compared: lambda info: "", told: lambda info: "", numbers: lambda info: numbers_html({})}
    return {examples: example_pictures, **parts}


def numbers_html(metrics: dict[str, float]) -> str:
    """Measured values as cards; dashes where nothing was measured."""
    cards = "".join(
        f"<div><b>{form.format(metrics[name]) if name in metrics else '–'}</b><small>{label}</small></div>"
        for name, (label, form) in ((name, METRICS[name]) for name in MEASURED)
    )
    return f'<div class="numbers" aria-live="polite">{cards}</div>'
