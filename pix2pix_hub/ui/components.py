"""Gradio's components as this page uses them: pictures checked before they are opened, and a drawing board.

Components are altered one by one, not by classes of our own: for each of those Gradio would write a stub file beside
this one, wherever it is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, GradioRootModel, ImageData, ListFiles
from gradio.processing_utils import save_base64_to_cache
from pydantic import model_validator

from pix2pix_hub.ui.exports import Export, hex_color
from pix2pix_hub.ui.pictures import encode_drawing, shown

CANVAS = Path(__file__).parent / "canvas"
READ_SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"]


def picture_input(**options: Any) -> gr.Image:
    """An image that reaches its event as the path of the file that was uploaded, unopened; or as None.

    Gradio itself would decode it first, at any size. Events may give it a new value, not other options.
    """
    image = gr.Image(format="png", **options)
    image.preprocess = _uploaded_path  # type: ignore[method-assign, assignment]
    return image


def picture_files(**options: Any) -> gr.File:
    """Files that reach their event as the paths of what was uploaded, unopened."""
    files = gr.File(file_count="multiple", **options)
    files.preprocess = _uploaded_paths  # type: ignore[method-assign, assignment]
    files.data_model = _files_or_data_urls(files)
    files.api_info = _schema_of_files  # type: ignore[method-assign]
    return files


def _files_or_data_urls(files: gr.File) -> type[ListFiles]:
    """Also takes `data:` URLs, as MCP clients send pictures: in lists Gradio does not make files of them."""

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

    return Files


def _schema_of_files() -> dict[str, Any]:
    """Of a list of files, without references: as a part of a tool's schema they would point to nowhere."""
    schema = FileData.model_json_schema()
    definitions = schema.pop("$defs")

    def resolved(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolved(definitions[node["$ref"].rpartition("/")[2]])
        return {name: resolved(value) for name, value in node.items()}

    return {"type": "array", "title": "ListFiles", "items": resolved(schema)}


def _uploaded_path(payload: ImageData | None) -> Path | None:
    """The file, which `guard_inputs` has found to be an upload."""
    return Path(payload.path) if payload is not None and payload.path else None


def _uploaded_paths(payload: GradioRootModel | FileData | None) -> list[Path]:
    files = payload.root if isinstance(payload, GradioRootModel) else [payload] if payload else []
    return [Path(file.path) for file in files]


def drawing_board(export: Export | None, **options: Any) -> gr.HTML:
    """A canvas with the model's own colours, which draws exactly those. Its value is the drawing, a PNG data URL.

    Why not `gr.ImageEditor` (of Gradio 6.31): it says nothing of the first stroke, smooths strokes into colours that
    no class has, cannot fill, sends three pictures a stroke, and takes seconds a stroke where there is no GPU.

    Args:
        export: the model to draw for; None: nothing yet.
        **options: of `gr.HTML`.
    """
    html, css, script = ((CANVAS / f"canvas.{suffix}").read_text() for suffix in ("html", "css", "js"))
    setup = board_setup(export, 0) if export else EMPTY_BOARD
    return gr.HTML(
        html_template=html, css_template=css, js_on_load=script, apply_default_css=False, setup=setup, **options
    )


EMPTY_BOARD = {
    "width": 256, "height": 256, "background": "#ffffff", "free": True, "image": None, "publish": False, "key": "empty",
    "colors": [{"color": "#000000", "name": "black"}, {"color": "#ffffff", "name": "white"}],
}  # fmt: skip


def example_strip(export: Export | None, name: str) -> gr.Gallery:
    """A row of the sources of a model's examples, to choose from."""
    return gr.Gallery(
        value=example_pictures(export),
        label="Examples",
        show_label=False,
        columns=6,
        height=92,
        object_fit="cover",
        allow_preview=False,
        buttons=[],
        format="png",
        interactive=False,
        elem_id=name,
        elem_classes="strip",
    )


def example_pictures(export: Export | None) -> list[Any]:
    """What the strip shows of another model."""
    return [shown(example.source, exact=True) for example in export.examples] if export else []


def board_setup(export: Export, example: int | None, *, publish: bool = False) -> dict[str, Any]:
    """What the canvas starts from.

    Args:
        export: the model.
        example: the validation pair whose source is on it, where the model has examples; None: an empty one.
        publish: translate it at once.
    """
    colors = [{"color": hex_color(paint.color), "name": paint.name} for paint in export.source.paints]
    image = None
    if example is not None and example < len(export.examples):
        image = encode_drawing(export.examples[example].source)
    return {
        "width": export.width,
        "height": export.height,
        "colors": colors or EMPTY_BOARD["colors"],
        "background": hex_color(export.background),
        "free": not colors,
        "image": image,
        "publish": publish,
        "key": f"{export.name} {example}",
    }
