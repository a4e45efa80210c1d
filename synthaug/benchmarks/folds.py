"""Folds of a cross-validation: the same trainings with other validation rows, whose results are pooled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from synthaug.benchmarks.arms import Arm
from synthaug.benchmarks.cells import Cell
from synthaug.benchmarks.results import ArmResults
from synthaug.benchmarks.runner import Runner
from synthaug.benchmarks.splits import Splits
from synthaug.core import balance_mean

__all__ = ["Fold", "PooledFolds"]

T = TypeVar("T")


@dataclass(frozen=True)
class Fold:
    """One way of holding out validation rows.

    Args:
        splits: Its rows.
        runner: Their trainings, kept in a folder.
    """

    splits: Splits
    runner: Runner

    @property
    def strata(self) -> NDArray[np.int64]:
        """The groups of the validation rows, their classes where there are none."""
        strata = self.splits.strata("validation")
        return self.splits.validation.labels if strata is None else strata


class PooledFolds:
    """Context that runs the same arms in every fold and pools the results on their validation rows.

    Policy, learning rate and strong augmentation are chosen in each fold by itself. Losses and hits are pooled row by
    row. Each group has the same weight over all folds.

    Args:
        folds: At least one. No row is a validation row of two folds.
    """

    def __init__(self, folds: Sequence[Fold]) -> None:
        self._folds, self._stack = folds, contextlib.ExitStack()
        self.labels = np.concatenate([fold.splits.validation.labels for fold in folds])
        """(n,) classes of all validation rows."""
        self.strata = np.concatenate([fold.strata for fold in folds])
        """(n,) their groups; the classes where there are none."""

    def __enter__(self) -> PooledFolds:
        if len(self._folds) == 1:  # its workers stay; those of several folds would fill the memory
            self._stack.enter_context(self._folds[0].runner)
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.__exit__(*problem)

    def _each(self, act: Callable[[Runner], T]) -> list[T]:
        found = []
        for fold in self._folds:
            with contextlib.nullcontext() if len(self._folds) == 1 else fold.runner:
                found.append(act(fold.runner))
        return found

    def run_plain(self, arms: Sequence[Arm]) -> list[ArmResults]:
        """Tune and run arms that exchange nothing; return their pooled results."""
        found = self._each(lambda runner: runner.run_plain(arms))
        return [self._pool(own) for own in zip(*found, strict=True)]

    def tune(self, arms: Sequence[Arm], shown: str) -> list[list[ArmResults]]:
        """Try the options of arms; return for each arm the pooled results of its trials, in their order."""
        self._each(lambda runner: runner.tune(arms, shown))
        tried = [fold.runner.tuner.tried for fold in self._folds]
        return [
            [
                self._pool([ArmResults(arm, cell, results) for cell, results in trials])
                for trials in zip(*(own[arm.name] for own in tried), strict=True)
            ]
            for arm in arms
        ]

    def run_seeds(self, arms: Sequence[Arm], shown: str, *, first: int = 0) -> list[ArmResults]:
        """Run the paired seeds of arms whose options are chosen; return their pooled results."""
        found = self._each(lambda runner: runner.run_seeds(arms, shown, first=first))
        return [self._pool(own) for own in zip(*found, strict=True)]

    def settle(self, arm: Arm, chosen: Cell) -> None:
        """Take the share and the finish of a trial for an arm, in every fold."""
        for fold in self._folds:
            options = fold.runner.tuner.options
            options[arm.name] = replace(options[arm.name], share=chosen.share, finish=chosen.finish)

    def _pool(self, results: Sequence[ArmResults]) -> ArmResults:
        if len(results) == 1:
            return results[0]
        seeds = [
            {"validation": self._join([seed["validation"] for seed in each])}
            for each in zip(*(own.seeds for own in results), strict=True)
        ]
        return replace(results[0], seeds=seeds)

    def _join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        predictions = np.concatenate([part["predictions"] for part in parts])
        losses = np.concatenate([part["losses"] for part in parts])
        right, number = (predictions == self.labels).astype(np.float64), int(self.strata.max()) + 1
        return {
            "predictions": predictions,
            "losses": losses,
            "balanced_accuracy": balance_mean(self.strata, right, number),
            "scaled_nll": balance_mean(self.strata, losses, number),
        }
