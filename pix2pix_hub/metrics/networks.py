"""The two networks whose published weights LPIPS, FID and KID need: where the files are, or why they are not there."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from pix2pix_hub.metrics.registry import METRICS
from pix2pix_hub.util import UserError

TIMEOUT_SECONDS = 20  # of a connection that says nothing


@dataclass(frozen=True)
class MetricNetworks:
    """What compares images as people do; each None until a metric needs it. Any network of these forms will do."""

    lpips: Callable[[Tensor, Tensor], Tensor] | None = None  # two (N, 3, H, W) in [-1, 1] → N distances
    features: Callable[[Tensor], Tensor] | None = None  # uint8 (N, 3, H, W) → (N, features)


@dataclass(frozen=True)
class Weights:
    """A published file, by the address that its first digits of SHA-256 are part of."""

    url: str

    @property
    def path(self) -> Path:
        """Where it is looked for: torch's own folder of downloads, which TORCH_HOME moves."""
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(self.url).path).name

    @property
    def hash_prefix(self) -> str:
        """The first digits of the file's SHA-256."""
        found = re.search(r"-([0-9a-f]{8,})\.pth$", self.url)
        assert found is not None, self.url
        return found[1]


def weights_of(network: str) -> Weights:
    """Those of `"lpips"` (torchvision's AlexNet) or `"inception"` (torch-fidelity's Inception v3)."""
    if network == "lpips":
        from torchvision.models import AlexNet_Weights

        return Weights(AlexNet_Weights.IMAGENET1K_V1.url)
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return Weights(URL_INCEPTION_V3)


def load_networks(names: Sequence[str], device: torch.device) -> tuple[MetricNetworks, dict[str, str]]:
    """The networks that the metrics `names` need, and why those are missing that could not be had.

    Weights that are not on this machine are downloaded once.

    Returns:
        The networks, in evaluation mode, and for each metric without its network the reason: which file was wanted and
        where to put it.
    """
    loaded: dict[str, Callable[..., Tensor]] = {}
    missing: dict[str, str] = {}
    for network in dict.fromkeys(METRICS[name].network for name in names):
        if network is None:
            continue
        users = [name for name in names if METRICS[name].network == network]
        try:
            path = fetch_weights(network)
            loaded[network] = (_load_lpips if network == "lpips" else _load_inception)(path).to(device)
        except UserError as error:
            missing |= dict.fromkeys(users, str(error))
    return MetricNetworks(loaded.get("lpips"), loaded.get("inception")), missing


def fetch_weights(network: str) -> Path:
    """The file on this machine, after a download where it is not there.

    Raises:
        UserError: it could not be downloaded, or is not the published file.
    """
    weights = weights_of(network)
    path = weights.path
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _timeout(TIMEOUT_SECONDS):
                torch.hub.download_url_to_file(weights.url, str(path), weights.hash_prefix, progress=False)
        except Exception as error:  # no network, a proxy, a full disk, a file cut short
            raise UserError(
                f"{path.name} could not be downloaded ({error}): get it from {weights.url} and put it into "
                f"{path.parent}"
            ) from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(weights.hash_prefix):
        raise UserError(
            f"{path} is not the published file (SHA-256 {digest[:16]}…, expected {weights.hash_prefix}…): get it from "
            f"{weights.url} again"
        )
    return path


def _load_lpips(path: Path) -> nn.Module:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    network = LearnedPerceptualImagePatchSimilarity(net_type="alex").net  # reads `path`, torch's own place for it
    assert isinstance(network, nn.Module)
    return network.eval()


def _load_inception(path: Path) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    return _OnlyFeatures(network)


class _OnlyFeatures(nn.Module):
    """The first and only output of torch-fidelity's networks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
