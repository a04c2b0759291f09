"""What a person would look for before believing a number: each a function with its formula and its threshold.

`generated` and `target` are `Traces` of images in [0, 1]; image i of both belongs to pair i.
Distances of images are root mean squares over their 32x32 thumbnails. Thresholds are ours, set where constructed bad
generators fire and real images do not; a check that fires says where to look, not that a model is bad.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pix2pix_hub.evaluation.bootstrap import confidence_interval, mean_of, ratio_of
from pix2pix_hub.evaluation.traces import STRIDE_FREQUENCIES, Traces
from pix2pix_hub.images import RGB, PixelFormat
from pix2pix_hub.util import counted

NEAR = 0.5  # of the median distance of real images to the nearest training target
NEAR_SHARE = 0.1  # so many more outputs than real images may be that near
LEAST_GAIN = 0.02
LEAST_DIVERSITY = 0.25
SHARPNESS = (0.5, 1.5)
MOST_STRIDE_ENERGY = 2.0
LEAST_GRID = 1 / 255  # a fainter pattern is not seen
MOST_COLOR_BIAS = 0.05
LEAST_DIFFERENCE = 1 / 255  # root mean square of targets from their mean: below, one image is right for all
FEW_IMAGES = 20  # fewer say little
_PARTNERS = 4  # other sources that each target is compared with
_MOST_PAIRWISE = 2000  # images compared with each other
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Check:
    """What one check found."""

    fired: bool
    measures: dict[str, float | list[float]]
    rule: str  # when it fires
    words: str  # what it found, for a person; where it fired, also what to try next

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {"fired": self.fired, **self.measures, "rule": self.rule, "words": self.words}


def _percent(share: float) -> str:
    """ "12%", and never "-0%"."""
    return f"{round(100 * share)}%"


def _all_alike(target: Traces) -> bool:
    """Whether no output could be told from its neighbour's: the targets are one image."""
    images = target.thumbnails.double()
    return float((images - images.mean(0)).square().mean().sqrt()) < LEAST_DIFFERENCE


NOTHING_TO_GO_BY = "the targets of this set are all alike, so this check has nothing to go by"


def memorisation(
    generated: Traces, target: Traces, training: Tensor, own: Sequence[int | None] | None = None
) -> tuple[Check, Tensor, Tensor]:
    """Do outputs repeat training targets? Distance of each to its nearest training target, beside that of real images.

    Args:
        training: thumbnails of the training targets, (M, C, 32, 32).
        own: for each pair its row in `training`, where it is one of them: it is left out.

    Returns:
        The check, and for each output the distance to the nearest training target and its row.
    """
    masked = torch.tensor([-1 if row is None else row for row in own or [None] * len(target)])
    ours, nearest = _nearest(generated.thumbnails, training, masked)
    real, _ = _nearest(target.thumbnails, training, masked)
    limit = NEAR * float(real.median())
    shares = [float((distances < limit).double().mean()) for distances in (ours, real)]
    duplicates = int((real < 1 / 255).sum())
    fired = shares[0] > shares[1] + NEAR_SHARE
    words = (
        f"{_percent(shares[0])} of the outputs are unusually close to a training image "
        f"(of the real images {_percent(shares[1])})"
    )
    if fired:
        words += ", so the model repeats what it saw in training; try more pairs, or stronger augmentation"
    if duplicates:
        words += f"; {duplicates} of the {len(real)} real targets are among the training targets themselves"
    levels = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    return (
        Check(
            fired,
            {
                "near_share": shares[0],
                "near_share_of_real": shares[1],
                "distance_quartiles": ours.quantile(levels).tolist(),
                "distance_quartiles_of_real": real.quantile(levels).tolist(),
                "real_targets_in_training": float(duplicates),
            },
            f"near_share above near_share_of_real + {NEAR_SHARE}; near: below {NEAR} times the median of real images",
            words,
        ),
        ours,
        nearest,
    )


