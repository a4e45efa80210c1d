"""Glow: a class-conditional multi-scale flow with exact densities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.core import BatchRandom, InputError, Policy, augment
from synthaug.generators.base import ConditionalGenerator, Objective, Preset, check_range
from synthaug.generators.glow.checkerboard import VariationalDequantiser
from synthaug.generators.glow.couplings import ConvNetwork
from synthaug.generators.glow.multiscale import MultiScaleFlow
from synthaug.generators.glow.typicality import choose_rows, likelihood_floors
from synthaug.generators.glow.whitening import ClassGaussian

__all__ = ["BIN_WIDTH", "TEMPERATURES", "Glow"]

BIN_WIDTH = 2.0 / 255.0
"""Width of one of the 256 pixel values in [-1, 1] units."""
TEMPERATURES = (0.8, 0.9, 1.0)
"""Temperatures that a fit compares on validation rows, the default first."""
_START, _LEAST_START, _START_VALUES = 2048, 1024, 1 << 22
"""Rows, copies included, on which `initialize` takes its statistics at least; fewer where images are large."""
_DEQUANTISER_DEPTH = 4
"""Checkerboard couplings of the variational dequantisation."""
_MEMORIZED = 8192
"""Rows that `memorize` looks at, or a few more."""
_MOVES = Policy(rotate=8.0, translate=0.06, scale=0.08, shear=5.0)
"""Moves that make new images of training rows; an image so moved is still one of its class."""
_DEQUANTIZATIONS = ("uniform", "variational")


class _Row(NamedTuple):
    """Regularisation and sampling for up to so many images in the middle class."""

    images_per_class: float
    augmentation: float
    log_scale: float
    temperature: float
    denoise_steps: int


_PRESETS = (
    _Row(100, augmentation=0.5, log_scale=1.0, temperature=0.8, denoise_steps=5),
    _Row(math.inf, augmentation=0.0, log_scale=2.0, temperature=0.9, denoise_steps=3),
)
"""Cool, thoroughly cleaned samples of many grey images lie too near to training images: 0.9 and 3 were chosen on
validation rows of MNIST. Colour keeps the first row's sampling, where nothing was measured."""
_TOP_SIZE = 16
"""Levels halve the image until it has at most so many pixels a side; the dense steps do the rest."""
_PRINCIPAL, _NOISE = {False: 80, True: 128}, {False: 0.3, True: 0.15}
"""Principal axes at most, and training noise, of grey images and of colour. Strong noise spends the capacity on
shape, which suits grey images; colour images keep more texture."""
_WHITENING_NUMBERS = 2_000_000
"""Of the matrices that whiten the principal axes of each class, together."""


