"""What is in a dataset, before anything is fitted: classes, sizes, bad rows, duplicates, the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from synthaug.balance import BalancePlan, make_plan
from synthaug.core import InputError
from synthaug.data.codec import Codec, check_image_size
from synthaug.data.columns import Columns, real_rows
from synthaug.data.groups import choose_columns, describe_absent, read_classes
from synthaug.data.notices import read_notices
from synthaug.data.scan import CorruptRow, Scan, scan_images
from synthaug.data.sources import open_splits, pick_split
from synthaug.data.subsets import check_limit, choose_limited, choose_validation

__all__ = ["Inspection", "SplitSummary", "inspect_dataset"]

_SHOWN = 5
_LONG = 2
"""Ratio of sides beyond which `inspect` tells that images lose most of themselves to the crop."""


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds.

    Args:
        rows: All rows.
        synthetic: Rows marked synthetic; nothing else is said of them.
        unlabelled: Real rows without a label.
        class_counts: Usable rows by class name, in label order.
        corrupt: Real rows whose image cannot be used.
        sizes: Number of images of each (width, height), as stored.
        modes: Number of images of each Pillow mode.
        duplicates: Usable rows whose pixels an earlier row has.
        conflicts: Rows with the same pixels under two labels or more, one tuple for each such image.
        hashes: Pixel hashes of the images that could be decoded.
    """

    rows: int
    synthetic: int
    unlabelled: int
    class_counts: dict[str, int]
    corrupt: tuple[CorruptRow, ...]
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    duplicates: int
    conflicts: tuple[tuple[int, ...], ...]
    hashes: NDArray[np.str_]


@dataclass(frozen=True)
class Inspection:
    """What `inspect_dataset` found.

    Args:
        name: What the dataset is called.
        split: The split that would be fitted.
        columns: Image and label column.
        types: Every column with its type.
        splits: What each split holds.
        skipped: Splits that could not be read with these columns, and why.
        shared: For each pair of splits the number of rows of the second whose pixels the first has.
        codec: How a fit would see the images.
        plan: The suggested plan.
        training: Rows that a fit would learn from.
        validation: Rows that a fit would hold out.
        notices: What was passed over, and what may be read in two ways.
    """

    name: str
    split: str
    columns: Columns
    types: dict[str, str]
    splits: dict[str, SplitSummary]
    skipped: dict[str, str]
    shared: dict[tuple[str, str], int]
    codec: Codec
    plan: BalancePlan
    training: int
    validation: int
    notices: tuple[str, ...] = ()

    @property
    def class_counts(self) -> dict[str, int]:
        """Usable rows by class name in the split that would be fitted."""
        return self.splits[self.split].class_counts

    @property
    def imbalance_factor(self) -> float:
        """Largest class over smallest."""
        return max(self.class_counts.values()) / min(self.class_counts.values())

    @property
    def memory(self) -> int:
        """Bytes of the decoded uint8 pixels."""
        return (self.training + self.validation) * int(np.prod(self.codec.shape))

    def table(self) -> str:
        """Return everything as aligned text, the suggested plan last."""
        lines = [("dataset", f"{self.name}, split {self.split!r}"), *(("notice", notice) for notice in self.notices)]
        lines += self._describe_columns()
        for name, summary in self.splits.items():
            lines += _describe_split(name, summary)
        lines += [(f"{name!r}", f"not read: {reason}") for name, reason in self.skipped.items()]
        for (first, second), number in self.shared.items():
            lines.append(("across", f"{number:,} rows of {second!r} have the pixels of a row of {first!r}"))
        lines += self._describe_fit()
        width = max(len(key) for key, _ in lines)
        text = "\n".join(f"{key:<{width}}  {value}".rstrip() for key, value in lines)
        return f"{text}\n\nsuggested plan (majority)\n{self.plan.table()}"

    def _describe_columns(self) -> list[tuple[str, str]]:
        own = (self.columns.image, self.columns.label)
        others = [f"{name!r} ({kind})" for name, kind in self.types.items() if name not in own]
        lines = [
            ("images", f"column {own[0]!r} ({self.types[own[0]]})"),
            ("labels", f"column {own[1]!r} ({self.types[own[1]]})"),
        ]
        lines += [("others", ", ".join(others))] if others else []
        if not self.columns.groups:
            return lines
        lines.append(("groups", f"of {', '.join(map(repr, self.columns.groups))}, which are the classes below"))
        if absent := describe_absent(list(self.class_counts), _SHOWN):
            lines.append(("  absent", absent))
        return lines

    def _describe_fit(self) -> list[tuple[str, str]]:
        counts = self.class_counts
        largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        size, _, channels = self.codec.shape
        return [
            (
                "classes",
                f"{len(counts)}, imbalance factor {self.imbalance_factor:.3g} "
                f"(largest {largest!r} {counts[largest]:,}, smallest {smallest!r} {counts[smallest]:,})",
            ),
            ("fit", f"{self.training:,} training and {self.validation:,} validation rows"),
            ("pixels", f"{size}x{size}x{channels} uint8, {self.memory / 2**20:,.1f} MiB decoded"),
        ]


