"""Which versions of what a number or a model was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version

import pix2pix_hub

RECORDED_PACKAGES = (
    "torch", "torchvision", "accelerate", "datasets", "huggingface_hub", "safetensors", "torchmetrics",
    "torch-fidelity", "numpy", "pillow",
)  # fmt: skip


def library_versions() -> dict[str, str]:
    """Versions of Python and of what training and measuring depend on."""
    versions = {"python": platform.python_version(), "pix2pix_hub": pix2pix_hub.__version__}
    return versions | {package: version(package) for package in RECORDED_PACKAGES}
