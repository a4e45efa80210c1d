"""Which row stands at each position of a training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synthaug.benchmarks.arms import Arm
from synthaug.classifiers import cycle_rows, row_schedule
from synthaug.core import BatchRandom

__all__ = ["schedule_rows"]


def schedule_rows(
    arm: Arm,
    real_labels: NDArray[np.int64],
    other_labels: NDArray[np.int64],
    *,
    length: int,
    seed: int,
    share: float,
    finish: float = 0.0,
) -> NDArray[np.int64]:
    """Return which row stands at each position of the training: real rows first, the others after them.

    Arms with the same sampling hold the same real rows at the same positions. A mixed arm exchanges the row
    of a position for another one of the same class with probability `share`, so the classes of a batch
    stay what they are in its opponent; a class with few other rows is exchanged less often, so that none
    of them is shown more often than a real row of its class would be in the union.

    Args:
        arm: The arm.
        real_labels: (N,) class of the real rows.
        other_labels: (M,) class of the rows of the arm's kind; empty when it has none.
        length: Number of positions.
        seed: Paired seed.
        share: Probability of the exchange, in [0, 1].
        finish: Share of the positions at the end at which real rows stay, in [0, 1).

    Returns:
        (length,) int64: i < N is real row i, N + j is row j of the others.
    """
    offset = len(real_labels)
    if arm.alone:
        return offset + row_schedule(other_labels, length=length, seed=seed, balanced=True)
    rows = row_schedule(real_labels, length=length, seed=seed, balanced=arm.balanced)
    if not arm.exchanges or share == 0:
        return rows
    classes = int(max(real_labels.max(), other_labels.max())) + 1
    real_counts = np.bincount(real_labels, minlength=classes)
    counts = np.bincount(other_labels, minlength=classes)
    union = np.divide(counts, counts + real_counts, out=np.zeros(classes), where=counts > 0)
    asked = real_labels[rows]
    chance = np.minimum(share, union)[asked]
    draws = BatchRandom(seed, 0, start=0, count=length, stream=9).uniform(1).numpy()[:, 0]
    exchanged = (draws < chance) & (np.arange(length) < round((1 - finish) * length))
    for label in np.flatnonzero(counts):
        positions = np.flatnonzero(exchanged & (asked == label))
        members = np.flatnonzero(other_labels == label)
        stream = 1_000_000 + int(label)
        rows[positions] = offset + cycle_rows(members, len(positions), seed=seed, stream=stream)
    return rows
