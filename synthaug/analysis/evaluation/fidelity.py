"""How near synthetic rows come to real ones: shares, density, coverage, kernel distance and a copy test.

Pure functions of features, distances and hits. Every number is a `Measure`, with a 95 % interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from synthaug.core import estimate_auroc

__all__ = [
    "NEIGHBOURS",
    "Measure",
    "cover_rows",
    "expect_coverage",
    "measure_kernel",
    "measure_nearness",
    "measure_share",
    "score_copying",
    "whiten",
]

Floats = NDArray[np.float64]

NEIGHBOURS = 5
"""A real row's ball reaches to its NEIGHBOURS-th nearest other real row (k in density and coverage)."""

COMPONENTS = 32
"""Main components in which rows are compared."""

_Z = 1.959963984540054
_CHUNK = 1_024


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval.

    Args:
        value: The number.
        low: Lower end of the interval.
        high: Upper end of the interval.
        rows: How many rows it rests on.
    """

    value: float
    low: float
    high: float
    rows: int

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high


def _wilson(share: float, rows: float) -> tuple[float, float]:
    """Return Wilson's interval of a share that rests on so many independent rows."""
    scale = 1 + _Z**2 / rows
    centre = (share + _Z**2 / (2 * rows)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / rows + _Z**2 / (4 * rows**2))
    # at 0 and 1 one end is the share itself; rounding must not move it past
    return min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)


def measure_share(hits: NDArray[np.bool_]) -> Measure | None:
    """Return the share of true entries with Wilson's interval; None without entries.

    Args:
        hits: (N,) bool.

    References:
        Wilson: Probable inference, the law of succession, and statistical inference (1927).

    Example:
        >>> measure_share(np.zeros(100, bool)).high < 0.04
        True
    """
    if not len(hits):
        return None
    share = float(np.mean(hits))
    return Measure(share, *_wilson(share, len(hits)), len(hits))


