"""`pix2pix-hub COMMAND …`, also `python -m pix2pix_hub.cli COMMAND …`.

Nothing heavy is imported before the options are known to be good.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

import tyro
from tyro.conf import OmitArgPrefixes

from pix2pix_hub.cli.data import data_build, data_inspect, data_make, data_tile
from pix2pix_hub.cli.evaluate import evaluate_model
from pix2pix_hub.cli.models import convert, export, push, space_push, web
from pix2pix_hub.cli.options import refuse_unknown
from pix2pix_hub.cli.training import parse_training_config as parse_training_config
from pix2pix_hub.cli.training import train
from pix2pix_hub.cli.translate import translate_dataset, translate_images
from pix2pix_hub.ui.serve import serve
from pix2pix_hub.util import UserError, __version__, say, styled

logger = logging.getLogger(__name__)

USAGE_ERROR = 2
INTERRUPTED = 130  # as a shell has it: 128 + SIGINT


def main(arguments: list[str] | None = None) -> int:
    """`pix2pix-hub COMMAND …`. Returns the exit status."""
    set_up_logging()
    tyro._experimental_options["utf8_boxes"] = sys.stdout.isatty()
    words = sys.argv[1:] if arguments is None else arguments
    names = (" ".join(words[:length]) for length in (2, 1))
    name = next((name for name in names if name in COMMANDS), None)
    if words == ["--version"]:
        say(__version__)
        return 0
    if name is None:
        return _list_commands(words)
    options = words[name.count(" ") + 1 :]
    try:
        if name == "train":
            return train(options)
        refuse_unknown(options, COMMANDS[name], name)
        command = COMMANDS[name]
        return tyro.cli(command, args=options, prog=f"pix2pix-hub {name}", config=(OmitArgPrefixes,)) or 0
    except UserError as error:
        logger.error("error: %s", error)
        return USAGE_ERROR
    except KeyboardInterrupt:
        logger.error("stopped")
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _list_commands(words: Sequence[str]) -> int:
    """Say what commands there are, of a group (`data`, `space`) where it is named. Returns the exit status."""
    group = [name for name in COMMANDS if words and name.startswith(f"{words[0]} ")]
    asked = not words or words[-1] in ("-h", "--help") or (bool(group) and len(words) == 1)
    if asked:
        heading = f"usage: pix2pix-hub {f'{words[0]} …' if group else 'COMMAND'} [OPTIONS]"
    else:
        given = " ".join(words[: 2 if group else 1])
        close = difflib.get_close_matches(given, COMMANDS, n=1)
        heading = f"error: no command {given!r}" + (f": did you mean {close[0]}?" if close else "")
    listing = (f"  {name:17} {(COMMANDS[name].__doc__ or '').splitlines()[0]}" for name in group or COMMANDS)
    say("\n".join([heading, "", *listing, "", "Each answers --help."]))
    return 0 if asked else USAGE_ERROR


class TerminalHandler(logging.StreamHandler[TextIO]):
    """Colours what is wrong, and leaves progress bars whole."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        text = self.format(record)
        if record.levelno >= logging.ERROR:
            text = re.sub("^error:", styled("error:", "red"), text)
        elif record.levelno == logging.WARNING:
            text = styled(text, "yellow")
        tqdm.write(text, file=self.stream)


def set_up_logging() -> None:
    """Have the package speak on standard error: of several processes the first, and of the others what fails."""
    handler = TerminalHandler(sys.stderr) if sys.stderr.isatty() else logging.StreamHandler(sys.stderr)
    rank = int(os.environ.get("RANK", 0))
    handler.setFormatter(logging.Formatter(f"rank {rank}: %(message)s" if rank else "%(message)s"))
    package = logging.getLogger("pix2pix_hub")
    package.handlers = [handler]
    package.propagate = False
    package.setLevel(logging.ERROR if rank else logging.INFO)


COMMANDS: dict[str, Callable[..., int | None]] = {
    "train": train,
    "translate": translate_images,
    "translate-dataset": translate_dataset,
    "evaluate": evaluate_model,
    "app": serve,
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
