"""No file is read because a row names it: what a dataset given as a string may read from disk."""

from __future__ import annotations

import hashlib
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Image

from synthaug.core import InputError

__all__ = ["check_file", "check_inside", "confine", "describe_special", "replace_column"]

_SPECIAL = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_inside(path: Path, root: Path) -> Path:
    """Return `path` with symlinks resolved.

    Raises:
        InputError: It lies outside `root`.
    """
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle, too long a name
        raise InputError(f"{str(path)!r} cannot be followed ({error}); remove it") from None
    if not resolved.is_relative_to(root.resolve()):
        raise InputError(f"{str(path)!r} leads outside {str(root)!r}; copy the file into the dataset's folder")
    return resolved


def check_file(path: Path, root: Path) -> str:
    """Return the absolute path of a regular file, with symlinks resolved; it is not opened.

    Raises:
        InputError: It lies outside `root`, is no regular file, or its name is not valid text.
    """
    path = root.resolve() / path
    resolved = check_inside(path, root)
    if not resolved.is_file():
        raise InputError(f"{str(path)!r} is {describe_special(path) or 'not a regular file'}; remove it")
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8" and not str(resolved).isascii():
        raise InputError(
            f"the name {str(path)!a} cannot be read in this locale ({encoding}); set the environment variable "
            "PYTHONUTF8=1"
        )
    try:
        str(resolved).encode()
    except UnicodeEncodeError:
        raise InputError(f"the name {str(path)!a} is not valid UTF-8; rename it") from None
    return str(resolved)


def describe_special(path: Path) -> str | None:
    """Return what a path is that is neither a regular file nor a folder, None if it is one; it is not opened."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link that leads nowhere or to itself" if path.is_symlink() else "not there"
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return next((name for test, name in _SPECIAL if test(mode)), "no regular file")


def replace_column(dataset: Dataset, name: str, column: Any, feature: Any, key: str) -> Dataset:
    """Return a freshly opened dataset (without indices) with another Arrow column in the place of `name`.

    Args:
        dataset: The dataset.
        name: The column to replace.
        column: Chunked Arrow array of the storage type of `feature`.
        feature: Feature of the new column.
        key: Tells this replacement from others in the new fingerprint.
    """
    info = dataset.info.copy()
    info.features = Features({**dataset.features, name: feature})
    schema = info.features.arrow_schema
    table = dataset.data.table
    position = table.schema.get_field_index(name)
    table = table.set_column(position, pa.field(name, column.type), column).replace_schema_metadata(schema.metadata)
    fingerprint = hashlib.sha256(f"{dataset._fingerprint} {name} {key}".encode()).hexdigest()[:16]
    return Dataset(table, info=info, split=dataset.split, fingerprint=fingerprint)


def confine(dataset: Dataset, roots: Sequence[Path], given: str) -> Dataset:
    """Return the dataset, with the files that its rows name checked and made absolute.

    Args:
        dataset: Freshly opened, without indices.
        roots: Folders in which rows may name files, the first one for relative names; none allows no file.
        given: What the user called the dataset.

    Raises:
        InputError: A row names a file outside the roots.
    """
    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = _confine_column(dataset, name, roots, given)
    return dataset


def _confine_column(dataset: Dataset, name: str, roots: Sequence[Path], given: str) -> Dataset:
    chunks, changed, start = [], False, 0
    for chunk in dataset.data.column(name).chunks:
        data, paths = chunk.flatten()
        if data.null_count:
            named, embedded = paths.to_pylist(), data.is_valid().to_pylist()
            allowed = [
                None if path is None or has_bytes else _allowed(path, start + row, name, roots, given)
                for row, (path, has_bytes) in enumerate(zip(named, embedded, strict=True))
            ]
            changed = changed or allowed != named
            arrays = [data, pa.array(allowed, pa.string())]
            chunk = pa.StructArray.from_arrays(arrays, ["bytes", "path"], mask=chunk.is_null())
        chunks.append(chunk)
        start += len(chunk)
    if not changed:
        return dataset
    return replace_column(dataset, name, pa.chunked_array(chunks), dataset.features[name], str(roots[0].resolve()))


def _allowed(path: str, row: int, column: str, roots: Sequence[Path], given: str) -> str:
    where = f"row {row} of {given!r} names the file {path!r} in {column!r}"
    if not roots:
        raise InputError(f"{where}, but only the Parquet file itself is read; embed the image's bytes in the row")
    try:
        resolved = (roots[0] / path).resolve()
        inside = "://" not in path and any(resolved.is_relative_to(root.resolve()) for root in roots)
    except (OSError, ValueError):  # such as a NUL byte in the name
        inside = False
    if not inside:
        raise InputError(
            f"{where}, which is outside the dataset's folder; embed the image's bytes or copy the file there"
        )
    return str(resolved)
