"""The page: what the model does and the other models above five tabs, and the endpoints beside them.

Its looks: calm in light and dark, system fonts (nothing is fetched from elsewhere), fixed heights.
"""

from __future__ import annotations

import html
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.themes import Base, Color
from starlette.middleware import Middleware

from pix2pix_hub.ui.batch import batch_tab
from pix2pix_hub.ui.compare import METRICS, compare_tab
from pix2pix_hub.ui.components import QUIET, Followers, gallery, note, picture_output, table
from pix2pix_hub.ui.draw import draw_tab
from pix2pix_hub.ui.endpoints import add_endpoints
from pix2pix_hub.ui.guard import FairQueue, RequestGuard, answering, guard_inputs, said, sentence
from pix2pix_hub.ui.handlers import Handlers, encode_drawing
from pix2pix_hub.ui.models import ModelInfo
from pix2pix_hub.ui.store import Limits, ModelStore
from pix2pix_hub.ui.translate import translate_tab
from pix2pix_hub.util import UserError

PICKER = '<fieldset class="models"><legend>Model</legend></fieldset>'  # filled by `picker.js`
MAX_SESSIONS = 256  # whose last inputs Gradio keeps
NO_CARD = "The export of this model has no card."
DELETE_EVERY, DELETE_AFTER = 300, 1800  # seconds: how often files are looked at, and how old they get

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
LOOKS = {  # the theme's variable → its value in light, in dark; None: as in Gradio's plainest theme
    "body_background_fill": ("*neutral_50", "*neutral_950"),
    "background_fill_primary": (None, "*neutral_900"),
    "block_background_fill": ("white", "*neutral_900"),
    "block_border_color": ("*neutral_200", "*neutral_800"),
    "block_label_background_fill": ("*block_background_fill", "*block_background_fill"),
    "block_label_border_width": ("0px", None),
    "block_label_margin": ("0px", None),
    "block_label_radius": ("0 0 8px 0", None),
    "block_label_text_color": (None, "*neutral_400"),
    "body_text_color_subdued": ("*neutral_600", None),
    "color_accent": ("*primary_600", None),
    "color_accent_soft": (None, "*primary_900"),
    "button_primary_background_fill": ("*primary_600", None),
    "button_primary_background_fill_hover": ("*primary_700", "*primary_500"),
    "button_secondary_background_fill": ("*neutral_100", "*neutral_800"),
    "button_secondary_background_fill_hover": ("*neutral_200", None),
    "input_background_fill": ("*neutral_50", "*neutral_800"),
    "link_text_color": ("*primary_700", "*primary_300"),
}


def launch_options(limits: Limits) -> dict[str, Any]:
    """Options of `demo.launch`: the looks, the guard, MCP, and nothing that this app has no use for."""
    light = {name: value for name, (value, _) in LOOKS.items() if value}
    dark = {f"{name}_dark": value for name, (_, value) in LOOKS.items() if value}
    plain = Base(primary_hue=TEAL, secondary_hue=TEAL, neutral_hue=STONE, font=FONT, font_mono=MONO)
    most = {"max_upload_bytes": limits.max_request_mb * 10**6, "max_message_bytes": limits.max_message_mb * 10**6}
    return {
        "theme": plain.set(**light, **dark),
        "css_paths": [Path(__file__).with_name("style.css")],
        "js": Path(__file__).with_name("page.js").read_text(),
        "mcp_server": True,
        "max_file_size": limits.max_upload_mb * 10**6,
        "app_kwargs": {"middleware": [Middleware(RequestGuard, **most)]},
        "state_session_capacity": MAX_SESSIONS,
        "footer_links": ["api"],
        "run_history": False,
        "quiet": True,  # its own advice is for programmers
        "i18n": gr.I18n(en={"common.complete": "Done"}),  # which Gradio 6.31 has no words for
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "_frontend": False,  # else the app ends where its own first page takes more than three seconds
    }


def build_demo(store: ModelStore) -> gr.Blocks:
    """The app that offers these models, to be launched with `launch_options()`."""
    with gr.Blocks(title="pix2pix", analytics_enabled=False, delete_cache=(DELETE_EVERY, DELETE_AFTER)) as demo:
        # results lie among the files that Gradio serves, and deletes
        _lay_out(demo, store, Handlers(store, Path(demo.GRADIO_CACHE)))
    guard_inputs(demo)
    processing_utils.hash_seed = secrets.token_bytes()  # of the names of uploads: nobody can guess them
    demo._queue = FairQueue(demo, store.limits.max_queue, store.limits.max_places)
    return demo