def _describe_split(name: str, summary: SplitSummary) -> list[tuple[str, str]]:
    parts = [f"{sum(summary.class_counts.values()):,} usable", f"{summary.unlabelled:,} unlabelled"]
    parts.append(f"{len(summary.corrupt):,} corrupt")
    if summary.synthetic:
        parts.append(f"{summary.synthetic:,} synthetic")
    lines = [(f"{name!r}", f"{summary.rows:,} rows: {', '.join(parts)}")]
    lines.append(("  sizes", _listed({f"{w}x{h}": n for (w, h), n in summary.sizes.most_common()})))
    cropped = sum(n for (w, h), n in summary.sizes.items() if max(w, h) > _LONG * min(w, h))
    if cropped:
        line = f"{cropped:,} images are more than {_LONG} times as long as wide: only the square in the middle is used"
        lines.append(("  cropped", line))
    lines.append(("  modes", _listed(dict(summary.modes.most_common()))))
    lines.append(("  duplicates", f"{summary.duplicates:,} rows repeat an earlier one"))
    if summary.conflicts:
        rows = "; ".join(", ".join(map(str, group)) for group in summary.conflicts[:_SHOWN])
        lines.append(("  conflicts", f"{len(summary.conflicts):,} images under several labels: rows {rows}"))
    for bad in summary.corrupt[:_SHOWN]:
        lines.append(("  corrupt", f"row {bad.row}: {bad.reason}"))
    if len(summary.corrupt) > _SHOWN:
        lines.append(("  corrupt", f"and {len(summary.corrupt) - _SHOWN:,} more"))
    return lines


def _listed(counts: Mapping[str, int]) -> str:
    first = [f"{name} ({number:,})" for name, number in list(counts.items())[:_SHOWN]]
    return ", ".join(first) + (f" and {len(counts) - _SHOWN:,} others" if len(counts) > _SHOWN else "")


