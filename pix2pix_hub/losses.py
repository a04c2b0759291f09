"""Losses of paired image-to-image translation: tensors in, scalar tensors out, and no ``.backward()`` here.

From "Image-to-Image Translation with Conditional Adversarial Networks" (pix2pix, Isola et al. 2017), eqs. 1-4:

    L_D = BCE(D(x, y), 1) + BCE(D(x, G(x)), 0)
    L_G = BCE(D(x, G(x)), 1) + 100 * L1(G(x), y)

Every loss computes in float32 at least: bfloat16 and float16 arguments are cast here, and autocast does not reach
the feature network. A mean over patches or pixels taken in 8 bits of mantissa would not be worth logging.
"""

import copy
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from textwrap import shorten

import torch
import torch.nn.functional as F
import torchvision.models
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pix2pix_hub.util import UserError

GAN_MODES = ("bce", "lsgan", "hinge")
# What reading or fitting weights that are cut, of another network or no weights at all raises.
UNREADABLE = (
    *(OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError),
    *(SafetensorError, AttributeError, TypeError),
)


@dataclass(frozen=True)
class FeatureNetwork:
    """A classifier of torchvision, and the indices of the layers in its `features` whose maps are compared."""

    name: str
    layers: tuple[int, ...]
    unit_length: bool  # whether the vector of features at each place is scaled to length 1 first


PERCEPTUAL_NETWORKS = {
    # relu1_2, relu2_2, relu3_3, relu4_3 (Johnson et al. 2016, section 4.1)
    "vgg16": FeatureNetwork("vgg16", (3, 8, 15, 22), unit_length=False),
    # the layers of LPIPS (Zhang et al. 2018), and its scaling: the maps of the fire modules differ much in size
    "squeezenet": FeatureNetwork("squeezenet1_1", (1, 4, 7, 9, 10, 11, 12), unit_length=True),
}

# What torchvision's IMAGENET1K_V1 weights were trained with, on images in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _full_precision(tensor: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32; leave float32 and float64 as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _check_same_shape(generated: Tensor, target: Tensor) -> None:
    """Refuse shapes that differ: broadcasting would turn a wrong batch into a plausible number."""
    if generated.shape != target.shape:
        raise ValueError(
            f"generated has shape {tuple(generated.shape)} and target {tuple(target.shape)}; "
            "expected the same (N, C, H, W) for both"
        )


class GANLoss(nn.Module):
    """Adversarial loss on the logits of a (patch) discriminator, of any shape; means run over all patches.

    With ``r = D(x, y)`` and ``f = D(x, G(x))``, both logits:

    ====== ======================================= =================== =========================================
    mode   discriminator                           generator           source
    ====== ======================================= =================== =========================================
    bce    BCE(sigmoid(r), 1) + BCE(sigmoid(f), 0) BCE(sigmoid(f), 1)  pix2pix eq. 1, non-saturating (section 3.3)
    lsgan  mean (r - 1)^2 + mean f^2               mean (f - 1)^2      Mao et al. 2017, eq. 9, without its 1/2
    hinge  mean relu(1 - r) + mean relu(1 + f)     -mean f             Lim & Ye 2017; Miyato et al. 2018, eqs. 16-17
    ====== ======================================= =================== =========================================

    Raises:
        ValueError: ``mode`` is none of the three.
    """

    def __init__(self, mode: str = "bce") -> None:
        super().__init__()
        if mode not in GAN_MODES:
            raise ValueError(f"unknown GAN loss mode {mode!r}; expected one of {', '.join(map(repr, GAN_MODES))}")
        self.mode = mode

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the scalar loss that the discriminator minimises, the real and the fake mean added (not averaged)."""
        real, fake = _full_precision(real_logits), _full_precision(fake_logits)
        if self.mode == "bce":  # -log sigmoid(r) = softplus(-r), -log(1 - sigmoid(f)) = softplus(f)
            return F.softplus(-real).mean() + F.softplus(fake).mean()
        if self.mode == "lsgan":
            return (real - 1).square().mean() + fake.square().mean()
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        """Return the scalar loss that the generator minimises: how far its fakes are from passing as real."""
        fake = _full_precision(fake_logits)
        if self.mode == "bce":
            return F.softplus(-fake).mean()
        if self.mode == "lsgan":
            return (fake - 1).square().mean()
        return -fake.mean()

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}"


class L1Loss(nn.Module):
    """Mean absolute difference over all elements (pix2pix eq. 3), in [-1, 1] units: 0 to 2, twice the reported L1."""

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """Return a float32 scalar for two tensors of one shape; ValueError where the shapes differ."""
        _check_same_shape(generated, target)
        return F.l1_loss(_full_precision(generated), _full_precision(target))


class L2Loss(nn.Module):
    """Mean squared difference over all elements, in [-1, 1] units: 0 to 4."""

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """Return a float32 scalar for two tensors of one shape; ValueError where the shapes differ."""
        _check_same_shape(generated, target)
        return F.mse_loss(_full_precision(generated), _full_precision(target))


class FeatureMatchingLoss(nn.Module):
    """L1 distance between the discriminator's feature maps of generated and of real pairs, averaged over layers
    (pix2pixHD, Wang et al. 2018, eq. 4, which adds them up)."""

    def forward(self, generated: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Return a float32 scalar for maps of the same layers, (N, C, H, W) each; no gradient reaches ``real``."""
        distances = [
            F.l1_loss(_full_precision(ours), _full_precision(theirs.detach()))
            for ours, theirs in zip(generated, real, strict=True)
        ]
        return torch.stack(distances).mean()


