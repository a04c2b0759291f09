"""Eight things a person would look for before believing a number, each with its formula and its threshold.

`generated` and `target` are `Traces` of images in [0, 1]; image i of both belongs to pair i. Distances of images are
root mean squares over their 32x32 thumbnails. Thresholds are ours, set where constructed bad generators fire and real
images do not; a check that fires says where to look, not that a model is bad.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pix2pix_hub.data.findings import all_alike
from pix2pix_hub.image.format import RGB, PixelFormat, to_unit_range
from pix2pix_hub.metrics import MOST_SATURATED, ratio_interval, saturated
from pix2pix_hub.util import counted

NEAR = 0.5  # of the median distance of real images to the nearest training target
NEAR_SHARE = 0.1  # so many more outputs than real images may be that near
LEAST_GAIN = 0.02
LEAST_DIVERSITY = 0.25
SHARPNESS = (0.5, 1.5)
MOST_STRIDE_ENERGY = 2.0
LEAST_GRID = 1 / 255  # a fainter pattern is not seen
MOST_COLOR_BIAS = 0.05
LEAST_SPOT = 1 / 8
SPOT_DEVIATIONS = 4
FEW_IMAGES = 20  # fewer say little
_PARTNERS = 4  # other sources that each target is compared with
_MOST_PAIRWISE = 2000  # images compared with each other

RULES = {  # when each fires
    "memorisation": f"near_share above near_share_of_real + {NEAR_SHARE}; near: below {NEAR} times the median of real "
    "images",
    "source_use": f"the lower end of gain_ci95 is below {LEAST_GAIN}, and the targets are not all alike",
    "collapse": f"diversity or nearest below {LEAST_DIVERSITY}, and the targets are not all alike",
    "sharpness": f"ratio below {SHARPNESS[0]} or above {SHARPNESS[1]}",
    "checkerboard": f"ratio above {MOST_STRIDE_ENERGY} and amplitude above {LEAST_GRID:.4f}",
    "saturation": f"share above share_of_real + {MOST_SATURATED}",
    "permanent_spot": f"size above {LEAST_SPOT} and {SPOT_DEVIATIONS} deviations, and more than twice what the real "
    "images have there",
    "color_bias": f"a channel's bias beyond ±{MOST_COLOR_BIAS} whose 95 % interval excludes 0",
}
_NEAR = (
    "{near_share:z.0%} of the outputs are unusually close to a training image (of the real images "
    "{near_share_of_real:z.0%})"
)
_GAIN = "an output is {nearer} to its own target than an output made from another source is"
_EDGES = "edges and fine detail are {ratio:z.0%} as strong as in real images: the outputs are "
_ALIKE = "the targets of this set are all alike, so this check has nothing to go by"
FIRES = {  # (check, outcome) → what was found and what to try next
    ("memorisation", "repeats"): _NEAR
    + ", so the model repeats what it saw in training; try more pairs, or stronger augmentation{duplicates}",
    ("source_use", "chance"): _GAIN + ", which may be chance; measure on more images, or train longer",
    ("source_use", "ignored"): _GAIN + ", so the model hardly uses its source, if at all; train longer, and "
    "check that source and target of each pair belong together",
    ("collapse", "alike"): "the outputs are nearly all alike: they differ from each other only {diversity:z.0%} as "
    "much as real images do; train longer, or raise --l1-weight",
    ("collapse", "few"): "most outputs have a near copy among the others, so the model makes only a few different "
    "images (the copies differ only {nearest:z.0%} as much as the most similar real images do); train longer, or "
    "raise --l1-weight",
    ("sharpness", "blurred"): _EDGES + "blurred; train longer, or raise --gan-weight",
    ("sharpness", "rough"): _EDGES + "rough or noisy; train longer, or raise --l1-weight",
    ("checkerboard", "visible"): "a grid that repeats every {period:.0f} pixels is visible ({levels:.1f} of 255 "
    "levels, {ratio:.1f} times the energy of real images); --upsampling resize trains a model without it",
    ("saturation", "saturated"): "{share:z.0%} of all values are at an end of their range (of the real images' "
    "{share_of_real:z.0%}), so the generator may have run away; lower --learning-rate, or give --max-grad-norm 1",
    ("permanent_spot", "visible"): "the outputs have a {shade} spot in common that real images have not, {place} "
    "({levels:.0f} of 255 levels on average); train longer, with another --seed, or try another --norm",
    ("color_bias", "drifted"): "on average {drift}; train longer, or raise --l1-weight",
}
QUIET = {
    ("memorisation", "fresh"): _NEAR + "{duplicates}",
    ("source_use", "used"): _GAIN + ", so the model does look at its source",
    ("source_use", "undecided"): _ALIKE,
    ("collapse", "varied"): "the outputs differ from each other {diversity:z.0%} as much as real images do, so they "
    "are not all alike",
    ("collapse", "undecided"): _ALIKE,
    ("sharpness", "softer"): _EDGES + "a little softer",
    ("sharpness", "rougher"): _EDGES + "a little rougher",
    ("sharpness", "equal"): _EDGES + "about as sharp",
    ("checkerboard", "invisible"): "no visible grid ({levels:.1f} of 255 levels)",
    ("saturation", "none"): "{share:z.0%} of all values are at an end of their range (of the real images' "
    "{share_of_real:z.0%})",
    ("permanent_spot", "none"): "no spot that all outputs have in common",
    ("color_bias", "chance"): "{drift} on average, which may be chance",
    ("color_bias", "little"): "little drift ({drift})",
    ("color_bias", "none"): "no drift ({drift})",
}


@dataclass(frozen=True)
class Check:
    """The finding of one check."""

    name: str
    outcome: str  # with the name a key of `FIRES` or `QUIET`
    measures: Mapping[str, float | list[float]]
    facts: Mapping[str, str | float]  # what else its words name

    @property
    def fired(self) -> bool:
        """Whether a person should look."""
        return (self.name, self.outcome) in FIRES

    @property
    def words(self) -> str:
        """What was found, for a person; where it fired, also what to try next."""
        return (FIRES | QUIET)[self.name, self.outcome].format(**self.measures, **self.facts)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {"fired": self.fired, **self.measures, "rule": RULES[self.name], "words": self.words}


# --- what the checks look at

THUMBNAIL = 32  # pixels
# Frequencies (cycles a pixel) at which a decoder's last three strides repeat, without those of a smaller stride.
_FREQUENCIES = (1 / 2, 1 / 4, 1 / 8, 3 / 8)
_PERIODS = (2, 4, 8, 8)
_NEIGHBOURS = (-3, -2, 2, 3)  # bins: a Hann window leaks into the next one only
_ROUNDING = 1 / (12 * 255**2)  # variance that 8 bits add: so much is in the spectrum of every image


class Traces(NamedTuple):
    """A few numbers of each of N images in [0, 1], small enough to keep of thousands; on the CPU."""

    thumbnails: Tensor  # float32 (N, C, 32, 32), means over areas
    means: Tensor  # float64 (N, C)
    saturated: Tensor  # float64 (N,) share of values within 0.01 of 0 or 1
    gradients: Tensor  # float64 (N,) mean square difference of neighbouring pixels, both directions
    stride_power: Tensor  # float64 (N, 2, 4) mean square of the wave at each stride frequency, along rows, columns
    nearby_power: Tensor  # float64 (N, 2, 4, 4) the same at the bins beside them


def traces_of(images: Tensor) -> Traces:
    """(N, C, H, W) in [-1, 1], H and W from 32."""
    unit = to_unit_range(images.detach().float().cpu())
    down, across = (unit.diff(dim=axis).square().double().mean(dim=(1, 2, 3)) for axis in (-2, -1))
    at, nearby = zip(_stride_power(unit), _stride_power(unit.transpose(-1, -2)), strict=True)
    return Traces(
        thumbnails_of(images),
        unit.double().mean(dim=(-2, -1)),
        saturated(images.detach().float()).double().cpu(),
        (down + across) / 2,
        torch.stack(at, dim=1),
        torch.stack(nearby, dim=1),
    )


def thumbnails_of(images: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1] → float32 (N, C, 32, 32) in [0, 1], on the CPU."""
    return F.adaptive_avg_pool2d(to_unit_range(images.detach().float().cpu()), THUMBNAIL)


