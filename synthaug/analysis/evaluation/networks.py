"""Two networks that look at synthetic rows: a residual classifier trained on real rows, and a fixed random one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from synthaug.classifiers import ResidualClassifier, fit_classifier, row_schedule
from synthaug.core import BatchRandom, Policy, augment, draw_normal
from synthaug.data import to_tensor

__all__ = ["RandomNetwork", "count_referee_steps", "embed_rows", "fit_referee"]

_MILD = Policy(rotate=8.0, translate=0.06, scale=0.08, shear=5.0)
_BATCH, _ROWS = 128, 512
_WEIGHTS_SEED = 2_020
"""Seed of the random network's weights; another one would make distances incomparable."""


class RandomNetwork(nn.Module):
    """A convolutional network with fixed random weights: features that know nothing of the data.

    Its weights come from counter-based noise, so they are the same in every version of torch.

    Args:
        channels: Channels of the images.

    References:
        Naeem et al.: Reliable fidelity and diversity metrics for generative models (2020), section 4 (random
        embeddings, where a pretrained network fits the data badly).

    Example:
        >>> RandomNetwork(1).embed(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 256])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for number, (inputs, outputs) in enumerate(((channels, 32), (32, 64), (64, 64))):
            layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            drawn = draw_normal(_WEIGHTS_SEED, number, 0, outputs, (inputs, 3, 3))
            layer.weight.data.copy_(torch.from_numpy(drawn) * math.sqrt(2 / (9 * inputs)))
            self.layers.append(layer)
        self.requires_grad_(False).eval()

    def embed(self, images: Tensor) -> Tensor:
        """Return the features (N, 256) of images (N, C, H, W) in [-1, 1]."""
        for number, layer in enumerate(self.layers):
            images = functional.relu(layer(images))
            if number < 2 and images.shape[-1] >= 4:
                images = functional.avg_pool2d(images, 2)
        return functional.adaptive_avg_pool2d(images, 2).flatten(1)


def count_referee_steps(rows: int, channels: int) -> int:
    """Return the optimiser steps for so many training rows: 200 up to 900, 400 for 5,000, 1,000 from 50,000 on.

    Colour takes twice as many: photographs are learnt slower than drawings.
    """
    steps = int(np.clip(round(400 * (rows / 5_000) ** 0.4), 200, 1_000))
    return steps if channels < 3 else 2 * steps


def fit_referee(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    on_step: Callable[[int], None] | None = None,
) -> ResidualClassifier:
    """Train a residual classifier on real rows, on class-balanced batches with mild augmentation.

    Args:
        pixels: (N, H, W, C) uint8 training rows, square; may be memory-mapped.
        labels: (N,) int64; a class may be absent.
        num_classes: Number of classes.
        seed: Seed of weights, order and augmentation.
        steps: Optimiser steps of 128 rows; from the number of rows when None.
        device: Where to train.
        on_step: Called after every step with the number of steps done.

    Returns:
        The classifier, in evaluation mode.
    """
    steps = steps or count_referee_steps(len(labels), pixels.shape[3])
    order = row_schedule(labels, length=steps * _BATCH, seed=seed, balanced=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResidualClassifier(num_classes, pixels.shape[1], pixels.shape[3]).to(device)

    def draw_batch(step: int) -> tuple[Tensor, Tensor]:
        rows = order[step * _BATCH : (step + 1) * _BATCH]
        rng = BatchRandom(seed, step, start=0, count=_BATCH, device=device)
        images = augment(to_tensor(pixels[rows]).to(device), _MILD, rng)
        return images, torch.from_numpy(labels[rows]).to(device)

    return fit_classifier(network, draw_batch, steps=steps, on_step=on_step)


@torch.no_grad()
def embed_rows(network: ResidualClassifier | RandomNetwork, pixels: NDArray[np.uint8]) -> Tensor:
    """Return the features (N, F) on the CPU of pixels (N, H, W, C) uint8."""
    device = next(network.parameters()).device
    parts = [
        network.embed(to_tensor(pixels[start : start + _ROWS]).to(device)).cpu()
        for start in range(0, len(pixels), _ROWS)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, 1)
