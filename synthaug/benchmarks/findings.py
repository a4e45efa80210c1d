"""From the results of all cells to a report: numbers, verdict, sentences and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthaug.benchmarks.arms import Arm
from synthaug.benchmarks.cells import Cell
from synthaug.benchmarks.contest import Contest
from synthaug.benchmarks.tuning import Choice, describe_options
from synthaug.gallery import draw_pictures
from synthaug.metrics import (
    MINIMUM_SEEDS,
    Estimate,
    confusion_matrix,
    estimate_mean,
    judge_difference,
    macro_f1,
    mean_recalls,
)
from synthaug.report import Report

__all__ = ["ArmResults", "decide", "write_findings"]

_CONFUSIONS, _LISTED = 10, 5

_METHOD = (
    "The interval is Student's t over seeds and test rows as crossed random effects: the variance that the "
    "seeds show, plus the one that resampling the test rows within classes would show, less their common "
    "residual; Satterthwaite's degrees of freedom."
)


@dataclass(frozen=True)
class ArmResults:
    """One arm and its reported seeds.

    Args:
        arm: The arm.
        cell: Its chosen options.
        seeds: What `run_cell` returned for each seed, in order.
    """

    arm: Arm
    cell: Cell
    seeds: Sequence[Mapping[str, Any]]

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


def write_findings(
    results: Sequence[ArmResults],
    choice: Choice,
    contest: Contest,
    *,
    settings: Mapping[str, Any],
    cost: Mapping[str, Any],
    command: str,
) -> Report:
    """Return the report of a finished benchmark.

    Args:
        results: Every arm with its reported seeds.
        choice: What was chosen on validation rows.
        contest: The rows.
        settings: What the benchmark ran with.
        cost: What it took.
        command: How to run it again.
    """
    by_name = {result.arm.name: result for result in results}
    synthetic = _front([result for result in results if result.arm.mixed])
    opponent = _front([result for result in results if not result.arm.uses_synthetic])
    labels = contest.test.labels
    hits = {name: result.predictions() == labels for name, result in by_name.items()}
    difference = estimate_mean(hits[synthetic.arm.name].astype(np.float64) - hits[opponent.arm.name], labels)
    matched = by_name.get(synthetic.arm.name.removesuffix("+synthetic"), opponent)
    own = estimate_mean(hits[synthetic.arm.name].astype(np.float64) - hits[matched.arm.name], labels)
    verdict = decide(difference, own)
    pictures, captions = draw_pictures(contest.train, contest.synthetic, contest.class_names)
    many = len(difference.per_seed) > 1
    return Report(
        verdict=verdict,
        sentence=_sentence(verdict, difference, opponent.arm.name, len(labels), own, matched.arm.name),
        difference=difference.value,
        interval=(difference.low, difference.high) if many else None,
        arms=[
            _arm_entry(result, {synthetic.arm.name: "synthetic", opponent.arm.name: "opponent"}, contest)
            for result in results
        ],
        comparison={
            "synthetic": synthetic.arm.name,
            "opponent": opponent.arm.name,
            "matched": {
                "arm": matched.arm.name,
                "difference": own.value,
                "interval": [own.low, own.high] if many else None,
            },
            "per_seed": list(difference.per_seed),
            "standard_error": difference.standard_error if many else None,
            "seed_error": difference.seed_error if many else None,
            "row_error": difference.row_error if many else None,
            "degrees": difference.degrees,
            "detectable": difference.detectable if many else None,
            "method": _METHOD if many else "One seed shows no spread, so there is no interval.",
        },
        classes=_class_entries(synthetic, opponent, contest),
        confusions=_confusion_entries(synthetic, opponent, contest),
        curves={name: result.curve() for name, result in by_name.items()},
        tuning=choice.trials,
        leaks=_leak_facts(contest),
        settings={**settings, "captions": captions, "rows": _row_counts(contest)},
        cost=dict(cost),
        not_varied=_not_varied(contest),
        notes=_notes(choice, contest, len(difference.per_seed)),
        command=command,
        pictures=pictures,
    )


def decide(difference: Estimate, own: Estimate) -> str:
    """Return the verdict; "helps" has to hold against the opponent and against the same arm without synthetic rows.

    What beats the opponent alone may be what the two real arms differ in, such as oversampling.

    Args:
        difference: Synthetic arm minus opponent.
        own: Synthetic arm minus the same arm without synthetic rows.
    """
    verdict = judge_difference(difference)
    return "no clear change" if verdict == "helps" and judge_difference(own) != "helps" else verdict


def _points(value: float) -> str:
    return f"{100 * value:+.2f}".replace("-", "−")


def _sentence(verdict: str, difference: Estimate, opponent: str, rows: int, own: Estimate, matched: str) -> str:
    """Return the verdict in plain words, with its numbers."""
    seeds, change = len(difference.per_seed), _points(difference.value)
    low, high = _points(difference.low), _points(difference.high)
    size, against = (
        f"{change.lstrip('+−')} percentage points",
        f"the arm without them that validation chose ({opponent})",
    )
    ground = f"on {rows} test rows, over {seeds} paired seeds (95 % interval {low} to {high})"
    if verdict == "helps":
        return f"With synthetic rows balanced accuracy is {size} higher than in {against}, {ground}."
    if verdict == "harms":
        return (
            f"With synthetic rows balanced accuracy is {size} lower than in {against}, {ground}: "
            "do not train on them for this task."
        )
    if seeds < MINIMUM_SEEDS:
        return (
            f"A verdict needs at least {MINIMUM_SEEDS} paired seeds and this benchmark ran {seeds}, so "
            f"nothing can be said; the difference to {against} was {change} percentage points."
        )
    if difference.low > 0:
        return (
            f"Balanced accuracy is {size} higher than in {against}, {ground}, but not clearly higher than in the "
            f"same arm without synthetic rows ({matched}: {_points(own.value)} points, {_points(own.low)} to "
            f"{_points(own.high)}): the gain is not shown to come from the synthetic rows."
        )
    return (
        "Nothing here shows that the synthetic rows help or harm: balanced accuracy differs by "
        f"{change} percentage points from {against}, {ground}. Until something does, train on the real rows alone."
    )


def _front(results: Sequence[ArmResults]) -> ArmResults:
    """Return the arm with the best validation accuracy over the reported seeds; the last one without any.

    Chosen on the full trainings rather than on trials: five seeds tell arms apart better than two.
    """
    if results[0].mean("validation", "nll") is None:
        return results[-1]
    return min(
        results,
        key=lambda result: (
            -round(result.mean("validation", "balanced_accuracy") or 0.0, 9),
            result.mean("validation", "nll") or 0.0,
        ),
    )


def _arm_entry(result: ArmResults, roles: Mapping[str, str], contest: Contest) -> dict[str, Any]:
    predictions, labels = result.predictions(), contest.test.labels
    count = len(contest.class_names)
    accuracy = estimate_mean((predictions == labels).astype(np.float64), labels)
    interval = (max(0.0, accuracy.low), min(1.0, accuracy.high))
    return {
        "name": result.arm.name,
        "description": result.arm.describe,
        "role": roles.get(result.arm.name, ""),
        "options": describe_options(result.arm, result.cell),
        "balanced_accuracy": accuracy.value,
        "interval": interval if len(accuracy.per_seed) > 1 else None,
        "per_seed": list(accuracy.per_seed),
        "macro_f1": float(np.mean([macro_f1(labels, row, count) for row in predictions])),
        "nll": result.mean("test", "nll"),
        "worst_recall": float(np.nanmin(mean_recalls(labels, predictions, count))),
        "validation": result.mean("validation", "balanced_accuracy"),
        "rows": {
            "real": 0 if result.arm.only_synthetic else len(contest.train),
            "synthetic": len(contest.synthetic) if result.arm.mixed or result.arm.only_synthetic else 0,
        },
        "seconds": sum(one["seconds"] for one in result.seeds),
    }


def _class_entries(synthetic: ArmResults, opponent: ArmResults, contest: Contest) -> list[dict[str, Any]]:
    count, labels = len(contest.class_names), contest.test.labels
    after = mean_recalls(labels, synthetic.predictions(), count)
    before = mean_recalls(labels, opponent.predictions(), count)
    tested, trained = contest.test.class_counts, contest.train.class_counts
    made = contest.synthetic.class_counts
    entries = []
    for number, name in enumerate(contest.class_names):
        known = tested[name] > 0
        change = round(float(after[number] - before[number]), 12) if known else None
        entries.append(
            {
                "name": name,
                "train": trained[name],
                "synthetic": made[name],
                "test": tested[name],
                "opponent_recall": float(before[number]) if known else None,
                "synthetic_recall": float(after[number]) if known else None,
                "change": change,
                "size": abs(change or 0.0),
            }
        )
    return entries


def _confusion_entries(synthetic: ArmResults, opponent: ArmResults, contest: Contest) -> list[dict[str, Any]]:
    """Return the confusions whose share of their class changed most, largest first."""
    names, labels = contest.class_names, contest.test.labels
    shares = []
    for result in (opponent, synthetic):
        counts = sum(confusion_matrix(labels, row, len(names)) for row in result.predictions())
        shares.append(counts / np.maximum(np.sum(counts, axis=1, keepdims=True), 1))
    change = shares[1] - shares[0]
    np.fill_diagonal(change, 0.0)
    order = np.argsort(-np.abs(change), axis=None, kind="stable")[:_CONFUSIONS]
    pairs = [divmod(int(flat), len(names)) for flat in order]
    return [
        {
            "true": names[true],
            "predicted": names[predicted],
            "opponent": float(shares[0][true, predicted]),
            "synthetic": float(shares[1][true, predicted]),
            "change": float(change[true, predicted]),
        }
        for true, predicted in pairs
        if change[true, predicted]
    ]


def _leak_facts(contest: Contest) -> dict[str, Any]:
    """Return what the leak check found, with its sentences under "lines"."""
    facts, near = contest.leaks.facts(), contest.near_duplicates
    lines = ["No test row equals a training, validation or synthetic row (pixels and size compared by hash)."]
    dropped = {kind: number for kind, number in facts["dropped"].items() if number}
    if dropped:
        counts = " and ".join(f"{number} {kind}" for kind, number in dropped.items())
        lines = [f"Rows that equal a test row were removed from the arms: {counts}."]
    lines.append(
        "No test row is among the rows of the run that made the synthetic ones."
        if facts["run"] == "clean"
        else "Not checked: whether the run that made the synthetic rows has seen a test row, because its row "
        "hashes were not given."
    )
    if near:
        first = "; ".join(f"test row {row[1]} and {row[0]} row {row[2]}" for row in near[:_LISTED])
        more = f"; and {len(near) - _LISTED} more" if len(near) > _LISTED else ""
        lines.append(f"Warning: {len(near)} test rows look nearly like a row that was trained on: {first}{more}.")
    else:
        lines.append("No test row looks nearly like a row of an arm.")
    return {**facts, "near_duplicates": [list(row) for row in near[:100]], "lines": lines}


def _row_counts(contest: Contest) -> dict[str, int]:
    return {
        "train": len(contest.train),
        "validation": len(contest.validation),
        "synthetic": len(contest.synthetic),
        "test": len(contest.test),
    }


def _not_varied(contest: Contest) -> list[str]:
    return [
        "the synthetic rows: one fit of one generator and one set of draws from it",
        f"the data: one set of {len(contest.train)} training rows",
        f"the choices: made once, on {len(contest.validation)} validation rows",
        "the classifier: one small convolutional network",
    ]


def _notes(choice: Choice, contest: Contest, seeds: int) -> list[str]:
    notes = list(contest.notes)
    if not choice.trials:
        notes.insert(0, "There are no validation rows, so nothing was chosen: every arm took the defaults.")
    if seeds < MINIMUM_SEEDS:
        notes.insert(0, f"With fewer than {MINIMUM_SEEDS} seeds the verdict is always 'no clear change'.")
    return notes
