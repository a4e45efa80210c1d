"""The flow behind Glow: an image to its latents and back, in several scales, given the label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthaug.generators.glow.bijections import Bijection, Squeeze
from synthaug.generators.glow.checkerboard import CheckerboardCoupling
from synthaug.generators.glow.couplings import (
    AffineCoupling,
    BorderCoupling,
    ConvNetwork,
    DenseNetwork,
    FlowStep,
    HaarLevel,
)
from synthaug.generators.glow.whitening import ClassWhitening, PrincipalRotation

__all__ = ["MultiScaleFlow"]


class MultiScaleFlow(nn.Module):
    """Bijection of images (N, C, H, W) and latents (N, C * H * W) with the exact log-determinant.

    ``x -> [checkerboards] -> [frame] -> (squeeze, steps, split) per level -> rotation, whitening, dense steps``.
    The latents come in the order in which they leave: frame, details from fine to coarse, minor axes, top.

    Args:
        num_classes: K.
        image_size: H and W.
        channels: C.
        steps: Number of flow steps in each level; every level halves the image.
        width: Hidden channels of the convolutional coupling networks.
        dense_steps: Number of flow steps on the principal axes of what the levels leave.
        dense_width: Hidden features of their coupling networks.
        principal: Number of these axes at most.
        embedding: Width of the label embedding, by FiLM the context of every coupling.
        dropout: Share of the dense networks' hidden features that a training step leaves out.
        log_scale: Largest absolute log-scale of a coupling of the axes.
        additive: Additive couplings instead of affine ones, everywhere.
        checkerboard: Number of checkerboard couplings.

    References:
        Kingma, Dhariwal: Glow (2018), figure 2b. Dinh, Sohl-Dickstein, Bengio: Real NVP (2017), section 3.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        channels: int,
        *,
        steps: Sequence[int],
        width: int,
        dense_steps: int,
        dense_width: int,
        principal: int,
        embedding: int,
        dropout: float,
        log_scale: float,
        additive: bool,
        checkerboard: int,
    ) -> None:
        super().__init__()
        self.channels, numbers = channels, 1 if additive else 2
        self.embedding = nn.Embedding(num_classes, embedding)
        self.checkerboards = nn.ModuleList()
        for index in range(checkerboard):
            board = ConvNetwork(channels, numbers * channels, width, embedding)
            self.checkerboards.append(CheckerboardCoupling(board, image_size, parity=index % 2, additive=additive))
        self.inner_size = image_size - image_size % 2 ** len(steps)
        self.border: BorderCoupling | None = None
        if self.inner_size < image_size:
            frame = ConvNetwork(channels, numbers * channels, max(1, width // 2), embedding)
            self.border = BorderCoupling(frame, image_size, self.inner_size, additive=additive)
        self.squeeze, self.levels = Squeeze(2), nn.ModuleList()
        size = self.inner_size
        for count in steps:
            size //= 2
            self.levels.append(HaarLevel(channels, count, width, embedding, additive))
        self.flatten, top = Squeeze(size), channels * size * size
        self.kept = min(principal, top)
        self.axes = PrincipalRotation(top)
        self.rest: AffineCoupling | None = None
        if self.kept < top:
            minor = DenseNetwork(self.kept, numbers * (top - self.kept), dense_width, embedding, dropout)
            self.rest = AffineCoupling(minor, self.kept, bound=log_scale, additive=additive)
        self.whitening, self.dense = ClassWhitening(num_classes, self.kept), nn.ModuleList()
        first, second = self.kept // 2, self.kept - self.kept // 2
        for _ in range(dense_steps):
            network = DenseNetwork(first, numbers * second, dense_width, embedding, dropout)
            coupling = AffineCoupling(network, first, bound=log_scale, additive=additive)
            self.dense.append(FlowStep(self.kept, coupling))

    # The loops below want the layers by their types, which a ModuleList forgets.

    def _checkerboards(self) -> list[CheckerboardCoupling]:
        return [layer for layer in self.checkerboards if isinstance(layer, CheckerboardCoupling)]

    def _levels(self) -> list[HaarLevel]:
        return [level for level in self.levels if isinstance(level, HaarLevel)]

    def _top_steps(self) -> list[FlowStep]:
        return [step for step in self.dense if isinstance(step, FlowStep)]

    def forward(self, images: Tensor, labels: Tensor, *, start: int = 0) -> tuple[Tensor, Tensor]:
        """Return the latents (N, D) and the log-determinant (N,).

        Args:
            images: (N, C, H, W).
            labels: (N,) int64.
            start: Positive initialises each layer on the way; it is the number of copies of each image.
        """
        context, x = self.embedding(labels), images
        logdet, parts = x.new_zeros(len(x)), []

        def apply(layer: Bijection, x: Tensor, given: Tensor = context) -> Tensor:
            nonlocal logdet
            if start and isinstance(layer, ClassWhitening):
                layer.initialize(x, given, copies=start)
            elif start:
                layer.initialize(x, given)
            moved: tuple[Tensor, Tensor] = layer(x, given)
            logdet = logdet + moved[1]
            return moved[0]

        for board in self._checkerboards():
            x = apply(board, x)
        if self.border is not None:
            x = apply(self.border, x)
            parts.append(self.border.frame(x).flatten(1))
            x = self.border.crop(x)
        for level in self._levels():
            x = self.squeeze(x)[0].contiguous(memory_format=torch.channels_last)
            for layer in level.layers():
                x = apply(layer, x)
            parts.append(x[:, self.channels :].flatten(1))
            x = x[:, : self.channels]
        x = apply(self.axes, self.flatten(x)[0])
        if self.rest is not None:
            x = apply(self.rest, x)
            parts.append(x[:, self.kept :].flatten(1))
            x = x[:, : self.kept]
        x = apply(self.whitening, x, labels)
        for step in self._top_steps():
            x = apply(step, x)
        parts.append(x.flatten(1))
        return torch.cat(parts, dim=1), logdet

    def inverse(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return the images (N, C, H, W) of latents (N, D)."""
        context = self.embedding(labels)
        frame, details, x = self._split(z[:, :, None, None])
        rest, x = x[:, : -self.kept], x[:, -self.kept :]
        for step in reversed(self._top_steps()):
            x = step.inverse(x, context)[0]
        x = self.whitening.inverse(x, labels)[0]
        if self.rest is not None:
            x = self.rest.inverse(torch.cat([x, rest], dim=1), context)[0]
        x = self.axes.inverse(x)[0]
        x = self.flatten.inverse(x)[0]
        for level, detail in zip(reversed(self._levels()), reversed(details), strict=True):
            x = torch.cat([x, detail.reshape(len(z), -1, *x.shape[2:])], dim=1)
            for layer in reversed(level.layers()):
                x = layer.inverse(x, context)[0]
            x = self.squeeze.inverse(x)[0]
        if self.border is not None:
            x = self.border.join(x, frame.reshape(len(z), self.channels, -1))
            x = self.border.inverse(x, context)[0]
        for board in reversed(self._checkerboards()):
            x = board.inverse(x, context)[0]
        return x

    def _split(self, z: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the latents of the frame, those of each level, and those of the top with the minor axes."""
        areas = [self.channels * (self.inner_size >> level) ** 2 for level in range(len(self.levels) + 1)]
        sizes = [3 * area for area in areas[1:]]
        frame, *details, top = torch.split(z, [z.shape[1] - sum(sizes) - areas[-1], *sizes, areas[-1]], dim=1)
        return frame, details, top
