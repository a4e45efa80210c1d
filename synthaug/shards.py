"""Writing without half-written files: one writer a folder, atomic rename, Parquet shards of stable bytes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synthaug.errors import InputError

__all__ = ["ROWS_PER_SHARD", "UNIT_ROWS", "ShardWriter", "hash_file", "locked", "publish", "write_file"]

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


class ShardWriter:
    """Parquet writer whose row groups depend on the rows only, however they arrive."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema, self._waiting, self._group = schema, [schema.empty_table()], [schema.empty_table()]
        self._group_bytes, self._waiting_rows, self._waiting_bytes = 0, 0, 0
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

    def write(self, table: pa.Table) -> None:
        """Add rows; whole units move on to the row group."""
        if not len(table):
            return
        self._waiting.append(table)
        self._waiting_rows += len(table)
        self._waiting_bytes += table.get_total_buffer_size()  # at least what the rows take, and faster than nbytes
        if self._waiting_rows >= _GROUP_ROWS // 4 or self._waiting_bytes >= _GROUP_BYTES // 4:
            self._move()

    def _move(self) -> None:
        waiting = pa.concat_tables(self._waiting).combine_chunks()  # a unit's bytes depend on its chunks
        whole = len(waiting) // UNIT_ROWS * UNIT_ROWS
        for start in range(0, whole, UNIT_ROWS):
            self._group.append(waiting.slice(start, UNIT_ROWS))
            self._group_bytes += self._group[-1].nbytes
            if (len(self._group) - 1) * UNIT_ROWS >= _GROUP_ROWS or self._group_bytes >= _GROUP_BYTES:
                self._flush()
        self._waiting, self._waiting_rows = [waiting.slice(whole)], len(waiting) - whole
        self._waiting_bytes = self._waiting[0].nbytes

    def _flush(self) -> None:
        table = pa.concat_tables(self._group).combine_chunks()
        if len(table) and self._writer is not None:
            self._writer.write_table(table, row_group_size=len(table))
        self._group, self._group_bytes = [self._schema.empty_table()], 0

    def close(self) -> None:
        """Write what is left and the footer."""
        if self._writer is None:
            return
        self._move()
        self._group += self._waiting
        self._flush()
        self._writer.close()
        self._writer = None


def hash_file(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
