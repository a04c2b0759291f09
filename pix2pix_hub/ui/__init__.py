"""The app: `build_demo` makes the page (`serve.py` is `python app.py`). Gradio is imported on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pix2pix_hub.ui.page import build_demo as build_demo
    from pix2pix_hub.ui.page import launch_options as launch_options

__all__ = ["build_demo", "launch_options"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pix2pix_hub.ui import page

    return getattr(page, name)
