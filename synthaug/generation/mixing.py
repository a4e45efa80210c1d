"""Real and synthetic rows in one dataset, and apart again."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets

from synthaug.core import InputError
from synthaug.data import (
    DEPTHS,
    PROVENANCE,
    check_provenance,
    find_columns,
    has_provenance,
    is_label,
    label_value,
    null_column,
    read_labels,
    real_rows,
    sample_statistics,
)

__all__ = ["mix", "output_features", "strip"]


def output_features(features: Features) -> Features:
    """Return the features of real data with `synthetic` and `provenance` behind them.

    Raises:
        InputError: If columns of these names are there and are not synthaug's.
    """
    check_provenance(features)
    own = {name: feature for name, feature in features.items() if name not in ("synthetic", "provenance")}
    return Features({**own, "synthetic": Value("bool"), "provenance": dict(PROVENANCE)})


def mix(real: Dataset, synthetic: Dataset, *, label_column: str | None = None) -> Dataset:
    """Return the real rows in their order, then the synthetic ones by class and draw; nothing is shuffled.

    Args:
        real: Real rows. Those marked synthetic are dropped, with a notice on stderr.
        synthetic: What `generate` returned; of a mixed dataset, its synthetic rows. Columns it lacks are
            null, labels are mapped by class name.
        label_column: Found by feature type when None.

    Returns:
        The features of `real`, with `synthetic` (bool) and `provenance` (null on real rows).

    Raises:
        InputError: If `synthetic` has columns or classes that `real` does not know.

    Example:
        >>> real = Dataset.from_dict({"label": ["a", "b"]})
        >>> mix(real, Dataset.from_dict({"label": ["a"]}), label_column="label")["synthetic"][:]
        [False, False, True]
    """
    for role, rows in (("real", real), ("synthetic", synthetic)):
        if not isinstance(rows, Dataset):
            raise InputError(f"{role} is a {type(rows).__name__}; give one split of it, such as data['train']")
    features = output_features(real.features)
    _check_depths(real, synthetic, features)
    marked = int((~real_rows(real)).sum())
    if marked:
        print(f"note: {marked} rows already marked synthetic are left out", file=sys.stderr)
    added = _with_provenance(synthetic, synthetic=True)
    added = added.select(np.flatnonzero(~real_rows(added)))
    added = _align(added, features)
    label_column = label_column or _find_label(added)
    return concatenate_datasets([_align(_only_real(real), features), _in_order(added, label_column)])


def _check_depths(real: Dataset, synthetic: Dataset, features: Features) -> None:
    """Refuse image columns whose values are stored in other ways, as the headers of some images say."""
    for name, feature in features.items():
        if isinstance(feature, Image) and name in synthetic.column_names and len(real) and len(synthetic):
            depths = [sample_statistics(rows, name).depth for rows in (real, synthetic)]
            if depths[0] != depths[1]:
                ours, theirs = (DEPTHS.get(depth, "several depths") for depth in depths)
                raise InputError(
                    f"the real images in {name!r} store {ours}, the synthetic ones {theirs}, so a classifier would "
                    "learn the depth; convert them to one depth, or fit and generate on images of that depth"
                )


def strip(dataset: Dataset) -> Dataset:
    """Return the real rows and the original columns of a mixed dataset.

    Raises:
        InputError: If it has no `synthetic` and `provenance` columns.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(f"dataset is a {type(dataset).__name__}; give one split of it, such as data['train']")
    if not has_provenance(dataset.features):
        raise InputError("the dataset has no columns 'synthetic' and 'provenance'; only a mixed one can be stripped")
    return _only_real(dataset).remove_columns(["synthetic", "provenance"])


def _only_real(dataset: Dataset) -> Dataset:
    real = real_rows(dataset)
    return dataset if real.all() else dataset.select(np.flatnonzero(real))


def _with_provenance(dataset: Dataset, *, synthetic: bool) -> Dataset:
    check_provenance(dataset.features)
    if has_provenance(dataset.features):
        return dataset
    dataset = _add_column(dataset, "synthetic", pa.array([synthetic] * len(dataset), pa.bool_()), Value("bool"))
    kind = Features({"provenance": dict(PROVENANCE)}).arrow_schema.field(0).type
    return _add_column(dataset, "provenance", pa.nulls(len(dataset), kind), dict(PROVENANCE))


def _add_column(dataset: Dataset, name: str, column: pa.Array, feature: Any) -> Dataset:
    # not Dataset.add_column: it leaves the feature as what Arrow alone can tell
    added = Dataset(pa.table({name: column}, schema=Features({name: feature}).arrow_schema))
    return concatenate_datasets([dataset, added], axis=1)


def _align(dataset: Dataset, features: Features) -> Dataset:
    """Return `dataset` with exactly these features, in this order."""
    unknown = [name for name in dataset.column_names if name not in features]
    if unknown:
        raise InputError(
            f"the synthetic rows have the column {unknown[0]!r}, the real ones have not; "
            f"drop it (columns there: {', '.join(features)})"
        )
    if not len(dataset):
        return Dataset(features.arrow_schema.empty_table())  # concatenate_datasets passes over empty ones
    if not has_provenance(dataset.features):
        dataset = _with_provenance(dataset, synthetic=False)
    for name, feature in features.items():
        if name not in dataset.features:
            kind = Features({name: feature}).arrow_schema.field(0).type
            dataset = _add_column(dataset, name, null_column(len(dataset), kind), feature)
        elif dataset.features[name] != feature and _names_classes(dataset.features[name], feature):
            dataset = _rename_labels(dataset, name, features)
    dataset = dataset.select_columns(list(features))
    return dataset if dataset.features == features else dataset.cast(features)


def _names_classes(before: Any, after: Any) -> bool:
    """Tell whether the values of one of these features stand for class names, as a cast would not know."""
    return isinstance(after, ClassLabel) or (isinstance(before, ClassLabel) and is_label(after))


def _rename_labels(dataset: Dataset, name: str, features: Features) -> Dataset:
    """Map labels by class name into the values that stand for it in column `name` of `features`."""
    labels, feature = read_labels(dataset, name), features[name]
    values: dict[int, int | str | bool] = {}
    for label in np.unique(labels.index[labels.index >= 0]).tolist():
        try:
            values[label] = label_value(features, name, labels.names[label])
        except InputError as error:
            raise InputError(
                f"the synthetic rows have the class {labels.names[label]!r}, the real ones do not know it: {error}"
            ) from None
    kind = Features({name: feature}).arrow_schema.field(0).type
    column = pa.array([values.get(label) for label in labels.index.tolist()], kind)
    return _add_column(dataset.remove_columns(name), name, column, feature)


def _find_label(dataset: Dataset) -> str:
    classes = [name for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)]
    return classes[0] if len(classes) == 1 else find_columns(dataset).label


def _in_order(dataset: Dataset, label_column: str) -> Dataset:
    """Sort by class and draw; rows that agree in both keep their order."""
    table = dataset.select_columns(["provenance"]).with_format("arrow")[:]
    draws = [-1 if p is None or p["draw"] is None else p["draw"] for p in table.column(0).to_pylist()]
    index = read_labels(dataset, label_column).index
    order = np.lexsort((np.array(draws, np.int64), index))
    return dataset if (order == np.arange(len(order))).all() else dataset.select(order)
