"""A look at a data set before training: what it is, how it is stored, and whether direction and registration are right.

pix2pix-hub data inspect path/to/pairs --direction BtoA
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.bad_pairs import LISTED_FAULTS, Fault
from pix2pix_hub.data.examine import Facts, look_at, misfit, settle_formats
from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.pairs import find_pairs
from pix2pix_hub.data.records import RecordDecoder
from pix2pix_hub.data.transforms import PairTransform, has_colors
from pix2pix_hub.image.format import PixelFormat, displayed, save_grid, to_model_range
from pix2pix_hub.util import UserError, counted


@dataclass(frozen=True)
class Inspection:
    """What a look at all pairs of all splits found."""

    form: str
    layout: str  # "right half → left half", "source → target"
    counts: dict[str, int]  # split → pairs, bad ones included
    sizes: Counter[str]  # "256x512" (height x width) → pairs
    formats: dict[str, PixelFormat]  # "source", "target"
    faults: tuple[Fault, ...]
    left_aside: str = ""  # what lies beside the images and is none of them

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
            lines += [f"{side}     {stored.describe()}{_looks(stored)}", *_color_lines(stored)]
        if not has_colors(self.formats["source"]):
            lines.append("           train with --color-jitter 0: colour changes are for 1 or 3 channels")
        if self.left_aside:
            lines.append(f"left aside {self.left_aside}")
        lines.append(f"bad pairs  {len(self.faults) or 'none'}")
        return "\n".join(lines + [f"           {fault.reason}" for fault in self.faults[:LISTED_FAULTS]])


def inspect_pairs(request: PairOptions, grid: Path | None = None, rows: int = 6) -> Inspection:
    """Decode every pair of every split once, and draw the first few.

    Args:
        request: which pairs; `image_size` and `resize` say how they are drawn.
        grid: where to write a picture of `rows` rows: source | target | both laid over each other; None: nowhere.

    Raises:
        UserError: no form fits, or not a single pair is sound.
    """
    found = find_pairs(request)
    decoder = RecordDecoder(found.columns, request.swap)
    parts = [PairDataset(rows, range(len(rows)), decoder, split) for split, rows in found.splits.items()]
    keys = [(part, index) for part in parts for index in range(len(part))]
    seen = look_at(keys, request)
    readable = [facts for facts in seen if isinstance(facts, Facts)]
    if not readable:
        reasons = "; ".join(fault.reason for fault in seen[:3] if isinstance(fault, Fault))
        raise UserError(f"{request.dataset}: none of its {counted(len(keys), 'pair')} can be read. {reasons}")
    source, target = settle_formats(readable, request, found.class_names)
    checked = [
        facts if isinstance(facts, Fault) else misfit(*key, facts, (source, target)) or facts
        for key, facts in zip(keys, seen, strict=True)
    ]
    formats = {"source": source, "target": target}
    if grid is not None:
        sound = [key for key, facts in zip(keys, checked, strict=True) if isinstance(facts, Facts)]
        pairs = [_decoded(part, index, source, target) for part, index in sound[:: max(1, len(sound) // rows)]]
        fit = PairTransform(request.image_height_width, augment=False, resize=request.resize, formats=formats)
        _draw(pairs[:rows], fit, grid)
    return Inspection(
        found.form,
        f"{request.direction}: {' → '.join(decoder.sides)}",
        {part.split: len(part) for part in parts},
        Counter(f"{height}x{width}" for height, width in (facts.size for facts in readable)),
        formats,
        tuple(fault for fault in checked if isinstance(fault, Fault)),
        found.left_aside,
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
    if stored.mode in ("channels", "rgba"):
        return f", drawn {_drawn(stored.channels)}"
    if not stored.palette:
        return ", many colours: a photo"
    return f", {counted(len(stored.palette), 'colour')}: labels or a drawing"


def _drawn(channels: int) -> str:
    """What `displayed` shows."""
    return "are channels 1, 2, 3 as red, green, blue" if channels >= 3 else "is channel 1 as gray"


def _color_lines(stored: PixelFormat) -> list[str]:
    cells = [f"#{bytes(entry.color).hex()} {entry.share:5.1%} {entry.name or ''}" for entry in stored.palette]
    return ["           " + "   ".join(cells[start : start + 4]).rstrip() for start in range(0, len(cells), 4)]
