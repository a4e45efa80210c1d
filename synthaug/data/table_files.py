"""Files of rows, read within bounds of memory and disk: Parquet, converted once to Arrow, and Arrow itself."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features
from datasets.table import table_cast

from synthaug.core import FailedError, InputError
from synthaug.data.caches import digest_files, keep_entry

__all__ = ["check_arrow", "read_features", "read_parquet"]

_VERSION = 1
_ROWS, _GROUP_ROWS, _GROUP_BYTES = 32, 1_000, 64 << 20
"""Rows decoded at a time; rows or bytes that make a batch of the copy."""

_RATIO, _GROUP_SLACK, _SLACK = 200, 32 << 20, 1 << 30
"""How many times its size a file may unpack to, besides the slack for a row group and for all rows. Images are packed
already: more is what a decompression bomb does."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DICTIONARY = 2
"""Kind of an Arrow message that holds a dictionary."""


def read_features(file: Path) -> Features:
    """Return the features of a Parquet file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return Features.from_arrow_schema(pq.read_schema(file))
    except Exception as error:  # a damaged file, or a type that datasets does not know
        raise InputError(f"{str(file)!r} is not a Parquet file that can be read ({_short(error)})") from error


def read_parquet(files: Sequence[Path], features: Features) -> Dataset:
    """Return the rows of Parquet files, memory-mapped from an Arrow copy in the cache folder.

    The copy is made anew when one of the files was changed or replaced, whatever its time says.

    Args:
        files: The files, in order.
        features: Of all of them.

    Raises:
        InputError: A file cannot be read or is a decompression bomb, or there is no row.
        FailedError: The disk has no room for the copy.
    """
    names = ", ".join(repr(str(file)) for file in files[:3])
    try:
        if not sum(pq.read_metadata(file).num_rows for file in files):
            raise InputError(f"{names}: there is no row; give files with labelled images")
        key = digest_files(file.resolve() for file in files)
        entry = keep_entry(f"rows-{_VERSION}-{key[:32]}", lambda folder: _convert(files, features, folder))
        found = Dataset.from_file(str(entry / "rows.arrow"))
    except (InputError, FailedError):
        raise
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise InputError(f"cannot read {names} ({_short(error)})") from error
    return Dataset(found.data, info=found.info, fingerprint=key[:16])


def _convert(files: Sequence[Path], features: Features, folder: Path) -> None:
    try:
        _copy(files, features, folder / "rows.arrow")
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise FailedError(
            f"cannot write the rows of {str(files[0])!r} to {str(folder.parent)!r} ({error.strerror or error}); free "
            "space, or name another folder in SYNTHAUG_CACHE"
        ) from error


def _copy(files: Sequence[Path], features: Features, path: Path) -> None:
    schema, unpacked = features.arrow_schema, 0
    most = _SLACK + _RATIO * sum(file.stat().st_size for file in files)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for file in files:
            for table in _gather(file):
                unpacked += table.nbytes
                if unpacked > most:
                    raise _bomb(file)
                writer.write_table(table_cast(table, schema))


def _gather(file: Path) -> Iterator[pa.Table]:
    """Yield the rows of a file in tables of about a thousand: opening a dataset touches each batch."""
    with pq.ParquetFile(file, buffer_size=1 << 20) as opened:
        _check_groups(file, opened.metadata)
        waiting: list[pa.RecordBatch] = []
        for batch in opened.iter_batches(batch_size=_ROWS):
            waiting.append(batch)
            if sum(map(len, waiting)) >= _GROUP_ROWS or sum(part.nbytes for part in waiting) >= _GROUP_BYTES:
                yield pa.Table.from_batches(waiting).combine_chunks()
                waiting = []
        if waiting:
            yield pa.Table.from_batches(waiting).combine_chunks()


def _check_groups(file: Path, metadata: pq.FileMetaData) -> None:
    """Refuse a file of which a row group, which may be decoded whole, unpacks to far more than the file holds.

    Its footer says so. What the footer says of columns is not asked for: a damaged one ends the process in pyarrow.
    """
    most = _GROUP_SLACK + _RATIO * file.stat().st_size
    if any(metadata.row_group(number).total_byte_size > most for number in range(metadata.num_row_groups)):
        raise _bomb(file)


def _bomb(file: Path) -> InputError:
    return InputError(
        f"{str(file)!r} is a decompression bomb: it unpacks to more than {_RATIO} times its size; give a file of images"
    )


def check_arrow(file: Path) -> None:
    """See that an Arrow file, which is mapped into memory as it is, holds no compressed batch that would be unpacked.

    Raises:
        InputError: It holds one; `datasets` writes none.
        pa.ArrowInvalid: It is damaged.
    """
    with pa.memory_map(str(file)) as source:
        for message in pa.ipc.MessageReader.open_stream(source):
            if message.type != "schema" and _is_compressed(message.metadata.to_pybytes()):
                raise InputError(
                    f"{str(file)!r} holds compressed rows, which are not read; save them with save_to_disk"
                )


def _is_compressed(message: bytes) -> bool:
    """Tell whether the flatbuffer of an Arrow message, a batch or a dictionary, names a compression of its body."""

    def find(table: int, field: int) -> int | None:
        """Return where a field of a table stands, or None if it is not there."""
        layout = table - struct.unpack_from("<i", message, table)[0]
        size = struct.unpack_from("<H", message, layout)[0]
        offset = struct.unpack_from("<H", message, layout + 4 + 2 * field)[0] if 4 + 2 * field < size else 0
        return table + offset if offset else None

    def follow(place: int | None) -> int:
        if place is None:
            raise pa.ArrowInvalid("a message without a header")
        return int(place + struct.unpack_from("<I", message, place)[0])

    root = follow(0)
    kind, batch = find(root, 1), follow(find(root, 2))
    if kind is not None and message[kind] == _DICTIONARY:
        batch = follow(find(batch, 1))
    return find(batch, 3) is not None


def _short(error: Exception) -> str:
    lines = str(error).splitlines()
    return (f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)[:160]
