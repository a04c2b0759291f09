"""The command lines. Nothing heavy is imported before the options are known to be good.

`train` is train_accelerate.py; `main` is `pix2pix-hub COMMAND …`, also `python -m pix2pix_hub.cli COMMAND …`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from pix2pix_hub.cli.data import data_build, data_inspect, data_make, data_tile
from pix2pix_hub.cli.evaluate import evaluate_model
from pix2pix_hub.cli.models import convert, export, push, space_push, web
from pix2pix_hub.cli.training import USAGE_ERROR, set_up_logging
from pix2pix_hub.cli.training import parse_training_config as parse_training_config
from pix2pix_hub.cli.training import train as train
from pix2pix_hub.cli.translate import translate_dataset, translate_images
from pix2pix_hub.util import UserError, say

logger = logging.getLogger(__name__)

INTERRUPTED = 130  # as a shell has it: 128 + SIGINT


def main(arguments: list[str] | None = None) -> int:
    """`pix2pix-hub COMMAND …`. Returns the exit status."""
    import tyro
    from tyro.conf import OmitArgPrefixes

    set_up_logging()
    words = sys.argv[1:] if arguments is None else arguments
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            try:
                status = tyro.cli(
                    COMMANDS[name], args=words[length:], prog=f"pix2pix-hub {name}", config=(OmitArgPrefixes,)
                )
            except UserError as error:
                logger.error("error: %s", error)
                return USAGE_ERROR
            except KeyboardInterrupt:
                logger.error("stopped")
                return INTERRUPTED
            return status or 0
    listing = "\n".join(f"  {name:17} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items())
    asked_for_help = not words or words[0] in ("-h", "--help")
    heading = "usage: pix2pix-hub COMMAND [OPTIONS]" if asked_for_help else f"error: no command {' '.join(words[:2])!r}"
    say(f"{heading}\n\n{listing}\n\nEach answers --help.")
    return 0 if asked_for_help else USAGE_ERROR


COMMANDS: dict[str, Callable[..., int | None]] = {
    "translate": translate_images,
    "translate-dataset": translate_dataset,
    "evaluate": evaluate_model,
    "push": push,
    "space push": space_push,
    "convert": convert,
    "export": export,
    "web": web,
    "data inspect": data_inspect,
    "data build": data_build,
    "data make": data_make,
    "data tile": data_tile,
}
