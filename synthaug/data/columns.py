"""Which column holds the images and which the labels, and what the label values are called."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from numpy.typing import NDArray

from synthaug.core import InputError, suggest
from synthaug.data.codec import open_bytes, strict_decoding
from synthaug.data.split_names import SPLIT_COLUMNS, name_splits

__all__ = [
    "PROVENANCE",
    "Columns",
    "FileNames",
    "Labels",
    "as_image_columns",
    "check_provenance",
    "check_spellings",
    "find_columns",
    "has_provenance",
    "is_label",
    "iterate_images",
    "label_value",
    "plain_spelling",
    "read_labels",
    "read_split_column",
    "real_rows",
]

PROVENANCE: dict[str, Value] = {
    "generator": Value("string"),
    "checkpoint": Value("string"),
    "seed": Value("int64"),
    "draw": Value("int64"),
}
"""Features of the `provenance` column, null on real rows."""

_NEAR_ROOT = 2
"""Parts of a path up to which a folder, such as /home, holds those of several people."""

_SHOWN = 8
_SNIFFED = 16
_MARKED_ROWS = 1000
_NUMERIC = ("int", "uint", "float", "bool")
_BATCH = 128
_SPLITS = 12
"""Most distinct values of a column that says which split a row belongs to."""


@dataclass(frozen=True)
class Columns:
    """Names of the image and the label column, and of those whose values together are the classes, if several."""

    image: str
    label: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """The label column, read.

    Args:
        index: (rows,) int64, index into `names`; -1 where there is no label.
        names: Every class that the column can name, in label order, also those without rows.
    """

    index: NDArray[np.int64]
    names: tuple[str, ...]


def iterate_images(dataset: Dataset, column: str) -> Iterator[tuple[bytes | None, str | None]]:
    """Yield (bytes, path) of each row of an image column, undecoded, in row order."""
    batches = dataset.select_columns([column]).with_format("arrow").iter(batch_size=_BATCH)
    for batch in batches:
        for chunk in batch.column(0).chunks:
            yield from _bytes_and_paths(chunk)


class FileNames:
    """How the files that the rows of an image column name are shown: as seen from the folder that holds all of them.

    What is shown may be published, so it tells no path of this machine.

    Args:
        dataset: The dataset.
        column: The image column.
    """

    def __init__(self, dataset: Dataset, column: str) -> None:
        self._dataset, self._column = dataset, column

    @functools.cached_property
    def _folder(self) -> Path | None:
        named = (path for data, path in iterate_images(self._dataset, self._column) if data is None and path)
        folders = {str(Path(path).parent) for path in named}
        try:
            folder = Path(os.path.commonpath(folders))
        except ValueError:  # none, or both absolute and relative ones
            return None
        return folder if len(folder.parts) > _NEAR_ROOT else None

    def show(self, path: str) -> str:
        """Return the name of a file."""
        if self._folder is not None and Path(path).is_relative_to(self._folder):
            return Path(path).relative_to(self._folder).as_posix()
        return Path(path).name

    def explain(self, error: Exception, data: bytes | None, path: str | None) -> str:
        """Return in at most 160 characters why a row's image, its bytes or the file that it names, cannot be used."""
        reason = str(error) or type(error).__name__
        if data is None and path:
            reason = f"cannot read {self.show(path)!r}: {reason}"
        return " ".join(reason.split())[:160]


def _bytes_and_paths(chunk: Any) -> Iterator[tuple[bytes | None, str | None]]:
    if not pa.types.is_struct(chunk.type):
        yield from ((data, None) for data in chunk.to_pylist())
        return
    # flatten(), unlike field(), carries the struct's own nulls and offset to its children
    children = dict(zip((field.name for field in chunk.type), chunk.flatten(), strict=True))
    nothing = [None] * len(chunk)
    data = children["bytes"].to_pylist() if "bytes" in children else nothing
    paths = children["path"].to_pylist() if "path" in children else nothing
    yield from zip(data, paths, strict=True)


