"""What the benchmarks compare with: pix2pix written down plainly, as one would after reading the paper.

U-Net of depth 8 and 70x70 PatchGAN with batch norm (Isola et al. 2017, section 6.1), eager, float32, NCHW, two forwards
of the discriminator in its own update, unfused Adam, losses fetched at every step. Shares no code with the package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DOWN, UP = (64, 128, 256, 512, 512, 512, 512, 512), (512, 512, 512, 512, 256, 128, 64)
DROPOUT_STAGES = 3


class ReferenceGenerator(nn.Module):
    """(N, 3, H, W) → (N, 3, H, W), both in [-1, 1]; H and W multiples of 256."""

    def __init__(self) -> None:
        super().__init__()
        self.downs = nn.ModuleList()
        before = 3
        for stage, width in enumerate(DOWN):
            layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if stage else []
            layers.append(nn.Conv2d(before, width, 4, 2, 1, bias=False))
            if 0 < stage < len(DOWN) - 1:
                layers.append(nn.BatchNorm2d(width))
            self.downs.append(nn.Sequential(*layers))
            before = width
        self.ups = nn.ModuleList()
        for stage, width in enumerate(UP):
            layers = [nn.ReLU(), nn.ConvTranspose2d(before, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width)]
            if 0 < stage <= DROPOUT_STAGES:
                layers.append(nn.Dropout(0.5))
            self.ups.append(nn.Sequential(*layers))
            before = 2 * width
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(before, 3, 4, 2, 1), nn.Tanh())

    def forward(self, source: Tensor) -> Tensor:
        x, skips = source, []
        for down in self.downs:
            x = down(x)
            skips.append(x)
        skips.pop()
        for up in self.ups:
            x = torch.cat([skips.pop(), up(x)], 1)
        return self.last(x)


def reference_discriminator() -> nn.Module:
    """(N, 6, H, W) → logits (N, 1, H/8 - 2, W/8 - 2)."""
    layers: list[nn.Module] = [nn.Conv2d(6, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    for before, after, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
        layers += [nn.Conv2d(before, after, 4, stride, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1))


class ReferenceStep:
    """One update of both networks; call with source and target, (N, 3, H, W) in [-1, 1]."""

    def __init__(self, device: torch.device) -> None:
        self.generator = ReferenceGenerator().to(device).train()
        self.discriminator = reference_discriminator().to(device).train()
        betas = (0.5, 0.999)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), 2e-4, betas, fused=False, foreach=False)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), 2e-4, betas, fused=False, foreach=False)
        self.gan, self.l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()

    def __call__(self, source: Tensor, target: Tensor) -> dict[str, float]:
        fake = self.generator(source)

        self.discriminator.requires_grad_(True)
        self.optimizer_d.zero_grad()
        fake_logits = self.discriminator(torch.cat([source, fake.detach()], 1))
        real_logits = self.discriminator(torch.cat([source, target], 1))
        d_loss = self.gan(fake_logits, torch.zeros_like(fake_logits)) + self.gan(
            real_logits, torch.ones_like(real_logits)
        )
        (0.5 * d_loss).backward()
        self.optimizer_d.step()

        self.discriminator.requires_grad_(False)
        self.optimizer_g.zero_grad()
        fake_logits = self.discriminator(torch.cat([source, fake], 1))
        l1 = self.l1(fake, target)
        g_loss = self.gan(fake_logits, torch.ones_like(fake_logits)) + 100 * l1
        g_loss.backward()
        self.optimizer_g.step()
        return {"d_loss": d_loss.item(), "g_loss": g_loss.item(), "l1": l1.item()}
