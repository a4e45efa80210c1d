"""Images in one folder per class: which folders are splits, which are classes, and what is neither."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image

from synthaug.core import InputError
from synthaug.data.columns import check_spellings
from synthaug.data.confinement import check_file
from synthaug.data.notices import PassedOver
from synthaug.data.split_names import find_split, name_splits, own_names

__all__ = ["check_stems", "image_column", "open_image_folders"]

_MASKS = frozenset(
    {"mask", "masks", "segmentation", "segmentations", "annotation", "annotations", "label", "labels"}
    | {"ground_truth", "groundtruth", "ground truth", "gt"}
)
"""Names of folders that hold pictures of where things are in other pictures, in lower case."""

_CONTAINERS = _MASKS | {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "jpegimages"}
"""Names of folders that say nothing of a class, in lower case."""

_MASK_FILE = re.compile(r"(.+?)[ _.-]+(masks?|seg|segmentation|gt|annotation|label)([ _-]?\d+)?", re.IGNORECASE)
_SHOWN = 3


@dataclass(frozen=True)
class _Row:
    """An image: its file, relative to the dataset's folder, and the folders below its split."""

    file: Path
    folders: tuple[str, ...]


def open_image_folders(
    root: Path, images: Sequence[Path], table: str | None, passed: PassedOver
) -> tuple[dict[str, Dataset], list[str]]:
    """Return the splits of class-per-folder images.

    Args:
        root: The dataset's folder.
        images: Its image files, relative to it.
        table: Name of a table beside them that is not read, for the error.
        passed: Counts what is not read.

    Returns:
        The splits, and notices.

    Raises:
        InputError: There are fewer than two classes, or the folders can be read in two ways.
    """
    splits = _split_folders(root, images, passed)
    rows = {name: _drop_masks(root, _drop_beside(group, name, passed), passed) for name, group in splits.items()}
    names = sorted({row.folders[0] for group in rows.values() for row in group if row.folders})
    _check_classes(root, images, names, table)
    check_spellings(names, f"the folders of {str(root)!r}")
    _check_subfolders(root, rows.values())
    for group in rows.values():
        check_stems(root, (row.file for row in group), "into folders called train and test")
    notices = [*_notice_splits(rows, splits), *_notice_classes(names), *_notice_subfolders(rows.values(), names)]
    made = {split: _image_dataset(root, group, names) for split, group in rows.items() if group}
    return made, notices


# ------------------------------------------------------------------------------------------------------- splits


def _split_folders(root: Path, images: Sequence[Path], passed: PassedOver) -> dict[str, list[_Row]]:
    """Return the images of each split; all are `train` where the top folders name none.

    Raises:
        InputError: Top folders may be splits or classes.
    """
    tops: dict[str, list[_Row]] = {}
    for file in images:
        if len(file.parts) > 1:
            tops.setdefault(file.parts[0], []).append(_Row(file, file.parts[1:-1]))
    found = {top: split for top, split in name_splits(tops).items() if split is not None}
    tops |= {top: _enter(tops[top], top) for top in found}
    deep = {top for top in found if any(row.folders for row in tops[top])}
    if not found or _is_class(found, deep, tops):
        return {"train": [_Row(file, file.parts[:-1]) for file in images]}
    others = [top for top in tops if top not in found]
    if others and deep:
        raise InputError(
            f"{_listed(found)} in {str(root)!r} look like splits, but {_listed(others)} beside them {_do(others)} not; "
            f"move {_listed(others)} away, rename the splits if all are classes, or give one split alone, such as "
            f"{str(root / _base(tops[min(deep, key=lambda top: found[top] != 'train')]))!r}"
        )
    if not deep:
        beside = f" beside {_listed(others)}" if others else ""
        what = "is a split without class folders or a class" if len(found) == 1 else "are splits or classes"
        raise InputError(
            f"cannot tell whether {_listed(found)} in {str(root)!r} {what}{beside}; for splits, put the images into "
            "folders such as train/CLASS or list them in a metadata.csv; for classes, rename them"
        )
    flat = next((top for top in found if top not in deep and found[top] == "train"), None)
    if flat is not None:
        raise InputError(
            f"{str(root / flat)!r} holds images but no class folders, though {_listed(deep)} {_do(deep)}; put the "
            "images of each class into a folder of its own"
        )
    called = own_names(list(found.items()))
    passed.add("image(s) beside the split folders", sum(len(file.parts) == 1 for file in images))
    return {called[top]: tops[top] for top in found}


def _is_class(found: dict[str, str], deep: set[str], tops: dict[str, list[_Row]]) -> bool:
    """Tell whether the only name of a split is a class beside others: `train`, the vehicle."""
    others = [top for top in tops if top.lower() not in _CONTAINERS and top not in found]
    return not deep and {top.lower() for top in found} == {"train"} and bool(others)


def _enter(rows: list[_Row], top: str) -> list[_Row]:
    """Return the rows of a split without a folder that only repeats its name: seg_train/seg_train/class."""
    inner = {row.folders[0] if row.folders else "" for row in rows}
    while len(inner) == 1 and (name := inner.pop()) and _repeats(name, top, rows):
        rows = [_Row(row.file, row.folders[1:]) for row in rows]
        inner = {row.folders[0] if row.folders else "" for row in rows}
    return rows


def _base(rows: list[_Row]) -> Path:
    """Return the folder that holds the class folders of a split."""
    above = rows[0].file.parent.parts
    return Path(*above[: len(above) - len(rows[0].folders)])


def _repeats(name: str, top: str, rows: list[_Row]) -> bool:
    if name == top or name_splits([name])[name] == find_split(top):
        return True
    return name.lower() in _CONTAINERS and any(len(row.folders) > 1 for row in rows)


# ------------------------------------------------------------------------------------------------------ classes


def _drop_beside(rows: list[_Row], split: str, passed: PassedOver) -> list[_Row]:
    """Return the rows that lie in a class folder; a split that has none keeps all, without labels."""
    inside = [row for row in rows if row.folders]
    if not inside and split != "train":
        return rows
    passed.add("image(s) beside the class folders", len(rows) - len(inside))
    return inside


def _drop_masks(root: Path, rows: list[_Row], passed: PassedOver) -> list[_Row]:
    """Return the rows without masks of other images: CLASS/masks/1.png, CLASS/1_mask.png beside CLASS/1.png.

    Raises:
        InputError: A class has nothing else.
    """
    stems = {(row.file.parent, row.file.stem) for row in rows}
    kept = []
    for row in rows:
        folder = next((name for name in row.folders[1:] if name.lower() in _MASKS), None)
        match = _MASK_FILE.fullmatch(row.file.stem)
        if folder is not None:
            passed.add(f"image(s) in folders called {folder!r}")
        elif match is not None and (row.file.parent, match[1]) in stems:
            passed.add("mask(s) named after the image beside")
        else:
            kept.append(row)
    lost = {row.folders[0] for row in rows if row.folders} - {row.folders[0] for row in kept if row.folders}
    if lost:
        name = min(lost)
        raise InputError(
            f"the class {name!r} in {str(root)!r} has images only in folders named like masks; rename them if they "
            "hold the images of the class, or move them away"
        )
    return kept


def _check_classes(root: Path, images: Sequence[Path], names: Sequence[str], table: str | None) -> None:
    if len(names) > 1 and not {name.lower() for name in names} <= _CONTAINERS:
        return
    if len(names) > 1:
        found = f"only the folders {_listed(names)}, which name no classes"
    else:
        found = f"only one folder of images, {names[0]!r}" if names else "images, but no folder per class"
    if table is not None:
        raise InputError(
            f"{str(root)!r} holds {found}, and {table!r}, which is not read: call it metadata.csv and its column "
            "of paths file_name, or put the images of each class into a folder of its own"
        )
    inner = _find_inner(images)
    remedy = f", or give {str(root / inner)!r} if its folders are the classes or splits" if inner else ""
    raise InputError(
        f"{str(root)!r} holds {found}; put the images of each class into a folder of its own, two classes or "
        f"more{remedy}"
    )


