"""Pure functions of predictions: recall, F1, confusions, and the interval that a verdict rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, nctdtrinc, stdtr, stdtrit
from scipy.stats import rankdata

__all__ = [
    "TUNING_SEEDS",
    "Estimate",
    "adjust_holm",
    "balance_mean",
    "balanced_accuracy",
    "balanced_nll",
    "calibration_error",
    "confusion_matrix",
    "estimate_auroc",
    "estimate_mean",
    "judge_difference",
    "macro_f1",
    "mean_recalls",
    "recalls",
    "scaled_losses",
]

TUNING_SEEDS = (1_000, 1_001)
"""Seeds of the trials, apart from all reported ones."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MINIMUM_SEEDS = 5
"""Fewer paired seeds than these never earn a verdict other than "no clear change"."""


def confusion_matrix(labels: Integers, predictions: Integers, num_classes: int) -> Integers:
    """Return (K, K) counts: rows are the true classes, columns the predicted ones."""
    flat = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def recalls(labels: Integers, predictions: Integers, num_classes: int) -> Floats:
    """Return (K,) the share of each class's rows that were recognised; nan for a class without rows."""
    rows = np.bincount(labels, minlength=num_classes).astype(np.float64)
    hits = np.bincount(labels[labels == predictions], minlength=num_classes).astype(np.float64)
    shares: Floats = np.divide(hits, rows, out=np.full(num_classes, np.nan), where=rows > 0)
    return shares


def mean_recalls(labels: Integers, predictions: NDArray[np.int64], num_classes: int) -> Floats:
    """Return (K,) recalls averaged over the rows of `predictions` (S, n), one row a seed."""
    each = np.stack([recalls(labels, row, num_classes) for row in predictions])
    means: Floats = each.mean(axis=0)
    return means


def balanced_accuracy(labels: Integers, predictions: Integers, num_classes: int) -> float:
    """Return the mean recall over the classes that have rows, in [0, 1].

    Example:
        >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]), 2)
        0.5
    """
    return float(np.nanmean(recalls(labels, predictions, num_classes)))


def macro_f1(labels: Integers, predictions: Integers, num_classes: int) -> float:
    """Return the mean F1 over the classes that have rows, in [0, 1]."""
    matrix = confusion_matrix(labels, predictions, num_classes)
    present = matrix.sum(axis=1) > 0
    f1 = 2 * np.diag(matrix) / np.maximum(matrix.sum(axis=0) + matrix.sum(axis=1), 1)
    return float(f1[present].mean())


