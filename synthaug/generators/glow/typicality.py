"""How likely a real image of a class is at least, under a density that was fitted on a few of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose_rows", "likelihood_floors"]

_QUANTILE, _SLACK = 0.01, 1.5
"""Chosen on digits: the least slack at which four fits with augmentation kept 98.5 % of rows held out at random."""
_GAP = 2.0
"""How many times the loss of likelihood by a small move new rows are allowed on top."""
_PRIOR_ROWS = 20
"""A class's own figures weigh as much as those of all classes when they rest on this many rows."""

Floats = NDArray[np.float64]


def choose_rows(positions: NDArray[np.int64], dense: int) -> NDArray[np.bool_]:
    """Return which rows of a class to look at: the first `dense` of them, then thinner and thinner.

    Args:
        positions: (N,) number of each row within its class, from 0.
        dense: Of ``dense`` further rows, one in two, then one in three, and so on, is kept.

    Example:
        >>> choose_rows(np.arange(8), 2).astype(int).tolist()
        [1, 1, 1, 0, 0, 0, 0, 0]
    """
    kept: NDArray[np.bool_] = positions % (1 + positions // dense) == 0
    return kept


def likelihood_floors(real: Floats, moved: Floats, labels: NDArray[np.int64], num_classes: int) -> Floats:
    r"""Return the log density (K,) that nearly all new real rows of each class exceed.

    .. math:: f_k = m_k - 1.5 (m_k - \min(q(real_k), q(moved_k)) + 2 \max(0, m_k - m(moved_k)))

    q is the 1 % quantile and m the median, m_k that of the real rows. Training rows alone say little: a density
    that knows them by heart finds new rows far less likely. What a small move costs a training row tells how
    narrow its peaks are. The figures of a class with few rows are drawn towards those of all classes, and never
    upwards.

    Args:
        real: (N,) log densities of training rows.
        moved: (N,) of the same rows, slightly moved.
        labels: (N,) int64.
        num_classes: K.

    Returns:
        (K,) nats; minus infinity for a class without rows.

    Example:
        >>> values = np.arange(200.0)
        >>> likelihood_floors(values, values - 10, np.zeros(200, dtype=np.int64), 2).tolist()
        [-93.25, -inf]
    """
    figures = {k: _figures(real[labels == k], moved[labels == k]) for k in np.unique(labels).tolist()}
    floors = np.full(num_classes, -math.inf)
    if not figures:
        return floors
    pooled_median, pooled_drop = (float(np.mean(column)) for column in zip(*figures.values(), strict=True))
    for k, (median, drop) in figures.items():
        share = _PRIOR_ROWS / (_PRIOR_ROWS + int((labels == k).sum()))
        median += share * min(0.0, pooled_median - median)
        floors[k] = median - _SLACK * (drop + share * max(0.0, pooled_drop - drop))
    return floors


def _figures(real: Floats, moved: Floats) -> tuple[float, float]:
    """Return the median of a class's rows, and how far below it its floor lies."""
    lowest = min(float(np.quantile(values, _QUANTILE, method="lower")) for values in (real, moved))
    median = float(np.median(real))
    return median, median - lowest + _GAP * max(0.0, median - float(np.median(moved)))
