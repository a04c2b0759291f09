"""How good generated images are, in numbers: one table of metrics, their networks, means and confidence intervals.

Values come from torchmetrics, imported where one is computed: that takes as long as importing PyTorch. Images are
(N, C, H, W) in [-1, 1], as networks make them.
"""

from __future__ import annotations

import hashlib
import math
import re
import socket
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pix2pix_hub.image.format import PixelFormat, from_model_range, to_unit_range
from pix2pix_hub.util import UserError

KID_SUBSET, KID_SUBSETS, KID_SEED = 1000, 100, 0
TIMEOUT_SECONDS = 20  # of a connection that says nothing
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.pth$")  # first digits of a published file's SHA-256


NEAR_THE_ENDS = 0.01  # of the range: values that near an end are saturated
MOST_SATURATED = 0.1  # so much larger than that of real images their share may be


@dataclass(frozen=True)
class MetricNetworks:
    """Networks that metrics compare with, each None until one needs it. Any network of these forms will do."""

    lpips: Callable[[Tensor, Tensor], Tensor] | None = None  # two (N, 3, H, W) in [-1, 1] → N distances
    features: Callable[[Tensor], Tensor] | None = None  # uint8 (N, 3, H, W) → (N, features)


@dataclass(frozen=True)
class Metric:
    """A metric: its name, range and direction, what it needs, and how it is computed."""

    title: str  # as tables and curves print it
    unit: str
    higher_is_better: bool
    protocol: str  # what else must be the same where two numbers are compared
    of_images: Callable[[Tensor, Tensor], Tensor] | None = None  # generated and target in [0, 1] → a value for each
    of_sets: Callable[[Tensor, Tensor], float] | None = None  # features of all real and of all generated images → one
    network: str | None = None  # whose published weights it needs: a key of `LOADERS`
    least_size: int = 1  # pixels that height and width must have

    @property
    def per_image(self) -> bool:
        """Whether it is the mean of one value for each image; else it is one value of all images together."""
        return self.of_sets is None


# --- how each is computed


