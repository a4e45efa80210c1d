"""Data sets of the user's as rows with known labels, whatever library they come from."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from tqdm import tqdm

from synthaug.core import InputError
from synthaug.data import Columns, choose_columns, class_values, label_value, read_groups, read_labels
from synthaug.loaders.image_types import imitate_image, imitate_value, read_pixels

__all__ = ["LabelledRows", "Layout", "check_untransformed", "index_labels", "plain_label"]

_OWN = ("transform", "transforms", "target_transform")


class Layout:
    """Where in a sample the image and the label are, and what type they have.

    Args:
        example: A sample: a pair (image, label), or a mapping.
        image: Key of the image in a mapping.
        label: Key of the label in a mapping.

    Raises:
        InputError: The sample is neither, or lacks one of the keys.
    """

    def __init__(self, example: Any, image: str | None = None, label: str | None = None) -> None:
        self.is_mapping = isinstance(example, Mapping)
        self._image: Any = (image or "image") if self.is_mapping else 0
        self._label: Any = (label or "label") if self.is_mapping else 1
        if self.is_mapping:
            for key, name in ((self._image, "image_column"), (self._label, "label_column")):
                if key not in example:
                    there = ", ".join(map(repr, example))
                    raise InputError(f"the samples have no {key!r}, but {there}; name it with {name}")
        elif not isinstance(example, tuple | list) or len(example) != 2:
            kind = (
                f"{type(example).__name__} of {len(example)}" if hasattr(example, "__len__") else type(example).__name__
            )
            raise InputError(f"a sample is a {kind}; give a data set of pairs (image, label) or of mappings")
        self._example = example
        read_pixels(self.image_of(example))  # refuses what could not be imitated

    def image_of(self, sample: Any) -> Any:
        """Return the image of a sample, of whatever type."""
        return sample[self._image]

    def label_of(self, sample: Any) -> Any:
        """Return the label of a sample, of whatever type."""
        return sample[self._label]

    def build(self, pixels: NDArray[np.uint8], label: Any, others: Mapping[str, Any] | None = None) -> Any:
        """Return a sample like the example: this image, this label, None for whatever else a mapping holds.

        Args:
            pixels: (H, W, C) uint8.
            label: The value of a label, of any type.
            others: Values of further keys of a mapping.
        """
        image = imitate_image(pixels, self.image_of(self._example))
        label = imitate_value(label, self.label_of(self._example))
        if self.is_mapping:
            further = {key: imitate_value(value, self._example[key]) for key, value in (others or {}).items()}
            return {**dict.fromkeys(self._example), **further, self._image: image, self._label: label}
        return [image, label] if isinstance(self._example, list) else (image, label)


class LabelledRows:
    """A map-style data set with its labels known, read without its images where that is possible.

    Args:
        dataset: A `datasets.Dataset`, or a torch data set of pairs (image, label) or of mappings.
        image_column: Column or key of the images; found by feature type in a `datasets.Dataset`.
        label_column: Likewise, of the labels.
        class_names: Names of labels 0, 1, ...; None takes those of the data set, if it knows any.
        group_by: Columns of a `datasets.Dataset`, the label among them, whose joint groups are the labels.
        role: What messages call the data set.

    Raises:
        InputError: It is no such data set, transforms its images itself, is empty, or cannot be grouped.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        class_names: Sequence[str] | None = None,
        group_by: Sequence[str] | None = None,
        role: str = "real",
    ) -> None:
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise InputError(
                f"{role} is a {type(dataset).__name__}; give a map-style torch data set or a datasets.Dataset"
            )
        check_untransformed(dataset, role)
        if not len(dataset):
            raise InputError(f"{role} has no rows; give a data set with labelled images")
        self.dataset, self._role = dataset, role
        self._names = None if class_names is None else tuple(map(str, class_names))
        self._image, self._label = image_column, label_column
        self._columns = Columns(image_column or "", label_column or "")
        if isinstance(dataset, Dataset):
            self._columns = choose_columns(dataset, image_column, label_column, group_by)
            self._image, self._label = self._columns.image, self._columns.label
        elif group_by:
            raise InputError(
                f"group_by is {','.join(group_by)}, but {role} is a {type(dataset).__name__}; give a datasets.Dataset "
                "with these columns"
            )

    def __len__(self) -> int:
        return len(self.dataset)

    @cached_property
    def layout(self) -> Layout:
        """How the samples are built; it reads the first one."""
        return Layout(self.dataset[0], self._image, self._label)

    @cached_property
    def _labels(self) -> tuple[NDArray[np.int64], tuple[str, ...] | None, Sequence[Any]]:
        if isinstance(self.dataset, Dataset):
            features, columns = self.dataset.features, self._columns
            if columns.groups:
                found = read_groups(self.dataset, columns.groups, columns.label)
                groups = [class_values(features, columns, name) for name in found.names]
                return found.index, found.names, _Looked(found.index, groups)
            found = read_labels(self.dataset, columns.label)
            values = [label_value(features, columns.label, name) for name in found.names]
            return found.index, self._names or found.names, _Looked(found.index, values)
        read = self._read_values()
        return *index_labels(read, self._names or _known_names(self.dataset), self._role), read

    def _read_values(self) -> Sequence[Any]:
        """Return the label of every row, from where the data set keeps them, else by reading all rows."""
        layout, kept = self.layout, _kept_labels(self.dataset)
        if (
            kept is not None
            and len(kept) == len(self)
            and plain_label(kept[0]) == plain_label(layout.label_of(self.dataset[0]))
        ):
            return kept
        rows = tqdm(range(len(self)), desc="reading labels", unit="", leave=False, file=sys.stderr, disable=None)
        return [plain_label(layout.label_of(self.dataset[row])) for row in rows]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(rows,) int64, index into `names` or the number itself; -1 where there is no label."""
        return self._labels[0]

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the labels, or None where they are only numbers."""
        return self._labels[1]

    def rows(self, indices: Sequence[int]) -> list[Any]:
        """Return several samples, in one call where the data set offers that."""
        if hasattr(self.dataset, "__getitems__"):
            return list(self.dataset.__getitems__(list(indices)))
        return [self.dataset[index] for index in indices]

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return the image of a row as pixels (H, W, C) uint8."""
        return read_pixels(self.layout.image_of(self.dataset[index]))

    def build(self, pixels: NDArray[np.uint8], index: int) -> Any:
        """Return the sample of a row with another image."""
        value = self._labels[2][index]
        return (
            self.layout.build(pixels, value[self._label], value)
            if self._columns.groups
            else self.layout.build(pixels, value)
        )


class _Looked(Sequence[Any]):
    """Label values of rows, looked up by class."""

    def __init__(self, index: NDArray[np.int64], values: list[Any]) -> None:
        self._index, self._values = index, values

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: Any) -> Any:
        return self._values[self._index[row]]


def check_untransformed(dataset: Any, role: str) -> None:
    """Raise InputError where a data set transforms its images itself: the others would miss that transform."""
    remedy = "take it off there and give it as `transform`, so that real and synthetic images both go through it"
    if isinstance(dataset, Dataset) and dataset.format["type"] == "custom":
        raise InputError(f"{role} has a transform of its own (set_transform); {remedy}")
    for name in _OWN:
        if callable(getattr(dataset, "__dict__", {}).get(name)):  # not a method of that name
            raise InputError(f"{role} has a {name} of its own; {remedy}")
    if isinstance(dataset, Subset | ConcatDataset):
        for part in dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset.dataset]:
            check_untransformed(part, role)


def index_labels(
    values: Sequence[Any], names: Sequence[str] | None, role: str
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Return labels as numbers, and the names of these numbers if there are any.

    Args:
        values: Integers (-1 is unlabelled), strings, or None.
        names: Names of the integers, if known.
        role: What messages call the data set.

    Raises:
        InputError: A label is neither, or has no name.
    """
    plain = [plain_label(value) for value in values]
    if any(isinstance(value, str) for value in plain):
        known = tuple(names or sorted({value for value in plain if isinstance(value, str)}))
        place = {name: number for number, name in enumerate(known)}
        return np.array([place.get(value, -1) for value in plain], np.int64), known
    wrong = next((v for v in plain if v is not None and not isinstance(v, int)), None)
    if wrong is not None:
        raise InputError(f"{role} has the label {wrong!r}; labels must be integers or strings")
    index = np.array([-1 if value is None else value for value in plain], np.int64)
    if names is not None and len(index) and index.max() >= len(names):
        raise InputError(
            f"{role} has the label {index.max()}, but only {len(names)} classes are named; name all of them"
        )
    return np.maximum(index, -1), None if names is None else tuple(names)


def plain_label(value: Any) -> Any:
    """Return a tensor or numpy number as the Python value that it holds."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def _known_names(dataset: Any) -> Sequence[str] | None:
    """Return the class names that torchvision keeps in `classes`."""
    if isinstance(dataset, Subset):
        return _known_names(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return _known_names(dataset.datasets[0])
    names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) and names else None


def _kept_labels(dataset: Any) -> Sequence[Any] | None:
    """Return the labels that a data set keeps beside its images."""
    if isinstance(dataset, Subset):
        kept = _kept_labels(dataset.dataset)
        return None if kept is None else [plain_label(kept[row]) for row in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [_kept_labels(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else [value for part in parts for value in part or ()]
    if isinstance(dataset, TensorDataset):
        return list(dataset.tensors[1].tolist()) if len(dataset.tensors) == 2 else None
    for name in ("targets", "labels"):
        kept = getattr(dataset, name, None)
        if isinstance(kept, torch.Tensor | np.ndarray) and kept.ndim == 1:
            return list(kept.tolist())
        if isinstance(kept, list | tuple):
            return kept
    return None
