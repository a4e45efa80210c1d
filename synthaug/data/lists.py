"""Lists of images: metadata.csv, .tsv, .jsonl and .parquet, as in the `imagefolder` of `datasets`.

A list is read as it is written: text stays text (``007``, dates, ``TRUE``), and only a column of plain whole or decimal
numbers becomes numbers.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image

from synthaug.core import InputError
from synthaug.data.confinement import check_file, check_inside
from synthaug.data.image_folders import check_stems, image_column, notice_names
from synthaug.data.notices import PassedOver
from synthaug.data.split_names import name_splits, own_names

__all__ = ["LISTS", "MAX_FIELD", "MAX_LIST_BYTES", "open_lists"]

LISTS = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
"""Names of lists: a column `file_name`, and whatever else is known of the images."""

MAX_LIST_BYTES = 256 * 2**20
"""Largest list that is read."""

MAX_FIELD = 100_000
"""Longest field of a list, in characters."""

MAX_COLUMNS = 1000

_BATCH = 50_000
_DIGITS = 20
_SHOWN = 80
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"
_DECIMAL = r"^-?(0|[1-9][0-9]*)\.[0-9]+([eE][-+]?[0-9]+)?$"


def open_lists(
    root: Path, lists: Sequence[Path], images: Sequence[Path], passed: PassedOver
) -> tuple[dict[str, Dataset], list[str]]:
    """Return the splits of listed images.

    The folders of the images say which split a row belongs to; several lists of one split are read in order.

    Args:
        root: The dataset's folder.
        lists: The lists in it, relative to it.
        images: The image files in it, relative to it.
        passed: Counts what is not read.

    Returns:
        The splits, and notices.

    Raises:
        InputError: A list cannot be read, names a file that is not there or lies outside, or the lists or the folders
            can be read in two ways.
    """
    folders: dict[Path, Path] = {}
    for file in lists:
        check_inside(root / file, root)
        other = folders.setdefault(file.parent, file)
        if other != file:
            raise InputError(f"{str(root / other)!r} and {str(root / file)!r} list the same images; keep one of them")
    tables = _type_columns(lists, [_read(root / file) for file in lists])
    files = [_locate(root, file, table, images) for file, table in zip(lists, tables, strict=True)]
    _check_twice(root, lists, files)
    named = dict.fromkeys(itertools.chain.from_iterable(files))
    passed.add("image(s) that no list names", sum(image not in named for image in images))
    split_of = _find_splits(root, list(named))
    splits: dict[str, list[tuple[Path, pa.Table, list[Path]]]] = {}
    for file, table, paths in zip(lists, tables, files, strict=True):
        wanted = [split_of[path] for path in paths]
        for split in dict.fromkeys(wanted):
            rows = [row for row, one in enumerate(wanted) if one == split]
            part = table if len(rows) == len(table) else table.take(pa.array(rows, pa.int64()))
            splits.setdefault(split, []).append((root / file, part, [paths[row] for row in rows]))
    return {split: _join(root, parts) for split, parts in splits.items()}, notice_names(splits)


def _locate(root: Path, file: Path, table: pa.Table, images: Sequence[Path]) -> list[Path]:
    """Return the files that a list names, relative to the dataset's folder."""
    names = table.column("file_name").to_pylist()
    odd = next((row for row, name in enumerate(names) if not isinstance(name, str) or not name or "\0" in name), None)
    if odd is not None:
        raise InputError(
            f"{str(root / file)!r} names no file in row {odd}; give its path, as seen from the list's folder"
        )
    return [_find(root, file, name, images) for name in names]


def _find(root: Path, file: Path, name: str, images: Sequence[Path]) -> Path:
    forms = [os.path.normpath(one) for one in (name, name.replace("\\", "/"))]
    there = next((one for one in forms if os.path.lexists(root / file.parent / one)), None)
    if there is None:
        last = PurePath(name.replace("\\", "/")).name
        close = next((image for image in images if last in (image.name, image.stem)), None)
        hint = "" if close is None else f" (did you mean {os.path.relpath(close, file.parent)!r}?)"
        raise InputError(
            f"{str(root / file)!r} names {name[:_SHOWN]!r}, which is not there{hint}; paths are seen from the list's "
            "folder"
        )
    found = Path(os.path.normpath(file.parent / there))
    check_file(found, root)
    return found


