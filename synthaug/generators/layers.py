"""Blocks shared by the families: geometry of padding, label embedding, feature-wise modulation, residual blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Canvas", "ClassEmbedding", "FiLM", "ResidualBlock"]


class Canvas:
    """Square on which a family works: the image padded so that it can be halved `levels` times to 4..8 px.

    Args:
        image_size: Size of the images outside.
        base: Smallest size wanted at the bottom of the pyramid.

    Example:
        >>> canvas = Canvas(28)
        >>> canvas.size, canvas.base, canvas.levels
        (28, 7, 2)
    """

    def __init__(self, image_size: int, base: int = 4) -> None:
        self.image_size = image_size
        self.levels = max(1, int(math.log2(image_size / base)))
        step = 2**self.levels
        self.size = -(-image_size // step) * step
        self.base = self.size // step

    def pad(self, images: Tensor) -> Tensor:
        """Pad (N, C, image_size, image_size) to (N, C, size, size) by repeating the border."""
        extra = self.size - self.image_size
        if extra == 0:
            return images
        before = extra // 2
        return F.pad(images, (before, extra - before, before, extra - before), mode="replicate")

    def crop(self, images: Tensor) -> Tensor:
        """Undo `pad`."""
        before, size = (self.size - self.image_size) // 2, self.image_size
        return images[..., before : before + size, before : before + size]


class ClassEmbedding(nn.Embedding):
    """Embedding of labels; of joint groups, the sum of what their attributes say and of what is the group's own.

    Args:
        num_classes: K.
        features: Width of the embedding.
        attributes: (K, A) values of A attributes for each class. The group's own part then starts at zero: a group
            of few images begins as the sum of attributes that many images share, a red 3 as "3" and "red".

    Example:
        >>> embedding = ClassEmbedding(4, 8, [[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> embedding(torch.tensor([3, 0])).shape
        torch.Size([2, 8])
    """

    def __init__(self, num_classes: int, features: int, attributes: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__(num_classes, features)
        values = torch.tensor(attributes or [[]] * num_classes, dtype=torch.int64).reshape(num_classes, -1)
        self.register_buffer("values", values, persistent=False)
        self.values: Tensor
        self.parts = nn.ModuleList(
            nn.Embedding(max(column) + 1, features) for column in zip(*(attributes or ()), strict=True)
        )
        if attributes:
            nn.init.zeros_(self.weight)

    def forward(self, labels: Tensor) -> Tensor:
        """Return (N, features) for labels (N,)."""
        embedded = super().forward(labels)
        for part, column in zip(self.parts, self.values.T, strict=True):
            embedded = embedded + part(column[labels])
        return embedded


class FiLM(nn.Module):
    """Feature-wise linear modulation ``h * (1 + gamma(c)) + beta(c)``; starts as the identity.

    Args:
        context: Width of the condition c, (N, context).
        channels: Channels of h, (N, channels, H, W).

    References:
        Perez et al.: FiLM, visual reasoning with a general conditioning layer (2018), eq. 2.
    """

    def __init__(self, context: int, channels: int) -> None:
        super().__init__()
        self.affine = nn.Linear(context, 2 * channels)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        """Modulate h by the condition."""
        gamma, beta = self.affine(context)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(h + beta, h, gamma)


class ResidualBlock(nn.Module):
    """Pre-activation residual block without normalisation, modulated by a condition.

    Args:
        channels: Channels in and out.
        context: Width of the condition.
        scale: Factor on the start of the second convolution; 0 starts as the identity.
    """

    def __init__(self, channels: int, context: int, *, scale: float = 0.3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = FiLM(context, channels)
        with torch.no_grad():
            self.second.weight.mul_(scale)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        inner = self.film(self.first(F.silu(h)), context)
        return torch.add(h, self.second(F.silu(inner)))
