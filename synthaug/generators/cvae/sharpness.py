"""How much fine detail images hold, and sharpening them until they hold as much as others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["match_detail", "measure_detail", "sharpen"]

_MOST = 1.0
"""Sharper than this nothing is made: what a decoder does not paint cannot be brought out of it."""
_HALVINGS = 12
_PART = 32


def measure_detail(images: Tensor) -> Tensor:
    """Return the mean squared difference (N,) of images (N, C, H, W) from their means over 3 x 3 pixels."""
    parts = torch.split(images, _PART)  # what lies between is several times an image
    return torch.cat([(part - _blur(part)).square_().flatten(1).mean(dim=1) for part in parts])


def sharpen(images: Tensor, amount: float) -> Tensor:
    r"""Return images (N, C, H, W) in [-1, 1] with their detail raised: an unsharp mask.

    .. math:: x' = \mathrm{clamp}(x + a\,(x - \bar x), -1, 1)

    Args:
        images: In [-1, 1].
        amount: a, at least 0; the bar is the mean over 3 x 3 pixels.
    """
    return (images + amount * (images - _blur(images))).clamp(-1.0, 1.0)


def match_detail(images: Tensor, detail: float) -> float:
    """Return the amount in [0, 1] at which sharpened images hold so much detail on average, as nearly as possible.

    Args:
        images: (N, C, H, W) in [-1, 1].
        detail: Mean of `measure_detail` to reach.
    """
    low, high = 0.0, _MOST
    if _mean_detail(images, 0.0) >= detail:
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _mean_detail(images, middle) < detail:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _mean_detail(images: Tensor, amount: float) -> float:
    parts = [measure_detail(sharpen(part, amount)) for part in torch.split(images, _PART)]
    return float(torch.cat(parts).mean())


def _blur(images: Tensor) -> Tensor:
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return functional.avg_pool2d(padded, 3, stride=1)
