"""One training step against the same mathematics written out plainly."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_leaves_with_path

from pix2pix_hub.losses import Pix2PixLoss
from pix2pix_hub.models import PatchGANDiscriminator, UNetGenerator
from pix2pix_hub.training.image_buffer import ImageBuffer
from pix2pix_hub.training.step import CudaGraphs, GANStep, MovingAverage
from pix2pix_hub.util import UserError

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


def adam(network: nn.Module, fused: bool = False) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999), fused=fused)


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), 1.0)


def networks(norm: str = "instance", spectral_norm: bool = False) -> tuple[UNetGenerator, PatchGANDiscriminator]:
    torch.manual_seed(0)
    generator = UNetGenerator(base_channels=4, num_downs=3, dropout=0.0, norm=norm)
    discriminator = PatchGANDiscriminator(base_channels=4, norm=norm, spectral_norm=spectral_norm)
    return generator.double(), discriminator.double()  # Adam's first steps magnify the rounding of small gradients


def batches(count: int, size: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    shape = (count, 2, size, 3, 32, 32)
    return [(pair[0], pair[1]) for pair in torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1]


def make_step(
    generator: nn.Module,
    discriminator: nn.Module,
    *,
    optimizer: MakeOptimizer = adam,
    accumulate: int = 1,
    scaler: torch.amp.GradScaler | None = None,
    **options,
) -> GANStep:
    """`scaler`: as fp16 on a GPU has it; the networks stay in their own precision."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    accelerator.scaler = scaler
    prepared = accelerator.prepare(generator, discriminator, optimizer(generator), optimizer(discriminator))
    if scaler is not None:
        accelerator.native_amp, accelerator.state._mixed_precision = True, "fp16"
    return GANStep(accelerator, *prepared, **({"loss": Pix2PixLoss(), "buffer": ImageBuffer(0)} | options))


def plain_steps(generator: nn.Module, discriminator: nn.Module, data: list[tuple[Tensor, Tensor]]) -> list[list[float]]:
    """pix2pix by the book: two forwards of D, losses in closed form; (L_D, L_G) of each step."""
    optimizer_g, optimizer_d = adam(generator), adam(discriminator)
    losses = []
    for source, target in data:
        fake = generator(source)
        real_logits = discriminator(torch.cat([source, target], 1))
        fake_logits = discriminator(torch.cat([source, fake.detach()], 1))
        d_loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        optimizer_d.zero_grad()
        d_loss.backward()
        optimizer_d.step()
        g_loss = F.softplus(-discriminator(torch.cat([source, fake], 1))).mean() + 100 * (fake - target).abs().mean()
        optimizer_g.zero_grad()
        g_loss.backward()
        optimizer_g.step()
        losses.append([d_loss.item(), g_loss.item()])
    return losses


def assert_same_weights(ours: nn.Module, plain: nn.Module) -> None:
    for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("norm", ["instance", "none", "batch"])
def test_three_steps_are_those_of_the_plain_loop(norm: str) -> None:
    generator, discriminator = networks(norm)
    plain = copy.deepcopy(generator), copy.deepcopy(discriminator)
    data = batches(3)
    step = make_step(generator, discriminator)
    losses = [step(*batch) for batch in data]
    found = torch.tensor([[loss["d_loss"].item(), loss["g_loss"].item()] for loss in losses])
    torch.testing.assert_close(found, torch.tensor(plain_steps(*plain, data)), rtol=1e-6, atol=0)
    assert_same_weights(generator, plain[0])
    assert_same_weights(discriminator, plain[1])


def test_feature_matching_compares_the_new_discriminators_maps() -> None:
    """Both updates in closed form: the maps come from the discriminator after its own update, the real ones fixed."""
    generator, discriminator = networks()
    plain = copy.deepcopy(generator), copy.deepcopy(discriminator)
    source, target = batches(1)[0]
    losses = make_step(generator, discriminator, loss=Pix2PixLoss(feature_matching_weight=10.0))(source, target)
    fake = plain[0](source)
    generated = copy.deepcopy(discriminator)(torch.cat([source, fake], 1), features=True)[1]
    real = copy.deepcopy(discriminator)(torch.cat([source, target], 1), features=True)[1]
    distances = [(ours - theirs).abs().mean() for ours, theirs in zip(generated, real, strict=True)]
    assert len(distances) == 4
    torch.testing.assert_close(losses["g_feature_matching"], torch.stack(distances).mean().detach())
    expected = losses["g_gan"] + 100 * losses["g_l1"] + 10 * losses["g_feature_matching"]
    torch.testing.assert_close(losses["g_loss"], expected)
    plain_steps(*plain, [(source, target)])  # without feature matching: the same discriminator, another generator
    assert_same_weights(discriminator, plain[1])
    assert any(not torch.allclose(a, b) for a, b in zip(generator.parameters(), plain[0].parameters(), strict=True))


