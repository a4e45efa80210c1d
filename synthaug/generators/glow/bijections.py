"""Invertible layers with exact log-determinants: squeeze, actnorm, 1x1 convolutions.

Every layer maps a batch ``x`` to ``(y, logdet)`` by `forward` and ``y`` to ``(x, logdet)`` by `inverse`;
`logdet` (N,) is the log absolute determinant of the Jacobian of the map that was computed, so the two add
up to zero. `context` (N, E) is what the layer may depend on besides x: here the embedding of the label.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "ActNorm",
    "Bijection",
    "InvertibleConv1x1",
    "Squeeze",
    "haar_matrix",
    "mix_channels",
]


class Bijection(nn.Module):
    """An invertible map of a batch, with the log-determinant of its Jacobian."""

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``y`` and log abs det dy/dx (N,)."""

    @abstractmethod
    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``x`` and log abs det dx/dy (N,)."""

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set data-dependent starting values from a batch of this layer's inputs; nothing by default."""


class Squeeze(Bijection):
    """Trade space for channels: (N, C, H, W) to (N, C*f*f, H/f, W/f).

    Args:
        factor: f; it must divide height and width.

    References:
        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP (2017), section 3.6.
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the squeezed batch and zeros."""
        return F.pixel_unshuffle(x, self.factor), x.new_zeros(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the unsqueezed batch and zeros."""
        return F.pixel_shuffle(y, self.factor), y.new_zeros(len(y))


class ActNorm(Bijection):
    """Per-channel affine map that starts as a normalisation: ``y = (x + bias) * exp(log_scale)``.

    After `initialize` the outputs of that batch have mean 0 and standard deviation 1 in each channel; from
    then on both vectors are ordinary parameters, so nothing depends on the batch.

    Args:
        channels: C.
        floor: Smallest standard deviation that is normalised; keeps constant channels finite.

    References:
        Kingma, Dhariwal: Glow (2018), section 3.1.
    """

    def __init__(self, channels: int, floor: float = 1e-3) -> None:
        super().__init__()
        self.bias, self.log_scale = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.floor = floor

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Normalise the channels of x (N, C, H, W), the first batch of all processes."""
        values = x.transpose(0, 1).flatten(1)
        self.bias.copy_(-values.mean(1))
        self.log_scale.copy_(-values.std(1, correction=0).clamp(min=self.floor).log())

    def _logdet(self, x: Tensor) -> Tensor:
        return (self.log_scale.sum() * x[0, 0].numel()).expand(len(x))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(x + bias) * exp(log_scale)`` and H * W * sum(log_scale)."""
        bias, scale = self.bias.view(1, -1, 1, 1), self.log_scale.exp().view(1, -1, 1, 1)
        return (x + bias) * scale, self._logdet(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``y * exp(-log_scale) - bias`` and -H * W * sum(log_scale)."""
        bias, scale = self.bias.view(1, -1, 1, 1), (-self.log_scale).exp().view(1, -1, 1, 1)
        return y * scale - bias, -self._logdet(y)


class InvertibleConv1x1(Bijection):
    """Learned mixing of the channels, ``W = P L (U + diag(sign * exp(log_diagonal)))``.

    P is a fixed permutation, L is unit lower and U strictly upper triangular, so that the log-determinant
    is H * W * sum(log_diagonal).

    Args:
        channels: C.
        start: W at the start (C, C), invertible; a random rotation when None.

    References:
        Kingma, Dhariwal: Glow (2018), section 3.2, eq. 10 and 11.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int, start: Tensor | None = None) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0] if start is None else start
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the triangular matrices L and U + diag(s), each (C, C)."""
        identity = torch.eye(len(self.lower), dtype=self.lower.dtype, device=self.lower.device)
        return self.lower.tril(-1) + identity, self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())

    def weight(self) -> Tensor:
        """Return W (C, C)."""
        lower, upper = self.factors()
        return self.permutation @ lower @ upper

    def logdet(self, x: Tensor) -> Tensor:
        """Return the log-determinant (N,) of the forward map on a batch shaped like x (N, C, H, W)."""
        return (self.log_diagonal.sum() * x[0, 0].numel()).expand(len(x))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return W x in every pixel and H * W * sum(log_diagonal)."""
        return mix_channels(x, self.weight()), self.logdet(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return W^-1 y by two triangular solves, and -H * W * sum(log_diagonal)."""
        lower, upper = self.factors()
        half = torch.linalg.solve_triangular(lower, self.permutation.T, upper=False, unitriangular=True)
        weight = torch.linalg.solve_triangular(upper, half, upper=True)
        return mix_channels(y, weight), -self.logdet(y)


def mix_channels(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``weight @ x + bias`` in every pixel of x (N, C, H, W)."""
    if x.shape[2:] == (1, 1):  # a matrix product is twice as fast as a convolution of single pixels
        return F.linear(x.flatten(1), weight, bias)[:, :, None, None]
    if x.is_cuda:  # cuDNN would round the factors to TF32, and densities and inverses would not be exact
        mixed = torch.matmul(weight, x.flatten(2)).view(len(x), -1, *x.shape[2:])
        return mixed if bias is None else mixed + bias[:, None, None]
    return F.conv2d(x, weight[:, :, None, None], bias)


def haar_matrix(channels: int) -> Tensor:
    """Return the rotation (4C, 4C) from 2x2-squeezed channels to averages first, then details.

    Row k*C + c is the k-th Haar filter (average, horizontal, vertical, diagonal difference) of channel c of
    an image that `Squeeze` (2) has squeezed.

    References:
        Haar: Zur Theorie der orthogonalen Funktionensysteme (1910).
    """
    signs = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    filters = torch.tensor(signs, dtype=torch.get_default_dtype()) / 2.0
    return torch.einsum("kj,cd->kcdj", filters, torch.eye(channels)).reshape(4 * channels, 4 * channels)
