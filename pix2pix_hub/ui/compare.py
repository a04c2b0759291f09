"""Compare: generated beside true, measured, and where the discriminator believes it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pix2pix_hub.ui.components import PRIVATE, Followers, example_pictures, example_strip, picture_output
from pix2pix_hub.ui.guard import chosen_index, computing, picture_input
from pix2pix_hub.ui.handlers import FAKE, REAL, Handlers
from pix2pix_hub.ui.models import ModelInfo, hex_color

LEGEND = f"""<div class="legend" role="note">
<span><i style="background:{hex_color(REAL)}"></i>blue: looks real to the discriminator</span>
<span><i style="background:{hex_color(FAKE)}"></i>orange: looks generated</span>
<span><i></i>plain: it cannot tell</span></div>"""
METRICS = {  # name → (what it is called, how it is written)
    "l1": ("L1, 0 to 1 (lower is better)", "{:.4f}"),
    "psnr": ("PSNR (higher is better)", "{:.2f} dB"),
    "ssim": ("SSIM, up to 1 (higher is better)", "{:.4f}"),
    "realism": ("realism of the generated, 0 to 1", "{:.2f}"),
    "realism_target": ("realism of the true one, 0 to 1", "{:.2f}"),
}


def compare_tab(tab: gr.Tab, handlers: Handlers, picker: gr.Dropdown, info: ModelInfo | None) -> Followers:
    """Lay the tab out and connect it."""
    gr.Markdown("Pick a validation pair of the model, or bring a pair of your own.", elem_classes="hint")
    examples = example_strip(info, "compare-examples")
    with gr.Accordion("A pair of your own", open=False), gr.Row():
        own: dict[str, Any] = {"sources": ["upload", "clipboard"], "height": 200}
        source = picture_input(label="Source", elem_id="compare-own-source", **own)
        target = picture_input(label="True target", elem_id="compare-own-target", **own)
        button = gr.Button("Compare", variant="primary", min_width=120, elem_id="compare-button")
    with gr.Row():
        pictures = [
            picture_output(label, f"compare-{label.split()[0].lower()}", height=300, min_width=150)
            for label in ("Source", "Generated", "Target", "Realism of the generated")
        ]
    gr.HTML(LEGEND, elem_id="compare-legend")
    numbers = gr.HTML(numbers_html({}), elem_id="compare-numbers")
    outputs, compared = [*pictures, numbers], gr.State("")  # the model whose pair is shown

    def measure(*pair: Any) -> list[Any]:
        """Compare a pair, of the person's own or of the model's."""
        *shown, metrics = handlers.compare(*pair)
        return [*shown, numbers_html(metrics)]

    @computing
    def compare_example(model: str, chosen: gr.EventData) -> list[Any]:
        """Compare a validation pair."""
        return measure(*handlers.example(chosen_index(chosen), model), model)

    @computing
    def compare_first(compared: str, model: str) -> Any:
        """Compare the first pair of a model when the tab is first opened with it."""
        if compared == model or not handlers.store.info(model).examples:
            return gr.skip()
        return [*measure(*handlers.example(0, model), model), model]

    options = PRIVATE | {"show_progress": "minimal"}
    tab.select(compare_first, [compared, picker], [*outputs, compared], **options)
    examples.select(compare_example, picker, outputs, trigger_mode="always_last", **options)
    button.click(computing(measure), [source, target, picker], outputs, **options)
    emptied: Followers = dict.fromkeys([source, target, *pictures], lambda info: None)
    return {examples: example_pictures, **emptied, numbers: lambda info: numbers_html({})}


def numbers_html(metrics: dict[str, float]) -> str:
    """Measured values as cards; dashes where nothing was measured."""
    cards = "".join(
        f"<div><b>{form.format(metrics[name]) if name in metrics else '–'}</b><small>{label}</small></div>"
        for name, (label, form) in METRICS.items()
    )
    return f'<div class="numbers" aria-live="polite">{cards}</div>'
