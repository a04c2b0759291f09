"""The networks: two generators and a discriminator."""

from pix2pix_hub.models.discriminator import PatchGANDiscriminator
from pix2pix_hub.models.generator import UNetGenerator
from pix2pix_hub.models.layers import ConvBlock, SpectralNormConv2d
from pix2pix_hub.models.resnet_generator import ResNetGenerator

__all__ = ["ConvBlock", "PatchGANDiscriminator", "ResNetGenerator", "SpectralNormConv2d", "UNetGenerator"]
