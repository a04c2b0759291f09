"""Transforms from a stored pair to the input of the networks, for training and for evaluation.

Every draw is made once for both images and depends only on (seed, epoch, index in the set), so that neither
worker counts, rank counts nor a resumed run change what a sample looks like (Isola et al. 2017, §3.3, for the jitter).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from pix2pix_hub.data.decode import Fault
from pix2pix_hub.data.order import mixed_seed
from pix2pix_hub.image.format import RGB, PixelFormat, stored_to_unit, to_model_range
from pix2pix_hub.util import UserError

SIDES = ("source", "target")


def inscribed_margins(height: int, width: int, degrees: float) -> tuple[int, int]:
    """Rows and columns to cut from each side after a rotation about the centre, so that no invented corner stays.

    What remains (nothing, for an image of a few pixels) is the largest centred rectangle of the original aspect
    ratio. Pixel centres span h = H-1 by w = W-1; scaled by s, the corners stay inside when s(w·cos + h·sin) <= w
    and s(w·sin + h·cos) <= h.
    """
    h, w = height - 1.0, width - 1.0
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    if not h and not w:
        return 0, 0
    scale = min(w / (w * cos + h * sin), h / (w * sin + h * cos)) if sin else 1.0
    top, left = (math.ceil(extent * (1.0 - scale) / 2.0 - 1e-6) for extent in (h, w))
    return top, left


class RotateInside(v2.Transform):
    """Rotate by one angle from [-degrees, degrees], then cut `inscribed_margins`. `(C, H, W)`, smaller out."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"angle": torch.empty(1).uniform_(-self.degrees, self.degrees).item()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        height, width = F.get_size(inpt)
        top, left = inscribed_margins(height, width, params["angle"])
        if 2 * top >= height or 2 * left >= width:  # too small to be turned
            return inpt
        rotated = F.rotate(inpt, params["angle"], interpolation=v2.InterpolationMode.BILINEAR)
        return F.crop(rotated, top, left, height - 2 * top, width - 2 * left)


