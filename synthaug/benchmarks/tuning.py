"""What a benchmark tries on validation rows: the augmentation policy, then the options of every arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synthaug.benchmarks.arms import Arm, parse_arm
from synthaug.benchmarks.cells import Cell
from synthaug.classical import POLICIES

__all__ = ["TRIALS", "TUNING_SEEDS", "Choice", "choose_options", "count_trials", "describe_options"]

RATES = (6e-3, 3e-3, 1.2e-2)
"""Learning rates that an arm without synthetic rows tries."""

MIXTURES = ((0.25, 6e-3), (0.5, 6e-3), (0.5, 3e-3))
"""Shares of synthetic rows, with a learning rate, that a mixed arm tries."""

TRIALS = 3
"""Trials of every arm: the same number for all."""

TUNING_SEEDS = (1_000, 1_001)
"""Seeds of the trials, apart from all reported ones."""

_POLICY = "affine"

Results = Mapping[Cell, Mapping[str, Any]]
Run = Callable[[Sequence[Cell]], Results]


@dataclass(frozen=True)
class Choice:
    """What was chosen, and everything that was tried.

    Args:
        options: Arm -> the cell that its reported seeds repeat.
        trials: JSON-friendly, one entry for each trial.
    """

    options: dict[str, Cell]
    trials: list[dict[str, Any]]


def count_trials(arms: Sequence[Arm], *, validation_rows: int) -> int:
    """Return the number of cells that `choose_options` runs."""
    if not validation_rows:
        return 0
    policies = len(POLICIES) if _policy_arm(arms) else 0
    return (policies + TRIALS * len(arms)) * len(TUNING_SEEDS)


def choose_options(arms: Sequence[Arm], template: Cell, run: Run, *, validation_rows: int) -> Choice:
    """Choose the policy for all arms, then the options of each arm.

    Every trial is a full training with each of the tuning seeds; the best mean balanced accuracy on the
    validation rows wins, then the lower likelihood loss, then the earlier trial. The policy is chosen once,
    on an arm without synthetic rows. Without validation rows nothing is tried and the defaults stand.

    Args:
        arms: The arms, in order.
        template: Cell whose steps, batch size, backend and device apply.
        run: Runs cells and returns their results.
        validation_rows: Number of validation rows.

    Returns:
        The choice.
    """
    base = replace(template, policy=_POLICY, learning_rate=RATES[0], share=MIXTURES[0][0])
    if not validation_rows:
        return Choice({arm.name: replace(base, arm=arm.name) for arm in arms}, [])
    tried = [replace(base, arm=arm.name, policy=name) for arm in _policy_arm(arms) for name in POLICIES]
    scores = _score(tried, run)
    policy = _best(tried, scores).policy if tried else _POLICY
    trials = [_describe("policy", cell, scores[cell], chosen=cell.policy == policy) for cell in tried]
    grid = {arm.name: _grid(arm, replace(base, arm=arm.name, policy=policy)) for arm in arms}
    scores = _score([cell for cells in grid.values() for cell in cells], run)
    options = {name: _best(cells, scores) for name, cells in grid.items()}
    for name, cells in grid.items():
        trials += [_describe("options", cell, scores[cell], chosen=cell == options[name]) for cell in cells]
    return Choice(options, trials)


def _policy_arm(arms: Sequence[Arm]) -> list[Arm]:
    """Return the one arm that chooses the policy: augmented, without synthetic rows, balanced if possible."""
    fitting = [arm for arm in arms if arm.classical and not arm.mixed and not arm.only_synthetic]
    return sorted(fitting, key=lambda arm: not arm.balanced)[:1]


def _grid(arm: Arm, cell: Cell) -> list[Cell]:
    if arm.mixed:
        return [replace(cell, share=share, learning_rate=rate) for share, rate in MIXTURES]
    return [replace(cell, learning_rate=rate) for rate in RATES]


def _score(cells: Sequence[Cell], run: Run) -> dict[Cell, tuple[float, float]]:
    """Return (balanced accuracy, negative log-likelihood) of each cell, averaged over the tuning seeds."""
    results = run([replace(cell, seed=seed) for cell in cells for seed in TUNING_SEEDS])
    scores = {}
    for cell in cells:
        each = [results[replace(cell, seed=seed)]["validation"] for seed in TUNING_SEEDS]
        accuracy = sum(one["balanced_accuracy"] for one in each) / len(each)
        scores[cell] = (accuracy, sum(one["nll"] for one in each) / len(each))
    return scores


def _best(cells: Sequence[Cell], scores: Mapping[Cell, tuple[float, float]]) -> Cell:
    return min(cells, key=lambda cell: (-round(scores[cell][0], 9), round(scores[cell][1], 9)))


def describe_options(arm: Arm, cell: Cell) -> str:
    """Return the chosen options in words."""
    words = [f"learning rate {cell.learning_rate:g}"]
    if arm.mixed:
        words.append(f"share of synthetic rows {cell.share:g}")
    if arm.classical:
        words.append(f"policy {cell.policy}")
    return ", ".join(words)


def _describe(stage: str, cell: Cell, score: tuple[float, float], *, chosen: bool) -> dict[str, Any]:
    return {
        "stage": stage,
        "arm": cell.arm,
        "options": describe_options(parse_arm(cell.arm), cell),
        "balanced_accuracy": score[0],
        "nll": score[1],
        "chosen": chosen,
    }
