"""What the cells of a benchmark train on: the splits's rows, and those that its arms ask for besides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synthaug.benchmarks.arms import BEST, SYNTHETIC, Arm
from synthaug.benchmarks.baselines import BASELINES, draw_baseline, draw_latent_smote
from synthaug.benchmarks.cells import CellData, Rows
from synthaug.benchmarks.splits import Splits
from synthaug.core import InputError
from synthaug.data import LabeledImages
from synthaug.generators import ConditionalGenerator

__all__ = ["collect_data"]

_SEED = 0


def collect_data(splits: Splits, arms: Sequence[Arm], generator: ConditionalGenerator | None = None) -> CellData:
    """Return every row that these arms train on, choose by or are judged by; computed once for all of them.

    Args:
        splits: The rows.
        arms: The arms.
        generator: Encodes and decodes for latent SMOTE.

    Raises:
        InputError: An arm asks for further real rows and there are none, or for latent SMOTE without a generator.
    """
    kinds = dict.fromkeys(arm.rows for arm in arms if arm.rows)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    real, validation, test = (Rows(rows.pixels, rows.labels, splits.strata(kind)) for kind, rows in parts.items())
    others = {kind: _draw_rows(kind, splits, generator) for kind in kinds}
    return CellData(len(splits.class_names), real, validation, test, others)


def _draw_rows(kind: str, splits: Splits, generator: ConditionalGenerator | None) -> Rows:
    if kind == SYNTHETIC:
        return Rows(splits.synthetic.pixels, splits.synthetic.labels, splits.strata(SYNTHETIC))
    if kind in splits.sources:
        return Rows(splits.sources[kind].pixels, splits.sources[kind].labels, splits.strata(kind))
    train = _of_strata(splits, "train", splits.train)
    synthetic = _of_strata(splits, SYNTHETIC, splits.synthetic)
    counts = np.bincount(synthetic.labels, minlength=_number(splits))
    if kind in BASELINES:
        return _of_classes(splits, *draw_baseline(kind, train.pixels, train.labels, counts, seed=_SEED))
    if kind == "shuffled":
        return _of_classes(
            splits, synthetic.pixels, np.random.default_rng(_SEED).permutation(synthetic.labels)
        )  # fmt: skip
    if kind == "latent-smote":
        if generator is None:
            raise InputError(
                f"arm '{BEST}+latent-smote' needs a generator that encodes; give a run as the synthetic rows "
                "(in Python generator=), or leave the arm out"
            )
        return _draw_latent(splits, generator, train, counts)
    return _take_oracle(splits, np.ceil(counts / 4).astype(np.int64) if kind == "oracle/4" else counts)


def _take_oracle(splits: Splits, counts: NDArray[np.int64]) -> Rows:
    """Return the first further real rows of each class, at most `counts`."""
    if splits.oracle is None or not len(splits.oracle):
        raise InputError(
            f"arm '{BEST}+oracle' needs further real rows; give them with oracle=, or take fewer with limit_per_class="
        )
    labels = _of_strata(splits, "oracle", splits.oracle).labels
    chosen = np.concatenate([np.flatnonzero(labels == label)[:count] for label, count in enumerate(counts)])
    return _of_classes(splits, splits.oracle.pixels[chosen], labels[chosen])


def _number(splits: Splits) -> int:
    return len(splits.class_names) if splits.groups is None else len(splits.groups.names)


def _of_strata(splits: Splits, kind: str, rows: LabeledImages) -> Rows:
    """Return rows with their group as the label, or their class where there are no groups."""
    strata = splits.strata(kind)
    return Rows(rows.pixels, rows.labels if strata is None else strata)


def _of_classes(splits: Splits, pixels: NDArray[np.uint8], strata: NDArray[np.int64]) -> Rows:
    """Return rows that were made stratum by stratum, with their classes."""
    groups = splits.groups
    return Rows(pixels, strata) if groups is None else Rows(pixels, groups.classes[strata], strata)


def _draw_latent(splits: Splits, generator: ConditionalGenerator, train: Rows, counts: NDArray[np.int64]) -> Rows:
    """Return latent SMOTE by stratum; a generator numbers the groups in its own way and may not know all of them."""
    names = splits.class_names if splits.groups is None else splits.groups.names
    if tuple(generator.class_names) == tuple(names):
        return _of_classes(splits, *draw_latent_smote(generator, train.pixels, train.labels, counts, seed=_SEED))
    known = [names.index(name) for name in generator.class_names if name in names]
    theirs = np.full(len(names), -1, dtype=np.int64)
    theirs[known] = [generator.class_names.index(names[number]) for number in known]
    ours = np.zeros(len(generator.class_names), dtype=np.int64)
    ours[theirs[known]] = known
    kept = np.flatnonzero(theirs[train.labels] >= 0)
    asked = np.bincount(theirs[known], weights=counts[known], minlength=len(ours)).astype(np.int64)
    pixels, labels = draw_latent_smote(
        generator, train.pixels[kept], theirs[train.labels[kept]], asked, seed=_SEED
    )  # fmt: skip
    return _of_classes(splits, pixels, ours[labels])
