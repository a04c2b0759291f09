"""Gradio's components, where this page needs more of them: pictures checked before they are opened, and a drawing board.

Why not `gr.ImageEditor` (of Gradio 6.31): it says nothing of the first stroke, smooths strokes into colours that no
class has, cannot fill, sends three pictures a stroke, and takes seconds a stroke where there is no GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.file import ListFiles
from gradio.data_classes import FileData, ImageData
from PIL import Image

from pix2pix_hub.errors import UserError
from pix2pix_hub.ui.events import told
from pix2pix_hub.ui.exports import Export, hex_color
from pix2pix_hub.ui.pictures import decode_drawing, encode_drawing, shown

CANVAS = Path(__file__).parent / "canvas"
NO_ADDRESSES = "a web address came in place of a picture; send the picture itself (gradio_client: handle_file)."
READ_SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"]


def _uploaded(path: str | None, url: str | None) -> Path:
    """The file that Gradio has stored, and has checked to be an upload."""
    if path is None or (url or "").startswith("data:"):
        raise UserError("no file came with the picture; upload one.")
    return Path(path)


class _Uploads:
    """Only uploads are taken: nothing is fetched from addresses that come in a request."""

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Gradio's, which would download whatever a client names, however long it is."""
        if str(url_or_file_path).lower().startswith(("http:", "https:")):
            raise told(UserError(NO_ADDRESSES))
        return await super().async_move_resource_to_block_cache(url_or_file_path)  # type: ignore[misc]


class PictureInput(_Uploads, gr.Image):
    """An image that reaches its handler as the path of the file that was uploaded, unopened."""

    def get_block_name(self) -> str:
        """In the browser it is an image."""
        return "image"

    def preprocess(self, payload: ImageData | None) -> Path | None:  # type: ignore[override]
        """The file's path."""
        try:
            return None if payload is None else _uploaded(payload.path, payload.url)
        except UserError as error:
            raise told(error) from error


class PictureFiles(_Uploads, gr.File):
    """Files that reach their handler as the paths of what was uploaded, unopened."""

    def get_block_name(self) -> str:
        """In the browser it is a file."""
        return "file"

    def preprocess(self, payload: ListFiles | FileData | None) -> list[Path]:  # type: ignore[override]
        """The files' paths."""
        files = payload.root if isinstance(payload, ListFiles) else [payload] if payload else []
        return [Path(file.path) for file in files]


class DrawingBoard(gr.HTML):
    """A canvas with the model's own colours, which draws exactly those. Its value is the drawing.

    Args:
        export: the model to draw for; None: nothing yet.
        **options: of `gr.HTML`.
    """

    def __init__(self, export: Export | None = None, **options: Any) -> None:
        files = {suffix: (CANVAS / f"canvas.{suffix}").read_text() for suffix in ("html", "css", "js")}
        options.setdefault("setup", board_setup(export, 0) if export else EMPTY_BOARD)
        templates = {"html_template": files["html"], "css_template": files["css"], "js_on_load": files["js"]}
        super().__init__(**templates, apply_default_css=False, **options)

    def preprocess(self, payload: str | None) -> Image.Image | None:  # type: ignore[override]
        """The drawing, RGB."""
        try:
            return decode_drawing(payload) if payload else None
        except UserError as error:
            raise told(error) from error


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
