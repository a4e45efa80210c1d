"""Labelled images, ready to learn from: reading, limiting, holding out validation rows, counting classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray

from synthaug.balance import BalancePlan, make_plan
from synthaug.core import InputError
from synthaug.data.codec import Codec, check_image_size
from synthaug.data.columns import (
    PROVENANCE,
    Columns,
    Labels,
    check_spellings,
    find_columns,
    has_provenance,
    label_value,
    read_labels,
    real_rows,
)
from synthaug.data.groups import check_group_by, choose_columns, read_classes, read_groups
from synthaug.data.scan import CorruptRow, Scan, empty_pixels, scan_images
from synthaug.data.subsets import check_limit, choose_limited, choose_long_tail, choose_validation

__all__ = [
    "PROVENANCE",
    "Columns",
    "CorruptRow",
    "LabeledImages",
    "count_classes",
    "find_columns",
    "has_provenance",
    "join_images",
    "label_value",
    "limit_images",
    "load_images",
    "make_long_tailed",
    "plan_balance",
    "split_validation",
]

_COPIED = 4096


@dataclass(frozen=True)
class LabeledImages:
    """Decoded images of the usable real rows of a dataset, with their labels.

    Args:
        pixels: (N, H, W, C) uint8, in RAM or memory-mapped.
        labels: (N,) int64, index into `class_names`.
        hashes: (N,) '<U64', pixel hashes at the original size.
        rows: (N,) int64, row numbers in `dataset`, ascending.
        class_names: The classes, in label order.
        codec: How the pixels were made.
        columns: Image and label column.
        dataset: The dataset they came from, with all its rows and features.
        corrupt: Rows left out because their image cannot be used.
        unlabelled: How many rows have no label; they are left out too.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    hashes: NDArray[np.str_]
    rows: NDArray[np.int64]
    class_names: tuple[str, ...]
    codec: Codec
    columns: Columns
    dataset: Dataset
    corrupt: tuple[CorruptRow, ...]
    unlabelled: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def class_counts(self) -> dict[str, int]:
        """Number of rows of each class, in label order."""
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def take(self, index: NDArray[np.int64]) -> LabeledImages:
        """Return the images at the positions `index`, with the same class names."""
        return replace(
            self,
            pixels=_gather(self.pixels, index),
            labels=self.labels[index],
            hashes=self.hashes[index],
            rows=self.rows[index],
        )


