"""The losses against closed forms, NumPy and SciPy; gradients against closed forms and finite differences."""

import math
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from scipy.special import expit
from torch import Tensor, nn

from pix2pix_hub import losses
from pix2pix_hub.config import preset_config
from pix2pix_hub.losses import GAN_MODES, FeatureMatchingLoss, GANLoss, L1Loss, L2Loss, PerceptualLoss, Pix2PixLoss
from pix2pix_hub.training.setup import make_loss
from pix2pix_hub.util import UserError


def random_logits(seed: int, shape: tuple[int, ...] = (2, 1, 5, 5), scale: float = 3.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_images(seed: int, shape: tuple[int, ...] = (2, 3, 16, 16)) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def tiny_features() -> nn.Sequential:
    """Two convolutions with in-place ReLUs, as VGG's; dropout shows when somebody leaves evaluation mode."""
    torch.manual_seed(0)
    conv = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)]
    return nn.Sequential(conv[0], nn.ReLU(inplace=True), nn.Dropout(0.5), conv[1], nn.ReLU(inplace=True))


def tiny_perceptual() -> PerceptualLoss:
    return PerceptualLoss(tiny_features(), layers=(1, 4))


# ---- adversarial ----


def numpy_discriminator_loss(mode: str, real: np.ndarray, fake: np.ndarray) -> float:
    if mode == "bce":
        return float(-np.log(expit(real)).mean() - np.log(1 - expit(fake)).mean())
    if mode == "lsgan":
        return float(((real - 1) ** 2).mean() + (fake**2).mean())
    return float(np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean())


def numpy_generator_loss(mode: str, fake: np.ndarray) -> float:
    if mode == "bce":
        return float(-np.log(expit(fake)).mean())
    return float(((fake - 1) ** 2).mean()) if mode == "lsgan" else float(-fake.mean())


@pytest.mark.parametrize(
    ("mode", "discriminator", "generator"),
    [("bce", 2 * math.log(2), math.log(2)), ("lsgan", 1.0, 1.0), ("hinge", 2.0, 0.0)],
)
def test_undecided_discriminator_gives_the_closed_forms(mode: str, discriminator: float, generator: float) -> None:
    zeros = torch.zeros(2, 1, 16, 16)
    assert GANLoss(mode).discriminator(zeros, zeros).item() == pytest.approx(discriminator)
    assert GANLoss(mode).generator(zeros).item() == pytest.approx(generator)


@pytest.mark.parametrize("mode", GAN_MODES)
def test_random_logits_agree_with_numpy(mode: str) -> None:
    real, fake = random_logits(0, (3, 1, 4, 4)), random_logits(1, (2, 1, 6, 6))  # averaged apart
    loss = GANLoss(mode)
    expected = numpy_discriminator_loss(mode, real.numpy(), fake.numpy())
    assert loss.discriminator(real, fake).item() == pytest.approx(expected, rel=1e-9)
    assert loss.generator(fake).item() == pytest.approx(numpy_generator_loss(mode, fake.numpy()), rel=1e-9)


@pytest.mark.parametrize("mode", GAN_MODES)
def test_gan_gradients_agree_with_finite_differences(mode: str) -> None:
    real, fake = random_logits(2, (1, 1, 3, 3)).requires_grad_(), random_logits(3, (1, 1, 3, 3)).requires_grad_()
    assert torch.autograd.gradcheck(GANLoss(mode).discriminator, (real, fake))
    assert torch.autograd.gradcheck(GANLoss(mode).generator, (fake,))


def test_generator_still_gets_a_gradient_from_a_confident_discriminator() -> None:
    fake = torch.full((1, 1, 2, 2), -30.0, requires_grad=True)  # the saturating form's gradient is 1e-13 here
    GANLoss("bce").generator(fake).backward()
    assert fake.grad is not None
    torch.testing.assert_close(fake.grad, torch.full((1, 1, 2, 2), -0.25))


def test_bce_is_exact_and_finite_at_extreme_logits() -> None:
    loss = GANLoss("bce")
    for sign in (1.0, -1.0):
        logits = torch.full((1, 1, 4, 4), sign * 1e4, requires_grad=True)
        value = loss.discriminator(logits, -logits)
        value.backward()
        assert value.item() == (0.0 if sign > 0 else 2e4)
        assert logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", GAN_MODES)