def _check_twice(root: Path, lists: Sequence[Path], files: Sequence[Sequence[Path]]) -> None:
    """Raise InputError where two lists name one file."""
    first: dict[Path, int] = {}
    for number, paths in enumerate(files):
        for path in paths:
            if first.setdefault(path, number) != number:
                raise InputError(
                    f"{str(root / lists[first[path]])!r} and {str(root / lists[number])!r} both name "
                    f"{path.as_posix()!r}; keep one of them"
                )


def _find_splits(root: Path, files: Sequence[Path]) -> dict[Path, str]:
    """Return the split of each file: that of the first level of folders that are splits, `train` where none is.

    Raises:
        InputError: Some folders of a level name splits and others do not.
    """
    for depth in range(max(len(file.parts) for file in files) - 1):
        names = {file.parts[depth] if depth < len(file.parts) - 1 else "" for file in files}
        found = {name: split for name, split in name_splits(names).items() if split is not None}
        if len(found) == len(names):
            called = own_names(sorted(found.items()))
            return {file: called[file.parts[depth]] for file in files}
        if set(found.values()) - {"train"}:
            shown, other = ", ".join(map(repr, sorted(found)[:3])), min(names - set(found))
            beside = f"the folder {other!r}" if other else "files outside of folders"
            raise InputError(
                f"the lists in {str(root)!r} name files in {shown}, which look like splits, and {beside} beside them, "
                "which does not; move the files of each split into a folder of its own, such as train and test"
            )
    check_stems(root, files, "into folders called train and test")
    return dict.fromkeys(files, "train")


def _join(root: Path, parts: Sequence[tuple[Path, pa.Table, list[Path]]]) -> Dataset:
    first, table, _ = parts[0]
    names = table.column_names
    for file, other, _ in parts[1:]:
        if sorted(other.column_names) != sorted(names):
            raise InputError(f"{str(file)!r} has other columns than {str(first)!r}; give lists of one split the same")
        different = next(
            (name for name in names if other.schema.field(name).type != table.schema.field(name).type), None
        )
        if different is not None:
            raise InputError(
                f"{str(file)!r} has another type of values in {different!r} than {str(first)!r}; write both as text"
            )
    joined = pa.concat_tables([part.select(names) for _, part, _ in parts]).drop_columns(["file_name"])
    images = image_column([check_file(path, root) for _, _, paths in parts for path in paths])
    try:
        features = Features({"image": Image(), **Features.from_arrow_schema(joined.schema)})
    except (ValueError, TypeError) as error:  # a type that datasets does not know
        raise _unreadable(first, str(error).split("\n")[0][:120], "leave the column out") from None
    return Dataset(pa.table([images, *joined.columns], schema=features.arrow_schema))


# ------------------------------------------------------------------------------------------------------ reading


def _read(file: Path) -> pa.Table:
    """Return the rows of a list. The columns of a CSV or TSV file are all strings, an empty field is null.

    Raises:
        InputError: It is too large, cannot be read, has no row or no column `file_name`.
    """
    size = file.stat().st_size
    if size > MAX_LIST_BYTES:
        raise InputError(
            f"{str(file)!r} has {size / 2**20:,.0f} MiB; a list may have {MAX_LIST_BYTES // 2**20} MiB: leave columns "
            "out, or write the images into Parquet files"
        )
    readers = {".csv": _read_text, ".tsv": _read_text, ".jsonl": _read_json, ".parquet": _read_parquet}
    try:
        table = readers[file.suffix](file)
    except InputError:
        raise
    except UnicodeError as error:
        raise _unreadable(file, f"it is not UTF-8: {_place(error)}", "write it as UTF-8") from None
    except csv.Error as error:
        cause = f"a field of more than {MAX_FIELD:,} characters" if "limit" in str(error) else str(error)[:_SHOWN]
        raise _unreadable(file, cause, "check double quotes and separators") from None
    except (ValueError, TypeError, OverflowError, RecursionError, pa.ArrowException) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise _unreadable(file, lines[0][:120], "write it again") from None
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read ({error.strerror or error}); check the file") from None
    if "file_name" not in table.column_names or "image" in table.column_names:
        listed = ", ".join(map(repr, table.column_names[:20]))
        raise InputError(f"{str(file)!r} has the columns {listed}; name the files in 'file_name', and none 'image'")
    if not len(table):
        raise InputError(f"{str(file)!r} lists no image; write a row for each")
    return table


