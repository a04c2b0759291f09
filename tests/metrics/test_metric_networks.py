"""The published networks: found where the message says, checked, and used as their papers say."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pix2pix_hub.metrics import ImageMetrics, image_values
from pix2pix_hub.metrics.networks import Weights, fetch_weights, load_networks, weights_of
from pix2pix_hub.util import UserError

CPU = torch.device("cpu")


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of downloads, and no network."""

    def refuse(url: str, *_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "checkpoints"


def put_random_weights(network: nn.Module, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of random weights, all cut from one small storage, in place of the published one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pool = torch.randn(2_100_000, generator=torch.Generator().manual_seed(0)) * 0.05
    state = {
        name: torch.ones(tensor.shape)  # of norms
        if tensor.ndim < 2
        else pool[: tensor.numel()].view(tensor.shape)
        if tensor.numel() <= len(pool)
        else torch.zeros(1).expand(tensor.shape)  # of the classifier, which no metric looks at
        for name, tensor in network.state_dict().items()
    }
    torch.save(state, path)
    monkeypatch.setattr(Weights, "hash_prefix", "")


def test_missing_weights_are_named_with_the_place_they_belong(torch_home: Path) -> None:
    networks, missing = load_networks(["l1", "lpips", "fid", "kid"], CPU)
    assert networks.lpips is None and networks.features is None
    assert set(missing) == {"lpips", "fid", "kid"}
    assert missing["fid"] == missing["kid"]
    for name, file in (("lpips", "alexnet-owt-7be5be79.pth"), ("fid", "weights-inception-2015-12-05-6726825d.pth")):
        assert missing[name].startswith(file)
        assert str(torch_home) in missing[name]
        assert "https://" in missing[name]
    assert not list(torch_home.iterdir())


def test_another_file_of_that_name_is_refused(torch_home: Path) -> None:
    torch_home.mkdir()
    weights_of("lpips").path.write_bytes(b"not the weights")
    with pytest.raises(UserError, match="not the published file.*expected 7be5be79"):
        fetch_weights("lpips")


def test_metrics_without_networks_ask_for_none(torch_home: Path) -> None:
    assert load_networks(["l1", "psnr", "ssim", "ms_ssim"], CPU)[1] == {}
    assert not torch_home.exists()


def test_inception_features_from_the_file(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with monkeypatch.context() as patch, torch.device("meta"):
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: None)
        empty = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    put_random_weights(empty, weights_of("inception").path, monkeypatch)
    networks, missing = load_networks(["fid", "kid"], CPU)
    assert not missing and networks.features is not None
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert networks.features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 2048)
    metrics = ImageMetrics(["kid"], networks)
    metrics.update(images, images.flip(0))
    same = metrics.compute()["kid"]
    metrics.update(-torch.ones(3, 3, 32, 32), images)
    assert metrics.compute()["kid"] > abs(same)


def test_lpips_is_that_of_the_paper(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import alexnet

    put_random_weights(alexnet(weights=None), weights_of("lpips").path, monkeypatch)
    networks, missing = load_networks(["lpips"], CPU)
    assert not missing
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    # Zhang et al. 2018, eq. 1: unit-normalised channels of five layers, squared differences, weighted, averaged
    state = torch.load(weights_of("lpips").path, weights_only=True)
    network = alexnet(weights=None).eval()
    network.load_state_dict(state)
    weights = torch.load(_published_linear_layers(), weights_only=True, map_location="cpu")
    maps = [(x - torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)) for x in (a, b)]
    maps = [x / torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1) for x in maps]
    expected = torch.zeros(2)
    layer = 0
    with torch.no_grad():
        for module in network.features:
            maps = [module(x) for x in maps]
            if isinstance(module, nn.ReLU):
                first, second = (F.normalize(x, dim=1, eps=1e-10) for x in maps)
                linear = weights[f"lin{layer}.model.1.weight"]
                expected += ((first - second) ** 2 * linear).sum(1).mean(dim=(1, 2))
                layer += 1
    assert layer == 5
    values = image_values(["lpips"], a, b, networks)["lpips"]
    torch.testing.assert_close(values, expected.double(), rtol=1e-4, atol=1e-7)
    assert float(values.min()) > 0


def _published_linear_layers() -> Path:
    import torchmetrics.functional.image as functional

    return Path(functional.__file__).parent / "lpips_models" / "alex.pth"


def test_gray_images_are_compared_as_colour_ones(torch_home: Path) -> None:
    from pix2pix_hub.metrics.networks import MetricNetworks

    networks = MetricNetworks(lpips=lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)) * a.shape[1])
    values = image_values(["lpips"], torch.ones(2, 1, 32, 32), torch.zeros(2, 1, 32, 32), networks)
    assert values["lpips"].tolist() == [3.0, 3.0]
