"""Parquet shards of stable bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["ROWS_PER_SHARD", "UNIT_ROWS", "Rows", "ShardWriter"]

ROWS_PER_SHARD = 10_000
"""Rows after which the next shard begins."""

UNIT_ROWS = 50
"""Row groups are made of whole units, so that their limits do not depend on how rows arrive."""

_GROUP_ROWS, _GROUP_BYTES = 1_000, 64 << 20


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
