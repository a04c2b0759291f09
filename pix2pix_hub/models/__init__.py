"""The two networks."""

from pix2pix_hub.models.discriminator import PatchGANDiscriminator
from pix2pix_hub.models.generator import UNetGenerator
from pix2pix_hub.models.layers import ConvBlock, SpectralNormConv2d

__all__ = ["ConvBlock", "PatchGANDiscriminator", "SpectralNormConv2d", "UNetGenerator"]
