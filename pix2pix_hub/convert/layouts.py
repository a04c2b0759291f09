"""What a checkpoint of another project turned out to be: its network, its options, and which tensor is which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pix2pix_hub.models import ResNetGenerator, UNetGenerator

State = Mapping[str, Tensor]

DROPOUT = 0.5  # of all the projects


@dataclass
class Layout:
    """Filled by the reader of one project's names; shapes are compared later."""

    project: str
    architecture: str  # as its project calls it
    network: type[UNetGenerator] | type[ResNetGenerator]
    options: dict[str, Any]
    image_size: int  # height and width it is usually trained at (pixels)
    names: dict[str, str] = field(default_factory=dict)  # ours → theirs
    folded: dict[str, str] = field(default_factory=dict)  # our running mean → their bias before it, which goes in there
    swapped: list[str] = field(default_factory=list)  # ours that read the skip second and the map before it first
    unused: list[str] = field(default_factory=list)  # theirs, without effect on what their network computes
    dropout_note: str = ""  # a sentence for the card
    resized: bool = False  # plain convolutions enlarge, after an nn.Upsample that leaves no trace in the file

    @property
    def norm(self) -> str:
        """The norm of the network."""
        return str(self.options["norm"])

    def pair(self, ours: str, theirs: str, *kinds: str) -> None:
        """`ours.kind` is `theirs.kind` for each of `kinds`."""
        self.names.update({f"{ours}.{kind}": f"{theirs}.{kind}" for kind in kinds})

    def pair_norm(self, ours: str, theirs: str) -> None:
        """The tensors of a norm: batch norm's are used; instance norm's, kept by early PyTorch, never were."""
        statistics: tuple[str, ...] = ("running_mean", "running_var")
        if self.norm == "batch":
            self.pair(ours, theirs, "weight", "bias", *statistics)
            statistics = ()
        self.unused += [f"{theirs}.{kind}" for kind in (*statistics, "num_batches_tracked")]


def norm_of(state: State, norm: str, convolution: str) -> str:
    """Which norm follows a convolution: batch norm has parameters; before instance norm there are biases, and where
    there is no norm none."""
    if f"{norm}.weight" in state:
        return "batch"
    return "instance" if f"{convolution}.bias" in state else "none"


def channels(state: State, name: str, axis: int) -> int:
    """Length of an axis of a convolution's weight; 0, which no network has, where there is no such weight."""
    tensor = state.get(f"{name}.weight")
    return 0 if tensor is None or tensor.ndim != 4 else tensor.shape[axis]
