"""What the cells of a benchmark train on: the contest's rows, and those that its arms ask for besides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synthaug.benchmarks.arms import BEST, SYNTHETIC, Arm
from synthaug.benchmarks.cells import CellData, Rows
from synthaug.benchmarks.contest import Contest
from synthaug.benchmarks.rivals import RIVALS, draw_latent_smote, draw_rival
from synthaug.data import LabeledImages
from synthaug.errors import InputError
from synthaug.generators.base import ConditionalGenerator

__all__ = ["collect_material"]

_SEED = 0


def collect_material(contest: Contest, arms: Sequence[Arm], generator: ConditionalGenerator | None = None) -> CellData:
    """Return every row that these arms train on, choose by or are judged by; computed once for all of them.

    Args:
        contest: The rows.
        arms: The arms.
        generator: Encodes and decodes for latent SMOTE.

    Raises:
        InputError: An arm asks for further real rows and there are none, or for latent SMOTE without a generator.
    """
    kinds = dict.fromkeys(arm.rows for arm in arms if arm.rows)
    parts = {"train": contest.train, "validation": contest.validation, "test": contest.test}
    real, validation, test = (Rows(rows.pixels, rows.labels, contest.strata(kind)) for kind, rows in parts.items())
    others = {kind: _draw_rows(kind, contest, generator) for kind in kinds}
    return CellData(len(contest.class_names), real, validation, test, others)


def _draw_rows(kind: str, contest: Contest, generator: ConditionalGenerator | None) -> Rows:
    if kind == SYNTHETIC:
        return Rows(contest.synthetic.pixels, contest.synthetic.labels, contest.strata(SYNTHETIC))
    if kind in contest.sources:
        return Rows(contest.sources[kind].pixels, contest.sources[kind].labels, contest.strata(kind))
    train = _of_strata(contest, "train", contest.train)
    synthetic = _of_strata(contest, SYNTHETIC, contest.synthetic)
    counts = np.bincount(synthetic.labels, minlength=_number(contest))
    if kind in RIVALS:
        return _of_classes(contest, *draw_rival(kind, train.pixels, train.labels, counts, seed=_SEED))
    if kind == "shuffled":
        return _of_classes(
            contest, synthetic.pixels, np.random.default_rng(_SEED).permutation(synthetic.labels)
        )  # fmt: skip
    if kind == "latent-smote":
        if generator is None:
            raise InputError(
                f"arm '{BEST}+latent-smote' needs a generator that encodes; give a run as the synthetic rows "
                "(in Python generator=), or leave the arm out"
            )
        return _draw_latent(contest, generator, train, counts)
    return _take_oracle(contest, np.ceil(counts / 4).astype(np.int64) if kind == "oracle/4" else counts)


def _take_oracle(contest: Contest, counts: NDArray[np.int64]) -> Rows:
    """Return the first further real rows of each class, at most `counts`."""
    if contest.oracle is None or not len(contest.oracle):
        raise InputError(
            f"arm '{BEST}+oracle' needs further real rows; give them with oracle=, or take fewer with limit_per_class="
        )
    labels = _of_strata(contest, "oracle", contest.oracle).labels
    chosen = np.concatenate([np.flatnonzero(labels == label)[:count] for label, count in enumerate(counts)])
    return _of_classes(contest, contest.oracle.pixels[chosen], labels[chosen])


def _number(contest: Contest) -> int:
    return len(contest.class_names) if contest.groups is None else len(contest.groups.names)


def _of_strata(contest: Contest, kind: str, rows: LabeledImages) -> Rows:
    """Return rows with their group as the label, or their class where there are no groups."""
    strata = contest.strata(kind)
    return Rows(rows.pixels, rows.labels if strata is None else strata)


def _of_classes(contest: Contest, pixels: NDArray[np.uint8], strata: NDArray[np.int64]) -> Rows:
    """Return rows that were made stratum by stratum, with their classes."""
    groups = contest.groups
    return Rows(pixels, strata) if groups is None else Rows(pixels, groups.classes[strata], strata)


def _draw_latent(contest: Contest, generator: ConditionalGenerator, train: Rows, counts: NDArray[np.int64]) -> Rows:
    """Return latent SMOTE by stratum; a generator numbers the groups in its own way and may not know all of them."""
    names = contest.class_names if contest.groups is None else contest.groups.names
    if tuple(generator.class_names) == tuple(names):
        return _of_classes(contest, *draw_latent_smote(generator, train.pixels, train.labels, counts, seed=_SEED))
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
    return _of_classes(contest, pixels, ours[labels])
