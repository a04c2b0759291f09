"""One undecoded record → one pair: what map-style sets and streams share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from torch import Tensor

from pix2pix_hub.image.format import PixelFormat, to_tensor
from pix2pix_hub.image.read import Decoded, read_image
from pix2pix_hub.util import UserError


@dataclass(frozen=True)
class RecordDecoder:
    """Decodes rows of a `datasets` set, map-style or streamed, whose image columns are undecoded.

    Picklable, for the workers of a `DataLoader`.
    """

    columns: tuple[str, ...]  # one: A and B side by side; two: A, B
    swap: bool  # B is the source
    source: PixelFormat | None = None  # None: not known yet; `read` works, `decode` does not
    target: PixelFormat | None = None

    def with_formats(self, source: PixelFormat, target: PixelFormat) -> RecordDecoder:
        """The decoder that can decode."""
        return replace(self, source=source, target=target)

    @property
    def sides(self) -> tuple[str, str]:
        """What source and target are called in the data: columns, folders or halves."""
        first, second = ("left half", "right half") if len(self.columns) == 1 else self.columns
        return (second, first) if self.swap else (first, second)

    def names(self, row: Mapping[str, Any], name: str) -> tuple[str, str]:
        """What errors call source and target of a row: their files, where pairs are files of two folders."""
        if len(self.columns) == 2 and "pair_files" in row:
            first, second = row["pair_files"]
            return (second, first) if self.swap else (first, second)
        if len(self.columns) == 1:
            return f"{name}, {self.sides[0]},", f"{name}, {self.sides[1]},"
        source, target = (f"{name}, column {side}{file_in_words(row, side)}" for side in self.sides)
        return source, target

    def read(self, row: Mapping[str, Any], name: str) -> tuple[Decoded, Decoded]:
        """Source and target as stored, of one size.

        Raises:
            UserError: an image that cannot be read, has no partner or another size, or is no side-by-side pair; the
                text starts with the file's name or, where there is none, with `name`.
        """
        if row.get("pair_fault"):
            raise UserError(row["pair_fault"])
        if len(self.columns) == 1:
            first, second = _read_halves(row[self.columns[0]], name)
            return (second, first) if self.swap else (first, second)
        source, target = (
            read_stored(row[side], words) for side, words in zip(self.sides, self.names(row, name), strict=True)
        )
        self._check_sizes(source, target, name)
        return source, target

    def _check_sizes(self, source: Decoded, target: Decoded, name: str) -> None:
        sizes = ["{}x{}".format(*image.size) for image in (source, target)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"{name}: its two images differ in size, {sizes[0]} in {self.sides[0]} and {sizes[1]} in "
                f"{self.sides[1]} (height x width); a pair shows the same thing at the same place."
            )

    def decode(self, row: Mapping[str, Any], name: str) -> tuple[Tensor, Tensor]:
        """Source and target, `(C, H, W)` each, of stored values (uint8, or float32 for deeper formats).

        Raises:
            UserError: as `read`; or pixels that do not fit the side's format.
        """
        assert self.source is not None and self.target is not None, "formats are not known yet"
        source, target = self.read(row, name)
        names = self.names(row, name)
        return to_tensor(source, self.source, names[0]), to_tensor(target, self.target, names[1])


def _read_halves(stored: Mapping[str, Any] | None, name: str) -> tuple[Decoded, Decoded]:
    """A file of A and B side by side. Portrait halves down to 3:4 count as halves."""
    image = read_stored(stored, name)
    height, width = image.size
    if width % 2 or width < 1.5 * height:
        raise UserError(
            f"{name} is {height}x{width} (height x width): no side-by-side pair, "
            "which has an even width of at least 1.5 times its height."
        )
    return image.halves()


def file_of(row: Mapping[str, Any], column: str) -> str | None:
    """Name of the file, without folders, that an undecoded image came from; None: the row does not say."""
    path = (row[column] or {}).get("path")
    return PurePath(path).name if path else None


def file_in_words(row: Mapping[str, Any], column: str) -> str:
    """ " (0003.png)", or nothing where the row does not say."""
    file = file_of(row, column)
    return f" ({file})" if file else ""


def read_stored(stored: Mapping[str, Any] | None, name: str) -> Decoded:
    """What `datasets` keeps of an undecoded image: its bytes, or the path of its file.

    Raises:
        UserError: missing, or an image that cannot be read; the text starts with `name`.
    """
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise UserError(f"{name} is missing (null); expected an image.")
    return read_image(stored["path"] if stored["bytes"] is None else stored["bytes"], name)
