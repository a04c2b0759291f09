"""The panes that several tabs show pictures in, and how their events are declared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from pix2pix_hub.ui.guard import answering, picture_input, said
from pix2pix_hub.ui.handlers import Handlers, shown
from pix2pix_hub.ui.models import ModelInfo
from pix2pix_hub.util import UserError

PANE = 420  # pixels: the height of the panes that pictures come and go in, so that nothing jumps
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # events of the page, which are no endpoints
QUIET: dict[str, Any] = PRIVATE | {"show_progress": "hidden"}
SMALL_BUTTONS = {"copy": "Copy side by side", "link": "Copy link", "surprise": "Surprise me"}

Followers = dict[Any, Callable[[ModelInfo | None], Any]]
"""Components that change when another model is picked → their value for it; for None, one that cannot be used."""


def picture_pane(handlers: Handlers, picker: gr.HTML, label: str, name: str, **options: Any) -> gr.Image:
    """A place for a picture of the person's own, which also shows those that browsers cannot."""
    pane, shown_instead = picture_input(label=label, elem_id=name, **options), gr.Textbox(visible=False)

    @answering
    def preview(path: Path | None, model: str) -> str:
        """Make a PNG of a TIFF; what is wrong with a file, its translation says."""
        try:
            return handlers.preview(path, model)
        except UserError:
            return ""

    script = f"(url) => {{ if (url) document.querySelector('#{name} img').src = url; }}"
    # always last: a file may come while the choice of a model is still being answered
    inputs, how = [pane, picker], QUIET | {"trigger_mode": "always_last"}
    changed = gr.on([pane.upload, picker.change], preview, inputs, shown_instead, **how)
    changed.then(None, shown_instead, None, js=script, **QUIET)
    return pane


def note(name: str, text: str = "") -> gr.HTML:
    """A place for what there is to say of a result, or of there being none: the last output of its events."""
    return gr.HTML(said(text), elem_id=name, elem_classes="note")


def small_buttons(tab: str, *names: str) -> None:
    """Buttons that `page.js` answers, in the browser."""
    for name in names:
        gr.Button(SMALL_BUTTONS[name], size="sm", scale=0, min_width=110, elem_id=f"{tab}-{name}")


def picture_output(label: str, name: str, **options: Any) -> gr.Image:
    """A picture to look at."""
    options = {"buttons": ["fullscreen"], "alt_text": label, **options}
    return gr.Image(label=label, type="pil", format="png", interactive=False, elem_id=name, **options)


def gallery(label: str, name: str, **options: Any) -> gr.Gallery:
    """A gallery to look at."""
    options = {"buttons": ["fullscreen"], "object_fit": "contain", **options}
    return gr.Gallery(label=label, format="png", interactive=False, elem_id=name, **options)


def example_strip(info: ModelInfo | None, name: str) -> gr.Gallery:
    """A row of the sources of a model's examples, to choose from."""
    look: dict[str, Any] = {"columns": 6, "height": 92, "object_fit": "cover", "buttons": [], "elem_classes": "strip"}
    return gallery("Examples", name, value=example_pictures(info), show_label=False, allow_preview=False, **look)


def example_pictures(info: ModelInfo | None) -> list[Any]:
    """Sources of a model's examples; none where there is no model."""
    return [shown(example.source, exact=True) for example in info.examples] if info else []


def table(label: str, name: str, headers: list[str], **options: Any) -> gr.Dataframe:
    """Rows of two texts."""
    look: dict[str, Any] = {"datatype": ["str", "str"], "interactive": False, "buttons": []}
    return gr.Dataframe(headers=headers, label=label, elem_id=name, **look, **options)
