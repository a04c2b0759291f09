"""What every generator promises, asked of each of them in its variants."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pix2pix_hub.models import ResNetGenerator, UNetGenerator
from pix2pix_hub.models.base import Generator
from pix2pix_hub.models.generators import GENERATORS, load_generator

VARIANTS: dict[str, tuple[type[Generator], dict]] = {
    "unet": (UNetGenerator, dict(num_downs=3)),
    "unet, paper": (
        UNetGenerator,
        dict(num_downs=4, norm="batch", encoder_activation="leaky_relu", bottleneck="none", encoder_bias=False),
    ),
    "unet, running": (UNetGenerator, dict(num_downs=2, norm="batch", norm_statistics="running", upsampling="resize")),
    "unet, late dropout": (UNetGenerator, dict(num_downs=4, dropout_stages=2, first_dropout_stage=1)),
    "unet, no norm": (UNetGenerator, dict(num_downs=3, norm="none")),
    "resnet": (ResNetGenerator, dict(num_blocks=2, dropout=0.5)),
    "resnet, batch": (ResNetGenerator, dict(num_blocks=1, norm="batch", dropout=0.5)),
    "resnet, running": (
        ResNetGenerator,
        dict(num_blocks=1, norm="batch", norm_statistics="running", upsampling="resize", dropout=0.1),
    ),
    "resnet, no norm": (ResNetGenerator, dict(num_blocks=1, norm="none", upsampling="resize", dropout=0.5)),
}


@pytest.fixture(params=VARIANTS)
def network(request: pytest.FixtureRequest) -> Generator:
    """Small, from 2 channels to 5, with weights that make something of their input."""
    torch.manual_seed(0)
    network_class, options = VARIANTS[request.param]
    made = network_class(2, 5, base_channels=4, **options)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)
    return made.eval()


def sources(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 2, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_all_generators_are_asked() -> None:
    assert {network_class.__name__ for network_class, _ in VARIANTS.values()} == set(GENERATORS)


def test_size_out_is_size_in_from_the_smallest_on(network: Generator) -> None:
    least, step = network.minimum_size, network.size_multiple
    assert least % step == 0
    for height, width in [(least, least), (least, least + step), (least + 3 * step, least)]:
        for mode in (True, False):
            generated = network.train(mode)(sources(1, height, width))
            assert generated.shape == (1, 5, height, width)
            assert generated.abs().max() <= 1


def test_other_sizes_are_refused_with_the_next_that_works(network: Generator) -> None:
    least, step = network.minimum_size, network.size_multiple
    with pytest.raises(ValueError, match=rf"multiples of {step}, from {least}.*{least + step}x{least}\."):
        network(sources(1, least + 1, least))
    if least > step:
        with pytest.raises(ValueError, match=rf"{least}x{least}\."):
            network(sources(1, step, step))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (torch.zeros(2, 32, 32), "expected"),
        (torch.zeros(1, 3, 32, 32), "expected"),
        (torch.zeros(1, 2, 32, 32).byte(), "floats"),
    ],
)
def test_what_is_no_batch_of_sources_is_refused(network: Generator, source: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        network(source)


@pytest.mark.parametrize("computes", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("comes", [torch.float32, torch.bfloat16, torch.float64])
def test_any_floating_dtype_comes_and_the_same_goes(
    network: Generator, computes: torch.dtype, comes: torch.dtype
) -> None:
    source = torch.rand(1, network.in_channels, network.minimum_size, network.minimum_size) * 2 - 1
    copied = copy.deepcopy(network).to(computes)
    generated = copied(source.to(comes))
    assert generated.dtype == comes and copied.dtype == computes
    expected = copied(source.to(comes).to(computes))
    assert torch.equal(generated, expected.to(comes))


def test_images_of_a_batch_do_not_see_each_other_at_inference(network: Generator) -> None:
    batch = sources(3, 32, 48)
    alone = torch.cat([network(image[None]) for image in batch])
    torch.testing.assert_close(network(batch), alone, rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_only(network: Generator) -> None:
    batch = sources(1, 32, 32)
    assert torch.equal(network(batch), network(batch))
    network.train()
    assert not torch.equal(network(batch), network(batch))


def test_every_parameter_takes_part(network: Generator) -> None:
    network.train()(sources(2, 32, 48)).square().mean().backward()
    assert not [name for name, parameter in network.named_parameters() if parameter.grad is None]


def test_it_comes_back_from_its_files_bitwise(network: Generator, tmp_path: Path) -> None:
    network.save_files(tmp_path)
    loaded = load_generator(tmp_path)
    assert type(loaded) is type(network)
    assert loaded.config == network.config == json.loads(json.dumps(network.config))
    assert torch.equal(loaded(sources(1, 32, 32)), network(sources(1, 32, 32)))


@pytest.mark.parametrize("network_class", GENERATORS.values())
def test_every_argument_is_checked(network_class: type[Generator]) -> None:
    names = list(network_class().config)
    assert len(names) > 7
    for name in names:
        for value in (-1, 10**9, "nonsense", ["batch"], None):
            with pytest.raises(ValueError, match=name):
                network_class(**{name: value})
    with pytest.raises(ValueError, match="norm_statistics is 'running', which norm 'instance' has none of"):
        network_class(norm="instance", norm_statistics="running")


@pytest.mark.parametrize("variant", ["unet, running", "resnet, running"])
def test_running_statistics_are_those_of_common_batch_norm(variant: str) -> None:
    """After some training the network gives what it gives with torch's own layers in place of ours."""
    network_class, options = VARIANTS[variant]
    network = network_class(2, 5, base_channels=4, **options)
    for _ in range(3):
        network(torch.rand(4, 2, 32, 32) * 3)
    generated = network.eval()(sources(2, 32, 32))
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                common = nn.BatchNorm2d(layer.num_features).eval()
                common.load_state_dict(layer.state_dict())
                setattr(parent, name, common)
    assert torch.equal(network(sources(2, 32, 32)), generated)
    with_image_statistics = network_class(2, 5, base_channels=4, **{**options, "norm_statistics": "image"}).eval()
    with_image_statistics.load_state_dict(network.state_dict())
    assert not torch.allclose(with_image_statistics(sources(2, 32, 32)), generated, atol=1e-4)


@pytest.mark.parametrize(("blocks", "parameters"), [(9, 11_378_179), (6, 7_837_699)])
def test_the_resnets_are_as_large_as_the_published_ones(blocks: int, parameters: int) -> None:
    with torch.device("meta"):
        network = ResNetGenerator(num_blocks=blocks)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
