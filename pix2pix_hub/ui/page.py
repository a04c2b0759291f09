"""The page: a model picker above five tabs, and the endpoints beside them."""

from __future__ import annotations

import functools
import html
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from starlette.middleware import Middleware

from pix2pix_hub.ui.endpoints import add_endpoints
from pix2pix_hub.ui.events import answering, guard_inputs
from pix2pix_hub.ui.exports import Export
from pix2pix_hub.ui.fair_queue import FairQueue
from pix2pix_hub.ui.handlers import Handlers
from pix2pix_hub.ui.limits import Limits
from pix2pix_hub.ui.models import Location, ModelStore, choose_models
from pix2pix_hub.ui.tabs.about import about_tab
from pix2pix_hub.ui.tabs.batch import batch_tab
from pix2pix_hub.ui.tabs.compare import compare_tab
from pix2pix_hub.ui.tabs.context import Context, Followers
from pix2pix_hub.ui.tabs.draw import draw_tab
from pix2pix_hub.ui.tabs.translate import translate_tab
from pix2pix_hub.ui.theme import SCRIPT, STYLE, theme
from pix2pix_hub.ui.web import RequestGuard
from pix2pix_hub.util import UserError

TABS = {
    "Translate": translate_tab,
    "Draw": draw_tab,
    "Compare": compare_tab,
    "Batch": batch_tab,
    "About this model": about_tab,
}
TITLE = "<h1>pix2pix</h1><p>One image in, its translation out: paired image-to-image translation.</p>"
MAX_SESSIONS = 256  # whose last inputs Gradio keeps
DELETE_EVERY, DELETE_AFTER = 300, 1800  # seconds: how often files are looked at, and how old they get


def build_demo(
    models: Mapping[str, Location] | str | None = None,
    *,
    limits: Limits | None = None,
    allow_any_model: bool = False,
    store: ModelStore | None = None,
) -> gr.Blocks:
    """The app, to be launched with `launch_options()`.

    Args:
        models: name → folder of an export or Hub id; or what `choose_models` takes.
        limits: of one request; None: the defaults and the environment's.
        allow_any_model: let people name any repository id.
        store: takes the place of the one made from the other arguments.

    Raises:
        UserError: a model that cannot be one, a limit that is none.
    """
    limits = limits or Limits.from_environment()
    if store is None:
        chosen = models if isinstance(models, Mapping) else choose_models(models)
        store = ModelStore(chosen, limits, allow_any=allow_any_model)
    with gr.Blocks(title="pix2pix", analytics_enabled=False, delete_cache=(DELETE_EVERY, DELETE_AFTER)) as demo:
        handlers = Handlers(store, limits, functools.partial(_result_folder, demo))
        _lay_out(demo, store, handlers)
    guard_inputs(demo)
    processing_utils.hash_seed = secrets.token_bytes()  # of the names of uploads: nobody can guess them
    demo._queue = FairQueue(demo, limits.max_queue, limits.max_places)
    return demo


def _result_folder(demo: gr.Blocks) -> Path:
    """A new one among the files that Gradio serves, and deletes."""
    return Path(demo.GRADIO_CACHE) / secrets.token_hex(16)


def _lay_out(demo: gr.Blocks, store: ModelStore, handlers: Handlers) -> None:
    export, problem = _first_export(store)
    with gr.Row(elem_id="header"):
        with gr.Column(scale=3, min_width=280):
            gr.HTML(TITLE, elem_id="title")
            status = gr.Markdown(export.summary() if export else problem, elem_id="status")
        with gr.Column(scale=2, min_width=260):
            picker = _picker(store)
    context = Context(handlers, picker, export)
    followers = []
    with gr.Tabs():
        for label, lay_out in TABS.items():
            with gr.Tab(label) as tab:
                followers.append(lay_out(context, tab))
    _follow_picker(demo, picker, status, store, followers, at_once=export is None)
    add_endpoints(handlers)


def _picker(store: ModelStore) -> gr.Dropdown:
    return gr.Dropdown(
        store.names,
        value=store.names[0],
        label="Model",
        info="or any user/name on the Hub" if store.allow_any else None,
        allow_custom_value=store.allow_any,
        interactive=len(store.names) > 1 or store.allow_any,
        elem_id="model",
    )


def _first_export(store: ModelStore) -> tuple[Export | None, str]:
    """The first model's, where that takes no download; and what to say where there is none."""
    first = store.names[0]
    if isinstance(store.models[first], str):
        return None, f"Fetching {html.escape(first)} …"
    try:
        return store.export(first), ""
    except UserError as error:
        return None, html.escape(str(error))


def _follow_picker(
    demo: gr.Blocks,
    picker: gr.Dropdown,
    status: gr.Markdown,
    store: ModelStore,
    followers: Sequence[Followers],
    *,
    at_once: bool,
) -> None:
    """All tabs show the model that is picked; `at_once`: also the first, when the page is opened."""
    components = [component for each in followers for component in each.components]

    @answering
    def follow(model: str) -> list[Any]:
        """What the tabs show of another model; where it cannot be read, why, and the tabs stay as they are."""
        try:
            export = store.export(model)
        except UserError as error:
            return [html.escape(str(error)), *(gr.skip() for _ in components)]
        return [export.summary(), *(value for each in followers for value in each.values(export))]

    options: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    done = gr.on([picker.change, *([demo.load] if at_once else [])], follow, picker, [status, *components], **options)
    for each in followers:
        if each.then is not None:
            function, inputs, outputs = each.then
            done.success(function, inputs, outputs, **options)


def launch_options(limits: Limits) -> dict[str, Any]:
    """What `demo.launch` is to be given: the looks, the guard, MCP, and nothing that this app has no use for."""
    guard = Middleware(
        RequestGuard,
        max_upload_bytes=int(limits.max_request_mb * 1e6),
        max_message_bytes=int(limits.max_message_mb * 1e6),
    )
    return {
        "theme": theme(),
        "css_paths": [STYLE],
        "js": SCRIPT.read_text(),
        "mcp_server": True,
        "max_file_size": int(limits.max_upload_mb * 1e6),
        "app_kwargs": {"middleware": [guard]},
        "state_session_capacity": MAX_SESSIONS,
        "footer_links": ["api"],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
    }
