"""Draws the façades of the data set `synthetic`: labelled boxes in fractions of the image, without any pixel."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Box(NamedTuple):
    """One labelled part: its class, its corners in [0, 1] (0 = left / top) and its outline inside them."""

    cls: str
    x0: float
    y0: float
    x1: float
    y1: float
    shape: str = "rect"  # rect, arch (round top), gable (triangle) or disc


class Facade(NamedTuple):
    """What both rasterisers need: the boxes in painting order (the first is the wall), and the looks of the wall."""

    boxes: list[Box]
    street: float  # y where the upper floors end and the street floor begins
    wall: tuple[float, float, float]
    brick: float  # contrast of the courses, near 0 on plaster


class _Grid(NamedTuple):
    """The lines that all parts hang on: edges of the wall, of its bays (x) and of its upper floors (y)."""

    x0: float
    x1: float
    top: float
    bottom: float
    bays: list[float]
    floors: list[float]

    def centres(self) -> list[float]:
        return [(a + b) / 2 for a, b in pairwise(self.bays)]


# Three families. The wall follows from visible parts (none, pillars, shutters), so that a network can infer it.
_BRICK, _CREAM, _ROSE = range(3)
_WALLS = (((0.69, 0.41, 0.31), 0.16), ((0.84, 0.72, 0.52), 0.03), ((0.87, 0.66, 0.53), 0.03))


def design(rng: np.random.Generator) -> Facade:
    """Draw one façade. Knows nothing of pixels, so that every size shows the same building."""
    family, has_deco = int(rng.integers(3)), bool(rng.random() < 0.6)
    grid = _draw_grid(rng, frieze=has_deco and family != _BRICK)
    boxes = [Box("facade", grid.x0, grid.top, grid.x1, grid.bottom)]
    if family == _CREAM:
        boxes += _pillars(rng, grid)
    boxes += _cornices(rng, grid)
    if has_deco:
        boxes += _reliefs(grid, family)
    boxes += _upper_floors(rng, grid, family) + _street_floor(rng, grid)
    color, brick = _WALLS[family]
    tint = rng.uniform(-0.03, 0.03) + rng.uniform(-0.015, 0.015, 3)
    red, green, blue = (c + float(t) for c, t in zip(color, tint, strict=True))
    return Facade(boxes, grid.floors[-1], (red, green, blue), brick)


def _draw_grid(rng: np.random.Generator, frieze: bool) -> _Grid:
    x0, x1 = rng.uniform(0.03, 0.11), 1 - rng.uniform(0.03, 0.11)
    top, bottom = rng.uniform(0.13, 0.20), rng.uniform(0.92, 0.95)
    n_floors = int(rng.integers(2, 5))
    n_bays = int(rng.integers(3, 6)) + (n_floors == 4)
    street = bottom - 1.3 * (bottom - top) / (n_floors + 1.3)  # 1.3 times as high as the other floors
    bays = np.linspace(x0 + 0.02, x1 - 0.02, n_bays + 1)
    floors = np.linspace(top + (0.055 if frieze else 0.03), street, n_floors + 1)
    return _Grid(x0, x1, top, bottom, bays.tolist(), floors.tolist())


def _pillars(rng: np.random.Generator, grid: _Grid) -> list[Box]:
    """Giant pilasters over all upper floors: at the two corners, or between all bays."""
    half = 0.016
    inner = grid.bays[1:-1] if rng.random() < 0.6 else []
    centres = [grid.x0 + 0.006 + half, *inner, grid.x1 - 0.006 - half]
    return [Box("pillar", x - half, grid.top, x + half, grid.floors[-1]) for x in centres]


def _cornices(rng: np.random.Generator, grid: _Grid) -> list[Box]:
    """The overhanging eaves, the band above the street floor and, on some façades, a thin band at every floor."""
    x0, x1, top, street = grid.x0, grid.x1, grid.top, grid.floors[-1]
    bands = grid.floors[1:-1] if rng.random() < 0.4 else []
    return [
        Box("cornice", x0 - 0.015, top - 0.012, x1 + 0.015, top + 0.028),
        Box("cornice", x0 - 0.006, street - 0.012, x1 + 0.006, street + 0.014),
        *(Box("cornice", x0, y - 0.009, x1, y + 0.007) for y in bands),
    ]


def _reliefs(grid: _Grid, family: int) -> list[Box]:
    """Of stone: a panel over each bay, below the eaves; on brick, round ones on the piers between the windows."""
    bay = grid.bays[1] - grid.bays[0]
    if family != _BRICK:
        reach = 0.34 * bay
        return [Box("deco", x - reach, grid.top + 0.036, x + reach, grid.top + 0.062) for x in grid.centres()]
    r = min(0.15 * bay, 0.022)
    middles = [0.55 * y0 + 0.45 * y1 for y0, y1 in pairwise(grid.floors)]
    return [Box("deco", x - r, y - r, x + r, y + r, "disc") for y in middles for x in grid.bays[1:-1]]


def _upper_floors(rng: np.random.Generator, grid: _Grid, family: int) -> list[Box]:
    """Windows and what belongs to them, floor by floor: the windows of one floor are alike, as on real façades."""
    height, share = grid.floors[1] - grid.floors[0], rng.uniform(0.58, 0.64)
    half = min((grid.bays[1] - grid.bays[0]) * rng.uniform(0.20, 0.24), 0.45 * share * height)
    has_molding = family != _ROSE and rng.random() < 0.8
    has_gables, has_rollos, has_arches = rng.random(3) < 0.5
    arched_floor = int(rng.integers(len(grid.floors))) if has_arches and family != _ROSE else -1
    last = len(grid.bays) - 2  # number of the last bay, from 0
    boxes: list[Box] = []
    for floor, y in enumerate(grid.floors[:-1]):
        shape = "arch" if floor == arched_floor else "rect"
        gabled = has_gables and floor == len(grid.floors) - 2 and shape == "rect"
        middle = {last // 2, (last + 1) // 2}
        choices: list[set[int]] = [set(), set(), {0, last}, middle]  # the bays with a balcony, always symmetric
        balconies = choices[rng.integers(len(choices))]
        for i, x in enumerate(grid.centres()):
            end = 0.93 if i in balconies else 0.2 + share
            window = Box("window", x - half, y + 0.2 * height, x + half, y + end * height, shape)
            boxes += _window_parts(window, has_molding, 0.13 * height if gabled else 0.0)
            boxes += _blinds(rng, window, has_rollos, family)
            if i in balconies:
                boxes.append(Box("balcony", x - 1.45 * half, y + 0.62 * height, x + 1.45 * half, y + 0.97 * height))
    return boxes


def _window_parts(window: Box, has_molding: bool, gable: float = 0.0) -> list[Box]:
    """A window, its sill below and behind it its surround, crowned by a gable of that height."""
    _, x0, y0, x1, y1, shape = window
    boxes = [window, Box("sill", x0 - 0.016, y1, x1 + 0.016, y1 + 0.015)]
    if has_molding:
        boxes.insert(0, Box("molding", x0 - 0.014, y0 - 0.019, x1 + 0.014, y1, shape))
    if has_molding and gable:
        boxes.insert(0, Box("molding", x0 - 0.028, y0 - 0.019 - gable, x1 + 0.028, y0 - 0.008, "gable"))
    return boxes


def _blinds(rng: np.random.Generator, window: Box, has_rollos: bool, family: int) -> list[Box]:
    """Open shutters beside the window (rose façades), or at some windows a blind drawn down over a part of it."""
    _, x0, y0, x1, y1, shape = window
    if family == _ROSE:
        leaf = 0.42 * (x1 - x0)
        return [Box("blind", x0 - leaf, y0, x0, y1), Box("blind", x1, y0, x1 + leaf, y1)]
    is_down, share = rng.random() < 0.45, rng.uniform(0.25, 0.75)
    if not (has_rollos and is_down and shape == "rect"):
        return []
    return [window._replace(cls="blind", y1=y0 + share * (y1 - y0))]


def _street_floor(rng: np.random.Generator, grid: _Grid) -> list[Box]:
    """One door with its surround; beside it shops, or windows where there are none."""
    y0, y1, bay = grid.floors[-1], grid.bottom, grid.bays[1] - grid.bays[0]
    height, half, top = y1 - y0, min(0.28 * bay, 0.055), y0 + 0.26 * (y1 - y0)
    door_bay, shape = int(rng.integers(len(grid.bays) - 1)), str(rng.choice(["rect", "arch"]))
    shop_chance = 0.85 if rng.random() < 0.65 else 0.0
    boxes: list[Box] = []
    for i, x in enumerate(grid.centres()):
        is_shop = rng.random() < shop_chance
        if i == door_bay:
            boxes += [
                Box("molding", x - half - 0.018, top - 0.023, x + half + 0.018, y1, shape),
                Box("door", x - half, top, x + half, y1, shape),
            ]
        elif is_shop:
            boxes.append(Box("shop", x - 0.43 * bay, y0 + 0.15 * height, x + 0.43 * bay, y1 - 0.008))
        else:
            reach = min(0.24 * bay, 0.055)
            boxes += _window_parts(Box("window", x - reach, y0 + 0.25 * height, x + reach, y0 + 0.72 * height), False)
    return boxes
