"""Whether the networks go through `torch.compile` (`--compile`), and how.

They are compiled in place (`Module.compile`), so that names of weights, checkpoints, exports and the moving average
know nothing of it, and for each shape apart: the discriminator sees batches of two sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pix2pix_hub.devices import missing_for_compilation
from pix2pix_hub.util import UserError

SMALL_BATCH = 4  # images up to which a GPU waits for launches more than it computes


@dataclass(frozen=True)
class Compilation:
    """What `--compile` comes to: the mode of `torch.compile`, or None; and why, in words."""

    mode: str | None
    reason: str

    def apply(self, *networks: nn.Module) -> None:
        """Have the networks compiled at their first call."""
        for network in networks if self.mode is not None else ():
            network.compile(mode=self.mode, dynamic=False)


def choose_compilation(requested: str, device_type: str, batch_size: int, plain_loop: bool) -> Compilation:
    """`"auto"`, `"on"` or `"off"` → what to do on this kind of device.

    `auto` is off: compiling loses on a CPU, and on a GPU it has not been measured (docs/performance.md).

    Args:
        plain_loop: one process and one batch a step, so that gradients may live in a CUDA graph's memory.

    Raises:
        UserError: `on` where `torch.compile` lacks something, with what to install.
    """
    if requested != "on":
        return Compilation(None, "off")
    missing = missing_for_compilation(device_type)
    if missing is not None:
        raise UserError(f"--compile on: {missing}; or leave it out.")
    graphs = device_type == "cuda" and batch_size <= SMALL_BATCH and plain_loop
    return Compilation("reduce-overhead" if graphs else "default", "on")
