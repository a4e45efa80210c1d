"""What the adversarial objectives share: residual blocks without normalisation, the discriminator, its losses.

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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.generators.layers import Canvas

__all__ = [
    "GROUP",
    "SLOPE",
    "CellCanvas",
    "Discriminator",
    "Pointwise",
    "change_widths",
    "gradient_penalty",
    "relativistic_loss",
    "scale_start",
    "stack_levels",
]

SLOPE, GROUP = 0.2, 16


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


class CellCanvas(Canvas):
    """Canvas whose pyramid counts in cells of `patch` x `patch` pixels; it pads and crops pixels."""

    def __init__(self, image_size: int, patch: int) -> None:
        super().__init__(-(-image_size // patch))
        self.image_size, self.size = image_size, self.size * patch

    def widths(self, width: int) -> list[int]:
        """Return the channels from the coarsest level to the finest, which has `width`."""
        return [width * min(4, 2**level) for level in reversed(range(self.levels + 1))]


def scale_start(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """Return the layer with weights of variance gain^2 / fan-in and zero bias."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Pointwise(nn.Linear):
    """1 x 1 convolution as a matrix product over channels-last pixels.

    On a CPU its backward and double backward take half the time of a convolution's.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__(inputs, outputs)
        scale_start(self, gain)

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
        gain = math.sqrt(2 / (1 + SLOPE**2)) * blocks ** (-1 / 4)
        self.first = Pointwise(width, width, gain)
        self.middle = scale_start(nn.Conv2d(width, width, 3, padding=1, groups=width // GROUP), gain)
        self.last = Pointwise(width, width, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.first(x), SLOPE)
        y = F.leaky_relu(self.middle(y), SLOPE)
        return torch.as_tensor(x + self.last(y))


def stack_levels(widths: Sequence[int], depth: int) -> nn.ModuleList:
    """Return a run of `depth` residual blocks for each level."""
    total = depth * len(widths)
    return nn.ModuleList(nn.Sequential(*(_Block(width, total) for _ in range(depth))) for width in widths)


def change_widths(widths: Sequence[int]) -> nn.ModuleList:
    """Return the 1 x 1 convolutions between the levels."""
    return nn.ModuleList(Pointwise(before, after) for before, after in pairwise(widths))


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
        self.canvas, self.patch = CellCanvas(image_size, patch), patch
        widths = self.canvas.widths(width)[::-1]
        self.read = scale_start(nn.Conv2d(channels * patch**2, width, 3, padding=1))
        self.levels, self.changes = stack_levels(widths, depth), change_widths(widths)
        self.gather = scale_start(nn.Linear(widths[-1] * self.canvas.base**2, features))
        self.score = nn.Parameter(torch.randn(features) / math.sqrt(features))
        self.embedding = nn.Embedding(num_classes, features)

    def forward(self, images: Tensor, labels: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return scores (N,) of images (N, C, H, W) under labels (N,), and terms of all classes (N, K).

        `strength` in [0, 1] is the weight of the label in the score: 0 judges without it.
        """
        x = F.pixel_unshuffle(self.canvas.pad(images), self.patch)
        x = self.levels[0](self.read(x.contiguous(memory_format=torch.channels_last)))
        for change, level in zip(self.changes, self.levels[1:], strict=True):
            x = level(change(F.avg_pool2d(x, 2)))
        x = F.leaky_relu(self.gather(F.leaky_relu(x, SLOPE).flatten(1)), SLOPE)
        terms = x @ self.embedding.weight.t() / math.sqrt(x.shape[1])
        return x @ self.score + strength * terms.gather(1, labels[:, None]).squeeze(1), terms
