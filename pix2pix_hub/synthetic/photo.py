"""Paints a façade of the data set `synthetic` as a photo.

Arrays are channel-first float32 RGB, (3, height, width) in [0, 1], at `_SS` times the final resolution; the sun stands
at the upper left. Pixels see only element-wise arithmetic, so they do not depend on a machine's BLAS or libm.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pix2pix_hub.synthetic.layout import Box, Facade

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rect = tuple[int, int, int, int]  # y0, x0, y1, x1 in pixels

_SS = 2  # supersampling factor
# How far a raised part throws its shadow, as a fraction of the image height.
_REACH = {
    "cornice": 0.024,
    "balcony": 0.022,
    "sill": 0.010,
    "molding": 0.007,
    "pillar": 0.009,
    "deco": 0.006,
    "blind": 0.006,
}


# ---------------------------------------------------------------- raster tools


def _ramp(n: int) -> Array:
    """`n` cell centres in (0, 1)."""
    return (np.arange(n, dtype=np.float32) + np.float32(0.5)) / np.float32(max(n, 1))


def _column(n: int) -> Array:
    """The same, shaped (n, 1) to run down a view."""
    return _ramp(n)[:, None]


def _rgb(red: float, green: float, blue: float) -> Array:
    """A colour in [0, 1], shaped (3, 1, 1) to fill a view."""
    return np.array((red, green, blue), dtype=np.float32).reshape(3, 1, 1)


def snap(box: Box, height: int, width: int) -> Rect:
    """The corners of a box in pixels of the final image: on that grid photo and labels share every edge."""
    y0, x0 = min(round(box.y0 * height), height - 1), min(round(box.x0 * width), width - 1)
    y1, x1 = max(round(box.y1 * height), y0 + 1), max(round(box.x1 * width), x0 + 1)
    return max(y0, 0), max(x0, 0), min(y1, height), min(x1, width)


def outline(shape: str, height: int, width: int) -> Mask:
    """(height, width) mask of a shape inside its box."""
    mask = np.ones((height, width), dtype=bool)
    y, x = _column(height), np.abs(_ramp(width) * 2 - 1)
    if shape == "gable":
        mask &= y >= x
    elif shape == "disc":
        mask &= x * x + (2 * y - 1) ** 2 <= 1
    elif shape == "arch":
        rise = np.float32(min(0.5 * width / height, 1.0))
        drop = np.maximum(rise - y, 0) / rise
        mask &= x * x + drop * drop <= 1
    return mask


def _value_noise(rng: np.random.Generator, height: int, width: int, cells: tuple[int, int]) -> Array:
    """(height, width) smooth noise in [0, 1]: a random grid of `cells`, interpolated."""
    grid = rng.random((cells[0] + 1, cells[1] + 1), dtype=np.float32)
    for axis, (n, n_cells) in enumerate(zip((height, width), cells, strict=True)):
        at = _ramp(n) * n_cells
        low = at.astype(np.intp)
        t = at - low.astype(np.float32)
        t = (t * t * (3 - 2 * t)).reshape((-1, 1) if axis == 0 else (1, -1))
        grid = np.take(grid, low, axis) * (1 - t) + np.take(grid, low + 1, axis) * t
    return grid


def _masonry(rng: np.random.Generator, height: int, width: int, course: int) -> Array:
    """(height, width) brightness in [-1, 0.5] of blocks in running bond, joints at -1."""
    y, x, block = np.arange(height), np.arange(width), course * 5 // 2
    tones = rng.random((height // course + 1, width // block + 2), dtype=np.float32) - np.float32(0.5)
    rows = np.repeat(tones, block, axis=1)
    rows[:, ::block] = -1
    courses = np.where(np.arange(len(rows))[:, None] % 2, rows[:, x + block // 2], rows[:, x])
    wall: Array = courses[y // course]
    wall[::course] = -1
    return wall


# ---------------------------------------------------------------- painters: each fills its (3, h, w) view in place


def _bevel(view: Array, gain: float = 1.12) -> None:
    """Light the upper and left edge of a raised part and darken the others; `gain` < 1 makes a recess."""
    e = max(1, min(view.shape[1:]) // 9)
    view[:, :e] *= gain
    view[:, :, :e] *= gain
    view[:, -e:] *= 1.9 - gain
    view[:, :, -e:] *= 1.9 - gain


def _paint_glass(view: Array) -> None:
    """A dark room behind a reflection of the sky, with the shadow of the reveal at the top and left."""
    _, h, w = view.shape
    y, x = _column(h), _ramp(w)
    streak = np.maximum(0.15 - 0.45 * np.abs(x + 0.5 * y - 0.75), 0)
    view[:] = _rgb(0.29, 0.40, 0.53) * (1 - y) + _rgb(0.08, 0.12, 0.19) * y + streak
    view[:, : max(1, h // 12)] *= 0.5
    view[:, :, : max(1, w // 10)] *= 0.6


def _paint_window(view: Array) -> None:
    _, h, w = view.shape
    bar = (w + 5) // 18  # 0 on a window of a few pixels, which is all glass
    view[:] = _rgb(0.84, 0.83, 0.80)
    _paint_glass(view[:, bar : h - bar, bar : w - bar])
    view[:, bar : h - bar, (w - bar) // 2 : (w + bar) // 2] = _rgb(0.80, 0.79, 0.77)
    view[:, h // 3 : h // 3 + bar, bar : w - bar] = _rgb(0.77, 0.76, 0.74)


def _paint_door(view: Array) -> None:
    """Two brown leaves of three panels each under a fanlight."""
    _, h, w = view.shape
    gap, head = max(1, w // 14), h // 4
    view[:] = _rgb(0.43, 0.26, 0.15) * (1.1 - 0.3 * _column(h))
    _paint_glass(view[:, gap : head - gap, gap : w - gap])
    for y0, y1 in pairwise(head + (h - gap - head) * i // 3 for i in range(4)):
        for x0, x1 in ((gap, w // 2 - gap), (w // 2 + gap, w - gap)):
            panel = view[:, y0 + gap : y1, x0:x1]
            panel *= 0.85
            _bevel(panel, 0.75)
    view[:, head:, w // 2 - gap // 2 : w // 2 + (gap + 1) // 2] *= 0.45


def _paint_shop(view: Array) -> None:
    """From the top: a sign with lettering, a striped awning, lit display windows in dark wood, a base."""
    _, h, w = view.shape
    sign, awning, base, post = h // 5, h * 9 // 20, h * 9 // 10, max(1, w // 30)
    view[:] = _rgb(0.20, 0.25, 0.22)
    letters = np.arange(w // 4, w * 3 // 4)
    view[:, sign * 3 // 8 : sign * 3 // 4, letters[letters * 46 // w % 3 != 2]] = _rgb(0.90, 0.80, 0.52)
    y = _column(base - awning)
    for x0, x1 in ((post, w // 2 - post), (w // 2 + post, w - post)):
        pane = view[:, awning:base, x0:x1]
        pane[:] = _rgb(0.30, 0.29, 0.28) * (1 - y) + _rgb(0.88, 0.68, 0.40) * y
        pane[:, : max(1, (base - awning) // 4)] *= 0.55
    stripes = np.where(np.arange(w) * 11 // w % 2 == 0, _rgb(0.66, 0.15, 0.14), _rgb(0.93, 0.88, 0.80))
    view[:, sign:awning] = stripes * (1.05 - 0.25 * _column(awning - sign))


def _paint_cornice(view: Array) -> None:
    """A stone band: bright upper edge, a row of dentils in its lower half, dark underside."""
    _, h, w = view.shape
    profile = np.interp(_ramp(h), [0, 0.3, 0.4, 0.9, 1], [1.08, 1.0, 0.82, 0.86, 0.55]).astype(np.float32)
    view[:] = _rgb(0.86, 0.81, 0.71) * profile[:, None]
    if h >= 8:
        period = max(6, 2 * h // 3)
        view[:, h // 2 : h * 7 // 8, np.arange(w) % period < period // 3] *= 0.74


def _paint_sill(view: Array) -> None:
    view[:] = _rgb(0.88, 0.87, 0.85) * (1.06 - 0.35 * _column(view.shape[1]))


def _paint_molding(view: Array) -> None:
    """Light stone, brightest on a thin upper and left edge."""
    _, h, w = view.shape
    view[:] = _rgb(0.86, 0.79, 0.68) * (1.04 - 0.10 * _column(h))
    view[:, : h // 24 + 1] *= 1.12
    view[:, :, : w // 24 + 1] *= 1.10
    view[:, :, w - w // 24 - 1 :] *= 0.84


def _paint_pillar(view: Array) -> None:
    """A half-round shaft, brightest left of its middle, with capital and base."""
    _, h, w = view.shape
    x = _ramp(w) - np.float32(0.32)
    view[:] = _rgb(0.92, 0.80, 0.62) * (1.08 - 1.15 * x * x)
    for y in (h * 5 // 40, h * 6 // 40, h * 38 // 40):
        view[:, y : y + max(1, h // 90)] *= 0.68


def _paint_deco(view: Array) -> None:
    """A carved relief of ochre stone: rings round the middle, read as a rosette."""
    _, h, w = view.shape
    y, x = 2 * _column(h) - 1, 2 * _ramp(w) - 1
    rings = (3.4 * (x * x + y * y)).astype(np.intp) % 2
    view[:] = _rgb(0.80, 0.62, 0.34) * np.where(rings, np.float32(0.76), np.float32(1.06)) * (1.06 - 0.06 * (x + y))


def _paint_blind(view: Array) -> None:
    """Sage-green slats, each lit from above."""
    h = view.shape[1]
    slat = max(3, h // 14)
    view[:] = _rgb(0.40, 0.52, 0.43) * (1.12 - 0.5 * (np.arange(h, dtype=np.float32) % slat) / slat)[:, None]
    _bevel(view, 1.05)


def _paint_balcony(view: Array) -> None:
    """An iron railing, through which one sees what is behind, on a stone slab."""
    _, h, w = view.shape
    rail, slab, iron = max(1, h // 12), h * 5 // 6, _rgb(0.10, 0.11, 0.12)
    view *= 0.55
    view[:, :, np.arange(w) % max(4, w // 14) < max(1, w // 40)] = iron
    view[:, :rail] = iron * 1.6
    view[:, slab // 2 : slab // 2 + max(1, rail // 2)] = iron
    view[:, slab:] = _rgb(0.80, 0.77, 0.70) * (1.05 - 0.4 * _column(h - slab))


_PAINTERS: dict[str, Callable[[Array], None]] = {
    "window": _paint_window,
    "door": _paint_door,
    "cornice": _paint_cornice,
    "sill": _paint_sill,
    "balcony": _paint_balcony,
    "blind": _paint_blind,
    "deco": _paint_deco,
    "molding": _paint_molding,
    "pillar": _paint_pillar,
    "shop": _paint_shop,
}


# ---------------------------------------------------------------- the photo


def _paint_wall(view: Array, split: int, unit: int, facade: Facade, rng: np.random.Generator) -> None:
    """Brick or plaster above row `split`, stone blocks below it; darker to the lower right. `unit`: canvas height."""
    _, h, w = view.shape
    light = (1.07 - 0.09 * _column(h) - 0.07 * _ramp(w)) * (0.96 + 0.08 * _value_noise(rng, h, w, (9, 7)))
    light[:split] *= 1 + facade.brick * _masonry(rng, split, w, max(2, unit // 90))
    light[split:] *= 1 + 0.13 * _masonry(rng, h - split, w, max(3, unit // 26))
    upper = _rgb(*facade.wall)
    view[:, :split] = upper * light[:split]
    view[:, split:] = (upper * 0.45 + _rgb(0.74, 0.69, 0.61) * 0.5) * light[split:]


def _backdrop(rng: np.random.Generator, height: int, width: int, wall: Rect) -> Array:
    """(3, height, width) canvas with all that is unlabelled: sky, neighbours, the roof and the pavement."""
    y0, x0, y1, x1 = wall
    canvas = np.empty((3, height, width), dtype=np.float32)
    y = _column(height)[: y1 // 2]
    sky = _rgb(0.40, 0.60, 0.86) * (1 - y) + _rgb(1.0, 0.98, 0.93) * y
    shape = sky.shape[1], width
    cloud = _value_noise(rng, *shape, (5, 4)) * 0.7 + _value_noise(rng, *shape, (14, 11)) * 0.3
    canvas[:, : y1 // 2] = sky + (0.93 - sky) * np.clip(2.2 * cloud - 0.85, 0, 0.75)
    for left, right in ((0, x0), (x1, width)):
        _paint_neighbour(canvas[:, y0 + (y1 - y0) // 9 : y1, left:right])
    _paint_roof(canvas, wall)
    depth = height - y1
    canvas[:, y1:] = _rgb(0.62, 0.60, 0.58) * (0.80 + 0.3 * _column(depth))
    canvas[:, y1 + depth * 2 // 3 :] *= 0.62
    return canvas


def _paint_neighbour(view: Array) -> None:
    """A strip of the next house in shade: tiles on top, then storeys with one dim window each."""
    _, h, w = view.shape
    y, x = _column(h) * 5 % 1, _ramp(w)
    view[:] = _rgb(0.60, 0.55, 0.50) * (1 - 0.2 * _column(h))
    np.copyto(view, _rgb(0.26, 0.29, 0.34), where=(y > 0.35) & (y < 0.8) & (x > 0.25) & (x < 0.75))
    view[:, : h // 14] = _rgb(0.42, 0.27, 0.23)


def _paint_roof(canvas: Array, wall: Rect) -> None:
    """Two chimneys, and a tiled roof that leans back from the top of the wall."""
    y0, x0, _, x1 = wall
    h, w = max(y0 * 5 // 9, 1), x1 - x0
    for x in (x0 + w // 5, x0 + w * 3 // 4):
        chimney = canvas[:, max(y0 - h * 3 // 2, 0) : y0, x : x + max(w // 22, 1)]
        chimney[:] = _rgb(0.58, 0.34, 0.27) * (1.1 - 0.4 * _ramp(chimney.shape[2]))
        chimney[:, : max(h // 8, 1)] *= 0.6
    x_rel, tiles = _ramp(w), 0.85 + 0.15 * _column(h)
    tiles[:: max(h // 9, 2)] *= 0.75
    inside = np.minimum(x_rel, 1 - x_rel) > 0.09 * (1 - _column(h))
    np.copyto(canvas[:, y0 - h : y0, x0:x1], _rgb(0.50, 0.29, 0.24) * tiles, where=inside)


def _cast_shadow(wall: Array, mask: Mask, y: int, x: int, reach: int) -> None:
    """Darken `wall` where a part with that `mask`, standing at (y, x), keeps the sun off; two steps make it soft."""
    for step in (reach, (reach + 1) // 2):
        top, left = max(y + step, 0), max(x + step * 2 // 3, 0)
        view = wall[:, top : top + mask.shape[0], left : left + mask.shape[1]]
        view *= np.where(mask[: view.shape[1], : view.shape[2]], np.float32(0.74), np.float32(1))


def _paint_parts(canvas: Array, boxes: list[Box], height: int, width: int) -> None:
    """Paint the boxes back to front, each with its shadow on the wall (`boxes[0]`) before it."""
    y_wall, x_wall, y_end, x_end = (_SS * v for v in snap(boxes[0], height, width))
    wall = canvas[:, y_wall:y_end, x_wall:x_end]
    for box in boxes[1:]:
        y0, x0, y1, x1 = (_SS * v for v in snap(box, height, width))
        mask = outline(box.shape, y1 - y0, x1 - x0)
        if box.cls in _REACH:
            _cast_shadow(wall, mask, y0 - y_wall, x0 - x_wall, round(_REACH[box.cls] * height * _SS))
        part = canvas[:, y0:y1, x0:x1].copy()
        _PAINTERS[box.cls](part)
        np.copyto(canvas[:, y0:y1, x0:x1], part, where=mask)


def photo(facade: Facade, height: int, width: int, rng: np.random.Generator) -> Array:
    """(3, height, width) in [0, 1]: paint large, scale down, add the fall-off of a lens and film grain."""
    y0, x0, y1, x1 = (_SS * v for v in snap(facade.boxes[0], height, width))
    canvas = _backdrop(rng, height * _SS, width * _SS, (y0, x0, y1, x1))
    split = min(max(round(facade.street * height) * _SS - y0, 0), y1 - y0)
    _paint_wall(canvas[:, y0:y1, x0:x1], split, height * _SS, facade, rng)
    _paint_parts(canvas, facade.boxes, height, width)
    rows = canvas[:, 0::2] + canvas[:, 1::2]
    y, x = _column(height) - 0.5, _ramp(width) - 0.5
    lens = 0.25 * (1.03 - 0.28 * (y * y + x * x))
    grain = rng.random((height, width), dtype=np.float32) * 0.03 - 0.015
    return np.clip((rows[:, :, 0::2] + rows[:, :, 1::2]) * lens + grain, 0, 1)