class FitResize(v2.Transform):
    """Resize to `size` (height, width) with the aspect ratio kept.

    Args:
        how: "crop": the image covers `size`, one side may be longer, for a crop to follow; "pad": it fits into `size`
            and is padded to it on both sides by reflection, beyond what that can reach by its border pixels.
    """

    def __init__(self, size: tuple[int, int], how: str) -> None:
        super().__init__()
        assert how in ("crop", "pad")
        self.size, self.how = size, how

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        stored = F.get_size(inpt)
        bound = max if self.how == "crop" else min
        scale = bound(wanted / has for wanted, has in zip(self.size, stored, strict=True))
        # once more against rounding
        height, width = (max(1, bound(w, round(s * scale))) for w, s in zip(self.size, stored, strict=True))
        image = F.resize(inpt, [height, width], antialias=True)
        for mode in ("reflect", "edge") if self.how == "pad" else ():
            height, width = F.get_size(image)
            down, across = self.size[0] - height, self.size[1] - width
            pads = [across // 2, down // 2, across - across // 2, down - down // 2]  # left, top, right, bottom
            if mode == "reflect":  # as far as there are pixels
                pads = [min(pad, reach) for pad, reach in zip(pads, [width - 1, height - 1] * 2, strict=True)]
            image = F.pad(image, pads, padding_mode=mode) if any(pads) else image
        return image


def has_colors(stored: PixelFormat) -> bool:
    """Tell whether colour jitter is defined for such images."""
    return stored.mode != "labels" and stored.channels in (1, 3)


class PairTransform:
    """A stored pair → what the networks see.

    Args:
        image_size: height and width that come out.
        augment: True: flip, rotation, resize-and-crop and colour jitter (training); False: plain resize (evaluation).
        resize: "exact" (the aspect ratio gives way), "crop" (it is kept; what sticks out is cut off, at random when
            augmenting, else evenly), "pad" (it is kept; see `FitResize`) or "native" (nothing is resized: crops, when
            augmenting at random, else at a place that follows from the index; images are no smaller than these).
        formats: how "source" and "target" are stored; None: 8-bit. Labels are never interpolated.
        flip_probability: chance of a left-right flip, in [0, 1].
        rotation_degrees: the angle is drawn from ± this many degrees, up to 45; corners are cropped, never invented.
        jitter_scale: resized to `image_size` times this (at least 1), then cropped at random; 286/256 is the paper's.
        color_jitter: strength of brightness, contrast and saturation changes; 0 for none.
        color_jitter_side: "source", "target" or "both" (the same change).
        seed: a non-negative integer, the first part of every draw.

    Raises:
        UserError: colour jitter of images that have no colours.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        augment: bool,
        resize: str = "exact",
        formats: Mapping[str, PixelFormat] | None = None,
        flip_probability: float = 0.5,
        rotation_degrees: float = 0.0,
        jitter_scale: float = 286 / 256,
        color_jitter: float = 0.0,
        color_jitter_side: str = "source",
        seed: int = 0,
    ) -> None:
        self.image_size, self.augment, self.seed = image_size, augment, seed
        self.formats = dict(formats or {"source": RGB, "target": RGB})
        labels = {side for side in SIDES if self.formats[side].mode == "labels"}
        self._kinds = {side: tv_tensors.Mask if side in labels else tv_tensors.Image for side in SIDES}
        self._whole = labels | {side for side in SIDES if self.formats[side].dtype == "uint8"}  # uint8 up to the end
        self.jittered = SIDES if color_jitter_side == "both" else (color_jitter_side,)
        self.color = v2.ColorJitter(color_jitter, color_jitter, color_jitter) if augment and color_jitter else None
        enlarged = (round(image_size[0] * jitter_scale), round(image_size[1] * jitter_scale))
        wanted = enlarged if augment else image_size
        self._native = resize == "native"
        resized: v2.Transform = v2.Identity()
        if not self._native:
            resized = v2.Resize(list(wanted), antialias=True) if resize == "exact" else FitResize(wanted, resize)
        self._flip_probability = flip_probability
        turned = augment and rotation_degrees > 0  # at full size: what comes after is not the same in every epoch
        self._steady = v2.Compose([resized] if augment or self._native else [resized, v2.CenterCrop(image_size)])
        self._turning = v2.Compose([RotateInside(rotation_degrees), resized])
        self._turned = turned
        # and flips, of images that it knows the size of: nothing that computes pixels
        self.only_crops = augment and not turned and self.color is None and not self._native
        self.preparation = (augment, image_size, enlarged, resize, turned, self.formats)  # what `prepare` follows from
        for side in self.jittered if self.color else ():
            stored = self.formats[side]
            if not has_colors(stored):
                many = f"have {stored.channels} channels"
                what = "are labels, which have no colours" if side in labels else many
                raise UserError(
                    f"The {side} images {what}; colour jitter is defined for 1 or 3 channels. Turn it off with "
                    "--color-jitter 0."
                )

    def __call__(self, source: Tensor, target: Tensor, *, epoch: int, index: int) -> dict[str, Tensor]:
        """`(C, H, W)` of stored values, of any sizes → `{"source", "target"}`, float32 in [-1, 1]."""
        return self.to_model_range(self.vary(*self.prepare(source, target), epoch=epoch, index=index))

    def prepare(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The part that is the same in every epoch, for `vary` to go on with: uint8, or float32 in [0, 1].

        Both are resized, for training as far as augmentation allows: rotation goes first, at full size.
        """
        pair = {}
        for side, image in zip(SIDES, (source, target), strict=True):  # torchvision has kernels for uint8 and [0, 1]
            whole = side in self._whole
            pair[side] = self._kinds[side](image if whole else stored_to_unit(image, self.formats[side]))
        if self.augment:  # one geometry for both
            pair["target"] = F.resize(pair["target"], F.get_size(pair["source"]), antialias=True)
        if not self._turned:
            pair = {side: self._steady(image) for side, image in pair.items()}
        return pair["source"].as_subclass(Tensor), pair["target"].as_subclass(Tensor)

    def vary(self, source: Tensor, target: Tensor, *, epoch: int, index: int) -> dict[str, Tensor]:
        """Prepared images → `{"source", "target"}`, `(C, H, W)` of the same kind of values; all draws are made here."""
        pair = {side: self._kinds[side](image) for side, image in zip(SIDES, (source, target), strict=True)}
        if self._native:
            top, left = self._native_crop(F.get_size(source), epoch if self.augment else 0, index)
            pair = {side: F.crop(image, top, left, *self.image_size) for side, image in pair.items()}
        if self.augment:
            with torch.random.fork_rng(devices=[]):
                # not torch.manual_seed: it would reseed the accelerator too, and with it the dropout of this process
                torch.default_generator.manual_seed(mixed_seed(self.seed, epoch, index))
                if self._draw_flip(torch.default_generator):
                    pair = {side: F.horizontal_flip(image) for side, image in pair.items()}
                if self._turned:
                    pair = self._turning(pair)
                top, left = self._draw_crop(F.get_size(pair["source"]), torch.default_generator)
                pair = {side: F.crop(image, top, left, *self.image_size) for side, image in pair.items()}
                if self.color:
                    pair |= self.color({side: pair[side] for side in self.jittered})
        return {side: image.as_subclass(Tensor) for side, image in pair.items()}

    def draw(self, size: Sequence[int], *, epoch: int, index: int) -> tuple[bool, int, int]:
        """Draw as `vary` does where it `only_crops`: whether an image of this height and width is flipped, and top and
        left of what is then cut out."""
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch, index))
        return self._draw_flip(generator), *self._draw_crop(size, generator)

    def _draw_flip(self, generator: torch.Generator) -> bool:
        return bool(torch.rand(1, generator=generator) < self._flip_probability)

    def _draw_crop(self, size: Sequence[int], generator: torch.Generator) -> tuple[int, int]:
        spare = [has - wanted for has, wanted in zip(size, self.image_size, strict=True)]
        top, left = (int(torch.randint(most + 1, (), generator=generator)) if most else 0 for most in spare)
        return top, left

    def _native_crop(self, size: Sequence[int], epoch: int, index: int) -> Sequence[int]:
        """Top and left of what is cut out of an image of this height and width.

        A grid of crops, whose corner is drawn, covers all of the image; those that stick out are moved inside. Epochs
        take them in turn, in an order that is drawn, too. When all have been taken, and with them every pixel, the next
        grid is drawn.
        """
        counts = [1 if has == cut else math.ceil(has / cut) + 1 for has, cut in zip(size, self.image_size, strict=True)]
        cycle, turn = divmod(epoch, math.prod(counts))
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, cycle, index, 1))
        before = [int(torch.randint(cut, (), generator=generator)) for cut in self.image_size]
        places = divmod(int(torch.randperm(math.prod(counts), generator=generator)[turn]), counts[1])
        parts = zip(places, before, self.image_size, size, strict=True)
        return [min(max(0, place * cut - start), has - cut) for place, start, cut, has in parts]

    def to_model_range(self, pair: Mapping[str, Any]) -> dict[str, Tensor]:
        """What `vary` gives, or a batch of it, on any device → `{"source", "target"}`, float32 in [-1, 1]."""
        return {
            side: to_model_range(pair[side], self.formats[side]) if side in self._whole else pair[side] * 2.0 - 1.0
            for side in SIDES
        }

    @property
    def nbytes(self) -> int:
        """Bytes of a pair as `vary` gives it."""
        values = (1 if self.formats[side].mode == "labels" else self.formats[side].channels for side in SIDES)
        sizes = (count * (1 if side in self._whole else 4) for side, count in zip(SIDES, values, strict=True))
        return math.prod(self.image_size) * sum(sizes)


