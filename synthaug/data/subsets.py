"""Which rows to take: fixed choices that depend on what the images show, not on how they are ordered."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synthaug.core import InputError

__all__ = ["check_limit", "choose_limited", "choose_long_tail", "choose_validation"]

Integers = NDArray[np.int64]


def check_limit(per_class: object) -> None:
    """Raise InputError unless `per_class` is an integer of at least 1."""
    if not isinstance(per_class, int) or isinstance(per_class, bool) or per_class < 1:
        raise InputError(f"limit_per_class is {per_class!r}; give an integer of at least 1, or none for all rows")


def choose_limited(labels: Integers, hashes: NDArray[np.str_], per_class: int) -> Integers:
    """Return the positions, ascending, of at most `per_class` rows of each class.

    Which ones goes by a hash of the pixel hash, so that it tells nothing about `choose_validation`.

    Args:
        labels: (N,) int64.
        hashes: (N,) pixel hashes.
        per_class: At least 1.

    Raises:
        InputError: `per_class` is not an integer of at least 1.
    """
    check_limit(per_class)
    key = [hashlib.sha256(f"limit {value}".encode()).hexdigest() for value in hashes.tolist()]
    order = np.lexsort((np.array(key, dtype="<U64"), labels))
    ranked = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(ranked, ranked, side="left")
    return np.sort(order[rank < per_class])


def choose_validation(
    labels: Integers, hashes: NDArray[np.str_], class_names: Sequence[str], validation: object
) -> NDArray[np.bool_]:
    """Return (N,) bool: the rows held out, those with the lowest pixel hash in each class, or one fold of all rows.

    Equal hashes always land on the same side. A group of them that would take more than half of a class (or
    more than was asked for, if that is more) stays in training.

    Args:
        labels: (N,) int64, index into `class_names`.
        hashes: (N,) pixel hashes.
        class_names: For messages.
        validation: See `synthaug.data.images.split_validation`.

    Raises:
        InputError: `validation` is out of range, or a class has no more rows than it asks for.
    """
    _, group = np.unique(hashes, return_inverse=True)  # numbered in hash order
    if (fold := _read_fold(validation)) is not None:
        number, folds = fold
        return np.asarray(_assign_folds(labels, group.astype(np.int64), folds) == number - 1)
    counts = np.bincount(labels, minlength=len(class_names)).tolist()
    wanted = [_number_held(rows, validation, name) for rows, name in zip(counts, class_names, strict=True)]
    room = [max(0, min(rows - 1, max(number, rows // 2))) for rows, number in zip(counts, wanted, strict=True)]
    return np.isin(group, _choose_groups(labels, group.astype(np.int64), room, wanted))


def _read_fold(validation: object) -> tuple[int, int] | None:
    """Return (number, folds) of a fold such as "2/5", None for anything else.

    Raises:
        InputError: There is no such fold.
    """
    parts = validation.split("/") if isinstance(validation, str) else []
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    number, folds = map(int, parts)
    if folds < 2 or not 1 <= number <= folds:
        raise InputError(
            f"validation is {validation!r}; give a fold from 1/{folds} to {folds}/{folds}, of at least two"
        )
    return number, folds


def _assign_folds(labels: Integers, group: Integers, folds: int) -> Integers:
    """Return (N,) the fold that holds each row out, from 0; -1 where none does.

    The folds of a class begin one further than those of the class before, so that small classes spread over all.
    A class's only image, and one that would take more than half of a class, are always in training.
    """
    fold_of = np.full(int(group.max(initial=-1)) + 1, -2)
    counts = np.bincount(labels)
    crossing = np.zeros((len(fold_of), len(counts)), dtype=np.int64)
    np.add.at(crossing, (group, labels), 1)
    fold_of[(crossing > counts // 2).any(axis=1)] = -1
    for label in range(len(counts)):
        own = np.flatnonzero((crossing[:, label] > 0) & (fold_of == -2))
        fold_of[own] = (label + np.arange(len(own))) % folds
    for label in np.flatnonzero(
        counts
    ).tolist():  # images shared with other classes may have filled one fold with a class
        own = np.flatnonzero(crossing[:, label])
        if (fold_of[own] == fold_of[own[0]]).all():
            fold_of[own[0]] = -1
    return np.asarray(fold_of[group])


def _choose_groups(labels: Integers, group: Integers, room: list[int], wanted: list[int]) -> list[int]:
    members: dict[int, list[int]] = {}
    for number, label in zip(group.tolist(), labels.tolist(), strict=True):
        members.setdefault(number, []).append(label)
    left, chosen = np.array(room), set[int]()
    for label, number in enumerate(wanted):
        covered = 0
        for candidate in np.sort(group[labels == label]).tolist() if number else []:
            if covered == number:
                break
            if candidate not in chosen:
                taken = np.bincount(members[candidate], minlength=len(room))
                if (taken > left).any():
                    continue
                left -= taken
                chosen.add(candidate)
            covered += 1
    return sorted(chosen)


def _number_held(rows: int, validation: object, name: str) -> int:
    """Return how many of a class's rows to hold out."""
    if validation is None or rows == 0:
        return 0
    if validation == "auto":
        return 0 if rows < 5 else max(1, rows // (10 if rows >= 100 else 5))
    if isinstance(validation, int | float) and not isinstance(validation, bool):
        if validation == 0:
            return 0
        if isinstance(validation, float) and 0 < validation < 1:
            return min(rows - 1, max(1, int(rows * validation)))
        if isinstance(validation, int) and 0 < validation < rows:
            return validation
        if isinstance(validation, int) and validation >= rows:
            raise InputError(
                f"validation is {validation} rows per class, but class {name!r} has only {rows}; "
                "give fewer, a fraction or 'auto'"
            )
    raise InputError(
        f"validation is {validation!r}; give 'auto', a fraction between 0 and 1, a number of rows per class, "
        "a fold such as '2/5', or 0 for none"
    )


def choose_long_tail(labels: Integers, imbalance_factor: float) -> Integers:
    """Return the positions, ascending, of rows whose class counts fall off exponentially.

    Class i of K keeps ``n_max * imbalance_factor ** (-i / (K - 1))`` rows, or all where it has fewer.

    Args:
        labels: (N,) int64; negative ones are left out.
        imbalance_factor: Largest class over smallest, at least 1.

    Raises:
        InputError: `imbalance_factor` is below 1, or there is no label.

    References:
        Cui et al.: Class-balanced loss based on effective number of samples (2019), section 5.1.
    """
    if not imbalance_factor >= 1:
        raise InputError(f"imbalance_factor is {imbalance_factor!r}; give a number of at least 1")
    present, counts = np.unique(labels[labels >= 0], return_counts=True)
    if not len(present):
        raise InputError("the dataset has no labelled row; a long tail needs classes")
    kept: list[Integers] = []
    for position, label in enumerate(present.tolist()):
        share = imbalance_factor ** (-position / max(1, len(present) - 1))
        rows = np.flatnonzero(labels == label)
        drawn = np.random.Philox(key=np.array([0, position], dtype=np.uint64)).random_raw(len(rows))
        kept.append(rows[np.argsort(drawn, kind="stable")[: max(1, round(int(counts.max()) * share))]])
    return np.sort(np.concatenate(kept))