def l1(generated: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of each image, float64."""
    return (generated - target).abs().double().mean(dim=(1, 2, 3))


def by_torchmetrics(function: str, generated: Tensor, target: Tensor, **options: Any) -> Tensor:
    """A value for each image, by a function of `torchmetrics.functional.image`."""
    from torchmetrics.functional import image

    return getattr(image, function)(generated, target, data_range=1.0, reduction="none", **options)


def saturated(images: Tensor) -> Tensor:
    """Share of values within a hundredth of the range of its ends: (N, C, H, W) in [-1, 1] → (N,)."""
    return (images.abs() >= 1 - 2 * NEAR_THE_ENDS).float().flatten(1).mean(1)


class _GivenFeatures(nn.Identity):
    """Stands where torchmetrics expects a network: the features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """|m - m'|² + tr(S + S' - 2 (S S')^½), of means and covariances of float64 (N, features), N from 2
    (Heusel et al. 2017, eq. 6)."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(_GivenFeatures(real.shape[1]), sync_on_compute=False).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return float(metric.compute())


def kernel_distance(real: Tensor, generated: Tensor) -> float:
    """Squared maximum mean discrepancy, unbiased, kernel (x·y / features + 1)³ (Bińkowski et al. 2018, section 4).

    Args:
        real, generated: float64 (N, features), N from 2. Above 1000, the mean over 100 seeded subsets of 1000.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(KID_SUBSET, len(real), len(generated))
    subsets = 1 if size == max(len(real), len(generated)) else KID_SUBSETS
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save", category=UserWarning)
        metric = KernelInceptionDistance(
            _GivenFeatures(real.shape[1]), subsets=subsets, subset_size=size, sync_on_compute=False
        )
    metric.update(real, real=True)
    metric.update(generated, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(KID_SEED)
        return float(metric.compute()[0])


_FLOATS = "images in [0, 1] at the trained size, generated ones as float32, not rounded to 8 bits"
_INCEPTION = (
    "8-bit RGB images, resized to 299x299 as the original TensorFlow code does (torch-fidelity), 2048 features of "
    "Inception v3 (weights of 2015-12-05); generated images against the same number of real ones of the same pairs"
)
METRICS: dict[str, Metric] = {
    "l1": Metric("L1", "mean absolute difference, 0 to 1", False, _FLOATS, l1),
    "psnr": Metric(
        "PSNR",
        "dB",
        True,
        f"data range 1, the mean of each image's own; {_FLOATS}",
        partial(by_torchmetrics, "peak_signal_noise_ratio", dim=(1, 2, 3)),
    ),
    "ssim": Metric(
        "SSIM",
        "up to 1",
        True,
        f"Wang et al. 2004: 11x11 Gaussian window, sigma 1.5, data range 1, borders mirrored and counted; {_FLOATS}",
        partial(by_torchmetrics, "structural_similarity_index_measure"),
        least_size=11,
    ),
    "ms_ssim": Metric(
        "MS-SSIM",
        "0 to 1",
        True,
        f"Wang et al. 2003: five scales, windows as SSIM's, data range 1, negative terms set to 0; {_FLOATS}",
        partial(by_torchmetrics, "multiscale_structural_similarity_index_measure"),
        least_size=176,
    ),
    "lpips": Metric(
        "LPIPS",
        "0 (equal) and up",
        False,
        "Zhang et al. 2018, version 0.1, AlexNet, images in [-1, 1] at the trained size, not rounded to 8 bits",
        network="lpips",
        least_size=32,
    ),
    "fid": Metric(
        "FID",
        "0 (equal) and up",
        False,
        f"Heusel et al. 2017: {_INCEPTION}",
        of_sets=frechet_distance,
        network="features",
    ),
    "kid": Metric(
        "KID",
        "around 0 (equal) and up",
        False,
        "Bińkowski et al. 2018, unbiased, polynomial kernel of degree 3; all images up to 1000, else the mean of 100 "
        f"seeded subsets of 1000: {_INCEPTION}",
        of_sets=kernel_distance,
        network="features",
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


# --- of batches, and of whole sets


def image_values(
    names: Sequence[str], generated: Tensor, target: Tensor, networks: MetricNetworks | None = None
) -> dict[str, Tensor]:
    """The value of every image, by each of `names` that has one; FID and KID are passed over.

    Returns:
        float64 (N,) each, on the images' device. What else is in a batch changes them by no more than rounding.
    """
    generated, target = generated.float(), target.float()
    unit = to_unit_range(generated), to_unit_range(target)
    values = {}
    for name in names:
        if (measure := METRICS[name].of_images) is not None:
            values[name] = measure(*unit).double()
        elif METRICS[name].per_image:
            assert networks is not None and networks.lpips is not None, "LPIPS without its network"
            colored = (image.expand(-1, 3, -1, -1) for image in (generated, target))
            values[name] = networks.lpips(*colored).flatten().double()
    return values


def image_features(images: Tensor, networks: MetricNetworks) -> Tensor:
    """What FID and KID compare: (N, 1 or 3, H, W), rounded to 8 bits → float64 (N, features), on the CPU."""
    assert networks.features is not None, "features without their network"
    return networks.features(from_model_range(images).expand(-1, 3, -1, -1)).double().cpu()


class ImageMetrics:
    """Means over all images of some metrics, fed batch by batch.

    Batches are expected to be gathered from all processes already. A mean does not depend on the order of the images.
    Values of single images stay on the device until `compute`.
    """

    def __init__(self, names: Sequence[str] = ("l1", "psnr", "ssim"), networks: MetricNetworks | None = None) -> None:
        self._names, self._networks = names, networks or MetricNetworks()
        self._values: dict[str, list[Tensor]] = {name: [] for name in names if METRICS[name].per_image}
        self._features: list[tuple[Tensor, Tensor]] = []  # of real, of generated images

    def update(self, generated: Tensor, target: Tensor) -> None:
        """Add a batch."""
        for name, values in image_values(self._names, generated, target, self._networks).items():
            self._values[name].append(values)
        if len(self._values) < len(self._names):
            real, made = (image_features(images, self._networks) for images in (target, generated))
            self._features.append((real, made))

    def compute(self) -> dict[str, float]:
        """`{"l1": …, …}` over all batches since construction, in the order of the names."""
        results = {}
        for name in self._names:
            of_sets = METRICS[name].of_sets
            if of_sets is None:
                results[name] = mean(torch.cat(self._values[name]).tolist())
            else:
                results[name] = of_sets(*(torch.cat(side) for side in zip(*self._features, strict=True)))
        return results


# --- means and their intervals

Floats = NDArray[np.float64]
RESAMPLES = 1000
LEVEL = 0.95
_COUNTS_AT_ONCE = 10_000_000  # numbers held


def mean(values: Sequence[float]) -> float:
    """Rounded once, so that no order of the values changes a digit."""
    return math.fsum(values) / len(values)


def confidence_interval(
    statistic: Callable[[Floats], Floats], images: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The central 95 % of a statistic over seeded resamples of the images: the percentile bootstrap (Efron 1979).

    Args:
        statistic: from how often each resample counts each image, (R, images), to its values, (R,).
        images: how many there are, from 2.
    """
    random = np.random.default_rng(seed)
    at_once = max(1, _COUNTS_AT_ONCE // images)
    chunks = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    shares = np.full(images, 1.0 / images)
    values = np.concatenate([statistic(random.multinomial(images, shares, rows).astype(np.float64)) for rows in chunks])
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def ratio_interval(
    numerator: Floats, denominator: Floats | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The interval of a mean over images or, with a denominator, of one sum over images divided by another."""
    below = np.ones_like(numerator) if denominator is None else denominator
    statistic = lambda counts: (counts @ numerator) / (counts @ below)  # noqa: E731
    return confidence_interval(statistic, len(numerator), resamples=resamples, seed=seed)


# --- published networks


def _load_lpips(device: torch.device) -> Callable[..., Tensor]:
    """LPIPS on torchvision's AlexNet; torchmetrics looks for the weights where `fetch_weights` has put them."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import AlexNet_Weights

    fetch_weights(AlexNet_Weights.IMAGENET1K_V1.url)
    network = LearnedPerceptualImagePatchSimilarity(net_type="alex").net
    assert isinstance(network, nn.Module)
    return network.eval().to(device)


def _load_inception(device: torch.device) -> Callable[..., Tensor]:
    """The 2048 features of torch-fidelity's Inception v3."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    path = str(fetch_weights(URL_INCEPTION_V3))
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)
    network.eval().to(device)
    return lambda images: network(images)[0]


LOADERS = {"lpips": _load_lpips, "features": _load_inception}  # by the fields of `MetricNetworks`


def load_networks(names: Sequence[str], device: torch.device) -> tuple[MetricNetworks, dict[str, str]]:
    """The networks that the metrics `names` need, and why those are missing that could not be had.

    Weights that are not on this machine are downloaded once.

    Returns:
        The networks, in evaluation mode, and for each metric without its network the reason: which file was wanted and
        where to put it.
    """
    loaded: dict[str, Callable[..., Tensor]] = {}
    missing: dict[str, str] = {}
    for network, load in LOADERS.items():
        users = [name for name in names if METRICS[name].network == network]
        try:
            loaded |= {network: load(device)} if users else {}
        except UserError as error:
            missing |= dict.fromkeys(users, str(error))
    return MetricNetworks(**loaded), missing


def fetch_weights(url: str) -> Path:
    """A published file in torch's own folder of downloads (which TORCH_HOME moves), downloaded where it is not there.

    Raises:
        UserError: it could not be downloaded, or is not the published file.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    named = HASH_IN_NAME.search(url)
    assert named is not None, url
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(TIMEOUT_SECONDS)
        try:
            torch.hub.download_url_to_file(url, str(path), named[1], progress=False)
        except Exception as error:  # no network, a proxy, a full disk, a file cut short
            raise UserError(
                f"{path.name} could not be downloaded ({error}): get it from {url} and put it into {path.parent}"
            ) from error
        finally:
            socket.setdefaulttimeout(before)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(named[1]):
        raise UserError(
            f"{path} is not the published file (SHA-256 {digest[:16]}…, expected {named[1]}…): get it from {url} again"
        )
    return path
