"""A class-conditional GAN without normalisation layers: relativistic pairs and zero-centred penalties.

References:
    Huang, Gokaslan, Kuleshov, Tompkin: The GAN is dead; long live the GAN! A modern GAN baseline (2024).
    Mescheder, Geiger, Nowozin: Which training methods for GANs do actually converge? (2018), eq. 9 (R1, R2).
    Miyato, Koyama: cGANs with projection discriminator (2018), eq. 4.
    Zhang, Dauphin, Ma: Fixup initialization (2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.generators.augmentation import Augmentation
from synthaug.generators.base import ConditionalGenerator, Objective, Preset
from synthaug.generators.layers import Canvas
from synthaug.noise import BatchRandom

__all__ = ["CGAN", "Discriminator", "GeneratorNetwork", "gradient_penalty", "relativistic_loss"]

_SLOPE, _GROUP = 0.2, 16


class _Row(NamedTuple):
    """Augmentation, once it has risen, for up to so many images in the middle class."""

    images_per_class: float
    color: float
    affine: float
    translation: float
    cutout: float


_PRESETS = (
    _Row(100, color=0.5, affine=0.3, translation=0.125, cutout=0.3),
    _Row(1000, color=0.5, affine=0.2, translation=0.125, cutout=0.25),
    _Row(math.inf, color=0.0, affine=0.0, translation=0.0, cutout=0.0),
)


def relativistic_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Return ``mean(softplus(worse - better))``: how far a critic is from ranking images above partners.

    With real above fake it is the discriminator's loss, with fake above real the generator's.

    Args:
        better: (N,) scores of the images that ought to be ranked higher.
        worse: (N,) scores of their partners.

    Returns:
        Scalar.

    References:
        Huang et al. (2024), eq. 2 with f(t) = -log(1 + exp(-t)).
    """
    return F.softplus((worse - better).float()).mean()


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Return ``||grad_x D(x)||^2`` at each image, differentiable by the parameters of D.

    Args:
        scores: (N,) outputs of one call on `images`; row i depends on image i alone.
        images: (N, C, H, W) inputs of that call, with requires_grad.

    Returns:
        (N,) float32. R1 is its mean over real images, R2 over fake ones.

    References:
        Mescheder et al. (2018), eq. 9.
    """
    (gradient,) = torch.autograd.grad(scores.float().sum(), images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)


class _CellCanvas(Canvas):
    """Canvas whose pyramid counts in cells of `patch` x `patch` pixels; it pads and crops pixels."""

    def __init__(self, image_size: int, patch: int) -> None:
        super().__init__(-(-image_size // patch))
        self.image_size, self.size = image_size, self.size * patch

    def widths(self, width: int) -> list[int]:
        """Return the channels from the coarsest level to the finest, which has `width`."""
        return [width * min(4, 2**level) for level in reversed(range(self.levels + 1))]


def _scale(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """Return the layer with weights of variance gain^2 / fan-in and zero bias."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class _Pointwise(nn.Linear):
    """1 x 1 convolution as a matrix product over channels-last pixels.

    On a CPU its backward and double backward take half the time of a convolution's.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__(inputs, outputs)
        _scale(self, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """``x + W3 a(W2 a(W1 x))`` with a grouped 3 x 3 in the middle; starts as the identity.

    Args:
        width: Channels, a multiple of 16.
        blocks: Residual blocks in the whole network.

    References:
        Zhang et al. (2019), section 3: last layer zero, the others scaled by L^(-1 / (2m - 2)), here m = 3.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        gain = math.sqrt(2 / (1 + _SLOPE**2)) * blocks ** (-1 / 4)
        self.first = _Pointwise(width, width, gain)
        self.middle = _scale(nn.Conv2d(width, width, 3, padding=1, groups=width // _GROUP), gain)
        self.last = _Pointwise(width, width, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.first(x), _SLOPE)
        y = F.leaky_relu(self.middle(y), _SLOPE)
        return torch.as_tensor(x + self.last(y))


def _levels(widths: Sequence[int], depth: int) -> nn.ModuleList:
    """Return a run of `depth` residual blocks for each level."""
    total = depth * len(widths)
    return nn.ModuleList(nn.Sequential(*(_Block(width, total) for _ in range(depth))) for width in widths)


def _changes(widths: Sequence[int]) -> nn.ModuleList:
    """Return the 1 x 1 convolutions between the levels."""
    return nn.ModuleList(_Pointwise(before, after) for before, after in pairwise(widths))


class GeneratorNetwork(nn.Module):
    """Noise and label to image: a linear start, then residual blocks at doubling sizes.

    Args:
        num_classes: Number of classes.
        image_size: Side of the images.
        channels: Channels of the images.
        width: Channels at the finest level, a multiple of 16; doubled per coarser level up to 4 x.
        depth: Residual blocks per level.
        patch: Side in pixels of a cell of the finest level.
        noise_size: Length of the noise and of the label embedding.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        *,
        channels: int,
        width: int,
        depth: int,
        patch: int,
        noise_size: int,
    ) -> None:
        super().__init__()
        self.canvas, self.patch = _CellCanvas(image_size, patch), patch
        widths = self.canvas.widths(width)
        self.embedding = nn.Embedding(num_classes, noise_size)
        self.start = _scale(nn.Linear(2 * noise_size, widths[0] * self.canvas.base**2))
        self.levels, self.changes = _levels(widths, depth), _changes(widths)
        self.paint = _scale(nn.Conv2d(width, channels * patch**2, 3, padding=1))

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Map noise (N, noise_size) and labels (N,) to images (N, C, H, W) in (-1, 1)."""
        base = self.canvas.base
        x = self.start(torch.cat([noise, self.embedding(labels)], 1)).view(len(noise), -1, base, base)
        # channels last saves a sixth of the time on a CPU; weights stay contiguous, as safetensors wants them
        x = self.levels[0](x.contiguous(memory_format=torch.channels_last))
        for change, level in zip(self.changes, self.levels[1:], strict=True):
            x = level(F.interpolate(change(x), scale_factor=2, mode="bilinear", align_corners=False))
        x = F.pixel_shuffle(self.paint(F.leaky_relu(x, _SLOPE)), self.patch)
        return torch.tanh(self.canvas.crop(x))


class Discriminator(nn.Module):
    r"""Image and label to a score, ``w \cdot f(x) + e_y \cdot f(x) / \sqrt{d}``; the mirror of the generator.

    Args:
        num_classes: Number of classes.
        image_size: Side of the images.
        channels: Channels of the images.
        width: Channels at the finest level, a multiple of 16; doubled per coarser level up to 4 x.
        depth: Residual blocks per level.
        patch: Side in pixels of a cell of the finest level.
        features: Length d of the feature vector f(x).

    References:
        Miyato and Koyama (2018), eq. 4.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        *,
        channels: int,
        width: int,
        depth: int,
        patch: int,
        features: int = 128,
    ) -> None:
        super().__init__()
        self.canvas, self.patch = _CellCanvas(image_size, patch), patch
        widths = self.canvas.widths(width)[::-1]
        self.read = _scale(nn.Conv2d(channels * patch**2, width, 3, padding=1))
        self.levels, self.changes = _levels(widths, depth), _changes(widths)
        self.gather = _scale(nn.Linear(widths[-1] * self.canvas.base**2, features))
        self.score = nn.Parameter(torch.randn(features) / math.sqrt(features))
        self.embedding = nn.Embedding(num_classes, features)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (N,) of images (N, C, H, W) under labels (N,), and terms of all classes (N, K)."""
        x = F.pixel_unshuffle(self.canvas.pad(images), self.patch)
        x = self.levels[0](self.read(x.contiguous(memory_format=torch.channels_last)))
        for change, level in zip(self.changes, self.levels[1:], strict=True):
            x = level(change(F.avg_pool2d(x, 2)))
        x = F.leaky_relu(self.gather(F.leaky_relu(x, _SLOPE).flatten(1)), _SLOPE)
        terms = x @ self.embedding.weight.t() / math.sqrt(x.shape[1])
        return x @ self.score + terms.gather(1, labels[:, None]).squeeze(1), terms


class CGAN(ConditionalGenerator):
    """Class-conditional GAN with R3GAN's loss and blocks, at a size that a CPU can train.

    The discriminator's projection on the label is also read as class logits: a cross-entropy on real images
    teaches it early what a class is, and through the scores it teaches the generator.

    Args:
        class_names: Names of the classes.
        image_size: Side of the images, 8 to 64; a size that is no base x 2^k is padded inside and cropped.
        channels: 1 to 4.
        width: Channels at the finest level of both networks, a multiple of 16.
        depth: Residual blocks per level of both networks.
        patch: Side in pixels of a cell of the finest level: 2 is some four times as fast as 1.
        noise_size: Length of the noise and of the label embedding.
        gamma: Weight of the penalties R1 and R2 at the start of the training.
        gamma_final: Their weight at the end; it falls on a cosine over the images seen.
        penalty_every: They are computed on every k-th step, times k.
        label_weight: Weight of the discriminator's cross-entropy on real images; 0 for none.
        color: Strength of the tint of the discriminator's images, see `Augmentation`.
        affine: Strength of their rotation and scaling.
        translation: Largest shift as a fraction of the side.
        cutout: Side of the greyed-out square as a fraction of the side.
        augment_steps: Steps over which the augmentation rises to these strengths. A discriminator overfits
            only after many passes, and augmentation from the start costs variety in short runs.
        learning_rate: Peak learning rate of both objectives.

    Raises:
        InputError: If `width` is no positive multiple of 16, or a count is below 1.

    Example:
        >>> generator = CGAN(class_names=["a", "b"], image_size=8, channels=1, width=16)
        >>> generator.sample(torch.tensor([0, 1, 1])).shape
        torch.Size([3, 1, 8, 8])

    References:
        Huang et al. (2024), eq. 2 and section 3.5; augmentation: Zhao et al. (2020).
    """

    family = "cgan"

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        image_size: int,
        channels: int,
        width: int = 32,
        depth: int = 1,
        patch: int = 1,
        noise_size: int = 64,
        gamma: float = 1.0,
        gamma_final: float = 0.1,
        penalty_every: int = 8,
        label_weight: float = 0.2,
        color: float = 0.0,
        affine: float = 0.0,
        translation: float = 0.0,
        cutout: float = 0.0,
        augment_steps: int = 20_000,
        learning_rate: float = 2e-3,
    ) -> None:
        super().__init__(class_names=class_names, image_size=image_size, channels=channels)
        if width < 1 or width % _GROUP:
            raise InputError(f"width is {width}; allowed are positive multiples of {_GROUP}: try 32 or 64")
        counts = {"depth": depth, "patch": patch, "noise_size": noise_size, "penalty_every": penalty_every}
        for name, value in counts.items():
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        size = (len(class_names), image_size)
        self.network = GeneratorNetwork(
            *size, channels=channels, width=width, depth=depth, patch=patch, noise_size=noise_size
        )
        self.discriminator = Discriminator(*size, channels=channels, width=width, depth=depth, patch=patch)
        self.augmentation = Augmentation(color=color, affine=affine, translation=translation, cutout=cutout)
        self.augment_steps = augment_steps
        self.noise_size, self.learning_rate = noise_size, learning_rate
        self.gamma, self.gamma_final = gamma, gamma_final
        self.penalty_every, self.label_weight = penalty_every, label_weight

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(noise_size,)."""
        return (self.noise_size,)

    def decode_noise(self, noise: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Map noise (N, noise_size), scaled by the temperature, and labels (N,) to images."""
        return torch.as_tensor(self.network(noise * temperature, labels))

    def objectives(self) -> Sequence[Objective]:
        """Return the discriminator's objective and the generator's, in this order."""
        return (
            Objective(
                name="discriminator",
                module=self.discriminator,
                loss=self.discriminator_loss,
                learning_rate=self.learning_rate,
                betas=(0.0, 0.99),
            ),
            Objective(
                name="generator",
                module=self.network,
                loss=self.generator_loss,
                learning_rate=self.learning_rate,
                betas=(0.0, 0.99),
            ),
        )

    def discriminator_loss(
        self, module: nn.Module, images: Tensor, labels: Tensor, rng: BatchRandom
    ) -> dict[str, Tensor]:
        r"""Return the loss that ranks real above fake, with penalties on every k-th step.

        .. math:: L = E\,\mathrm{softplus}(D(\tilde x, y) - D(x, y)) + \tfrac{k\gamma}{2} (R_1 + R_2)
                  + \lambda\,\mathrm{CE}(e \cdot f(x), y)
        """
        with torch.no_grad():
            fakes = self.network(rng.normal(*self.noise_shape), labels)
            augment = self._augmentation_at(rng.step)
            both = torch.cat([augment(images, rng), augment(fakes, rng)])
        penalized = rng.step % self.penalty_every == 0
        scores, terms = module(both.requires_grad_(penalized), labels.repeat(2))
        d_real, d_fake = scores.chunk(2)
        label_loss = F.cross_entropy(terms[: len(labels)], labels)
        logs = {
            "d_real": d_real.mean(),
            "d_fake": d_fake.mean(),
            "accuracy": (d_real > d_fake).float().mean(),
            "label_loss": label_loss,
        }
        loss = relativistic_loss(d_real, d_fake) + self.label_weight * label_loss
        if penalized:
            r1, r2 = gradient_penalty(scores, both).view(2, -1).mean(1)
            loss = loss + 0.5 * self.penalty_every * self._gamma_at(rng.progress) * (r1 + r2)
            logs |= {"r1": r1, "r2": r2}
        return {"loss": loss, **{name: value.detach() for name, value in logs.items()}}

    def generator_loss(self, module: nn.Module, images: Tensor, labels: Tensor, rng: BatchRandom) -> dict[str, Tensor]:
        """Return the loss that ranks fake above real, ``E softplus(D(x, y) - D(x~, y))``."""
        fakes = module(rng.normal(*self.noise_shape), labels)
        augment = self._augmentation_at(rng.step)
        with torch.no_grad():
            d_real, _ = self.discriminator(augment(images, rng), labels)
        d_fake, terms = self.discriminator(augment(fakes, rng), labels)
        return {
            "loss": relativistic_loss(d_fake, d_real),
            "label_accuracy": (terms.detach().argmax(1) == labels).float().mean(),
            "spread": fakes.detach().std(0).mean(),  # near 0: every noise gives the same image
        }

    def _augmentation_at(self, step: int) -> Augmentation:
        """Return the augmentation of this step, on a linear ramp."""
        return self.augmentation.scaled(min(1.0, step / max(1, self.augment_steps)))

    def _gamma_at(self, progress: float) -> float:
        """Return the penalties' weight after this fraction of the training."""
        return self.gamma_final + (self.gamma - self.gamma_final) * 0.5 * (1 + math.cos(math.pi * progress))

    @classmethod
    def preset(cls, class_counts: Sequence[int], image_size: int, channels: int) -> Preset:
        """Return the defaults for a dataset with these training counts per class."""
        typical = sorted(class_counts)[len(class_counts) // 2]
        row = next(row for row in _PRESETS if typical <= row.images_per_class)
        constructor: dict[str, Any] = {
            "width": 32,
            "patch": 2 if image_size >= 16 else 1,
            "color": row.color if channels > 2 else 0.0,
            "affine": row.affine,
            "translation": row.translation,
            "cutout": row.cutout,
        }
        return Preset(constructor=constructor, batch_size=32, ema_images=5000, class_power=0.5)
