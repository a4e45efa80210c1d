"""Drawing latents near those of training images: between two of a class, or from another class by transfer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.core import Layout
from synthaug.generators.cvae.attributes import shrink_centres

__all__ = [
    "CHOICES",
    "check_stored",
    "describe_stored",
    "draw_between",
    "draw_transferred",
    "pool_latents",
    "store_latents",
]

CANDIDATES = 4
"""Images drawn at random from which the nearest becomes the second of a pair."""
CHOICES = 2 + CANDIDATES
"""Standard normal numbers that a draw uses to choose its images: the first, the candidates, the angle."""


def store_latents(
    mu: Tensor, sigma: Tensor, labels: Tensor, num_classes: int, attributes: Sequence[Sequence[int]] | None = None
) -> dict[str, Tensor]:
    """Return latents sorted by class, as the draws below want them.

    Args:
        mu: (N, D) posterior means of the training images.
        sigma: (N, D) their standard deviations.
        labels: (N,) int64.
        num_classes: K.
        attributes: (K, A) values of the attributes that make each class; classes with the same first one are kin.
            None for classes without kin.

    Returns:
        "mu" and "sigma" (N, D) sorted by kin and class, "counts" (K,), "centres" (K, D), zero for an empty class,
        and with `attributes` "kin" (K,) int64 and "kin_centres" (K, D), see `shrink_centres`.
    """
    made = None if attributes is None else torch.tensor(attributes, device=mu.device)
    relations = torch.arange(num_classes, device=mu.device) if made is None else made[:, 0]
    order = (relations[labels] * num_classes + labels).argsort(stable=True)
    counts = torch.bincount(labels, minlength=num_classes)
    sums = torch.zeros(num_classes, mu.shape[1], device=mu.device).index_add(0, labels, mu)
    stored = {"mu": mu[order], "sigma": sigma[order], "counts": counts}
    stored["centres"] = sums / counts.clamp_min(1)[:, None]
    if made is None:
        return stored
    return {**stored, "kin": relations.contiguous(), "kin_centres": shrink_centres(mu, labels, made)}


def describe_stored(num_classes: int, size: int, *, kin: bool) -> Layout:
    """Return the type and the shape of each tensor that `store_latents` returns.

    Args:
        num_classes: K.
        size: D.
        kin: Whether classes have kin.
    """
    rows, centres = (torch.float32, ("rows", size)), (torch.float32, (num_classes, size))
    layout = {"mu": rows, "sigma": rows, "counts": (torch.int64, (num_classes,)), "centres": centres}
    return {**layout, **({"kin": (torch.int64, (num_classes,)), "kin_centres": centres} if kin else {})}


def check_stored(stored: Mapping[str, Tensor]) -> None:
    """See that the counts of stored latents are those of the rows that are there.

    Raises:
        ValueError: They are not.
    """
    counts, rows = stored["counts"], len(stored["mu"])
    if bool(((counts < 0) | (counts > rows)).any()) or int(counts.sum()) != rows:
        raise ValueError(f"the latents count {counts.tolist()[:10]} rows of the classes, but hold {rows}")


@dataclass(frozen=True)
class _Pools:
    """Where the images from which a class may draw stand in what is stored: its own, or those of its kin.

    Args:
        starts: (K,) first row of each class's pool.
        counts: (K,) rows of it.
        origins: (N,) class of every row.
    """

    starts: Tensor
    counts: Tensor
    origins: Tensor

    @classmethod
    def of(cls, stored: Mapping[str, Tensor], *, kin: bool) -> _Pools:
        counts = stored["counts"]
        classes = torch.arange(len(counts), device=counts.device)
        relations = stored.get("kin", classes)
        order = relations.argsort(stable=True)
        starts = torch.empty_like(counts)
        starts[order] = counts[order].cumsum(0) - counts[order]
        origins = order.repeat_interleave(counts[order])
        if not kin:
            return cls(starts, counts, origins)
        related = relations[:, None] == relations
        first = torch.where(related, starts, len(origins)).min(dim=1).values
        return cls(first, (related * counts).sum(1), origins)


def draw_between(
    stored: Mapping[str, Tensor],
    choices: Tensor,
    noise: Tensor,
    labels: Tensor,
    *,
    spread: float,
    expansion: float,
    temperature: float,
    kin: bool = False,
) -> Tensor:
    r"""Draw between two training images i, j of the class, keeping or widening the spread of the class.

    .. math:: z = m_y + a \cos\theta\,(\mu_i - m_y) + a \sin\theta\,(\mu_j - m_y) + T \sigma_i \epsilon,
              \qquad \theta \sim U(0.7, 1) \cdot \texttt{spread} \cdot \pi / 2

    i is any image of the class and j the nearest to it of a few drawn at random, so that what lies between
    them is an image too. The weights' squares add up to one: draws keep the covariance that a straight line
    would shrink. theta stays away from zero, where a draw would be a copy of i.

    Args:
        stored: What `store_latents` returned.
        choices: (N, CHOICES) standard normal.
        noise: (N, D) standard normal.
        labels: (N,) int64; their classes have images.
        spread: How far towards the second image, as an angle in units of a right angle.
        expansion: a.
        temperature: T.
        kin: Draw from the images of all kin of the class, each moved by the difference of the classes' centres as
            `shrink_centres` has them: a red 3 takes the shapes of green ones. Without kin it changes nothing.

    Returns:
        (N, D) latents.

    References:
        Chadebec et al.: Data augmentation in high dimensional low sample size setting using a geometry-based
        variational autoencoder (2022), section 3 (sampling near the training posteriors).
        Lampis, Lomurno, Matteucci: Bridging the gap: enhancing the utility of synthetic data via post-processing
        techniques (2023), on drawing wider than the training distribution ("expansion trick").
    """
    pools, uniform = _Pools.of(stored, kin=kin), _uniform(choices)
    rows = pools.starts[labels, None] + (uniform[:, :-1] * pools.counts[labels, None]).long()
    moved = _move(stored, pools, rows, labels)  # (N, CHOICES - 1, D)
    first, candidates = moved[:, 0], moved[:, 1:]
    distances = (first[:, None] - candidates).square().sum(2)
    distances = distances.masked_fill(rows[:, 1:] == rows[:, :1], torch.inf)
    second = candidates[torch.arange(len(labels), device=rows.device), distances.argmin(1)]
    theta = ((0.7 + 0.3 * uniform[:, -1:]) * spread * (math.pi / 2)).to(moved.dtype)
    centre = (_kin_centres(stored) if kin else stored["centres"])[labels]
    away = theta.cos() * (first - centre) + theta.sin() * (second - centre)
    return centre + expansion * away + temperature * stored["sigma"][rows[:, 0]] * noise


def pool_latents(stored: Mapping[str, Tensor], label: int, *, kin: bool = False) -> Tensor:
    """Return the latents (M, D) between which `draw_between` draws a class, none where it has no images."""
    pools = _Pools.of(stored, kin=kin)
    start, count = int(pools.starts[label]), int(pools.counts[label])
    rows = torch.arange(start, start + count, device=pools.origins.device)
    return _move(stored, pools, rows[None], rows.new_tensor([label]))[0]


def _move(stored: Mapping[str, Tensor], pools: _Pools, rows: Tensor, labels: Tensor) -> Tensor:
    """Return the stored latents `rows` (N, R) as those of the classes `labels` (N,): (N, R, D)."""
    origins = pools.origins[rows]
    moved = stored["mu"][rows]
    if bool((origins == labels[:, None]).all()):
        return moved
    centres = _kin_centres(stored)
    return moved + (centres[labels, None] - centres[origins])


def _kin_centres(stored: Mapping[str, Tensor]) -> Tensor:
    """Return the centres between which kin move; runs of before they were kept have the plain ones."""
    return stored.get("kin_centres", stored["centres"])


def draw_transferred(
    stored: Mapping[str, Tensor], choices: Tensor, noise: Tensor, labels: Tensor, *, temperature: float
) -> Tensor:
    r"""Draw the latents of an image i of another class, moved to this class's centre.

    .. math:: z = m_y + (\mu_i - m_{y_i}) + T \sigma_i \epsilon, \qquad y_i \ne y

    What latents hold besides the class (slant, weight, position) is thereby shared between classes. Where no
    other class has images, i is of the class itself.

    Args:
        stored: What `store_latents` returned.
        choices: (N, at least 1) standard normal; the first column chooses i.
        noise: (N, D) standard normal.
        labels: (N,) int64.
        temperature: T.

    Returns:
        (N, D) latents.
    """
    mu, pools = stored["mu"], _Pools.of(stored, kin=False)
    starts, own = pools.starts[labels], pools.counts[labels]
    others = len(mu) - own
    own = torch.where(others > 0, own, 0)
    index = (_uniform(choices)[:, 0] * (len(mu) - own)).long()
    row = index + torch.where(index >= starts, own, 0)
    moved = stored["centres"][labels] + mu[row] - stored["centres"][pools.origins[row]]
    return torch.as_tensor(moved + temperature * stored["sigma"][row] * noise)


def _uniform(choices: Tensor) -> Tensor:
    """Map standard normals to uniforms in [0, 1), in float64."""
    return torch.as_tensor(torch.special.ndtr(choices.double())).clamp(0, 1 - 1e-12)
