"""Streams into datasets: the first rows of an IterableDataset, written to disk so that a fit can go through them."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Features, IterableDataset

from synthaug.core import InputError

__all__ = ["STREAM_ROWS", "read_stream"]

STREAM_ROWS = 100_000
"""Rows that are taken from a stream unless the caller says otherwise."""

_BATCH_ROWS = 256
_KEPT: list[tempfile.TemporaryDirectory[str]] = []
"""Folders of rows that were read from streams; they live as long as the process."""


def read_stream(stream: IterableDataset, rows: int = STREAM_ROWS) -> Dataset:
    """Return the first rows of a stream as a memory-mapped dataset in a temporary folder.

    Memory holds one small batch at a time. The same stream gives the same rows, so a fit on it can be resumed.

    Args:
        stream: A streaming dataset whose features are known.
        rows: The cap; a line on stderr says when the stream has more.

    Raises:
        InputError: If the cap is below 1, the features are unknown, or the stream is empty.
    """
    if rows < 1:
        raise InputError(f"stream_rows is {rows}; give an integer of at least 1")
    if stream.features is None:
        raise InputError("the features of the stream are unknown; give them, for example stream.cast(features)")
    features = Features(stream.features)
    _KEPT.append(tempfile.TemporaryDirectory(prefix="synthaug-stream-"))
    path = Path(_KEPT[-1].name) / "rows.arrow"
    count = _write(stream, features, rows, path)
    if not count:
        raise InputError("the stream has no rows; give one with labelled images")
    if count > rows:
        print(f"note: the stream has more than {rows:,} rows; the first {rows:,} are used", file=sys.stderr)
    found = Dataset.from_file(str(path))
    with path.open("rb") as file:  # the same rows are the same dataset, wherever they lie
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    dataset = Dataset(found.data, info=found.info, fingerprint=fingerprint)
    return dataset.select(range(rows)) if count > rows else dataset


def _write(stream: IterableDataset, features: Features, rows: int, path: Path) -> int:
    """Write up to one row more than the cap and return how many there are."""
    schema, count = features.arrow_schema, 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in stream.take(rows + 1).decode(False).iter(batch_size=_BATCH_ROWS):
            table = pa.Table.from_pydict(features.encode_batch(batch), schema=schema)
            writer.write_table(table)
            count += len(table)
    return count
