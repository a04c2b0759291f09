"""How the page looks: calm in light and dark, system fonts (nothing is fetched from elsewhere), fixed heights."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes import Base, Color

TEAL = Color(
    "#eef7f6", "#d6ebe9", "#aed7d3", "#7fbdb8", "#4a9f99", "#267f7a",
    "#17655f", "#14524d", "#12423f", "#0f3432", "#071e1d",
)  # fmt: skip
STONE = Color(
    "#fafaf8", "#f3f3f0", "#e6e6e1", "#d3d3cc", "#a2a39b", "#6f716a",
    "#52544e", "#3c3e39", "#282a27", "#1b1d1b", "#121412",
)  # fmt: skip
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
STYLE = Path(__file__).parent / "style.css"
SCRIPT = Path(__file__).parent / "page.js"


def theme() -> Base:
    """The theme."""
    return Base(
        primary_hue=TEAL,
        secondary_hue=TEAL,
        neutral_hue=STONE,
        font=FONT,
        font_mono=MONO,
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_label_background_fill="*block_background_fill",
        block_label_background_fill_dark="*block_background_fill",
        block_label_border_width="0px",
        block_label_margin="0px",
        block_label_radius="0 0 8px 0",
        block_label_text_color="*neutral_500",
        block_label_text_color_dark="*neutral_400",
        block_shadow="none",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        color_accent="*primary_600",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="*primary_900",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )
