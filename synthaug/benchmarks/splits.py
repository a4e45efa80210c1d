"""The rows of a benchmark: who trains, who chooses, who judges, and whether any of them leaked."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from synthaug.benchmarks.grouping import Grouping, find_grouping, source_kind
from synthaug.core import InputError
from synthaug.data import (
    LabeledImages,
    LeakCheck,
    check_leaks,
    choose_columns,
    find_near_duplicates,
    join_images,
    limit_images,
    load_images,
    read_labels,
    real_rows,
    run_hashes,
    split_validation,
)

__all__ = ["Splits", "load_splits"]

_NEAR = 0.1
_LISTED = 5


@dataclass(frozen=True)
class Splits:
    """Every row of a benchmark, decoded.

    Args:
        train: Real rows the arms train on.
        validation: Real rows that make every choice.
        sources: Name -> synthetic rows from there.
        oracle: Further real rows, which no arm but the oracles sees; None where there are none.
        test: Rows that judge.
        leaks: What the leak check found.
        near_duplicates: (kind, test row, row of that kind, distance), nearest first.
        notes: Remarks on the rows.
        groups: Their joint groups, where they are grouped by several columns.
    """

    train: LabeledImages
    validation: LabeledImages
    sources: Mapping[str, LabeledImages]
    oracle: LabeledImages | None
    test: LabeledImages
    leaks: LeakCheck
    near_duplicates: tuple[tuple[str, int, int, float], ...]
    notes: tuple[str, ...]
    groups: Grouping | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in label order."""
        return self.train.class_names

    @property
    def shown_bytes(self) -> int:
        """Most bytes of pixels that a training shows: the real rows and all of any others."""
        return int(self.train.pixels.nbytes + sum(rows.pixels.nbytes for rows in self.sources.values()))

    @functools.cached_property
    def synthetic(self) -> LabeledImages:
        """All synthetic rows, source after source."""
        return join_images(list(self.sources.values()))

    def strata(self, kind: str) -> NDArray[np.int64] | None:
        """Return the groups of the rows of a kind; of "synthetic" those of all sources. None without any."""
        if self.groups is None:
            return None
        index = self.groups.index
        if kind in index:
            return index[kind]
        chosen = [kind] if kind in self.sources else list(self.sources)
        return np.concatenate([index[source_kind(name)] for name in chosen])

    @property
    def stratum_counts(self) -> list[int]:
        """Training rows of each class, or of each group that has any."""
        if self.groups is None:
            return list(self.train.class_counts.values())
        return [number for number in self.groups.count("train").tolist() if number]

    def digests(self) -> dict[str, str]:
        """Return a sha256 for each kind of rows: their pixels and classes, in order."""
        parts = {
            "real": (self.train, self.validation), "synthetic": tuple(self.sources.values()), "test": (self.test,),
            "oracle": () if self.oracle is None else (self.oracle,),
        }  # fmt: skip
        return {kind: _digest(rows) for kind, rows in parts.items()}


def _digest(parts: tuple[LabeledImages, ...]) -> str:
    digest = hashlib.sha256()
    for images in parts:
        digest.update(repr((images.class_names, images.pixels.shape)).encode())
        digest.update(np.ascontiguousarray(images.labels).tobytes())
        for start in range(0, len(images), 4_096):
            digest.update(np.ascontiguousarray(images.pixels[start : start + 4_096]).tobytes())
    return digest.hexdigest()


