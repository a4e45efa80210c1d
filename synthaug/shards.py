"""Writing without half-written files: one writer a folder, atomic rename, Parquet shards of stable bytes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from synthaug.errors import InputError

__all__ = ["ROWS_PER_SHARD", "UNIT_ROWS", "Rows", "ShardWriter", "hash_file", "locked", "publish", "write_file"]

ROWS_PER_SHARD = 10_000
"""Rows after which the next shard begins."""

UNIT_ROWS = 50
"""Row groups are made of whole units, so that their limits do not depend on how rows arrive."""

_GROUP_ROWS, _GROUP_BYTES = 1_000, 64 << 20
_LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold the folder (made if need be) as its only writer.

    Args:
        folder: An output folder.

    Raises:
        InputError: If another process writes it, or it cannot be written.
    """
    folder = Path(folder)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(folder / _LOCK)
    except BlockingIOError:
        raise InputError(
            f"output {str(folder)!r} is being written by another process; wait for it or give another folder"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"output {str(folder)!r} cannot be written ({reason}); give another folder") from None
    try:
        yield
    finally:
        # still held while it is removed: whoever opened the old file sees that it is gone
        (folder / _LOCK).unlink(missing_ok=True)
        os.close(descriptor)
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()  # succeeds only when nothing was written


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file by atomic rename.

    Args:
        path: Where it appears, complete or not at all.
        content: Its bytes, or text to encode as UTF-8.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Make a finished temporary file appear under its name, on the disk too."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Rows(Protocol):
    """Rows that become a table when they are written."""

    def __len__(self) -> int:
        """Rows in all."""

    def table(self) -> pa.Table:
        """Return them in the schema of the shard."""


class ShardWriter:
    """Parquet writer whose row groups depend on the rows only, however they arrive."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._waiting = [schema.empty_table()]
        self._rows, self._bytes = 0, 0
        plain = [name for name in schema.names if not pa.types.is_nested(schema.field(name).type)]
        self._writer: pq.ParquetWriter | None = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=plain,  # statistics of an image column would hold whole images
            write_page_index=True,
        )

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, rows: pa.Table | Rows) -> None:
        """Add rows; whole units move on to the row group."""
        if not len(rows):
            return
        if isinstance(rows, pa.Table):
            table, size = rows, rows.nbytes  # its buffers may hold the rows of a whole file
        else:
            table = rows.table()
            size = table.get_total_buffer_size()  # faster than nbytes, and the same but for some padding
        self._waiting.append(table)
        self._rows, self._bytes = self._rows + len(table), self._bytes + size
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush(last=False)

    def _flush(self, *, last: bool) -> None:
        """Write the row groups that are complete; all there are at the end."""
        waiting = pa.concat_tables(self._waiting).combine_chunks()  # pages depend on the chunks
        while len(waiting) and ((rows := _count_group(waiting)) or last) and self._writer is not None:
            group = waiting.slice(0, rows or len(waiting))
            self._writer.write_table(group, row_group_size=len(group))
            waiting = waiting.slice(len(group))
        self._waiting, self._rows, self._bytes = [waiting], len(waiting), waiting.nbytes

    def close(self) -> None:
        """Write what is left and the footer."""
        if self._writer is None:
            return
        self._flush(last=True)
        self._writer.close()
        self._writer = None

    def wait(self) -> None:
        """Do nothing: the file is complete once it is closed."""


def _count_group(table: pa.Table) -> int:
    """Return how many of the first rows make a row group; 0 if it takes more than there are."""
    if len(table) >= _GROUP_ROWS and table.slice(0, _GROUP_ROWS).nbytes < _GROUP_BYTES:
        return _GROUP_ROWS
    size = 0
    for end in range(UNIT_ROWS, min(len(table), _GROUP_ROWS) + 1, UNIT_ROWS):
        size += table.slice(end - UNIT_ROWS, UNIT_ROWS).nbytes
        if size >= _GROUP_BYTES or end == _GROUP_ROWS:
            return end
    return 0


def hash_file(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
