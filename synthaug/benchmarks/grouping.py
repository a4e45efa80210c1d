"""The joint groups of a benchmark: rows are sampled and judged by them, while the classifier predicts the label."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from synthaug.data import SEPARATOR, Columns, check_group_by, read_groups

__all__ = ["Grouping", "find_grouping", "source_kind"]

Integers = NDArray[np.int64]

_SOURCE = "source "


@dataclass(frozen=True)
class Grouping:
    """Which joint group every row of a benchmark is in.

    Args:
        columns: The columns whose values make the groups.
        names: The groups of the real rows, then those that only other rows have.
        classes: (G,) the class of each group, index into `class_names`.
        class_names: The classes, in label order.
        index: Kind of rows ("train", "validation", "test", "oracle" or `source_kind`) -> (n,) their groups.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...]
    classes: Integers
    class_names: tuple[str, ...]
    index: Mapping[str, Integers] = field(default_factory=dict)

    def count(self, kind: str) -> Integers:
        """Return (G,) how many rows of a kind each group has."""
        return np.bincount(self.index[kind], minlength=len(self.names))

    def count_synthetic(self) -> Integers:
        """Return (G,) how many rows of all sources each group has."""
        kinds = [kind for kind in self.index if kind.startswith(_SOURCE)]
        return np.asarray(np.sum([self.count(kind) for kind in kinds], axis=0), np.int64)

    def facts(self) -> dict[str, Any]:
        """Return what a benchmark must be run again with, JSON-friendly."""
        digest = hashlib.sha256()
        for kind, groups in sorted(self.index.items()):
            digest.update(kind.encode() + np.ascontiguousarray(groups).tobytes())
        return {"columns": list(self.columns), "names": list(self.names), "rows": digest.hexdigest()}


def source_kind(name: str) -> str:
    """Return the kind of the rows of a source of synthetic rows."""
    return f"{_SOURCE}{name}"


def find_grouping(
    real: Dataset, others: Sequence[Dataset], columns: Columns, group_by: Sequence[str]
) -> Grouping:  # fmt: skip
    """Return the groups that occur in any of these datasets, without rows.

    Raises:
        InputError: A dataset lacks one of the columns, or one has too many values.
    """
    names: dict[str, None] = {}
    for dataset in (real, *others):
        groups = check_group_by(dataset.features, columns.label, group_by)
        names |= dict.fromkeys(read_groups(dataset, groups, columns.label).names)
    position = list(group_by).index(columns.label)
    labels = [name.split(SEPARATOR)[position] for name in names]
    feature = real.features[columns.label]
    known = getattr(feature, "names", None) or list(dict.fromkeys(labels))
    class_names = tuple(sorted(set(labels), key=known.index))
    classes = np.array([class_names.index(label) for label in labels], dtype=np.int64)
    return Grouping(tuple(group_by), tuple(names), classes, class_names)
