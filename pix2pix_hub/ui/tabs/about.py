"""About this model: its card, its metrics, its training curves, its validation pairs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pix2pix_hub.ui.components import Followers, picture_output, table
from pix2pix_hub.ui.exports import Export
from pix2pix_hub.ui.tabs.compare import METRICS

COUNTERS = ("step", "epoch", "pairs")
NO_CARD = "The export of this model has no card."


def about_tab(export: Export | None) -> Followers:
    """Lay the tab out."""

    def picture(value: Any, label: str, name: str) -> gr.Image:
        return picture_output(label, name, value=value, visible=value is not None)

    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=300):
            text = _text(export) if export else ""
            card = gr.Markdown(text, elem_id="about-card", sanitize_html=True, min_height=200)
        with gr.Column(scale=5, min_width=300):
            rows = _rows(export) if export else None
            metrics = table("Metrics", "about-metrics", ["on the validation pairs", "value"], value=rows)
            label = "Validation pairs: source | generated | target"
            samples = picture(export and export.samples, label, "about-samples")
    curves = picture(export and export.curves, "Training curves", "about-curves")
    return {
        card: _text,
        metrics: _rows,
        samples: lambda export: gr.Image(value=export.samples, visible=export.samples is not None),
        curves: lambda export: gr.Image(value=export.curves, visible=export.curves is not None),
    }


def _text(export: Export) -> str:
    return f"### {export.name}\n\n{export.summary()}\n\n{export.card or NO_CARD}"


def _rows(export: Export) -> list[list[str]] | None:
    """What is measured of pictures; not where the run stood, nor its losses."""
    measured = {
        name: value for name, value in export.numbers.items() if name not in COUNTERS and not name.endswith("_loss")
    }
    named = [(METRICS.get(name, (name, "{:g}")), value) for name, value in measured.items()]
    return [[label, form.format(value)] for (label, form), value in named] or None
