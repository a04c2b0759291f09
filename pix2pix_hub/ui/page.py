"""The page: a model picker above five tabs, and the endpoints beside them. Its looks: calm in light and dark, system
fonts (nothing is fetched from elsewhere), fixed heights."""

from __future__ import annotations

import html
import re
import secrets
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.themes import Base, Color
from starlette.middleware import Middleware

from pix2pix_hub.ui.batch import batch_tab
from pix2pix_hub.ui.compare import METRICS, compare_tab
from pix2pix_hub.ui.components import QUIET, Followers, picture_output, table
from pix2pix_hub.ui.draw import draw_tab
from pix2pix_hub.ui.endpoints import add_endpoints
from pix2pix_hub.ui.guard import FairQueue, RequestGuard, answering, guard_inputs
from pix2pix_hub.ui.handlers import Handlers
from pix2pix_hub.ui.models import ModelInfo
from pix2pix_hub.ui.store import Limits, ModelStore
from pix2pix_hub.ui.translate import translate_tab
from pix2pix_hub.util import UserError

TITLE = "<h1>pix2pix</h1><p>One image in, its translation out: paired image-to-image translation.</p>"
MAX_SESSIONS = 256  # whose last inputs Gradio keeps
NO_CARD = "The export of this model has no card."
COUNTERS = re.compile(r"step|epoch|pairs|seconds|train_.*|.*_loss", re.DOTALL)  # measure no picture
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
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
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
    first, info = store.names[0], None
    if isinstance(store.models[first], str):  # would take a download
        said = f"Fetching {html.escape(first)} …"
    else:
        try:
            info = store.info(first)
            said = info.summary()
        except UserError as error:
            said = html.escape(str(error))
    with gr.Row(elem_id="header"):
        with gr.Column(scale=3, min_width=280):
            gr.HTML(TITLE, elem_id="title")
            status = gr.Markdown(said, elem_id="status")
        with gr.Column(scale=2, min_width=260):
            look: dict[str, Any] = {"label": "Model", "elem_id": "model", "allow_custom_value": store.allow_any}
            look |= {"info": "or any user/name on the Hub"} if store.allow_any else {}
            several = len(store.names) > 1 or store.allow_any
            picker = gr.Dropdown(store.names, value=first, interactive=several, **look)
    with gr.Tabs():
        with gr.Tab("Translate"):
            followers, translate_again = translate_tab(handlers, picker, info)
        with gr.Tab("Draw"):
            followers |= draw_tab(handlers, picker, info)
        with gr.Tab("Compare") as tab:
            followers |= compare_tab(tab, handlers, picker, info)
        with gr.Tab("Batch"):
            batch_tab(handlers, picker)
        with gr.Tab("About this model"):
            followers |= _about_tab(info)

    @answering
    def follow(model: str) -> list[Any]:
        """Show another model in the tabs; where it cannot be read, say why and leave the tabs as they are."""
        try:
            info = store.info(model)
        except UserError as error:
            return [html.escape(str(error)), *(gr.skip() for _ in followers)]
        return [info.summary(), *(value(info) for value in followers.values())]

    opened = [] if info else [demo.load]  # shows the first model as soon as it is there
    done = gr.on([picker.change, *opened], follow, picker, [status, *followers], **QUIET)
    done.success(*translate_again, **QUIET)
    add_endpoints(handlers)


def _about_tab(info: ModelInfo | None) -> Followers:
    """The model's card, its metrics, its training curves, its validation pairs."""

    def text(info: ModelInfo) -> str:
        return f"### {info.name}\n\n{info.summary()}\n\n{info.card or NO_CARD}"

    def rows(info: ModelInfo) -> list[list[str]] | None:
        """Metrics of pictures; not where the run stood, nor its losses."""
        measured = {name: value for name, value in info.numbers.items() if not COUNTERS.fullmatch(name)}
        named = [(METRICS.get(name, (name, "{:g}")), value) for name, value in measured.items()]
        return [[label, form.format(value)] for (label, form), value in named] or None

    def picture(value: Any, label: str, name: str) -> gr.Image:
        return picture_output(label, name, value=value, visible=value is not None)

    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=300):
            card = gr.Markdown(text(info) if info else None, elem_id="about-card", sanitize_html=True, min_height=200)
        with gr.Column(scale=5, min_width=300):
            metrics = table("Metrics", "about-metrics", ["on the validation pairs", "value"], value=info and rows(info))
            label = "Validation pairs: source | generated | target"
            samples = picture(info and info.samples, label, "about-samples")
    curves = picture(info and info.curves, "Training curves", "about-curves")
    return {
        card: text,
        metrics: rows,
        samples: lambda info: gr.Image(value=info.samples, visible=info.samples is not None),
        curves: lambda info: gr.Image(value=info.curves, visible=info.curves is not None),
    }
