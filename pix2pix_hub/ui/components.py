"""Gradio's components as this page uses them: pictures checked before they are opened, and panes that show results.

Components are altered one by one, not by classes of our own: for each of those Gradio would write a stub file beside
this one, wherever it is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, GradioRootModel, ImageData, ListFiles
from gradio.processing_utils import save_base64_to_cache
from pydantic import model_validator

from pix2pix_hub.ui.exports import Export
from pix2pix_hub.ui.handlers import shown

READ_SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"]
PANE = 420  # pixels: the height of the panes that pictures come and go in, so that nothing jumps
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # events of the page, which are no endpoints
QUIET: dict[str, Any] = PRIVATE | {"show_progress": "hidden"}

Followers = dict[Any, Callable[[Export], Any]]
"""Components that change when another model is picked → their value for it."""


def picture_input(**options: Any) -> gr.Image:
    """An image that reaches its event as the path of the file that was uploaded, unopened; or as None.

    Gradio itself would decode it first, at any size. Events may give it a new value, not other options.
    """

    def uploaded(payload: ImageData | None) -> Path | None:
        return Path(payload.path) if payload is not None and payload.path else None  # found good by `guard_inputs`

    image = gr.Image(format="png", **options)
    image.preprocess = uploaded  # type: ignore[method-assign, assignment]
    return image


def picture_files(**options: Any) -> gr.File:
    """Files that reach their event as the paths of what was uploaded, unopened.

    They also come as `data:` URLs, as MCP clients send pictures: in lists Gradio does not make files of them.
    """
    files = gr.File(file_count="multiple", **options)

    def stored(number: int, sent: Any) -> Any:
        if not (isinstance(sent, str) and sent.startswith("data:")):
            return sent
        path = save_base64_to_cache(sent, files.GRADIO_CACHE, f"picture_{number}")
        files.temp_files.add(path)  # of what is deleted in time
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    class Files(ListFiles):
        @model_validator(mode="before")
        @classmethod
        def store(cls, sent: Any) -> Any:
            return [stored(*each) for each in enumerate(sent, 1)] if isinstance(sent, list) else sent

    def uploaded(payload: GradioRootModel | FileData | None) -> list[Path]:
        sent = payload.root if isinstance(payload, GradioRootModel) else [payload] if payload else []
        return [Path(file.path) for file in sent]

    def api_info() -> dict[str, Any]:
        schema = FileData.model_json_schema()
        schema["properties"]["meta"] = schema.pop("$defs")["FileDataMeta"]  # in a tool's schema references lead nowhere
        return {"type": "array", "title": "ListFiles", "items": schema}

    files.preprocess, files.data_model, files.api_info = uploaded, Files, api_info  # type: ignore[method-assign, assignment]
    return files


def picture_output(label: str, name: str, **options: Any) -> gr.Image:
    """A picture to look at."""
    options = {"buttons": ["fullscreen"], "alt_text": label, **options}
    return gr.Image(label=label, type="pil", format="png", interactive=False, elem_id=name, **options)


def gallery(label: str, name: str, **options: Any) -> gr.Gallery:
    """Several of them."""
    options = {"buttons": ["fullscreen"], "object_fit": "contain", **options}
    return gr.Gallery(label=label, format="png", interactive=False, elem_id=name, **options)


def example_strip(export: Export | None, name: str) -> gr.Gallery:
    """A row of the sources of a model's examples, to choose from."""
    look: dict[str, Any] = {"columns": 6, "height": 92, "object_fit": "cover", "buttons": [], "elem_classes": "strip"}
    return gallery("Examples", name, value=example_pictures(export), show_label=False, allow_preview=False, **look)


def example_pictures(export: Export | None) -> list[Any]:
    """What the strip shows of a model."""
    return [shown(example.source, exact=True) for example in export.examples] if export else []


def table(label: str, name: str, headers: list[str], **options: Any) -> gr.Dataframe:
    """Rows of two texts."""
    look: dict[str, Any] = {"datatype": ["str", "str"], "interactive": False, "buttons": []}
    return gr.Dataframe(headers=headers, label=label, elem_id=name, **look, **options)
