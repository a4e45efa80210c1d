"""Exponential moving average of a module's weights, measured in images rather than steps."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage"]

Module = TypeVar("Module", bound=nn.Module)


class MovingAverage(Generic[Module]):
    """Average of a module's parameters with a half-life in images seen.

    ``w <- lerp(w, parameters, 1 - 0.5 ** (batch / half_life))``; buffers are copied. While few images have
    been seen the half-life is shortened to `ramp` of them, so that the start is forgotten quickly.

    Args:
        module: The module to follow; a frozen copy of it is kept in `self.module`.
        half_life: Half-life in images seen.
        ramp: Largest half-life as a fraction of the images seen so far.

    References:
        Karras et al.: Training generative adversarial networks with limited data (2020), section 4 (ramp-up).
    """

    def __init__(self, module: Module, *, half_life: float, ramp: float = 0.05) -> None:
        self.module: Module = copy.deepcopy(module).eval().requires_grad_(False)
        self.half_life, self.ramp = half_life, ramp

    @torch.no_grad()
    def update(self, module: nn.Module, *, images_seen: int, batch_size: int) -> None:
        """Move the average towards `module` after a step of `batch_size` images."""
        half_life = max(min(self.half_life, self.ramp * images_seen), 1e-8)
        weight = 1.0 - 0.5 ** (batch_size / half_life)
        averages: list[Tensor] = [p.data for p in self.module.parameters()]
        parameters: list[Tensor] = [p.data for p in module.parameters()]
        torch._foreach_lerp_(averages, parameters, weight)
        for average, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(buffer)
