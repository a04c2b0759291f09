"""What a trainer is built from: Accelerate, and both networks with all that trains them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.devices import (
    check_alike,
    missing_for_compilation,
    process_state,
    resolve_mixed_precision,
    sharing_failures,
    use_cpu,
)
from pix2pix_hub.losses import PerceptualLoss, Pix2PixLoss
from pix2pix_hub.models import PatchGANDiscriminator, ResNetGenerator, UNetGenerator
from pix2pix_hub.models.base import Generator
from pix2pix_hub.models.layers import BatchNorm2d
from pix2pix_hub.training.image_buffer import ImageBuffer
from pix2pix_hub.training.published import Published
from pix2pix_hub.training.step import CudaGraphs, GANStep, MovingAverage
from pix2pix_hub.util import UserError

PERCEPTUAL_SHIFT = 8  # pixels: SqueezeNet's and VGG16's strides up to the middle of the network (docs/training.md)
STEPS_WORTH_COMPILING = 100_000  # on a GPU: an estimated 0.6 ms each, against a minute of compiling


@dataclass(frozen=True)
class Compilation:
    """What `--compile` came to."""

    networks: bool  # by torch.compile
    step: bool  # recorded as one CUDA graph

    def __str__(self) -> str:
        parts = {"networks compiled": self.networks, "steps replayed as a CUDA graph": self.step}
        return " and ".join(words for words, chosen in parts.items() if chosen) or "off"


@dataclass(frozen=True)
class Learner:
    """Both networks and all that trains them."""

    generator: Generator
    discriminator: PatchGANDiscriminator
    average: MovingAverage | None  # moving average of the generator; None with `--ema-decay 0`
    loss: Pix2PixLoss
    schedules: list[LambdaLR]  # of the generator's optimizer and the discriminator's
    buffer: ImageBuffer
    step: GANStep
    compilation: Compilation

    @property
    def exported_generator(self) -> Generator:
        """The network that is validated and exported: the moving average, or the trained one with `--ema-decay 0`."""
        if self.average is None:
            return self.generator
        assert isinstance(self.average.module, Generator)
        return self.average.module

    @property
    def parameter_counts(self) -> dict[str, int]:
        """Trainable values of each network."""
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}


def make_accelerator(config: TrainingConfig, run_folder: Path) -> Accelerator:
    """Accelerate, as the launcher's environment and `config` say.

    Raises:
        UserError: a precision this device cannot do, or that another process would not choose; a tracker that is not
            installed.
    """
    process_state()
    with sharing_failures():
        for tracker in config.report_to:
            if find_spec(tracker) is None:
                raise UserError(f"--report-to {tracker} is not installed: pip install {tracker}, or leave it out.")
        precision = resolve_mixed_precision(config.mixed_precision, use_cpu())
    check_alike("precision", precision, "type --mixed-precision no, or start it on machines that are alike.")
    # torch 2.15 renames the option below; accelerate 1.15 knows the old name only, which works until torch drops it
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    return Accelerator(
        cpu=use_cpu(),
        mixed_precision=precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=list(config.report_to) or None,
        project_dir=run_folder,
        # Buffers are batch statistics that nothing reads and power iterations that agree by themselves; broadcasting
        # them would overwrite, in place, what the first of two forwards still needs for its backward. Gradients that
        # are views of what is sent need no memory and no copies of their own.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )


def choose_compilation(config: TrainingConfig, accelerator: Accelerator, total_steps: int) -> Compilation:
    """What `--compile` comes to, here.

    A step is recorded on CUDA, unless that is `off`, where it is the same each time: in one process, without
    accumulation, and not in fp16, whose losses are scaled by what the host decides. `auto` has networks compiled
    beside that where so many steps are worth it and nothing is missing, and else not: on a CPU that loses
    (docs/performance.md).

    Raises:
        UserError: `on` where `torch.compile` lacks something, with what to install.
    """
    device_type = accelerator.device.type
    plain_loop = accelerator.num_processes == config.gradient_accumulation_steps == 1
    step = device_type == "cuda" and plain_loop and accelerator.mixed_precision != "fp16" and config.compile != "off"
    if config.compile != "on" and not (step and total_steps >= STEPS_WORTH_COMPILING):
        return Compilation(networks=False, step=step)
    missing = missing_for_compilation(device_type)
    if missing is not None and config.compile == "on":
        raise UserError(f"--compile on: {missing}; or leave it out.")
    return Compilation(networks=missing is None, step=step)


def build_schedule(optimizer: Optimizer, config: TrainingConfig, total_steps: int) -> LambdaLR:
    """Return the learning rate's schedule, to be stepped after each optimizer step: constant, then linear to zero.

    pix2pix (Isola et al. 2017, section 3.3 and appendix 6.2) trains with Adam at 2e-4, for 200 epochs on the small
    sets. The split into 100 epochs at that rate and 100 epochs linearly to zero is the authors' own: their PyTorch
    code's default (`n_epochs` + `n_epochs_decay`) and CycleGAN's section 7.1 (Zhu et al. 2017).

    It falls in the share of `total_steps` that `decay_epochs` has of the epochs; the last of n such steps has 1/n of
    the rate. The schedule's `state_dict` holds the position but no number of steps: a resumed run must pass the same.
    Accelerate's `prepare` would step it once per process, so it stays unprepared.
    """
    decay_epochs = config.epochs / 2 if config.decay_epochs is None else config.decay_epochs
    decay_steps = round(total_steps * decay_epochs / config.epochs)
    return LambdaLR(optimizer, lambda step: min(1.0, max(0, total_steps - step) / max(1, decay_steps)))


def make_networks(
    config: TrainingConfig, source_channels: int, target_channels: int
) -> tuple[Generator, PatchGANDiscriminator]:
    """Both networks with their initial weights."""
    generator_class = UNetGenerator if config.generator == "unet" else ResNetGenerator
    generator = generator_class(source_channels, target_channels, **config.generator_options())
    discriminator = PatchGANDiscriminator(source_channels + target_channels, **config.discriminator_options())
    return generator, discriminator


def make_loss(config: TrainingConfig, target_channels: int = 3) -> Pix2PixLoss:
    """Both objectives, weighted as `config` says.

    Raises:
        UserError: the perceptual loss on targets that its network cannot look at, or without that network's weights.
    """
    perceptual = None
    if config.perceptual_weight:
        if target_channels not in (1, 3):
            raise UserError(
                f"--perceptual-weight {config.perceptual_weight}: the target images have {target_channels} channels, "
                f"and {config.perceptual_network} knows 1 or 3. Leave it out."
            )
        perceptual = PerceptualLoss(
            network=config.perceptual_network, file=config.perceptual_file, shift=PERCEPTUAL_SHIFT
        )
    return Pix2PixLoss(
        gan_mode=config.gan_loss,
        gan_weight=config.gan_weight,
        l1_weight=config.l1_weight,
        l2_weight=config.l2_weight,
        perceptual_weight=config.perceptual_weight,
        feature_matching_weight=config.feature_matching_weight,
        discriminator_weight=config.discriminator_weight,
        perceptual=perceptual,
    )


class _Cast(torch.autograd.Function):
    """Tensors → the same of another dtype, and gradients back, in one kernel each way."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype = tensors[0].dtype
        return _cast(tensors, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_cast(gradients, ctx.dtype)


def _cast(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    made = tuple(torch.empty_like(tensor, dtype=dtype) for tensor in tensors)
    torch._foreach_copy_(made, tensors)
    return made


def gather_kernels(network: nn.Module, precision: str) -> None:
    """Have each forward of `network` do at once what layers do one after the other with tensors of their own.

    That is: cast the weights of convolutions, as autocast does, and count batch norm's batches. Bitwise the same, in
    a tenth of the kernels. Gradients of those weights come together, too, at the end of a backward.

    Args:
        precision: of Accelerate's autocast, which is yet to be put around `network`: "bf16", "fp16", or "no".
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    places = [(layer._parameters, name) for layer in convolutions for name, _ in layer.named_parameters(recurse=False)]
    counts = [(layer._buffers, "num_batches_tracked") for layer in network.modules() if isinstance(layer, BatchNorm2d)]
    forward = network.forward

    def run(*inputs: Any, **options: Any) -> Any:
        weights = [parameters[name] for parameters, name in places]
        counters = [cast(Tensor, buffers[name]) for buffers, name in counts]
        try:
            if dtype is not None and weights:
                for (parameters, name), weight in zip(places, _Cast.apply(dtype, *weights), strict=True):
                    parameters[name] = weight
            for buffers, name in counts:
                buffers[name] = None
            return forward(*inputs, **options)
        finally:
            for (parameters, name), own in zip(places, weights, strict=True):
                parameters[name] = own
            for (buffers, name), counter in zip(counts, counters, strict=True):
                buffers[name] = counter
            if network.training and counters:
                torch._foreach_add_(counters, 1)

    network.forward = run


def make_learner(
    accelerator: Accelerator,
    config: TrainingConfig,
    source_channels: int,
    target_channels: int,
    total_steps: int,
    published: Published | None = None,
) -> Learner:
    """Networks with their initial weights, prepared by `accelerator`; schedules and average are registered with it.

    Args:
        published: where those weights come from; None: drawn at random.

    Raises:
        UserError: see `make_loss` and `choose_compilation`; the published networks are of another kind.
    """
    generator, discriminator = make_networks(config, source_channels, target_channels)
    if accelerator.device.type == "cuda" and torch.backends.cudnn.enabled:
        torch.backends.cudnn.benchmark = True  # all batches but the last of an epoch have one shape
        if accelerator.mixed_precision != "no":  # half-precision kernels are made for it; others would be given copies
            generator.to(memory_format=torch.channels_last)
            discriminator.to(memory_format=torch.channels_last)
    if published is not None:
        published.give_weights(generator, discriminator)
    average = MovingAverage(generator, config.ema_decay, accelerator.device) if config.ema_decay else None
    optimizers = [
        torch.optim.Adam(network.parameters(), config.learning_rate, (config.beta1, config.beta2), fused=True)
        for network in (generator, discriminator)
    ]
    schedules = [build_schedule(optimizer, config, total_steps) for optimizer in optimizers]
    with sharing_failures():  # whose networks one machine may not have
        loss = make_loss(config, target_channels).to(accelerator.device)
    buffer = ImageBuffer(config.buffer_size, seed=config.seed + accelerator.process_index)
    compilation = choose_compilation(config, accelerator, total_steps)
    if compilation.networks:
        # In place, so that names of weights, checkpoints, exports and the moving average know nothing of it; and for
        # each shape apart: the discriminator sees batches of two sizes.
        generator.compile(dynamic=False)
        discriminator.compile(dynamic=False)
    elif accelerator.device.type == "cuda" and accelerator.num_processes == 1:
        gather_kernels(generator, accelerator.mixed_precision)
        gather_kernels(discriminator, accelerator.mixed_precision)
    prepared = accelerator.prepare(generator, discriminator, *optimizers)
    prepared_generator, prepared_discriminator, generator_optimizer, discriminator_optimizer = prepared
    step = GANStep(
        accelerator,
        prepared_generator,
        prepared_discriminator,
        generator_optimizer,
        discriminator_optimizer,
        loss=loss,
        buffer=buffer,
        average=average,
        max_grad_norm=config.max_grad_norm,
        capture=CudaGraphs() if compilation.step else None,
    )
    accelerator.register_for_checkpointing(*schedules, *([] if average is None else [average]))
    return Learner(generator, discriminator, average, loss, schedules, buffer, step, compilation)
