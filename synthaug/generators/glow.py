"""Glow: a class-conditional multi-scale flow with exact densities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.generators.base import ConditionalGenerator, Objective, Preset
from synthaug.generators.bijections import (
    Bijection,
    ClassGaussian,
    ClassWhitening,
    PrincipalRotation,
    Squeeze,
)
from synthaug.generators.couplings import (
    AffineCoupling,
    BorderCoupling,
    ConvNetwork,
    DenseNetwork,
    FlowStep,
    HaarLevel,
)
from synthaug.noise import BatchRandom

__all__ = ["BIN_WIDTH", "Glow"]

BIN_WIDTH = 2.0 / 255.0
"""Width of one of the 256 pixel values in [-1, 1] units."""
MINIMUM_START = 2048
"""Rows, copies included, on which `initialize` takes its statistics at least."""


class Glow(ConditionalGenerator):
    """Multi-scale flow given the label: exact densities, a class posterior, samples by inversion.

    ``x -> [frame] -> (squeeze, steps, split) per level -> dense steps on what is left -> class Gaussian``.
    The convolutional steps see a neighbourhood, the dense steps the whole image; the label enters every
    coupling network by FiLM and every latent, split off early or late, through the mean and spread of its
    class. Training minimises bits per dimension of dequantised, slightly noised images.

    Args:
        class_names: Names of the classes; label i means class_names[i].
        image_size: Height and width of the images, 8 to 64.
        channels: 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
        steps: Number of flow steps in each level; every level halves the image. An empty list leaves the
            image to the dense steps.
        width: Hidden channels of the convolutional coupling networks.
        dense_steps: Number of flow steps on the flattened top latents.
        dense_width: Hidden features of their coupling networks.
        embedding: Width of the label embedding.
        additive: Additive couplings instead of affine ones.
        noise_level: Standard deviation, in [-1, 1] units, of the Gaussian noise added to training images
            besides the uniform dequantisation.
        denoise_steps: Steps along the score that take this noise out of a sample.
        fine_temperature: Temperature of the latents split off early (frame, details, minor axes) as a
            fraction of that of the top latents: little of them is more than noise.
        class_weight: Weight of the classification term.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.

    References:
        Kingma, Dhariwal: Glow (2018). Dinh, Sohl-Dickstein, Bengio: Real NVP (2017).
        Zhai et al.: Normalizing flows are capable generative models (2024), sections 2.4 and 2.5 (noise,
        score-based denoising).

    Example:
        >>> glow = Glow(class_names=["a", "b"], image_size=8, channels=1, width=8, dense_width=8)
        >>> images = glow.sample(torch.tensor([0, 1]))
        >>> glow.log_prob(images, torch.tensor([0, 1])).shape
        torch.Size([2])
    """

    family: ClassVar[str] = "glow"
    default_temperature: ClassVar[float] = 0.8

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        image_size: int,
        channels: int,
        steps: Sequence[int] = (0,),
        width: int = 32,
        dense_steps: int = 16,
        dense_width: int = 192,
        principal: int = 80,
        embedding: int = 32,
        additive: bool = False,
        noise_level: float = 0.3,
        denoise_steps: int = 5,
        fine_temperature: float = 0.3,
        class_weight: float = 0.02,
        learning_rate: float = 4e-3,
        weight_decay: float = 1e-3,
    ) -> None:
        super().__init__(class_names=class_names, image_size=image_size, channels=channels)
        most = int(math.log2(image_size))
        if len(steps) > most:
            raise InputError(f"steps is {list(steps)}; give at most {most} levels for images of {image_size} pixels")
        self.noise_level, self.class_weight, self.additive = noise_level, class_weight, additive
        self.denoise_steps, self.fine_temperature = denoise_steps, fine_temperature
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.embedding = nn.Embedding(self.num_classes, embedding)
        self.inner_size = image_size - image_size % 2 ** len(steps)
        self.border: BorderCoupling | None = None
        if self.inner_size < image_size:
            frame_network = ConvNetwork(channels, 2 * channels, width // 2, embedding)
            self.border = BorderCoupling(frame_network, image_size, self.inner_size)
        self.squeeze, self.levels = Squeeze(2), nn.ModuleList()
        size = self.inner_size
        for count in steps:
            size //= 2
            self.levels.append(HaarLevel(channels, count, width, embedding, additive))
        self.flatten, top = Squeeze(size), channels * size * size
        self.kept = min(principal, top)
        self.axes = PrincipalRotation(top)
        self.rest: AffineCoupling | None = None
        if self.kept < top:
            outputs = 2 * (top - self.kept)
            self.rest = AffineCoupling(DenseNetwork(self.kept, outputs, dense_width, embedding), self.kept)
        self.whitening, self.dense = ClassWhitening(self.num_classes, self.kept), nn.ModuleList()
        first, second = self.kept // 2, self.kept - self.kept // 2
        for _ in range(dense_steps):
            network = DenseNetwork(first, second if additive else 2 * second, dense_width, embedding)
            self.dense.append(FlowStep(self.kept, AffineCoupling(network, first, additive=additive)))
        self.prior = ClassGaussian(self.num_classes, self.noise_shape[0])

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(C * H * W,): a flow has as many latents as pixels."""
        return (self.channels * self.image_size**2,)

    def _levels(self) -> list[HaarLevel]:
        return [level for level in self.levels if isinstance(level, HaarLevel)]

    def _top_steps(self) -> list[FlowStep]:
        return [step for step in self.dense if isinstance(step, FlowStep)]

    def _to_latents(self, images: Tensor, labels: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """Return the latents (N, D) before their class Gaussian, and the log-determinant (N,).

        A positive `start` initialises each layer on its way; it is the number of copies of each image.
        """
        context, x = self.embedding(labels), images
        logdet, parts = x.new_zeros(len(x)), []

        def apply(layer: Bijection, x: Tensor, given: Tensor = context) -> Tensor:
            nonlocal logdet
            if start and isinstance(layer, ClassWhitening):
                layer.initialize(x, given, copies=start)
            elif start:
                layer.initialize(x, given)
            moved: tuple[Tensor, Tensor] = layer(x, given)
            logdet = logdet + moved[1]
            return moved[0]

        if self.border is not None:
            x = apply(self.border, x)
            parts.append(self.border.frame(x).flatten(1))
            x = self.border.crop(x)
        for level in self._levels():
            x = self.squeeze(x)[0].contiguous(memory_format=torch.channels_last)
            for layer in level.layers():
                x = apply(layer, x)
            parts.append(x[:, self.channels :].flatten(1))
            x = x[:, : self.channels]
        x = apply(self.axes, self.flatten(x)[0])
        if self.rest is not None:
            x = apply(self.rest, x)
            parts.append(x[:, self.kept :].flatten(1))
            x = x[:, : self.kept]
        x = apply(self.whitening, x, labels)
        for step in self._top_steps():
            x = apply(step, x)
        parts.append(x.flatten(1))
        return torch.cat(parts, dim=1), logdet

    def _from_latents(self, z: Tensor, labels: Tensor) -> Tensor:
        """Undo `_to_latents`."""
        context = self.embedding(labels)
        areas = [self.channels * (self.inner_size >> level) ** 2 for level in range(len(self.levels) + 1)]
        sizes, top = [3 * area for area in areas[1:]], areas[-1]
        sizes = [z.shape[1] - sum(sizes) - top, *sizes, top]
        frame, *details, x = torch.split(z[:, :, None, None], sizes, dim=1)
        rest, x = x[:, : top - self.kept], x[:, top - self.kept :]
        for step in reversed(self._top_steps()):
            x = step.inverse(x, context)[0]
        x = self.whitening.inverse(x, labels)[0]
        if self.rest is not None:
            x = self.rest.inverse(torch.cat([x, rest], dim=1), context)[0]
        x = self.axes.inverse(x)[0]
        x = self.flatten.inverse(x)[0]
        for level, detail in zip(reversed(self._levels()), reversed(details), strict=True):
            x = torch.cat([x, detail.reshape(len(z), -1, *x.shape[2:])], dim=1)
            for layer in reversed(level.layers()):
                x = layer.inverse(x, context)[0]
            x = self.squeeze.inverse(x)[0]
        if self.border is not None:
            x = self.border.join(x, frame.reshape(len(z), self.channels, -1))
            x = self.border.inverse(x, context)[0]
        return x

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density (N,) and the latents' log densities under every class (N, K), in nats."""
        z, logdet = self._to_latents(images, labels)
        classes = self.prior.class_log_density(z)
        return logdet + classes.gather(1, labels[:, None])[:, 0], classes

    def log_prob(self, images: Tensor, labels: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Return the exact log density of images given labels.

        It is the density of a continuous image in [-1, 1] units, in nats. For pixels of 8 bits, give
        uniform `noise`: the mean over noise of ``log_prob + D log(2 / 255)`` bounds their log probability
        from below.

        Args:
            images: (N, C, H, W) float in [-1, 1].
            labels: (N,) int64.
            noise: (N, C, H, W) in [0, 1), placing each pixel within its bin of width 2 / 255; None takes
                the images as they are.

        Returns:
            (N,) log density in nats.
        """
        if noise is not None:
            images = images + (noise - 0.5) * BIN_WIDTH
        density: Tensor = self(images, labels)[0]
        return density

    @torch.no_grad()
    def class_log_prob(self, images: Tensor) -> Tensor:
        """Return log p(label | image) (N, K) by Bayes' rule, the classes being equally likely beforehand.

        Args:
            images: (N, C, H, W) float in [-1, 1].
        """
        labels = torch.arange(self.num_classes, device=images.device)
        densities = [self.log_prob(images, label.expand(len(images))) for label in labels]
        return torch.stack(densities, dim=1).log_softmax(dim=1)

    def encode(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the latents (N, D) of images (N, C, H, W); standard normal if the model fits."""
        return self.prior.whiten(self._to_latents(images, labels)[0], labels)[0]

    def decode(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the images (N, C, H, W) of latents (N, D): the inverse of `encode`."""
        return self._from_latents(self.prior.colour(latents, labels), labels)

    def decode_noise(self, noise: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Map noise (N, D) and labels (N,) to images: decode, then remove the training noise.

        A model of noised images knows their score, so the mean of the clean image is one step away,
        ``x + noise_level**2 * grad log p(x)`` (Tweedie's formula); further steps remove what the model's
        own imprecision left.
        """
        fine = noise.shape[1] - self.kept
        scales = torch.full_like(noise[0], temperature)
        scales[:fine] *= self.fine_temperature
        images = self.decode(noise * scales, labels)
        for _ in range(self.denoise_steps if self.noise_level else 0):
            with torch.enable_grad():
                start = images.detach().requires_grad_()
                (score,) = torch.autograd.grad(self.log_prob(start, labels).sum(), start)
            images = start.detach() + self.noise_level**2 * score
        return images

    @torch.no_grad()
    def initialize(self, images: Tensor, labels: Tensor) -> None:
        """Start actnorms, rotation, whitening and class Gaussians from training images.

        Args:
            images: (N, C, H, W) float in [-1, 1], the rows of all processes, so that all start alike; some
                thousands give the best start. Fewer are repeated with other noise: directions in which few
                images do not vary then keep the spread of the noise.
            labels: (N,) int64.
        """
        copies = -(-MINIMUM_START // len(images))
        images, labels = images.repeat(copies, 1, 1, 1), labels.repeat(copies)
        rng = torch.Generator().manual_seed(0)
        uniform = torch.rand(images.shape, generator=rng).to(images)
        normal = torch.randn(images.shape, generator=rng).to(images)
        z, _ = self._to_latents(self._blur(images, uniform, normal), labels, copies)
        self.prior.initialize(z, labels, 4.0 * copies)

    def _blur(self, images: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
        """Dequantise images and add the training noise."""
        return images + (uniform - 0.5) * BIN_WIDTH + self.noise_level * normal

    def loss(self, prepared: nn.Module, images: Tensor, labels: Tensor, rng: BatchRandom) -> dict[str, Tensor]:
        """Return bits per dimension of the noised images plus the classification term.

        ``loss = -(log p(x | y) + D log(2/255)) / (D log 2) + class_weight * CE(y, latents)``, where CE is
        the cross-entropy of the class posterior of the latents that the given label leads to.
        """
        uniform, normal = rng.uniform(*images.shape[1:]), rng.normal(*images.shape[1:])
        log_prob, classes = prepared(self._blur(images, uniform.to(images), normal.to(images)), labels)
        dimensions = images[0].numel()
        bits = -(log_prob.mean() / dimensions + math.log(BIN_WIDTH)) / math.log(2.0)
        crossentropy = F.cross_entropy(classes, labels)
        loss = bits + self.class_weight * crossentropy
        return {"loss": loss, "bits_per_dim": bits.detach(), "class_loss": crossentropy.detach()}

    def objectives(self) -> Sequence[Objective]:
        """Return the one objective."""
        rates = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        return [Objective("flow", self, self.loss, betas=(0.9, 0.99), clip_norm=1.0, **rates)]

    @classmethod
    def preset(cls, class_counts: Sequence[int], image_size: int, channels: int) -> Preset:
        """Return the defaults for these training counts per class.

        The dense top works at 16 pixels or fewer; its principal axes are at most a quarter of the images.
        Strong noise spends the capacity on shape, which suits grey images; colour images keep more texture.
        """
        total, colour = sum(class_counts), channels >= 3
        levels = max(0, math.ceil(math.log2(image_size / 16)))
        constructor = {
            "steps": [0] * levels,
            "principal": max(8, min(128 if colour else 80, total // 4)),
            "noise_level": 0.15 if colour else 0.3,
        }
        return Preset(constructor=constructor, batch_size=128 if total >= 1000 else 64, ema_images=5000)
