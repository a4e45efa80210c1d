"""The user's transform on one sample, seeded where that is asked for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from synthaug.core import draw_choices

__all__ = ["SampleTransform", "seeded"]


class SampleTransform:
    """Apply a transform to the image of a pair, or to a whole mapping.

    Args:
        transform: The user's own, or None.
        seed: Seed of the mixture.
        seeds: Seed torch, numpy and random by (seed, epoch, position) around each call.
    """

    def __init__(self, transform: Callable[[Any], Any] | None, *, seed: int, seeds: bool) -> None:
        self._transform, self._seed, self._seeds = transform, seed, seeds

    def __call__(self, sample: Any, epoch: int, position: int) -> Any:
        """Return what the transform makes of a sample."""
        if self._transform is None:
            return sample
        if not self._seeds:
            return self._apply(self._transform, sample)
        number = draw_choices(self._seed, epoch, position, 1, stream=1)[0]
        with seeded(int(number * 2**53)):
            return self._apply(self._transform, sample)

    @staticmethod
    def _apply(transform: Callable[[Any], Any], sample: Any) -> Any:
        if isinstance(sample, tuple):
            return transform(sample[0]), sample[1]
        if isinstance(sample, list):
            return [transform(sample[0]), sample[1]]
        return transform(sample)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which torch (on the CPU), numpy and random are seeded; outside they go on where they were.

    Args:
        seed: 0 <= seed < 2**63.
    """
    before = torch.default_generator.get_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
