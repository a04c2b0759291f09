"""Both networks: published sizes, shapes, receptive fields, and the paper's network built a second way."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.overrides import TorchFunctionMode

from pix2pix_hub.config import preset_config
from pix2pix_hub.models import PatchGANDiscriminator, SpectralNormConv2d, UNetGenerator
from pix2pix_hub.models.layers import INIT_STD, make_norm


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("preset", "generator", "discriminator"),
    [("specification", 44_189_891, 2_768_705), ("compact", 9_077_786, 1_830_245), ("paper", 54_413_955, 2_768_705)],
)
def test_parameter_counts_are_exactly_the_specified_ones(preset: str, generator: int, discriminator: int) -> None:
    config = preset_config(preset)
    with torch.device("meta"):
        assert count(UNetGenerator(**config.generator_options())) == generator
        assert count(PatchGANDiscriminator(**config.discriminator_options())) == discriminator


def test_map_sizes_and_widths_are_those_of_the_table() -> None:
    shapes: list[tuple[int, ...]] = []
    with torch.device("meta"):
        network = UNetGenerator()
        for stage in [*network.encoder, network.bottleneck, *network.decoder, network.output]:
            stage.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape[1:3])))
        network(torch.zeros(1, 3, 256, 256))
    encoder = [(64, 128), (128, 64), (256, 32), (512, 16), (512, 8), (512, 4), (512, 2)]
    decoder = [(512, 4), (512, 8), (512, 16), (256, 32), (128, 64), (64, 128)]
    assert shapes == [*encoder, (512, 2), *decoder, (3, 256)]


def test_initial_weights_are_normal_with_std_002() -> None:
    torch.manual_seed(0)
    weights = torch.cat(
        [p.detach().flatten() for name, p in UNetGenerator().named_parameters() if "norm" not in name and p.ndim > 1]
    )
    assert weights.mean().abs() < 1e-5
    assert weights.std().item() == pytest.approx(0.02, rel=1e-3)


class PublishedUNet(nn.Module):
    """The paper's generator written the other way, recursively and with ReLUs in front, as its authors describe it."""

    def __init__(self, widths: list[int], outer: int, channels_in: int) -> None:
        super().__init__()
        inner, *deeper = widths
        self.innermost, self.outermost = not deeper, outer == 0
        self.down = nn.Conv2d(channels_in, inner, 4, 2, 1, bias=False)
        self.down_norm = nn.Identity() if self.innermost or self.outermost else nn.BatchNorm2d(inner)
        self.deeper = None if self.innermost else PublishedUNet(deeper, inner, inner)
        up_in = inner if self.innermost else 2 * inner
        self.up = nn.ConvTranspose2d(up_in, outer or 3, 4, 2, 1, bias=self.outermost)
        self.up_norm = nn.Identity() if self.outermost else nn.BatchNorm2d(outer)

    def forward(self, x: Tensor) -> Tensor:
        entered = x if self.outermost else nn.functional.leaky_relu(x, 0.2)
        y = self.down_norm(self.down(entered))
        if self.deeper is not None:
            y = self.deeper(y)
        y = self.up_norm(self.up(y.relu()))
        return y.tanh() if self.outermost else torch.cat([y, x], dim=1)


def test_paper_preset_is_the_published_network() -> None:
    torch.manual_seed(1)
    config = preset_config("paper", image_size="64", base_channels=4, dropout=0.0)
    ours = UNetGenerator(**config.generator_options())
    published = PublishedUNet([4, 8, 16, 32, 32, 32], 0, 3)
    level: PublishedUNet | None = published
    for depth, stage in enumerate(ours.encoder):
        assert level is not None
        level.down.load_state_dict(stage.conv.state_dict())
        if isinstance(level.down_norm, nn.BatchNorm2d):
            level.down_norm.load_state_dict(stage.norm.state_dict())
        up = ours.decoder[-depth] if depth else None
        level.up.load_state_dict((up.up if up else ours.output).state_dict())
        if up:
            level.up_norm.load_state_dict(up.norm.state_dict())
        level = level.deeper
    source = torch.rand(3, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(ours(source), published(source), rtol=1e-5, atol=1e-6)


# --- discriminator ---


def gradient_field(network: PatchGANDiscriminator, row: int) -> tuple[int, int]:
    """Height and width of the input region that one output's gradient reaches."""
    pair = torch.rand(1, 6, 256, 256, requires_grad=True)
    logits = network(pair)
    logits[0, 0, row, row].backward()
    assert pair.grad is not None
    reached = pair.grad[0].abs().sum(0) > 0
    rows, columns = reached.any(1).nonzero(), reached.any(0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


@pytest.mark.parametrize(("output_stride", "row"), [(16, 8), (8, 15)])
def test_receptive_field_is_70_by_70_by_gradients(output_stride: int, row: int) -> None:
    network = PatchGANDiscriminator(base_channels=4, output_stride=output_stride, norm="none", spectral_norm=False)
    assert gradient_field(network, row) == (70, 70)
    assert network.receptive_field == 70


@pytest.mark.parametrize(("output_stride", "outputs"), [(16, 16), (8, 30)])
def test_outputs_of_a_256_pair(output_stride: int, outputs: int) -> None:
    network = PatchGANDiscriminator(base_channels=4, output_stride=output_stride)
    assert network(torch.rand(2, 6, 256, 256)).shape == (2, 1, outputs, outputs)


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (128, 512)])
def test_output_stride_16_divides_exactly(size: tuple[int, int]) -> None:
    logits = PatchGANDiscriminator(base_channels=2)(torch.rand(1, 6, *size))
    assert logits.shape[-2:] == (size[0] // 16, size[1] // 16)


def test_features_are_the_maps_of_the_four_blocks_beside_the_same_logits() -> None:
    network, pair = PatchGANDiscriminator(base_channels=4, spectral_norm=False), torch.rand(2, 6, 64, 64) * 2 - 1
    logits, maps = network(pair, features=True)
    assert [tuple(each.shape) for each in maps] == [(2, 4, 32, 32), (2, 8, 16, 16), (2, 16, 8, 8), (2, 32, 7, 7)]
    assert torch.equal(logits, network(pair)) and torch.equal(logits, network.output(network.pad(maps[-1])))


@pytest.mark.parametrize("computes", [torch.bfloat16, torch.float16])
def test_the_discriminator_takes_any_floating_dtype(computes: torch.dtype) -> None:
    network, pair = PatchGANDiscriminator(base_channels=4).to(computes).eval(), torch.rand(1, 6, 64, 64) * 2 - 1
    assert network(pair).dtype == torch.float32
    assert torch.equal(network(pair), network(pair.to(computes)).float())


def test_probabilities_are_the_sigmoid_of_the_logits() -> None:
    network = PatchGANDiscriminator(base_channels=4).eval()
    pair = torch.rand(1, 6, 64, 64)
    torch.testing.assert_close(network.probabilities(pair), 1 / (1 + (-network(pair)).exp()))


def test_small_pairs_and_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="31x64.*32 pixels"):
        PatchGANDiscriminator(base_channels=2)(torch.rand(1, 6, 31, 64))
    with pytest.raises(ValueError, match="8 or 16"):
        PatchGANDiscriminator(output_stride=4)
    with pytest.raises(ValueError, match="in_channels"):
        PatchGANDiscriminator(1)