def test_half_precision_logits_are_reduced_in_float32(mode: str, dtype: torch.dtype) -> None:
    real, fake = random_logits(6, (4, 1, 16, 16)).to(dtype), random_logits(7, (4, 1, 16, 16)).to(dtype)
    discriminator, generator = GANLoss(mode).discriminator(real, fake), GANLoss(mode).generator(fake)
    assert discriminator.dtype == generator.dtype == torch.float32
    expected = numpy_discriminator_loss(mode, real.double().numpy(), fake.double().numpy())
    assert discriminator.item() == pytest.approx(expected, rel=1e-5)
    assert generator.item() == pytest.approx(numpy_generator_loss(mode, fake.double().numpy()), rel=1e-4)


def test_float16_lsgan_does_not_overflow() -> None:
    logits = torch.full((1, 1, 2, 2), 1e4, dtype=torch.float16)
    assert GANLoss("lsgan").discriminator(logits, logits).item() == pytest.approx(2e8, rel=1e-3)


def test_unknown_mode_names_what_came_and_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"'wgan'.*'bce', 'lsgan', 'hinge'"):
        GANLoss("wgan")


# ---- pixels ----


def test_pixel_losses_agree_with_numpy() -> None:
    generated, target = random_images(0), random_images(1)
    difference = generated.double().numpy() - target.double().numpy()
    assert L1Loss()(generated, target).item() == pytest.approx(np.abs(difference).mean(), rel=1e-5)
    assert L2Loss()(generated, target).item() == pytest.approx((difference**2).mean(), rel=1e-5)
    black, white = torch.full((1, 3, 4, 4), -1.0), torch.full((1, 3, 4, 4), 1.0)
    assert (L1Loss()(black, white).item(), L2Loss()(black, white).item()) == (2.0, 4.0)


@pytest.mark.parametrize("loss", [L1Loss(), L2Loss(), tiny_perceptual()])
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 1, 16, 16), (2, 3, 16, 1), (3, 16, 16)])
def test_shapes_that_would_broadcast_are_refused(loss: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 16, 16\).*same"):
        loss(random_images(0), torch.zeros(shape))
    with pytest.raises(ValueError, match="same"):  # also without a term that compares pixels
        Pix2PixLoss(l1_weight=0.0).generator_loss(random_logits(0), random_images(0), torch.zeros(shape))


# ---- perceptual ----


def test_perceptual_loss_agrees_with_its_definition() -> None:
    features, generated, target = tiny_features().eval(), random_images(0), random_images(1)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def maps(images: Tensor) -> list[np.ndarray]:
        unit = ((images.permute(0, 2, 3, 1).double().numpy() + 1) / 2 - mean) / std
        first = features[:2](torch.from_numpy(unit).permute(0, 3, 1, 2).float())
        kept = first.detach().numpy().copy()
        return [kept, features[2:](first).detach().numpy()]

    expected = np.mean([np.abs(a - b).mean() for a, b in zip(maps(generated), maps(target), strict=True)])
    assert tiny_perceptual()(generated, target).item() == pytest.approx(expected, rel=1e-4)


def test_perceptual_loss_looks_from_another_place_each_time() -> None:
    """Of an image under strides of 2, each of the four places in turn."""
    features = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2))
    plain, shifted = PerceptualLoss(features, layers=(0,)), PerceptualLoss(features, layers=(0,), shift=2)
    images = [random_images(0), random_images(1)]
    expected = {
        plain(*(image.roll((down, right), (2, 3)) for image in images)).item() for down in (0, 1) for right in (0, 1)
    }
    torch.manual_seed(0)
    assert {shifted(*images).item() for _ in range(100)} == expected
    assert len(expected) == 4
    generated = images[0].clone().requires_grad_()
    for _ in range(100):
        shifted(generated, images[1]).backward()
    reached = generated.grad.abs().sum((0, 1))
    assert min(reached[row::2, column::2].min() for row in (0, 1) for column in (0, 1)) > 0
    torch.manual_seed(7)
    first = shifted(*images)
    torch.manual_seed(7)
    assert torch.equal(shifted(*images), first), "a resumed run could not end as an uninterrupted one"


