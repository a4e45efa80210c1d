"""The measured parts of an evaluation as JSON-friendly entries, over all classes and for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthaug.analysis.evaluation.fidelity import Measure, expect_coverage, measure_share
from synthaug.analysis.evaluation.measurements import SPACES, Accuracy, Comparison, Copying, Nearness
from synthaug.analysis.evaluation.splits import ComparedRows
from synthaug.core import Estimate, balanced_accuracy, estimate_mean

__all__ = ["describe_parts"]

Comparisons = Mapping[str, Mapping[str, tuple[Comparison, list[Comparison]]]]


def describe_parts(
    compared_rows: ComparedRows,
    accuracy: Accuracy,
    predictions: Mapping[str, NDArray[np.int64]],
    comparisons: Comparisons,
    copying: Copying,
) -> dict[str, Any]:
    """Return the fields of an `Evaluation` that hold numbers.

    Args:
        compared_rows: The rows.
        accuracy: Accuracy scores.
        predictions: What the referee takes the "synthetic" and the "test" rows for.
        comparisons: See `appraisal.compare_features`.
        copying: The copy test.
    """
    made, test, classes = compared_rows.synthetic, compared_rows.real.test, len(compared_rows.real.class_names)
    acceptance = made.acceptance
    drawn = sum(tally.drawn for tally in acceptance or ())
    return {
        **_describe_accuracy(accuracy, test.labels, np.ones(len(test), dtype=bool)),
        **_describe_share("wrong_class", measure_share(predictions["synthetic"] != made.labels)),
        "referee_accuracy": balanced_accuracy(test.labels, predictions["test"], classes),
        **_describe_copies(copying.overall),
        "copy_test": {**_describe_nearness(copying.overall), "median_distance": copying.median},
        **_describe_comparisons({space: {k: v[0] for k, v in comparisons[space].items()} for space in SPACES}),
        "acceptance": sum(tally.accepted for tally in acceptance) / drawn if acceptance else None,
        "per_class": [
            _describe_class(label, compared_rows, accuracy, predictions, comparisons, copying)
            for label in range(classes)
        ],
    }


def _describe_class(
    label: int,
    compared_rows: ComparedRows,
    accuracy: Accuracy,
    predictions: Mapping[str, NDArray[np.int64]],
    comparisons: Comparisons,
    copying: Copying,
) -> dict[str, Any]:
    made, test = compared_rows.synthetic, compared_rows.real.test
    members, tested = made.labels == label, test.labels == label
    name = compared_rows.real.class_names[label]
    own = measure_share(predictions["test"][tested] != label)
    tally = made.acceptance[label] if made.acceptance else None
    return {
        "name": name,
        "train": compared_rows.real.train.class_counts[name],
        "test": int(tested.sum()),
        "synthetic": int(members.sum()),
        **_describe_accuracy(accuracy, test.labels, tested),
        **_describe_share("wrong_class", measure_share(predictions["synthetic"][members] != label)),
        "referee_error": None if own is None else own.value,
        **_describe_copies(copying.classes[label]),
        "copy_test": _describe_nearness(copying.classes[label]),
        **_describe_comparisons({space: {k: v[1][label] for k, v in comparisons[space].items()} for space in SPACES}),
        "acceptance": None if tally is None else tally.rate,
        "rejected": None if tally is None else dict(tally.rejected),
    }


def _describe_accuracy(accuracy: Accuracy, labels: NDArray[np.int64], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Return balanced accuracies over the chosen test rows; all None without such rows."""
    parts: dict[str, Estimate | None] = dict.fromkeys(("cas", "cas_real", "cas_difference"))
    if chosen.any():
        synthetic, real = (hits[:, chosen].astype(np.float64) for hits in (accuracy.synthetic, accuracy.real))
        for key, scores in (("cas", synthetic), ("cas_real", real), ("cas_difference", synthetic - real)):
            parts[key] = estimate_mean(scores, labels[chosen])
    entry: dict[str, Any] = {}
    for key, estimate in parts.items():
        many = estimate is not None and len(estimate.per_seed) > 1
        bounds = (-1.0, 1.0) if key == "cas_difference" else (0.0, 1.0)
        entry[key] = None if estimate is None else estimate.value
        entry[f"{key}_interval"] = (
            [max(bounds[0], estimate.low), min(bounds[1], estimate.high)] if estimate is not None and many else None
        )
    return entry


def _describe_share(key: str, share: Measure | None) -> dict[str, Any]:
    if share is None:
        return {key: None, f"{key}_interval": None}
    return {key: share.value, f"{key}_interval": list(share.interval)}


def _describe_copies(nearness: Nearness) -> dict[str, Any]:
    return {**_describe_share("copies", nearness.copies), **_describe_share("copies_held_out", nearness.held_out)}


def _describe_nearness(nearness: Nearness) -> dict[str, Any]:
    return {
        **_describe_share("own_copies", nearness.own_copies),
        **_describe_share("own_copies_held_out", nearness.own_held_out),
        **_describe_share("nearer", nearness.nearer),
        "score": nearness.score,
    }


def _describe_comparisons(found: Mapping[str, Mapping[str, Comparison]]) -> dict[str, Any]:
    """Return density, coverage and kernel distance, each by kind of features, real rows beside synthetic ones."""
    entries: dict[str, Any] = {}
    for measure in ("density", "coverage", "kernel_distance"):
        entries[measure] = {}
        for space, kinds in found.items():
            synthetic = kinds.get("synthetic")
            entry = {
                **_describe_measure(None if synthetic is None else getattr(synthetic, measure)),
                **{
                    kind: _describe_measure(getattr(kinds[kind], measure))
                    for kind in ("training", "validation")
                    if kind in kinds
                },
            }
            if measure == "coverage" and entry["value"] is not None and synthetic is not None:
                entry["expected"] = expect_coverage(synthetic.rows, synthetic.rows)
            entries[measure][space] = entry
    return entries


def _describe_measure(measure: Measure | None) -> dict[str, Any]:
    if measure is None:
        return {"value": None, "interval": None, "rows": 0}
    return {"value": measure.value, "interval": list(measure.interval), "rows": measure.rows}
