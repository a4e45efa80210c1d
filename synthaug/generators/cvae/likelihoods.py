"""How likely an image is given what a decoder painted: a Gaussian of best variance, or a discretised logistic."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BIN_WIDTH", "DiscretizedLogistic", "Likelihood", "OptimalGaussian", "bound_mean"]

BIN_WIDTH = 2 / 255
"""Distance of two neighbouring 8-bit values in [-1, 1]."""


class Likelihood(Protocol):
    """What the CVAE needs of a likelihood."""

    painted: int
    """Channels that the decoder paints for each channel of the image."""

    def mean(self, painted: Tensor) -> Tensor:
        """Return the mean images (N, C, H, W) in [-1, 1]."""

    def loss(self, images: Tensor, painted: Tensor, log_sigma: Tensor, overall: Tensor) -> Tensor:
        """Return the negative log-likelihood in nats per dimension, of density on [-1, 1], a scalar."""

    def log_density(self, images: Tensor, painted: Tensor, log_sigma: Tensor) -> Tensor:
        """Return log p (N,) in nats, of density on [-1, 1]."""


class _Bound(torch.autograd.Function):
    """Clamp to [-1, 1]; the gradient passes where it leads back inside.

    A hyperbolic tangent has no gradient left once it is saturated: on dark images, where the first steps drive every
    pixel to black, the decoder stays there and the latents stay empty.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (values,), (gradient,) = ctx.saved_tensors, gradients
        outwards = ((values < -1) & (gradient > 0)) | ((values > 1) & (gradient < 0))
        return gradient.masked_fill(outwards, 0.0)


def bound_mean(painted: Tensor) -> Tensor:
    """Return values (...) within [-1, 1], with a gradient that never dies."""
    return torch.as_tensor(_Bound.apply(painted))


class OptimalGaussian:
    r"""Gaussian around the painted mean whose one variance is always the best one.

    .. math:: \log\sigma^* = \tfrac12 \log \overline{(x - \hat x)^2}, \qquad
              L = \log\sigma^* + \tfrac12 (1 + \log 2\pi)

    References:
        Rybkin, Daniilidis, Levine: Simple and effective VAE training with calibrated decoders (2021), eq. 6.
    """

    painted = 1

    def mean(self, painted: Tensor) -> Tensor:
        """Return the mean images (N, C, H, W)."""
        return bound_mean(painted)

    def loss(self, images: Tensor, painted: Tensor, log_sigma: Tensor, overall: Tensor) -> Tensor:
        """Return the loss; its gradient goes through the ratio of the local error to the overall one.

        Args:
            images: (N, C, H, W) in [-1, 1].
            painted: (N, C, H, W).
            log_sigma: Unused.
            overall: Mean squared error over all processes, without gradient. The mean of the gradients of
                the processes is then the gradient of the global loss.
        """
        error = ((images - self.mean(painted)) ** 2).mean()
        return 0.5 * (error / overall - 1) + 0.5 * overall.log() + 0.5 * (1 + math.log(2 * math.pi))

    def log_density(self, images: Tensor, painted: Tensor, log_sigma: Tensor) -> Tensor:
        """Return log p (N,) with the standard deviation exp(log_sigma): the log of the mass of each bin over its width.

        The outermost bins are as wide as the others, so that what lies outside of [-1, 1] counts for nothing.
        """
        distance = (images - self.mean(painted)).abs().double() / log_sigma.double().exp()
        half = 0.5 * BIN_WIDTH / log_sigma.double().exp()
        lower, upper = torch.special.log_ndtr(-distance - half), torch.special.log_ndtr(-distance + half)
        mass = upper + torch.log(-torch.expm1(lower - upper))  # of the lower tail, where a difference is not lost
        return torch.as_tensor((mass - math.log(BIN_WIDTH)).flatten(1).sum(1).to(images.dtype))


class DiscretizedLogistic:
    r"""Logistic of painted mean and scale, integrated over the bin of each 8-bit value.

    .. math:: P(x) = \sigma((x + \tfrac1{255} - \mu)/s) - \sigma((x - \tfrac1{255} - \mu)/s),

    with the outermost bins reaching to infinity.

    References:
        Salimans et al.: PixelCNN++ (2017), eq. 2, with one component.
    """

    painted = 2

    def mean(self, painted: Tensor) -> Tensor:
        """Return the mean images (N, C, H, W) of (N, 2C, H, W)."""
        return bound_mean(painted.chunk(2, dim=1)[0])

    def loss(self, images: Tensor, painted: Tensor, log_sigma: Tensor, overall: Tensor) -> Tensor:
        """Return the loss in nats per dimension, as density on [-1, 1]; `log_sigma` and `overall` are unused."""
        return -self._log_mass(images, painted).mean() + math.log(BIN_WIDTH)

    def log_density(self, images: Tensor, painted: Tensor, log_sigma: Tensor) -> Tensor:
        """Return log p (N,): the log of the mass of each bin over its width."""
        return (self._log_mass(images, painted) - math.log(BIN_WIDTH)).flatten(1).sum(1)

    def _log_mass(self, images: Tensor, painted: Tensor) -> Tensor:
        """Return log P of each value (N, C, H, W)."""
        raw_mean, raw_scale = painted.float().chunk(2, dim=1)
        centred, log_scale = images - bound_mean(raw_mean), (raw_scale - 2.0).clamp(-7.0, 3.0)
        upper = (centred + BIN_WIDTH / 2) * (-log_scale).exp()
        lower = (centred - BIN_WIDTH / 2) * (-log_scale).exp()
        # log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)), stable everywhere
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
        edge = BIN_WIDTH / 2
        bounded = torch.where(images < -1 + edge, F.logsigmoid(upper), inside)
        return torch.where(images > 1 - edge, F.logsigmoid(-lower), bounded)
