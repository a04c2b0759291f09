"""Batch: many files in, a gallery and a zip out; one bad file does not stop the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from pix2pix_hub.ui.components import PANE, PRIVATE, gallery, table
from pix2pix_hub.ui.guard import computing, picture_files
from pix2pix_hub.ui.handlers import TRANSLATED, Handlers

READ_SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"]


def batch_tab(handlers: Handlers, picker: gr.Dropdown) -> None:
    """Lay the tab out and connect it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=280):
            label = f"Pictures, up to {handlers.limits.max_files}"
            files = picture_files(label=label, file_types=READ_SUFFIXES, height=220, elem_id="batch-files")
            button = gr.Button("Translate all", variant="primary", elem_id="batch-button")
            look: dict[str, Any] = {"column_widths": ["40%", "60%"], "wrap": True, "max_height": PANE // 2}
            said = table("Files", "batch-outcomes", ["file", "what became of it"], **look)
        with gr.Column(scale=7, min_width=300):
            pictures = gallery("Translated", "batch-gallery", columns=4, height=PANE)
            archive = gr.DownloadButton("Download all as a zip", interactive=False, elem_id="batch-zip")

    @computing
    def batch_files(paths: list[Path], model: str, progress: gr.Progress = gr.Progress()) -> list[Any]:
        """Translate all files."""
        file, made, outcomes = handlers.batch(paths, model, lambda *parts: progress(parts, unit="files"))
        if failed := sum(outcome != TRANSLATED for _, outcome in outcomes):
            gr.Warning(f"{failed} of {len(outcomes)} files could not be translated; the list says why.")
        rows = sorted(map(list, outcomes), key=lambda row: row[1] == TRANSLATED)  # what failed is seen first
        return [made, gr.DownloadButton(value=file, interactive=file is not None), rows]

    button.click(batch_files, [files, picker], [pictures, archive, said], **PRIVATE)
