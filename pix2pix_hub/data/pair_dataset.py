"""A map-style sequence of stored pairs that decodes one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from torch import Tensor

from pix2pix_hub.data.bad_pairs import Place
from pix2pix_hub.data.records import RecordDecoder
from pix2pix_hub.image.format import PixelFormat


@dataclass(frozen=True)
class PairDataset:
    """A map-style sequence of pairs. Picklable, for the workers of a `DataLoader`."""

    rows: Dataset  # the decoder's columns undecoded ({"bytes", "path"}), and `name` where pairs are files
    indices: Sequence[int]  # which rows, in order
    decoder: RecordDecoder
    split: str

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Source and target, `(C, H, W)` each, as stored (uint8, or float32 for deeper formats).

        Raises:
            UserError: an image that cannot be read or does not fit; the text starts with its name.
        """
        return self.decoder.decode(self.row(index), self.name(index))

    def row(self, index: int) -> dict[str, Any]:
        """The undecoded record."""
        return self.rows[self.indices[index]]

    def name(self, index: int) -> str:
        """The pair's file inside the data set ("train/17.jpg"), or "row 17 of split train"."""
        row = self.indices[index]
        return self.rows[row]["name"] if "name" in self.rows.column_names else f"row {row} of split {self.split}"

    def place(self, index: int) -> Place:
        """Where in its split the pair is."""
        return None, self.indices[index]

    @property
    def columns(self) -> tuple[str, ...]:
        """The image columns: one (A and B side by side) or two (A, B)."""
        return self.decoder.columns

    @property
    def formats(self) -> dict[str, PixelFormat]:
        """How the pixels of each side are stored: "source", "target"."""
        assert self.decoder.source is not None and self.decoder.target is not None
        return {"source": self.decoder.source, "target": self.decoder.target}