def _nearest(images: Tensor, others: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to and row of the nearest of `others`, the row in `masked` left out."""
    distances = _distances(images, others)
    has_own = masked >= 0
    distances[has_own.nonzero().flatten(), masked[has_own]] = math.inf
    return distances.min(dim=1)


def _distances(images: Tensor, others: Tensor) -> Tensor:
    """Root mean square differences of thumbnails, (N, M)."""
    a, b = (thumbnails.flatten(1).double() for thumbnails in (images, others))
    exact = "donot_use_mm_for_euclid_dist"  # the faster way finds copies at a distance
    parts = [torch.cdist(rows, b, compute_mode=exact) for rows in a.split(_ROWS_AT_ONCE)]
    return torch.cat(parts) / math.sqrt(a.shape[1])


def source_use(generated: Traces, target: Traces, order: Tensor) -> Check:
    """Does the output follow its source? L1 to its own target, beside L1 to targets of other sources.

    gain = 1 - mean L1(G(x_i), y_i) / mean L1(G(x_j), y_i), j ≠ i, on thumbnails.

    Args:
        order: a permutation of the pairs; each target is compared with the outputs of the next few in it.
    """
    own = _l1(generated.thumbnails, target.thumbnails)
    partners = [order.roll(-shift)[order.argsort()] for shift in range(1, min(_PARTNERS, len(order) - 1) + 1)]
    shuffled = torch.stack([_l1(generated.thumbnails[other], target.thumbnails) for other in partners]).mean(0)
    if not float(shuffled.sum()):  # one image is right for all
        gain, low, high = 0.0, 0.0, 0.0
    else:
        gain = 1 - float(own.sum() / shuffled.sum())
        upper, lower = confidence_interval(ratio_of(own.numpy(), shuffled.numpy()), len(own))
        low, high = 1 - lower, 1 - upper
    all_alike = _all_alike(target)
    return Check(
        low < LEAST_GAIN and not all_alike,
        {"gain": gain, "gain_ci95": [low, high], "own_l1": float(own.mean()), "shuffled_l1": float(shuffled.mean())},
        f"the lower end of gain_ci95 is below {LEAST_GAIN}, and the targets are not all alike",
        NOTHING_TO_GO_BY if all_alike else _gain_in_words(gain, low),
    )


def _gain_in_words(gain: float, low: float) -> str:
    nearer = f"{_percent(gain)} nearer" if round(100 * gain) > 0 else "no nearer"
    finding = f"an output is {nearer} to its own target than an output made from another source is"
    if low >= LEAST_GAIN:
        return f"{finding}, so the model does look at its source"
    if gain >= LEAST_GAIN:
        return f"{finding}, which may be chance; measure on more images, or train longer"
    return (
        f"{finding}, so the model looks at its source hardly or not at all; train longer, and check that source and "
        "target of each pair belong together"
    )


def _l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().double().mean(dim=(1, 2, 3))


def collapse(generated: Traces, target: Traces) -> Check:
    """Do different sources give different images? Distances among outputs, beside those among real targets.

    diversity: mean distance of two images; nearest: median distance to the nearest other one; both generated ÷ real.
    """
    step = -(-len(generated) // _MOST_PAIRWISE)
    chosen = torch.arange(0, len(generated), step)
    ours, real = (_spread(traces.thumbnails[chosen]) for traces in (generated, target))
    diversity, nearest = (a / b if b else 1.0 for a, b in zip(ours, real, strict=True))
    all_alike = _all_alike(target)
    return Check(
        min(diversity, nearest) < LEAST_DIVERSITY and not all_alike,
        {"diversity": diversity, "nearest": nearest},
        f"diversity or nearest below {LEAST_DIVERSITY}, and the targets are not all alike",
        NOTHING_TO_GO_BY if all_alike else _diversity_in_words(diversity, nearest),
    )


def _diversity_in_words(diversity: float, nearest: float) -> str:
    advice = "train longer, or raise --l1-weight"
    if diversity < LEAST_DIVERSITY:
        return (
            f"the outputs are nearly all alike: they differ from each other only {_percent(diversity)} as much as real "
            f"images do; {advice}"
        )
    if nearest < LEAST_DIVERSITY:
        return (
            "most outputs have a near copy among the others, so the model makes only a few different images "
            f"(the copies differ only {_percent(nearest)} as much as the most similar real images do); {advice}"
        )
    return (
        f"the outputs differ from each other {_percent(diversity)} as much as real images do, so they are not all alike"
    )


def _spread(images: Tensor) -> tuple[float, float]:
    distances = _distances(images, images)
    count = len(distances)
    mean = float(distances.sum()) / (count * (count - 1))
    return mean, float(distances.fill_diagonal_(math.inf).min(dim=1).values.median())


def sharpness(generated: Traces, target: Traces) -> Check:
    """Gradient energy: root mean square difference of neighbouring pixels over all images, generated ÷ real.

    Squares, because a blurred edge has as much absolute difference as a sharp one, spread over more pixels.
    """
    ours, real = generated.gradients, target.gradients
    ratio, interval = 1.0, [1.0, 1.0]
    if float(real.sum()):
        ratio = math.sqrt(float(ours.sum() / real.sum()))
        interval = [math.sqrt(end) for end in confidence_interval(ratio_of(ours.numpy(), real.numpy()), len(real))]
    blurred, rough = ratio < SHARPNESS[0], ratio > SHARPNESS[1]
    blurred_words = "blurred; train longer, or raise --gan-weight"
    rough_words = "rough or noisy; train longer, or raise --l1-weight"
    conclusion = blurred_words if blurred else rough_words if rough else _in_between(ratio)
    return Check(
        blurred or rough,
        {"ratio": ratio, "ratio_ci95": interval},
        f"ratio below {SHARPNESS[0]} or above {SHARPNESS[1]}",
        f"edges and fine detail are {_percent(ratio)} as strong as in real images: the outputs are {conclusion}",
    )


def _in_between(ratio: float) -> str:
    return "a little softer" if ratio < 0.85 else "a little rougher" if ratio > 1.15 else "about as sharp"


def checkerboard(generated: Traces, target: Traces) -> Check:
    """Do the decoder's strides show (Odena et al. 2016)? Energy at their frequencies, against the bins beside them.

    excess = energy at 1/2, 1/4, 1/8, 3/8 cycles a pixel ÷ geometric mean of the bins 2 and 3 away; Hann windows, over
    all rows or all columns of all images. ratio = excess of generated ÷ excess of real images. amplitude = root mean
    square of the wave beyond what real images would have there. The strongest pattern counts.
    """
    expected = _nearby(generated) * target.stride_power.mean(0) / _nearby(target)  # (2, 4): direction, frequency
    found = generated.stride_power.mean(0)
    ratios = found / expected
    amplitudes = (found - expected).clamp(min=0).sqrt()
    seen = torch.where(amplitudes > LEAST_GRID, ratios, 0.0)
    direction, frequency = divmod(int((seen if bool(seen.any()) else ratios).argmax()), ratios.shape[1])
    ratio, amplitude = (float(table[direction, frequency]) for table in (ratios, amplitudes))
    periods = [stride for stride, frequencies in STRIDE_FREQUENCIES.items() for _ in frequencies]
    period = periods[frequency]
    fired = ratio > MOST_STRIDE_ENERGY and amplitude > LEAST_GRID
    strength = f"{255 * amplitude:.1f} of 255 levels"
    visible = (
        f"a grid that repeats every {period} pixels is visible ({strength}, {ratio:.1f} times the energy of real "
        "images); --upsampling resize trains a model without it"
    )
    return Check(
        fired,
        {"ratio": ratio, "amplitude": amplitude, "period": float(period)},
        f"ratio above {MOST_STRIDE_ENERGY} and amplitude above {LEAST_GRID:.4f}",
        visible if fired else f"no visible grid ({strength})",
    )


def _nearby(images: Traces) -> Tensor:
    """(2, 4): geometric mean over the bins beside each frequency, as smooth spectra fall."""
    return images.nearby_power.mean(0).log().mean(-1).exp()


def color_bias(generated: Traces, target: Traces, form: PixelFormat = RGB) -> Check:
    """Mean of each channel over all images, generated - real, in [0, 1]; `form` says what the channels are."""
    differences = generated.means - target.means
    bias = differences.mean(0)
    intervals = [confidence_interval(mean_of(channel.numpy()), len(channel)) for channel in differences.T]
    sure = torch.tensor([low > 0 or high < 0 for low, high in intervals])
    drifted = sure & (bias.abs() > MOST_COLOR_BIAS)
    fired = bool(drifted.any())
    finding = _bias_in_words(torch.where(drifted, bias, 0.0) if fired else bias, form)
    return Check(
        fired,
        {
            "bias": bias.tolist(),
            "bias_low": [low for low, _ in intervals],
            "bias_high": [high for _, high in intervals],
        },
        f"a channel's bias beyond ±{MOST_COLOR_BIAS} whose 95 % interval excludes 0",
        f"on average {finding}; train longer, or raise --l1-weight"
        if fired
        else _harmless(finding, float(bias.abs().max())),
    )


def _harmless(finding: str, size: float) -> str:
    if size > MOST_COLOR_BIAS:
        return f"{finding} on average, which may be chance"
    return f"{'little' if round(255 * size) else 'no'} drift ({finding})"


def _bias_in_words(bias: Tensor, form: PixelFormat) -> str:
    """ "too blue by 7 of 255": the channel that is furthest off, or all of them where they go one way together."""
    size = bias.abs()
    if not round(255 * float(size.max())):
        return "less than 1 of 255"
    together = bool((bias.sign() == bias[0].sign()).all()) and float(size.min()) > float(size.max()) / 2
    if form.mode == "gray" or (form.mode == "rgb" and together):
        return f"too {'bright' if bias[0] > 0 else 'dark'} by {255 * float(size.mean()):.0f} of 255"
    channel = int(size.argmax())
    high, by = bool(bias[channel] > 0), f"by {255 * float(size[channel]):.0f} of 255"
    if form.mode in ("rgb", "rgba"):
        color = ("red", "green", "blue", "opaque")[channel]
        return f"too {color} {by}" if high else f"not {color} enough {by}"
    if form.mode == "labels":
        area = _percent(float(size[channel]))
        return f"too {'much' if high else 'little'} of class {form.classes[channel]} by {area} of the area"
    return f"channel {channel + 1} is too {'high' if high else 'low'} {by}"


def verdict(checks: dict[str, Check], images: int) -> str:
    """All checks in words, those that fired first; a caution before them where `images`, their number, is small."""
    fired = [name for name, check in checks.items() if check.fired]
    heading = f"{len(fired)} of {len(checks)} checks fired: {', '.join(fired)}." if fired else "No check fired."
    if images < FEW_IMAGES:
        heading = f"Only {counted(images, 'image')}: so few say little, take the checks as hints. {heading}"
    order = sorted(checks, key=lambda name: not checks[name].fired)
    lines = [
        f"  {'!' if checks[name].fired else ' '} {name.replace('_', ' ')}: {checks[name].words}." for name in order
    ]
    return "\n".join([heading, *lines])
