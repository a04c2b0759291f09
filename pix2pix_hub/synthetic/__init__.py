"""The embedded data set `synthetic`: procedural façades, a CMP-style label map paired with a rendered "photo".

A façade is first drawn as labelled boxes in fractions of the image (`layout.py`), then rasterised twice: here as
flat class colours, in `photo.py` as a photo.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pix2pix_hub.synthetic.layout import Box, design
from pix2pix_hub.synthetic.photo import outline, photo, snap

CMP_CLASSES: dict[str, tuple[int, int, int]] = {
    "background": (0, 0, 170),
    "facade": (0, 0, 255),
    "window": (0, 85, 255),
    "door": (0, 170, 255),
    "cornice": (255, 85, 0),
    "sill": (85, 255, 170),
    "balcony": (170, 255, 85),
    "blind": (255, 255, 0),
    "deco": (255, 170, 0),
    "molding": (0, 255, 255),
    "pillar": (255, 0, 0),
    "shop": (170, 0, 0),
}
DEFAULT_SEED = 0
MIN_SIZE = 16

_CLASS_IDS = {name: i for i, name in enumerate(CMP_CLASSES)}
_PALETTE = np.array(list(CMP_CLASSES.values()), dtype=np.uint8)


def _label_map(boxes: list[Box], height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 with the exact class colours."""
    ids = np.full((height, width), _CLASS_IDS["background"], dtype=np.uint8)
    for box in boxes:
        y0, x0, y1, x1 = snap(box, height, width)
        ids[y0:y1, x0:x1][outline(box.shape, y1 - y0, x1 - x0)] = _CLASS_IDS[box.cls]
    return _PALETTE[ids]


def render_pair(
    index: int, size: tuple[int, int] = (256, 256), seed: int = DEFAULT_SEED
) -> tuple[Image.Image, Image.Image]:
    """Draw façade number `index` (>= 0) of the set `seed` (>= 0).

    Args:
        size: (height, width) in pixels, each at least 16. The same index at another size is the same façade.

    Returns:
        source: RGB label map, only colours of `CMP_CLASSES`, no anti-aliasing.
        target: RGB photo of the same façade, aligned with it pixel by pixel.

    Raises:
        ValueError: `size` is below 16x16.
    """
    height, width = size
    if min(height, width) < MIN_SIZE:
        raise ValueError(
            f"size is {height}x{width} (height x width), but a façade needs at least "
            f"{MIN_SIZE}x{MIN_SIZE} pixels; pass for example size=(128, 128)."
        )
    facade = design(np.random.default_rng([seed, index]))
    # A second generator for texture: its draws depend on the size, those of the design must not.
    rendered = photo(facade, height, width, np.random.default_rng([seed, index, 1]))
    target = (rendered.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(_label_map(facade.boxes, height, width)), Image.fromarray(target)
