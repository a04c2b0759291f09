"""Metrics against closed forms and independent implementations; their intervals; their published networks."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from torch import nn

from pix2pix_hub import metrics
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.metrics import (
    METRICS,
    ImageMetrics,
    MetricNetworks,
    fetch_weights,
    frechet_distance,
    image_values,
    kernel_distance,
    load_networks,
    ratio_interval,
    unusable,
)
from pix2pix_hub.util import UserError

CPU = torch.device("cpu")
ALEXNET, INCEPTION = "alexnet-owt-7be5be79.pth", "weights-inception-2015-12-05-6726825d.pth"


# --- a value for each image


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM and its contrast-structure term of Wang et al. 2004 on (C, H, W) in [0, 1]: Gaussian window of sigma 1.5,
    11x11, borders mirrored."""

    def smooth(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, sigma=(0, 1.5, 1.5), truncate=3.5, mode="mirror")

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    contrast = (2 * covariance + c2) / (var_a + var_b + c2)
    return (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * contrast, contrast


def reference_ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2003, eq. 7: contrast of all scales (windows that lie inside), luminance of the coarsest."""
    result, exponents = 1.0, (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for scale, exponent in enumerate(exponents):
        ssim, contrast = similarity(a, b)
        term = ssim.mean() if scale == 4 else contrast[:, 5:-5, 5:-5].mean()
        result *= max(0.0, float(term)) ** exponent
        if scale < 4:
            a, b = (x.reshape(3, x.shape[1] // 2, 2, x.shape[2] // 2, 2).mean(axis=(2, 4)) for x in (a, b))
    return result


def images(seed: int, count: int = 5, size: tuple[int, int] = (32, 40)) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def measured(generated: torch.Tensor, target: torch.Tensor, batch: int) -> dict[str, float]:
    means = ImageMetrics()
    for start in range(0, len(generated), batch):
        means.update(generated[start : start + batch], target[start : start + batch])
    return means.compute()


def test_values_agree_with_independent_formulas() -> None:
    generated, target = images(0), images(1)
    a, b = ((image.numpy().astype(np.float64) + 1) / 2 for image in (generated, target))
    result = image_values(["l1", "psnr", "ssim"], generated, target)
    np.testing.assert_allclose(result["l1"], np.abs(a - b).mean(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(result["psnr"], -10 * np.log10(((a - b) ** 2).mean(axis=(1, 2, 3))), rtol=1e-5)
    ssim = [similarity(x, y)[0].mean() for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(result["ssim"], ssim, atol=1e-5)
    for batch in (1, 2, 5):
        means = measured(generated, target, batch)
        assert means == {name: pytest.approx(float(result[name].mean()), rel=1e-6) for name in result}


def test_ms_ssim_agrees_with_an_independent_formula() -> None:
    target = images(0, 2, (192, 176))
    generated = (target + 0.3 * images(1, 2, (192, 176))).clamp(-1, 1)
    expected = [
        reference_ms_ssim(*((image.double().numpy() + 1) / 2 for image in pair))
        for pair in zip(generated, target, strict=True)
    ]
    values = image_values(["ms_ssim"], generated, target)["ms_ssim"]
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert 0.5 < expected[0] < 0.99


def test_what_a_metric_cannot_look_at_is_said_and_the_smallest_sizes_work() -> None:
    rgb, six = PixelFormat(), PixelFormat("channels", 6)
    assert all(unusable(name, rgb, (256, 256)) is None for name in METRICS)
    assert "128x256" in str(unusable("ms_ssim", rgb, (128, 256)))
    assert "6-channel" in str(unusable("fid", six, (256, 256)))
    assert "3 classes" in str(unusable("lpips", PixelFormat("labels", 3, classes=(0, 1, 2)), (256, 256)))
    assert unusable("ssim", six, (32, 32)) is None
    for name in ("l1", "psnr", "ssim", "ms_ssim"):
        size = METRICS[name].least_size
        assert image_values([name], images(0, 1, (size, size)), images(1, 1, (size, size)))[name].isfinite().all()


# --- a value for whole sets


def correlated(seed: int, count: int, features: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=random, dtype=torch.float64)
    return torch.randn(count, features, generator=random, dtype=torch.float64) @ mixing


def test_fid_agrees_with_scipy() -> None:
    real, generated = correlated(0, 40, 6), correlated(1, 50, 6)
    covariances = [np.cov(features.numpy(), rowvar=False) for features in (real, generated)]
    expected = np.square(real.numpy().mean(0) - generated.numpy().mean(0)).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real)
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-6)


def kid_by_loops(real: torch.Tensor, generated: torch.Tensor) -> float:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    def within(features: torch.Tensor) -> float:
        pairs = [(i, j) for i in range(len(features)) for j in range(len(features)) if i != j]
        return sum(kernel(features[i], features[j]) for i, j in pairs) / len(pairs)

    between = np.mean([kernel(a, b) for a in real for b in generated])
    return within(real) + within(generated) - 2 * float(between)


def test_kid_agrees_with_its_definition() -> None:
    real, generated = correlated(0, 9, 4), correlated(1, 9, 4)
    assert kernel_distance(real, generated) == pytest.approx(kid_by_loops(real, generated), rel=1e-9)


def test_kid_of_large_sets_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "KID_SUBSET", 20)
    real, generated = correlated(0, 60, 4), correlated(1, 60, 4)
    torch.manual_seed(1)
    first = kernel_distance(real, generated)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert kernel_distance(real, generated) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert first == pytest.approx(kid_by_loops(real, generated), rel=0.2)


def test_a_metric_of_whole_sets_takes_a_network_that_is_handed_to_it() -> None:
    def two_features(images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        return images.float().mean(dim=(2, 3))[:, :2] / 255

    black_and_white = torch.tensor([-1.0, -1.0, 1.0, 1.0]).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    means = ImageMetrics(["fid", "l1"], MetricNetworks(features=two_features))
    for image in black_and_white:
        means.update(torch.zeros(1, 1, 8, 8), image[None])
    result = means.compute()
    # real: mean 0.5, variance 1/3 in both (equal) features; generated: mean 128/255, none
    assert list(result) == ["fid", "l1"]
    assert result["fid"] == pytest.approx(2 * (128 / 255 - 0.5) ** 2 + 2 / 3)
    assert result["l1"] == pytest.approx(0.5)


# --- confidence intervals


def drawn(count: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 1.0, count)


def test_the_interval_of_a_ratio_agrees_with_scipy() -> None:
    x, y = drawn(60, 1), drawn(60, 2) + 1
    theirs = stats.bootstrap(
        (x, y), lambda a, b: a.mean() / b.mean(), paired=True, vectorized=False, n_resamples=4000, method="percentile"
    ).confidence_interval
    ours = ratio_interval(x, y, resamples=4000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.1 * (theirs.high - theirs.low))


def test_the_same_seed_gives_the_same_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = drawn(50)
    whole = ratio_interval(x)
    assert ratio_interval(x) == whole
    assert ratio_interval(x, seed=1) != whole
    monkeypatch.setattr(metrics, "_COUNTS_AT_ONCE", 7 * 50)
    assert ratio_interval(x) == pytest.approx(whole, rel=1e-12)


# --- published networks


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
    monkeypatch.setattr(metrics, "HASH_IN_NAME", metrics.re.compile("()$"))


def test_missing_weights_are_named_with_the_place_they_belong(torch_home: Path) -> None:
    assert load_networks(["l1", "psnr", "ssim", "ms_ssim"], CPU)[1] == {}
    assert not torch_home.exists()  # nothing was asked for
    networks, missing = load_networks(["l1", "lpips", "fid", "kid"], CPU)
    assert networks == MetricNetworks()
    assert set(missing) == {"lpips", "fid", "kid"}
    assert missing["fid"] == missing["kid"]
    for name, file in (("lpips", ALEXNET), ("fid", INCEPTION)):
        assert missing[name].startswith(file)
        assert str(torch_home) in missing[name] and "https://" in missing[name]
    assert not list(torch_home.iterdir())


def test_another_file_of_that_name_is_refused(torch_home: Path) -> None:
    torch_home.mkdir()
    (torch_home / ALEXNET).write_bytes(b"not the weights")
    with pytest.raises(UserError, match="not the published file.*expected 7be5be79"):
        fetch_weights(f"https://download.pytorch.org/models/{ALEXNET}")


def test_inception_features_from_the_file(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with monkeypatch.context() as patch, torch.device("meta"):
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: None)
        empty = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    put_random_weights(empty, torch_home / INCEPTION, monkeypatch)
    networks, missing = load_networks(["fid", "kid"], CPU)
    assert not missing and networks.features is not None
    pictures = images(0, 3, (32, 32))
    assert networks.features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 2048)
    means = ImageMetrics(["kid"], networks)
    means.update(pictures, pictures.flip(0))
    same = means.compute()["kid"]
    means.update(-torch.ones(3, 3, 32, 32), pictures)
    assert means.compute()["kid"] > abs(same)


def test_lpips_is_that_of_the_paper(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchmetrics.functional.image as functional
    from torchvision.models import alexnet

    put_random_weights(alexnet(weights=None), torch_home / ALEXNET, monkeypatch)
    networks, missing = load_networks(["lpips"], CPU)
    assert not missing
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    # Zhang et al. 2018, eq. 1: unit-normalised channels of five layers, squared differences, weighted, averaged
    network = alexnet(weights=None).eval()
    network.load_state_dict(torch.load(torch_home / ALEXNET, weights_only=True))
    linear_layers = Path(functional.__file__).parent / "lpips_models" / "alex.pth"
    weights = torch.load(linear_layers, weights_only=True, map_location="cpu")
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


def test_gray_images_are_compared_as_colour_ones() -> None:
    networks = MetricNetworks(lpips=lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)) * a.shape[1])
    values = image_values(["lpips"], torch.ones(2, 1, 32, 32), torch.zeros(2, 1, 32, 32), networks)
    assert values["lpips"].tolist() == [3.0, 3.0]
