"""Compare: generated beside true, measured, and where the discriminator believes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from pix2pix_hub.ui.components import example_pictures, example_strip, picture_input
from pix2pix_hub.ui.events import answering, chosen_index, on_gpu
from pix2pix_hub.ui.exports import Export, hex_color
from pix2pix_hub.ui.handlers import Comparison
from pix2pix_hub.ui.pictures import FAKE, REAL
from pix2pix_hub.ui.tabs.context import Context, Followers

SIDE = 300  # pixels: height of each picture

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


def compare_tab(context: Context, tab: gr.Tab) -> Followers:
    """Lay the tab out and connect it."""
    handlers = context.handlers
    gr.Markdown("Pick a validation pair of the model, or bring a pair of your own.", elem_classes="hint")
    examples = example_strip(context.export, "compare-examples")
    with gr.Accordion("A pair of your own", open=False), gr.Row():
        source = picture_input(
            label="Source", sources=["upload", "clipboard"], height=200, elem_id="compare-own-source"
        )
        target = picture_input(
            label="True target", sources=["upload", "clipboard"], height=200, elem_id="compare-own-target"
        )
        button = gr.Button("Compare", variant="primary", min_width=120, elem_id="compare-button")
    with gr.Row():
        pictures = [_picture(label) for label in ("Source", "Generated", "Target")]
        heat = _picture("Realism of the generated")
    gr.HTML(LEGEND, elem_id="compare-legend")
    numbers = gr.HTML(numbers_html({}), elem_id="compare-numbers")
    outputs, compared = [*pictures, heat, numbers], gr.State("")  # the model whose pair is shown

    def answer(made: Comparison) -> list[Any]:
        return [made.source, made.generated, made.target, made.heat, numbers_html(made.metrics)]

    @answering
    @on_gpu
    def compare_example(model: str, chosen: gr.EventData) -> list[Any]:
        """Compare a validation pair."""
        return answer(handlers.compare_example(chosen_index(chosen), model))

    @answering
    @on_gpu
    def compare_own(source: Path | None, target: Path | None, model: str) -> list[Any]:
        """Compare the person's own pair."""
        return answer(handlers.compare(source, target, model))

    @answering
    @on_gpu
    def compare_first(compared: str, model: str) -> Any:
        """Compare the first pair of a model when the tab is first opened with it."""
        if compared == model or not handlers.store.export(model).examples:
            return gr.skip()
        return [*answer(handlers.compare_example(0, model)), model]

    options: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    tab.select(compare_first, [compared, context.picker], [*outputs, compared], **options)
    examples.select(compare_example, context.picker, outputs, trigger_mode="always_last", **options)
    button.click(compare_own, [source, target, context.picker], outputs, **options)

    def follow(export: Export) -> list[Any]:
        return [example_pictures(export), None, None, None, None, None, None, numbers_html({})]

    return Followers([examples, source, target, *outputs], follow)


def _picture(label: str) -> gr.Image:
    return gr.Image(
        label=label,
        type="pil",
        format="png",
        interactive=False,
        alt_text=label,
        height=SIDE,
        min_width=150,
        buttons=["fullscreen"],
        elem_id=f"compare-{label.split()[0].lower()}",
    )


def numbers_html(metrics: dict[str, float]) -> str:
    """Measured values as cards; dashes where nothing was measured."""
    cards = "".join(
        f"<div><b>{form.format(metrics[name]) if name in metrics else '–'}</b><small>{label}</small></div>"
        for name, (label, form) in METRICS.items()
    )
    return f'<div class="numbers" aria-live="polite">{cards}</div>'