def load_splits(
    real: Dataset,
    synthetic: Mapping[str, Dataset],
    test: Dataset | None,
    *,
    oracle: Dataset | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    group_by: Sequence[str] | None = None,
    image_size: int | None = None,
    limit_per_class: int | None = None,
    on_bad_image: str = "error",
    source: Mapping[str, Any] | None = None,
    drop_leaks: bool = False,
) -> Splits:
    """Decode all rows through one codec, hold out the validation rows and check for leaks.

    The validation rows are those the run held out, when `source` knows them; else `split_validation` chooses.

    Args:
        real: Real rows; rows marked as synthetic are left out.
        synthetic: Name -> its rows marked as synthetic, or all where nothing is marked.
        test: Rows that judge; rows marked as synthetic are left out. None where nothing is judged yet.
        oracle: Further real rows, for the oracle arms; those beyond `limit_per_class` when None.
        image_column: Image column of the real rows; found when None.
        label_column: Label column of the real rows; found when None.
        group_by: Columns, the label among them, whose joint groups are sampled and judged.
        image_size: Side at which everything is compared; from the real rows when None.
        limit_per_class: Real rows taken of each class, or of each group.
        on_bad_image: "error" or "skip".
        source: The run's source.json, for its row hashes.
        drop_leaks: Remove real and synthetic rows that equal a test row, instead of refusing.

    Raises:
        InputError: Columns or classes that do not fit, or a leak.
    """
    run = run_hashes(source)
    grouping = None
    if group_by is not None:
        columns = choose_columns(real, image_column, label_column, group_by)
        others = [rows for rows in (*synthetic.values(), test, oracle) if rows is not None]
        grouping, label_column = find_grouping(real, others, columns, group_by), columns.label
    everything = load_images(
        real, image_column=image_column, label_column=label_column, image_size=image_size, on_bad_image=on_bad_image,
        group_by=group_by, class_names=None if grouping is None else grouping.names,
    )  # fmt: skip
    whole = everything if limit_per_class is None else limit_images(everything, limit_per_class)
    like: dict[str, Any] = {
        "codec": whole.codec, "class_names": whole.class_names, "on_bad_image": on_bad_image, "group_by": group_by
    }  # fmt: skip
    made = {
        name: load_images(_grouped_rows(_synthetic_rows(rows), name, group_by), **_columns_in(rows, whole), **like)
        for name, rows in synthetic.items()
    }
    judging = whole.take(np.zeros(0, dtype=np.int64))
    if test is not None:
        judging = load_images(test, **_columns_in(test, whole), **like)
    further = everything.take(np.flatnonzero(~np.isin(everything.rows, whole.rows)))
    if oracle is not None:
        further = load_images(oracle, **_columns_in(oracle, whole), **like)
    kinds = {"real": whole, **{_kind(name, made): rows for name, rows in made.items()}}
    leaks = check_leaks(
        judging.hashes, {kind: rows.hashes for kind, rows in kinds.items()}, run,
        test_rows=judging.rows, drop=drop_leaks,
    )  # fmt: skip
    kinds = {kind: rows.take(np.flatnonzero(leaks.keep[kind])) for kind, rows in kinds.items()}
    whole, made = kinds["real"], {name: kinds[_kind(name, made)] for name in made}
    further = further.take(np.flatnonzero(~np.isin(further.hashes, np.union1d(whole.hashes, judging.hashes))))
    train, validation, notes = _hold_out(whole, run)
    if grouping is not None:
        parts = {"train": train, "validation": validation, "oracle": further, "test": judging}
        parts |= {source_kind(name): rows for name, rows in made.items()}
        grouping = replace(grouping, index={kind: rows.labels for kind, rows in parts.items()})
        parts = {kind: _without_groups(rows, grouping) for kind, rows in parts.items()}
        train, validation, further, judging = (parts[kind] for kind in ("train", "validation", "oracle", "test"))
        made = {name: parts[source_kind(name)] for name in made}
    union = join_images(list(made.values()))
    _check_rows(train, made)
    near = _near_duplicates(judging, {"real": whole, "synthetic": union})
    copied = find_near_duplicates(validation.pixels, union.pixels, threshold=_NEAR)
    if copied:
        notes.append(
            f"{len(copied)} of the {len(validation)} validation rows look nearly like a synthetic row, so the choices "
            "favour the synthetic rows; the verdict on test rows does not."
        )
    notes += _describe_gaps(train, validation, union, judging)
    return Splits(
        train, validation, made, further if len(further) else None, judging, leaks, near, tuple(notes), grouping
    )


def _without_groups(images: LabeledImages, grouping: Grouping) -> LabeledImages:
    """Return the images with their label as the class, instead of their group."""
    return replace(images, labels=grouping.classes[images.labels], class_names=grouping.class_names)


def _kind(name: str, made: Mapping[str, LabeledImages]) -> str:
    """Return how the rows of a source are called in messages."""
    return "synthetic" if len(made) == 1 else f"synthetic ({name})"


