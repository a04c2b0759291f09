"""A look at a data set before training: what it is, how it is stored, and whether direction and registration are right.

pix2pix-hub data inspect path/to/pairs --direction BtoA
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pix2pix_hub.data.bad_pairs import LISTED_FAULTS, Fault
from pix2pix_hub.data.examine import Facts, look_at, settle_formats
from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.pairs import find_pairs
from pix2pix_hub.data.records import RecordDecoder
from pix2pix_hub.data.request import PairRequest
from pix2pix_hub.data.transforms import PairTransform
from pix2pix_hub.errors import UserError
from pix2pix_hub.images import PixelFormat, displayed, save_grid, to_model_range


@dataclass(frozen=True)
class Inspection:
    """What a look at all pairs of all splits found."""

    form: str
    layout: str  # "right half → left half", "source → target"
    counts: dict[str, int]  # split → pairs, bad ones included
    sizes: Counter[str]  # "256x512" (height x width) → pairs
    formats: dict[str, PixelFormat]  # "source", "target"
    faults: tuple[Fault, ...]

    def describe(self) -> str:
        """Several lines for a person."""
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        sizes = ", ".join(f"{size} ({count})" for size, count in self.sizes.most_common(5))
        more = f", and {len(self.sizes) - 5} more" if len(self.sizes) > 5 else ""
        lines = [
            f"form       {self.form}: {counts}",
            f"direction  {self.layout}",
            f"sizes      {sizes}{more} (height x width, pairs)",
        ]
        for side, stored in self.formats.items():
            lines += [f"{side}     {stored.describe()}, {_looks(stored)}", *_color_lines(stored)]
        lines.append(f"bad pairs  {len(self.faults) or 'none'}")
        return "\n".join(lines + [f"           {fault.reason}" for fault in self.faults[:LISTED_FAULTS]])


def inspect_pairs(request: PairRequest, grid: Path | None = None, rows: int = 6, resize: str = "exact") -> Inspection:
    """Decode every pair of every split once, and draw the first few.

    Args:
        request: which pairs; `image_size` is the size they are drawn at.
        grid: where to write a picture of `rows` rows: source | target | both laid over each other; None: nowhere.
        resize: what happens to images of another shape there, as in training: "exact", "crop" or "pad".

    Raises:
        UserError: no form fits, or not a single pair is sound.
    """
    found = find_pairs(request)
    decoder = RecordDecoder(found.columns, request.swap)
    parts = [PairDataset(rows, range(len(rows)), decoder, split) for split, rows in found.splits.items()]
    keys = [(part, index) for part in parts for index in range(len(part))]
    seen = look_at(keys, request)
    sound = [(key, facts) for key, facts in zip(keys, seen, strict=True) if isinstance(facts, Facts)]
    if not sound:
        reasons = "; ".join(fault.reason for fault in seen[:3] if isinstance(fault, Fault))
        raise UserError(f"{request.dataset}: none of its {len(keys)} pairs can be read. {reasons}")
    source, target = settle_formats([facts for _, facts in sound], request, found.class_names)
    if grid is not None:
        pairs = [_decoded(part, index, source, target) for (part, index), _ in sound[:: max(1, len(sound) // rows)]]
        formats = {"source": source, "target": target}
        fit = PairTransform(request.image_size, augment=False, resize=resize, formats=formats)
        _draw(pairs[:rows], fit, grid)
    return Inspection(
        found.form,
        f"{request.direction}: {' → '.join(decoder.sides)}",
        {part.split: len(part) for part in parts},
        Counter(f"{height}x{width}" for height, width in (facts.size for _, facts in sound)),
        {"source": source, "target": target},
        tuple(fault for fault in seen if isinstance(fault, Fault)),
    )


def _decoded(pairs: PairDataset, index: int, source: PixelFormat, target: PixelFormat) -> tuple[Tensor, Tensor]:
    decoder = pairs.decoder.with_formats(source, target)
    return decoder.decode(pairs.row(index), pairs.name(index))


def _draw(pairs: list[tuple[Tensor, Tensor]], fit: PairTransform, path: Path) -> None:
    """Rows of source | target | half of each, in which edges that do not meet are seen at once."""
    rows = []
    for source, target in pairs:
        pair = fit(source, target, epoch=0, index=0)
        shown = [to_model_range(displayed(pair[side], fit.formats[side])) for side in ("source", "target")]
        rows.append((*shown, (shown[0] + shown[1]) / 2.0))
    save_grid(rows, path)


def _looks(stored: PixelFormat) -> str:
    if not stored.palette:
        return "many colours: a photo"
    return f"{len(stored.palette)} colours: labels or a drawing"


def _color_lines(stored: PixelFormat) -> list[str]:
    cells = [f"#{bytes(entry.color).hex()} {entry.share:5.1%} {entry.name or ''}" for entry in stored.palette]
    return ["           " + "   ".join(cells[start : start + 4]).rstrip() for start in range(0, len(cells), 4)]
