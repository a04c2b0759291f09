"""One training step of the conditional GAN (Isola et al. 2017, section 3.4): discriminator first, then generator.

The generator runs forward once a batch; its images, detached, train the discriminator and, attached, the generator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from textwrap import shorten

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pix2pix_hub.losses import Pix2PixLoss
from pix2pix_hub.training.image_buffer import ImageBuffer
from pix2pix_hub.util import UserError, counted

STEPS_BEFORE_CAPTURE = 2  # the first brings the optimizers' states, compiled networks and cuDNN's choices


class GANStep:
    """Callable that takes one batch through both updates.

    Args:
        accelerator: prepared the networks and optimizers; decides when gradients are synchronised and applied.
        generator, discriminator: prepared networks, in training mode.
        generator_optimizer, discriminator_optimizer: their prepared optimizers.
        loss: the two objectives.
        buffer: past generated pairs for the discriminator.
        average: moving average of the generator, or None.
        capture: how steps on batches of one shape are recorded once and then replayed; None: each is taken anew. For
            one process that accumulates nothing and scales no loss, with fused optimizers.
        max_grad_norm: L2 norm that each network's gradient is clipped to; 0: no clipping.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        generator: nn.Module,
        discriminator: nn.Module,
        generator_optimizer: AcceleratedOptimizer,
        discriminator_optimizer: AcceleratedOptimizer,
        loss: Pix2PixLoss,
        buffer: ImageBuffer,
        average: MovingAverage | None = None,
        max_grad_norm: float = 0.0,
        capture: CudaGraphs | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.generator = generator
        self.discriminator = discriminator
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        self.loss = loss
        self.buffer = buffer
        self.average = average
        self.max_grad_norm = max_grad_norm
        self.capture = capture
        self._recorded: _Recorded | None = None
        self._rates: list[Tensor] = []  # of both optimizers, on the device
        self._taken: Counter[torch.Size] = Counter()  # steps by the shape of the batch, until one is recorded
        self._bare_generator = accelerator.unwrap_model(generator, keep_fp32_wrapper=True)
        self._bare_discriminator = accelerator.unwrap_model(discriminator, keep_fp32_wrapper=True)

    def __call__(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Update both networks on a batch of (N, C, H, W) images in [-1, 1].

        Returns:
            Detached scalars, not yet fetched from the device: `d_loss`, `g_loss` (both as optimised) and the
            unweighted parts of the latter, `g_gan`, `g_l1`, ….

        Raises:
            UserError: the device has too little memory for it.
        """
        try:
            return self._step(source, target)
        except torch.OutOfMemoryError as error:
            pairs, _, height, width = source.shape
            gathered = 2 * self.accelerator.gradient_accumulation_steps
            less = f"--batch-size {pairs // 2} --gradient-accumulation-steps {gathered}, or " if pairs > 1 else ""
            raise UserError(
                f"the GPU's memory does not hold a step on {counted(pairs, 'pair')} of {height}x{width} (height x "
                f"width): start a new run with {less}a smaller --image-size or --base-channels. "
                f"({shorten(str(error), 200)})"
            ) from error

    def _step(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        with self.accelerator.accumulate(self.generator, self.discriminator):
            rows = self.buffer.draw(len(source), source.device)
            if self.capture is None:
                losses = self._updates(source, target, rows)
            else:
                losses = self._captured(self.capture, source, target, rows)
            if self.average is not None and self.accelerator.sync_gradients:
                self.average.update_parameters(self._bare_generator)
        return losses

    def _captured(self, capture: CudaGraphs, source: Tensor, target: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """`_updates`, recorded after the first steps on such batches, which bring all that lasts into being."""
        with self._rates_on_device(source.device):
            if self._recorded is None and self._taken[source.shape] == STEPS_BEFORE_CAPTURE:
                inputs = source.clone(), target.clone()
                self._recorded = _Recorded(*inputs, capture.record(lambda: self._updates(*inputs, rows)))
            recorded = self._recorded
            if recorded is None:
                self._taken[source.shape] += 1
                return capture.warm_up(lambda: self._updates(source, target, rows))
            if recorded.source.shape != source.shape:  # the last batch of an epoch: not worth compiling for
                with torch.compiler.set_stance("force_eager"):
                    return self._updates(source, target, rows)
            recorded.source.copy_(source)
            recorded.target.copy_(target)
            return recorded.replay()

    @contextmanager
    def _rates_on_device(self, device: torch.device) -> Iterator[None]:
        """Learning rates where a recorded step looks for them; to schedules and checkpoints they are floats."""
        groups = [optimizer.param_groups[0] for optimizer in (self.generator_optimizer, self.discriminator_optimizer)]
        if not self._rates:
            self._rates = [torch.zeros((), device=device) for _ in groups]
        floats = [group["lr"] for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group.update(lr=rate.fill_(group["lr"]), capturable=True)
        try:
            yield
        finally:
            for group, value in zip(groups, floats, strict=True):
                group.update(lr=value, capturable=False)

    def _updates(self, source: Tensor, target: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Both networks' updates: what `__call__` returns."""
        generated = self.generator(source)
        d_loss = self._update_discriminator(source, target, generated.detach(), rows)
        g_losses = self._update_generator(source, target, generated)
        losses = {"d_loss": d_loss, "g_loss": g_losses.pop("total")}
        return {
            name: value.detach()
            for name, value in (losses | {f"g_{part}": g_losses[part] for part in g_losses}).items()
        }

    def _update_discriminator(self, source: Tensor, target: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
        real_pair = torch.cat([source, target], dim=1)
        fake_pair = self.buffer.exchange(torch.cat([source, generated], dim=1), rows)
        loss = self.loss.discriminator_loss(*self._discriminate(real_pair, fake_pair))
        self._apply(loss, self._bare_discriminator, self.discriminator_optimizer)
        return loss

    def _discriminate(self, real_pair: Tensor, fake_pair: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both, in one forward where that is the same function.

        With batch norm it is not: real and fake would share statistics, which gives the discriminator the answer.
        """
        if self._bare_discriminator.norm == "batch":
            return self.discriminator(real_pair), self.discriminator(fake_pair)
        real_logits, fake_logits = self.discriminator(torch.cat([real_pair, fake_pair])).chunk(2)
        return real_logits, fake_logits

    def _update_generator(self, source: Tensor, target: Tensor, generated: Tensor) -> dict[str, Tensor]:
        # The bare, frozen discriminator: no gradients of its own here, so nothing for DDP to reduce.
        self._bare_discriminator.requires_grad_(False)
        fake_pair = torch.cat([source, generated], dim=1)
        if self.loss.feature_matching is None:
            losses = self.loss.generator_loss(self._bare_discriminator(fake_pair), generated, target)
        else:
            with torch.no_grad():
                _, real_maps = self._bare_discriminator(torch.cat([source, target], dim=1), features=True)
            fake_logits, fake_maps = self._bare_discriminator(fake_pair, features=True)
            losses = self.loss.generator_loss(fake_logits, generated, target, fake_maps, real_maps)
        self._apply(losses["total"], self._bare_generator, self.generator_optimizer)
        self._bare_discriminator.requires_grad_(True)
        return losses

    def _apply(self, loss: Tensor, network: nn.Module, optimizer: AcceleratedOptimizer) -> None:
        self.accelerator.backward(loss)
        if not self.accelerator.sync_gradients:
            return
        if self.max_grad_norm:
            self.accelerator.unscale_gradients(optimizer)  # of this network alone: the other's may be half gathered
            nn.utils.clip_grad_norm_(network.parameters(), self.max_grad_norm)
        if (scaler := self.accelerator.scaler) is None:
            optimizer.step()
        else:  # fp16; a step of the wrapper would change the scale while the generator's gradients are being gathered
            scaler.step(optimizer.optimizer)
            if optimizer is self.generator_optimizer:  # the last of the two
                scaler.update()
        optimizer.zero_grad()


class CudaGraphs:
    """Records what a function does on a GPU, as one CUDA graph: replayed, it costs the host one launch."""

    @cached_property
    def _aside(self) -> torch.cuda.Stream:
        return torch.cuda.Stream()

    def warm_up(self, call: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Call it beside the default stream, to which nothing of a later recording may be tied."""
        here, aside = torch.cuda.current_stream(), self._aside
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            made = call()
        here.wait_stream(aside)
        return made

    def record(self, call: Callable[[], dict[str, Tensor]]) -> Callable[[], dict[str, Tensor]]:
        """What does the same again, on the same memory; its scalars are new ones each time. Nothing is computed yet."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = call()
            values = torch.stack(list(made.values()))

        def replay() -> dict[str, Tensor]:
            graph.replay()
            return dict(zip(made, values.clone().unbind(), strict=True))

        return replay


@dataclass(frozen=True)
class _Recorded:
    """A recorded step: where it reads its batch, and what replays it."""

    source: Tensor
    target: Tensor
    replay: Callable[[], dict[str, Tensor]]


class MovingAverage(AveragedModel):
    """Exponential moving average of a generator's weights, with a warm-up of its decay; the rest is copied.

    After n updates the decay is min(`decay`, (1 + n) / (10 + n)), so that the first, random weights are soon
    forgotten and short runs average over a tenth of their length.

    Args:
        generator: to begin with.
        decay: in [0, 1).
        device: of the average; the counter of updates stays on the CPU, so that no GPU is waited for.
    """

    def __init__(self, generator: nn.Module, decay: float, device: torch.device | str = "cpu") -> None:
        super().__init__(generator)
        self.module.to(device)
        self.decay = decay
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in the weights as they are, in a few kernels; `model` is the same one at each call, on one device."""
        if not self._pairs:  # of weights, then of batch norm's records, by dtype: walking a network takes a while
            ours, theirs = (_by_dtype(net.parameters()) + _by_dtype(net.buffers()) for net in (self.module, model))
            self._pairs = list(zip(ours, theirs, strict=True))
        (averages, weights), *records = self._pairs
        updates = int(self.n_averaged)
        torch._foreach_lerp_(averages, weights, max(1 - self.decay, 9 / (10 + updates)) if updates else 1.0)
        for copies, values in records:
            torch._foreach_copy_(copies, values)
        self.n_averaged += 1


def _by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())
