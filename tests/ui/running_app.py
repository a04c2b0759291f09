"""What the tests of the app are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pix2pix_hub.ui.store import Limits, ModelStore


@dataclass(frozen=True)
class RunningApp:
    """A launched app."""

    url: str
    store: ModelStore
    limits: Limits
    files: Path  # where it keeps uploads and results
