"""From the results of all cells to a report: numbers, verdict, sentences and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthaug.benchmarks.comparisons import compare_arms, compare_groups, compare_joint, compare_pair, count_equivalents
from synthaug.benchmarks.grouping import Grouping
from synthaug.benchmarks.report import Report
from synthaug.benchmarks.results import ArmResults, choose_front
from synthaug.benchmarks.splits import Splits
from synthaug.benchmarks.tuning import Trials
from synthaug.benchmarks.verdicts import decide, write_sentence
from synthaug.core import MINIMUM_SEEDS, Estimate, confusion_matrix, estimate_mean, macro_f1, mean_recalls
from synthaug.publishing import draw_pictures

__all__ = ["write_findings"]

_CONFUSIONS, _LISTED = 10, 5
_FEW_ROWS = 5
"""Validation rows of a group under which they say next to nothing of it."""

_METHOD = (
    "The interval is Student's t over seeds and test rows as crossed random effects: the variance that the "
    "seeds show, plus the one that resampling the test rows within classes would show, less their common "
    "residual; Satterthwaite's degrees of freedom."
)


def write_findings(
    results: Sequence[ArmResults],
    trials: Trials,
    splits: Splits,
    *,
    settings: Mapping[str, Any],
    cost: Mapping[str, Any],
    command: str,
) -> Report:
    """Return the report of a finished benchmark.

    Args:
        results: Every arm with its reported seeds.
        trials: Everything that was tried on validation rows.
        splits: The rows.
        settings: What the benchmark ran with.
        cost: What it took.
        command: How to run it again.
    """
    by_name = {result.arm.name: result for result in results}
    synthetic = choose_front([result for result in results if result.arm.side == "synthetic"])
    opponent = choose_front([result for result in results if result.arm.side == "classical"])
    labels, counts = splits.test.labels, list(splits.train.class_counts.values())
    matched = by_name.get(synthetic.arm.base, opponent)
    difference = compare_pair(synthetic, opponent, labels)
    own = compare_pair(synthetic, matched, labels)
    others = compare_arms(results, opponent, labels)
    unused = not synthetic.cell.share and synthetic.arm.share is None
    verdict = "no clear change" if unused else decide(difference, own)  # rows that are left out cannot harm
    pictures, captions = draw_pictures(splits.train, splits.synthetic, splits.class_names)
    interval = (difference.low, difference.high) if len(difference.per_seed) > 1 else None
    sentence = write_sentence(
        verdict, difference, opponent.arm.name, len(labels), own, matched.arm.name,
        unused=unused,
    )  # fmt: skip
    roles = {synthetic.arm.name: "synthetic", opponent.arm.name: "opponent"}
    return Report(
        verdict=verdict,
        sentence=sentence,
        difference=difference.value,
        interval=interval,
        arms=[{**_arm_entry(result, roles, splits), "difference": others.get(result.arm.name)} for result in results],
        comparison={
            "synthetic": synthetic.arm.name,
            "opponent": opponent.arm.name,
            **_describe_estimate(difference),
            "matched": {
                "arm": matched.arm.name,
                "difference": own.value,
                "interval": [own.low, own.high] if interval else None,
            },
        },
        groups=compare_groups(synthetic, opponent, labels, splits.class_names, counts),
        joint={} if splits.groups is None else compare_joint(results, synthetic, opponent, labels, splits.groups),
        worth=_weigh(results, others, difference, interval, synthetic.rows_added or len(splits.synthetic)),
        classes=_class_entries(synthetic, opponent, splits),
        confusions=_confusion_entries(synthetic, opponent, splits),
        curves={name: result.curve() for name, result in by_name.items()},
        tuning=trials,
        leaks=_leak_facts(splits),
        settings={**settings, "captions": captions, "rows": _row_counts(splits)},
        cost=dict(cost),
        not_varied=_not_varied(splits, settings["classifier"]),
        notes=[*_note_limits(results, others), *_notes(trials, splits, len(difference.per_seed))],
        command=command,
        pictures=pictures,
    )


def _describe_estimate(difference: Estimate) -> dict[str, Any]:
    many = len(difference.per_seed) > 1
    alike = many and not any(difference.per_seed) and not difference.standard_error
    method = _METHOD if many else "One seed shows no spread, so there is no interval."
    return {
        "per_seed": list(difference.per_seed),
        "standard_error": difference.standard_error if many else None,
        "seed_error": difference.seed_error if many else None,
        "row_error": difference.row_error if many else None,
        "degrees": difference.degrees,
        "p": difference.p_value if many else None,
        "detectable": difference.detectable if many and not alike else None,
        "method": "Both trained the same, so no difference was to be found." if alike else method,
    }


def _weigh(
    results: Sequence[ArmResults],
    others: Mapping[str, Mapping[str, Any]],
    difference: Estimate,
    interval: tuple[float, float] | None,
    synthetic_rows: int,
) -> dict[str, Any]:
    """Return what the synthetic rows were worth in real ones; empty without oracle arms."""
    gains: dict[int, float] = {}
    for result in results:
        if result.arm.side == "oracle":  # several arms may add the same rows: the best way to use them counts
            gain = others[result.arm.name]["value"]
            gains[result.rows_added] = max(gain, gains.get(result.rows_added, gain))
    return count_equivalents(difference.value, interval, gains, synthetic_rows) or {}


def _arm_entry(result: ArmResults, roles: Mapping[str, str], splits: Splits) -> dict[str, Any]:
    predictions, labels = result.predictions(), splits.test.labels
    count = len(splits.class_names)
    accuracy = estimate_mean((predictions == labels).astype(np.float64), labels)
    interval = (max(0.0, accuracy.low), min(1.0, accuracy.high))
    return {
        "name": result.arm.name,
        "description": result.arm.describe_by("class" if splits.groups is None else "group"),
        "side": result.arm.side,
        "role": roles.get(result.arm.name, ""),
        "options": result.options,
        "balanced_accuracy": accuracy.value,
        "interval": interval if len(accuracy.per_seed) > 1 else None,
        "per_seed": list(accuracy.per_seed),
        "macro_f1": float(np.mean([macro_f1(labels, row, count) for row in predictions])),
        "nll": result.mean("test", "nll"),
        "calibration_error": result.mean("test", "calibration_error"),
        "worst_recall": float(np.nanmin(mean_recalls(labels, predictions, count))),
        "validation": result.mean("validation", "balanced_accuracy"),
        "validation_loss": result.mean("validation", "scaled_nll"),
        "rows": {"real": 0 if result.arm.alone else len(splits.train), "added": result.rows_added},
        "seconds": sum(one["seconds"] for one in result.seeds),
    }


def _class_entries(synthetic: ArmResults, opponent: ArmResults, splits: Splits) -> list[dict[str, Any]]:
    count, labels = len(splits.class_names), splits.test.labels
    after = mean_recalls(labels, synthetic.predictions(), count)
    before = mean_recalls(labels, opponent.predictions(), count)
    tested, trained = splits.test.class_counts, splits.train.class_counts
    made = splits.synthetic.class_counts
    entries = []
    for number, name in enumerate(splits.class_names):
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


def _confusion_entries(synthetic: ArmResults, opponent: ArmResults, splits: Splits) -> list[dict[str, Any]]:
    """Return the confusions whose share of their class changed most, largest first."""
    names, labels = splits.class_names, splits.test.labels
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


def _leak_facts(splits: Splits) -> dict[str, Any]:
    """Return what the leak check found, with its sentences under "lines"."""
    facts, near = splits.leaks.facts(), splits.near_duplicates
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


def _row_counts(splits: Splits) -> dict[str, int]:
    return {
        "train": len(splits.train),
        "validation": len(splits.validation),
        "synthetic": len(splits.synthetic),
        "test": len(splits.test),
    }


def _not_varied(splits: Splits, classifier: str) -> list[str]:
    return [
        "the synthetic rows: one fit of each generator and one set of draws from it",
        f"the data: one set of {len(splits.train)} training rows",
        f"the choices: made once, on {len(splits.validation)} validation rows",
        f"the classifier: one network ({classifier})",
    ]


def _note_limits(results: Sequence[ArmResults], others: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a remark where not even further real rows help: then it is not the rows that are short."""
    oracles = [result for result in results if result.arm.side == "oracle"]
    if not oracles:
        return []
    largest = max(oracles, key=lambda result: result.rows_added)
    change = others[largest.arm.name]
    if change["interval"] is None or change["interval"][0] > 0:
        return []
    return [
        f"Not even {largest.rows_added} further real rows are clearly better than none: at this length of training it "
        "is not the rows that are short. Give more --steps before concluding anything about synthetic rows."
    ]


def _notes(trials: Trials, splits: Splits, seeds: int) -> list[str]:
    notes = list(splits.notes)
    if not trials:
        notes.insert(0, "There are no validation rows, so nothing was chosen: every arm took the defaults.")
    if seeds < MINIMUM_SEEDS:
        notes.insert(0, f"With fewer than {MINIMUM_SEEDS} seeds the verdict is always 'no clear change'.")
    if trials and splits.groups is not None:
        notes += _note_unseen(splits.groups)
    return notes


def _note_unseen(groups: Grouping) -> list[str]:
    """Return a note if validation rows can hardly choose for some groups."""
    trained = groups.count("train") > 0
    few = int((groups.count("validation")[trained] < _FEW_ROWS).sum())
    if not few:
        return []
    return [
        f"{few} of {int(trained.sum())} groups have fewer than {_FEW_ROWS} validation rows, so the choices hardly saw "
        "them, and a share that was found best for the others may not be the best for these. `synthaug recommend "
        "--folds 5` lets all real rows choose; an arm with a fixed share, such as "
        "oversampled+classical+synthetic@0.5, does not depend on that choice."
    ]