def _find_inner(images: Sequence[Path]) -> Path | None:
    """Return the first folder on the way down that holds several folders, where the way is the only one."""
    folders = [file.parts[:-1] for file in images]
    depth = 0
    while folders and all(len(parts) > depth for parts in folders) and len({parts[depth] for parts in folders}) == 1:
        depth += 1
    several = {parts[depth] for parts in folders if len(parts) > depth}
    return Path(*folders[0][:depth]) if depth and len(several) > 1 else None


def _check_subfolders(root: Path, groups: Iterable[Sequence[_Row]]) -> None:
    """Raise InputError where the classes hold folders named like several splits: cat/train, cat/test."""
    inner = {row.folders[1]: row for rows in groups for row in rows if len(row.folders) > 1}
    found = {name: split for name, split in name_splits(inner).items() if split is not None}
    if len(set(found.values())) > 1:
        shown = ", ".join(repr("/".join(inner[name].folders[:2])) for name in list(found)[:_SHOWN])
        raise InputError(
            f"{shown} in {str(root)!r} look like splits inside classes; put the splits on top, such as train/CLASS, "
            "or give them other names"
        )


def check_stems(root: Path, files: Iterable[Path], remedy: str) -> None:
    """Raise InputError where every file of what is read as one split is named like a split, and several splits occur.

    Args:
        root: The dataset's folder.
        files: Image files.
        remedy: Where to put them.
    """
    first: dict[str, Path] = {}
    for file in files:
        if (split := find_split(file.stem)) is None:
            return
        first.setdefault(split, file)
    if len(first) > 1:
        shown = ", ".join(repr(file.name) for file in first.values())
        raise InputError(f"files in {str(root)!r} are named like splits ({shown}); put them {remedy}, or rename them")


# ------------------------------------------------------------------------------------------------------ notices


def notice_names(splits: Iterable[str]) -> list[str]:
    """Return a notice for each split that keeps its own name because another one has the same word."""
    words = {name: find_split(name) for name in splits}
    own = [(name, word) for name, word in words.items() if word != name and list(words.values()).count(word) > 1]
    return [f"{name!r} is read as a split of its own, apart from {word!r}" for name, word in own if word]


def _notice_splits(rows: dict[str, list[_Row]], splits: dict[str, list[_Row]]) -> list[str]:
    unlabelled = [name for name, group in rows.items() if group and not any(row.folders for row in group)]
    notices = [f"the split {name!r} has no class folders: its rows are unlabelled" for name in unlabelled]
    return notices + notice_names(splits)


def _notice_classes(names: Sequence[str]) -> list[str]:
    odd = [name for name in names if name.lower() in _CONTAINERS or find_split(name) == name.lower()]
    return [f"the folder {name!r} is read as a class" for name in odd]


def _notice_subfolders(groups: Iterable[Sequence[_Row]], names: Sequence[str]) -> list[str]:
    """Return a notice where all classes hold the same folders, which may be the classes themselves."""
    inner: dict[str, set[str]] = {name: set() for name in names}
    for rows in groups:
        for row in rows:
            if len(row.folders) > 1:
                inner[row.folders[0]].add(row.folders[1])
    same = inner[names[0]]
    if len(same) < 2 or any(found != same for found in inner.values()):
        return []
    return [f"the folders {_listed(sorted(same))} in every class are read as parts of the class"]


def _listed(names: Iterable[str]) -> str:
    shown = sorted(names)
    more = len(shown) - _SHOWN
    return ", ".join(map(repr, shown[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _do(names: Iterable[str]) -> str:
    return "does" if len(list(names)) == 1 else "do"


# --------------------------------------------------------------------------------------------------------- rows


def image_column(paths: Sequence[str]) -> pa.StructArray:
    """Return an image column whose rows name files."""
    column = pa.array(paths, pa.string())
    return pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), column], ["bytes", "path"])


def _image_dataset(root: Path, rows: Sequence[_Row], names: Sequence[str]) -> Dataset:
    position = {name: number for number, name in enumerate(names)}
    images = image_column([check_file(row.file, root) for row in rows])
    labels = pa.array([position[row.folders[0]] if row.folders else -1 for row in rows], pa.int64())
    features = Features({"image": Image(), "label": ClassLabel(names=list(names))})
    return Dataset(pa.table([images, labels], schema=features.arrow_schema))