def _lay_out(demo: gr.Blocks, store: ModelStore, handlers: Handlers) -> None:
    first = store.names[0]
    info, head = None, ["<h1>pix2pix</h1>", f"Fetching {html.escape(first)} …"]
    if not isinstance(store.models[first], str):  # which would take a download
        info, head = _look_up(store, first)
    with gr.Row(elem_id="header"):
        with gr.Column(scale=3, min_width=280):
            title = gr.HTML(head[0], elem_id="title")
            status = gr.HTML(head[1], elem_id="status", elem_classes="note")
        with gr.Column(scale=3, min_width=280):
            look: dict[str, Any] = {
                "html_template": PICKER,
                "js_on_load": Path(__file__).with_name("picker.js").read_text(),
                "apply_default_css": False,
            }
            look |= {"setup": _offered(store, fetch=False), "visible": len(store.names) > 1 or store.allow_any}
            picker = gr.HTML(first, elem_id="model", **look)  # its value: the name of the model
    notice = note("notice")  # of the page's address
    with gr.Tabs():
        with gr.Tab("Translate"):
            followers, translate_again = translate_tab(handlers, picker, info)
        with gr.Tab("Draw"):
            followers |= draw_tab(handlers, picker, info)
        with gr.Tab("Compare") as tab:
            followers |= compare_tab(tab, handlers, picker, info)
        with gr.Tab("Batch"):
            followers |= batch_tab(handlers, picker)
        with gr.Tab("About"):
            followers |= _about_tab(info)

    @answering
    def follow(model: str) -> list[Any]:
        """Show another model in the tabs; where it cannot be read, say why and empty them."""
        info, head = _look_up(store, model)
        return [*head, *(value(info) for value in followers.values())]

    def linked_example(number: Any, model: str) -> Any:
        """Take the example that the page's address names."""
        if not re.fullmatch("[0-9]{1,4}", str(number)):
            raise UserError(f"the address names example {str(number)[:20]!r}: expected a number.")
        return handlers.example_file(int(number), model)

    @answering
    def open_link(request: gr.Request) -> list[Any]:
        """Choose the model that the page's address names, and show what the other models do."""
        asked, number = (request.query_params.get(name, "") for name in ("model", "example"))
        chosen, words = {"value": asked} if asked in store.names else {}, ""
        try:
            if asked and not chosen:
                store.check(asked)
            if number:
                linked_example(number, asked)
        except UserError as error:
            number, words = "", said(sentence(error), failed=True)
        return [gr.HTML(setup=_offered(store, fetch=True), **chosen), number, words]

    opened = [] if info else [demo.load]  # shows the first model as soon as it is there
    done = gr.on([picker.change, *opened], follow, picker, [title, status, *followers], **QUIET)
    done.success(*translate_again, **QUIET)
    _, (picture, *_), _ = translate_again
    linked = gr.Textbox(visible="hidden")  # the number of the example of a link
    demo.load(open_link, None, [picker, linked, notice], **QUIET)
    linked.change(answering(linked_example), [linked, picker], picture, **QUIET)
    add_endpoints(handlers)


def _look_up(store: ModelStore, name: str) -> tuple[ModelInfo | None, list[str]]:
    """The model, what it does, as the page's title, and a line on its images; in their place why it cannot be used."""
    try:
        info = store.info(name)
    except UserError as error:
        return None, [f"<h1>{html.escape(str(name)[:200])}</h1>", said(sentence(error), failed=True)]
    words = f"pix2pix model {html.escape(info.name)}: {info.summary()}"
    return info, [f"<h1>{html.escape(info.task)}</h1>", said(words)]


def _offered(store: ModelStore, *, fetch: bool) -> dict[str, Any]:
    """The models to choose from, for `picker.js`; what is on the Hub has a picture where it may be fetched."""
    models = []
    for name in store.names:
        info = None
        if fetch or not isinstance(store.models[name], str):
            with suppress(UserError):
                info = store.info(name)
        picture = encode_drawing(info.thumbnail) if info and info.thumbnail else None
        models.append({"name": name, "task": info.task if info else "", "picture": picture})
    return {"models": models, "any": store.allow_any}


def _about_tab(info: ModelInfo | None) -> Followers:
    """The model's metrics, validation pairs, card and training curves."""

    def text(info: ModelInfo | None) -> str:
        return (info.card or NO_CARD) if info else ""

    def rows(info: ModelInfo | None) -> list[list[str]] | None:
        """Metrics of pictures; not where the run stood, nor its losses."""
        numbers = info.numbers if info else {}
        return [
            [METRICS[name][0], METRICS[name][1].format(numbers[name])] for name in METRICS if name in numbers
        ] or None

    def grid(info: ModelInfo | None) -> dict[str, Any]:
        samples = info.samples if info else None
        return {"value": samples, "visible": samples is not None}

    def panels(info: ModelInfo | None) -> dict[str, Any]:
        curves = info.curves if info else []
        return {"value": curves, "visible": bool(curves)}

    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            metrics = table("Metrics", "about-metrics", ["on the validation pairs", "value"], value=rows(info))
            label = "Validation pairs: source | generated | target"
            samples = picture_output(label, "about-samples", **grid(info))
        with gr.Column(scale=6, min_width=300):
            card = gr.Markdown(text(info), elem_id="about-card", sanitize_html=True, min_height=200)
    curves = gallery("Training curves", "about-curves", columns=3, **panels(info))
    return {
        card: text,
        metrics: rows,
        samples: lambda info: gr.Image(**grid(info)),
        curves: lambda info: gr.Gallery(**panels(info)),
    }
