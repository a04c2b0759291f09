"""Convolutions in other forms against torch's own, and where they are used."""

import pytest
import torch
from torch import Tensor, nn

from pix2pix_hub.models import UNetGenerator, layers
from pix2pix_hub.models.layers import SpectralNormConv2d

LAYERS = {
    "k4 s2": lambda: layers.Conv2d(24, 40, 4, 2, 1),
    "k4 s1, no bias": lambda: layers.Conv2d(24, 40, 4, 1, 1, bias=False),
    "k3 s1": lambda: layers.Conv2d(24, 40, 3, 1, 1),
    "transposed k4 s2": lambda: layers.ConvTranspose2d(40, 24, 4, 2, 1),
    "transposed, no bias": lambda: layers.ConvTranspose2d(40, 24, 4, 2, 1, bias=False),
    "spectral norm": lambda: SpectralNormConv2d(24, 40, 4, 2, 1),
}
SIZES = [(1, 4, 4), (2, 2, 4)]  # (N, H, W)


def plain(layer: nn.Module, x: Tensor) -> Tensor:
    """What torch makes of it."""
    if isinstance(layer, nn.ConvTranspose2d):
        return nn.functional.conv_transpose2d(x, layer.weight, layer.bias, layer.stride, layer.padding)
    return nn.functional.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)


def values_and_gradients(made: Tensor, x: Tensor, layer: nn.Module) -> list[Tensor]:
    weights = torch.linspace(-1, 1, made.numel(), dtype=made.dtype).view_as(made)
    return [made, *torch.autograd.grad((made * weights).sum(), [x, *layer.parameters()])]


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of what was laid out as rows."""
    seen: list[torch.Size] = []
    rows = layers._rows
    monkeypatch.setattr(layers, "_rows", lambda columns: seen.append(columns.shape) or rows(columns))
    return seen


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_torchs(name: str, size: tuple[int, int, int], products: list[torch.Size]) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    number, height, width = size
    x = torch.randn(number, layer.in_channels, height, width, dtype=torch.float64, requires_grad=True)
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    ours = values_and_gradients(layer(x), x, layer)
    assert products, "torch's own convolution ran"
    layer.load_state_dict(state)  # a power iteration back
    if name == "spectral norm":
        with nn.utils.parametrize.cached():
            theirs = values_and_gradients(plain(layer, x), x, layer)
    else:
        theirs = values_and_gradients(plain(layer, x), x, layer)
    assert ours[0].is_contiguous()  # or everything after it would be laid out in another way
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-10)


def test_large_maps_and_exports_are_left_to_torch(products: list[torch.Size]) -> None:
    torch.manual_seed(0)
    generator = UNetGenerator(base_channels=8, num_downs=4)
    generator(torch.zeros(1, 3, 64, 64))
    assert products == [(1, 512, 16), (1, 576, 16), (1, 64, 16)]  # innermost: conv, bottleneck, convT; 64 wide, 4x4
    with torch.inference_mode():
        products.clear()
        generator.eval()(torch.zeros(1, 3, 64, 64))
        assert len(products) == 3
    products.clear()
    generator(torch.zeros(1, 3, 64, 64))
    assert products == []


def test_names_of_the_weights_are_torchs() -> None:
    assert list(LAYERS["k4 s2"]().state_dict()) == list(nn.Conv2d(1, 1, 1).state_dict())
    assert list(LAYERS["transposed k4 s2"]().state_dict()) == list(nn.ConvTranspose2d(1, 1, 1).state_dict())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 16, 32), (2, 16, 17), (1, 256, 1)], ids=str)
def test_a_resize_is_a_transposed_convolution(
    size: tuple[int, int, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = layers.ResizeConv(5, 7, bias).double()
    x = torch.randn(size[0], 5, *size[1:], dtype=torch.float64, requires_grad=True)
    theirs = values_and_gradients(nn.functional.conv2d(layer[0](x), *layer.parameters(), padding=1), x, layer)
    monkeypatch.setattr(layers.Conv2d, "forward", None)  # is not asked
    for mine, expected in zip(values_and_gradients(layer(x), x, layer), theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-10)


def test_small_resizes_and_exported_ones_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layers.ResizeConv(3, 2, bias=True)
    monkeypatch.setattr(torch.nn.functional, "conv_transpose2d", None)
    assert layer(torch.zeros(1, 3, 15, 17)).shape == (1, 2, 30, 34)
    with torch.inference_mode():
        assert layer.eval()(torch.zeros(9, 3, 15, 17)).shape == (9, 2, 30, 34)
    layer.train()
    assert layers.ResizeConv(300, 2, bias=True)(torch.zeros(1, 300, 16, 16)).shape == (1, 2, 32, 32)
    assert layer.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2, 64, 64)
    assert list(layer.state_dict()) == ["1.weight", "1.bias"]