def _holds_images(dataset: Dataset, name: str) -> bool:
    feature = dataset.features[name]
    if isinstance(feature, Image):
        return True
    if isinstance(feature, dict):
        kinds = {key: getattr(value, "dtype", None) for key, value in feature.items()}
        binary = kinds.get("bytes") in ("binary", "large_binary")
        return binary and set(kinds) <= {"bytes", "path"}
    if getattr(feature, "dtype", None) not in ("binary", "large_binary"):
        return False
    return _looks_like_images(dataset, name)


def _looks_like_images(dataset: Dataset, name: str) -> bool:
    first = dataset.select(range(min(len(dataset), _SNIFFED)))
    with strict_decoding():
        for data, _ in iterate_images(first, name):
            try:
                open_bytes(data, load=False)
            except ValueError:
                continue
            return True
    return False


def as_image_columns(dataset: Dataset) -> Dataset:
    """Return the dataset with plain ``struct<bytes, path>`` and binary image columns as `Image` features."""
    for name, feature in dataset.features.items():
        if not isinstance(feature, Image) and _holds_images(dataset, name):
            dataset = dataset.cast_column(name, Image())
    return dataset


def is_label(feature: Any) -> bool:
    """Tell whether a column of this feature may hold labels: class labels, strings, integers or booleans."""
    kind = getattr(feature, "dtype", "")
    whole = isinstance(feature, Value) and (
        kind.startswith(("int", "uint")) or kind in ("bool", "string", "large_string")
    )
    return isinstance(feature, ClassLabel) or whole


def _pick(what: str, given: str | None, candidates: list[str], dataset: Dataset) -> str:
    features = dataset.features
    wanted = "an Image or binary column" if what == "image" else "a ClassLabel, string, integer or boolean column"
    if given is not None:
        if given not in features:
            raise InputError(f"no column {given!r}; the columns are {_listed(features)}{suggest(given, features)}")
        if given not in candidates:
            raise InputError(
                f"column {given!r} ({_describe(features[given])}) holds no {what}s, {wanted} would; "
                f"{_options(what, candidates)}{_hint(what, dataset)}"
            )
        return given
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        marked = _find_marked(dataset, candidates) if what == "label" else None
        if marked is not None and marked == (candidates, True):
            raise InputError(f"no single label column{_describe_marked(*marked)}")
        listed = _listed(candidates)
        raise InputError(f"{len(candidates)} columns may hold the {what}s: {listed}; name one with {what}_column=")
    there = _listed(features, lambda name: f" ({_describe(features[name])})") or "nothing"
    raise InputError(f"no {what} column: {wanted} is needed, but there is only {there}{_hint(what, dataset)}")


