"""Rounds of trainings, each with other validation rows of the same data, which judge arms together."""

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
from synthaug.benchmarks.runner import Campaign
from synthaug.benchmarks.splits import Contest
from synthaug.core import balance_mean

__all__ = ["Round", "Rounds"]

T = TypeVar("T")


@dataclass(frozen=True)
class Round:
    """One way of holding out validation rows.

    Args:
        contest: Its rows.
        campaign: Their trainings, kept in a folder.
    """

    contest: Contest
    campaign: Campaign

    @property
    def strata(self) -> NDArray[np.int64]:
        """The groups of the validation rows, their classes where there are none."""
        strata = self.contest.strata("validation")
        return self.contest.validation.labels if strata is None else strata


class Rounds:
    """Runs the same arms in every round and pools what their validation rows say; use it as a context.

    Policy, learning rate and strong augmentation are chosen in each round on its own; what is pooled are losses and
    hits, row by row, each group counting the same over all rounds.

    Args:
        rounds: At least one. No row is a validation row of two of them.
    """

    def __init__(self, rounds: Sequence[Round]) -> None:
        self._rounds, self._stack = rounds, contextlib.ExitStack()
        self.labels = np.concatenate([round_.contest.validation.labels for round_ in rounds])
        """(n,) classes of all validation rows."""
        self.strata = np.concatenate([round_.strata for round_ in rounds])
        """(n,) their groups; the classes where there are none."""

    def __enter__(self) -> Rounds:
        if len(self._rounds) == 1:  # its workers stay; those of several rounds would fill the memory
            self._stack.enter_context(self._rounds[0].campaign)
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.__exit__(*problem)

    def _each(self, act: Callable[[Campaign], T]) -> list[T]:
        found = []
        for round_ in self._rounds:
            with contextlib.nullcontext() if len(self._rounds) == 1 else round_.campaign:
                found.append(act(round_.campaign))
        return found

    def run_plain(self, arms: Sequence[Arm]) -> list[ArmResults]:
        """Tune and run arms that exchange nothing; return their pooled results."""
        found = self._each(lambda campaign: campaign.run_plain(arms))
        return [self._pool(own) for own in zip(*found, strict=True)]

    def tune(self, arms: Sequence[Arm], shown: str) -> list[list[ArmResults]]:
        """Try the options of arms; return for each arm the pooled results of its trials, in their order."""
        self._each(lambda campaign: campaign.tune(arms, shown))
        tried = [round_.campaign.tuner.tried for round_ in self._rounds]
        return [
            [
                self._pool([ArmResults(arm, cell, results) for cell, results in trials])
                for trials in zip(*(own[arm.name] for own in tried), strict=True)
            ]
            for arm in arms
        ]

    def run_seeds(self, arms: Sequence[Arm], shown: str, *, first: int = 0) -> list[ArmResults]:
        """Run the paired seeds of arms whose options are chosen; return their pooled results."""
        found = self._each(lambda campaign: campaign.run_seeds(arms, shown, first=first))
        return [self._pool(own) for own in zip(*found, strict=True)]

    def settle(self, arm: Arm, chosen: Cell) -> None:
        """Take the share and the finish of a trial for an arm, in every round."""
        for round_ in self._rounds:
            options = round_.campaign.tuner.options
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