class Glow(ConditionalGenerator):
    """Multi-scale flow given the label: exact densities, a class posterior, samples by inversion.

    ``x -> [checkerboards] -> [frame] -> (squeeze, steps, split) per level -> dense steps -> class Gaussian``.
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
        principal: Number of principal axes, after the levels, that go through the dense steps; the others
            are moved by a function of them.
        embedding: Width of the label embedding.
        dropout: Share of the dense networks' hidden features that a training step leaves out.
        log_scale: Largest absolute log-scale of a dense coupling; less of it extrapolates more calmly.
        additive: Additive couplings instead of affine ones, everywhere (NICE): volumes then change only where
            latents are scaled.
        checkerboard: Number of checkerboard couplings at full resolution, before all else.
        dequantization: "uniform" spreads a pixel evenly over its bin; "variational" learns how, and its
            training loss is a bound on the likelihood of the 8-bit images when `noise_level` is 0.
        augmentation: Share of the training images that are turned, moved, scaled and sheared a little.
        noise_level: Standard deviation, in [-1, 1] units, of the Gaussian noise added to training images
            besides the uniform dequantisation.
        denoise_steps: Steps along the score that take this noise out of a sample.
        fine_temperature: Temperature of the latents split off early (frame, details, minor axes) as a
            fraction of that of the top latents: little of them is more than noise.
        temperature: The run's own temperature. None leaves it to the fit, which compares `TEMPERATURES` on
            validation rows (some tens of seconds each on one core), and is the first of them until then.
        class_weight: Weight of the classification term.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.

    Attributes:
        typical_low: (K,) log density in nats that nearly all new real images of each class exceed; set by
            `memorize`, minus infinity before.

    Raises:
        InputError: If there are too many levels, a count is negative or `dequantization` is no such word.

    References:
        Kingma, Dhariwal: Glow (2018). Dinh, Sohl-Dickstein, Bengio: Real NVP (2017).
        Dinh, Krueger, Bengio: NICE (2015) (additive coupling). Ho et al.: Flow++ (2019), section 3.1.
        Zhai et al.: Normalizing flows are capable generative models (2024), sections 2.4 and 2.5 (noise,
        score-based denoising).

    Example:
        >>> glow = Glow(class_names=["a", "b"], image_size=8, channels=1, width=8, dense_width=8)
        >>> images = glow.sample(torch.tensor([0, 1]))
        >>> glow.log_prob(images, torch.tensor([0, 1])).shape
        torch.Size([2])
    """

    family: ClassVar[str] = "glow"
    typical_low: Tensor

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
        dropout: float = 0.0,
        log_scale: float = 2.0,
        additive: bool = False,
        checkerboard: int = 0,
        dequantization: str = "uniform",
        augmentation: float = 0.0,
        noise_level: float = 0.3,
        denoise_steps: int = 5,
        fine_temperature: float = 0.3,
        temperature: float | None = None,
        class_weight: float = 0.02,
        learning_rate: float = 4e-3,
        weight_decay: float = 1e-3,
    ) -> None:
        super().__init__(class_names=class_names, image_size=image_size, channels=channels)
        _check(image_size, steps, checkerboard, dropout, dequantization)
        sizes = {"width": width, "dense_width": dense_width, "principal": principal, "embedding": embedding}
        amounts = {"dense_steps": dense_steps, "denoise_steps": denoise_steps, "noise_level": noise_level}
        amounts |= {"fine_temperature": fine_temperature, "class_weight": class_weight, "weight_decay": weight_decay}
        for name, value in sizes.items():
            check_range(name, value, 1)
        for name, amount in amounts.items():
            check_range(name, amount, 0)
        check_range("augmentation", augmentation, 0, 1)
        check_range("log_scale", log_scale, 0, above=True)
        check_range("learning_rate", learning_rate, 0, above=True)
        self.augmentation, self.noise_level, self.class_weight = augmentation, noise_level, class_weight
        self.denoise_steps, self.fine_temperature = denoise_steps, fine_temperature
        self.temperature = _check_temperature(temperature)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.flow = MultiScaleFlow(
            self.num_classes, image_size, channels, steps=steps, width=width, dense_steps=dense_steps,
            dense_width=dense_width, principal=principal, embedding=embedding, dropout=dropout, log_scale=log_scale,
            additive=additive, checkerboard=checkerboard,
        )  # fmt: skip
        self.dequantiser: VariationalDequantiser | None = None
        if dequantization == "variational":
            networks = [ConvNetwork(2 * channels, 2 * channels, width, embedding) for _ in range(_DEQUANTISER_DEPTH)]
            self.dequantiser = VariationalDequantiser(networks, image_size)
        self.prior = ClassGaussian(self.num_classes, self.noise_shape[0])
        self.register_buffer("typical_low", torch.full((self.num_classes,), -math.inf))

    @property
    def default_temperature(self) -> float:
        """`temperature`, or the first of `TEMPERATURES` where it was left open."""
        return TEMPERATURES[0] if self.temperature is None else self.temperature

    def open_choices(self) -> dict[str, tuple[Any, ...]]:
        """Return the temperatures, where the user left the choice to the fit."""
        return {"temperature": TEMPERATURES} if self.temperature is None else {}

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(C * H * W,): a flow has as many latents as pixels."""
        return (self.channels * self.image_size**2,)

    def forward(
        self, images: Tensor, labels: Tensor, uniform: Tensor | None = None, normal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the log density (N,) and the latents' log densities under every class (N, K), in nats.

        Args:
            images: (N, C, H, W) float in [-1, 1].
            labels: (N,) int64.
            uniform: (N, C, H, W) in [0, 1) that dequantises the images; with variational dequantisation the
                density is then less by log q(u | x).
            normal: (N, C, H, W) standard normal, the training noise; given together with `uniform`.
        """
        spent = None
        if uniform is not None:
            if self.dequantiser is not None:
                uniform, spent = self.dequantiser(uniform, images, self.flow.embedding(labels))
            images = _dequantise(images, uniform)
        if normal is not None:
            images = images + self.noise_level * normal
        z, logdet = self.flow(images, labels)
        classes = self.prior.class_log_density(z)
        density = logdet + classes.gather(1, labels[:, None])[:, 0]
        return density if spent is None else density - spent, classes

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
            images = _dequantise(images, noise)
        density: Tensor = self(images, labels)[0]
        return density

    def log_prob_bound(self, images: Tensor, labels: Tensor, *, noise: Tensor) -> Tensor:
        """Return a one-sample lower bound on the log probability of 8-bit images given labels.

        ``log p(x + u | y) - log q(u | x, y) + D log(2 / 255)``, where q is what `dequantization` says; its
        mean over noise is the bound that training raises when `noise_level` is 0.

        Args:
            images: (N, C, H, W) float in [-1, 1], 8-bit values.
            labels: (N,) int64.
            noise: (N, C, H, W) uniform in [0, 1).

        Returns:
            (N,) nats.
        """
        density: Tensor = self(images, labels, noise)[0]
        return density + images[0].numel() * math.log(BIN_WIDTH)

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
        return self.prior.whiten(self.flow(images, labels)[0], labels)[0]

    def decode(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the images (N, C, H, W) of latents (N, D): the inverse of `encode`."""
        return self.flow.inverse(self.prior.colour(latents, labels), labels)

    def decode_noise(self, noise: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Map noise (N, D) and labels (N,) to images: decode, then remove the training noise.

        A model of noised images knows their score, so the mean of the clean image is one step away,
        ``x + noise_level**2 * grad log p(x)`` (Tweedie's formula); further steps remove what the model's
        own imprecision left.
        """
        fine = noise.shape[1] - self.flow.kept
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
        rows = max(_LEAST_START, min(_START, _START_VALUES // images[0].numel()))
        copies = -(-rows // len(images))
        images, labels = images.repeat(copies, 1, 1, 1), labels.repeat(copies)
        rng = torch.Generator().manual_seed(0)
        images = _dequantise(images, torch.rand(images.shape, generator=rng).to(images))
        images = images + self.noise_level * torch.randn(images.shape, generator=rng).to(images)
        z, _ = self.flow(images, labels, start=copies)
        self.prior.initialize(z, labels, 4.0 * copies)

    @torch.no_grad()
    def memorize(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set `typical_low` from training rows: how likely new real images of each class are at least.

        Args:
            batches: All training rows in turn, as images (N, C, H, W) in [-1, 1] of 8-bit values and labels
                (N,); of large classes every so manieth row is looked at.
        """
        dense = max(16, min(256, _MEMORIZED // self.num_classes))
        seen, parts = torch.zeros(self.num_classes, dtype=torch.int64), []
        was_training = self.training
        self.eval()
        for number, (images, labels) in enumerate(batches):
            onehot = F.one_hot(labels.cpu(), self.num_classes)
            positions = seen + onehot.cumsum(0) - 1
            seen += onehot.sum(0)
            kept = choose_rows(positions.gather(1, labels.cpu()[:, None])[:, 0].numpy(), dense)
            rows = torch.from_numpy(np.flatnonzero(kept)).to(labels.device)
            if len(rows):
                images, labels = images[rows], labels[rows]
                moved = augment(images, _MOVES, BatchRandom(0, number, start=0, count=len(rows), device=images.device))
                densities = [self.log_prob(x, labels).double().cpu().numpy() for x in (images, moved)]
                parts.append((*densities, labels.cpu().numpy()))
        self.train(was_training)
        if parts:
            real, changed, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
            floors = likelihood_floors(real, changed, targets, self.num_classes)
            self.typical_low.copy_(torch.from_numpy(floors))

    def loss(self, prepared: nn.Module, images: Tensor, labels: Tensor, rng: BatchRandom) -> dict[str, Tensor]:
        """Return bits per dimension of the noised images plus the classification term.

        ``loss = -(log p(x | y) + D log(2/255)) / (D log 2) + class_weight * CE(y, latents)``, where CE is
        the cross-entropy of the class posterior of the latents that the given label leads to.
        """
        uniform, normal = rng.uniform(*images.shape[1:]), rng.normal(*images.shape[1:])
        if self.augmentation:
            chosen = rng.uniform(1, 1, 1).to(images.device) < self.augmentation
            images = torch.where(chosen, augment(images, _MOVES, rng), images)
        log_prob, classes = prepared(images, labels, uniform.to(images), normal.to(images))
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
        """Return the defaults for a dataset with these training counts per class."""
        total, colour = sum(class_counts), channels >= 3
        typical = sorted(class_counts)[len(class_counts) // 2]
        row = next(row for row in _PRESETS if typical <= row.images_per_class)
        sampling = _PRESETS[0] if colour else row
        affordable = math.isqrt(_WHITENING_NUMBERS // len(class_counts))
        constructor: dict[str, Any] = {
            "steps": [0] * max(0, math.ceil(math.log2(image_size / _TOP_SIZE))),
            "principal": max(8, min(_PRINCIPAL[colour], total // 4, affordable)),
            "augmentation": row.augmentation,
            "log_scale": row.log_scale,
            "noise_level": _NOISE[colour],
            "temperature": sampling.temperature,
            "denoise_steps": sampling.denoise_steps,
        }
        return Preset(constructor=constructor, batch_size=128 if total >= 1000 else 64, ema_images=5000)


def _dequantise(images: Tensor, noise: Tensor) -> Tensor:
    """Place each pixel within its bin; 0.5 is its middle."""
    return images + (noise - 0.5) * BIN_WIDTH


def _check_temperature(temperature: float | None) -> float | None:
    """Return the temperature, or raise InputError where it is no number of at least 0."""
    if temperature is None or (type(temperature) in (int, float) and 0 <= temperature < math.inf):
        return temperature
    raise InputError(f"temperature is {temperature!r}; give a number of at least 0, such as 0.9, or leave it out")


def _check(image_size: int, steps: Sequence[int], checkerboard: int, dropout: float, dequantization: str) -> None:
    """Raise InputError for arguments out of range."""
    most = int(math.log2(image_size))
    if len(steps) > most or any(number < 0 for number in steps):
        raise InputError(
            f"steps is {list(steps)}; give at most {most} levels of 0 steps or more for images of {image_size} pixels"
        )
    if checkerboard < 0:
        raise InputError(f"checkerboard is {checkerboard}; give a number of couplings of at least 0, such as 3")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout is {dropout}; give a share of at least 0 and below 1, such as 0.2")
    if dequantization not in _DEQUANTIZATIONS:
        raise InputError(f"dequantization is {dequantization!r}; choose one of {', '.join(_DEQUANTIZATIONS)}")
