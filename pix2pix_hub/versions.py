"""Which versions of what a number or a model was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

RECORDED_PACKAGES = (
    "pix2pix_hub", "torch", "torchvision", "accelerate", "datasets", "huggingface_hub", "safetensors", "torchmetrics",
    "torch_fidelity", "numpy", "pillow",
)  # fmt: skip


def library_versions() -> dict[str, str]:
    """Versions of Python and of what training and measuring depend on."""
    versions = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue  # the package itself need not be installed to run from a checkout
    return versions