def _unreadable(file: Path, cause: str, remedy: str) -> InputError:
    return InputError(f"{str(file)!r} cannot be read ({cause}); {remedy}")


def _place(error: UnicodeError) -> str:
    if not isinstance(error, UnicodeDecodeError):
        return "half of a character"
    return f"byte 0x{error.object[error.start]:02x}"


def _open_text(file: Path) -> io.TextIOWrapper:
    """Open a text file in the encoding that its first bytes name, else as UTF-8."""
    with file.open("rb") as binary:
        start = binary.read(4)
    encoding = next((name for mark, name in _ENCODINGS.items() if start.startswith(mark)), "utf-8")
    return file.open(encoding=encoding, newline="")


# ------------------------------------------------------------------------------------------------- CSV and TSV


def _read_text(file: Path) -> pa.Table:
    with _open_text(file) as stream:
        head = stream.readline(MAX_FIELD)
        if head.lower().startswith("sep=") and len(head.strip()) == len("sep=") + 1:  # what Excel writes
            head = stream.readline(MAX_FIELD)
        if len(head) == MAX_FIELD:
            raise _unreadable(file, f"its first line has {MAX_FIELD:,} characters or more", "write a head line")
        if not head.strip():
            raise _unreadable(file, "it is empty" if not head else "its first line is empty", "write a head line")
        if "\0" in head:
            raise _unreadable(file, "it holds zero bytes, so it is not UTF-8", "write it as UTF-8")
        separator = _find_separator(head, file.suffix)
        names = _parse(head, separator)
        rows = csv.reader(stream, delimiter=separator, strict=True)
        columns = _gather(file, rows, names, separator)
    return _drop_index(file, columns, names)


def _parse(line: str, separator: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], delimiter=separator))]


def _find_separator(head: str, suffix: str) -> str:
    """Return the separator with which the head line names `file_name`, else the one with which it has most fields."""
    order = sorted(_SEPARATORS, key=lambda one: one != ("\t" if suffix == ".tsv" else ","))
    named = [one for one in order if "file_name" in _parse(head, one)]
    return named[0] if named else max(order, key=lambda one: len(_parse(head, one)))


def _gather(file: Path, rows: Any, names: list[str], separator: str) -> list[pa.ChunkedArray]:
    """Return the fields as columns of strings, read in pieces."""
    if len(names) > MAX_COLUMNS:
        raise _unreadable(file, f"it has {len(names):,} columns", f"leave some out: {MAX_COLUMNS:,} at most")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _unreadable(file, f"two columns are called {twice!r}", "rename or remove one")
    chunks: list[list[pa.Array]] = [[] for _ in names]
    position = names.index("file_name") if "file_name" in names else None
    checked = _checked(file, rows, len(names), position, separator)
    while batch := list(itertools.islice(checked, _BATCH)):
        for column, fields in zip(chunks, zip(*batch, strict=True), strict=True):
            column.append(pa.array([field.strip() or None for field in fields], pa.string()))
    return [pa.chunked_array(column, pa.string()) for column in chunks]


def _checked(file: Path, rows: Any, width: int, position: int | None, separator: str) -> Iterator[list[str]]:
    """Yield the rows that are not empty, each with as many fields as the head line."""
    for row in rows:
        if not any(map(str.strip, row)):
            continue
        if len(row) != width:
            start, words = separator.join(row)[:40], _SEPARATORS[separator]
            cause = f"the row {start!r} has {len(row)} fields and the head line {width}, separated by {words}"
            raise _unreadable(file, cause, "put fields that hold the separator into double quotes")
        if max(map(len, row)) > MAX_FIELD:
            raise _unreadable(file, f"a field of more than {MAX_FIELD:,} characters", "shorten it")
        inside = (name for field in row if "\n" in field for name in _name_files(field, position, separator))
        lost = next((name for name in inside if os.path.lexists(file.parent / name)), None)
        if lost is not None:
            raise _unreadable(file, f"the row of {lost[:_SHOWN]!r} lies inside a double quote", "close it")
        yield row