def test_inplace_activations_do_not_alter_the_maps_compared() -> None:
    convolution = nn.Conv2d(3, 4, 1)
    before_relu = PerceptualLoss(nn.Sequential(convolution), layers=(0,))
    with_relu_after = PerceptualLoss(nn.Sequential(convolution, nn.ReLU(inplace=True)), layers=(0, 1))
    relu_only = PerceptualLoss(nn.Sequential(convolution, nn.ReLU()), layers=(1,))
    pair = random_images(0), random_images(1)
    torch.testing.assert_close(with_relu_after(*pair), (before_relu(*pair) + relu_only(*pair)) / 2)


def test_default_layers_are_the_four_relus_before_vgg16s_pools() -> None:
    """relu1_2, relu2_2, relu3_3 and relu4_3: each the last ReLU of its block, with 64, 128, 256 and 512 channels."""
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    features = make_layers(cfgs["D"])  # vgg16(weights=None).features, without the classifier's 124 M parameters
    loss = PerceptualLoss(features)
    maps = loss._feature_maps(torch.zeros(1, 3, 16, 16))
    assert [tuple(each.shape[1:]) for each in maps] == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    for index in losses.PERCEPTUAL_NETWORKS["vgg16"].layers:
        assert isinstance(features[index], nn.ReLU) and isinstance(features[index + 1], nn.MaxPool2d)
    assert loss(torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)).item() > 0


def squeezenet_file(path: Path) -> dict[str, Tensor]:
    """A file in torchvision's layout, with random weights; returns what it holds."""
    torch.manual_seed(0)
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return state


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_squeezenet_compares_unit_vectors_of_its_seven_layers(name: str, tmp_path: Path) -> None:
    state, pair = squeezenet_file(tmp_path / name), (random_images(0, (2, 3, 32, 32)), random_images(1, (2, 3, 32, 32)))
    network = torchvision.models.squeezenet1_1(weights=None)
    network.load_state_dict(state)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (losses.IMAGENET_MEAN, losses.IMAGENET_STD))
    first, second = (((images + 1) / 2 - mean) / std for images in pair)
    distances = []
    for index, layer in enumerate(network.features.eval()):
        first, second = layer(first.clone()), layer(second.clone())
        if index in (1, 4, 7, 9, 10, 11, 12):
            units = [maps / maps.norm(dim=1, keepdim=True).clamp(min=1e-12) for maps in (first, second)]
            distances.append((units[0] - units[1]).abs().mean().item())
    found = PerceptualLoss(network="squeezenet", file=tmp_path / name)(*pair)
    assert found.item() == pytest.approx(np.mean(distances), rel=1e-5)


def test_a_run_shifts_what_the_perceptual_loss_looks_at(tmp_path: Path) -> None:
    squeezenet_file(tmp_path / "weights.pth")
    loss = make_loss(preset_config("strong", perceptual_file=str(tmp_path / "weights.pth"))).reconstruction[
        "perceptual"
    ]
    pair = (random_images(0, (1, 3, 32, 32)), random_images(1, (1, 3, 32, 32)))
    assert len({loss(*pair).item() for _ in range(20)}) > 1


@pytest.mark.parametrize("content", [None, b"no weights", "other"])
def test_a_file_that_holds_no_such_weights_is_refused_by_name(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    if content == "other":
        save_file({"features.0.weight": torch.zeros(4, 3, 3, 3)}, path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"squeezenet1_1.*{path} does not hold them.*leave --perceptual-file out"):
        PerceptualLoss(network="squeezenet", file=path)


def test_perceptual_gradient_reaches_generated_but_not_target() -> None:
    generated, target = random_images(0).requires_grad_(), random_images(1).requires_grad_()
    tiny_perceptual()(generated, target).backward()
    assert generated.grad is not None and generated.grad.abs().sum() > 0
    assert target.grad is None


def test_perceptual_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    loss = PerceptualLoss(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh()), layers=(0, 1)).double()
    generated, target = random_images(0, (1, 3, 4, 4)).double(), random_images(1, (1, 3, 4, 4)).double()
    assert torch.autograd.gradcheck(lambda images: loss(images, target), (generated.requires_grad_(),))


def test_perceptual_network_is_frozen_and_stays_in_evaluation_mode() -> None:
    features = tiny_features()
    loss = PerceptualLoss(features, layers=(1, 4))
    parent = nn.ModuleList([loss]).train()
    assert len(list(parent.parameters())) == 4 and not any(p.requires_grad for p in parent.parameters())
    assert not any(module.training for module in loss.modules())
    pair = random_images(0), random_images(1)
    assert torch.equal(loss(*pair), loss(*pair))  # the dropout inside is off


