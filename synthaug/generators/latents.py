"""Latent spaces of any family, ways through them, and the directions in them that matter.

A family with `encode` and `decode` is explored in its own latents; any other in the noise behind its samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from synthaug.generators.base import ConditionalGenerator

__all__ = ["Direction", "Encoding", "LatentSpace", "Measuring", "find_directions", "interpolate"]

_COMPONENTS = 64
"""Principal components of the images that stand for them where directions are looked for."""
_BATCH = 256


@runtime_checkable
class Encoding(Protocol):
    """A family that goes from images to latents and back."""

    def encode(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the latents (N, D)."""

    def decode(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the images (N, C, H, W)."""


@runtime_checkable
class Measuring(Protocol):
    """A family that says how much each of its latents tells about an image."""

    def latent_kl(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return KL divergences (N, D) in nats."""


class LatentSpace:
    """The latents of a generator as flat vectors: drawn, decoded, and where it can, encoded.

    Args:
        generator: Of any family.
        temperature: Scale of the noise behind what is drawn.
    """

    def __init__(self, generator: ConditionalGenerator, *, temperature: float) -> None:
        self.generator, self.temperature = generator, temperature
        self.encodes = isinstance(generator, Encoding)

    def draw(self, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return latents (N, D) of samples of these labels, and the images (N, C, H, W) they decode to."""
        noise = torch.randn((len(labels), *self.generator.noise_shape), generator=rng)
        images = _in_batches(
            lambda n, y: self.generator.sample(y, noise=n, temperature=self.temperature).cpu(), noise, labels
        )
        if not self.encodes:
            return noise.flatten(1), images
        latents = self.encode(images, labels)
        return latents, self.decode(latents, labels)

    def encode(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the latents (N, D) of images, on the CPU; only where `encodes`."""
        assert isinstance(self.generator, Encoding)
        encode, device = self.generator.encode, next(self.generator.parameters()).device
        with torch.no_grad():
            return _in_batches(lambda x, y: encode(x.to(device), y.to(device)).cpu(), images, labels)

    def decode(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the images (N, C, H, W) in [-1, 1] of latents (N, D), on the CPU."""
        device = next(self.generator.parameters()).device
        if isinstance(self.generator, Encoding):
            paint = self.generator.decode
            with torch.no_grad():
                images = _in_batches(lambda z, y: paint(z.to(device), y.to(device)).cpu(), latents, labels)
        else:
            noise = latents.reshape(len(latents), *self.generator.noise_shape)
            images = _in_batches(
                lambda n, y: self.generator.sample(y, noise=n, temperature=self.temperature).cpu(), noise, labels
            )
        return images.float().clamp(-1, 1)

    def mean_kl(self, images: Tensor, labels: Tensor) -> Tensor | None:
        """Return the mean KL divergence (D,) of each latent in nats; None where the family does not know it."""
        if not isinstance(self.generator, Measuring):
            return None
        measure, device = self.generator.latent_kl, next(self.generator.parameters()).device
        with torch.no_grad():
            return _in_batches(lambda x, y: measure(x.to(device), y.to(device)).cpu(), images, labels).mean(0)


def _in_batches(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    return torch.cat([function(*parts) for parts in zip(*(torch.split(t, _BATCH) for t in tensors), strict=True)])


def interpolate(first: Tensor, last: Tensor, steps: int) -> Tensor:
    r"""Return latents (N, steps, D) from one to the other along arcs, both ends included.

    .. math:: z_t = r_t \left(\frac{\sin((1 - t)\,\omega)}{\sin\omega} \hat a
              + \frac{\sin(t\,\omega)}{\sin\omega} \hat b\right), \qquad r_t = (1 - t) |a| + t |b|

    with the unit vectors of both ends and their angle; where they nearly coincide or oppose, a straight line.

    Args:
        first: (N, D).
        last: (N, D).
        steps: At least 2.

    References:
        White: Sampling generative networks (2016), section 2.1 (spherical interpolation).
    """
    t = torch.linspace(0, 1, steps)[None, :, None]
    lengths = [end.norm(dim=1).clamp_min(1e-9)[:, None, None] for end in (first, last)]
    a, b = first[:, None] / lengths[0], last[:, None] / lengths[1]
    angle = (a * b).sum(-1, keepdim=True).clamp(-1, 1).arccos()
    sine = angle.sin()
    arc = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / sine.clamp_min(1e-6)
    arc = arc * ((1 - t) * lengths[0] + t * lengths[1])
    return torch.where(sine < 1e-3, (1 - t) * first[:, None] + t * last[:, None], arc)


@dataclass(frozen=True)
class Direction:
    """A direction in a latent space.

    Args:
        title: What it is called, e.g. "dimension 7".
        vector: (D,) unit vector.
        spread: Standard deviation along it, within classes, of the latents it was found on.
        nats: Mean KL divergence where it is a dimension of its own, else None.
    """

    title: str
    vector: Tensor
    spread: float
    nats: float | None = None


def find_directions(latents: Tensor, images: Tensor, labels: Tensor, kl: Tensor | None, count: int) -> list[Direction]:
    r"""Return the directions that matter most, at most `count`.

    Where the KL divergence of every latent is known, they are the dimensions of largest mean KL: those the
    posterior uses. Otherwise they are the leading left singular vectors of the covariance of latents and
    images within classes. For standard normal latents this covariance is the mean Jacobian of the decoder
    (Stein's lemma), so they are the directions in which the image changes most.

    .. math:: \mathrm{cov}(z, x) = \mathrm E\left[\frac{\partial x}{\partial z}\right]^{\top} = U S V^{\top}

    Args:
        latents: (N, D).
        images: (N, C, H, W) in [-1, 1], what the latents decode to or were encoded from.
        labels: (N,) int64.
        kl: (D,) nats, or None.
        count: How many.

    References:
        Higgins et al.: beta-VAE (2017), section 3 (dimensions apart). Stein: Estimation of the mean of a
        multivariate normal distribution (1981), lemma 1. Harkonen et al.: GANSpace (2020), section 2.
    """
    centred = _centre(latents, labels)
    if kl is not None:
        order = kl.argsort(descending=True)[:count].tolist()
        spreads = centred.std(dim=0)
        eye = torch.eye(latents.shape[1])
        return [Direction(f"dimension {d}", eye[d], float(spreads[d]), float(kl[d])) for d in order]
    pixels = _centre(images.flatten(1), labels)
    components = min(_COMPONENTS, *pixels.shape)
    left, values, _ = torch.linalg.svd(pixels, full_matrices=False)
    covariance = centred.T @ (left[:, :components] * values[:components]) / max(len(latents) - 1, 1)
    vectors = torch.linalg.svd(covariance, full_matrices=False)[0].T[:count]
    spreads = (centred @ vectors.T).std(dim=0)
    return [
        Direction(f"direction {number}", vector, float(spread))
        for number, (vector, spread) in enumerate(zip(vectors, spreads, strict=True), start=1)
        if math.isfinite(float(spread)) and float(spread) > 1e-6
    ]


def _centre(values: Tensor, labels: Tensor) -> Tensor:
    """Return the rows without the mean of their class."""
    centred = values.clone().float()
    for label in torch.unique(labels):
        members = labels == label
        centred[members] -= centred[members].mean(dim=0)
    return centred
