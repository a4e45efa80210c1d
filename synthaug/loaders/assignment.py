"""Which positions of an epoch are synthetic, and which image each of them takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from synthaug.core import InputError, draw_choices, suggest
from synthaug.data import SEPARATOR

__all__ = ["Share", "Supply", "assign_slots", "match_classes", "resolve_share"]

Share = float | Mapping[Any, float]
"""One share for all classes, or the share of each class by name or index; classes left out have none."""


class Supply(Protocol):
    """Synthetic images by class; which one is a function of the arguments alone."""

    class_names: tuple[str, ...]
    named: bool
    """Whether `class_names` come from the data; else they are only numbers, and labels are matched by number."""

    def holds(self, label: int) -> bool:
        """Return whether there is any image of this class."""

    def pick(self, label: int, epoch: int, slot: int) -> NDArray[np.uint8]:
        """Return the image number `slot` of a class in an epoch, (H, W, C) uint8."""


def match_classes(names: Sequence[str] | None, supply: Supply) -> dict[int | str, int]:
    """Return which class of the supply a real label means; labels whose class it does not hold are left out.

    Args:
        names: Names of the real labels; None takes a label as the index into the supply's classes.
        supply: The synthetic images.

    Returns:
        Index (or name) of a real label -> index of the supply's class.

    Raises:
        InputError: They have no class in common.
    """
    theirs = supply.class_names if supply.named else tuple(names or supply.class_names)
    known = {name: number for number, name in enumerate(theirs) if supply.holds(number)}
    ours = theirs if names is None else tuple(names)
    joint = next((name for name in known if SEPARATOR in name), None)
    if joint is not None and (names is None or not set(ours) & set(known)):
        raise InputError(
            f"the synthetic classes are joint groups, such as {joint!r}, and the labels are not; give MixedDataset a "
            "datasets.Dataset and group_by, the columns of the groups, or name the group of each label with class_names"
        )
    shared: dict[int | str, int] = {number: known[name] for number, name in enumerate(ours) if name in known}
    if not shared:
        real, synthetic = (", ".join(map(repr, list(these)[:10])) for these in (ours, known))
        raise InputError(
            f"real has the classes {real}, synthetic has {synthetic or 'none'}, and none is in both; name the labels "
            "of real with class_names"
        )
    shared.update((name, known[name]) for name in ours if name in known)
    return shared


def resolve_share(share: Share, names: Sequence[str] | None, supply: Supply) -> NDArray[np.float64]:
    """Return the share of each class of the supply.

    Args:
        share: In [0, 1].
        names: Names of the real labels; None takes those of the supply.
        supply: The synthetic images.

    Returns:
        (classes of the supply,) float64 in [0, 1], 0 where it holds none.

    Raises:
        InputError: A share is out of range, or a class is unknown.
    """
    place = match_classes(names, supply)
    values = np.zeros(len(supply.class_names))
    if not isinstance(share, Mapping):
        values[list(set(place.values()))] = _check_share("share", share)
        return values
    known = tuple(supply.class_names if names is None else names)
    for key, value in share.items():
        number = int(key) if hasattr(key, "__index__") and not isinstance(key, bool) else key
        if not (0 <= number < len(known) if isinstance(number, int) else number in known):
            allowed = ", ".join(map(repr, known[:20]))
            raise InputError(f"share names the class {key!r}{suggest(str(key), known)}; the classes are {allowed}")
        value = _check_share(f"share of class {key!r}", value)
        if number in place:
            values[place[number]] = value
    return values


def _check_share(what: str, share: Any) -> float:
    if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 <= share <= 1:
        raise InputError(f"{what} is {share!r}; give a number from 0 (all real) to 1 (all synthetic), such as 0.5")
    return float(share)


def assign_slots(
    labels: NDArray[np.int64], shares: NDArray[np.float64], *, seed: int, epoch: int, factor: float
) -> NDArray[np.int64] | None:
    r"""Decide which positions of an epoch are synthetic, and number those of each class.

    Position i of class c is synthetic where :math:`u_i < f s_c`, with the share :math:`s_c`, the factor :math:`f` of
    the schedule and uniforms :math:`u_i` that depend on (seed, epoch, i) alone: it stays synthetic when the share
    grows.

    Args:
        labels: (N,) int64, class of each position in the supply; -1 stays real.
        shares: (K,) share of each class, in [0, 1].
        seed: Seed of the mixture.
        epoch: Number of the epoch.
        factor: Factor of all shares, in [0, 1].

    Returns:
        (N,) int64, number of the image among the synthetic ones of its class, -1 on real positions; None where all
        are real.
    """
    wanted = np.where(labels >= 0, factor * shares[labels], 0.0)
    if not wanted.any():
        return None
    chosen = np.flatnonzero(draw_choices(seed, epoch, 0, len(labels)) < wanted)
    order = np.argsort(labels[chosen], kind="stable")
    counts = np.bincount(labels[chosen], minlength=len(shares))
    slots = np.full(len(labels), -1, np.int64)
    slots[chosen[order]] = np.arange(len(chosen)) - np.repeat(np.cumsum(counts) - counts, counts)
    return slots
