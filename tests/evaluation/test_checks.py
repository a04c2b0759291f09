"""The checks fire on generators built to be bad, and on no real image."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from known_generators import EVALUATED, OTHERS, SIZE, TRAINING, batch, constant, grid, memorising
from scipy.spatial.distance import cdist
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.pairs import load_pairs
from pix2pix_hub.data.transforms import PairTensors, PairTransform
from pix2pix_hub.evaluation.checks import (
    FIRES,
    THUMBNAIL,
    Check,
    checkerboard,
    collapse,
    color_bias,
    memorisation,
    permanent_spot,
    run_checks,
    saturation,
    sharpness,
    source_use,
    thumbnails_of,
    traces_of,
    verdict,
)
from pix2pix_hub.image.format import RGB, PixelFormat

SOURCES, TARGETS = batch(EVALUATED)
TRAINING_THUMBNAILS = thumbnails_of(batch(TRAINING)[1])
ORDER = torch.randperm(len(TARGETS), generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(TARGETS.shape, generator=torch.Generator().manual_seed(0))
TWO_IMAGES = batch(OTHERS)[1][:2].repeat(len(SOURCES) // 2, 1, 1, 1)
BLURRED = gaussian_blur(TARGETS, [11, 11])
PLACES = torch.arange(SIZE)
SPOT = 0.8 * torch.exp(-((PLACES[:, None] - 21) ** 2 + (PLACES - 45) ** 2) / 8)  # 2 pixels wide
CALM_DRIFT = torch.tensor([0.0, 0.0, 0.2]).view(3, 1, 1)


def checked(generated: Tensor, target: Tensor = TARGETS, own: list[int | None] | None = None) -> dict[str, Check]:
    places = own or [None] * len(target)
    checks, _ = run_checks(traces_of(generated), traces_of(target), TRAINING_THUMBNAILS, places, ORDER)
    assert len(checks) == 8
    return checks


def fired(generated: Tensor, target: Tensor = TARGETS, own: list[int | None] | None = None) -> set[str]:
    return {name for name, check in checked(generated, target, own).items() if check.fired}


def test_real_targets_are_flagged_by_none() -> None:
    assert fired(TARGETS) == set()
    chosen = batch(TRAINING)[1][: len(ORDER)]
    assert fired(chosen, chosen, own=list(range(len(ORDER)))) == set()  # of the training split


@pytest.mark.parametrize(
    ("name", "direction"), [("facades", "BtoA"), ("maps", "AtoB"), ("maps", "BtoA"), ("edges2shoes", "AtoB")]
)
def test_real_targets_of_real_sets_are_flagged_by_none(name: str, direction: str, real_data: Path) -> None:
    pairs = load_pairs(
        PairOptions(str(real_data / name), direction=direction, max_train_pairs=60, max_validation_pairs=20),
    )
    transform = PairTransform((64, 64), augment=False, formats=pairs.formats)
    training, targets = (
        torch.stack([PairTensors(part, transform)[index]["target"] for index in range(len(part))])
        for part in (pairs.train, pairs.validation)
    )
    traces, own = traces_of(targets), [None] * len(targets)
    checks, _ = run_checks(traces, traces, thumbnails_of(training), own, torch.randperm(len(targets)))
    assert not [name for name, check in checks.items() if check.fired]


ADVICE = ("train longer", "try more pairs", "--upsampling resize", "lower --learning-rate")


@pytest.mark.parametrize(
    ("generated", "flags", "words"),
    [
        (memorising(SOURCES), {"memorisation"}, "repeats what it saw in training"),
        (constant(SOURCES), {"collapse", "source_use", "sharpness"}, "nearly all alike"),
        (TWO_IMAGES, {"collapse"}, "only a few different images"),
        (TARGETS + CALM_DRIFT, {"color_bias"}, "too blue by"),
        (TARGETS + grid(4), {"checkerboard"}, "a grid that repeats every 4 pixels is visible ("),
        (TARGETS + 0.5 * NOISE, {"sharpness"}, "rough or noisy"),
        (batch(OTHERS)[1], {"source_use"}, "hardly uses its source"),
        (BLURRED, {"sharpness"}, "blurred"),
        (TARGETS.sign(), {"saturation"}, "100% of all values are at an end of their range"),
        (TARGETS + SPOT, {"permanent_spot"}, "a bright spot in common that real images have not, 33% from the top and"),
    ],
)
def test_a_bad_generator_is_flagged_and_it_is_said_what_to_try(generated: Tensor, flags: set[str], words: str) -> None:
    checks = checked(generated)
    told = {name: check.words for name, check in checks.items() if check.fired}
    assert flags <= told.keys() and any(words in told[name] for name in flags)
    assert all(any(advice in text for advice in ADVICE) for text in told.values())
    if generated is BLURRED or words.startswith("hardly"):  # one fault only
        assert flags == told.keys()


def test_whatever_fires_has_advice_and_what_does_not_is_quiet() -> None:
    assert all(any(words in text.split("; ")[-1] for words in ADVICE) for text in FIRES.values())
    told = {name: check.words for name, check in checked(TARGETS).items()}
    assert not any(advice in text for text in told.values() for advice in ADVICE)
    assert "an output is 100% nearer" in told["source_use"] and "does look at its source" in told["source_use"]
    assert told["checkerboard"] == "no visible grid (0.0 of 255 levels)"


def test_a_memorising_generator_is_flagged_on_its_training_split_too() -> None:
    """It answers every source with the target of another one."""
    chosen = batch(TRAINING)[1][: len(ORDER)]
    assert "memorisation" in fired(chosen.roll(1, 0), chosen, own=list(range(len(ORDER))))


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_checkerboard_is_flagged_with_its_period(period: int) -> None:
    found = checked(TARGETS + grid(period))["checkerboard"]
    assert found.fired and found.measures["period"] == period
    # amplitude 0.15 in [-1, 1] units: a wave of 0.075 / sqrt(2) along each axis (period 2: always at its crest)
    assert found.measures["amplitude"] == pytest.approx(0.075 / (1 if period == 2 else 2**0.5), rel=0.15)


def test_a_checkerboard_along_one_axis_only_is_found_and_a_faint_one_is_left_alone() -> None:
    stripes = 0.15 * torch.cos(2 * torch.pi * torch.arange(SIZE) / 4)
    for pattern in (stripes[:, None], stripes[None, :]):
        assert checkerboard(traces_of(TARGETS + pattern), traces_of(TARGETS)).fired
    assert not checkerboard(traces_of(torch.zeros_like(TARGETS) + grid(2, 0.004)), traces_of(TARGETS)).fired


def test_a_spot_is_one_that_all_outputs_and_no_targets_have() -> None:
    target, flat = traces_of(TARGETS), traces_of(torch.zeros_like(TARGETS))
    check = permanent_spot(traces_of(TARGETS - SPOT), target)
    assert check.fired and check.facts["shade"] == "dark"
    assert (check.measures["down"], check.measures["across"]) == (21 / 64, 45 / 64)
    # a place of the thumbnail is 2x2 pixels; those two away are 3 to 6 pixels from the spot's middle
    cells = F.avg_pool2d((SPOT / 2)[None, None], 2)[0, 0]
    ring = torch.cat([cells[8:13, 20:25].flatten(), -cells[9:12, 21:24].flatten()]).sum() / 16
    found = permanent_spot(traces_of(torch.zeros_like(TARGETS) + SPOT), flat).measures["size"]
    assert found == pytest.approx(float(cells[10, 22] - ring), rel=1e-5)
    assert not permanent_spot(traces_of(TARGETS + SPOT), traces_of(TARGETS + SPOT)).fired  # targets have it
    some = torch.arange(len(TARGETS))[:, None, None, None] % 10 == 0
    assert not permanent_spot(traces_of(TARGETS + some * SPOT), target).fired
    assert not permanent_spot(traces_of(TARGETS + SPOT / 8), target).fired
    assert not permanent_spot(traces_of(BLURRED), target).fired


def test_the_saturated_share_is_that_of_values_within_a_hundredth_of_an_end() -> None:
    values = (
        torch.tensor([-1.0, -0.981, -0.97, 0.0, 0.97, 0.981, 1.0, 0.5]).repeat(SIZE, SIZE // 8).expand(2, 3, -1, -1)
    )
    found = saturation(traces_of(values), traces_of(0.9 * values))
    assert found.fired and (found.measures["share"], found.measures["share_of_real"]) == (0.5, 0.0)
    assert not saturation(traces_of(values), traces_of(values)).fired  # as label maps have


def test_sharpness_is_the_ratio_of_root_mean_square_differences() -> None:
    ramp = torch.linspace(-1, 1, SIZE).expand(4, 3, SIZE, SIZE)
    found = sharpness(traces_of(ramp / 2), traces_of(ramp))
    assert found.measures["ratio"] == pytest.approx(0.5, rel=1e-4)
    across = float(ramp.diff(dim=-1).square().mean()) / 4
    assert traces_of(ramp).gradients.tolist() == pytest.approx([across / 2] * 4, rel=1e-4)


def test_a_blurred_edge_is_blurred_though_its_rise_is_the_same() -> None:
    edge = torch.where(torch.arange(SIZE) < SIZE // 2, -1.0, 1.0).expand(2, 3, SIZE, SIZE)
    found = sharpness(traces_of(gaussian_blur(edge, [13, 13], [2.0, 2.0])), traces_of(edge))
    # one step of height 1, spread as a Gaussian of sigma s, has the energy 1 / (2 s √π)
    assert found.measures["ratio"] == pytest.approx((1 / (4 * torch.pi**0.5)) ** 0.5, rel=0.01)
    assert found.fired


def test_distances_are_those_of_scipy() -> None:
    generated, target = traces_of(memorising(SOURCES) * 0.9), traces_of(TARGETS)
    flat, real, training = (
        images.flatten(1).double() for images in (generated.thumbnails, target.thumbnails, TRAINING_THUMBNAILS)
    )
    expected = cdist(flat, training) / flat.shape[1] ** 0.5
    check, nearest = memorisation(generated, target, TRAINING_THUMBNAILS)
    quartiles = np.quantile(expected.min(1), [0, 0.25, 0.5, 0.75, 1])
    assert check.measures["distance_quartiles"] == pytest.approx(quartiles.tolist())
    assert dict(nearest) == dict(enumerate(expected.argmin(1)))
    assert [expected.min(1)[pair] for pair, _ in nearest] == pytest.approx(np.sort(expected.min(1)))
    diversity = cdist(flat, flat).sum() / cdist(real, real).sum()
    assert collapse(generated, target).measures["diversity"] == pytest.approx(diversity)


def test_the_gain_of_the_right_source_is_one_minus_a_ratio_of_errors() -> None:
    generated, target = traces_of(TARGETS * 0.5), traces_of(TARGETS)
    check = source_use(generated, target, ORDER)
    partner = [ORDER.tolist()[(ORDER.tolist().index(i) + shift) % 30] for i in range(30) for shift in (1, 2, 3, 4)]
    own = F.l1_loss(generated.thumbnails, target.thumbnails)
    shuffled = F.l1_loss(generated.thumbnails[partner], target.thumbnails.repeat_interleave(4, 0))
    assert check.measures["gain"] == pytest.approx(1 - float(own / shuffled), rel=1e-5)
    assert not {partner[4 * i + shift] == i for i in range(30) for shift in range(4)} - {False}


@pytest.mark.parametrize("images", [TARGETS[:2], NOISE[:9, :, :37, :50].reshape(-1, 9, 37, 50)[:3].clamp(-1, 1)])
def test_two_images_are_enough_and_any_size_and_channels_will_do(images: Tensor) -> None:
    traces = traces_of(images)
    assert traces.thumbnails.shape == (*images.shape[:2], THUMBNAIL, THUMBNAIL)
    for check in (checkerboard, collapse, color_bias, sharpness, saturation, permanent_spot):
        assert not check(traces, traces).fired
    assert not source_use(traces, traces, torch.arange(len(images))).fired


# --- words


def test_the_verdict_says_what_fired_first_and_is_cautious_about_few_images() -> None:
    target = traces_of(TARGETS)
    checks = {"collapse": collapse(target, target), "sharpness": sharpness(traces_of(TARGETS * 0), target)}
    lines = verdict(checks, 20).splitlines()
    assert lines[0] == "1 of 2 checks fired: sharpness."
    assert lines[1].startswith("  ! sharpness")
    few = verdict({"collapse": checks["collapse"]}, 19)
    assert few.startswith("Only 19 images, too few to be sure: take the checks as hints. No check fired.")


def test_training_images_among_the_evaluated_ones_are_told() -> None:
    targets = torch.cat([batch(TRAINING)[1][:3], TARGETS[3:]])
    assert "3 of the 30 real targets are among the training targets" in checked(targets, targets)["memorisation"].words


def test_no_words_have_a_minus_zero_or_a_negative_gain() -> None:
    worse = constant(SOURCES) + 0.002 * (TARGETS.roll(1, 0) - TARGETS)
    check = source_use(traces_of(worse), traces_of(TARGETS), ORDER)
    assert -0.005 < float(str(check.measures["gain"])) < 0
    assert check.words.startswith("an output is no nearer to its own target")
    assert "hardly uses its source" in check.words


def test_a_gain_that_may_be_chance_is_not_called_a_lack_of_use() -> None:
    """Two of four outputs are right, the others are swapped."""
    chosen = TARGETS[:4]
    check = source_use(traces_of(chosen[[0, 1, 3, 2]]), traces_of(chosen), torch.arange(4))
    assert check.fired and float(str(check.measures["gain"])) > 0.02
    assert "may be chance" in check.words and "hardly" not in check.words


@pytest.mark.parametrize(
    ("form", "shift", "words"),
    [
        (RGB, (0.0, 0.0, 0.22), "on average too blue by 28 of 255; "),
        (RGB, (0.0, -0.22, 0.0), "on average not green enough by 28 of 255; "),
        (RGB, (0.22, 0.22, 0.22), "on average too bright by 28 of 255; "),
        (RGB, (-0.22, -0.22, -0.22), "on average too dark by 28 of 255; "),
        (RGB, (0.02, 0.0, 0.0), "little drift (too red by 3 of 255)"),
        (RGB, (0.0, 0.0, 0.0), "no drift (less than 1 of 255)"),
        (PixelFormat("gray", 1), (0.22,), "too bright by 28 of 255"),
        (PixelFormat("rgba", 4), (0.0, 0.0, 0.0, 0.22), "too opaque by 28 of 255"),
        (PixelFormat("channels", 4), (0.0, 0.0, 0.0, 0.22), "channel 4 is too high by 28 of 255"),
        (PixelFormat("channels", 3), (0.22,) * 3, "channel 1 is too high by 28 of 255"),  # no brightness
        (PixelFormat("labels", 4, classes=(0, 3, 7, 9)), (0.0, 0.0, 0.0, 0.22), "too much of class 9 by 11% of the"),
    ],
)
def test_a_drift_names_its_colour_or_channel_and_its_size(
    form: PixelFormat, shift: tuple[float, ...], words: str
) -> None:
    """0.22 of the range [-1, 1] is 28 of 255."""
    target = torch.zeros(2, form.channels, SIZE, SIZE)
    check = color_bias(traces_of(target + torch.tensor(shift).view(-1, 1, 1)), traces_of(target), form)
    assert words in check.words
    assert check.measures["bias"] == pytest.approx([value / 2 for value in shift], abs=1e-6)


def test_a_drift_that_may_be_chance_is_called_so() -> None:
    generated = torch.zeros(2, 3, SIZE, SIZE)
    generated[0, 0] = 0.44
    check = color_bias(traces_of(generated), traces_of(torch.zeros_like(generated)))
    assert not check.fired and check.words == "too red by 28 of 255 on average, which may be chance"


@pytest.mark.parametrize("generated", [torch.zeros(4, 3, SIZE, SIZE), TARGETS[:1].expand(4, -1, -1, -1)])
def test_targets_that_are_all_alike_leave_two_checks_with_nothing_to_go_by(generated: Tensor) -> None:
    target = traces_of(TARGETS[:1] + 0.001 * NOISE[:4])  # files of one picture, compressed more than once
    for check in (source_use(traces_of(generated), target, torch.arange(4)), collapse(traces_of(generated), target)):
        assert not check.fired and "nothing to go by" in check.words