def _stride_power(unit: Tensor) -> tuple[Tensor, Tensor]:
    """Spectrum of all rows, averaged, as the mean square of a wave: (N, 4) at the stride frequencies, (N, 4, 4) beside
    them."""
    length = unit.shape[-1] // max(_PERIODS) * max(_PERIODS)
    window = torch.hann_window(length, dtype=unit.dtype)
    rows = unit[..., :length]
    power = torch.fft.rfft((rows - rows.mean(dim=-1, keepdim=True)) * window).abs().square()
    power = power.double().mean(dim=(1, 2)) + _ROUNDING * window.square().sum()
    sides = torch.tensor([1.0 if f == 1 / 2 else 2.0 for f in _FREQUENCIES])  # f and -f are one wave
    bins = torch.tensor([round(f * length) for f in _FREQUENCIES])
    beside = bins[:, None] + torch.tensor(_NEIGHBOURS)
    beside = torch.minimum(beside, length - beside)  # above half a cycle a pixel the spectrum is mirrored
    scale = sides / window.double().sum() ** 2
    return power[:, bins] * scale, power[:, beside] * scale[:, None]


# --- the checks


def run_checks(
    generated: Traces,
    target: Traces,
    training: Tensor | None,
    own: Sequence[int | None],
    order: Tensor,
    form: PixelFormat = RGB,
) -> tuple[dict[str, Check], list[tuple[int, int]]]:
    """Every check that the data allow, and what `memorisation` gives besides.

    Args:
        training, own: of `memorisation`; None: there are no training targets.
        order: see `source_use`.
        form: of the targets.
    """
    checks = [
        source_use(generated, target, order),
        collapse(generated, target),
        sharpness(generated, target),
        checkerboard(generated, target),
        saturation(generated, target),
        permanent_spot(generated, target),
        color_bias(generated, target, form),
    ]
    nearest: list[tuple[int, int]] = []
    if training is not None:
        check, nearest = memorisation(generated, target, training, own)
        checks.insert(0, check)
    return {check.name: check for check in checks}, nearest