class Pairs(Protocol):
    """A sequence of stored pairs: source and target, each `(C, H, W)` of stored values."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]: ...


VALIDATION_IMAGES, VALIDATION_PIXELS = 16, 2**20  # in a batch, unless training's own is larger


class PairTensors(Dataset[dict[str, Any]]):
    """Stored pairs through a `PairTransform`.

    A key is `(epoch, index)`, as the samplers of `order.py` yield it so that workers learn the epoch, or an index
    (epoch 0).

    Args:
        pairs: to be read.
        transform: to be put through.
        in_model_range: False: as `transform.vary` gives them, a quarter of the bytes where images are 8-bit;
            `transform.to_model_range` is for whoever takes them to do, on the device.

    Attributes:
        prepared: what `transform.prepare` makes of each pair, where that is kept (see `cache.py`).
    """

    def __init__(self, pairs: Pairs, transform: PairTransform, *, in_model_range: bool = True) -> None:
        self.pairs = pairs
        self.transform = transform
        self.in_model_range = in_model_range
        self.prepared: Pairs | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def validation_batch(self, batch_size: int, processes: int) -> int:
        """Pairs in a batch, where each process looks at its share of all: as many as in training's `batch_size` or,
        since nothing is kept for a backward pass, more where images are small. Batches are of about the same size, so
        that few pairs fill up the last.
        """
        height, width = self.transform.image_size
        most = max(batch_size, min(VALIDATION_IMAGES, VALIDATION_PIXELS // (height * width)))
        rounds = math.ceil(len(self) / (most * processes))
        return math.ceil(len(self) / (rounds * processes))

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """`{"source", "target"}`, `(C, H, W)`, float32 in [-1, 1] or as `vary` gives them, and `"index"`, the place in
        the set."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        pair = self.transform.prepare(*self.pairs[index]) if self.prepared is None else self.prepared[index]
        shown = self.transform.vary(*pair, epoch=epoch, index=index)
        return {**(self.transform.to_model_range(shown) if self.in_model_range else shown), "index": index}


def collate(samples: list[dict[str, Any] | Fault]) -> dict[str, Any]:
    """A batch, with `"bad_pairs"`: the `Fault`s that a stream has in place of samples."""
    good = [sample for sample in samples if not isinstance(sample, Fault)]
    return (default_collate(good) if good else {}) | {"bad_pairs": [one for one in samples if isinstance(one, Fault)]}
