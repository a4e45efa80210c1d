"""The finished trainings of an arm, and which arm of several validation rows prefer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthaug.benchmarks.arms import Arm
from synthaug.benchmarks.cells import Cell
from synthaug.benchmarks.tuning import describe_options

__all__ = ["ArmResults", "choose_front"]


@dataclass(frozen=True)
class ArmResults:
    """One arm and its reported seeds.

    Args:
        arm: The arm.
        cell: Its chosen options.
        seeds: What `run_cell` returned for each seed, in order.
        rows_added: Number of rows that real ones are exchanged for.
    """

    arm: Arm
    cell: Cell
    seeds: Sequence[Mapping[str, Any]]
    rows_added: int = 0

    @property
    def options(self) -> str:
        """The chosen options in words."""
        return describe_options(self.arm, self.cell)

    def predictions(self) -> NDArray[np.int64]:
        """Return (S, n) the predicted classes of the test rows."""
        return np.array([result["test"]["predictions"] for result in self.seeds], dtype=np.int64)

    def mean(self, part: str, number: str) -> float | None:
        """Return a number averaged over the seeds, None where it was not measured."""
        values = [result[part][number] for result in self.seeds if result[part] is not None]
        return float(np.mean(values)) if values else None

    def curve(self) -> list[list[float]]:
        """Return [[step, balanced accuracy on validation rows], ...] averaged over the seeds."""
        curves = np.array([result["curve"] for result in self.seeds], dtype=np.float64)
        return [[float(number) for number in point] for point in curves.mean(axis=0)] if curves.size else []


def choose_front(results: Sequence[ArmResults]) -> ArmResults:
    """Return the arm with the lowest likelihood loss on validation rows over the reported seeds; the last without any.

    The loss is the one at its best temperature. Chosen on the reported trainings rather than on trials: five seeds
    tell arms apart better than two. Ties go to the higher balanced accuracy, then to the earlier arm.
    """
    if results[0].mean("validation", "scaled_nll") is None:
        return results[-1]
    return min(
        results,
        key=lambda result: (
            round(result.mean("validation", "scaled_nll") or 0.0, 9),
            -round(result.mean("validation", "balanced_accuracy") or 0.0, 9),
        ),
    )
