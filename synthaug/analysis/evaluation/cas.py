"""The fixed classifier behind the classification accuracy score (CAS), and its fixed training.

Nothing here is tuned or follows from the data, so that scores of different generators can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from synthaug.classifiers import predict_logits
from synthaug.core import BatchRandom, Policy, augment
from synthaug.data import to_tensor

__all__ = ["BATCH_SIZE", "STEPS", "ScoreClassifier", "fit_score_classifier", "predict_classes"]

STEPS, BATCH_SIZE = 400, 128
"""Optimiser steps of every training, and rows of a step."""

_RATE, _PEAK_RATE, _DECAY, _SMOOTHING = 3e-3, 6e-3, 0.05, 0.05
_ROWS = 2_000


def _block(inputs: int, outputs: int, *, pool: bool) -> list[nn.Module]:
    # pooling before ReLU: the two commute, and ReLU costs a quarter
    pooling = [nn.MaxPool2d(2)] if pool else []
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), *pooling, nn.ReLU(inplace=True)]


class ScoreClassifier(nn.Module):
    """Four 3x3 convolutions of 16, 32, 32 and 64 channels with batch normalisation, and a linear layer.

    Max pooling by 2 follows the second, third and fourth. Images are padded with black to a multiple of 8 pixels
    and enter as values in [0, 1].

    Args:
        num_classes: Number of classes.
        image_size: Height and width of the images.
        channels: Channels of the images.

    Example:
        >>> ScoreClassifier(10, 28, 1)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int, image_size: int, channels: int) -> None:
        super().__init__()
        missing = -image_size % 8
        self.padding = (missing // 2, missing - missing // 2) * 2
        self.features = nn.Sequential(
            *_block(channels, 16, pool=False),
            *_block(16, 32, pool=True),
            *_block(32, 32, pool=True),
            *_block(32, 64, pool=True),
        )
        self.head = nn.Linear(64 * ((image_size + missing) // 8) ** 2, num_classes)
        self.to(memory_format=torch.channels_last)  # twice as fast on CPUs

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of images (N, C, H, W) in [-1, 1]."""
        padded = functional.pad((images + 1) / 2, self.padding)
        features = self.features(padded.contiguous(memory_format=torch.channels_last))
        return cast(Tensor, self.head(features.flatten(1)))


def fit_score_classifier(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    seed: int,
    policy: Policy | None = None,
    steps: int = STEPS,
    device: torch.device | str = "cpu",
    on_step: Callable[[int], None] | None = None,
) -> ScoreClassifier:
    """Train the fixed classifier on the given rows alone.

    Rows are drawn with replacement, 128 a step; AdamW with weight decay 0.05, a one-cycle learning rate that
    peaks at 6e-3, label smoothing 0.05.

    Args:
        pixels: (N, H, W, C) uint8, square.
        labels: (N,) int64.
        num_classes: Number of classes.
        seed: Seed of the initial weights and of the rows drawn.
        policy: Classical augmentation; None for none.
        steps: Optimiser steps; scores are comparable at the default only.
        device: Where to train.
        on_step: Called after every step with the number of steps done.

    Returns:
        The classifier, in evaluation mode.

    References:
        Ravuri, Vinyals: Classification accuracy score for conditional generative models (2019).
        Smith, Topin: Super-convergence (2019) (the one-cycle learning rate).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ScoreClassifier(num_classes, pixels.shape[1], pixels.shape[3]).to(device)
    draws = np.random.RandomState(seed)  # the old generator: its stream is frozen, so scores stay comparable
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=max(2, steps))
    for step in range(steps):
        rows = draws.randint(0, len(pixels), BATCH_SIZE)
        images, targets = to_tensor(pixels[rows]).to(device), torch.from_numpy(labels[rows]).to(device)
        if policy is not None:
            images = augment(images, policy, BatchRandom(seed, step, start=0, count=BATCH_SIZE, device=device))
        loss = functional.cross_entropy(network(images), targets, label_smoothing=_SMOOTHING)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step + 1)
    return network.eval()


def predict_classes(network: nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return (N,) the first choice of a classifier for pixels (N, H, W, C) uint8."""
    parts = [
        predict_logits(network, to_tensor(pixels[start : start + _ROWS])).argmax(dim=1).numpy()
        for start in range(0, len(pixels), _ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
