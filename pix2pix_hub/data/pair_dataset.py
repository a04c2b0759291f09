"""A sequence of stored pairs that decodes one at a time, and the pass that finds bad ones before training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from torch import Tensor
from tqdm import tqdm

from pix2pix_hub.errors import UserError
from pix2pix_hub.images import decode_image, pil_to_tensor

LISTED_FAULTS = 5


@dataclass(frozen=True)
class PairDataset:
    """A map-style sequence of pairs. Picklable, for the workers of a `DataLoader`."""

    rows: Dataset  # `columns` undecoded ({"bytes", "path"}), and `name` where pairs are files
    indices: Sequence[int]  # which rows, in order
    columns: tuple[str, ...]  # one: A and B side by side; two: A, B
    split: str
    swap: bool  # BtoA

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Source and target, uint8 `(C, H, W)` each, as stored.

        Raises:
            UserError: an image that cannot be read or is no side-by-side pair; the text starts with its name.
        """
        row, name = self.rows[self.indices[index]], self.name(index)
        if len(self.columns) == 1:
            first, second = _halves(_tensor(row[self.columns[0]], name), name)
        else:
            first, second = (_tensor(row[column], f"{name}, column {column}") for column in self.columns)
        return (second, first) if self.swap else (first, second)

    def name(self, index: int) -> str:
        """The pair's file inside the data set ("train/17.jpg"), or "row 17 of split train"."""
        row = self.indices[index]
        return self.rows[row]["name"] if "name" in self.rows.column_names else f"row {row} of split {self.split}"


def _tensor(stored: dict[str, Any] | None, name: str) -> Tensor:
    """What `datasets` keeps of an image → uint8 `(3, H, W)`."""
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise UserError(f"{name} is missing (null); expected an image.")
    content = stored["path"] if stored["bytes"] is None else stored["bytes"]
    return pil_to_tensor(decode_image(content, name), name)


def _halves(image: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """`(C, H, 2W)` → its left and right half. Portrait halves down to 3:4 count as halves."""
    height, width = image.shape[-2:]
    if width % 2 or width < 1.5 * height:
        raise UserError(
            f"{name} is {height}x{width} (height x width): no side-by-side pair, "
            "which has an even width of at least 1.5 times its height."
        )
    left, right = image.chunk(2, dim=-1)
    return left.contiguous(), right.contiguous()


def stored_size(pairs: PairDataset, index: int) -> tuple[int, int]:
    """Height and width of the source as stored; of the whole file where A and B share one."""
    height, width = pairs[index][0].shape[-2:]
    return (height, 2 * width) if len(pairs.columns) == 1 else (height, width)


def examine(parts: Sequence[PairDataset], dataset: str) -> list[tuple[int, int]]:
    """Decode every pair once, in threads (Pillow decodes outside the interpreter's lock).

    Returns:
        The stored size of every pair.

    Raises:
        UserError: names up to `LISTED_FAULTS` bad pairs and counts them all.
    """
    keys = [(pairs, index) for pairs in parts for index in range(len(pairs))]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda key: _size_or_fault(*key), keys)
        seen = list(tqdm(results, "checking pairs", len(keys), unit="pair", leave=False, disable=len(keys) <= 1000))
    faults = [result for result in seen if isinstance(result, UserError)]
    if faults:
        raise UserError(_fault_text(faults, len(keys), dataset)) from faults[0]
    return [result for result in seen if not isinstance(result, UserError)]


def _size_or_fault(pairs: PairDataset, index: int) -> tuple[int, int] | UserError:
    try:
        return stored_size(pairs, index)
    except UserError as error:
        return error


def _fault_text(faults: Sequence[UserError], total: int, dataset: str) -> str:
    listed = "".join(f"\n  {fault}" for fault in faults[:LISTED_FAULTS])
    more = f"\n  … and {len(faults) - LISTED_FAULTS} more" if len(faults) > LISTED_FAULTS else ""
    return (
        f"--dataset {dataset}: {len(faults)} of {total} pairs cannot be used:{listed}{more}\n"
        "Replace or remove them and start again, or point --dataset at another set."
    )


def size_text(sizes: Sequence[tuple[int, int]]) -> str:
    """ "256x512" (height x width), or the smallest and largest where they differ."""
    distinct = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    smallest, largest = (f"{height}x{width}" for height, width in (distinct[0], distinct[-1]))
    return smallest if len(distinct) == 1 else f"{len(distinct)} sizes from {smallest} to {largest}"
