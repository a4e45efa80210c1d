"""Datasets on disk: class-per-folder images, images with a list, Parquet files, folders of `save_to_disk`."""

from __future__ import annotations

import glob
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
from datasets import ClassLabel, Dataset, Features, Image
from huggingface_hub.utils import logging as hub_logging

from synthaug.columns import as_image_columns
from synthaug.confinement import check_inside, confine, replace_column
from synthaug.errors import InputError
from synthaug.tablefiles import check_arrow, read_features, read_parquet

__all__ = ["open_folder", "open_glob", "open_parquet", "quiet_datasets"]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_LISTS = ("metadata.csv", "metadata.jsonl")
"""Names of lists of images, as in the `imagefolder` of `datasets`: a column `file_name`, and whatever else is known."""
_SHARD = re.compile(r"([\w.]+)-\d{5}-of-\d{5}(-[0-9a-f]+)?")


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Keep the bars and log lines of `datasets` off stderr: bad input is to give exactly one line."""
    level, bars = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    hub_level = hub_logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)
    hub_logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            datasets.enable_progress_bars()


def open_folder(root: Path) -> dict[str, Dataset]:
    """Return the splits of a folder made by `save_to_disk`, of Parquet files, of listed or class-per-folder images.

    Raises:
        InputError: It is none of these, or something in it leads outside.
    """
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        return _open_saved(root)
    if (root / "model.safetensors").is_file():
        raise InputError(
            f"{str(root)!r} is a run folder, not a dataset; give the dataset it was fitted on or one it generated"
        )
    everything = list(_walk(root))
    files = [path for path in everything if path.suffix.lower() in {".parquet", *_SUFFIXES}]
    tables = [path for path in files if path.suffix.lower() == ".parquet"]
    if not files:
        raise InputError(
            f"{str(root)!r} holds no images and no Parquet files; give a folder with one folder of images "
            "per class, with Parquet files, or one made by save_to_disk"
        )
    if not tables and (lists := [path for path in everything if path.name in _LISTS]):
        return {name: _read_list(root, parts) for name, parts in _by_split(root, lists).items()}
    if not tables:
        return _open_image_folders(root, [path.relative_to(root) for path in files], _find_foreign_list(everything))
    splits = {name: _read_tables(shards) for name, shards in _by_split(root, tables).items()}
    return {name: confine(split, [root], str(root)) for name, split in splits.items()}


def _find_foreign_list(files: list[Path]) -> str | None:
    """Return the name of a table that might say what the images are, but is not called so."""
    return next((path.name for path in files if path.suffix.lower() in (".csv", ".tsv", ".jsonl")), None)


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files under `root` in a fixed order, links resolved inside it and no folder entered twice."""
    ancestors: dict[Path, frozenset[Path]] = {root: frozenset()}
    for folder, names, files in os.walk(root, followlinks=True):
        here = check_inside(Path(folder), root)
        above = ancestors.pop(Path(folder))
        names[:] = [] if here in above else sorted(name for name in names if not name.startswith((".", "__MACOSX")))
        ancestors.update({Path(folder) / name: above | {here} for name in names})
        if here not in above:
            yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def _open_saved(root: Path) -> dict[str, Dataset]:
    try:
        folders = {"train": root}
        if (root / "dataset_dict.json").is_file():
            named = json.loads((root / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            folders = {name: check_inside(root / name, root) for name in named}
        for folder in folders.values():
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            for file in state["_data_files"]:
                check_arrow(check_inside(folder / file["filename"], root))
        with quiet_datasets():
            splits = {name: Dataset.load_from_disk(str(folder)) for name, folder in folders.items()}
        for split in splits.values():
            split.data.table.validate(full=True)  # what is mapped into memory may point outside of it
    except InputError:
        raise
    except Exception as error:  # whatever a damaged folder makes the reader raise
        raise InputError(f"{str(root)!r} is a damaged save_to_disk folder ({_short(error)}); save it again") from error
    return {name: confine(as_image_columns(split), [root], str(root)) for name, split in splits.items()}


def _short(error: Exception) -> str:
    lines = str(error).splitlines()
    return (f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)[:160]


def _by_split(root: Path, files: list[Path]) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for file in files:
        check_inside(file, root)
        splits.setdefault(_split_of(file.relative_to(root)), []).append(file)
    for name, shards in splits.items():
        folders = sorted({str(shard.parent) for shard in shards})
        if len(folders) > 1:
            listed = ", ".join(map(repr, folders))
            raise InputError(f"{str(root)!r} holds the split {name!r} in several folders ({listed}); give one of them")
    return splits


def _split_of(path: Path) -> str:
    shard = _SHARD.fullmatch(path.stem)
    if shard:
        return shard[1]
    for part in (path.stem, *reversed(path.parts[:-1])):
        for word in re.split(r"[^a-z0-9]+", part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return "train"


def open_parquet(file: Path) -> dict[str, Dataset]:
    """Return the single split "train" of a Parquet file; its rows may name no other file."""
    return {"train": confine(_read_tables([file]), [], str(file))}


def open_glob(pattern: str) -> dict[str, Dataset]:
    """Return the splits of the Parquet files that match: by name for Hub shards, else "train" alone.

    Raises:
        InputError: Nothing matches, or a match leads outside the pattern's own folder.
    """
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  the pattern may be absolute
    files = [Path(name) for name in matches if name.lower().endswith(".parquet")]
    if not files:
        raise InputError(f"no Parquet file matches {pattern!r}; check the folder and the ending .parquet")
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    base = Path(os.path.dirname(fixed) or ".")  # noqa: PTH120  Path would drop the slash at the end
    splits: dict[str, list[Path]] = {}
    shards = [_SHARD.fullmatch(file.stem) for file in files]
    for file, shard in zip(files, shards, strict=True):
        check_inside(file, base)
        splits.setdefault(shard[1] if shard and all(shards) else "train", []).append(file)
    return {name: confine(_read_tables(group), [], pattern) for name, group in splits.items()}


def _read_tables(files: list[Path]) -> Dataset:
    """Return the rows of Parquet files of one split, class labels aligned by name."""
    features = [read_features(file) for file in files]
    for file, other in zip(files, features, strict=True):
        if _without_names(other) != _without_names(features[0]):
            raise InputError(
                f"{str(file)!r} has other columns or types than {str(files[0])!r}; give Parquet files of one dataset"
            )
    if all(other == features[0] for other in features):
        return as_image_columns(read_parquet(files, features[0]))
    parts = [read_parquet([file], other) for file, other in zip(files, features, strict=True)]
    for name, feature in features[0].items():
        if isinstance(feature, ClassLabel):
            parts = _align(parts, name)
    return as_image_columns(datasets.concatenate_datasets(parts))


def _without_names(features: Features) -> dict[str, Any]:
    return {name: ClassLabel if isinstance(feature, ClassLabel) else feature for name, feature in features.items()}


def _align(parts: list[Dataset], name: str) -> list[Dataset]:
    names = max((part.features[name].names for part in parts), key=len)
    aligned = []
    for part in parts:
        own = part.features[name].names
        odd = next((known for known in own if known not in names), None)
        if odd is not None:
            raise InputError(
                f"Parquet files of one split name different classes in {name!r} ({odd!r} is not everywhere); "
                "give the files of one dataset"
            )
        column = part.data.column(name).combine_chunks()
        column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
        index = column.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        if len(index) and not (index.min() >= -1 and index.max() < len(own)):
            raise InputError(
                f"column {name!r} holds {index.max()}, but names only {len(own)} classes; name all of them"
            )
        lookup = np.array([*(names.index(known) for known in own), -1], dtype=np.int64)  # -1 picks the last
        mapped = pa.array(lookup[index], mask=column.is_null().to_numpy(zero_copy_only=False))
        aligned.append(replace_column(part, name, pa.chunked_array([mapped]), ClassLabel(names=names), repr(names)))
    return aligned


def _read_list(root: Path, lists: list[Path]) -> Dataset:
    """Return the images that the list of a split names, with its other columns.

    Raises:
        InputError: There are two lists, one cannot be read or lacks `file_name`, or a name leads to no file inside.
    """
    file, *more = lists
    if more:
        raise InputError(f"{str(file)!r} and {str(more[0])!r} list the same split; keep one of them")
    empty = pa.csv.ConvertOptions(null_values=[""], strings_can_be_null=True)  # an empty label is none
    try:
        table = pa.csv.read_csv(file, convert_options=empty) if file.suffix == ".csv" else pa.json.read_json(file)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{str(file)!r} cannot be read ({_short(error)}); write it as UTF-8 with a head line"
        ) from error
    if "file_name" not in table.column_names or "image" in table.column_names:
        listed = ", ".join(map(repr, table.column_names))
        raise InputError(f"{str(file)!r} has the columns {listed}; name the files in 'file_name', and none 'image'")
    names = table.column("file_name").to_pylist()
    odd = next((row for row, name in enumerate(names) if not isinstance(name, str) or not name), None)
    if odd is not None:
        raise InputError(f"{str(file)!r} names no file in row {odd}; give its path, as seen from the list's folder")
    gone = next((name for name in names if not (file.parent / name).exists()), None)
    if gone is not None:
        raise InputError(f"{str(file)!r} names {gone!r}, which is not there; paths are seen from the list's folder")
    paths = pa.array([_absolute(root, file.parent.relative_to(root) / name) for name in names], pa.string())
    images = pa.StructArray.from_arrays([pa.nulls(len(names), pa.binary()), paths], ["bytes", "path"])
    rest = table.drop_columns(["file_name"])
    features = Features({"image": Image(), **Features.from_arrow_schema(rest.schema)})
    return Dataset(pa.table([images, *rest.columns], schema=features.arrow_schema))


def _open_image_folders(root: Path, files: list[Path], table: str | None) -> dict[str, Dataset]:
    """Return the splits of class-per-folder images; images beside the class folders are not part of it."""
    nested = [file for file in files if len(file.parts) > 1]
    tops = sorted({file.parts[0] for file in nested})
    split_tops = {file.parts[0] for file in nested if len(file.parts) > 2 and file.parts[0].lower() in _SPLITS}
    if split_tops and split_tops != set(tops):
        beside = ", ".join(repr(top) for top in tops if top not in split_tops)
        listed = ", ".join(map(repr, sorted(split_tops)))
        raise InputError(
            f"{listed} in {str(root)!r} look like splits, but {beside} beside them does not; move or rename it"
        )
    depth = 1 if split_tops else 0
    rows: dict[str, list[tuple[str, str]]] = {}
    for file in nested:
        if len(file.parts) > depth + 1:
            split = _SPLITS[file.parts[0].lower()] if split_tops else "train"
            rows.setdefault(split, []).append((_absolute(root, file), file.parts[depth]))
    names = sorted({name for group in rows.values() for _, name in group})
    if len(names) < 2:
        found = f"only one folder of images, {names[0]!r}" if names else "images, but no folder per class"
        if table is not None:
            raise InputError(
                f"{str(root)!r} holds {found}, and {table!r}, which is not read: call it metadata.csv and its column "
                "of paths file_name, or put the images of each class into a folder of its own"
            )
        raise InputError(
            f"{str(root)!r} holds {found}; put the images of each class into a folder of its own, two classes or more"
        )
    return {split: _image_dataset(group, names) for split, group in rows.items()}


def _absolute(root: Path, file: Path) -> str:
    path = root.resolve() / file
    resolved = check_inside(path, root)
    if not resolved.is_file():
        raise InputError(f"{str(path)!r} is not a regular file; remove it")
    try:
        str(resolved).encode()
    except UnicodeEncodeError:
        raise InputError(f"the name {str(path)!a} is not valid UTF-8; rename it") from None
    return str(resolved)


def _image_dataset(rows: list[tuple[str, str]], names: list[str]) -> Dataset:
    position = {name: number for number, name in enumerate(names)}
    paths = pa.array([path for path, _ in rows], pa.string())
    images = pa.StructArray.from_arrays([pa.nulls(len(rows), pa.binary()), paths], ["bytes", "path"])
    labels = pa.array([position[name] for _, name in rows], pa.int64())
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    return Dataset(pa.table([images, labels], schema=features.arrow_schema))
