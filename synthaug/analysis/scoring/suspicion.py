"""Which rows are likely foreign or wrongly labelled: ranks from densities and from the run's judge.

A high density does not make an image a member: simple foreign images get higher ones than the training images
themselves. So a density counts by how far it lies from what is usual, on either side, and the judge's distance
stands beside it; a row is as suspicious as the most surprising of its figures.

Which class an image belongs to, generator and judge say together, each with the weight that it earns on rows
that the fit has not learnt from.

References:
    Nalisnick et al.: Do deep generative models know what they don't know? (2019), figure 1.
    Nalisnick et al.: Detecting out-of-distribution inputs to deep generative models using typicality (2019), eq. 6.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import rankdata

__all__ = [
    "combine_surprises",
    "label_odds",
    "marginal_density",
    "outlier_figures",
    "robust_deviation",
    "tail_surprise",
    "weigh_experts",
]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_FEW = 8
"""Rows under which a group's own median says less than that of all rows."""
_LEAST_UNSEEN = 50
"""Rows that the fit has not learnt from, below which they do not tell how far to trust either expert."""


def marginal_density(densities: Floats) -> Floats:
    """Return log p(x) (N,) of the mixture of all classes in equal parts, from log p(x | y) (N, K)."""
    mixed: Floats = logsumexp(densities, axis=1) - np.log(densities.shape[1])
    return mixed


def label_odds(scores: Floats, labels: Labels) -> Floats:
    r"""Return how much better the best other class explains each row than its label does, (N,) in nats.

    .. math:: o = \max_{y \ne \tilde y} s_y - s_{\tilde y}

    Unlike the posterior probability it does not saturate.

    Args:
        scores: (N, K) log densities or log probabilities of the classes, K of at least 2.
        labels: (N,) int64, the given labels.
    """
    others = scores.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    odds: Floats = others.max(axis=1) - np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    return odds


def robust_deviation(values: Floats, groups: Labels) -> Floats:
    """Return (N,) how far each value lies from the median of its group, in units of its median absolute deviation.

    Groups of few rows take the median and the deviation of all.

    Args:
        values: (N,) finite.
        groups: (N,) int64.
    """
    middle, spread = _location(values)
    deviations = (values - middle) / spread
    for group in np.unique(groups):
        members = groups == group
        if members.sum() >= _FEW:
            middle, spread = _location(values[members])
            deviations[members] = (values[members] - middle) / spread
    return deviations


def _location(values: Floats) -> tuple[float, float]:
    middle = float(np.median(values)) if len(values) else 0.0
    spread = float(np.median(np.abs(values - middle))) if len(values) else 1.0
    return middle, max(spread, 1e-9 * max(1.0, abs(middle)))


def tail_surprise(values: Floats) -> Floats:
    """Return (N,) -log10 of the share of rows whose value is at least as large.

    Example:
        >>> tail_surprise(np.arange(10.0)).round(2)[[0, 9]].tolist()
        [-0.0, 1.0]
    """
    surprise: Floats = -np.log10(rankdata(-values, method="max") / max(len(values), 1))
    return surprise


def outlier_figures(marginals: Floats, errors: Floats | None, distances: Floats) -> dict[str, Floats]:
    r"""Return figures (N,) of each row that are high where an image is no member of any class.

    Args:
        marginals: (N,) log p(x) in nats.
        errors: (N,) mean squared reconstruction errors, or None.
        distances: (N, K) distances to the judge's prototypes in units of their radii.

    Returns:
        "distance": to the judge's nearest prototype. "likelihood": the robust deviation of log p(x), on either
        side, among the rows of that nearest class. "reconstruction": that of the error's logarithm, upwards.
    """
    nearest = distances.argmin(axis=1)
    figures = {"distance": distances.min(axis=1), "likelihood": np.abs(robust_deviation(marginals, nearest))}
    if errors is not None:
        figures["reconstruction"] = robust_deviation(np.log(np.maximum(errors, 1e-12)), nearest)
    return figures


def combine_surprises(figures: Mapping[str, Floats]) -> Floats:
    r"""Return a score (N,) that is high where any figure is extreme.

    .. math:: s = \max_k -\log_{10} p_k \;(+\text{ their mean} / 1000)

    p_k is the share of the rows that are at least as extreme in figure k. The mean only settles ties, of which
    ranks make many.
    """
    surprises = np.stack([tail_surprise(figure) for figure in figures.values()])
    combined: Floats = surprises.max(axis=0) + surprises.mean(axis=0) / 1000
    return combined


def weigh_experts(densities: Floats, logits: Floats, labels: Labels, usable: NDArray[np.bool_]) -> tuple[float, float]:
    r"""Return the weights (a, b), not negative, with which generator and judge together explain the labels best.

    .. math:: \max_{a, b \ge 0} \sum_i \log \mathrm{softmax}(a \log p(x_i | \cdot) + b\, l(x_i))_{\tilde y_i}

    over rows that neither has learnt from: on rows it has learnt from, each agrees with the labels, wrong ones
    too. The densities of many pixels are far too sure of themselves; a small weight takes that from them.

    Args:
        densities: (N, K) log p(x | y) in nats.
        logits: (N, K) of the judge.
        labels: (N,) int64, the given labels.
        usable: (N,) bool, rows that the fit did not learn from; with fewer than 50 the judge decides alone.

    Returns:
        Weight of the generator, weight of the judge.

    References:
        Hinton: Training products of experts by minimizing contrastive divergence (2002), eq. 1.
        Guo et al.: On calibration of modern neural networks (2017), section 4.2 (one temperature).
    """
    if usable.sum() < _LEAST_UNSEEN:
        return 0.0, 1.0
    experts = np.stack([log_softmax(part[usable], axis=1) for part in (densities, logits)])
    rows, given = np.arange(int(usable.sum())), labels[usable]

    def cost(weights: Floats) -> tuple[float, Floats]:
        scores = np.tensordot(weights, experts, axes=1)
        error = softmax(scores, axis=1)
        error[rows, given] -= 1.0
        return -float(log_softmax(scores, axis=1)[rows, given].mean()), (experts * error).sum(axis=(1, 2)) / len(rows)

    found = minimize(cost, np.array([0.01, 1.0]), jac=True, bounds=[(0.0, None)] * 2, method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])