def test_the_callers_features_are_left_alone() -> None:
    features = tiny_features()
    PerceptualLoss(features, layers=(1, 4))
    assert all(p.requires_grad for p in features.parameters()) and features.training
    assert isinstance(features[1], nn.ReLU) and features[1].inplace


def test_one_channel_counts_as_three_equal_ones() -> None:
    loss, gray, other = tiny_perceptual(), random_images(0, (2, 1, 8, 8)), random_images(1, (2, 1, 8, 8))
    torch.testing.assert_close(loss(gray, other), loss(gray.repeat(1, 3, 1, 1), other.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channel_counts_are_refused(channels: int) -> None:
    image = torch.zeros(1, channels, 8, 8)
    with pytest.raises(ValueError, match=rf"3 channels, or 1.*\(1, {channels}, 8, 8\).*--perceptual-weight 0"):
        tiny_perceptual()(image, image)


def test_perceptual_loss_computes_in_float32_for_bfloat16_and_under_autocast() -> None:
    loss, generated, target = tiny_perceptual(), random_images(0).bfloat16(), random_images(1).bfloat16()
    expected = loss(generated.float(), target.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = loss(generated, target)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, expected) and torch.equal(loss(generated, target), expected)


@pytest.mark.parametrize("layers", [(), (1, 1), (-1,), (5,)])
def test_layers_outside_the_features_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"5 layers.*0\.\.4"):
        PerceptualLoss(tiny_features(), layers=layers)


def test_features_that_are_no_sequence_of_layers_are_refused() -> None:
    with pytest.raises(TypeError, match="Conv2d.*nn.Sequential"):
        PerceptualLoss(nn.Conv2d(3, 4, 3), layers=(0,))


def without_network(monkeypatch: pytest.MonkeyPatch, hub_dir: Path) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(hub_dir))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)


@pytest.mark.parametrize("broken", [False, True])
def test_weights_that_cannot_be_had_say_which_file_where_and_what_to_type(
    broken: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_network(monkeypatch, tmp_path)
    if broken:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"<html>proxy login</html>")
    with pytest.raises(UserError) as caught:
        PerceptualLoss()
    for part in ("vgg16-397923af.pth", f"{tmp_path}/checkpoints", "--perceptual-weight 0"):
        assert part in str(caught.value)
    assert broken or isinstance(caught.value.__cause__, urllib.error.URLError)


def test_weights_in_torch_hubs_folder_are_used_and_no_random_number_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torchvision.models.vgg import cfgs, make_layers

    without_network(monkeypatch, tmp_path)
    with torch.device("meta"):
        shapes = {f"features.{key}": value.shape for key, value in make_layers(cfgs["D"]).state_dict().items()}
    state = {key: torch.full((), 0.25 + i).expand(shape) for i, (key, shape) in enumerate(shapes.items())}
    (tmp_path / "checkpoints").mkdir()
    torch.save(state | {"classifier.0.bias": torch.zeros(4096)}, tmp_path / "checkpoints" / "vgg16-397923af.pth")
    before = torch.get_rng_state()
    loaded = PerceptualLoss().state_dict()
    assert len(loaded) == 20  # weight and bias of the ten convolutions up to relu4_3
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())
    assert torch.equal(torch.get_rng_state(), before)


# ---- feature matching ----


def test_feature_matching_is_the_mean_over_layers_and_moves_generated_only() -> None:
    generated = [torch.zeros(2, 3, 4, 4, requires_grad=True), torch.ones(2, 5, 2, 2, requires_grad=True)]
    real = [torch.full((2, 3, 4, 4), 0.5, requires_grad=True), torch.full((2, 5, 2, 2), -2.0, requires_grad=True)]
    loss = FeatureMatchingLoss()(generated, real)
    assert loss.item() == pytest.approx((0.5 + 3) / 2)
    loss.backward()
    assert all(maps.grad is None for maps in real)
    torch.testing.assert_close(generated[0].grad, torch.full((2, 3, 4, 4), -1 / (2 * 96)))


# ---- the two objectives ----


