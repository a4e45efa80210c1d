"""A small residual network: the referee of `evaluate` and the second classifier of a benchmark."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ResidualClassifier"]


class _Block(nn.Module):
    """Two 3x3 convolutions behind batch normalisation and ReLU, and a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, images: Tensor) -> Tensor:
        active = functional.relu(self.norm1(images))
        inner = self.conv2(functional.relu(self.norm2(self.conv1(active))))
        if self.shortcut is None:
            return cast(Tensor, images + inner)
        pooled = functional.avg_pool2d(active, 2, ceil_mode=True) if self.stride == 2 else active
        return cast(Tensor, self.shortcut(pooled) + inner)


class ResidualClassifier(nn.Module):
    """A residual network of eight layers (pre-activation), small enough for a CPU.

    Args:
        num_classes: Number of classes.
        image_size: Height and width of the images; above 16 pixels the first layer halves it, above 40 the next
            one does so again.
        channels: Channels of the images.
        width: Channels of the first of three stages; the others have 2 and 4 times as many.

    References:
        He et al.: Identity mappings in deep residual networks (2016), figure 1b.

    Example:
        >>> ResidualClassifier(3, 28, 1)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 3])
    """

    def __init__(self, num_classes: int, image_size: int, channels: int, width: int = 20) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, 2 if image_size > 16 else 1, 1, bias=False)
        self.stages = nn.Sequential(
            _Block(width, width, 1) if image_size <= 40 else nn.Sequential(nn.AvgPool2d(2), _Block(width, width, 1)),
            _Block(width, 2 * width, 2),
            _Block(2 * width, 4 * width, 2),
        )
        self.norm = nn.BatchNorm2d(4 * width)
        self.head = nn.Linear(4 * width, num_classes)
        self.to(memory_format=torch.channels_last)  # twice as fast on CPUs

    def embed(self, images: Tensor) -> Tensor:
        """Return the features (N, 4 * width) before the last layer of images (N, C, H, W) in [-1, 1]."""
        found = self.stages(self.stem(images.contiguous(memory_format=torch.channels_last)))
        return functional.relu(self.norm(found)).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of images (N, C, H, W) in [-1, 1]."""
        return cast(Tensor, self.head(self.embed(images)))
