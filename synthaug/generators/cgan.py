"""A class-conditional GAN without normalisation layers: relativistic pairs and zero-centred penalties.

References:
    Huang, Gokaslan, Kuleshov, Tompkin: The GAN is dead; long live the GAN! A modern GAN baseline (2024).
    Mescheder, Geiger, Nowozin: Which training methods for GANs do actually converge? (2018), eq. 9 (R1, R2).
    Miyato, Koyama: cGANs with projection discriminator (2018), eq. 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.core import BatchRandom, InputError
from synthaug.generators.augmentation import Augmentation
from synthaug.generators.base import ConditionalGenerator, Objective, Preset, check_range
from synthaug.generators.discriminator import (
    GROUP,
    SLOPE,
    CellCanvas,
    Discriminator,
    change_widths,
    gradient_penalty,
    relativistic_loss,
    scale_start,
    stack_levels,
)

__all__ = ["CGAN", "GeneratorNetwork"]


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
        self.canvas, self.patch = CellCanvas(image_size, patch), patch
        widths = self.canvas.widths(width)
        self.embedding = nn.Embedding(num_classes, noise_size)
        self.start = scale_start(nn.Linear(2 * noise_size, widths[0] * self.canvas.base**2))
        self.levels, self.changes = stack_levels(widths, depth), change_widths(widths)
        self.paint = scale_start(nn.Conv2d(width, channels * patch**2, 3, padding=1))

    def forward(self, noise: Tensor, labels: Tensor, strength: float = 1.0) -> Tensor:
        """Map noise (N, noise_size) and labels (N,) to images (N, C, H, W) in (-1, 1).

        `strength` in [0, 1] is the weight of the label's embedding: 0 generates without a label.
        """
        base = self.canvas.base
        x = self.start(torch.cat([noise, strength * self.embedding(labels)], 1)).view(len(noise), -1, base, base)
        # channels last saves a sixth of the time on a CPU; weights stay contiguous, as safetensors wants them
        x = self.levels[0](x.contiguous(memory_format=torch.channels_last))
        for change, level in zip(self.changes, self.levels[1:], strict=True):
            x = level(F.interpolate(change(x), scale_factor=2, mode="bilinear", align_corners=False))
        x = F.pixel_shuffle(self.paint(F.leaky_relu(x, SLOPE)), self.patch)
        return torch.tanh(self.canvas.crop(x))


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
        label_ramp: Fraction of the training by which the label has its full weight; it has none before half
            of that. 0 conditions from the start. With few images a class a condition from the start can
            collapse the generator.
        color: Strength of the tint of the discriminator's images, see `Augmentation`.
        affine: Strength of their rotation and scaling.
        translation: Largest shift as a fraction of the side.
        cutout: Side of the greyed-out square as a fraction of the side.
        augment_images: Images seen over which the augmentation rises to these strengths. A discriminator overfits
            only after many passes, and augmentation from the start costs variety in short runs.
        learning_rate: Peak learning rate of both objectives.

    Raises:
        InputError: If `width` is no positive multiple of 16, or a number is out of range.

    Example:
        >>> generator = CGAN(class_names=["a", "b"], image_size=8, channels=1, width=16)
        >>> generator.sample(torch.tensor([0, 1, 1])).shape
        torch.Size([3, 1, 8, 8])

    References:
        Huang et al. (2024), eq. 2 and section 3.5; augmentation: Zhao et al. (2020).
        Shahbazi et al.: Collapse by conditioning (2022), eq. 3 (label ramp).
    """

    family = "cgan"
    snapshots = (0.6, 0.8)

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
        label_ramp: float = 0.0,
        color: float = 0.0,
        affine: float = 0.0,
        translation: float = 0.0,
        cutout: float = 0.0,
        augment_images: int = 640_000,
        learning_rate: float = 2e-3,
    ) -> None:
        super().__init__(class_names=class_names, image_size=image_size, channels=channels)
        check_range("width", width, 1)
        if width % GROUP:
            raise InputError(f"width is {width}; allowed are positive multiples of {GROUP}: try 32 or 64")
        counts = {"depth": depth, "patch": patch, "noise_size": noise_size, "penalty_every": penalty_every}
        strengths = {"color": color, "affine": affine, "translation": translation, "cutout": cutout}
        weights = {"gamma": gamma, "gamma_final": gamma_final, "label_weight": label_weight}
        for name, count in counts.items():
            check_range(name, count, 1)
        for name, strength in strengths.items():
            check_range(name, strength, 0, 1)
        for name, weight in {**weights, "augment_images": augment_images}.items():
            check_range(name, weight, 0)
        check_range("label_ramp", label_ramp, 0, 1)
        check_range("learning_rate", learning_rate, 0, above=True)
        size = (len(class_names), image_size)
        self.network = GeneratorNetwork(
            *size, channels=channels, width=width, depth=depth, patch=patch, noise_size=noise_size
        )
        self.discriminator = Discriminator(*size, channels=channels, width=width, depth=depth, patch=patch)
        self.augmentation = Augmentation(color=color, affine=affine, translation=translation, cutout=cutout)
        self.augment_images = augment_images
        self.noise_size, self.learning_rate = noise_size, learning_rate
        self.gamma, self.gamma_final = gamma, gamma_final
        self.penalty_every, self.label_weight, self.label_ramp = penalty_every, label_weight, label_ramp

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
        strength = self._label_strength_at(rng.progress)
        with torch.no_grad():
            fakes = self.network(rng.normal(*self.noise_shape), labels, strength)
            augment = self._augmentation_at(rng.images_seen)
            both = torch.cat([augment(images, rng), augment(fakes.float(), rng)])  # in bf16 only fakes would be rounded
        penalized = rng.step % self.penalty_every == 0
        scores, terms = module(both.requires_grad_(penalized), labels.repeat(2), strength)
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
        strength = self._label_strength_at(rng.progress)
        fakes = module(rng.normal(*self.noise_shape), labels, strength)
        augment = self._augmentation_at(rng.images_seen)
        with torch.no_grad():
            d_real, _ = self.discriminator(augment(images, rng), labels, strength)
        d_fake, terms = self.discriminator(augment(fakes.float(), rng), labels, strength)
        return {
            "loss": relativistic_loss(d_fake, d_real),
            "label_accuracy": (terms.detach().argmax(1) == labels).float().mean(),
            "spread": _spread(fakes.detach(), labels),
            "real_spread": _spread(images, labels),
        }

    def diagnose(self, losses: dict[str, float], progress: float) -> list[str]:
        """Return what the logged losses say is going wrong: collapse, a won game, or labels that are ignored."""
        found = []
        spread, real = losses.get("generator.spread", 1.0), losses.get("generator.real_spread", 1.0)
        if progress > 0.1 and spread < 0.25 * real:
            found.append(
                "the samples of a class are nearly all alike (collapse): raise generator.gamma, lower "
                "generator.learning_rate, or set generator.label_ramp=0.4"
            )
        if progress > 0.1 and losses.get("discriminator.accuracy", 0.5) > 0.98:
            found.append(
                "the discriminator tells every real image from every fake one: raise generator.gamma or the "
                "augmentation (generator.translation=0.125, generator.cutout=0.3), or lower generator.learning_rate"
            )
        if progress > 0.5 and losses.get("generator.label_accuracy", 1.0) < 0.5 and self.num_classes > 2:
            found.append("most samples are not taken for their class: raise generator.label_weight, or fit longer")
        return found

    def _augmentation_at(self, images_seen: int) -> Augmentation:
        """Return the augmentation after so many images, on a linear ramp."""
        return self.augmentation.scaled(min(1.0, images_seen / max(1, self.augment_images)))

    def _label_strength_at(self, progress: float) -> float:
        """Return the weight of the label after this fraction of the training."""
        if not self.label_ramp:
            return 1.0
        return min(1.0, max(0.0, 2 * progress / self.label_ramp - 1))

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


def _spread(images: Tensor, labels: Tensor) -> Tensor:
    """Return the mean standard deviation of a pixel within a class, over the classes of a batch, a scalar."""
    same = (labels[:, None] == labels[None, :]).to(images.dtype)
    flat = images.flatten(1)
    means = (same @ flat) / same.sum(1, keepdim=True)
    freedom = 1 - 1 / same.sum(1, keepdim=True)  # a class seen once shows no spread
    return ((flat - means).square().sum() / freedom.sum().clamp_min(1) / flat.shape[1]).sqrt()
