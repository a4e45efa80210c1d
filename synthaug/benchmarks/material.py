"""What the cells of a benchmark train on: the contest's rows, and those that its arms ask for besides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synthaug.benchmarks.arms import BEST, SYNTHETIC, Arm
from synthaug.benchmarks.cells import CellData, Rows
from synthaug.benchmarks.contest import Contest
from synthaug.benchmarks.rivals import RIVALS, draw_latent_smote, draw_rival
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
    real, validation, test = (
        Rows(rows.pixels, rows.labels) for rows in (contest.train, contest.validation, contest.test)
    )
    others = {kind: _draw_rows(kind, contest, generator) for kind in kinds}
    return CellData(len(contest.class_names), real, validation, test, others)


def _draw_rows(kind: str, contest: Contest, generator: ConditionalGenerator | None) -> Rows:
    train, synthetic = contest.train, contest.synthetic
    counts = np.bincount(synthetic.labels, minlength=len(contest.class_names))
    if kind == SYNTHETIC:
        return Rows(synthetic.pixels, synthetic.labels)
    if kind in contest.sources:
        return Rows(contest.sources[kind].pixels, contest.sources[kind].labels)
    if kind in RIVALS:
        return Rows(*draw_rival(kind, train.pixels, train.labels, counts, seed=_SEED))
    if kind == "shuffled":
        return Rows(synthetic.pixels, np.random.default_rng(_SEED).permutation(synthetic.labels))
    if kind == "latent-smote":
        if generator is None:
            raise InputError(
                f"arm '{BEST}+latent-smote' needs a generator that encodes; give a run as the synthetic rows "
                "(in Python generator=), or leave the arm out"
            )
        return Rows(*draw_latent_smote(generator, train.pixels, train.labels, counts, seed=_SEED))
    return _take_oracle(contest, np.ceil(counts / 4).astype(np.int64) if kind == "oracle/4" else counts)


def _take_oracle(contest: Contest, counts: NDArray[np.int64]) -> Rows:
    """Return the first further real rows of each class, at most `counts`."""
    if contest.oracle is None or not len(contest.oracle):
        raise InputError(
            f"arm '{BEST}+oracle' needs further real rows; give them with --oracle, or take fewer with "
            "--limit-per-class"
        )
    labels = contest.oracle.labels
    chosen = np.concatenate([np.flatnonzero(labels == label)[:count] for label, count in enumerate(counts)])
    return Rows(contest.oracle.pixels[chosen], labels[chosen])
