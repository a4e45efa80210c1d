"""What a benchmark tries on validation rows: the augmentation policy, then the options of every arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synthaug.benchmarks.arms import BEST, Arm, parse_arm
from synthaug.benchmarks.cells import Cell
from synthaug.core import POLICIES, TUNING_SEEDS

__all__ = ["TRIALS", "Trials", "Tuner", "count_trials", "describe_options"]

RATES = (6e-3, 3e-3, 1.2e-2, 1.5e-3)
"""Learning rates that an arm tries which has nothing else to choose."""

MIXTURES = ((0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (0.5, 0.4))
"""Pairs that a mixed arm tries: the share of exchanged rows, and the share of the steps, at the end, that see real rows
alone. No exchanged row is one of the answers."""

MIXES = (("trivial", ""), ("trivial", "cutmix"), ("", "cutmix"), ("", "mixup"))
"""Pairs of policy ("" is the chosen classical one) and mix that a strongly augmented arm tries."""

TRIALS = 4
"""Trials of every arm: the same number for all."""

_POLICY = "affine"

Results = Mapping[Cell, Mapping[str, Any]]
Run = Callable[[Sequence[Cell]], Results]
Trials = list[dict[str, Any]]


@dataclass
class Tuner:
    """Chooses the options of arms on validation rows and remembers what it tried.

    Every trial is a full training with each of the tuning seeds; the lowest mean likelihood loss at its best
    temperature wins on the validation rows, then the higher balanced accuracy, then the earlier trial. The loss comes
    first because it tells more where rows are few (docs/evidence.md, "Which number chooses").
    Without validation rows nothing is tried and the defaults stand.

    Args:
        template: Cell whose steps, batch size, backend, classifier and device apply.
        run: Runs cells and returns their results.
        sources: Names of the single sources of synthetic rows.
        validation_rows: Number of validation rows.
    """

    template: Cell
    run: Run
    sources: Sequence[str]
    validation_rows: int

    def __post_init__(self) -> None:
        self.trials: Trials = []
        """Everything that was tried, JSON-friendly."""
        self.options: dict[str, Cell] = {}
        """Arm -> the cell that its reported seeds repeat."""
        self.tried: dict[str, list[tuple[Cell, list[Mapping[str, Any]]]]] = {}
        """Arm -> the cells that were tried for its options, in the order of the trials, with their results."""
        self._base = replace(self.template, policy=_POLICY, learning_rate=RATES[0])

    def choose_policy(self, arms: Sequence[Arm]) -> None:
        """Choose the classical policy for all arms, once, on an augmented arm without other rows."""
        tried = [replace(self._base, arm=arm.name, policy=name) for arm in _policy_arm(arms) for name in POLICIES]
        if tried and self.validation_rows:
            self._base = replace(self._base, policy=self._pick(tried, "policy").policy)

    def choose_options(self, arms: Sequence[Arm]) -> None:
        """Choose the options of these arms; one that exchanges rows starts from those of the arm it rests on.

        Where that one is not among the arms, its options are chosen all the same, first.
        """
        absent = [base for base in _bases(arms) if base.name not in self.options]
        if absent:
            self.choose_options(absent)
        grids = {arm.name: self._grid(arm) for arm in arms}
        if self.validation_rows:  # all at once, so that the workers stay busy
            self._run([cell for cells in grids.values() for cell in cells])
        for name, cells in grids.items():
            self.options[name] = self._pick(cells, "options") if self.validation_rows else cells[0]
            if self.validation_rows:
                results = self._run(cells)
                self.tried[name] = [(cell, self._of_seeds(cell, results)) for cell in cells]

    def _grid(self, arm: Arm) -> list[Cell]:
        cell = replace(self._base, arm=arm.name)
        if arm.augmentation == "strong" and not arm.exchanges:
            flip = "+flip" if "flip" in cell.policy else ""
            pairs = [(policy + flip if policy else cell.policy, mix) for policy, mix in MIXES]
            return [replace(cell, policy=policy, mix=mix) for policy, mix in pairs]
        if arm.exchanges:
            cell = replace(self.options[arm.base], arm=arm.name)
        if arm.exchanges and arm.share is None:
            mixtures = MIXTURES if self.validation_rows else MIXTURES[1:]
            return [replace(cell, share=share, finish=finish) for share, finish in mixtures]
        rates = (cell.learning_rate, *(rate for rate in RATES if rate != cell.learning_rate))
        return [replace(cell, share=arm.share or 0.0, learning_rate=rate) for rate in rates[:TRIALS]]

    def _run(self, cells: Sequence[Cell]) -> Results:
        seeded = [replace(cell.settle(self.sources), seed=seed) for cell in cells for seed in TUNING_SEEDS]
        return self.run(list(dict.fromkeys(seeded)))

    def _of_seeds(self, cell: Cell, results: Results) -> list[Mapping[str, Any]]:
        return [results[replace(cell.settle(self.sources), seed=seed)] for seed in TUNING_SEEDS]

    def _pick(self, cells: Sequence[Cell], stage: str) -> Cell:
        """Return the best of these cells and write all of them down."""
        results, scores = self._run(cells), dict[Cell, tuple[float, float]]()
        for cell in cells:
            each = [result["validation"] for result in self._of_seeds(cell, results)]
            scores[cell] = (_mean(each, "scaled_nll"), _mean(each, "balanced_accuracy"))
        best = min(cells, key=lambda cell: (round(scores[cell][0], 9), -round(scores[cell][1], 9)))
        self.trials += [
            {
                "stage": stage,
                "arm": cell.arm,
                "options": describe_options(parse_arm(cell.arm, self.sources), cell),
                "balanced_accuracy": scores[cell][1],
                "nll": scores[cell][0],
                "chosen": cell == best,
            }
            for cell in cells
        ]
        return best


def _mean(results: Sequence[Mapping[str, float]], number: str) -> float:
    return sum(result[number] for result in results) / len(results)


def count_trials(arms: Sequence[Arm], *, validation_rows: int) -> int:
    """Return about how many cells a `Tuner` runs for these arms."""
    if not validation_rows:
        return 0
    policies = len(POLICIES) if _policy_arm(arms) else 0
    cached = sum(arm.exchanges and arm.share is None for arm in arms)  # a share of zero was trained already
    absent = {base.name for base in _bases(arms)} - {arm.name for arm in arms}
    return (policies + TRIALS * (len(arms) + len(absent)) - cached) * len(TUNING_SEEDS)


def _bases(arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms without exchanged rows that those which exchange some rest on; "best" is one of the others."""
    names = dict.fromkeys(arm.base for arm in arms if arm.exchanges and arm.sampling != BEST)
    return [parse_arm(name) for name in names]


def _policy_arm(arms: Sequence[Arm]) -> list[Arm]:
    """Return the one arm that chooses the policy: augmented, of real rows alone, balanced if possible."""
    fitting = [arm for arm in arms if arm.augmentation == "classical" and not arm.rows and not arm.loss]
    return sorted(fitting, key=lambda arm: not arm.balanced)[:1]


def describe_options(arm: Arm, cell: Cell) -> str:
    """Return the chosen options in words."""
    words = [f"learning rate {cell.learning_rate:g}"]
    if arm.exchanges:
        words.append(f"share of exchanged rows {cell.share:g}" if cell.share else "no exchanged row")
        words += [f"the last {100 * cell.finish:g} % of the steps without them"] if cell.finish and cell.share else []
    if arm.augmentation:
        words.append(f"policy {cell.policy}" + (f" and {cell.mix}" if cell.mix else ""))
    return ", ".join(words)
