"""Couplings between the two colours of a checkerboard, and dequantisation noise that they learn to place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.generators.glow.bijections import Bijection

__all__ = ["CheckerboardCoupling", "VariationalDequantiser"]

_EDGE = 1e-6
"""Uniform noise is kept this far from 0 and 1, where its logit is infinite."""


class CheckerboardCoupling(Bijection):
    """Move every other pixel by a function of its neighbours: ``y = b x + (1 - b) (x * exp(s(b x)) + t(b x))``.

    b is 1 on the pixels of one colour of a checkerboard. Unlike a coupling of channels it works at full
    resolution, before any squeeze.

    Args:
        network: Maps (x with the moved pixels at 0 (N, C, H, W), context) to (N, 2*C, H, W), shifts first;
            (N, C, H, W) if additive. With `beside`, its channels follow those of x.
        image_size: H and W.
        parity: 0 or 1, the colour that stays: pixels whose row and column add up to an even or odd number.
        bound: Largest absolute log-scale.
        additive: Leave the scale at 1.

    References:
        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP (2017), section 3.4, eq. 9.
    """

    moved: Tensor

    def __init__(
        self, network: nn.Module, image_size: int, *, parity: int = 0, bound: float = 2.0, additive: bool = False
    ) -> None:
        super().__init__()
        self.network, self.bound, self.additive = network, bound, additive
        place = torch.arange(image_size)
        self.register_buffer("moved", (place[:, None] + place + parity) % 2 == 1, persistent=False)

    def _parameters_of(self, x: Tensor, context: Tensor | None, beside: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = x.masked_fill(self.moved, 0.0)
        values: Tensor = self.network(seen if beside is None else torch.cat([seen, beside], dim=1), context)
        values = values.masked_fill(~self.moved, 0.0)
        if self.additive:
            return values, torch.zeros_like(values)
        shift, raw = values.chunk(2, dim=1)
        return shift, self.bound * torch.tanh(raw / self.bound)

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, beside: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return y and the sum of s; `beside` (N, B, H, W) is a further input of the network."""
        shift, log_scale = self._parameters_of(x, context, beside)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale.flatten(1).sum(1)

    def inverse(
        self, y: Tensor, context: Tensor | None = None, *, beside: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return x and the sum of -s."""
        shift, log_scale = self._parameters_of(y, context, beside)
        return (y - shift) * (-log_scale).exp(), -log_scale.flatten(1).sum(1)


class VariationalDequantiser(nn.Module):
    r"""A flow q(u | x, y) that places a pixel within its bin, in place of uniform noise.

    .. math:: u = \sigma(h(e)), \quad \log q(u \mid x) = \log \ell(e) - \log |\det h'(e)| - \log \ell(h(e))

    e is the logit of uniform noise, so its density l is logistic; h are checkerboard couplings of alternating
    colour that also see the image. They start as the identity, and q as the uniform density.

    Args:
        networks: One for each coupling; maps (e and image (N, 2*C, H, W), context) to (N, 2*C, H, W).
        image_size: H and W.

    References:
        Ho et al.: Flow++ (2019), section 3.1.
    """

    def __init__(self, networks: Sequence[nn.Module], image_size: int) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(
            CheckerboardCoupling(network, image_size, parity=index % 2) for index, network in enumerate(networks)
        )

    def forward(self, uniform: Tensor, images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u (N, C, H, W) in (0, 1) and log q(u | images) (N,) in nats.

        Args:
            uniform: (N, C, H, W) in [0, 1).
            images: (N, C, H, W) in [-1, 1], the values of the bins.
            context: (N, E).
        """
        start = torch.logit(uniform, _EDGE)
        moved, logdet = start, start.new_zeros(len(start))
        for coupling in self.couplings:
            moved, part = coupling(moved, context, beside=images)
            logdet = logdet + part
        return torch.sigmoid(moved), (_log_logistic(start) - _log_logistic(moved)).flatten(1).sum(1) - logdet


def _log_logistic(x: Tensor) -> Tensor:
    """Return the log density of the standard logistic distribution."""
    return F.logsigmoid(x) + F.logsigmoid(-x)
