"""Datasets on disk: class-per-folder images, images with a list, Parquet files, folders of `save_to_disk`."""

from __future__ import annotations

import glob
import json
import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image
from huggingface_hub.utils import logging as hub_logging

from synthaug.core import MARK, InputError
from synthaug.data.codec import SUFFIXES
from synthaug.data.columns import as_image_columns
from synthaug.data.confinement import check_file, check_inside, confine, describe_special, replace_column
from synthaug.data.image_folders import notice_names, open_image_folders
from synthaug.data.lists import LISTS, open_lists
from synthaug.data.notices import PassedOver, add_notices
from synthaug.data.split_names import find_split, own_names
from synthaug.data.table_files import check_arrow, read_features, read_parquet

__all__ = ["check_cache", "open_folder", "open_glob", "open_parquet", "quiet_datasets"]

_SHARD = re.compile(r"([\w.]+)-\d{5}-of-\d{5}(-[0-9a-f]+)?")
_PART = re.compile(r"[ _.-]*(?<!\d)(?!(19|20)\d\d$)\d+$")
"""The number of a part at the end of a file's name: train_3, train-00012. A year is none."""


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

    What is passed over, and what may be read in two ways, is in the notices of every split.

    Raises:
        InputError: It is none of these, it can only be guessed what is meant, or something in it leads outside.
    """
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        return _open_saved(root)
    if (root / "model.safetensors").is_file():
        raise InputError(
            f"{str(root)!r} is a run folder, not a dataset; give the dataset it was fitted on or one it generated"
        )
    passed = PassedOver()
    files = [file.relative_to(root) for file in _walk(root, passed)]
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    lists = [file for file in files if file.name in LISTS and images]
    tables = [file for file in files if file.suffix.lower() == ".parquet" and file not in lists]
    if not images and not tables:
        passed.add_files(files)
        there = f" ({passed.describe()})" if passed.describe() else ""
        raise InputError(
            f"{str(root)!r} holds no images and no Parquet files{there}; give a folder with one folder of images "
            "per class, with Parquet files, or one made by save_to_disk"
        )
    if tables:
        splits, notices = _open_tables(root, tables, images, passed)
        read = {*tables, *images}
    elif lists:
        splits, notices = open_lists(root, lists, images, passed)
        read = {*images, *lists}
    else:
        splits, notices = open_image_folders(root, images, _find_foreign_list(files), passed)
        read = set(images)
    rest = [file for file in files if file not in read]
    passed.add_files(rest)
    return add_notices(splits, [passed.describe(), *notices, _notice_empty(rest, read)])


def _find_foreign_list(files: Sequence[Path]) -> str | None:
    """Return the name of a table that might say what the images are, but is not called so."""
    return next((file.name for file in files if file.suffix.lower() in (".csv", ".tsv", ".jsonl")), None)


def _notice_empty(rest: Sequence[Path], read: Collection[Path]) -> str:
    """Return a notice of folders with files of which none is read, which may be classes."""
    known = {folder for file in read for folder in file.parents}
    empty = sorted(
        {next(f for f in reversed(file.parents) if f not in known) for file in rest if file.parent not in known}
    )
    more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
    return f"nothing is read from the folders {', '.join(repr(f.as_posix()) for f in empty[:3])}{more}" if empty else ""


def _walk(root: Path, passed: PassedOver) -> Iterator[Path]:
    """Yield the regular files under `root` in a fixed order, links resolved inside it and no folder entered twice.

    Hidden files and folders, and what other commands wrote into it, are passed over. Nothing is opened.

    Raises:
        InputError: A folder cannot be read, a link leads outside, or what is called like an image or a table is neither
            a file nor a folder.
    """
    waiting: list[tuple[Path, frozenset[Path]]] = [(root, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        here = check_inside(folder, root)
        if here in above:
            passed.add("link(s) to a folder that holds them")
            continue
        folders = []
        for entry in _list_folder(folder):
            path = folder / entry.name
            if entry.name.startswith((".", "__MACOSX")):
                if path.suffix.lower() in SUFFIXES and not entry.name.startswith("._"):
                    passed.add("hidden image(s)")
            elif _is(entry, "is_dir"):
                if _is_output(path):
                    passed.add(f"folder {entry.name!r} that synthaug wrote")
                else:
                    folders.append(path)
            elif _is(entry, "is_file"):
                yield path
            elif path.suffix.lower() in {*SUFFIXES, ".parquet"} or path.name in LISTS:
                raise InputError(f"{str(path)!r} is {describe_special(path)}; remove it")
            else:
                passed.add(f"special file(s) ({describe_special(path)})")
        waiting += [(path, above | {here}) for path in reversed(folders)]


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    """Tell whether an entry, or what a link leads to, is a file or a folder; False for a link in a circle."""
    try:
        return bool(getattr(entry, kind)())
    except OSError:
        return False


def _list_folder(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be read ({error.strerror or error}); check its permissions") from None


def _is_output(folder: Path) -> bool:
    """Tell whether a command made this folder; a copy of it may lack the hidden mark."""
    names = (MARK, "synthaug.json", "model.safetensors")
    return any((folder / name).is_file() for name in names)


def _open_saved(root: Path) -> dict[str, Dataset]:
    try:
        folders = {"train": root}
        if (root / "dataset_dict.json").is_file():
            named = json.loads((root / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            folders = {name: check_inside(root / name, root) for name in named}
        for folder in folders.values():
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            for file in state["_data_files"]:
                check_arrow(Path(check_file((folder / file["filename"]).resolve(), root)))
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


def _open_tables(
    root: Path, tables: Sequence[Path], images: Sequence[Path], passed: PassedOver
) -> tuple[dict[str, Dataset], list[str]]:
    """Return the splits of Parquet files, and notices."""
    groups = _by_split(root, tables)
    for name, shards in groups.items():
        folders = sorted({str(shard.parent) for shard in shards})
        if len(folders) > 1:
            listed = ", ".join(map(repr, folders))
            raise InputError(f"{str(root)!r} holds the split {name!r} in several folders ({listed}); give one of them")
    splits = {name: _read_tables(shards) for name, shards in groups.items()}
    if images and not any(isinstance(kind, Image) for split in splits.values() for kind in split.features.values()):
        raise InputError(
            f"{str(root)!r} holds {len(images):,} image files and the Parquet file {tables[0].as_posix()!r} without "
            "images; move it away to read the image files, or put the images into it"
        )
    passed.add("image file(s) beside Parquet files", len(images))
    return {name: confine(split, [root], str(root)) for name, split in splits.items()}, notice_names(splits)


def _by_split(root: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the Parquet files of each split.

    Args:
        root: The dataset's folder.
        files: Files in it, relative to it.

    Raises:
        InputError: Some files name a split and others do not.
    """
    found = {file: _name_split(file) for file in files}
    named = dict.fromkeys(pair for pair in found.values() if pair is not None)
    rest = next((file for file, pair in found.items() if pair is None), None)
    if named and rest is not None:
        file = next(file for file, pair in found.items() if pair is not None)
        raise InputError(
            f"{file.as_posix()!r} in {str(root)!r} names a split, but {rest.as_posix()!r} beside it does not; move it "
            "away, or give the files of one split, such as 'DIR/train*.parquet'"
        )
    called = own_names(list(named)) if named else {}
    splits: dict[str, list[Path]] = {}
    for file, pair in found.items():
        check_inside(root / file, root)
        splits.setdefault("train" if pair is None else called[pair[0]], []).append(root / file)
    return splits


