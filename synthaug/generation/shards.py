"""Parquet shards of stable bytes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["ROWS_PER_SHARD", "UNIT_ROWS", "ShardWriter"]

ROWS_PER_SHARD = 10_000
"""Rows after which the next shard begins."""

UNIT_ROWS = 50
"""Row groups are made of whole units, so that their limits do not depend on how rows arrive."""

_GROUP_ROWS, _GROUP_BYTES = 1_000, 64 << 20


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
