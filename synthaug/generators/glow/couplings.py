"""Couplings: half of an image moves by a function of the other half and the label; and a step of Glow."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.generators.glow.bijections import ActNorm, Bijection, InvertibleConv1x1, haar_matrix, mix_channels

__all__ = ["AffineCoupling", "BorderCoupling", "ConvNetwork", "DenseNetwork", "FlowStep", "HaarLevel"]


class ConvNetwork(nn.Module):
    """Coupling network 3x3 - 1x1 - 3x3 with the label as FiLM; zero at the start.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        width: Hidden channels.
        context_width: Width of the context.
    """

    def __init__(self, inputs: int, outputs: int, width: int, context_width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.film = nn.Linear(context_width, 2 * width)
        self.second = nn.Conv2d(width, width, 1)
        self.last = nn.Conv2d(width, outputs, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return (N, outputs, H, W) from x (N, inputs, H, W) and context (N, E)."""
        scale, shift = self.film(context)[:, :, None, None].chunk(2, dim=1)
        h = F.relu(torch.addcmul(shift, self.first(x), 1.0 + scale), inplace=True)
        h = F.relu(self.second(h), inplace=True)
        result: Tensor = self.last(h)
        return result


class DenseNetwork(nn.Module):
    """Coupling network of three dense layers for latents without space; zero at the start.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        width: Hidden features.
        context_width: Width of the context.
        dropout: Share of the hidden features that a training step leaves out, in [0, 1). Each row then has a
            flow of its own, exact like any other; in eval mode there is one.

    References:
        Srivastava et al.: Dropout (2014).
    """

    def __init__(self, inputs: int, outputs: int, width: int, context_width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.film = nn.Linear(inputs, width), nn.Linear(context_width, 2 * width)
        self.second, self.last = nn.Linear(width, width), nn.Linear(width, outputs)
        self.dropout = dropout
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return (N, outputs, 1, 1) from x (N, inputs, 1, 1) and context (N, E)."""
        scale, shift = self.film(context).chunk(2, dim=1)
        h = F.relu(torch.addcmul(shift, self.first(x.flatten(1)), 1.0 + scale), inplace=True)
        h = F.relu(self.second(h), inplace=True)
        if self.dropout and self.training:
            h = F.dropout(h, self.dropout)
        result: Tensor = self.last(h)
        return result[:, :, None, None]


class AffineCoupling(Bijection):
    """Move the second part of the channels by a function of the first: ``y_b = x_b * exp(s(x_a)) + t(x_a)``.

    ``s = bound * tanh(raw / bound)`` stays within +-bound, which keeps both directions well conditioned;
    additive coupling is s = 0.

    Args:
        network: Maps (x_a (N, A, H, W), context) to (N, 2*B, H, W), shifts first; (N, B, H, W) if additive.
        kept: A, the number of channels that condition and stay as they are.
        bound: Largest absolute log-scale.
        additive: Leave the scale at 1 (volume-preserving).

    References:
        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP (2017), eq. 7 and 8.
    """

    def __init__(self, network: nn.Module, kept: int, *, bound: float = 2.0, additive: bool = False) -> None:
        super().__init__()
        self.network, self.kept, self.bound, self.additive = network, kept, bound, additive

    def _parameters_of(self, first: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        values: Tensor = self.network(first, context)
        if self.additive:
            return values, None
        shift, raw = values.chunk(2, dim=1)
        return shift, self.bound * torch.tanh(raw / self.bound)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (x_a, x_b * exp(s) + t) and the sum of s."""
        first, second = x[:, : self.kept], x[:, self.kept :]
        shift, log_scale = self._parameters_of(first, context)
        if log_scale is None:
            return torch.cat([first, second + shift], dim=1), x.new_zeros(len(x))
        second = torch.addcmul(shift, second, log_scale.exp())
        return torch.cat([first, second], dim=1), log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (y_a, (y_b - t) * exp(-s)) and the sum of -s."""
        first, second = y[:, : self.kept], y[:, self.kept :]
        shift, log_scale = self._parameters_of(first, context)
        if log_scale is None:
            return torch.cat([first, second - shift], dim=1), y.new_zeros(len(y))
        second = (second - shift) * (-log_scale).exp()
        return torch.cat([first, second], dim=1), -log_scale.flatten(1).sum(1)


class BorderCoupling(Bijection):
    """Affine map of an image's outer frame given its inside: lets a flow take any size exactly.

    A multi-scale flow needs sizes that halve evenly. Padding would make its density one of other images;
    instead the frame is normalised given the inside, ``y = (x - nearest inner pixel - t) * exp(-s)``, and
    leaves as latents of its own.

    Args:
        network: Maps (inside repeated outwards (N, C, S, S), context) to (N, 2*C, S, S), shifts first;
            (N, C, S, S) if additive.
        image_size: S.
        inner_size: Size of the inside, less than S; the frame is as even on all sides as can be.
        bound: Largest absolute log-scale.
        additive: Leave the scale at 1.
    """

    inside: Tensor

    def __init__(
        self, network: nn.Module, image_size: int, inner_size: int, *, bound: float = 4.0, additive: bool = False
    ) -> None:
        super().__init__()
        self.network, self.bound, self.additive = network, bound, additive
        self.before = (image_size - inner_size) // 2
        self.after, self.inner_size = image_size - inner_size - self.before, inner_size
        mask = torch.zeros(image_size, image_size, dtype=torch.bool)
        mask[self.before : self.before + inner_size, self.before : self.before + inner_size] = True
        self.register_buffer("inside", mask, persistent=False)

    def crop(self, x: Tensor) -> Tensor:
        """Return the inside (N, C, inner, inner)."""
        window = slice(self.before, self.before + self.inner_size)
        return x[:, :, window, window]

    def frame(self, x: Tensor) -> Tensor:
        """Return the pixels of the frame (N, C, F)."""
        return x[:, :, ~self.inside]

    def join(self, inside: Tensor, frame: Tensor) -> Tensor:
        """Undo `crop` and `frame`."""
        image = inside.new_empty(*inside.shape[:2], *self.inside.shape)
        image[:, :, self.inside] = inside.flatten(2)
        image[:, :, ~self.inside] = frame
        return image

    def _parameters_of(self, inside: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        repeated = F.pad(inside, (self.before, self.after, self.before, self.after), mode="replicate")
        values: Tensor = self.network(repeated, context)
        if self.additive:
            shift = self.frame(repeated + values)
            return shift, torch.zeros_like(shift)
        shift, raw = values.chunk(2, dim=1)
        return self.frame(repeated + shift), self.bound * torch.tanh(self.frame(raw) / self.bound)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the image with its frame normalised, and the sum of -s."""
        inside = self.crop(x)
        shift, log_scale = self._parameters_of(inside, context)
        frame = (self.frame(x) - shift) * (-log_scale).exp()
        return self.join(inside, frame), -log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the image with its frame restored, and the sum of s."""
        inside = self.crop(y)
        shift, log_scale = self._parameters_of(inside, context)
        frame = torch.addcmul(shift, self.frame(y), log_scale.exp())
        return self.join(inside, frame), log_scale.flatten(1).sum(1)


class FlowStep(Bijection):
    """One step of Glow: actnorm, 1x1 convolution, coupling.

    Actnorm and mixing are computed as one convolution, which halves the memory traffic.

    Args:
        channels: C.
        coupling: The coupling.

    References:
        Kingma, Dhariwal: Glow (2018), figure 2a.
    """

    def __init__(self, channels: int, coupling: AffineCoupling) -> None:
        super().__init__()
        self.actnorm, self.mixing, self.coupling = ActNorm(channels), InvertibleConv1x1(channels), coupling

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Start the actnorm on x (N, C, H, W)."""
        self.actnorm.initialize(x)

    def _mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.mixing.weight() * self.actnorm.log_scale.exp()
        logdet = (self.actnorm.log_scale.sum() + self.mixing.log_diagonal.sum()) * math.prod(x.shape[2:])
        return mix_channels(x, weight, weight @ self.actnorm.bias), logdet.expand(len(x))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the step's output and the sum of its log-determinants."""
        mixed, logdet = self._mix(x)
        y, coupled = self.coupling(mixed, context)
        return y, logdet + coupled

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the step's input and the sum of the inverse log-determinants."""
        x, logdet = self.coupling.inverse(y, context)
        for layer in (self.mixing, self.actnorm):
            x, part = layer.inverse(x, context)
            logdet = logdet + part
        return x, logdet


class HaarLevel(nn.Module):
    """One level of scale: rotation to average and details, flow steps, details given the average.

    Of the 4C squeezed channels the first C, the averages, go on to the next level; the rest are latents.

    Args:
        channels: C.
        steps: Number of flow steps between the rotation and the split.
        width: Hidden channels of the coupling networks.
        context: Width of the context.
        additive: Additive couplings.

    References:
        Yu, Derpanis, Brubaker: Wavelet flow (2020), section 3.
    """

    def __init__(self, channels: int, steps: int, width: int, context: int, additive: bool) -> None:
        super().__init__()
        depth, half = 4 * channels, 2 * channels
        self.rotation, self.actnorm = InvertibleConv1x1(depth, haar_matrix(channels)), ActNorm(depth)
        self.steps = nn.ModuleList()
        for _ in range(steps):
            network = ConvNetwork(half, half if additive else depth, width, context)
            self.steps.append(FlowStep(depth, AffineCoupling(network, half, additive=additive)))
        details = ConvNetwork(channels, (3 if additive else 6) * channels, width, context)
        self.split = AffineCoupling(details, channels, additive=additive)

    def layers(self) -> list[Bijection]:
        """Return the bijections in forward order."""
        steps = [step for step in self.steps if isinstance(step, FlowStep)]
        return [self.rotation, self.actnorm, *steps, self.split]
