"""What `train_accelerate.py` adds to training: a model card in every export, and pushes to the Hub."""

from __future__ import annotations

import logging
import shlex
from functools import partial
from pathlib import Path

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.hub.account import check_account, open_repo
from pix2pix_hub.hub.background import BackgroundPush
from pix2pix_hub.hub.card import CARD_NAME, write_card
from pix2pix_hub.hub.push import commit_export, find_export
from pix2pix_hub.training.signals import StopSignals

logger = logging.getLogger(__name__)

PUSHED_EXPORT = "model"


class Publisher:
    """Writes cards, and pushes `model/` in the background, as `config` says.

    Args:
        config: its options on publishing.
        pushes: whether this process is the one that pushes.

    Raises:
        PushError: the token may not write there; nothing was made.
    """

    def __init__(self, config: TrainingConfig, *, pushes: bool) -> None:
        self._config = config
        self._repo_id = config.push_to_hub if pushes else None
        if self._repo_id is not None:
            self._repo_id = check_account(self._repo_id)
        self._background: BackgroundPush | None = None

    def open(self) -> None:
        """Make the repository where there is none; called when all else is known to be right.

        Raises:
            PushError: the Hub refused, or cannot be reached.
        """
        if self._repo_id is None:
            return
        config = self._config
        self._repo_id = open_repo(self._repo_id, private=config.hub_private, revision=config.hub_revision)
        commit = partial(commit_export, repo_id=self._repo_id, revision=config.hub_revision)
        self._background = BackgroundPush(commit, self._repo_id)

    def complete_export(self, partial_folder: Path, folder: Path) -> None:
        """Write the card of an export that is about to be put in place of `folder`."""
        published = self._repo_id if folder.name == PUSHED_EXPORT else None
        write_card(partial_folder, published or str(folder), previous=folder / CARD_NAME)

    def on_export(self, folder: Path) -> None:
        """Push it, if it is the one that gets pushed."""
        if self._background is not None and folder.name == PUSHED_EXPORT:
            self._background.submit(folder)

    def finish(self, run_folder: Path) -> int | None:
        """Wait for the last push; the signal that cut that short, if one did."""
        if self._background is None:
            return None
        with StopSignals("Not waiting for the push") as signals:
            pushed = self._background.finish(lambda: signals.received is not None)
        self._say_how_to_push(run_folder, pushed)
        return signals.received

    def abandon(self, run_folder: Path) -> None:
        """Wait for nothing."""
        if self._background is not None:
            self._say_how_to_push(run_folder, self._background.abandon())

    def _say_how_to_push(self, run_folder: Path, pushed: bool) -> None:
        assert self._background is not None and self._repo_id is not None
        if pushed or not (run_folder / PUSHED_EXPORT).is_dir():
            return
        why = f" ({self._background.failure})" if self._background.failure else ""
        config = self._config
        revision = [] if config.hub_revision is None else ["--revision", config.hub_revision]
        options = [*(["--private"] if config.hub_private else []), *revision]
        command = shlex.join(["pix2pix-hub", "push", str(run_folder), self._repo_id, *options])
        logger.warning("Not on the Hub yet%s; %s stays. Push it with:\n  %s", why, find_export(run_folder), command)
