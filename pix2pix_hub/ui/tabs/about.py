"""About this model: its card, its metrics, its training curves, its validation pairs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pix2pix_hub.ui.exports import Export
from pix2pix_hub.ui.tabs.compare import METRICS
from pix2pix_hub.ui.tabs.context import Context, Followers

COUNTERS = ("step", "epoch", "pairs")
NO_CARD = "The export of this model has no card."


def about_tab(context: Context, tab: gr.Tab) -> Followers:
    """Lay the tab out."""
    export = context.export
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=300):
            card = gr.Markdown(
                _text(export) if export else "", elem_id="about-card", sanitize_html=True, min_height=200
            )
        with gr.Column(scale=5, min_width=300):
            metrics = gr.Dataframe(
                value=_rows(export) if export else None,
                headers=["on the validation pairs", "value"],
                datatype=["str", "str"],
                interactive=False,
                label="Metrics",
                buttons=[],
                elem_id="about-metrics",
            )
            samples = _picture(
                export and export.samples, "Validation pairs: source | generated | target", "about-samples"
            )
    curves = _picture(export and export.curves, "Training curves", "about-curves")
    return Followers([card, metrics, samples, curves], _values)


def _picture(value: Any, label: str, name: str) -> gr.Image:
    return gr.Image(
        value=value,
        label=label,
        type="pil",
        format="png",
        interactive=False,
        alt_text=label,
        visible=value is not None,
        buttons=["fullscreen"],
        elem_id=name,
    )


def _values(export: Export) -> list[Any]:
    pictures = [gr.Image(value=value, visible=value is not None) for value in (export.samples, export.curves)]
    return [_text(export), _rows(export), *pictures]


def _text(export: Export) -> str:
    return f"### {export.name}\n\n{export.summary()}\n\n{export.card or NO_CARD}"


def _rows(export: Export) -> list[list[str]] | None:
    """What is measured of pictures; not where the run stood, nor its losses."""
    names = [name for name in export.numbers if name not in COUNTERS and not name.endswith("_loss")]
    rows = [[METRICS[name][0] if name in METRICS else name, _written(name, export.numbers[name])] for name in names]
    return rows or None


def _written(name: str, value: float) -> str:
    return METRICS[name][1].format(value) if name in METRICS else f"{value:g}"
