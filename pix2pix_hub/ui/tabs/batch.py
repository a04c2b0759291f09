"""Batch: many files in, a gallery and a zip out; one bad file does not stop the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from pix2pix_hub.ui.components import READ_SUFFIXES, picture_files
from pix2pix_hub.ui.events import answering, on_gpu
from pix2pix_hub.ui.handlers import TRANSLATED
from pix2pix_hub.ui.tabs.context import PANE, Context, Followers


def batch_tab(context: Context, tab: gr.Tab) -> Followers:
    """Lay the tab out and connect it."""
    handlers = context.handlers
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=280):
            files = picture_files(
                label=f"Pictures, up to {handlers.limits.max_files}",
                file_types=READ_SUFFIXES,
                height=220,
                elem_id="batch-files",
            )
            button = gr.Button("Translate all", variant="primary", elem_id="batch-button")
            said = gr.Dataframe(
                headers=["file", "what became of it"],
                datatype=["str", "str"],
                column_widths=["40%", "60%"],
                wrap=True,
                interactive=False,
                label="Files",
                max_height=PANE // 2,
                buttons=[],
                elem_id="batch-outcomes",
            )
        with gr.Column(scale=7, min_width=300):
            gallery = gr.Gallery(
                label="Translated",
                columns=4,
                height=PANE,
                object_fit="contain",
                format="png",
                buttons=["fullscreen"],
                elem_id="batch-gallery",
                interactive=False,
            )
            archive = gr.DownloadButton("Download all as a zip", interactive=False, elem_id="batch-zip")

    @answering
    @on_gpu
    def batch_files(paths: list[Path], model: str, progress: gr.Progress = gr.Progress()) -> list[Any]:
        """Translate all files."""

        def report(done: int, total: int) -> None:
            progress((done, total), unit="files")

        made = handlers.batch(paths, model, report)
        failed = sum(outcome != TRANSLATED for _, outcome in made.outcomes)
        if failed:
            gr.Warning(f"{failed} of {len(made.outcomes)} files could not be translated; the list says why.")
        download = gr.DownloadButton(value=made.archive, interactive=made.archive is not None)
        return [made.pictures, download, [list(outcome) for outcome in made.outcomes]]

    button.click(batch_files, [files, context.picker], [gallery, archive, said], api_visibility="private")
    return Followers([], lambda export: [])