def memorisation(
    generated: Traces, target: Traces, training: Tensor, own: Sequence[int | None] | None = None
) -> tuple[Check, list[tuple[int, int]]]:
    """Do outputs repeat training targets? Distance of each to its nearest training target, beside that of real images.

    Args:
        training: thumbnails of the training targets, (M, C, 32, 32).
        own: for each pair its row in `training`, where it is one of them, which is skipped.

    Returns:
        The check, and the pairs in the order of their outputs' distance to a training target, each with that target's
        row.
    """
    rows = [(pair, row) for pair, row in enumerate(own or ()) if row is not None]
    nearest = []
    for traces in (generated, target):
        distances = _distances(traces.thumbnails, training)
        for pair, row in rows:
            distances[pair, row] = math.inf
        nearest.append(distances.min(dim=1))
    (ours, places), (real, _) = nearest
    near, near_real = (float((side < NEAR * float(real.median())).double().mean()) for side in (ours, real))
    duplicates = int((real < 1 / 255).sum())
    levels = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    measures: dict[str, float | list[float]] = {
        "near_share": near,
        "near_share_of_real": near_real,
        "distance_quartiles": ours.quantile(levels).tolist(),
        "distance_quartiles_of_real": real.quantile(levels).tolist(),
        "real_targets_in_training": float(duplicates),
    }
    also = f"; {duplicates} of the {len(real)} real targets are among the training targets themselves"
    outcome = "repeats" if near > near_real + NEAR_SHARE else "fresh"
    check = Check("memorisation", outcome, measures, {"duplicates": also if duplicates else ""})
    return check, [(pair, int(places[pair])) for pair in ours.argsort().tolist()]


def _distances(images: Tensor, others: Tensor) -> Tensor:
    """Root mean square differences of thumbnails, (N, M)."""
    a, b = (thumbnails.flatten(1).double() for thumbnails in (images, others))
    exact = "donot_use_mm_for_euclid_dist"  # the faster way finds copies at a distance
    return torch.cdist(a, b, compute_mode=exact) / math.sqrt(a.shape[1])


def _all_alike(target: Traces) -> bool:
    """Whether no output could be told from its neighbour's: the targets are one image."""
    return all_alike(target.thumbnails.double().numpy())


def source_use(generated: Traces, target: Traces, order: Tensor) -> Check:
    """Does the output follow its source? L1 to its own target, beside L1 to targets of other sources.

    gain = 1 - mean L1(G(x_i), y_i) / mean L1(G(x_j), y_i), j ≠ i, on thumbnails.

    Args:
        order: a permutation of the pairs; each target is compared with the outputs of the next few in it.
    """

    def l1(outputs: Tensor) -> Tensor:
        return (outputs - target.thumbnails).abs().double().mean(dim=(1, 2, 3))

    own = l1(generated.thumbnails)
    partners = [order.roll(-shift)[order.argsort()] for shift in range(1, min(_PARTNERS, len(order) - 1) + 1)]
    shuffled = torch.stack([l1(generated.thumbnails[other]) for other in partners]).mean(0)
    gain, low, high = 0.0, 0.0, 0.0
    if float(shuffled.sum()):  # else one image is right for all
        gain = 1 - float(own.sum() / shuffled.sum())
        low, high = (1 - end for end in reversed(ratio_interval(own.numpy(), shuffled.numpy())))
    outcome = "used" if low >= LEAST_GAIN else "chance" if gain >= LEAST_GAIN else "ignored"
    return Check(
        "source_use",
        "undecided" if _all_alike(target) else outcome,
        {"gain": gain, "gain_ci95": [low, high], "own_l1": float(own.mean()), "shuffled_l1": float(shuffled.mean())},
        {"nearer": f"{gain:.0%} nearer" if round(100 * gain) > 0 else "no nearer"},
    )