def _name_split(file: Path) -> tuple[str, str] | None:
    """Return what names the split of a Parquet file, and the split; None where nothing does."""
    shard = _SHARD.fullmatch(file.stem)
    if shard:
        return shard[1], shard[1]
    for part in (_PART.sub("", file.stem), *reversed(file.parts[:-1])):
        split = find_split(part)
        if split is not None:
            return part, split
    return None


def open_parquet(file: Path) -> dict[str, Dataset]:
    """Return the single split "train" of a Parquet file; its rows may name no other file."""
    return {"train": confine(_read_tables([file]), [], str(file))}


def open_glob(pattern: str) -> dict[str, Dataset]:
    """Return the splits of the Parquet files that match, by name; where only one is named, as "train" (but for shards).

    Raises:
        InputError: Nothing matches, or a match leads outside the pattern's own folder.
    """
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  the pattern may be absolute
    files = [Path(name) for name in matches if name.lower().endswith(".parquet")]
    if not files:
        raise InputError(f"no Parquet file matches {pattern!r}; check the folder and the ending .parquet")
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    base = Path(os.path.dirname(fixed) or ".")  # noqa: PTH120  Path would drop the slash at the end
    for file in files:
        check_inside(file, base)
        if not file.is_file():
            raise InputError(f"{str(file)!r} is {describe_special(file) or 'a folder'}, not a Parquet file; remove it")
    groups = _by_split(base, [Path(os.path.relpath(file, base)) for file in files])
    if len(groups) == 1 and not all(_SHARD.fullmatch(file.stem) for file in files):
        groups = {"train": next(iter(groups.values()))}
    splits = {name: confine(_read_tables(group), [], pattern) for name, group in groups.items()}
    return add_notices(splits, notice_names(splits))


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


def check_cache() -> None:
    """Raise InputError unless `datasets` can write its cache folder; it would blame the data."""
    folder = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return
        reason = "no permission to write"
    except OSError as error:
        reason = str(error.strerror or error)
    names = ("HF_DATASETS_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME")
    name = next((name for name in names if os.environ.get(name)), "HF_HOME")
    raise InputError(
        f"the cache folder {str(folder)!r} cannot be used ({reason}): it comes from the environment variable {name}; "
        "set HF_HOME to a folder that you may write"
    )


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