def _name_files(field: str, position: int | None, separator: str) -> Iterator[str]:
    """Yield what a field would name if its lines were rows."""
    for line in field.split("\n")[1:]:
        parts = line.split(separator)
        if position is not None and len(parts) > position and parts[position].strip():
            yield parts[position].strip()


def _drop_index(file: Path, columns: list[pa.ChunkedArray], names: list[str]) -> pa.Table:
    """Return the table without a column of row numbers that has no name, as pandas writes it."""
    if "" in names:
        index = names.index("")
        column, rows = columns[index].to_pylist(), len(columns[index])
        if column not in ([str(n) for n in range(rows)], [str(n) for n in range(1, rows + 1)]):
            raise _unreadable(file, f"column {index + 1} has no name", "name it in the head line")
        columns, names = columns[:index] + columns[index + 1 :], names[:index] + names[index + 1 :]
    return pa.table(columns, names=names)


def _type_columns(lists: Sequence[Path], tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Return the tables, in CSV and TSV with those columns as numbers that hold plain numbers only, in all lists.

    ``7`` and ``-1`` are whole numbers, ``0.5`` is a decimal one. Everything else is text, such as ``007``, ``1e5`` and
    ``nan``, and so are decimals that are written in two ways, such as ``1.1`` and ``1.10``.
    """
    text = [table for file, table in zip(lists, tables, strict=True) if file.suffix in (".csv", ".tsv")]
    kinds = {}
    for name in {name for table in text for name in table.column_names} - {"file_name"}:
        kinds[name] = _kind([table.column(name) for table in text if name in table.column_names])
    return [
        pa.table(
            [table.column(name).cast(kinds.get(name, pa.string())) for name in table.column_names], table.column_names
        )
        if any(table is one for one in text)
        else table
        for table in tables
    ]


def _kind(columns: Sequence[pa.ChunkedArray]) -> pa.DataType:
    values = pc.unique(
        pa.chunked_array([part for column in columns for part in column.chunks], pa.string())
    ).drop_null()
    if not len(values):
        return pa.string()
    whole = pc.match_substring_regex(values, _WHOLE)
    if pc.all(whole).as_py():
        return pa.int64()
    decimal = pc.all(pc.or_(whole, pc.match_substring_regex(values, _DECIMAL))).as_py()
    return pa.float64() if decimal and len(pc.unique(values.cast(pa.float64()))) == len(values) else pa.string()


# ------------------------------------------------------------------------------------------- JSON lines, Parquet


def _read_json(file: Path) -> pa.Table:
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    with _open_text(file) as stream:
        while line := stream.readline(MAX_FIELD * 10):
            if not line.strip():
                continue
            if len(line) == MAX_FIELD * 10:
                raise _unreadable(file, f"row {len(rows)} has more than {MAX_FIELD * 10:,} characters", "shorten it")
            try:
                row = json.loads(line, object_pairs_hook=_unique, parse_int=_whole)
            except json.JSONDecodeError as error:
                raise _unreadable(file, f"row {len(rows)}: {error.msg}", "write one JSON object a line") from None
            if not isinstance(row, dict):
                raise _unreadable(file, f"row {len(rows)} is no object", "write one JSON object a line")
            names |= dict.fromkeys(row)
            if len(names) > MAX_COLUMNS:
                raise _unreadable(file, f"it has more than {MAX_COLUMNS:,} columns", "leave some out")
            rows.append(row)
    columns = {}
    for name in names:
        values = [None if row.get(name) == "" else row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError):
            cause = f"the values of {name!r} are of several types, or too large"
            raise _unreadable(file, cause, "write all of them as text, or all as numbers") from None
    return pa.table(columns)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in pairs:
        if name in row:
            raise ValueError(f"a row has two keys {name[:_SHOWN]!r}")
        row[name] = value
    return row


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _read_parquet(file: Path) -> pa.Table:
    with pq.ParquetFile(file) as opened:
        groups = range(opened.metadata.num_row_groups)
        size = sum(opened.metadata.row_group(group).total_byte_size for group in groups)
        if size > MAX_LIST_BYTES:
            raise _unreadable(file, f"it holds {size / 2**20:,.0f} MiB", "leave columns out")
        return opened.read()
