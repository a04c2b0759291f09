"""What `pix2pix-hub train` adds to training: a model card in every export, and pushes to the Hub."""

from __future__ import annotations

import logging
import shlex
from concurrent.futures import Future, wait
from pathlib import Path

from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.devices import stop_signals
from pix2pix_hub.export import CARD_NAME, MODEL
from pix2pix_hub.hub.card import write_card
from pix2pix_hub.hub.push import check_account, open_repo, push_in_background

logger = logging.getLogger(__name__)


class Publisher:
    """Writes cards, and pushes `model/` while training goes on, as `config` says.

    A push still under way lets the next export be skipped; the newest is made up for at the end.

    Args:
        config: its options on publishing.
        pushes: whether this process is the one that pushes.

    Raises:
        PushError: the token may not write there; nothing was made.
    """

    def __init__(self, config: TrainingConfig, *, pushes: bool) -> None:
        self._config = config
        self._repo_id = check_account(config.push_to_hub) if pushes and config.push_to_hub is not None else None
        self._push: Future[str] | None = None
        self._skipped = False  # the newest export

    def open(self) -> None:
        """Make the repository where there is none; called when all else is known to be right.

        Raises:
            PushError: the Hub refused, or cannot be reached.
        """
        if self._repo_id is not None:
            disable_progress_bars()  # training has one of its own
            open_repo(self._repo_id, private=self._config.hub_private, revision=self._config.hub_revision)

    def complete_export(self, partial_folder: Path, folder: Path) -> None:
        """Write the card of an export that is about to be put in place of `folder`."""
        published = self._repo_id if folder.name == MODEL else None
        write_card(partial_folder, published or folder, previous=folder / CARD_NAME)

    def on_export(self, folder: Path) -> None:
        """Push it, if it is the one that gets pushed and none is under way."""
        if self._repo_id is None or folder.name != MODEL:
            return
        self._skipped = self._push is not None and not self._push.done()
        if not self._skipped:
            self._push = push_in_background(folder, self._repo_id, self._config.hub_revision)

    def finish(self, run_folder: Path) -> int | None:
        """Wait until the newest export is pushed, or has failed for good; the signal that ended that, if one did."""
        with stop_signals("Not waiting for the push") as signals:
            while self._push is not None and signals.received is None:
                if not self._push.done():
                    wait([self._push], timeout=0.2)
                elif self._skipped:
                    self.on_export(run_folder / MODEL)
                else:
                    break
        self.abandon(run_folder)
        return signals.received

    def abandon(self, run_folder: Path) -> None:
        """Wait for nothing; say how to push what is not on the Hub."""
        if self._push is None:
            return
        failure = self._push.exception() if self._push.done() else None
        if self._push.done() and failure is None and not self._skipped:
            return
        config = self._config
        revision = [] if config.hub_revision is None else ["--revision", config.hub_revision]
        options = [str(self._repo_id), *(["--private"] if config.hub_private else []), *revision]
        command = shlex.join(["pix2pix-hub", "push", str(run_folder), *options])
        why = f" ({failure})" if failure else ""
        logger.warning("Not on the Hub yet%s; %s stays. Push it with:\n  %s", why, run_folder / MODEL, command)
