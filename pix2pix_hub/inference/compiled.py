"""A generator compiled by `torch.compile`, once for each shape that comes: fewer passes over memory, packed weights.

On a CPU inductor's freezing lays every weight out as the kernel for that very shape reads it, which is most of the gain
(docs/performance.md); so there is a graph for each shape, with a copy of the weights, and not one for all.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Callable
from threading import Lock, Thread
from typing import Any

import torch
from torch import Tensor

from pix2pix_hub.devices import missing_for_compilation
from pix2pix_hub.models.base import Generator
from pix2pix_hub.util import UserError

logger = logging.getLogger(__name__)

MOST_SHAPES = 4  # that are compiled; each holds a copy of the weights
SEEN_BEFORE = 2  # times that a shape must have come before it is compiled in the background

Shape = tuple[int, ...]


class CompiledGenerator:
    """Callable as the generator is: (N, C, H, W) → (N, C, H, W), the same within rounding.

    Args:
        generator: in evaluation mode, on its device; not to be changed any more.
        background: compile while the generator itself answers, and take over when ready; else the first batch of a
            shape waits, some ten seconds on a CPU.

    Raises:
        UserError: nothing to compile with.
    """

    def __init__(self, generator: Generator, background: bool) -> None:
        self.generator, self.background = generator, background
        device = next(generator.parameters()).device
        check_compiler(device)
        self._freezing = device.type == "cpu"
        # on a GPU launches are what small batches cost most
        self._options: dict[str, Any] = {"freezing": True} if self._freezing else {"triton.cudagraphs": True}
        shared = {id(tensor): tensor for tensor in (*generator.parameters(), *generator.buffers())}
        self._bare = copy.deepcopy(generator, shared)  # without what a call hangs on the other meanwhile
        self._ready: dict[Shape, Callable[[Tensor], Tensor]] = {}
        self._seen: Counter[Shape] = Counter()
        self._compiling = Lock()  # one at a time

    def __call__(self, batch: Tensor) -> Tensor:
        shape = tuple(batch.shape)
        if (ready := self._ready.get(shape)) is not None:
            return ready(batch)
        if len(self._ready) >= MOST_SHAPES:
            return self.generator(batch)
        if not self.background:
            self._compile(torch.zeros_like(batch))
            return self._ready[shape](batch)
        self._seen[shape] += 1
        if self._seen[shape] >= SEEN_BEFORE and self._compiling.acquire(blocking=False):
            Thread(target=self._compile_aside, args=(torch.zeros_like(batch),), daemon=True).start()
        return self.generator(batch)

    def _compile(self, batch: Tensor) -> None:
        """A graph for batches like this one; ready once it has run."""
        from torch._inductor import config as inductor_config  # a second of imports that eager networks need not

        graph = torch.compile(self._bare, dynamic=False, fullgraph=True, options=self._options)
        # the tracer asks the configuration itself, not `options`, whether weights are constants, which packing needs
        with torch.inference_mode(), inductor_config.patch(freezing=self._freezing):
            graph(batch)
        self._ready[tuple(batch.shape)] = graph

    def _compile_aside(self, batch: Tensor) -> None:
        try:
            self._compile(batch)
        except Exception:  # whatever the compiler's trouble is, the generator goes on answering
            logger.warning("Compiling for %s failed; going on without.", tuple(batch.shape), exc_info=True)
            self._ready[tuple(batch.shape)] = self.generator
        finally:
            self._compiling.release()


def check_compiler(device: torch.device) -> None:
    """Raises `UserError` where `torch.compile` has nothing to compile with."""
    missing = missing_for_compilation(device.type)
    if missing is not None:
        raise UserError(f"compile: {missing}; or leave it out.")