def join_images(parts: Sequence[LabeledImages]) -> LabeledImages:
    """Return the rows of several sets with one codec and the same classes, set after set; `rows` count on."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        pixels=np.concatenate([part.pixels for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        hashes=np.concatenate([part.hashes for part in parts]),
        rows=np.arange(sum(len(part) for part in parts)),
        corrupt=tuple(row for part in parts for row in part.corrupt),
        unlabelled=sum(part.unlabelled for part in parts),
    )


def _gather(pixels: NDArray[np.uint8], index: NDArray[np.int64]) -> NDArray[np.uint8]:
    if len(index) == len(pixels) and np.array_equal(index, np.arange(len(pixels))):
        return pixels
    chosen = empty_pixels((len(index), *pixels.shape[1:]))
    for start in range(0, len(index), _COPIED):  # in pieces: a memory-mapped source must not be read into RAM
        chosen[start : start + _COPIED] = pixels[index[start : start + _COPIED]]
    return chosen


def load_images(
    dataset: Dataset,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    image_size: int | None = None,
    limit_per_class: int | None = None,
    on_bad_image: str = "error",
    codec: Codec | None = None,
    class_names: tuple[str, ...] | list[str] | None = None,
    group_by: Sequence[str] | None = None,
) -> LabeledImages:
    """Return the usable real rows of a dataset as pixels and labels, after one scan over all real rows.

    Args:
        dataset: Any `datasets.Dataset` with an image and a label column; `select`, `shuffle` and `filter`
            count. Rows whose `synthetic` is true are left out.
        image_column: Found by feature type when None.
        label_column: Found by feature type when None.
        image_size: Side of the pixels, 8 to 1024; None takes the median of the shorter sides, at most 64.
        limit_per_class: At most so many rows of each class, chosen by `limit_images`.
        on_bad_image: "error" lists the corrupt rows and stops; "skip" leaves them out.
        codec: Used as it is (test rows), instead of one that follows from the data.
        class_names: Labels are mapped by name into these (test rows), instead of into the classes that occur.
        group_by: Columns, the label among them, whose values together are the classes; rows that lack one count
            as unlabelled.

    Raises:
        InputError: No or several candidate columns, corrupt rows, no labelled row, a single class, a class
            outside `class_names`, or an argument out of range.
    """
    if image_size is not None:
        check_image_size(image_size)
    if limit_per_class is not None:
        check_limit(limit_per_class)
    if on_bad_image not in ("error", "skip"):
        raise InputError(f"on_bad_image is {on_bad_image!r}; give 'error' or 'skip'")
    columns = choose_columns(dataset, image_column, label_column, group_by)
    labels, real = read_classes(dataset, columns), real_rows(dataset)
    if not ((labels.index >= 0) & real).any():
        raise InputError(_nothing_labelled(len(dataset), int(real.sum()), ", ".join(columns.groups) or columns.label))
    scan = scan_images(dataset, columns.image, np.flatnonzero(real), image_size=image_size, codec=codec)
    _check_corrupt(scan, columns.image, on_bad_image)
    images = _assemble(dataset, columns, labels, scan, class_names)
    return images if limit_per_class is None else limit_images(images, limit_per_class)


def _nothing_labelled(rows: int, real: int, column: str) -> str:
    if rows == 0:
        return "the dataset has no rows; give one with labelled images"
    if real == 0:
        return f"all {rows} rows are synthetic; give the real dataset"
    return (
        f"none of the {real} rows has a label in {column!r} (-1 and null mean unlabelled); "
        "label some or name another column"
    )


def _check_corrupt(scan: Scan, column: str, on_bad_image: str) -> None:
    if not scan.corrupt or (on_bad_image == "skip" and len(scan.rows)):
        return
    first = "; ".join(f"row {bad.row}: {bad.reason}" for bad in scan.corrupt[:5])
    more = f"; and {len(scan.corrupt) - 5} more" if len(scan.corrupt) > 5 else ""
    remedy = "repair them or set on_bad_image='skip'" if len(scan.rows) else "no usable image is left"
    rows = len(scan.corrupt) + len(scan.rows)
    raise InputError(f"{len(scan.corrupt)} of {rows} images in {column!r} are corrupt ({first}{more}); {remedy}")


def _assemble(
    dataset: Dataset,
    columns: Columns,
    labels: Labels,
    scan: Scan,
    class_names: tuple[str, ...] | list[str] | None,
) -> LabeledImages:
    index = labels.index[scan.rows]
    labelled = np.flatnonzero(index >= 0)
    present = np.unique(index[labelled])
    names = tuple(labels.names[number] for number in present) if class_names is None else tuple(class_names)
    if class_names is None and len(names) < 2:
        _refuse_classes(names, len(labelled))
    position = np.full(len(labels.names) + 1, -1, dtype=np.int64)
    for number in present:
        if labels.names[number] not in names:
            row = int(scan.rows[np.flatnonzero(index == number)[0]])
            known = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
            check_spellings([*names, labels.names[number]], "the rows")
            raise InputError(
                f"row {row} has the class {labels.names[number]!r}, which is not among {known}; "
                "leave such rows out or use data with the same classes"
            )
        position[number] = names.index(labels.names[number])
    images = LabeledImages(
        scan.pixels, position[index], scan.hashes, scan.rows, names,
        scan.codec, columns, dataset, scan.corrupt, len(index) - len(labelled),
    )  # fmt: skip
    return images.take(labelled)


def _refuse_classes(names: tuple[str, ...], rows: int) -> None:
    if not names:
        raise InputError("no labelled row has a usable image; repair the images or label more rows")
    raise InputError(f"there is only one class, {names[0]!r} ({rows} rows); add rows of at least one other class")


def limit_images(images: LabeledImages, per_class: int) -> LabeledImages:
    """Return at most `per_class` rows of each class: a fixed choice by pixel hash, whatever the row order.

    Raises:
        InputError: `per_class` is not an integer of at least 1.
    """
    return images.take(choose_limited(images.labels, images.hashes, per_class))


def split_validation(
    images: LabeledImages, validation: str | float | None = "auto"
) -> tuple[LabeledImages, LabeledImages]:
    """Return (train, validation): held out are the rows with the lowest pixel hash in each class.

    Rows with equal pixels always land on the same side, also across classes, so a few more than asked for may
    be held out. Equal images stay in training where holding them out would take most of a class.

    Args:
        images: What `load_images` returned.
        validation: "auto" holds out 10 % of each class, 20 % of one under 100 rows and none of one under 5;
            a float in (0, 1) is a fraction, an integer a number of rows per class, 0 or None none. "2/5" is the second
            of five folds, in each of which other rows are held out: all of a class but its only image, in turn.

    Raises:
        InputError: `validation` is none of these, or a class has no more rows than it asks for.
    """
    held = choose_validation(images.labels, images.hashes, images.class_names, validation)
    return images.take(np.flatnonzero(~held)), images.take(np.flatnonzero(held))


def count_classes(
    dataset: Dataset, label_column: str | None = None, group_by: Sequence[str] | None = None
) -> dict[str, int]:
    """Return the number of real, labelled rows of each class that has any, in label order."""
    column = label_column or choose_columns(dataset, group_by=group_by).label
    groups = check_group_by(dataset.features, column, group_by) if group_by else ()
    labels = read_groups(dataset, groups, column) if groups else read_labels(dataset, column)
    index = labels.index[(labels.index >= 0) & real_rows(dataset)]
    counts = np.bincount(index, minlength=len(labels.names))
    return {name: number for name, number in zip(labels.names, counts.tolist(), strict=True) if number}


def plan_balance(
    real: Dataset | Mapping[str, int],
    target: str | int | Mapping[str, int] = "majority",
    *,
    label_column: str | None = None,
    group_by: Sequence[str] | None = None,
    max_synthetic_fraction: float | None = None,
) -> BalancePlan:
    """Return which class misses how many images.

    Args:
        real: The real rows, or their number by class name.
        target: "majority" (= "auto"), "median", a number, imbalanced-learn's "not-majority", "minority",
            "not-minority", "all", or the total of each class by name.
        label_column: Found by feature type when None.
        group_by: Columns, the label among them, whose joint groups are balanced instead of the labels.
        max_synthetic_fraction: Largest share of synthetic rows in any class, in [0, 1).

    Example:
        >>> plan_balance({"cat": 5, "dog": 2}).missing
        {'cat': 0, 'dog': 3}
    """
    if isinstance(real, DatasetDict):
        raise InputError("real is a DatasetDict; give one split of it, such as data['train']")
    counts = dict(real) if isinstance(real, Mapping) else count_classes(real, label_column, group_by)
    return make_plan(counts, target, max_synthetic_fraction=max_synthetic_fraction)


def make_long_tailed(dataset: Dataset, label_column: str | None, imbalance_factor: float) -> Dataset:
    """Return a subset whose class counts fall off exponentially, in the same row order.

    Class i of K keeps ``n_max * imbalance_factor ** (-i / (K - 1))`` rows, or all where it has fewer; which
    ones is fixed. Unlabelled rows are left out.

    Args:
        dataset: Any dataset with a label column.
        label_column: Found by feature type when None.
        imbalance_factor: Largest class over smallest, at least 1.

    Raises:
        InputError: `imbalance_factor` is below 1 or the dataset has no labelled row.

    References:
        Cui et al.: Class-balanced loss based on effective number of samples (2019), section 5.1.
    """
    labels = read_labels(dataset, label_column or find_columns(dataset).label)
    return dataset.select(choose_long_tail(labels.index, imbalance_factor))
