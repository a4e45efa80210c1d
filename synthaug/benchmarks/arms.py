"""The arms of a benchmark: which rows a classifier is trained on, position by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthaug.classifier import cycle_rows, row_schedule
from synthaug.errors import InputError, suggest
from synthaug.noise import BatchRandom

__all__ = ["DEFAULT_ARMS", "Arm", "check_arms", "parse_arm", "schedule_rows"]

DEFAULT_ARMS = (
    "real",
    "real+classical",
    "oversampled+classical",
    "oversampled+classical+synthetic",
    "synthetic",
)
_BASES = ("real", "oversampled", "synthetic")
_EXTRAS = ("classical", "synthetic")


@dataclass(frozen=True)
class Arm:
    """One way to train the classifier.

    Args:
        name: As given, e.g. "oversampled+classical+synthetic".
        balanced: Whether classes are visited equally often, rows of small classes being repeated.
        classical: Whether rows are augmented by the chosen classical policy.
        mixed: Whether a share of the real rows is exchanged for synthetic rows of the same class.
        only_synthetic: Whether no real row is trained on (the literature's classification accuracy score).
    """

    name: str
    balanced: bool
    classical: bool
    mixed: bool = False
    only_synthetic: bool = False

    @property
    def uses_synthetic(self) -> bool:
        """Whether any synthetic row is trained on."""
        return self.mixed or self.only_synthetic

    @property
    def describe(self) -> str:
        """Say in a few words what the arm trains on."""
        if self.only_synthetic:
            return "synthetic rows alone, classes equally often, augmented"
        order = ", classes equally often" if self.balanced else " as they come"
        moved = ", augmented" if self.classical else ""
        mixed = "; a share exchanged for synthetic rows of the same class" if self.mixed else ""
        return f"real rows{order}{moved}{mixed}"


def parse_arm(name: str) -> Arm:
    """Return the arm of a name: "real" or "oversampled", then "+classical" and "+synthetic"; or "synthetic".

    Raises:
        InputError: If the name is none of these.

    Example:
        >>> parse_arm("oversampled+classical").balanced
        True
    """
    base, *extras = name.split("+")
    unknown = base not in _BASES or len(set(extras)) < len(extras) or not set(extras) <= set(_EXTRAS)
    if unknown or (base == "synthetic" and extras):
        raise InputError(
            f"arm {name!r} is unknown; allowed are {', '.join(DEFAULT_ARMS)}{suggest(name, DEFAULT_ARMS)}: "
            "name some of them"
        )
    if base == "synthetic":
        return Arm(name, balanced=True, classical=True, only_synthetic=True)
    return Arm(name, balanced=base == "oversampled", classical="classical" in extras, mixed="synthetic" in extras)


def check_arms(names: Sequence[str] | None) -> tuple[Arm, ...]:
    """Return the arms of a benchmark in their order.

    Raises:
        InputError: If one is unknown or repeated, or if there is nothing to compare: no arm that mixes
            synthetic rows in, or no arm without synthetic rows.
    """
    arms = tuple(parse_arm(name) for name in (DEFAULT_ARMS if names is None else names))
    chosen = ", ".join(arm.name for arm in arms) or "none"
    if len({arm.name for arm in arms}) < len(arms):
        raise InputError(f"arms are {chosen}; name each arm once")
    if not any(arm.mixed for arm in arms) or all(arm.uses_synthetic for arm in arms):
        raise InputError(
            f"arms are {chosen}; a comparison needs one with real and synthetic rows and one with real rows "
            "alone, e.g. oversampled+classical,oversampled+classical+synthetic"
        )
    return arms


def schedule_rows(
    arm: Arm,
    real_labels: NDArray[np.int64],
    synthetic_labels: NDArray[np.int64],
    *,
    length: int,
    seed: int,
    share: float,
) -> NDArray[np.int64]:
    """Return which row stands at each position of the training: real rows first, synthetic ones after them.

    Arms with the same sampling hold the same real rows at the same positions. A mixed arm exchanges the row
    of a position for a synthetic row of the same class with probability `share`, so the classes of a batch
    stay what they are in its opponent; a class with few synthetic rows is exchanged less often, so that no
    synthetic row is shown more often than a real row of its class would be in the union.

    Args:
        arm: The arm.
        real_labels: (N,) class of the real rows.
        synthetic_labels: (M,) class of the synthetic rows.
        length: Number of positions.
        seed: Paired seed.
        share: Probability of the exchange, in (0, 1].

    Returns:
        (length,) int64: i < N is real row i, N + j is synthetic row j.
    """
    offset = len(real_labels)
    if arm.only_synthetic:
        return offset + row_schedule(synthetic_labels, length=length, seed=seed, balanced=True)
    rows = row_schedule(real_labels, length=length, seed=seed, balanced=arm.balanced)
    if not arm.mixed:
        return rows
    classes = int(max(real_labels.max(), synthetic_labels.max())) + 1
    real_counts = np.bincount(real_labels, minlength=classes)
    counts = np.bincount(synthetic_labels, minlength=classes)
    union = np.divide(counts, counts + real_counts, out=np.zeros(classes), where=counts > 0)
    asked = real_labels[rows]
    chance = np.minimum(share, union)[asked]
    draws = BatchRandom(seed, 0, start=0, count=length, stream=9).uniform(1).numpy()[:, 0]
    exchanged = draws < chance
    for label in np.flatnonzero(counts):
        positions = np.flatnonzero(exchanged & (asked == label))
        members = np.flatnonzero(synthetic_labels == label)
        stream = 1_000_000 + int(label)
        rows[positions] = offset + cycle_rows(members, len(positions), seed=seed, stream=stream)
    return rows