def test_real_and_fake_are_apart_under_batch_norm() -> None:
    generator, discriminator = networks("batch")
    sizes: list[int] = []
    discriminator.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    make_step(generator, discriminator)(*batches(1)[0])
    assert sizes == [2, 2, 2]


def test_real_and_fake_go_through_together_otherwise() -> None:
    generator, discriminator = networks("instance", spectral_norm=True)
    sizes: list[int] = []
    discriminator.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    make_step(generator, discriminator)(*batches(1)[0])
    assert sizes == [4, 2]


def test_accumulated_halves_give_the_step_of_the_whole_batch() -> None:
    whole, halves = networks(), networks()
    source, target = batches(1, size=4)[0]
    make_step(*whole, optimizer=sgd)(source, target)
    step = make_step(*halves, optimizer=sgd, accumulate=2)
    for part in (slice(0, 2), slice(2, 4)):
        step(source[part], target[part])
    # Discriminators only: the generator's first half met the discriminator before its update, its second half after.
    assert_same_weights(halves[1], whole[1])
    assert step.accelerator.sync_gradients


def test_nothing_moves_before_the_last_accumulated_batch() -> None:
    generator, discriminator = networks()
    before = copy.deepcopy(generator), copy.deepcopy(discriminator)
    make_step(generator, discriminator, accumulate=2)(*batches(1)[0])
    assert_same_weights(generator, before[0])
    assert_same_weights(discriminator, before[1])


def test_the_discriminator_takes_no_gradient_from_the_generators_loss() -> None:
    generator, discriminator = networks()
    make_step(generator, discriminator)(*batches(1)[0])
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.requires_grad for parameter in discriminator.parameters())


