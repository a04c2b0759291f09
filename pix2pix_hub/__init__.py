"""pix2pix_hub: paired image-to-image translation (Isola et al. 2017) for the Hugging Face stack.

Names are imported on first use, so that `import pix2pix_hub` costs nothing by itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pix2pix_hub.util import __version__

if TYPE_CHECKING:
    from pix2pix_hub.config import TrainingConfig as TrainingConfig
    from pix2pix_hub.config import preset_config as preset_config
    from pix2pix_hub.inference.pipeline import Pix2PixPipeline as Pix2PixPipeline
    from pix2pix_hub.losses import GANLoss as GANLoss
    from pix2pix_hub.losses import L1Loss as L1Loss
    from pix2pix_hub.losses import L2Loss as L2Loss
    from pix2pix_hub.losses import PerceptualLoss as PerceptualLoss
    from pix2pix_hub.losses import Pix2PixLoss as Pix2PixLoss
    from pix2pix_hub.models import PatchGANDiscriminator as PatchGANDiscriminator
    from pix2pix_hub.models import ResNetGenerator as ResNetGenerator
    from pix2pix_hub.models import UNetGenerator as UNetGenerator
    from pix2pix_hub.training.image_buffer import ImageBuffer as ImageBuffer
    from pix2pix_hub.training.trainer import Pix2PixTrainer as Pix2PixTrainer

_MODULE_OF = {
    "GANLoss": "losses",
    "ImageBuffer": "training.image_buffer",
    "L1Loss": "losses",
    "L2Loss": "losses",
    "PatchGANDiscriminator": "models",
    "PerceptualLoss": "losses",
    "Pix2PixLoss": "losses",
    "Pix2PixPipeline": "inference.pipeline",
    "Pix2PixTrainer": "training.trainer",
    "ResNetGenerator": "models",
    "TrainingConfig": "config",
    "UNetGenerator": "models",
    "preset_config": "config",
}
__all__ = [*_MODULE_OF, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
