"""The networks: two generators and a discriminator."""

from pix2pix_hub.models.discriminator import PatchGANDiscriminator
from pix2pix_hub.models.generators import ResNetGenerator, UNetGenerator, load_generator
from pix2pix_hub.models.layers import ConvBlock, SpectralNormConv2d

__all__ = [
    "ConvBlock",
    "PatchGANDiscriminator",
    "ResNetGenerator",
    "SpectralNormConv2d",
    "UNetGenerator",
    "load_generator",
]
