"""Batch: many files in, a gallery and a zip out; one bad file does not stop the rest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from pix2pix_hub.ui.components import PANE, PRIVATE, QUIET, Followers, gallery, note, table
from pix2pix_hub.ui.guard import computing, picture_files, said
from pix2pix_hub.ui.handlers import TRANSLATED, Handlers
from pix2pix_hub.ui.models import ModelInfo
from pix2pix_hub.util import counted


def batch_tab(handlers: Handlers, picker: gr.HTML) -> Followers:
    """Lay the tab out and connect it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=280):
            label = f"Pictures, up to {handlers.limits.max_files}"
            files = picture_files(label=label, file_types=["image"], height=220, elem_id="batch-files")
            button = gr.Button("Translate all", variant="primary", elem_id="batch-button")
            look: dict[str, Any] = {"column_widths": ["40%", "60%"], "wrap": True, "max_height": PANE // 2}
            listed = table("Files", "batch-outcomes", ["file", "outcome"], **look)
        with gr.Column(scale=7, min_width=300):
            pictures = gallery("Translated", "batch-gallery", columns=4, height=PANE)
            told = note("batch-note")
            archive = gr.DownloadButton("Download all as a zip", interactive=False, elem_id="batch-zip")

    def batch_files(paths: list[Path], model: str, progress: gr.Progress = gr.Progress()) -> list[Any]:
        """Translate all files."""
        file, made, outcomes = handlers.batch(paths, model, lambda *parts: progress(parts, unit="files"))
        failed = sum(not outcome.startswith(TRANSLATED) for _, outcome in outcomes)
        words = f"{len(made)} of {counted(len(outcomes), 'file')} translated"
        words += f": the list says what was wrong with the other{'s' if failed > 1 else ''}." if failed else "."
        odd = sorted(outcomes, key=lambda each: each[1].startswith(TRANSLATED) + (each[1] == TRANSLATED))
        rows = list(map(list, odd))  # what failed is seen first, then what is odd
        return [made, gr.DownloadButton(value=file, interactive=file is not None), rows, said(words, failed=failed > 0)]

    emptied: list[Any] = [[], gr.update(value=None, interactive=False), None]
    outputs = [pictures, archive, listed, told]
    translated = computing(batch_files, emptied)
    button.click(translated, [files, picker], outputs, show_progress_on=pictures, **PRIVATE)
    files.change(lambda: [*emptied, ""], None, outputs, **QUIET)
    return {part: partial(_always, value) for part, value in zip(outputs, [*emptied, ""], strict=True)}


def _always(value: Any, info: ModelInfo | None) -> Any:
    return value
