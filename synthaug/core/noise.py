"""Counter-based noise: the same key gives the same numbers, whoever asks and in whatever order.

Every number comes from numpy's Philox4x64-10 bit stream, which numpy guarantees never to change; normals
are made from its raw bits by our own Box-Muller transform, because `Generator.normal` carries no such
guarantee.

References:
    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (2011).
    Box, Muller: A note on the generation of random normal deviates (1958), eq. 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["BLOCK_SIZE", "BatchRandom", "draw_choices", "draw_normal", "draw_order", "draw_uniform"]

BLOCK_SIZE = 64
"""Draws in a block; a block is always computed whole, so that its bits never depend on who asks."""

_SAMPLING, _TRAINING, _MIXING = 0, 1, 2


def _raw(key: tuple[int, int], words: tuple[int, int, int], start: int, count: int, size: int) -> NDArray[np.uint64]:
    """Return (count, size) raw 64-bit words of the items start .. start + count."""
    stride = -(-size // 4)  # one Philox counter yields four words
    counter = np.array([start * stride, *words], dtype=np.uint64)
    bits = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=counter)
    words_drawn = bits.random_raw(count * stride * 4).reshape(count, stride * 4)
    return np.asarray(words_drawn[:, :size])


def _to_uniform(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Map 64-bit words to float64 in the open interval (0, 1)."""
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _to_normal(uniform: NDArray[np.float64]) -> NDArray[np.float32]:
    """Map pairs of uniforms (..., 2n) to standard normals (..., 2n)."""
    half = uniform.shape[-1] // 2
    radius = np.sqrt(-2.0 * np.log(uniform[..., :half]))
    angle = 2.0 * np.pi * uniform[..., half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).astype(np.float32)


def draw_normal(seed: int, label: int, start: int, count: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the standard normal noise of draws start .. start + count of one class.

    Args:
        seed: Seed of the generation, 0 <= seed < 2**63.
        label: Index of the class in the run's `class_names`.
        start: Number of the first draw, from 0.
        count: How many consecutive draws.
        shape: Shape of one draw.

    Returns:
        (count, *shape) float32; row i belongs to draw start + i and to no other argument than its own key.

    Example:
        >>> bool((draw_normal(0, 3, 2, 1, (5,)) == draw_normal(0, 3, 0, 4, (5,))[2:3]).all())
        True
    """
    size = math.prod(shape)
    raw = _raw((seed, label), (0, 0, _SAMPLING), start, count, size + size % 2)
    return _to_normal(_to_uniform(raw))[:, :size].reshape(count, *shape)


def draw_uniform(seed: int, label: int, start: int, count: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return uniform noise in (0, 1), keyed as in `draw_normal` but from a stream of its own."""
    size = math.prod(shape)
    raw = _raw((seed, label), (1, 0, _SAMPLING), start, count, size)
    return _to_uniform(raw).reshape(count, *shape)


def draw_choices(seed: int, epoch: int, start: int, count: int, *, stream: int = 0) -> NDArray[np.float64]:
    """Return the uniforms in (0, 1) that decide what becomes of the positions of an epoch.

    Args:
        seed: Seed of the mixture, 0 <= seed < 2**63.
        epoch: Number of the epoch, from 0.
        start: First position.
        count: How many consecutive positions.
        stream: Tells decisions about the same position apart.

    Returns:
        (count,) float64; a number depends on (seed, epoch, position, stream) alone.
    """
    return _to_uniform(_raw((seed, epoch), (0, stream, _MIXING), start, count, 1))[:, 0]


def draw_order(seed: int, epoch: int, label: int, turn: int, count: int) -> NDArray[np.int64]:
    """Return a random order of `count` rows of one class, a function of (seed, epoch, label, turn).

    Args:
        seed: Seed of the mixture.
        epoch: Number of the epoch, from 0.
        label: Index of the class, from 0.
        turn: How many times the rows of the class have been gone through in this epoch.
        count: Number of rows.
    """
    uniform = _to_uniform(_raw((seed, epoch), (1 + label, turn, _MIXING), 0, count, 1))[:, 0]
    return np.argsort(uniform, kind="stable").astype(np.int64)


class BatchRandom:
    """Random numbers for one training step, drawn for the global batch by (seed, step, position).

    Each call takes the next stream of the step, so the order of calls inside a loss is part of the key;
    a process receives the rows of its own positions, whatever the number of processes.

    Args:
        seed: Seed of the fit.
        step: Number of the optimiser step, from 0.
        start: First position of this process's rows in the global batch.
        count: How many rows this process holds.
        progress: Fraction of the training done, in [0, 1]; schedules read it.
        images_seen: Images of all processes before this step; schedules in images read it.
        stream: Tells objectives of the same step apart.
        device: Where tensors are put.
        mean: Averages a tensor over all processes (identity by default).
    """

    def __init__(
        self,
        seed: int,
        step: int,
        *,
        start: int,
        count: int,
        progress: float = 0.0,
        images_seen: int = 0,
        stream: int = 0,
        device: torch.device | str = "cpu",
        mean: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.seed, self.step, self.progress, self.images_seen = seed, step, progress, images_seen
        self._start, self._count, self._device, self._mean = start, count, device, mean
        self._call = stream << 32

    def _uniform(self, size: int) -> NDArray[np.float64]:
        self._call += 1
        raw = _raw((self.seed, self.step), (self._call, 0, _TRAINING), self._start, self._count, size)
        return _to_uniform(raw)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normals, (count, *shape) float32."""
        size = math.prod(shape)
        values = _to_normal(self._uniform(size + size % 2))[:, :size]
        return torch.from_numpy(values.reshape(self._count, *shape).copy()).to(self._device, non_blocking=True)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniforms in [0, 1), (count, *shape) float32."""
        values = self._uniform(math.prod(shape)).astype(np.float32).reshape(self._count, *shape)
        np.minimum(values, np.float32(1 - 2**-24), out=values)  # rounding to float32 must not reach 1
        return torch.from_numpy(values).to(self._device, non_blocking=True)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return integers in [0, high), (count, *shape) int64."""
        values = np.floor(self._uniform(math.prod(shape)) * high).astype(np.int64)
        return torch.from_numpy(values.reshape(self._count, *shape)).to(self._device, non_blocking=True)

    def mean(self, value: Tensor) -> Tensor:
        """Return `value` averaged over all processes, without gradient."""
        value = value.detach()
        return value if self._mean is None else self._mean(value)
