"""The order in which a fit sees its rows: a pure function of (seed, position), whatever the number of processes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["RowOrder", "class_quotas"]


def class_quotas(counts: NDArray[np.int64], power: float) -> NDArray[np.int64]:
    """Return how many positions of an epoch each class gets, proportional to count**power.

    The quotas add up to the number of rows (largest remainders).

    Args:
        counts: (K,) rows of each class, all positive.
        power: 1 draws classes as they come, 0 equally often.
    """
    weights = counts.astype(np.float64) ** power
    shares = weights / weights.sum() * counts.sum()
    quotas = np.floor(shares).astype(np.int64)
    remainder = int(counts.sum() - quotas.sum())
    quotas[np.argsort(quotas - shares, kind="stable")[:remainder]] += 1
    return np.asarray(quotas)


class RowOrder:
    """Endless sequence of row numbers; every class is walked through by permutations of its rows.

    Args:
        labels: (N,) class of each row.
        seed: Seed of the fit.
        power: See `class_quotas`.
    """

    def __init__(self, labels: NDArray[np.int64], *, seed: int, power: float = 1.0) -> None:
        self.seed = seed
        self._rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self._quotas = class_quotas(np.array([len(rows) for rows in self._rows]), power)
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def positions(self, start: int, count: int) -> NDArray[np.int64]:
        """Return the rows at positions start .. start + count of the sequence."""
        size = int(self._quotas.sum())
        parts, end = [], start + count
        while start < end:
            epoch, offset = divmod(start, size)
            taken = min(size - offset, end - start)
            parts.append(self._epoch_order(epoch)[offset : offset + taken])
            start += taken
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            chosen = [self._class_rows(k, epoch) for k in range(len(self._rows))]
            self._epoch, self._order = epoch, self._rng(2**32 + epoch).permutation(np.concatenate(chosen))
        return self._order

    def _class_rows(self, k: int, epoch: int) -> NDArray[np.int64]:
        """Return the rows of class k in this epoch: a window of its endless sequence of permutations."""
        rows, quota = self._rows[k], int(self._quotas[k])
        if quota == 0:
            return rows[:0]
        first, last = epoch * quota // len(rows), (epoch * quota + quota - 1) // len(rows)
        sequence = np.concatenate([rows[self._rng(k, turn).permutation(len(rows))] for turn in range(first, last + 1)])
        offset = epoch * quota - first * len(rows)
        return sequence[offset : offset + quota]

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, 77, *key])))
