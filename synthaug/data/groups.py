"""Joint groups: the classes that a label and further columns of few values make together, such as ``3 · red``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from datasets import ClassLabel, Dataset, Features

from synthaug.core import InputError, suggest
from synthaug.data.columns import Columns, Labels, find_columns, is_label, label_value, read_labels

__all__ = [
    "MAX_VALUES",
    "SEPARATOR",
    "absent_groups",
    "check_group_by",
    "choose_columns",
    "class_values",
    "count_absent",
    "describe_absent",
    "read_classes",
    "read_groups",
    "split_attributes",
]

SEPARATOR = " · "
"""Stands between the values in the name of a group."""

MAX_VALUES = 100
"""Distinct values that a column besides the label may have."""


def choose_columns(
    dataset: Dataset,
    image_column: str | None = None,
    label_column: str | None = None,
    group_by: Sequence[str] | None = None,
) -> Columns:
    """Return the image and the label column, and those whose values together are the classes.

    Without `label_column` the label is the only `ClassLabel` column, else the first of `group_by`.

    Raises:
        InputError: As `find_columns` and `check_group_by`.
    """
    if not group_by:
        return find_columns(dataset, image_column, label_column)
    if label_column is None:
        classes = [name for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)]
        label_column = classes[0] if len(classes) == 1 else group_by[0]
        if label_column not in dataset.features:
            check_group_by(dataset.features, label_column, group_by)  # says so in terms of group_by
    columns = find_columns(dataset, image_column, label_column)
    return replace(columns, groups=check_group_by(dataset.features, columns.label, group_by))


def check_group_by(features: Features, label: str, group_by: Sequence[str]) -> tuple[str, ...]:
    """Return the columns to group by, checked by name and type.

    Raises:
        InputError: One is not there, is given twice or has no discrete values; the label is not among them, or
            nothing else is.
    """
    given, own = ",".join(group_by), ("synthetic", "provenance")
    allowed = [name for name, feature in features.items() if is_label(feature) and name not in own]
    for name in group_by:
        if name not in features:
            raise InputError(
                f"group_by names {name!r}, but there is no such column{suggest(name, allowed)}; columns of few values "
                f"may be {', '.join(map(repr, allowed))}"
            )
        if name not in allowed:
            raise InputError(
                f"group_by names {name!r}, which holds no class labels, strings, integers or booleans; choose from "
                f"{', '.join(map(repr, allowed))}"
            )
    if label not in group_by:
        raise InputError(f"group_by is {given}, without the label column {label!r}; add it: {label},{given}")
    if len(set(group_by)) < len(group_by) or len(group_by) < 2:
        raise InputError(f"group_by is {given}; name the label column and at least one other, each once")
    return tuple(group_by)


def read_classes(dataset: Dataset, columns: Columns) -> Labels:
    """Return the class of every row: its label, or its joint group where the columns say so."""
    if not columns.groups:
        return read_labels(dataset, columns.label)
    return read_groups(dataset, columns.groups, columns.label)


def read_groups(dataset: Dataset, groups: Sequence[str], label: str) -> Labels:
    """Return the joint group of every row and the names of those that occur, in the order of their values.

    A row that lacks a value in one of the columns has no group (-1).

    Raises:
        InputError: A column besides the label has more than `MAX_VALUES` values, or a value holds the separator.
    """
    parts = [read_labels(dataset, name) for name in groups]
    for name, part in zip(groups, parts, strict=True):
        found = np.unique(part.index[part.index >= 0])
        if len(found) > MAX_VALUES and name != label:
            raise InputError(
                f"column {name!r} in group_by has {len(found)} distinct values; at most {MAX_VALUES} can be balanced: "
                "give a column of few values, or put its values into bins"
            )
        for number in found.tolist():
            if SEPARATOR in part.names[number]:
                raise InputError(
                    f"column {name!r} in group_by has the value {part.names[number]!r}, which holds {SEPARATOR!r}, "
                    "the mark between the values of a group; rename it"
                )
    codes = np.stack([part.index for part in parts], axis=1)
    known = (codes >= 0).all(axis=1)
    found, inverse = np.unique(codes[known], axis=0, return_inverse=True)
    index = np.full(len(codes), -1, dtype=np.int64)
    index[known] = inverse.reshape(-1)
    names = (
        SEPARATOR.join(part.names[code] for part, code in zip(parts, row, strict=True)) for row in found.tolist()
    )  # fmt: skip
    return Labels(index, tuple(names))


def class_values(features: Features, columns: Columns, class_name: str) -> dict[str, int | str | bool]:
    """Return the values that stand for a class in the label column, or for a group in all of its columns.

    Raises:
        InputError: A column cannot hold its value.
    """
    if not columns.groups:
        return {columns.label: label_value(features, columns.label, class_name)}
    parts = zip(columns.groups, class_name.split(SEPARATOR), strict=True)
    return {name: label_value(features, name, value) for name, value in parts}


def split_attributes(names: Sequence[str], columns: Columns) -> list[list[int]] | None:
    """Return the numbers of the values that make each group, that of the label first; None for plain classes.

    Example:
        >>> split_attributes(["3 · red", "3 · blue", "5 · red"], Columns("image", "digit", ("digit", "colour")))
        [[0, 0], [0, 1], [1, 0]]
    """
    if not columns.groups:
        return None
    order = sorted(range(len(columns.groups)), key=lambda position: columns.groups[position] != columns.label)
    rows = [[name.split(SEPARATOR)[position] for position in order] for name in names]
    numbers = [
        {value: number for number, value in enumerate(dict.fromkeys(column))} for column in zip(*rows, strict=True)
    ]
    return [[number[value] for number, value in zip(numbers, row, strict=True)] for row in rows]


def absent_groups(names: Sequence[str], most: int | None = None) -> list[str]:
    """Return the groups that the values of the groups `names` could make and that are not among them.

    Args:
        names: The groups that occur.
        most: Return only the first so many; a few columns of many values make millions.

    Example:
        >>> absent_groups(["3 · red", "3 · blue", "5 · red"])
        ['5 · blue']
    """
    present = set(names)
    everything = (SEPARATOR.join(parts) for parts in itertools.product(*_values_of(names))) if present else ()
    return list(itertools.islice((name for name in everything if name not in present), most))


def count_absent(names: Sequence[str]) -> int:
    """Return how many groups `absent_groups` has, without making them.

    Example:
        >>> count_absent(["3 · red", "3 · blue", "5 · red"])
        1
    """
    return math.prod(map(len, _values_of(names))) - len(set(names)) if names else 0


def describe_absent(names: Sequence[str], shown: int = 5) -> str:
    """Return a few words on the groups that do not occur; empty where all of them do.

    Example:
        >>> describe_absent(["3 · red", "3 · blue", "5 · red"])
        "1 group is absent and none is generated for it: '5 · blue'"
    """
    number = count_absent(names)
    if not number:
        return ""
    listed = ", ".join(map(repr, absent_groups(names, shown))) + (", ..." if number > shown else "")
    return (
        f"1 group is absent and none is generated for it: {listed}"
        if number == 1
        else f"{number:,} groups are absent and none is generated for them: {listed}"
    )


def _values_of(names: Sequence[str]) -> list[list[str]]:
    """Return the values in each place of the names of groups, in the order in which they come."""
    return [list(dict.fromkeys(values)) for values in zip(*(name.split(SEPARATOR) for name in names), strict=True)]