def test_every_convolution_is_spectrally_normalised_or_none() -> None:
    def kinds(network: nn.Module) -> set[type]:
        return {type(module).__mro__[1] for module in network.modules() if isinstance(module, nn.Conv2d)}

    assert kinds(PatchGANDiscriminator(base_channels=2)) == {SpectralNormConv2d}
    assert SpectralNormConv2d not in kinds(PatchGANDiscriminator(base_channels=2, spectral_norm=False))


def test_spectral_norm_makes_the_largest_singular_value_one() -> None:
    torch.manual_seed(0)
    layer = SpectralNormConv2d(6, 16, 4, 2, 1)
    for _ in range(30):
        layer(torch.rand(1, 6, 8, 8))
    largest = torch.linalg.svdvals(layer.eval().weight.flatten(1))[0]
    assert largest.item() == pytest.approx(1.0, abs=1e-3)


class CudaAutocast(TorchFunctionMode):
    """Casts products of a matrix and a vector as autocast does on CUDA; on a CPU it leaves them alone."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.mv and torch.is_autocast_enabled("cpu"):
            args = tuple(arg.bfloat16() for arg in args)
        if func is torch.vdot:  # of two dtypes takes the wider
            args = tuple(arg.float() for arg in args)
        return func(*args, **(kwargs or {}))


def test_spectral_norm_is_exact_under_autocast() -> None:
    torch.manual_seed(0)
    layer = SpectralNormConv2d(6, 16, 4, 2, 1)
    left, right = torch.linalg.qr(torch.randn(16, 16))[0], torch.linalg.qr(torch.randn(96, 16))[0]
    values = torch.linspace(1.0, 2.0, 16)
    values[-1] = 4.0  # far from the others, so that few iterations find its vectors
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(((left * values) @ right.T).view(16, 6, 4, 4))
    with CudaAutocast(), torch.autocast("cpu", torch.bfloat16):
        for _ in range(20):
            weight = layer.weight
    assert torch.linalg.svdvals(weight.detach().flatten(1))[0].item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_spectral_norm_is_torchs_own(channels_last: bool) -> None:
    """Same random numbers, same names in the state; the same weight, vectors and gradient."""
    torch.manual_seed(0)
    ours = SpectralNormConv2d(6, 16, 4, 2, 1)
    torch.manual_seed(0)
    theirs = nn.Conv2d(6, 16, 4, 2, 1)
    nn.init.normal_(theirs.weight, 0.0, INIT_STD)
    spectral_norm(theirs)
    if channels_last:
        ours, theirs = (layer.to(memory_format=torch.channels_last) for layer in (ours, theirs))
    ours, theirs = ours.double(), theirs.double()
    images = torch.rand(2, 6, 32, 32, dtype=torch.float64)
    for layer in (ours, theirs):
        (layer(images).square().mean() + layer(images + 1).square().mean()).backward()
    state, expected = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(expected) and all(torch.equal(state[name], expected[name]) for name in state)
    gradients = [layer.parametrizations.weight.original.grad for layer in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(ours.eval().weight, theirs.eval().weight, rtol=1e-12, atol=0)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("number", [1, 2])
def test_instance_norm_is_torchs_own_to_the_last_digit(number: int, affine: bool) -> None:
    torch.manual_seed(0)
    layers = make_norm("instance", 4, affine=affine), nn.InstanceNorm2d(4, affine=affine)
    found = []
    for layer in layers:
        images = torch.linspace(-3, 5, number * 4 * 36).view(number, 4, 6, 6).requires_grad_()
        if affine:
            nn.init.constant_(layer.weight, 0.7)
        made = layer(images)
        made.square().mean().backward()
        found.append((made, images.grad, *(parameter.grad for parameter in layer.parameters())))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