def _listed(names: Collection[str], describe: Callable[[str], str] = lambda name: "") -> str:
    """Return the first names and how many more there are."""
    more = len(names) - _SHOWN
    shown = ", ".join(f"{name!r}{describe(name)}" for name in list(names)[:_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def _describe(feature: Any) -> str:
    kind = getattr(feature, "dtype", None)
    return str(kind) if isinstance(feature, Value) and kind else type(feature).__name__


def _hint(what: str, dataset: Dataset) -> str:
    """Return what to do where labels are there in a form that is not read; empty for images, or if there are none."""
    if what != "label":
        return ""
    kinds = {name: getattr(feature, "dtype", "") for name, feature in dataset.features.items()}
    if several := next((name for name, feature in dataset.features.items() if isinstance(feature, List)), None):
        return f"; {several!r} holds a list in each row: write one label into a column of its own"
    if found := _find_marked(dataset, list(kinds)):
        return _describe_marked(*found)
    floating = [name for name, kind in kinds.items() if kind.startswith("float")]
    return f"; if {floating[0]!r} holds whole numbers, cast it to integers first" if floating else ""


def _describe_marked(columns: list[str], one: bool) -> str:
    form = "one label in one-hot form" if one else "several labels in a row"
    return f"; {_listed(columns)} are {form} (0 and 1): write one column with the name of the class in each row"


def _find_marked(dataset: Dataset, names: list[str]) -> tuple[list[str], bool] | None:
    """Return the columns that hold only 0 and 1, if they are labels in several columns, and whether each row has one 1.

    Two columns are labels only where exactly one of them is 1 in every row.
    """
    rows = dataset.select(range(min(len(dataset), _MARKED_ROWS)))
    names = [name for name in names if getattr(rows.features[name], "dtype", "").startswith(_NUMERIC)]
    values = {name: _read_column(rows, name).cast(pa.float64()).to_numpy(zero_copy_only=False) for name in names}
    marked = [name for name, column in values.items() if len(column) and np.isin(column, (0.0, 1.0)).all()]
    if len(marked) < 2:
        return None
    one = bool((np.sum([values[name] for name in marked], axis=0) == 1).all())
    return (marked, one) if one or len(marked) > 2 else None


def _options(what: str, candidates: list[str]) -> str:
    return f"choose from {_listed(candidates)}" if candidates else f"there is no {what} column"


def find_columns(dataset: Dataset, image_column: str | None = None, label_column: str | None = None) -> Columns:
    """Return the image and the label column, found by feature type or checked where given.

    Image columns are `Image` features and, in plain Parquet files, ``struct<bytes, path>`` columns and binary
    ones that hold image files. Label columns are `ClassLabel` features or, where there is none, columns of
    strings, integers or booleans.

    Raises:
        InputError: A named column is not there or of the wrong type; none qualifies; several do.
    """
    if not isinstance(dataset, Dataset):
        kind = type(dataset).__name__
        raise InputError(f"dataset is a {kind}; give one split of it as a datasets.Dataset, such as data['train']")
    check_provenance(dataset.features)
    features = {name: feature for name, feature in dataset.features.items() if name not in ("synthetic", "provenance")}
    images = [name for name in features if _holds_images(dataset, name)]
    if image_column in features and _describe(features[image_column]).endswith("binary"):
        images.append(image_column)  # named by the user: whatever is not an image there counts as corrupt
    labels = [name for name, feature in features.items() if is_label(feature)]
    if label_column is None and len(labels) > 1:
        labels = [name for name in labels if not read_split_column(dataset, name)] or labels
    classes = [name for name in labels if isinstance(features[name], ClassLabel)]
    image = _pick("image", image_column, images, dataset)
    candidates = labels if label_column is not None else classes or labels
    return Columns(image, _pick("label", label_column, candidates, dataset))


def read_split_column(dataset: Dataset, name: str) -> dict[str, str]:
    """Return the split that each value of a column names; empty unless the column says which split a row belongs to.

    It is called like one (`split`, `subset`, ...) and every row names a split by a word that says nothing else.
    """
    feature = dataset.features[name]
    if name.lower() not in SPLIT_COLUMNS or not (isinstance(feature, ClassLabel) or _describe(feature) == "string"):
        return {}
    values = pc.unique(_read_column(dataset, name)).to_pylist()
    if not values or len(values) > _SPLITS or None in values:
        return {}
    if isinstance(feature, ClassLabel):
        if min(values) < 0 or max(values) >= len(feature.names):
            return {}
        values = [feature.names[value] for value in values]
    splits = name_splits(values)
    return {value: split for value, split in splits.items() if split is not None} if all(splits.values()) else {}


def has_provenance(features: Features) -> bool:
    """Return whether `features` hold synthaug's own `synthetic` and `provenance` columns."""
    synthetic, provenance = features.get("synthetic"), features.get("provenance")
    if getattr(synthetic, "dtype", None) != "bool" or not isinstance(provenance, dict):
        return False
    kinds = {key: str(getattr(value, "dtype", "")).removeprefix("large_") for key, value in provenance.items()}
    return kinds == {key: value.dtype for key, value in PROVENANCE.items()}


def check_provenance(features: Features) -> None:
    """Raise InputError where a column is named `synthetic` or `provenance` but is not synthaug's own."""
    foreign = [name for name in ("synthetic", "provenance") if name in features]
    if foreign and not has_provenance(features):
        listed = " and ".join(map(repr, foreign))
        raise InputError(f"the dataset has its own column {listed}, a name that synthaug writes; rename or drop it")


def real_rows(dataset: Dataset) -> NDArray[np.bool_]:
    """Return (rows,) bool: which rows are real, that is, not marked `synthetic`."""
    if not has_provenance(dataset.features):
        return np.ones(len(dataset), dtype=np.bool_)
    synthetic = _read_column(dataset, "synthetic").fill_null(False)
    marked: NDArray[np.bool_] = synthetic.to_numpy(zero_copy_only=False).astype(np.bool_)
    return ~marked


def _read_column(dataset: Dataset, name: str) -> Any:
    table = dataset.select_columns([name]).with_format("arrow")[:]
    column = table.column(0).combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def read_labels(dataset: Dataset, column: str) -> Labels:
    """Return the labels of every row and the names they can take.

    -1 (integers and class labels) and null mean unlabelled. Names of strings, integers and booleans are
    those that occur, sorted by value, as `str` gives them.

    Raises:
        InputError: A class label lies outside the names of its column.
    """
    feature, values = dataset.features[column], _read_column(dataset, column)
    if isinstance(feature, ClassLabel):
        check_spellings(feature.names, f"the rows of column {column!r}")
        return _class_labels(feature, values, column)
    if pa.types.is_integer(values.type):
        values = pc.if_else(pc.equal(values, -1), None, values) if pa.types.is_signed_integer(values.type) else values
    distinct = sorted(value for value in pc.unique(values).to_pylist() if value is not None)
    index = pc.fill_null(pc.index_in(values, value_set=pa.array(distinct, type=values.type)), -1)
    index = pc.if_else(pc.is_valid(values), index, -1)
    check_spellings(map(str, distinct), f"the rows of column {column!r}")
    return Labels(index.to_numpy(zero_copy_only=False).astype(np.int64), tuple(str(value) for value in distinct))


def _class_labels(feature: ClassLabel, values: Any, column: str) -> Labels:
    index = pc.fill_null(values, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    outside = np.flatnonzero((index < -1) | (index >= len(feature.names)))
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"row {row} has {column} {index[row]}, but the column names only {len(feature.names)} classes; "
            "write the names of all classes, or -1 for an unlabelled row"
        )
    return Labels(index, tuple(feature.names))


def check_spellings(names: Iterable[str], where: str) -> None:
    """Raise InputError where two class names look the same: they differ in their Unicode form or in spaces alone.

    Args:
        names: Distinct names.
        where: What holds them, for the error.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(plain_spelling(name), name)
        if other != name:
            raise InputError(
                f"{where} name the class {name!r} in two spellings, {other!a} and {name!a}, which look the same; write "
                "one of them everywhere"
            )


def plain_spelling(name: str) -> str:
    """Return a name without what cannot be seen: in one Unicode form, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def label_value(features: Features, label_column: str, class_name: str) -> int | str | bool:
    """Return the value that stands for a class in the label column.

    Raises:
        InputError: The column cannot hold that class.
    """
    feature = features[label_column]
    if isinstance(feature, ClassLabel):
        if class_name not in feature.names:
            known = ", ".join(map(repr, feature.names))
            raise InputError(f"no class {class_name!r} in {label_column!r}; the classes are {known}")
        return int(feature.names.index(class_name))
    kind = feature.dtype
    if kind.endswith("string"):
        return class_name
    truths: dict[str, int | str | bool] = {"True": True, "False": False}
    try:
        return truths[class_name] if kind == "bool" else int(class_name)
    except (KeyError, ValueError):
        raise InputError(f"no class {class_name!r} in {label_column!r}, a column of {kind}") from None