class PerceptualLoss(nn.Module):
    """L1 distance between feature maps of two images, averaged over layers (Johnson et al. 2016, section 3.2).

    Johnson et al. compare one layer by squared distance; L1 over four layers is what image translation settled on
    (pix2pixHD, Wang et al. 2018, section 3.3). The network is frozen: no parameter requires a gradient, and
    ``.train()`` leaves it in evaluation mode. Move it with ``.to(device)``. Gradients reach ``generated`` only.

    Args:
        features: a Sequential of layers, of which a frozen copy up to the last of ``layers`` is kept. None takes
            those of ``network`` with ImageNet weights.
        layers: indices in ``features`` of the layers to compare; None: those of ``network``.
        network: a name of `PERCEPTUAL_NETWORKS`.
        file: of its weights, `.safetensors` or `.pth` in torchvision's layout; None: torchvision's, downloaded on
            first use (VGG16: 528 MB, SqueezeNet: 5 MB).
        shift: both images are first rolled by as many pixels, drawn anew at each call from 0 to below this, down and to
            the right. Of the places of an image, the network's strides give some more weight than others, always the
            same ones; to a generator that is reason enough to paint a grid.

    Raises:
        ValueError: ``layers`` is empty, repeats itself or points outside ``features``; ``network`` is unknown.
        TypeError: ``features`` is not a Sequential.
        UserError: the weights can be neither found nor downloaded, or are of another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        features: nn.Module | None = None,
        layers: Sequence[int] | None = None,
        network: str = "vgg16",
        file: str | Path | None = None,
        shift: int = 1,
    ) -> None:
        super().__init__()
        if network not in PERCEPTUAL_NETWORKS:
            raise ValueError(f"unknown network {network!r}; expected one of {', '.join(PERCEPTUAL_NETWORKS)}")
        chosen = PERCEPTUAL_NETWORKS[network]
        layers = chosen.layers if layers is None else layers
        self.features = _frozen_prefix(_imagenet_features(chosen, file) if features is None else features, layers)
        self.layers = frozenset(layers)
        self.unit_length, self.shift = chosen.unit_length, shift
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """Stay in evaluation mode whatever ``mode`` says, also when called through a parent module."""
        return super().train(False)

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """Return a float32 scalar for two (N, 3, H, W) or (N, 1, H, W) tensors in [-1, 1]; VGG16 needs H, W >= 8,
        SqueezeNet 17.

        Raises:
            ValueError: the shapes differ, or the tensors have neither 3 channels nor 1.
        """
        _check_same_shape(generated, target)
        for dim in (-2, -1) if self.shift > 1 else ():  # torch.roll would wait for the number drawn on a GPU
            drawn = torch.randint(self.shift, (), device=generated.device)
            places = (torch.arange(generated.shape[dim], device=generated.device) - drawn) % generated.shape[dim]
            generated, target = generated.index_select(dim, places), target.index_select(dim, places)
        with torch.autocast(generated.device.type, enabled=False):
            with torch.no_grad():
                target_maps = self._feature_maps(target)
            generated_maps = self._feature_maps(generated)
            distances = [F.l1_loss(ours, theirs) for ours, theirs in zip(generated_maps, target_maps, strict=True)]
            return torch.stack(distances).mean()

    def _feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return the chosen layers' maps of (N, 1 or 3, H, W) in [-1, 1], in the order in which the network makes them.

        The network sees float32, 3 channels, with ImageNet's mean and standard deviation.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"the perceptual loss compares images of 3 channels, or 1 (repeated to 3), as (N, C, H, W); "
                f"got shape {tuple(images.shape)}. Train with --perceptual-weight 0 for other channel counts"
            )
        unit = (images.to(self.mean.dtype).expand(-1, 3, -1, -1) + 1) / 2  # [0, 1]
        hidden, maps = (unit - self.mean) / self.std, []
        for index, layer in enumerate(self.features):
            hidden = layer(hidden)
            if index in self.layers:
                maps.append(F.normalize(hidden, dim=1) if self.unit_length else hidden)
        return maps


def _frozen_prefix(features: nn.Module, layers: Sequence[int]) -> nn.Sequential:
    """Copy ``features`` up to the last of ``layers``, without gradients and without in-place activations."""
    if not isinstance(features, nn.Sequential):
        raise TypeError(f"features is a {type(features).__name__}; expected nn.Sequential, such as vgg16().features")
    if not layers or len(set(layers)) != len(layers) or min(layers) < 0 or max(layers) >= len(features):
        raise ValueError(
            f"layers={tuple(layers)} does not fit features with {len(features)} layers; "
            f"expected different indices in 0..{len(features) - 1}, at least one"
        )
    prefix = copy.deepcopy(features[: max(layers) + 1]).requires_grad_(False)
    for module in prefix.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # else a ReLU would overwrite the convolution's map taken just before it
    return prefix


def _imagenet_features(network: FeatureNetwork, file: str | Path | None) -> nn.Module:
    """Load a network's convolutions with ImageNet weights: from `file`, torch.hub's folder or the internet."""
    # not VGG16's IMAGENET1K_FEATURES: those expect inputs 255 times larger, and their maps are that much larger too
    weights = torchvision.models.get_model_weights(network.name)["IMAGENET1K_V1"]
    try:
        if file is None:
            state = weights.get_state_dict(progress=True, check_hash=True)
        elif Path(file).suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        convolutions = {name.removeprefix("features."): state[name] for name in state if name.startswith("features.")}
        with torch.device("meta"):  # draws no random numbers and allocates no classifier
            features: nn.Module = torchvision.models.get_model(network.name, weights=None).features
        features.load_state_dict(convolutions, assign=True)
    except UNREADABLE as error:
        told, name = f"the perceptual loss needs {network.name}'s ImageNet weights", weights.url.rsplit("/", 1)[-1]
        if file is not None:
            raise UserError(
                f"{told}, and {file} does not hold them ({shorten(str(error), 160)}): give torchvision's {name} (from "
                f"{weights.url}), or leave --perceptual-file out to have it downloaded."
            ) from error
        raise UserError(
            f"{told}, and they could not be loaded ({error}). Put the file {name} (from {weights.url}) into "
            f"{torch.hub.get_dir()}/checkpoints or name it with --perceptual-file, or train without this loss: "
            "--perceptual-weight 0"
        ) from error
    return features.float()


class Pix2PixLoss(nn.Module):
    """Both objectives of pix2pix (eq. 4), weighted. A term of weight 0 is neither built nor computed.

    Args:
        gan_mode: ``"bce"``, ``"lsgan"`` or ``"hinge"``, see `GANLoss`.
        gan_weight: of the adversarial term in the generator's loss.
        l1_weight: lambda of eq. 4, 100 in the paper.
        l2_weight: of the mean squared error.
        perceptual_weight: of `PerceptualLoss`.
        feature_matching_weight: of `FeatureMatchingLoss`.
        discriminator_weight: scales the discriminator's loss. The paper uses 0.5: "we divide the objective by 2
            while optimizing D" (section 3.3).
        perceptual: the network to use where ``perceptual_weight > 0``; None builds one, which may download.

    Raises:
        ValueError: a weight is negative or not finite, all of the generator's are 0, or the mode is unknown.
    """

    def __init__(
        self,
        gan_mode: str = "bce",
        gan_weight: float = 1.0,
        l1_weight: float = 100.0,
        l2_weight: float = 0.0,
        perceptual_weight: float = 0.0,
        discriminator_weight: float = 1.0,
        perceptual: PerceptualLoss | None = None,
        feature_matching_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.weights = {"gan": gan_weight, "l1": l1_weight, "l2": l2_weight, "perceptual": perceptual_weight}
        self.weights["feature_matching"] = feature_matching_weight
        self.discriminator_weight = discriminator_weight
        for name, weight in {**self.weights, "discriminator": discriminator_weight}.items():
            if not math.isfinite(weight) or weight < 0:
                raise ValueError(f"{name}_weight is {weight}; expected a finite number, 0 or above")
        if not any(self.weights.values()):
            names = ", ".join(f"{name}_weight" for name in self.weights)
            raise ValueError(f"all of the generator's weights are 0, so it learns nothing; set one of {names} above 0")
        self.gan = GANLoss(gan_mode)
        self.feature_matching = FeatureMatchingLoss() if feature_matching_weight > 0 else None
        self.reconstruction = nn.ModuleDict()  # terms that compare generated with target
        if l1_weight > 0:
            self.reconstruction["l1"] = L1Loss()
        if l2_weight > 0:
            self.reconstruction["l2"] = L2Loss()
        if perceptual_weight > 0:
            self.reconstruction["perceptual"] = PerceptualLoss() if perceptual is None else perceptual

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return ``discriminator_weight * L_D``, a float32 scalar; the fakes' logits must come from detached fakes."""
        return self.discriminator_weight * self.gan.discriminator(real_logits, fake_logits)

    def generator_loss(
        self,
        fake_logits: Tensor,
        generated: Tensor,
        target: Tensor,
        fake_features: Sequence[Tensor] = (),
        real_features: Sequence[Tensor] = (),
    ) -> dict[str, Tensor]:
        """Return the generator's objective and what it is made of, all float32 scalars with their graph.

        Args:
            fake_logits: D(source, generated), any shape; ignored where ``gan_weight`` is 0.
            generated: G(source), (N, C, H, W) in [-1, 1].
            target: as ``generated``.
            fake_features, real_features: D's feature maps of (source, generated) and (source, target); needed where
                ``feature_matching_weight`` is above 0.

        Returns:
            ``"total"``, the weighted sum to differentiate, and *unweighted* ``"gan"``, ``"feature_matching"``,
            ``"l1"``, ``"l2"`` and ``"perceptual"``, each of them only where its weight is above 0.

        Raises:
            ValueError: ``generated`` and ``target`` differ in shape.
        """
        _check_same_shape(generated, target)
        terms = {"gan": self.gan.generator(fake_logits)} if self.weights["gan"] > 0 else {}
        if self.feature_matching is not None:
            terms["feature_matching"] = self.feature_matching(fake_features, real_features)
        terms |= {name: loss(generated, target) for name, loss in self.reconstruction.items()}
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {"total": total, **terms}
