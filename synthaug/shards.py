"""Writing without half-written files: one writer a folder, atomic rename, Parquet shards of stable bytes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
    """Parquet writer whose row groups depend on the rows only, however they arrive.

    A thread compresses and writes a row group while the caller makes the next one. It makes one call for each, which
    does not hold the interpreter's lock; with many small calls the two threads would take turns and gain nothing.

    Args:
        path: The file to write.
        schema: Of its rows.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._waiting = [schema.empty_table()]
        self._rows, self._bytes, self._closed = 0, 0, False
        plain = [name for name in schema.names if not pa.types.is_nested(schema.field(name).type)]
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=plain,  # statistics of an image column would hold whole images
            write_page_index=True,
        )
        self._thread = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, rows: pa.Table) -> None:
        """Add rows; whole units move on to the row group.

        Raises:
            OSError: If an earlier row group could not be written.
        """
        if not len(rows):
            return
        self._waiting.append(rows)
        self._rows, self._bytes = self._rows + len(rows), self._bytes + rows.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush(last=False)

    def close(self) -> None:
        """Write what is left and the footer; the file is complete then.

        Raises:
            OSError: If it could not be written.
        """
        if self._closed:
            return
        self._closed = True
        with self._thread:
            self._flush(last=True)
            self._wait()
        self._writer.close()

    def _flush(self, *, last: bool) -> None:
        """Write the row groups that are complete; all there are at the end."""
        waiting = pa.concat_tables(self._waiting).combine_chunks()  # pages depend on the chunks
        while len(waiting) and ((rows := _count_group(waiting)) or last):
            group = waiting.slice(0, rows or len(waiting))
            self._wait()
            self._written = self._thread.submit(self._writer.write_table, group, row_group_size=len(group))
            waiting = waiting.slice(len(group))
        self._waiting, self._rows, self._bytes = [waiting], len(waiting), waiting.nbytes

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()


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
