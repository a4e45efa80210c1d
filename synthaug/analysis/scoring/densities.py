"""How likely a generator finds images, class by class, and how well it paints them again.

What a family can do is told by the methods it has, never by its name.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from synthaug.core import BatchRandom, InputError
from synthaug.data import to_tensor
from synthaug.generators import ConditionalGenerator

__all__ = ["BoundedDensity", "Dequantised", "ExactDensity", "Reconstructing", "bits_per_dim", "class_densities",
           "name_density", "reconstruction_errors"]  # fmt: skip

Floats = NDArray[np.float64]

_BATCH, _POSTERIOR_SAMPLES, _SEED = 256, 2, 0
_LOG_BIN = math.log(2 / 255)


@runtime_checkable
class ExactDensity(Protocol):
    """A family that knows its density."""

    def log_prob(self, images: Tensor, labels: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Return log p(image | label), (N,) in nats, of a density on [-1, 1]; noise in [0, 1) dequantises."""


@runtime_checkable
class Dequantised(Protocol):
    """A family that knows its density and has learnt where in its bin to put an 8-bit value."""

    def log_prob_bound(self, images: Tensor, labels: Tensor, *, noise: Tensor) -> Tensor:
        """Return a bound on the log probability of 8-bit images, (N,) in nats, for noise in [0, 1)."""


@runtime_checkable
class BoundedDensity(Protocol):
    """A family that knows a lower bound of its density."""

    def elbo(self, images: Tensor, labels: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Return a one-sample estimate of the bound, (N,) in nats, of images with 8-bit values."""


@runtime_checkable
class Reconstructing(Protocol):
    """A family that paints an image again from what it has understood of it."""

    def reconstruct(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return images (N, C, H, W)."""


def name_density(generator: ConditionalGenerator) -> str:
    """Return what `class_densities` gives: "log-likelihood" or "ELBO".

    Raises:
        InputError: If the family has neither.
    """
    if isinstance(generator, ExactDensity):
        return "log-likelihood"
    if isinstance(generator, BoundedDensity):
        return "ELBO"
    raise InputError(
        f"a {generator.family} knows no likelihood, so it cannot score rows; fit a glow (exact) or a cvae "
        "(lower bound) on the same rows"
    )


@torch.no_grad()
def class_densities(generator: ConditionalGenerator, pixels: NDArray[np.uint8]) -> Floats:
    r"""Return log p(x | y) of every image under every class, (N, K) float64 in nats, of a density on [-1, 1].

    An exact density is taken at the dequantised image, x + (u - 1/2) 2/255 with u uniform and keyed by the
    row, or as a bound with u placed by what the family has learnt of it; an ELBO at the image itself, averaged
    over a few posterior samples. All classes see the same noise, so that differences between classes are not
    those of their noise.

    Args:
        generator: A family with `log_prob` or `elbo`.
        pixels: (N, H, W, C) uint8, in RAM or memory-mapped.

    Raises:
        InputError: If the family has neither.

    References:
        Theis, van den Oord, Bethge: A note on the evaluation of generative models (2016), eq. 4 (dequantisation).
    """
    what, parts = name_density(generator), []
    bar = tqdm(total=len(pixels), desc=what, unit="img", mininterval=0.5, leave=False, disable=None)
    with bar:
        for start in range(0, len(pixels), _BATCH):
            images = to_tensor(pixels[start : start + _BATCH]).to(_device(generator))
            columns = [_densities(generator, images, label, start) for label in range(generator.num_classes)]
            parts.append(torch.stack(columns, dim=1).double().cpu().numpy())
            bar.update(len(images))
    return np.concatenate(parts) if parts else np.empty((0, generator.num_classes))


def _densities(generator: ConditionalGenerator, images: Tensor, label: int, start: int) -> Tensor:
    """Return log p(x | label) (N,) of the rows from `start`."""
    labels = torch.full((len(images),), label, dtype=torch.int64, device=images.device)
    if isinstance(generator, ExactDensity):
        rng = BatchRandom(_SEED, 0, start=start, count=len(images), device=images.device)
        noise = rng.uniform(*images.shape[1:])
        if isinstance(generator, Dequantised):
            return generator.log_prob_bound(images, labels, noise=noise) - images[0].numel() * _LOG_BIN
        return generator.log_prob(images, labels, noise=noise)
    assert isinstance(generator, BoundedDensity)
    bounds = [
        generator.elbo(images, labels, rng=torch.Generator().manual_seed(start * _POSTERIOR_SAMPLES + sample))
        for sample in range(_POSTERIOR_SAMPLES)
    ]
    return torch.stack(bounds).mean(0)


@torch.no_grad()
def reconstruction_errors(
    generator: ConditionalGenerator, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
) -> Floats | None:
    """Return the mean squared error (N,) of painting each image again, in [-1, 1] units; None where that is exact.

    Args:
        generator: Any family; one without `reconstruct` gives None.
        pixels: (N, H, W, C) uint8.
        labels: (N,) int64, the class under which each image is looked at.
    """
    if not isinstance(generator, Reconstructing):
        return None
    errors = np.empty(len(pixels))
    for start in range(0, len(pixels), _BATCH):
        part = slice(start, start + _BATCH)
        images = to_tensor(pixels[part]).to(_device(generator))
        again = generator.reconstruct(images, torch.from_numpy(labels[part]).to(images.device))
        errors[part] = ((images - again) ** 2).flatten(1).mean(1).double().cpu().numpy()
    return errors


def bits_per_dim(log_density: Floats, dimensions: int) -> Floats:
    r"""Return the bits that a lossless coder of the 8-bit pixels would need per value.

    .. math:: b = -\frac{\log p(x) + D \log(2/255)}{D \log 2}

    Args:
        log_density: log p in nats, of a density on [-1, 1].
        dimensions: D, the values of an image.

    Example:
        >>> float(bits_per_dim(np.array([-1.0 * 784 * math.log(2.0)]), 784)[0].round(2))
        7.99
    """
    bits: Floats = -(log_density / dimensions + _LOG_BIN) / math.log(2.0)
    return bits


def _device(generator: ConditionalGenerator) -> torch.device:
    return next(generator.parameters()).device