def test_paper_objective_is_gan_plus_a_hundred_l1() -> None:
    fake, generated, target = random_logits(0), random_images(0), random_images(1)
    parts = Pix2PixLoss().generator_loss(fake, generated, target)
    gan = numpy_generator_loss("bce", fake.numpy())
    l1 = float(np.abs(generated.double().numpy() - target.double().numpy()).mean())
    assert set(parts) == {"total", "gan", "l1"}
    assert parts["gan"].item() == pytest.approx(gan, rel=1e-5)
    assert parts["l1"].item() == pytest.approx(l1, rel=1e-5)
    assert parts["total"].item() == pytest.approx(gan + 100 * l1, rel=1e-5)


def test_every_term_enters_the_total_with_its_weight() -> None:
    fake, generated, target = random_logits(0), random_images(0), random_images(1)
    maps = [random_images(2)], [random_images(3)]
    loss = Pix2PixLoss("hinge", 0.5, 7.0, 3.0, 2.0, perceptual=tiny_perceptual(), feature_matching_weight=4.0)
    parts = loss.generator_loss(fake, generated, target, *maps)
    expected = {
        "gan": GANLoss("hinge").generator(fake),
        "l1": L1Loss()(generated, target),
        "l2": L2Loss()(generated, target),
        "perceptual": tiny_perceptual()(generated, target),
        "feature_matching": FeatureMatchingLoss()(*maps),
    }
    total = 0.5 * expected["gan"] + 7 * expected["l1"] + 3 * expected["l2"] + 2 * expected["perceptual"]
    total = total + 4 * expected["feature_matching"]
    torch.testing.assert_close(
        {k: v.double() for k, v in parts.items()}, {k: v.double() for k, v in {"total": total, **expected}.items()}
    )


@pytest.mark.parametrize("mode", GAN_MODES)
def test_discriminator_weight_scales_the_discriminator_loss(mode: str) -> None:
    real, fake = random_logits(0), random_logits(1)
    full = Pix2PixLoss(mode).discriminator_loss(real, fake)
    halved = Pix2PixLoss(mode, discriminator_weight=0.5).discriminator_loss(real, fake)
    assert full.item() == pytest.approx(numpy_discriminator_loss(mode, real.numpy(), fake.numpy()))
    assert halved.item() == pytest.approx(full.item() / 2)


def test_total_gradient_is_the_weighted_sum_of_closed_forms() -> None:
    generated, target = random_images(0).requires_grad_(), random_images(1)
    fake = random_logits(0).float().requires_grad_()
    Pix2PixLoss(gan_weight=2.0, l1_weight=10.0).generator_loss(fake, generated, target)["total"].backward()
    assert fake.grad is not None and generated.grad is not None
    torch.testing.assert_close(fake.grad, 2 * (torch.sigmoid(fake.detach()) - 1) / fake.numel())
    torch.testing.assert_close(generated.grad, 10 * torch.sign(generated.detach() - target) / target.numel())


def test_bfloat16_arguments_give_a_float32_objective() -> None:
    fake, generated, target = random_logits(0).bfloat16(), random_images(0).bfloat16(), random_images(1).bfloat16()
    parts = Pix2PixLoss(l2_weight=1.0).generator_loss(fake, generated, target)
    assert {part.dtype for part in parts.values()} == {torch.float32}
    assert Pix2PixLoss().discriminator_loss(fake, fake).dtype == torch.float32


def explode(*args: object, **kwargs: object) -> None:
    raise AssertionError("a term of weight 0 was built or computed")


def test_terms_of_weight_zero_are_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PerceptualLoss", "L1Loss", "L2Loss"):
        monkeypatch.setattr(losses, name, explode)
    parts = Pix2PixLoss(l1_weight=0.0).generator_loss(random_logits(0), random_images(0), random_images(1))
    assert set(parts) == {"total", "gan"}
    with pytest.raises(AssertionError, match="built"):  # the guard does see a term that is wanted
        Pix2PixLoss(l1_weight=0.0, perceptual_weight=1.0)


def test_a_gan_term_of_weight_zero_is_never_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GANLoss, "generator", explode)
    parts = Pix2PixLoss(gan_weight=0.0).generator_loss(random_logits(0), random_images(0), random_images(1))
    assert set(parts) == {"total", "l1"}


@pytest.mark.parametrize("name", ["gan_weight", "l1_weight", "l2_weight", "perceptual_weight", "discriminator_weight"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_negative_and_infinite_weights_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        Pix2PixLoss(**{name: value})  # type: ignore[arg-type]


def test_a_generator_with_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ValueError, match="weights are 0.*l1_weight"):
        Pix2PixLoss(gan_weight=0.0, l1_weight=0.0)
