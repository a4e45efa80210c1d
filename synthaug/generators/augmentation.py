"""Differentiable augmentation: what a discriminator sees is shifted, cut and tinted, and gradients pass.

Every row gets its own numbers from a counter-based source, so that an image is changed in the same way
whatever the number of processes. Uncovered pixels become mid-grey (0 in [-1, 1]): the frame stays visible,
a discriminator can tell a shifted image from an image of a shifted thing, and the shift does not leak into
the samples.

References:
    Zhao, Liu, Lin, Zhu, Han: Differentiable augmentation for data-efficient GAN training (2020), section 4.
    Karras et al.: Training generative adversarial networks with limited data (2020), section 2.2 (leaks).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["DRAWS", "Augmentation", "UniformSource"]

DRAWS = 11
"""Uniform numbers that one row uses: 3 colour, 4 affine, 2 translation, 2 cutout."""


class UniformSource(Protocol):
    """What augmentation needs of a source of random numbers (`synthaug.core.noise.BatchRandom` is one)."""

    def uniform(self, *shape: int) -> Tensor:
        """Return uniforms in [0, 1), (rows, *shape) float32."""


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the differentiable augmentation; 0 switches a part off and all 0 is the identity.

    Args:
        color: 1 gives brightness ±0.5, saturation 0 to 2 and contrast 0.5 to 1.5; smaller values shrink
            all three. Images of one or two channels (grey) are never tinted, alpha never is.
        affine: 1 gives rotation ±0.35 rad (20 degrees) and each side scaled by 0.8 to 1.2.
        translation: Largest shift as a fraction of the side, in whole pixels.
        cutout: Side of the square that is greyed out, as a fraction of the side.

    Example:
        >>> from synthaug.core.noise import BatchRandom
        >>> images = torch.zeros(2, 1, 8, 8)
        >>> Augmentation(translation=0.125)(images, BatchRandom(0, 0, start=0, count=2)).shape
        torch.Size([2, 1, 8, 8])
    """

    color: float = 0.0
    affine: float = 0.0
    translation: float = 0.0
    cutout: float = 0.0

    def scaled(self, factor: float) -> Augmentation:
        """Return the same parts with all strengths times `factor`."""
        return Augmentation(*(strength * factor for strength in astuple(self)))

    def __call__(self, images: Tensor, rng: UniformSource) -> Tensor:
        """Augment each image by numbers of its own.

        Args:
            images: (N, C, H, W) float in [-1, 1].
            rng: Source that returns N rows.

        Returns:
            (N, C, H, W) float, differentiable with respect to `images`.
        """
        return self.apply(images, rng.uniform(DRAWS).to(images.dtype))

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Augment each image by the numbers given; 0.5 leaves colour, rotation, scale and place as they are.

        Args:
            images: (N, C, H, W) float in [-1, 1].
            draws: (N, DRAWS) in [0, 1).

        Returns:
            (N, C, H, W) float, differentiable with respect to `images`.
        """
        parts: list[tuple[float, Callable[[Tensor, Tensor, float], Tensor], Tensor]] = [
            (self.color if images.shape[1] > 2 else 0.0, _tint, draws[:, 0:3]),
            (self.affine, _warp, draws[:, 3:7]),
            (self.translation, _shift, draws[:, 7:9]),
            (self.cutout, _cut, draws[:, 9:11]),
        ]
        for strength, part, numbers in parts:
            if strength > 0:
                images = part(images, numbers, strength)
        return images


def _tint(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Change brightness, saturation and contrast of the first three channels."""
    offset = (draws - 0.5)[:, :, None, None, None] * strength
    color, alpha = images[:, :3], images[:, 3:]
    color = color + offset[:, 0]
    grey = color.mean(1, keepdim=True)
    color = grey + (color - grey) * (1 + 2 * offset[:, 1])
    level = color.mean((1, 2, 3), keepdim=True)
    color = level + (color - level) * (1 + offset[:, 2])
    return torch.cat([color, alpha], 1)


def _warp(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Rotate and scale about the centre; the fourth number is spare, so that the table of draws is stable."""
    angle = (2 * draws[:, 0] - 1) * (0.35 * strength)
    scale = 1 + (2 * draws[:, 1:3] - 1) * (0.2 * strength)
    cosine, sine, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    rows = [
        torch.stack([cosine / scale[:, 0], sine / scale[:, 0], zero], 1),
        torch.stack([-sine / scale[:, 1], cosine / scale[:, 1], zero], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _shift(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Move by whole pixels, each shift of -reach..reach equally likely."""
    count, _, height, width = images.shape
    for dim, size, draw in ((2, height, draws[:, 0]), (3, width, draws[:, 1])):
        reach = math.floor(strength * size + 0.5)
        step = torch.floor(draw * (2 * reach + 1)).long() - reach
        source = torch.arange(size, device=images.device) + step[:, None]
        inside = ((source >= 0) & (source < size)).to(images.dtype)
        shape = (count, 1, size, 1) if dim == 2 else (count, 1, 1, size)
        index = source.clamp(0, size - 1).view(shape).expand_as(images)
        images = images.gather(dim, index) * inside.view(shape)
    return images


def _cut(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Grey out a square whose centre is uniform over the image."""
    masks = []
    for size, draw in ((images.shape[2], draws[:, 0]), (images.shape[3], draws[:, 1])):
        side = math.floor(strength * size + 0.5)
        start = torch.floor(draw * (size + 1 - side % 2)).long() - side // 2
        position = torch.arange(size, device=images.device) - start[:, None]
        masks.append((position >= 0) & (position < side))
    hidden = masks[0][:, :, None] & masks[1][:, None, :]
    return images * (~hidden).to(images.dtype)[:, None]
