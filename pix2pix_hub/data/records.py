"""One undecoded record → one pair: what map-style sets and streams share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from pix2pix_hub.data.pixels import Decoded, halves, read_image, size_of, to_tensor
from pix2pix_hub.errors import UserError
from pix2pix_hub.images import PixelFormat


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

    def read(self, row: Mapping[str, Any], name: str) -> tuple[Decoded, Decoded]:
        """Source and target as stored, of one size.

        Raises:
            UserError: an image that cannot be read, has no partner or another size, or is no side-by-side pair; the
                text starts with `name`.
        """
        if len(self.columns) == 1:
            first, second = _read_halves(row[self.columns[0]], name)
        else:
            first, second = _read_two(row, self.columns, name)
        return (second, first) if self.swap else (first, second)

    def decode(self, row: Mapping[str, Any], name: str) -> tuple[Tensor, Tensor]:
        """Source and target, `(C, H, W)` each, of stored values (uint8, or float32 for deeper formats).

        Raises:
            UserError: as `read`; or pixels that do not fit the side's format.
        """
        assert self.source is not None and self.target is not None, "formats are not known yet"
        source, target = self.read(row, name)
        return to_tensor(source, self.source, f"{name}, source,"), to_tensor(target, self.target, f"{name}, target,")


def _read_halves(stored: Mapping[str, Any] | None, name: str) -> tuple[Decoded, Decoded]:
    """A file of A and B side by side. Portrait halves down to 3:4 count as halves."""
    image = read_stored(stored, name)
    height, width = size_of(image)
    if width % 2 or width < 1.5 * height:
        raise UserError(
            f"{name} is {height}x{width} (height x width): no side-by-side pair, "
            "which has an even width of at least 1.5 times its height."
        )
    return halves(image)


def _read_two(row: Mapping[str, Any], columns: tuple[str, ...], name: str) -> tuple[Decoded, Decoded]:
    """Two images of one size. Rows with a `name` come from files that pair by name."""
    if "name" in row and (absent := [column for column in columns if row[column] is None]):
        raise UserError(f"{name} has no partner: no file of its name, whatever the suffix, in {absent[0]}.")
    first, second = (read_stored(row[column], f"{name}, column {column}") for column in columns)
    sizes = [size_of(image) for image in (first, second)]
    if sizes[0] != sizes[1]:
        (a, b), (h, w) = sizes
        raise UserError(
            f"{name}: its two images differ in size, {a}x{b} in {columns[0]} and {h}x{w} in {columns[1]} "
            "(height x width); a pair shows the same thing at the same place."
        )
    return first, second


def read_stored(stored: Mapping[str, Any] | None, name: str) -> Decoded:
    """What `datasets` keeps of an undecoded image: its bytes, or the path of its file.

    Raises:
        UserError: missing, or an image that cannot be read; the text starts with `name`.
    """
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise UserError(f"{name} is missing (null); expected an image.")
    return read_image(stored["path"] if stored["bytes"] is None else stored["bytes"], name)
