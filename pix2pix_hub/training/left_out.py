"""The bad pairs that a run has left out: `bad_pairs.jsonl` and their count in `training_config.json`.

Those found before training are known to every process. Those met in a stream are kept by the process that met them,
in its part of the checkpoint: a resumed run knows as many as it has read, and meets the later ones again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from pix2pix_hub.data.bad_pairs import BAD_PAIRS_NAME, LISTED_FAULTS, Fault, each_once, write_bad_pairs
from pix2pix_hub.export import TRAINING_CONFIG_NAME
from pix2pix_hub.training.stream_loader import StreamLoader
from pix2pix_hub.util import write_aside

logger = logging.getLogger(__name__)


class LeftOut:
    """Keeps both files of a run up to date; every process calls the same methods.

    Args:
        accelerator: of the run.
        found: before training.
        stream: where more can be met; None: nowhere.
    """

    def __init__(self, accelerator: Accelerator, found: Sequence[Fault], stream: StreamLoader | None) -> None:
        self._accelerator, self._found, self._stream = accelerator, found, stream
        self._written: tuple[Fault, ...] = ()

    def start(self, run_folder: Path) -> None:
        """Write what is known at the start of a run, or where it goes on."""
        self._written = self._so_far()
        if self._accelerator.is_main_process:
            _write(run_folder, self._written)

    def update(self, run_folder: Path) -> None:
        """Write and log what any process has met since."""
        before, self._written = set(self._written), self._so_far()
        new = [fault for fault in self._written if fault not in before]
        if not new or not self._accelerator.is_main_process:
            return
        for fault in new[:LISTED_FAULTS]:
            logger.warning("Left out: %s", fault.reason)
        logger.warning("%d bad pairs left out so far: %s", len(self._written), run_folder / BAD_PAIRS_NAME)
        _write(run_folder, self._written)

    def _so_far(self) -> tuple[Fault, ...]:
        if self._stream is None or not self._stream.skip_bad_pairs:
            return tuple(self._found)
        return each_once([*self._found, *gather_object(list(self._stream.faults.values()))])


def _write(run_folder: Path, faults: Sequence[Fault]) -> None:
    if faults:
        write_bad_pairs(run_folder, faults)
    else:  # of a run that was set back to before it met them
        (run_folder / BAD_PAIRS_NAME).unlink(missing_ok=True)
    path = run_folder / TRAINING_CONFIG_NAME
    content = json.loads(path.read_text())
    content["dataset"]["left_out"] = len(faults)
    with write_aside(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
