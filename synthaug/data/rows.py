"""Rows of a dataset on their way into a file: images embedded and checked, no path of another file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from datasets import Audio, Dataset, Features, Image, Video

from synthaug.core import InputError
from synthaug.data.codec import DEPTHS, find_depth, open_bytes, read_image_file, strict_decoding
from synthaug.data.columns import FileNames, iterate_images

__all__ = ["DatasetRows", "corrupt_rows", "digest_rows", "null_column"]

_TABLE_ROWS = 100


def null_column(rows: int, kind: pa.DataType) -> pa.Array:
    """Return nulls of an Arrow type, extension types included."""
    if isinstance(kind, pa.ExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.nulls(rows, kind.storage_type))
    return pa.nulls(rows, kind)


def digest_rows(dataset: Dataset) -> str:
    """Return a sha256 over the features and values of all rows, in order, with the content of files that they name."""
    digest = hashlib.sha256(repr(sorted(dataset.features.items(), key=str)).encode())
    for table in dataset.with_format("arrow").iter(batch_size=1_000):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
            writer.write_table(table.replace_schema_metadata(None).combine_chunks())
        digest.update(sink.getvalue())
    for name in (name for name, feature in dataset.features.items() if isinstance(feature, Image)):
        for data, path in iterate_images(dataset, name):
            if data is None and path is not None:
                digest.update(_digest_file(path))
    return digest.hexdigest()


def _digest_file(path: str) -> bytes:
    """Return the sha256 of an image file; nothing where it cannot be read, which whoever needs the image says."""
    try:
        return hashlib.sha256(read_image_file(path)).digest()
    except ValueError:
        return b""


class DatasetRows:
    """The rows of a dataset as they are written out: images embedded, decoded once to check them, no paths.

    Args:
        dataset: Any dataset; `synthetic` and `provenance` are filled in where it has none.
        features: Features of the output; columns that `dataset` lacks are null.
        name: What messages call the dataset.
        required: Image column in which null is an error.
        depth: How its images must store their values, one of `DEPTHS`; any when None.

    Raises:
        InputError: If a column cannot be written to a file that names no other file, or is not in `features`.
    """

    def __init__(
        self,
        dataset: Dataset,
        features: Features,
        *,
        name: str = "dataset",
        required: str | None = None,
        depth: str | None = None,
    ) -> None:
        self._dataset, self._schema, self._name, self._row = dataset, features.arrow_schema, name, 0
        self._required, self._depth = required, depth
        self._images = [key for key, feature in features.items() if isinstance(feature, Image)]
        for key, feature in features.items():
            if not isinstance(feature, Image) and _holds_files(feature):
                raise InputError(f"column {key!r} of {name} holds files in a {type(feature).__name__}; drop it first")
        for key, feature in dataset.features.items():
            if key not in features or str(feature) != str(features[key]):
                raise InputError(
                    f"column {key!r} of {name} is {feature}, but {features.get(key, 'not there')} in the "
                    "training split; give all splits the same columns"
                )

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        return len(self._dataset)

    def state(self) -> dict[str, Any]:
        """Return the number of the next row."""
        return {"row": self._row}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Go on at a row."""
        self._row = int(state["row"])

    def read(self, count: int) -> Iterator[pa.Table]:
        """Yield the next `count` rows as tables of the output schema.

        Raises:
            InputError: If an image cannot be read or decoded.
        """
        rows, end = self._dataset.with_format("arrow"), self._row + count
        while self._row < end:
            table = rows[self._row : min(end, self._row + _TABLE_ROWS)]
            table = self._complete(table)
            self._row += len(table)
            yield table

    def _complete(self, table: pa.Table) -> pa.Table:
        columns = []
        for field in self._schema:
            if field.name in self._images and field.name in table.column_names:
                columns.append(self._embed(table.column(field.name).to_pylist(), field))
            elif field.name in table.column_names:
                columns.append(table.column(field.name).cast(field.type))
            elif field.name == "synthetic":
                columns.append(pa.array([False] * len(table), pa.bool_()))
            else:
                columns.append(null_column(len(table), field.type))
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _embed(self, values: list[dict[str, Any] | None], field: pa.Field) -> pa.Array:
        files: list[bytes | None] = []
        with strict_decoding():
            for offset, value in enumerate(values):
                try:
                    needed = field.name == self._required
                    files.append(_checked_bytes(value, needed, self._depth if needed else None))
                except ValueError as error:
                    raise InputError(
                        f"row {self._row + offset} of {self._name}: no readable image in {field.name!r} "
                        f"({error}); repair or drop the row"
                    ) from None
        missing = pa.array([value is None for value in values])
        parts = [pa.array(files, pa.binary()), pa.nulls(len(files), pa.string())]
        return pa.StructArray.from_arrays(parts, ["bytes", "path"], mask=missing).cast(field.type)


def _checked_bytes(value: Mapping[str, Any] | None, required: bool, depth: str | None = None) -> bytes | None:
    if value is None and not required:
        return None
    value = value or {}
    data = value.get("bytes")
    if data is None and value.get("path"):
        data = read_image_file(value["path"])
    image = open_bytes(data)
    if depth is not None and (own := find_depth(image)) != depth:
        raise ValueError(
            f"it stores {DEPTHS[own]}, the synthetic rows {DEPTHS[depth]}: convert the images to one depth"
        )
    return data


def corrupt_rows(dataset: Dataset, image_column: str) -> dict[int, str]:
    """Return row number -> reason for every row whose image cannot be read or decoded."""
    corrupt, names = dict[int, str](), FileNames(dataset, image_column)
    with strict_decoding():
        for row, (data, path) in enumerate(iterate_images(dataset, image_column)):
            try:
                _checked_bytes({"bytes": data, "path": path}, required=True)
            except ValueError as error:
                corrupt[row] = names.explain(error, data, path)
    return corrupt


def _holds_files(feature: Any) -> bool:
    """Tell whether values of this feature, or parts of them, are files."""
    if isinstance(feature, (Image, Audio, Video)) or type(feature).__name__ in ("Pdf", "Nifti"):
        return True
    if isinstance(feature, Mapping):
        return any(map(_holds_files, feature.values()))
    if isinstance(feature, (list, tuple)):
        return any(map(_holds_files, feature))
    return hasattr(feature, "feature") and _holds_files(feature.feature)