def whiten(reference: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return the main components of all features in float64, each with mean 0 and variance 1 in `reference`.

    Without this a few features that are rarely active and then large decide the kernel distance: measured on
    features of a random network, its spread over sets of real rows falls by an order of magnitude.

    Args:
        reference: (N, F) features.
        others: (M, F) features.

    Returns:
        `reference` and `others` with COMPONENTS columns each; fewer where F or N / 10 is smaller, or where features
        depend on each other.
    """
    mean = reference.double().mean(dim=0)
    centred = reference.double() - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(reference)))
    count = max(1, min(COMPONENTS, len(values), len(reference) // 10))
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]  # eigh gives the smallest ones first
    kept = values > 1e-6 * values[0].clamp(min=1e-12)
    if not bool(kept.any()):  # all rows alike: shifted, not scaled
        return tuple(part.double() - mean for part in (reference, *others))
    scale = vectors[:, kept] / values[kept].sqrt()
    return tuple((part.double() - mean) @ scale for part in (reference, *others))


def _squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Return (n, m) squared Euclidean distances of float64 rows."""
    norms = (left**2).sum(dim=1)[:, None] + (right**2).sum(dim=1)[None]
    return (norms - 2 * left @ right.T).clamp(min=0)


def _squared_radii(real: Tensor, neighbours: int) -> Tensor:
    """Return (N,) the squared distance of each row to its k-th nearest other row."""
    radii = []
    for start in range(0, len(real), _CHUNK):
        part = real[start : start + _CHUNK]
        distances = _squared_distances(part, real)
        rows = torch.arange(len(part))
        distances[rows, start + rows] = -1.0  # the row itself, before all others
        radii.append(distances.kthvalue(neighbours + 1, dim=1).values)
    return torch.cat(radii)


def cover_rows(real: Tensor, synthetic: Tensor, *, neighbours: int = NEIGHBOURS) -> tuple[Measure, Measure] | None:
    r"""Return density and coverage of synthetic rows against real ones.

    .. math:: \mathrm{density} = \tfrac{1}{kM} \sum_j \sum_i [y_j \in B(x_i, r_i)], \qquad
              \mathrm{coverage} = \tfrac1N \sum_i [\exists j: y_j \in B(x_i, r_i)]

    with the open ball around real row x_i that ends at its k-th nearest other real row. Density is 1 on average
    for rows of the same distribution and may exceed 1; it sinks with samples where no real row is. Coverage sinks
    with kinds of real rows that no sample is near; what the same distribution would give tells `expect_coverage`.

    The intervals count both the real and the synthetic rows, and take the radii as fixed. Density: the two-sample
    variance of its projections. Coverage: the binomial variance over real rows and the jackknife over synthetic
    ones, as Wilson's interval with as many rows as give that variance; wider than need be near 1, because the
    jackknife overstates what single synthetic rows do.

    Args:
        real: (N, F) features of real rows.
        synthetic: (M, F) features of synthetic rows.
        neighbours: k, at least 1.

    Returns:
        (density, coverage); None with no synthetic row or no more than k real ones.

    References:
        Naeem et al.: Reliable fidelity and diversity metrics for generative models (2020), eq. 3 to 5.
    """
    real, synthetic = real.double(), synthetic.double()
    count, made = len(real), len(synthetic)
    if count <= neighbours or not made:
        return None
    radii = _squared_radii(real, neighbours)
    inside_of_row, alone = torch.zeros(count, dtype=torch.float64), torch.zeros(made, dtype=torch.float64)
    balls_around = torch.zeros(made, dtype=torch.float64)
    for start in range(0, count, _CHUNK):
        inside = _squared_distances(real[start : start + _CHUNK], synthetic) < radii[start : start + _CHUNK, None]
        found = inside.sum(dim=1)
        inside_of_row[start : start + _CHUNK] = found.double()
        balls_around += inside.sum(dim=0)
        alone += inside[found == 1].sum(dim=0)
    projections = inside_of_row.numpy() * count / (neighbours * made), balls_around.numpy() / neighbours
    density = float(projections[1].mean())
    error = math.sqrt(sum(float(part.var(ddof=1)) / len(part) for part in projections if len(part) > 1))
    covered = float((inside_of_row > 0).double().mean())
    lost = alone.numpy() / count  # what leaving out one synthetic row uncovers
    variance = covered * (1 - covered) / count + (made - 1) / made * float(((lost - lost.mean()) ** 2).sum())
    rows = min(float(count), covered * (1 - covered) / variance) if variance > 0 else float(count)
    return (
        Measure(density, max(0.0, density - _Z * error), density + _Z * error, made),
        Measure(covered, *_wilson(covered, max(rows, 1.0)), count),
    )


def expect_coverage(real: int, synthetic: int, *, neighbours: int = NEIGHBOURS) -> float:
    r"""Return the mean coverage by rows of the very same distribution.

    .. math:: 1 - \prod_{i=1}^{k} \frac{N - i}{N + M - i}

    A real row is uncovered when its k nearest among all the others are real.

    Args:
        real: N, real rows.
        synthetic: M, synthetic rows.
        neighbours: k.

    References:
        Naeem et al.: Reliable fidelity and diversity metrics for generative models (2020), section 3.

    Example:
        >>> round(expect_coverage(10_000, 10_000), 3)
        0.969
    """
    factors = [max(real - i, 0) / (real + synthetic - i) for i in range(1, neighbours + 1)]
    return 1 - math.prod(factors)


def _kernel_sums(left: Tensor, right: Tensor) -> tuple[Floats, Floats]:
    """Return the row sums (n,) and column sums (m,) of the matrix of cubic kernels."""
    rows, columns = [], torch.zeros(len(right), dtype=torch.float64)
    for start in range(0, len(left), _CHUNK):
        kernel = (left[start : start + _CHUNK] @ right.T / left.shape[1] + 1) ** 3
        rows.append(kernel.sum(dim=1))
        columns += kernel.sum(dim=0)
    return torch.cat(rows).numpy(), columns.numpy()


def _within(features: Tensor) -> tuple[float, Floats]:
    """Return the mean kernel of two different rows, and the (n,) means with one row left out."""
    itself = ((features**2).sum(dim=1) / features.shape[1] + 1) ** 3
    others, count = _kernel_sums(features, features)[0] - itself.numpy(), len(features)
    total = float(others.sum())
    return total / (count * (count - 1)), (total - 2 * others) / ((count - 1) * (count - 2))


def _jackknife(left_out: Floats) -> float:
    """Return the variance that values with one row left out show."""
    count = len(left_out)
    return float((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum())


def measure_kernel(real: Tensor, synthetic: Tensor) -> Measure | None:
    r"""Return the kernel distance of two sets of features: the unbiased squared MMD with a cubic kernel.

    .. math:: \frac{\sum_{i \ne j} k(x_i, x_j)}{N (N-1)} + \frac{\sum_{i \ne j} k(y_i, y_j)}{M (M-1)}
              - \frac{2 \sum_{i, j} k(x_i, y_j)}{N M}, \qquad k(x, y) = (x^\top y / F + 1)^3

    Its mean is 0 for rows of the same distribution, so single values fall below 0. The interval is the jackknife
    over both sets of rows; near 0 it is wider than need be, never narrower.

    Args:
        real: (N, F) features of real rows, whitened.
        synthetic: (M, F) features of synthetic rows, whitened in the same way.

    Returns:
        The distance; None with fewer than 3 rows on a side.

    References:
        Gretton et al.: A kernel two-sample test (2012), eq. 3.
        Binkowski et al.: Demystifying MMD GANs (2018), section 4 (the kernel).
        Efron, Stein: The jackknife estimate of variance (1981): it is biased upwards.
    """
    real, synthetic = real.double(), synthetic.double()
    count, made = len(real), len(synthetic)
    if min(count, made) < 3:
        return None
    (within_real, left_real), (within_made, left_made) = _within(real), _within(synthetic)
    rows, columns = _kernel_sums(real, synthetic)
    total = float(rows.sum())
    value = within_real + within_made - 2 * total / (count * made)
    without_real = left_real - 2 * (total - rows) / ((count - 1) * made)
    without_made = left_made - 2 * (total - columns) / (count * (made - 1))
    half = _Z * math.sqrt(_jackknife(without_real) + _jackknife(without_made))
    return Measure(value, value - half, value + half, made)


def measure_nearness(synthetic: Floats, held_out: Floats) -> Measure | None:
    """Return the probability that a synthetic row lies nearer to the training rows than a held-out real row does.

    Args:
        synthetic: (M,) distance of each synthetic row to its nearest training row.
        held_out: (N,) the same of real rows that were not trained on.

    Returns:
        The probability, ties counted half: 0.5 for rows as new as held-out ones; None where one side is empty.
    """
    marked = np.repeat([True, False], [len(synthetic), len(held_out)])
    found = estimate_auroc(marked, -np.concatenate([synthetic, held_out]).astype(np.float64))
    return None if found is None else Measure(*found, len(synthetic))


def score_copying(synthetic: Floats, held_out: Floats) -> float | None:
    r"""Return the Mann-Whitney z-score of "synthetic rows lie farther from the training rows than held-out ones".

    .. math:: Z = \frac{U - mn/2}{\sigma_U}, \qquad
              \sigma_U^2 = \frac{mn}{12} \Big( m + n + 1 - \frac{\sum_t (t^3 - t)}{(m + n)(m + n - 1)} \Big)

    where U counts the pairs in which the synthetic row is farther, and t the sizes of groups of equal distances.
    Standard normal for rows as new as held-out ones; far below zero for copies, and for rows that are merely
    smoother than real ones.

    Args:
        synthetic: (M,) distance of each synthetic row to its nearest training row.
        held_out: (N,) the same of real rows that were not trained on.

    Returns:
        The score; None where it is not defined (an empty side, or all distances equal).

    References:
        Meehan, Chaudhuri, Dasgupta: A non-parametric test to detect data-copying in generative models (2020),
        section 3 (the statistic C_T of one cell).
    """
    made, held = len(synthetic), len(held_out)
    if not made or not held:
        return None
    ranks = rankdata(np.concatenate([synthetic, held_out]))
    farther = ranks[:made].sum() - made * (made + 1) / 2
    ties = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    both = made + held
    variance = made * held / 12 * (both + 1 - (ties**3 - ties).sum() / (both * (both - 1)))
    return float((farther - made * held / 2) / math.sqrt(variance)) if variance > 0 else None