def inspect_dataset(
    dataset: str | Dataset,
    *,
    split: str = "train",
    image_column: str | None = None,
    label_column: str | None = None,
    group_by: Sequence[str] | None = None,
    image_size: int | None = None,
    limit_per_class: int | None = None,
) -> Inspection:
    """Look at a dataset the way a fit would, and at its other splits, decoding every image once.

    Args:
        dataset: A DATASET (see `synthaug.data.sources.open_splits`) or a `datasets.Dataset`.
        split: The split that would be fitted.
        image_column: Found by feature type when None.
        label_column: Found by feature type when None.
        group_by: Columns, the label among them, whose joint groups are the classes.
        image_size: Side of the pixels; None takes it from the data.
        limit_per_class: Rows of each class that a fit would take; None takes all.

    Raises:
        InputError: The dataset cannot be read, has no such split, no or several candidate columns, no
            usable labelled row or a single class.
    """
    if image_size is not None:
        check_image_size(image_size)
    if limit_per_class is not None:
        check_limit(limit_per_class)
    name = dataset if isinstance(dataset, str) else "dataset"
    splits = open_splits(dataset) if isinstance(dataset, str) else {split: dataset}
    chosen = pick_split(splits, split, name)
    columns = choose_columns(chosen, image_column, label_column, group_by)
    summary, scan, names = _summarize(chosen, columns, image_size, None)
    if len(summary.class_counts) < 2:
        found = f"the one class {next(iter(summary.class_counts))!r}" if summary.class_counts else "no class"
        raise InputError(f"the usable rows of {name!r} have {found}; label images of at least two classes")
    counts, training, validation = _count_fit(chosen, columns, scan, names, limit_per_class)
    summaries, skipped = {split: summary}, dict[str, str]()
    for other, rows in splits.items():
        if other != split:
            try:
                found_columns = choose_columns(rows, columns.image, columns.label, columns.groups)
                summaries[other] = _summarize(rows, found_columns, image_size, scan.codec)[0]
            except InputError as error:
                skipped[other] = str(error)
    types = {key: _type_name(feature) for key, feature in chosen.features.items()}
    return Inspection(
        name, split, columns, types, summaries, skipped, _shared(summaries),
        scan.codec, make_plan(counts, "majority"), training, validation, read_notices(chosen),
    )  # fmt: skip


def _type_name(feature: object) -> str:
    kind = getattr(feature, "dtype", None)
    return str(kind) if type(feature).__name__ == "Value" and kind else type(feature).__name__


def _summarize(
    dataset: Dataset, columns: Columns, image_size: int | None, codec: Codec | None
) -> tuple[SplitSummary, Scan, tuple[str, ...]]:
    labels, real = read_classes(dataset, columns), real_rows(dataset)
    scan = scan_images(dataset, columns.image, np.flatnonzero(real), image_size=image_size, codec=codec)
    index = labels.index[scan.rows]
    counts = np.bincount(index[index >= 0], minlength=len(labels.names)).tolist()
    summary = SplitSummary(
        rows=len(dataset),
        synthetic=int((~real).sum()),
        unlabelled=int((labels.index[real] < 0).sum()),
        class_counts={name: number for name, number in zip(labels.names, counts, strict=True) if number},
        corrupt=scan.corrupt,
        sizes=scan.sizes,
        modes=scan.modes,
        duplicates=len(scan.hashes) - len(np.unique(scan.hashes)),
        conflicts=_conflicts(scan, index),
        hashes=scan.hashes,
    )
    return summary, scan, labels.names


def _conflicts(scan: Scan, index: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    hashes, rows, labels = scan.hashes[index >= 0], scan.rows[index >= 0], index[index >= 0]
    _, group, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(sizes[group] > 1)
    together: dict[int, list[int]] = {}
    for position in repeated.tolist():
        together.setdefault(int(group[position]), []).append(position)
    found = [tuple(rows[group].tolist()) for group in together.values() if len(set(labels[group].tolist())) > 1]
    return tuple(sorted(found))


def _count_fit(
    dataset: Dataset, columns: Columns, scan: Scan, names: tuple[str, ...], limit: int | None
) -> tuple[dict[str, int], int, int]:
    """Return the class counts that a fit would see, and its training and validation rows."""
    index = read_classes(dataset, columns).index[scan.rows]
    labels, hashes = index[index >= 0], scan.hashes[index >= 0]
    if limit is not None:
        kept = choose_limited(labels, hashes, limit)
        labels, hashes = labels[kept], hashes[kept]
    held = int(choose_validation(labels, hashes, names, "auto").sum())
    counts = np.bincount(labels, minlength=len(names)).tolist()
    present = {name: number for name, number in zip(names, counts, strict=True) if number}
    return present, len(labels) - held, held


def _shared(summaries: Mapping[str, SplitSummary]) -> dict[tuple[str, str], int]:
    return {
        (first, second): int(np.isin(summaries[second].hashes, summaries[first].hashes).sum())
        for first, second in combinations(summaries, 2)
    }
