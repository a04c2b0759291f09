"""The metrics by name: what each is, what it needs, and the choices that make its number comparable."""

from __future__ import annotations

from dataclasses import dataclass

from pix2pix_hub.image.format import PixelFormat


@dataclass(frozen=True)
class Metric:
    """What a metric's number means."""

    title: str  # as tables and curves print it
    unit: str
    higher_is_better: bool
    per_image: bool  # the mean of one value for each image; else one value of all images together
    protocol: str  # what else must be the same where two numbers are compared
    network: str | None = None  # whose published weights it needs: see `metrics.networks`
    least_size: int = 11  # pixels that height and width must have

    def improves(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far, if any."""
        return best is None or (value > best if self.higher_is_better else value < best)

    def to_dict(self) -> dict[str, str | bool]:
        """JSON-ready: what stands beside a value."""
        return {"unit": self.unit, "higher_is_better": self.higher_is_better, "protocol": self.protocol}


_FLOATS = "images in [0, 1] at the trained size, generated ones as float32, not rounded to 8 bits"
_INCEPTION = (
    "8-bit RGB images, resized to 299x299 as the original TensorFlow code does (torch-fidelity), 2048 features of "
    "Inception v3 (weights of 2015-12-05); generated images against the same number of real ones of the same pairs"
)
METRICS: dict[str, Metric] = {
    "l1": Metric("L1", "mean absolute difference, 0 to 1", False, True, _FLOATS, least_size=1),
    "psnr": Metric("PSNR", "dB", True, True, f"data range 1, the mean of each image's own; {_FLOATS}", least_size=1),
    "ssim": Metric(
        "SSIM",
        "up to 1",
        True,
        True,
        f"Wang et al. 2004: 11x11 Gaussian window, sigma 1.5, data range 1, borders mirrored and counted; {_FLOATS}",
    ),
    "ms_ssim": Metric(
        "MS-SSIM",
        "0 to 1",
        True,
        True,
        f"Wang et al. 2003: five scales, windows as SSIM's, data range 1, negative terms set to 0; {_FLOATS}",
        least_size=176,
    ),
    "lpips": Metric(
        "LPIPS",
        "0 (equal) and up",
        False,
        True,
        "Zhang et al. 2018, version 0.1, AlexNet, images in [-1, 1] at the trained size, not rounded to 8 bits",
        "lpips",
        32,
    ),
    "fid": Metric("FID", "0 (equal) and up", False, False, f"Heusel et al. 2017: {_INCEPTION}", "inception", 1),
    "kid": Metric(
        "KID",
        "around 0 (equal) and up",
        False,
        False,
        "Bińkowski et al. 2018, unbiased, polynomial kernel of degree 3; all images up to 1000, else the mean of 100 "
        f"seeded subsets of 1000: {_INCEPTION}",
        "inception",
        1,
    ),
}


def unusable(name: str, format: PixelFormat, image_size: tuple[int, int]) -> str | None:
    """Why a metric cannot look at images of this kind and size (height, width); None: it can."""
    metric = METRICS[name]
    if min(image_size) < metric.least_size:
        height, width = image_size
        return f"{metric.title} needs {metric.least_size} pixels each way; these images are {height}x{width}"
    if metric.network is not None and (format.mode == "labels" or format.channels not in (1, 3)):
        return f"{metric.title}'s network knows pictures of 1 or 3 channels; these images are {format.describe()}"
    return None
