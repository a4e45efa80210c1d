"""The files around the shards of a dataset folder, and datasets as such folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from synthaug.core import FailedError, InputError, OutputFolder, StopSignals, __version__, tile_images, write_file
from synthaug.data import (
    Columns,
    DatasetRows,
    decode_bytes,
    digest_rows,
    find_columns,
    has_provenance,
    read_labels,
    real_rows,
)
from synthaug.generation.dataset_folder import ShardFolder, read_earlier
from synthaug.generation.mixing import output_features
from synthaug.publishing import render_dataset_card

__all__ = ["DATASET_FILES", "count_labels", "finish_folder", "pick_rows", "write_dataset"]

GRID_CLASSES, GRID_COLUMNS = 40, 10

DATASET_FILES = ("README.md", "synthaug.json", "manifest.json")
"""Files beside the shards that a finished dataset folder has."""


def write_dataset(
    dataset: Dataset | Mapping[str, Dataset],
    output: str | Path,
    *,
    split: str = "train",
    other_splits: Mapping[str, Dataset] | None = None,
    title: str | None = None,
    command: str = "export",
    fresh: bool = False,
) -> Path:
    """Write a dataset as a folder with its card; the same call again finds it finished.

    Args:
        dataset: One dataset, or split name -> dataset.
        output: The folder to make.
        split: Name of a single dataset's split, or of the one that the card describes.
        other_splits: Further splits, passed through.
        title: Heading of the card; the name of the folder when None.
        command: The command that writes it.
        fresh: Remove what an earlier call left.

    Returns:
        The folder.

    Raises:
        InputError: If an image cannot be read, the splits have different columns, or the folder holds
            something else.
    """
    splits = dict(dataset) if isinstance(dataset, Mapping) else {split: dataset}
    splits |= other_splits or {}
    if not splits:
        raise InputError("there is no split to write; give at least one dataset")
    split = split if split in splits else next(iter(splits))
    output, main = Path(output), splits[split]
    mixed = any(has_provenance(data.features) for data in splits.values())
    features = output_features(main.features) if mixed else main.features
    arguments = {"splits": {name: digest_rows(data) for name, data in splits.items()}}
    made = OutputFolder(output, command, arguments, fresh=fresh, earlier=lambda: read_earlier(output))
    with made, StopSignals() as stop:
        folder = ShardFolder(output, arguments)
        if made.has_finished(*DATASET_FILES) and folder.finished:
            return output
        streams = {name: [DatasetRows(data, features, name=f"split {name!r}")] for name, data in splits.items()}
        try:
            folder.write(streams, features.arrow_schema, stopped=lambda: stop.received)
            _describe(folder, splits, split, title or output.name)
            made.finish()
        except OSError as error:
            raise FailedError(f"cannot write {str(output)!r}: {error}; free space and run it again") from error
    return output


def finish_folder(
    folder: ShardFolder, facts: Mapping[str, Any], record: Mapping[str, Any], rows: Sequence[Sequence[int]]
) -> None:
    """Write samples.png, synthaug.json and README.md around complete shards, then the manifest.

    Args:
        folder: All its shards are written.
        facts: Of `render_dataset_card`; `split` and `image_column` say where the samples come from.
        record: Content of synthaug.json.
        rows: Numbers of the synthetic rows to show, one ascending list a line of the grid.
    """
    given = dict(facts)
    lines = [_read_images(folder, str(given["split"]), given.get("image_column"), line) for line in rows]
    shown = [line for line in lines if len(line)]
    if shown:
        write_file(folder.folder / "samples.png", tile_images(shown))
        given["sample_grid"] = "samples.png"
    write_file(folder.folder / "synthaug.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    if not (folder.folder / "README.md").is_file():  # a repaired folder keeps its card, perhaps edited
        write_file(folder.folder / "README.md", render_dataset_card(given))
    folder.finish()


def count_labels(dataset: Dataset, label_column: str, mask: NDArray[np.bool_]) -> dict[str, int]:
    """Return class name -> labelled rows of those in `mask`, in label order, without empty classes."""
    labels = read_labels(dataset, label_column)
    index = labels.index[mask & (labels.index >= 0)]
    counts = np.bincount(index, minlength=len(labels.names))
    return {name: count for name, count in zip(labels.names, counts.tolist(), strict=True) if count}


def pick_rows(counts: Mapping[str, int], start: int) -> list[range]:
    """Return the rows to show: the first few of each class, where classes follow each other from `start`."""
    lines = []
    for count in counts.values():
        lines.append(range(start, start + min(count, GRID_COLUMNS)))
        start += count
    return [line for line in lines if len(line)][:GRID_CLASSES]


def _read_images(folder: ShardFolder, split: str, column: str | None, rows: Sequence[int]) -> NDArray[np.uint8]:
    if column is None or not len(rows):
        return np.empty((0, 1, 1, 1), np.uint8)
    values = folder.read_rows(split, rows, [column]).column(0).to_pylist()
    images = [np.asarray(decode_bytes(value["bytes"])) for value in values]
    pixels = np.stack(images)
    return pixels[..., None] if pixels.ndim == 3 else pixels


def _describe(folder: ShardFolder, splits: Mapping[str, Dataset], split: str, title: str) -> None:
    main = splits[split]
    columns = _columns_of(main)
    real = real_rows(main)
    facts: dict[str, Any] = {
        "title": title,
        "splits": {name: len(data) for name, data in splits.items()},
        "split": split,
        "pixel_hashes": False,
        "synthaug_version": __version__,
    }
    if columns is not None:
        facts |= {"image_column": columns.image, "label_column": columns.label}
        facts["real"] = count_labels(main, columns.label, real)
        facts["synthetic"] = count_labels(main, columns.label, ~real)
    facts |= _origin(main)
    kept = (
        "splits",
        "split",
        "image_column",
        "label_column",
        "real",
        "synthetic",
        "generator",
        "checkpoint",
        "seed",
    )
    record = {"synthaug_version": __version__, **{key: facts[key] for key in kept if key in facts}}
    finish_folder(folder, facts, record, [])


def _columns_of(dataset: Dataset) -> Columns | None:
    """Return image and label column; None where they are ambiguous: the rows can be written all the same."""
    try:
        return find_columns(dataset)
    except InputError:
        return None


def _origin(dataset: Dataset) -> dict[str, Any]:
    """Return generator, checkpoint and seed where all synthetic rows share them."""
    if not has_provenance(dataset.features):
        return {}
    table = dataset.select_columns(["provenance"]).with_format("arrow")[:]
    rows = [row for row in table.column(0).to_pylist() if row is not None]
    shared = {}
    for key in ("generator", "checkpoint", "seed"):
        values = {row[key] for row in rows}
        if len(values) == 1:
            shared[key] = values.pop()
    return {key: value for key, value in shared.items() if value is not None}
