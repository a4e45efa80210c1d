"""The rows of a benchmark: who trains, who chooses, who judges, and whether any of them leaked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from synthaug.benchmarks.cells import CellData
from synthaug.columns import real_rows
from synthaug.data import LabeledImages, load_images, split_validation
from synthaug.errors import InputError
from synthaug.leaks import LeakCheck, check_leaks, run_hashes
from synthaug.neighbours import find_near_duplicates

__all__ = ["Contest", "load_contest"]

_NEAR = 0.1
_LISTED = 5


@dataclass(frozen=True)
class Contest:
    """Every row of a benchmark, decoded.

    Args:
        train: Real rows the arms train on.
        validation: Real rows that make every choice.
        synthetic: Synthetic rows.
        test: Rows that judge.
        leaks: What the leak check found.
        near_duplicates: (kind, test row, row of that kind, distance), nearest first.
        notes: Remarks on the rows.
    """

    train: LabeledImages
    validation: LabeledImages
    synthetic: LabeledImages
    test: LabeledImages
    leaks: LeakCheck
    near_duplicates: tuple[tuple[str, int, int, float], ...]
    notes: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in label order."""
        return self.train.class_names

    def arrays(self) -> CellData:
        """Return what cells train on and measure with."""
        return CellData(
            len(self.class_names),
            self.train.pixels, self.train.labels,
            self.synthetic.pixels, self.synthetic.labels,
            self.validation.pixels, self.validation.labels,
            self.test.pixels, self.test.labels,
        )  # fmt: skip

    def digests(self) -> dict[str, str]:
        """Return a sha256 for each kind of rows: their pixels and classes, in order."""
        parts = {
            "real": (self.train, self.validation), "synthetic": (self.synthetic,), "test": (self.test,)
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


def load_contest(
    real: Dataset,
    synthetic: Dataset,
    test: Dataset,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    image_size: int | None = None,
    limit_per_class: int | None = None,
    on_bad_image: str = "error",
    source: Mapping[str, Any] | None = None,
    drop_leaks: bool = False,
) -> Contest:
    """Decode all rows through one codec, hold out the validation rows and check for leaks.

    The validation rows are those the run held out, when `source` knows them; else `split_validation` chooses.

    Args:
        real: Real rows; rows marked as synthetic are left out.
        synthetic: Its rows marked as synthetic, or all where nothing is marked.
        test: Rows that judge; rows marked as synthetic are left out.
        image_column: Image column of the real rows; found when None.
        label_column: Label column of the real rows; found when None.
        image_size: Side at which everything is compared; from the real rows when None.
        limit_per_class: Real rows taken of each class.
        on_bad_image: "error" or "skip".
        source: The run's source.json, for its row hashes.
        drop_leaks: Remove real and synthetic rows that equal a test row, instead of refusing.

    Raises:
        InputError: Columns or classes that do not fit, or a leak.
    """
    run = run_hashes(source)
    whole = load_images(
        real, image_column=image_column, label_column=label_column, image_size=image_size,
        limit_per_class=limit_per_class, on_bad_image=on_bad_image,
    )  # fmt: skip
    like: dict[str, Any] = {
        "codec": whole.codec, "class_names": whole.class_names, "on_bad_image": on_bad_image
    }  # fmt: skip
    made = load_images(_synthetic_rows(synthetic), **_columns_in(synthetic, whole), **like)
    judging = load_images(test, **_columns_in(test, whole), **like)
    arms = {"real": whole.hashes, "synthetic": made.hashes}
    leaks = check_leaks(judging.hashes, arms, run, test_rows=judging.rows, drop=drop_leaks)
    whole = whole.take(np.flatnonzero(leaks.keep["real"]))
    made = made.take(np.flatnonzero(leaks.keep["synthetic"]))
    train, validation, notes = _hold_out(whole, run)
    _check_rows(train, made)
    near = _near_duplicates(judging, {"real": whole, "synthetic": made})
    copied = find_near_duplicates(validation.pixels, made.pixels, threshold=_NEAR)
    if copied:
        notes.append(
            f"{len(copied)} of the {len(validation)} validation rows look nearly like a synthetic row, so the choices "
            "favour the synthetic rows; the verdict on test rows does not."
        )
    notes += _describe_gaps(train, validation, made, judging)
    return Contest(train, validation, made, judging, leaks, near, tuple(notes))


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


def _check_rows(train: LabeledImages, synthetic: LabeledImages) -> None:
    empty = [name for name, rows in train.class_counts.items() if rows == 0]
    if empty:
        raise InputError(f"class {empty[0]!r} has no training row left; give real rows of every class")
    if not len(synthetic):
        raise InputError("no synthetic row is left; give a synthetic dataset that is not made of test rows")


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