def collapse(generated: Traces, target: Traces) -> Check:
    """Do different sources give different images? Distances among outputs, beside those among real targets.

    diversity: mean distance of two images; nearest: median distance to the nearest other one; both generated ÷ real.
    """
    step = -(-len(generated.means) // _MOST_PAIRWISE)
    spreads = []
    for traces in (generated, target):
        distances = _distances(traces.thumbnails[::step], traces.thumbnails[::step])
        count = len(distances)
        mean = float(distances.sum()) / (count * (count - 1))
        spreads.append((mean, float(distances.fill_diagonal_(math.inf).min(dim=1).values.median())))
    diversity, nearest = (ours / real if real else 1.0 for ours, real in zip(*spreads, strict=True))
    outcome = "alike" if diversity < LEAST_DIVERSITY else "few" if nearest < LEAST_DIVERSITY else "varied"
    outcome = "undecided" if _all_alike(target) else outcome
    return Check("collapse", outcome, {"diversity": diversity, "nearest": nearest}, {})


def sharpness(generated: Traces, target: Traces) -> Check:
    """Gradient energy: root mean square difference of neighbouring pixels over all images, generated ÷ real.

    Squares, because a blurred edge has as much absolute difference as a sharp one, spread over more pixels.
    """
    ours, real = generated.gradients, target.gradients
    ratio, interval = 1.0, [1.0, 1.0]
    if float(real.sum()):
        ratio = math.sqrt(float(ours.sum() / real.sum()))
        interval = [math.sqrt(end) for end in ratio_interval(ours.numpy(), real.numpy())]
    limits = {"blurred": ratio < SHARPNESS[0], "rough": ratio > SHARPNESS[1], "softer": ratio < 0.85}
    limits |= {"rougher": ratio > 1.15, "equal": True}
    outcome = next(name for name, holds in limits.items() if holds)
    return Check("sharpness", outcome, {"ratio": ratio, "ratio_ci95": interval}, {})


def checkerboard(generated: Traces, target: Traces) -> Check:
    """Do the decoder's strides show (Odena et al. 2016)? Energy at their frequencies, against the bins beside them.

    excess = energy at 1/2, 1/4, 1/8, 3/8 cycles a pixel ÷ geometric mean of the bins 2 and 3 away; Hann windows, over
    all rows or all columns of all images. ratio = excess of generated ÷ excess of real images. amplitude = root mean
    square of the wave beyond what real images would have there. The strongest pattern counts.
    """
    nearby, nearby_real = (traces.nearby_power.mean(0).log().mean(-1).exp() for traces in (generated, target))
    expected = nearby * target.stride_power.mean(0) / nearby_real  # (2, 4): direction, frequency
    found = generated.stride_power.mean(0)
    ratios = found / expected
    amplitudes = (found - expected).clamp(min=0).sqrt()
    seen = torch.where(amplitudes > LEAST_GRID, ratios, 0.0)
    strongest = int((seen if bool(seen.any()) else ratios).argmax())
    ratio, amplitude = (float(table.flatten()[strongest]) for table in (ratios, amplitudes))
    period = float(_PERIODS[strongest % len(_PERIODS)])
    visible = ratio > MOST_STRIDE_ENERGY and amplitude > LEAST_GRID
    measures = {"ratio": ratio, "amplitude": amplitude, "period": period}
    return Check("checkerboard", "visible" if visible else "invisible", measures, {"levels": 255 * amplitude})


def saturation(generated: Traces, target: Traces) -> Check:
    """Are more values at the ends of their range than in real images? A generator that ran away paints only those."""
    share, real = (float(traces.saturated.mean()) for traces in (generated, target))
    outcome = "saturated" if share > real + MOST_SATURATED else "none"
    return Check("saturation", outcome, {"share": share, "share_of_real": real}, {})


def permanent_spot(generated: Traces, target: Traces) -> Check:
    """Do all outputs have a spot at one place, whatever their source (Karras et al. 2020, section 2, on droplets)?

    contrast = a place of the thumbnail - mean of the 16 places around its neighbours; size = mean over the images of
    the contrast, generated - real. Deviation: the larger one of the standard error of that mean and of its spread over
    all places (median absolute deviation, times 1.4826). The largest one that stands out counts.
    """
    contrasts = [traces.thumbnails.double() - _around(traces.thumbnails.double()) for traces in (generated, target)]
    (ours, real), difference = (contrast.mean(0) for contrast in contrasts), contrasts[0] - contrasts[1]
    size = difference.mean(0)
    middle = size.flatten(1).median(1).values[:, None, None]
    spread = 1.4826 * (size - middle).abs().flatten(1).median(1).values[:, None, None]
    error = difference.std(0, correction=0) / math.sqrt(len(difference))
    near = F.max_pool2d(real.abs(), 3, 1, 1)  # real images may have it one place further
    own = (size.abs() > SPOT_DEVIATIONS * torch.maximum(spread, error)) & (ours.abs() > 2 * near)
    found = torch.where(own, size, 0.0)
    strongest = int(found.abs().argmax())
    strength = float(found.flatten()[strongest])
    row, column = divmod(strongest % THUMBNAIL**2, THUMBNAIL)
    down, across = ((place + 0.5) / THUMBNAIL for place in (row, column))
    outcome = "visible" if abs(strength) > LEAST_SPOT else "none"
    return Check(
        "permanent_spot",
        outcome,
        {"size": strength, "down": down, "across": across},
        {
            "shade": "bright" if strength > 0 else "dark",
            "place": f"{down:.0%} from the top and {across:.0%} from the left",
            "levels": 255 * abs(strength),
        },
    )


def _around(images: Tensor) -> Tensor:
    """Mean of the 16 places two away from each, fewer at the borders: (N, C, H, W) → the same."""
    ring = images.new_ones(1, 1, 5, 5)
    ring[..., 1:4, 1:4] = 0
    sums, counts = (F.conv2d(x.flatten(0, 1)[:, None], ring, padding=2) for x in (images, torch.ones_like(images[:1])))
    return sums.view(images.shape) / counts.view(1, *images.shape[1:])


def color_bias(generated: Traces, target: Traces, form: PixelFormat = RGB) -> Check:
    """Mean of each channel over all images, generated - real, in [0, 1]; `form` says what the channels are."""
    differences = generated.means - target.means
    bias = differences.mean(0)
    intervals = [ratio_interval(channel.numpy()) for channel in differences.T]
    sure = torch.tensor([low > 0 or high < 0 for low, high in intervals])
    drifted = sure & (bias.abs() > MOST_COLOR_BIAS)
    outcome, size = "drifted", float(bias.abs().max())
    if not drifted.any():
        outcome = "chance" if size > MOST_COLOR_BIAS else "little" if round(255 * size) else "none"
    measures = {
        "bias": bias.tolist(),
        "bias_low": [low for low, _ in intervals],
        "bias_high": [h for _, h in intervals],
    }
    drift = _drift_in_words(torch.where(drifted, bias, 0.0) if outcome == "drifted" else bias, form)
    return Check("color_bias", outcome, measures, {"drift": drift})


def _drift_in_words(bias: Tensor, form: PixelFormat) -> str:
    """ "too blue by 7 of 255": the channel that is furthest off, or all of them where they go one way together."""
    size = bias.abs()
    channel = int(size.argmax())
    high, most = bool(bias[channel] > 0), float(size[channel])
    by = f"by {255 * most:.0f} of 255"
    if not round(255 * most):
        return "less than 1 of 255"
    together = bool((bias.sign() == bias[0].sign()).all()) and float(size.min()) > most / 2
    if form.mode == "gray" or (form.mode == "rgb" and together):
        return f"too {'bright' if high else 'dark'} by {255 * float(size.mean()):.0f} of 255"
    if form.mode in ("rgb", "rgba"):
        color = ("red", "green", "blue", "opaque")[channel]
        return f"too {color} {by}" if high else f"not {color} enough {by}"
    if form.mode == "labels":
        return f"too {'much' if high else 'little'} of class {form.classes[channel]} by {most:.0%} of the area"
    return f"channel {channel + 1} is too {'high' if high else 'low'} {by}"


def verdict(checks: dict[str, Check], images: int) -> str:
    """All checks in words, those that fired first; a caution before them where `images`, their number, is small."""
    fired = [name.replace("_", " ") for name, check in checks.items() if check.fired]
    heading = f"{len(fired)} of {len(checks)} checks fired: {', '.join(fired)}." if fired else "No check fired."
    if images < FEW_IMAGES:
        heading = f"Only {counted(images, 'image')}, too few to be sure: take the checks as hints. {heading}"
    lines = [f"  {'!' if c.fired else ' '} {c.name.replace('_', ' ')}: {c.words}." for c in checks.values()]
    return "\n".join([heading, *sorted(lines, key=lambda line: not line.startswith("  !"))])