def test_clipping_bounds_each_networks_update() -> None:
    generator, discriminator = networks()
    before = copy.deepcopy(generator), copy.deepcopy(discriminator)
    make_step(generator, discriminator, optimizer=sgd, max_grad_norm=0.01)(*batches(1)[0])
    for network, old in zip((generator, discriminator), before, strict=True):
        moved = [a - b for a, b in zip(network.parameters(), old.parameters(), strict=True)]
        assert torch.cat([delta.flatten() for delta in moved]).norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_scaled_losses_change_nothing_where_batches_are_accumulated(max_grad_norm: float) -> None:
    """Scales are powers of two, so exactly nothing; this one doubles at each of its updates."""
    plain, scaled = networks(), networks()
    options = dict(optimizer=sgd, accumulate=2, max_grad_norm=max_grad_norm)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    for pair, own in ((plain, None), (scaled, scaler)):
        step = make_step(*pair, scaler=own, **options)
        for batch in batches(4):
            step(*batch)
    for ours, theirs in zip(scaled, plain, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert scaler.get_scale() == 32.0


@pytest.mark.parametrize(
    ("size", "advice"),
    [(3, r"3 pairs of 32x32 .* --batch-size 1 --gradient-accumulation-steps 4, or a smaller --image-size"),
     (1, r"1 pair of 32x32 .* run with a smaller --image-size or --base-channels")],
)  # fmt: skip
def test_too_little_memory_is_said_with_what_to_lower(size: int, advice: str) -> None:
    generator, discriminator = networks()

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    discriminator.register_forward_pre_hook(fail)
    with pytest.raises(UserError, match=advice + r".*Tried to allocate 2\.00 GiB"):
        make_step(generator, discriminator, accumulate=2)(*batches(1, size)[0])


def test_the_discriminator_is_shown_what_the_buffer_returns() -> None:
    class Swapped(ImageBuffer):
        def exchange(self, pairs: Tensor, rows: Tensor) -> Tensor:
            return torch.full_like(pairs, 0.25)

    generator, discriminator = networks("batch")
    seen: list[Tensor] = []
    discriminator.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    make_step(generator, discriminator, buffer=Swapped(1))(*batches(1)[0])
    assert torch.equal(seen[1], torch.full_like(seen[1], 0.25))


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_the_average_follows_its_closed_form(decay: float) -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = MovingAverage(layer, decay)
    values, expected = [math.sin(3 * step) for step in range(40)], 0.0
    for updates, value in enumerate(values):
        with torch.no_grad():
            layer.weight.fill_(value)
        average.update_parameters(layer)
        warm = min(decay, (1 + updates) / (10 + updates)) if updates else 0.0
        expected = warm * expected + (1 - warm) * value
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_the_average_is_updated_once_a_step() -> None:
    generator, discriminator = networks()
    average = MovingAverage(generator, 0.9)
    step = make_step(generator, discriminator, accumulate=2, average=average)
    for batch in batches(4):
        step(*batch)
    assert int(average.n_averaged) == 2


def test_the_average_takes_three_kernels_and_sends_nothing_to_its_device() -> None:
    class Calls(TorchDispatchMode):
        """Notes each operation that touches the average's device, and what it takes from elsewhere."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, made)) if isinstance(leaf, Tensor)}
            if "meta" in devices and func is not torch.ops.aten.detach.default:
                calls.append((str(func), devices))
            return made

    generator = UNetGenerator(base_channels=4, num_downs=3, norm="batch").to("meta")
    average = MovingAverage(generator, 0.9, "meta")
    calls: list[tuple[str, set[str]]] = []
    for _ in range(2):
        calls.clear()
        with Calls():
            average.update_parameters(generator)
        assert len(calls) == 3  # weights, running statistics, counts of batches
        assert all(devices == {"meta"} for _, devices in calls), calls


def test_the_average_copies_batch_norms_records() -> None:
    generator = UNetGenerator(base_channels=4, num_downs=3, norm="batch")
    average = MovingAverage(generator, 0.9)
    for _ in range(3):
        generator(torch.rand(2, 3, 32, 32) * 2 - 1)
        average.update_parameters(generator)
    assert all(torch.equal(a, b) for a, b in zip(average.module.buffers(), generator.buffers(), strict=True))


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_nothing_is_fetched_from_the_device_in_a_step(norm: str) -> None:
    class Fetches(TorchDispatchMode):
        """Notes each tensor whose value Python asks for."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._local_scalar_dense.default:
                fetched.append(args[0])
            return func(*args, **(kwargs or {}))

    generator, discriminator = networks(norm, spectral_norm=True)
    fetched: list[Tensor] = []
    options = {"buffer": ImageBuffer(2), "average": MovingAverage(generator, 0.9), "max_grad_norm": 1.0}
    step = make_step(generator, discriminator, optimizer=partial(adam, fused=True), **options)
    with Fetches():
        for batch in batches(3):
            step(*batch)
    assert fetched, "the average's own counter is asked for"
    assert not [value for value in fetched if value.is_floating_point()]


class Emulated(CudaGraphs):
    """Records nothing, and does the same again: what a graph's replay is to its host."""

    def warm_up(self, call):
        return call()

    def record(self, call):
        return call


class Run:
    """A step with all that it changes, and a falling learning rate, as the trainer has it."""

    def __init__(self, capture: CudaGraphs | None) -> None:
        generator, discriminator = (network.float() for network in networks("batch", spectral_norm=True))
        self.networks = generator, discriminator
        self.average, self.buffer = MovingAverage(generator, 0.99), ImageBuffer(4, seed=3)
        options = dict(optimizer=partial(adam, fused=True), average=self.average, buffer=self.buffer)
        self.step = make_step(generator, discriminator, capture=capture, max_grad_norm=1.0, **options)
        self.optimizers = self.step.generator_optimizer.optimizer, self.step.discriminator_optimizer.optimizer
        # powers of two are the same in float32, which a recorded step reads them in
        self.schedules = [
            LambdaLR(optimizer, lambda number: 2.0 ** -(12 + number // 20) / 2e-4) for optimizer in self.optimizers
        ]
        self.parts = [*self.networks, *self.optimizers, *self.schedules, self.average, self.buffer]

    def train(self, first: int, last: int) -> list[dict[str, Tensor]]:
        """Steps `first` to `last`; every fifth has a smaller batch."""
        losses = []
        for number in range(first, last):
            source, target = batches(last, size=3)[number]
            items = slice(0, 2 if number % 5 == 4 else 3)
            losses.append(self.step(source[items].float(), target[items].float()))
            for schedule in self.schedules:
                schedule.step()
        return losses

    def state(self) -> dict[str, Any]:
        return copy.deepcopy({str(number): part.state_dict() for number, part in enumerate(self.parts)})


def assert_same_state(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    leaves = tree_leaves_with_path(ours)
    for (path, a), b in zip(leaves, tree_leaves(theirs), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b or callable(a), (path, a, b)


def test_recorded_steps_are_the_eager_ones_to_the_last_digit_also_when_resumed() -> None:
    eager, recorded, resumed = Run(None), Run(Emulated()), Run(Emulated())
    expected = eager.train(0, 50)
    found = recorded.train(0, 20)
    saved = recorded.state()
    found += recorded.train(20, 50)
    assert recorded.step._recorded is not None and len(recorded.step._recorded.source) == 3
    assert_same_state(recorded.state(), eager.state())
    assert_same_state({"losses": found}, {"losses": expected})
    assert all(type(group["lr"]) is float for optimizer in recorded.optimizers for group in optimizer.param_groups)
    for number, part in enumerate(resumed.parts):
        part.load_state_dict(saved[str(number)])
    resumed.train(20, 50)
    assert_same_state(resumed.state(), eager.state())