def _synthetic_rows(dataset: Dataset) -> Dataset:
    """Return the rows marked as synthetic, without the mark, or all rows where none is marked."""
    if "synthetic" not in dataset.column_names:
        return dataset
    chosen = np.flatnonzero(~real_rows(dataset))
    if not len(chosen):
        raise InputError(
            f"none of the {len(dataset)} rows of the synthetic dataset is marked as synthetic; "
            "give a dataset with synthetic rows"
        )
    marks = [name for name in ("synthetic", "provenance") if name in dataset.column_names]
    return dataset.select(chosen).remove_columns(marks)


def _grouped_rows(dataset: Dataset, name: str, group_by: Sequence[str] | None) -> Dataset:
    """Return the synthetic rows, checked to have values in the columns that make the groups."""
    for column in group_by or ():
        if column in dataset.features and not (read_labels(dataset, column).index >= 0).any():
            raise InputError(
                f"the rows of {name!r} have no value in {column!r}, one of the columns in group_by; generate them from "
                f"a run that was fitted with the same group_by ({','.join(group_by or ())})"
            )
    return dataset


def _columns_in(dataset: Dataset, like: LabeledImages) -> dict[str, Any]:
    """Return the columns of the real rows where this dataset has them too; the others are found."""
    named = {"image_column": like.columns.image, "label_column": like.columns.label}
    return {argument: name for argument, name in named.items() if name in dataset.column_names}


def _hold_out(
    images: LabeledImages, run: Mapping[str, list[str]] | None
) -> tuple[LabeledImages, LabeledImages, list[str]]:
    """Return (train, validation, notes)."""
    held = np.isin(images.hashes, np.array((run or {}).get("validation", []), dtype=str))
    if run is None or not held.any():
        train, validation = split_validation(images)
        seen = np.isin(validation.hashes, np.array((run or {}).get("train", []), dtype=str))
        if seen.any():
            return train, validation, [
                f"The run was fitted on {int(seen.sum())} of the {len(validation)} rows that chose here, "
                "because it held out none of these rows; that favours the synthetic arm."
            ]  # fmt: skip
        return train, validation, []
    return images.take(np.flatnonzero(~held)), images.take(np.flatnonzero(held)), []


def _check_rows(train: LabeledImages, synthetic: Mapping[str, LabeledImages]) -> None:
    empty = [name for name, rows in train.class_counts.items() if rows == 0]
    if empty:
        raise InputError(f"class {empty[0]!r} has no training row left; give real rows of every class")
    for name, rows in synthetic.items():
        if not len(rows):
            raise InputError(
                f"no synthetic row of {name!r} is left; give a synthetic dataset that is not made of test rows"
            )


def _near_duplicates(
    test: LabeledImages, others: Mapping[str, LabeledImages]
) -> tuple[tuple[str, int, int, float], ...]:
    found = [
        (kind, int(test.rows[query]), int(images.rows[row]), distance)
        for kind, images in others.items()
        for query, row, distance in find_near_duplicates(test.pixels, images.pixels, threshold=_NEAR)
    ]
    return tuple(sorted(found, key=lambda item: item[3]))


def _describe_gaps(
    train: LabeledImages, validation: LabeledImages, synthetic: LabeledImages, test: LabeledImages
) -> list[str]:
    """Return remarks on classes that miss one kind of rows, and on rows that were left out."""
    notes = []
    for kind, images, consequence in (
        ("synthetic", synthetic, "the arm on synthetic rows alone cannot know them"),
        ("validation", validation, "they had no say in any choice"),
        ("test", test, "they do not count in any number here"),
    ):
        missing = [name for name, rows in images.class_counts.items() if rows == 0]
        if missing:
            notes.append(f"Classes without {kind} rows: {_list_names(missing)}; {consequence}.")
    for kind, images in (("real", train), ("synthetic", synthetic), ("test", test)):
        if images.corrupt:
            notes.append(f"{len(images.corrupt)} corrupt {kind} rows were left out.")
        if images.unlabelled:
            notes.append(f"{images.unlabelled} {kind} rows without a label were left out.")
    return notes


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - 2 * _LISTED} more" if len(names) > 2 * _LISTED else ""
    return ", ".join(names[: 2 * _LISTED]) + more