def balanced_nll(labels: Integers, logits: NDArray[Any], num_classes: int) -> float:
    """Return the negative log-likelihood in nats, averaged within and then over the classes with rows."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return balance_mean(labels, losses, num_classes)


def scaled_losses(labels: Integers, logits: NDArray[Any], num_classes: int) -> Floats:
    r"""Return (n,) each row's likelihood loss in nats at the temperature that makes `balanced_nll` smallest.

    .. math:: -\log \mathrm{softmax}(\eta_i / T)_{y_i}, \quad T = \arg\min_T \mathrm{nll}(\eta / T)

    So over-confidence does not count.

    References:
        Guo et al.: On calibration of modern neural networks (2017), section 4.2, temperature scaling.
    """

    def at(log_temperature: float) -> float:
        return balanced_nll(labels, logits / math.exp(log_temperature), num_classes)

    found = minimize_scalar(at, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-3}).x
    scaled = logits.astype(np.float64) / math.exp(float(found))
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    losses: Floats = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return losses


def balance_mean(labels: Integers, values: Floats, num_classes: int) -> float:
    """Return values averaged within and then over the classes that have rows."""
    rows = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=values, minlength=num_classes)
    return float((sums[rows > 0] / rows[rows > 0]).mean())


def calibration_error(labels: Integers, logits: NDArray[Any], *, bins: int = 15) -> float:
    r"""Return the expected calibration error of the softmax confidence, in [0, 1].

    .. math:: \sum_b \frac{n_b}{n} \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    with bins of equal width.

    References:
        Guo et al.: On calibration of modern neural networks (2017), eq. 3.

    Example:
        >>> calibration_error(np.array([0, 0]), np.array([[9.0, -9.0], [9.0, -9.0]])) < 1e-6
        True
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    confidence = 1 / shifted.sum(axis=1)
    gaps = (logits.argmax(axis=1) == labels) - confidence
    places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(places, weights=gaps, minlength=bins)).sum() / len(labels))


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    r"""Return p-values adjusted for their number: below 0.05, the family-wise error is at most 5 %.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Args:
        p_values: The m values in any order; nan stays nan and is not counted.

    References:
        Holm: A simple sequentially rejective multiple test procedure (1979).

    Example:
        >>> adjust_holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = [int(i) for i in np.argsort(values, kind="stable") if not math.isnan(values[i])]
    adjusted, running = values.copy(), 0.0
    for rank, position in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * float(values[position])))
        adjusted[position] = running
    return [float(value) for value in adjusted]


def estimate_auroc(marked: NDArray[np.bool_], scores: Floats) -> tuple[float, float, float] | None:
    r"""Return the area under the ROC curve and the ends of its 95 % interval.

    .. math:: A = \overline{V}, \quad V_i = \tfrac1n \sum_j [s_i > s_j] + \tfrac12 [s_i = s_j], \qquad
              \mathrm{var} A = \mathrm{var}_i(V_i) / m + \mathrm{var}_j(W_j) / n

    for the m marked rows i and the n others j, with W_j the same seen from the others. The interval is taken on
    the logit scale, so that it stays in [0, 1], with Student's t of Satterthwaite's degrees of freedom, and is never
    wider than that of the largest variance an area can have, A (1 - A) / min(m, n): a side of one or two rows,
    whose variance hardly shows, has that one. Where the two are wholly apart the variance is zero and says nothing;
    there the open end is 3 / min(m, n) away.

    Args:
        marked: (N,) bool, the rows to be found.
        scores: (N,) higher for rows more likely to be marked.

    Returns:
        (area, low, high); None unless there are marked rows and others.

    References:
        DeLong, DeLong, Clarke-Pearson: Comparing the areas under two or more correlated receiver operating
        characteristic curves (1988), eq. 5. Birnbaum, Klose: Bounds for the variance of the Mann-Whitney statistic
        (1957). Hanley, Lippman-Hand: If nothing goes wrong, is everything all right? (1983).

    Example:
        >>> estimate_auroc(np.array([False, False, True]), np.array([0.1, 0.3, 0.2]))[0]
        0.5
    """
    m, n = int(marked.sum()), int((~marked).sum())
    if not m or not n:
        return None
    ranks, found, others = rankdata(scores), rankdata(scores[marked]), rankdata(scores[~marked])
    above, below = (ranks[marked] - found) / n, 1 - (ranks[~marked] - others) / m
    area = float(above.mean())
    if not 0 < area < 1:
        slack = min(1.0, 3 / min(m, n))
        return area, max(0.0, area - slack), min(1.0, area + slack)
    reach = 1.96 * math.sqrt(area * (1 - area) / min(m, n))
    if min(m, n) > 2:
        parts = [(float(part.var(ddof=1)) / len(part), len(part) - 1) for part in (above, below)]
        variance = sum(part for part, _ in parts)
        degrees = variance**2 / sum(part**2 / freedom for part, freedom in parts) if variance else float(m + n - 2)
        reach = min(reach, float(stdtrit(degrees, 0.975)) * math.sqrt(variance))
    reach /= area * (1 - area)
    return area, float(expit(logit(area) - reach)), float(expit(logit(area) + reach))


@dataclass(frozen=True)
class Estimate:
    """A mean over classes, rows and seeds with its 95 % interval.

    Args:
        value: The mean.
        low: Lower end of the interval; equals `value` with a single seed.
        high: Upper end of the interval.
        standard_error: Its standard error from seeds and test rows together.
        seed_error: The part that the seeds show, sqrt(V_seed).
        row_error: The part that the test rows show, sqrt(V_row).
        degrees: Degrees of freedom of the t distribution; 0 with a single seed.
        per_seed: The value of each seed.
        detectable: Smallest true value that would be found with 80 % probability; nan with a single seed.
        p_value: Two-sided, of a true value of zero; nan with a single seed, 1 where nothing differs.
    """

    value: float
    low: float
    high: float
    standard_error: float
    seed_error: float
    row_error: float
    degrees: float
    per_seed: tuple[float, ...]
    detectable: float
    p_value: float


def estimate_mean(scores: NDArray[Any], labels: Integers) -> Estimate:
    r"""Estimate a class-balanced mean of scores that vary with the training seed and with the test row.

    .. math::
        \hat\theta &= \tfrac1K \sum_c \tfrac1{n_c} \sum_{i \in c} \tfrac1S \sum_s x_{si} \\
        V_{seed} &= \tfrac1S\, \mathrm{var}_s(\hat\theta_s), \qquad
        V_{row} = \tfrac1{K^2} \sum_c \mathrm{var}_{i \in c}(\bar x_{\cdot i}) / n_c, \qquad
        V_{res} = \tfrac1{K^2} \sum_c \mathrm{ms}_c / (S\, n_c) \\
        V &= \max(V_{seed},\ V_{row},\ V_{seed} + V_{row} - V_{res}), \qquad
        \hat\theta \pm t_{0.975, \nu} \sqrt V

    Seeds and rows are crossed random effects. V_row is what resampling the test rows within classes
    (a stratified bootstrap of the seed means, with n - 1) converges to. The residual variance of the single
    cells is in both V_seed and V_row, so it is taken out once; ms_c is its mean square within class c. The
    degrees of freedom are Satterthwaite's. A class with a single row takes the pooled variances; where most classes
    have one, that of all rows around their common mean, which is rather too large.

    Args:
        scores: (S, n) one number for each seed and test row: 0/1 for "recognised", or a paired difference.
        labels: (n,) class of every row.

    Returns:
        The estimate; with one seed the interval is the bare value, because nothing shows its spread.

    References:
        Cornfield, Tukey: Average values of mean squares in factorials (1956).
        Satterthwaite: An approximate distribution of estimates of variance components (1946), eq. 17.
        Owen: The pigeonhole bootstrap (2007), section 3: resampling one way understates crossed effects.
    """
    scores = np.asarray(scores, dtype=np.float64)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    per_seed = np.mean([scores[:, rows].mean(axis=1) for rows in classes], axis=0)
    value, seeds = float(per_seed.mean()), len(scores)
    if seeds < 2:
        nan = math.nan
        return Estimate(value, value, value, nan, nan, nan, 0.0, tuple(per_seed.tolist()), nan, nan)
    seed_variance = float(per_seed.var(ddof=1)) / seeds
    row_terms, residual_terms, freedom = _class_terms(scores, classes)
    row_variance, residual_variance = row_terms.sum(), residual_terms.sum()
    variance = max(seed_variance, row_variance, seed_variance + row_variance - residual_variance)
    spread = (
        seed_variance**2 / (seeds - 1)
        + (row_terms**2 / freedom).sum()
        + (residual_terms**2 / (freedom * (seeds - 1))).sum()
    )
    degrees = max(variance**2 / spread, float(seeds - 1)) if spread > 0 else float(seeds - 1)
    error, critical = math.sqrt(variance), float(stdtrit(degrees, 0.975))
    return Estimate(
        value=value,
        low=value - critical * error,
        high=value + critical * error,
        standard_error=error,
        seed_error=math.sqrt(seed_variance),
        row_error=math.sqrt(row_variance),
        degrees=degrees,
        per_seed=tuple(per_seed.tolist()),
        detectable=float(nctdtrinc(degrees, 0.2, critical)) * error,
        p_value=2 * float(stdtr(degrees, -abs(value) / error)) if error > 0 else float(value == 0),
    )


def _class_terms(scores: Floats, classes: list[Integers]) -> tuple[Floats, Floats, Floats]:
    """Return each class's term of V_row and of V_res, and its degrees of freedom (n_c - 1, at least 1)."""
    seeds, counts = len(scores), np.array([len(rows) for rows in classes])
    between, within = np.zeros(len(classes)), np.zeros(len(classes))
    for position, rows in enumerate(classes):
        part = scores[:, rows]
        centred = part - part.mean(axis=0) - part.mean(axis=1, keepdims=True) + part.mean()
        between[position] = ((part.mean(axis=0) - part.mean()) ** 2).sum()
        within[position] = (centred**2).sum() / (seeds - 1)
    freedom = np.maximum(counts - 1, 1)
    own = counts > 1
    pooled_between = between.sum() / max((counts - 1).sum(), 1)
    if (counts - 1).sum() < len(classes):
        pooled_between = max(pooled_between, float(scores.mean(axis=0).var(ddof=min(1, scores.shape[1] - 1))))
    pooled_within = within.sum() / max((counts - 1).sum(), 1)
    between = np.where(own, between / freedom, pooled_between)
    within = np.where(own, within / freedom, pooled_within)
    scale = counts * float(len(classes)) ** 2
    return between / scale, within / (seeds * scale), freedom.astype(np.float64)


def judge_difference(estimate: Estimate, *, minimum_seeds: int = MINIMUM_SEEDS) -> str:
    """Return "helps" or "harms" when the interval of the paired difference excludes zero, else the third.

    Args:
        estimate: Synthetic arm minus opponent.
        minimum_seeds: With fewer seeds the answer is always "no clear change".

    Returns:
        "helps", "no clear change" or "harms".
    """
    if len(estimate.per_seed) < minimum_seeds:
        return "no clear change"
    if estimate.low > 0:
        return "helps"
    return "harms" if estimate.high < 0 else "no clear change"
