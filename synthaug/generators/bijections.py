"""Invertible layers with exact log-determinants: squeeze, actnorm, 1x1 convolutions, whitening by class.

Every layer maps a batch ``x`` to ``(y, logdet)`` by `forward` and ``y`` to ``(x, logdet)`` by `inverse`;
`logdet` (N,) is the log absolute determinant of the Jacobian of the map that was computed, so the two add
up to zero. `context` (N, E) is what the layer may depend on besides x: here the embedding of the label.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "ActNorm",
    "Bijection",
    "ClassGaussian",
    "ClassWhitening",
    "InvertibleConv1x1",
    "PrincipalRotation",
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


class PrincipalRotation(Bijection):
    """Fixed rotation to the principal axes of the data, largest variance first: ``y = R (x - mean)``.

    It is set by `initialize` and not trained; before that it is the identity.

    Args:
        channels: C.

    References:
        Pearson: On lines and planes of closest fit to systems of points in space (1901).
    """

    mean: Tensor
    rotation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("rotation", torch.eye(channels))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Take mean and axes of x (N, C, 1, 1)."""
        values = x.flatten(1).double()
        _, axes = torch.linalg.eigh(torch.cov(values.T, correction=0))
        self.mean.copy_(values.mean(0))
        self.rotation.copy_(axes.flip(1).T)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the coordinates of x (N, C, 1, 1) and zeros."""
        y = F.linear(x.flatten(1) - self.mean, self.rotation)
        return y[:, :, None, None], x.new_zeros(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the point with the coordinates y (N, C, 1, 1) and zeros."""
        x = F.linear(y.flatten(1), self.rotation.T) + self.mean
        return x[:, :, None, None], y.new_zeros(len(y))


class ClassWhitening(Bijection):
    """Affine map of each class, ``y = T_k (x - mean_k)``, T_k lower triangular.

    The diagonal of T_k is exp(log_diagonal_k). An actnorm with a full covariance for each class: it starts
    by whitening every class, so that the layers behind it need only learn what is not Gaussian. Its context
    is the labels (N,) int64.

    Args:
        num_classes: K.
        channels: C.
        floor: Smallest standard deviation that is whitened.
    """

    def __init__(self, num_classes: int, channels: int, floor: float = 1e-3) -> None:
        super().__init__()
        self.mean, self.log_diagonal = (nn.Parameter(torch.zeros(num_classes, channels)) for _ in range(2))
        self.lower = nn.Parameter(torch.zeros(num_classes, channels, channels))
        self.floor = floor

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, *, copies: int = 1) -> None:
        """Whiten x (N, C, 1, 1) class by class; where rows are few, covariances are drawn to the pooled one.

        Args:
            x: (N, C, 1, 1).
            context: (N,) int64 labels.
            copies: How often each image is among the rows (with other noise), so that rows count as fewer.
        """
        labels, values = _labels_of(context), x.flatten(1).double()
        onehot = F.one_hot(labels, len(self.mean)).double()
        counts, overall = onehot.sum(0), values.mean(0)
        means = overall + onehot.T @ (values - overall) / (counts[:, None] + copies)
        centred = values - means[labels]
        identity = torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
        pooled = centred.T @ centred / len(values) + self.floor**2 * identity
        strength = float(copies * values.shape[1])
        self.mean.copy_(means)
        for label in range(len(means)):
            rows = centred[labels == label]
            covariance = (rows.T @ rows + strength * pooled) / (len(rows) + strength)
            factor = torch.linalg.cholesky(covariance)
            whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
            self.lower[label] = whitening.tril(-1)
            self.log_diagonal[label] = whitening.diagonal().log()

    def _matrices(self, labels: Tensor) -> Tensor:
        return (self.lower.tril(-1) + torch.diag_embed(self.log_diagonal.exp()))[labels]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the whitened x (N, C, 1, 1) and the sum of its class's log_diagonal."""
        labels = _labels_of(context)
        y = self._matrices(labels) @ (x.flatten(1) - self.mean[labels])[:, :, None]
        return y[..., None], self.log_diagonal[labels].sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what `forward` whitened to y (N, C, 1, 1), and minus the sum of log_diagonal."""
        labels = _labels_of(context)
        x = torch.linalg.solve_triangular(self._matrices(labels), y.flatten(1)[:, :, None], upper=False)
        return (x + self.mean[labels][:, :, None])[..., None], -self.log_diagonal[labels].sum(1)


def _labels_of(context: Tensor | None) -> Tensor:
    """Return the labels that a class-wise layer needs."""
    if context is None:
        raise ValueError("context is None; give the labels (N,) int64")
    return context


class ClassGaussian(nn.Module):
    """Diagonal Gaussian for each class, ``z = mean_y + exp(log_scale_y) * noise``.

    Args:
        num_classes: K.
        size: D.
    """

    def __init__(self, num_classes: int, size: int) -> None:
        super().__init__()
        self.mean, self.log_scale = (nn.Parameter(torch.zeros(num_classes, size)) for _ in range(2))

    @torch.no_grad()
    def initialize(self, z: Tensor, labels: Tensor, shrinkage: float = 4.0) -> None:
        """Start from class means drawn towards the overall mean, and pooled spreads, of z (N, D)."""
        onehot = F.one_hot(labels, len(self.mean)).to(z.dtype)
        overall, counts = z.mean(0), onehot.sum(0)[:, None]
        self.mean.copy_(overall + (onehot.T @ (z - overall)) / (counts + shrinkage))
        spread = (z - self.mean[labels]).pow(2).mean(0).sqrt().clamp(min=1e-2)
        self.log_scale.copy_(spread.log().expand_as(self.log_scale))

    def whiten(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise (N, D) behind z and the log-determinant (N,)."""
        log_scale = self.log_scale[labels]
        return (z - self.mean[labels]) * (-log_scale).exp(), -log_scale.sum(1)

    def colour(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Return z (N, D) of the noise (N, D)."""
        return torch.addcmul(self.mean[labels], noise, self.log_scale[labels].exp())

    def class_log_density(self, z: Tensor) -> Tensor:
        """Return the log density (N, K) of z (N, D) under every class, in nats."""
        precision = (-2.0 * self.log_scale).exp()
        constant = (self.mean.pow(2) * precision).sum(1) + 2.0 * self.log_scale.sum(1)
        square = z.pow(2) @ precision.T - 2.0 * z @ (self.mean * precision).T + constant
        return -0.5 * square - 0.5 * z.shape[1] * math.log(2.0 * math.pi)
