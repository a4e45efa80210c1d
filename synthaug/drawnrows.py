"""Rows of one class on their way from pixels to a table of the output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synthaug.png import pack_png

__all__ = ["DrawnRows", "EncodedRows", "RepeatedColumns", "as_binary"]


@dataclass(frozen=True)
class RepeatedColumns:
    """What is the same in every synthetic row of a class.

    Args:
        schema: Of the output.
        image: Name of its image column.
        columns: Column -> its value, a block long; without the image and the provenance.
        origin: Field of the provenance -> its value, a block long; without the draw.
    """

    schema: pa.Schema
    image: str
    columns: dict[str, pa.Array]
    origin: dict[str, pa.Array]


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one class with their images as PNG files.

    Args:
        repeated: What their class has in every row.
        files: (N, L) uint8, contiguous: a file in each row; N is a block at most.
        draws: (N,) int64, numbers of the draws.
    """

    repeated: RepeatedColumns
    files: NDArray[np.uint8]
    draws: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.draws)

    def table(self) -> pa.Table:
        """Return the rows as they are written."""
        repeated, rows = self.repeated, len(self)
        schema = repeated.schema
        image, origin = schema.field(repeated.image), schema.field("provenance")
        fields = {**repeated.origin, "draw": pa.array(self.draws, origin.type.field("draw").type)}
        parts = [fields[f.name].slice(0, rows) for f in origin.type]
        paths = pa.nulls(rows, pa.string())
        columns = {
            **repeated.columns,
            image.name: pa.StructArray.from_arrays([as_binary(self.files), paths], fields=list(image.type)),
            origin.name: pa.StructArray.from_arrays(parts, fields=list(origin.type)),
        }
        return pa.Table.from_arrays([columns[name].slice(0, rows) for name in schema.names], schema=schema)


@dataclass(frozen=True)
class DrawnRows:
    """Rows of one class with their images as pixels.

    Args:
        repeated: What their class has in every row.
        pixels: (N, H, W, C) uint8; N is a block at most.
        draws: (N,) int64, numbers of the draws.
    """

    repeated: RepeatedColumns
    pixels: NDArray[np.uint8]
    draws: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.draws)

    def encode(self) -> EncodedRows:
        """Return the rows with their images as files."""
        return EncodedRows(self.repeated, pack_png(self.pixels), self.draws)

    def table(self) -> pa.Table:
        """Return the rows as they are written."""
        return self.encode().table()


def as_binary(files: NDArray[np.uint8]) -> pa.Array:
    """Return the rows (N, L) of a contiguous array as a binary array over the same memory."""
    offsets = np.arange(len(files) + 1, dtype=np.int32) * np.int32(files.shape[1])
    return pa.Array.from_buffers(pa.binary(), len(files), [None, pa.py_buffer(offsets), pa.py_buffer(files)])
