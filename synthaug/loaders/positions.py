"""The positions of a map-style mixture: decided once an epoch, filled when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from synthaug.loaders.assignment import Share, Supply, assign_slots, match_classes, resolve_share
from synthaug.loaders.epochs import EpochClock
from synthaug.loaders.labelled import LabelledRows
from synthaug.loaders.schedules import ShareFactor
from synthaug.loaders.transforms import SampleTransform

__all__ = ["MixedRows"]


class MixedRows(Dataset[Any]):
    """Real rows, of which a share is replaced by synthetic images of the same class.

    Args:
        rows: The real rows.
        supply: The synthetic images.
        share: Share of synthetic images, overall or by class.
        factor: Factor of the share, by epoch.
        seed: Seed of the choices.
        finish: What is done with every sample; None leaves them.
    """

    def __init__(
        self,
        rows: LabelledRows,
        supply: Supply,
        *,
        share: Share,
        factor: ShareFactor,
        seed: int,
        finish: SampleTransform | None,
    ) -> None:
        self._rows, self._real, self._supply = rows, rows.dataset, supply
        self._factor, self._seed, self._finish = factor, seed, finish
        self._shares = resolve_share(share, rows.names, supply)
        self._classes = self._find_classes()
        self._clock, self._planned = EpochClock(), -1
        self._slots: NDArray[np.int64] | None = None
        self._plan()

    def _find_classes(self) -> NDArray[np.int64]:
        """Return (N,) int64: the class of each row in the supply, -1 where it stays real."""
        place, labels = match_classes(self._rows.names, self._supply), self._rows.labels
        lookup = np.full(int(labels.max(initial=0)) + 2, -1, np.int64)  # the last one is for -1
        for label in range(len(lookup) - 1):
            lookup[label] = place.get(label, -1)
        return lookup[labels]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_planned": -1, "_slots": None}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 0."""
        return self._clock.read()

    def set_epoch(self, epoch: int) -> None:
        """Go to another epoch: call it before each one, as for a `DistributedSampler`.

        Workers that are already running (`persistent_workers=True`) are told too. Accelerate and the `Trainer` call
        it themselves where they run in one process.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self._clock.set(epoch)
        self._plan()

    def find_synthetic(self) -> NDArray[np.bool_]:
        """Return (N,) bool: which positions of this epoch are synthetic."""
        self._plan()
        return np.zeros(len(self), np.bool_) if self._slots is None else self._slots >= 0

    def _plan(self) -> None:
        """Decide about this epoch, if that is not done yet."""
        epoch = self._clock.read()
        if epoch != self._planned:
            factor = self._factor(epoch)
            self._slots = assign_slots(self._classes, self._shares, seed=self._seed, epoch=epoch, factor=factor)
            self._planned = epoch

    def __getitem__(self, index: int) -> Any:
        """Return the sample at a position, transformed."""
        if self._clock.read() != self._planned:
            self._plan()
        sample = self._real[index] if self._slots is None or self._slots[index] < 0 else self._make(index)
        return sample if self._finish is None else self._finish(sample, self._planned, index)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return several samples; the real ones are read in one call where `real` offers that."""
        self._plan()
        slots, finish = self._slots, self._finish
        if slots is None:
            samples = self._rows.rows(indices)
        else:
            real = iter(self._rows.rows([index for index in indices if slots[index] < 0]))
            samples = [next(real) if slots[index] < 0 else self._make(index) for index in indices]
        if finish is None:
            return samples
        return [finish(sample, self._planned, index) for sample, index in zip(samples, indices, strict=True)]

    def _make(self, index: int) -> Any:
        """Return the synthetic sample of a position."""
        slot = -1 if self._slots is None else int(self._slots[index])
        pixels = self._supply.pick(int(self._classes[index]), self._planned, slot)
        return self._rows.build(pixels, index)
