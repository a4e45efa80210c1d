"""What Glow takes from the data at its start: principal axes, whitening by class, Gaussians by class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.generators.glow.bijections import Bijection

__all__ = ["ClassGaussian", "ClassWhitening", "PrincipalRotation"]


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
        _, axes = torch.linalg.eigh(torch.cov(values.T, correction=0).reshape(values.shape[1], -1))
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
        if len(labels) < len(self.mean):  # of many classes, build only the matrices that are wanted
            return self.lower[labels].tril(-1) + torch.diag_embed(self.log_diagonal[labels].exp())
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
