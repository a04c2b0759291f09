"""`pix2pix-hub app`: serve the page, and meanwhile get ready for the first request."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from threading import Thread
from typing import Annotated, Any

from tyro.conf import arg

from pix2pix_hub.util import UserError, say

logger = logging.getLogger(__name__)

METRICS_AFTER = 15.0  # seconds: torchmetrics takes as long to import as PyTorch, and is not what people ask for first


@dataclass(frozen=True)
class AppOptions:
    """What the app shows, and where."""

    model: str | None = None
    """Hub ids (user/name) or folders of exports or runs, with commas between them. Without it what PIX2PIX_MODEL says,
    else the newest export under runs/, else the two small models that are part of the package, `demo` and `drawing`."""
    allow_any_model: bool = False
    """Let people name any model on the Hub (safetensors only)."""
    host: str | None = None
    """Address to listen at: 0.0.0.0 for all of this machine's. Without it this machine alone can reach the page."""
    port: int | None = None
    """Port; without it the first free one from 7860."""
    share: bool = False
    """Also give the page a public address for up to a week: a tunnel through gradio.live, which anybody with the link
    can use."""


def serve(options: Annotated[AppOptions, arg(name="")]) -> None:
    """Show a pix2pix model in the browser."""
    logging.getLogger("pix2pix_hub").setLevel(logging.WARNING)
    try:
        socket.create_server(("127.0.0.1", options.port or 0)).close()
    except (OSError, OverflowError) as error:  # taken, or not allowed; no port
        raise UserError(f"--port {options.port} cannot be used ({error}): choose another, from 1024.") from error
    from pix2pix_hub.ui.models import choose_models  # with PyTorch: two seconds that no request shall wait
    from pix2pix_hub.ui.store import Deadline, Limits, ModelStore

    limits = Limits.from_environment()
    store = ModelStore(choose_models(options.model), limits, allow_any=options.allow_any_model)

    if len(store.names) == 1 and "SPACE_ID" not in os.environ:  # a Space stays: the Hub may be back when people come
        store.info(None)

    def get_ready() -> None:
        """Load the first model, and later what measures it, so that requests need not."""
        try:
            with store.use(None, Deadline(limits)):
                pass
        except UserError as error:
            logger.warning("%s", error)  # the page says it too, to whoever asks for this model
        time.sleep(METRICS_AFTER)
        import_module("torchmetrics.functional.image")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: the files are deleted
    assert "gradio" not in sys.modules, "Gradio reads the environment when it is imported"
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    with tempfile.TemporaryDirectory(prefix="pix2pix_", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and results go with this process
        from pix2pix_hub.ui.page import build_demo, launch_options

        demo, looks = build_demo(store), launch_options(limits)
        place: dict[str, Any] = {"server_name": options.host, "server_port": options.port, "share": options.share}
        try:
            _, local, public = demo.launch(prevent_thread_lock=True, **place, **looks)
        except OSError as error:  # Gradio gives a server five seconds
            words = "it may be taken, the host may be none of this machine's, or the machine is busy: try again."
            raise UserError(f"no server could be started at {options.host or 'this machine'}: {words}") from error
        say(f"The page is at {local}" + (f" and at {public}" if public else ""))
        if options.share and public is None:
            logger.warning("no public link: the tunnel through gradio.live is out of reach.")
        Thread(target=get_ready, daemon=True).start()
        demo.block_thread()
