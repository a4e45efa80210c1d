"""The rows of an evaluation: synthetic ones, those the run was fitted on, those it held out, and test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from synthaug.analysis.evaluation.samples import Draws
from synthaug.core import InputError
from synthaug.data import Codec, LabeledImages, check_leaks, load_images, run_hashes
from synthaug.generators import ConditionalGenerator

__all__ = ["ComparedRows", "RealRows", "load_real_rows", "take_evenly"]

_LEAST = 20
"""Fewer validation rows than these cannot calibrate the copy test; test rows do so instead."""


@dataclass(frozen=True)
class RealRows:
    """The real rows of an evaluation.

    Args:
        train: Rows the generator was fitted on.
        validation: Rows its fit held out; may be empty.
        test: Rows that judge.
        leaks: "clean", or "not checked" where the run's row hashes are not known.
        notes: Remarks on the rows.
    """

    train: LabeledImages
    validation: LabeledImages
    test: LabeledImages
    leaks: str
    notes: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in label order."""
        return self.train.class_names

    @property
    def held_out(self) -> LabeledImages:
        """Rows that calibrate the copy test: those the fit held out, or the test rows where these are few."""
        return self.validation if len(self.validation) >= _LEAST else self.test

    @property
    def held_out_kind(self) -> str:
        """What `held_out` is: "validation" or "test"."""
        return "validation" if len(self.validation) >= _LEAST else "test"


@dataclass(frozen=True)
class ComparedRows:
    """Real and synthetic rows side by side.

    Args:
        real: The real rows.
        synthetic: The synthetic ones.
    """

    real: RealRows
    synthetic: Draws


def load_real_rows(
    generator: ConditionalGenerator,
    source: Mapping[str, Any],
    test: Dataset,
    *,
    real: Dataset | None = None,
    on_bad_image: str = "error",
    drop_leaks: bool = False,
) -> RealRows:
    """Find the rows a generator was fitted on and those it held out, and check that it has seen no test row.

    Args:
        generator: The generator.
        source: The run's source.json; empty for a generator that lies in no run folder.
        test: Rows that judge; rows marked synthetic are left out.
        real: Rows among which the run's are found by their pixel hashes. What `source` names is not opened.
        on_bad_image: For corrupt test rows, "error" or "skip".
        drop_leaks: Leave out test rows that the run has seen, instead of refusing.

    Raises:
        InputError: If the run's rows are not given or not found, a class is unknown, or the run has seen a test row.
    """
    if real is None:
        raise InputError(
            "evaluate needs the rows that the run was fitted on, and does not open what the run names; name them with "
            "real=DATASET"
        )
    names, codec = tuple(generator.class_names), Codec.from_dict(source["codec"]) if source else None
    like: dict[str, Any] = {"class_names": names, "image_size": None if codec else generator.image_size, "codec": codec}
    known = run_hashes(source)
    whole = load_images(real, **_columns_in(real, source), **like, on_bad_image="skip")
    _check_channels(generator, whole)
    judging = load_images(
        test, **_columns_in(test, source), class_names=names, codec=whole.codec, on_bad_image=on_bad_image
    )
    train, validation, notes = _split(whole, known)
    seen = known or {"training": train.hashes.tolist()}
    if judging.corrupt:
        notes.append(f"{len(judging.corrupt)} corrupt test rows were left out.")
    if drop_leaks:
        fair = ~np.isin(judging.hashes, [value for part in seen.values() for value in part])
        if not fair.all():
            notes.append(f"{int((~fair).sum())} test rows that the run has seen were left out.")
        judging = judging.take(np.flatnonzero(fair))
    remedy = "add drop_leaks=True to leave these out, or give other test rows"
    check_leaks(judging.hashes, {}, seen, test_rows=judging.rows, drop=False, remedy=remedy)
    return RealRows(
        train,
        validation,
        judging,
        "clean" if known else "not checked",
        (*notes, *_describe_gaps(train, judging)),
    )


def _columns_in(dataset: Dataset, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's columns where this dataset has them too; the others are found."""
    named = {argument: source.get(argument) for argument in ("image_column", "label_column")}
    found: dict[str, Any] = {argument: name for argument, name in named.items() if name in dataset.column_names}
    return {**found, "group_by": source.get("group_by")}


def _check_channels(generator: ConditionalGenerator, whole: LabeledImages) -> None:
    shape = (generator.image_size, generator.image_size, generator.channels)
    if whole.codec.shape != shape:
        raise InputError(
            f"the real rows become images of {whole.codec.shape} (height, width, channels) and the generator's are "
            f"{shape}; give the rows it was fitted on"
        )


def _split(
    whole: LabeledImages, known: Mapping[str, list[str]] | None
) -> tuple[LabeledImages, LabeledImages, list[str]]:
    """Return (train, validation, notes); without the run's hashes every row counts as trained on."""
    if known is None:
        nothing = whole.take(np.zeros(0, dtype=np.int64))
        return whole, nothing, ["The run's row hashes are not known: all real rows count as rows it was fitted on."]
    parts = {name: np.isin(whole.hashes, np.array(known.get(name, []), dtype=str)) for name in ("train", "validation")}
    train = whole.take(np.flatnonzero(parts["train"]))
    if not len(train):
        raise InputError(
            f"none of the {len(whole)} real rows is among the {len(known.get('train', []))} rows the run was fitted "
            "on; give the dataset it was fitted on with real=DATASET"
        )
    notes, missing = [], len(set(known["train"]) - set(train.hashes.tolist()))
    if missing:
        notes.append(
            f"{missing} of the {len(set(known['train']))} images the run was fitted on are not among the real rows, "
            "so copies of them are not found."
        )
    return train, whole.take(np.flatnonzero(parts["validation"] & ~parts["train"])), notes


def _describe_gaps(train: LabeledImages, test: LabeledImages) -> list[str]:
    notes = []
    for kind, images in (("training", train), ("test", test)):
        missing = [name for name, rows in images.class_counts.items() if not rows]
        if missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            notes.append(f"Classes without {kind} rows: {', '.join(missing[:10])}{more}.")
    return notes


def take_evenly(labels: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions, ascending, of the first `counts[c]` rows of each class c.

    Args:
        labels: (N,) int64.
        counts: (K,) int64, no more than there are.
    """
    chosen = [np.flatnonzero(labels == label)[:count] for label, count in enumerate(counts.tolist()) if count]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
