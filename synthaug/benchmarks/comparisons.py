"""Every arm against the opponent: paired differences, corrected for their number, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from synthaug.benchmarks.grouping import Grouping
from synthaug.benchmarks.results import ArmResults
from synthaug.core import Estimate, adjust_holm, estimate_mean, mean_recalls

__all__ = ["compare_arms", "compare_groups", "compare_joint", "compare_pair", "count_equivalents"]

_SKEWED = 2.0
"""Largest class over smallest from which classes are grouped into head, medium and tail."""


def compare_pair(result: ArmResults, other: ArmResults, labels: NDArray[np.int64]) -> Estimate:
    """Return the paired difference in balanced accuracy, `result` minus `other`, on test rows of these labels."""
    hits = [(arm.predictions() == labels).astype(np.float64) for arm in (result, other)]
    return estimate_mean(hits[0] - hits[1], labels)


def compare_arms(
    results: Sequence[ArmResults], opponent: ArmResults, labels: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Return for each arm but the opponent its difference, interval, p-value and that after Holm's correction.

    Corrected is for all arms that are shown against this opponent.
    """
    others = [result for result in results if result is not opponent]
    estimates = [compare_pair(result, opponent, labels) for result in others]
    adjusted = adjust_holm([estimate.p_value for estimate in estimates])
    return {
        result.arm.name: {
            "value": estimate.value,
            "interval": [estimate.low, estimate.high] if len(estimate.per_seed) > 1 else None,
            "p": estimate.p_value,
            "p_holm": corrected,
        }
        for result, estimate, corrected in zip(others, estimates, adjusted, strict=True)
    }


def compare_groups(
    synthetic: ArmResults,
    opponent: ArmResults,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    train_counts: Sequence[int],
) -> list[dict[str, Any]]:
    """Return the mean recall of head, medium and tail in both arms; nothing where the counts are about equal.

    The classes are split into thirds by their training rows.
    """
    counts = np.asarray(train_counts)
    if len(counts) < 3 or counts.max() < _SKEWED * max(1, counts.min()):
        return []
    number, order = len(class_names), np.argsort(-counts, kind="stable")
    recall = {
        name: mean_recalls(labels, arm.predictions(), number)
        for name, arm in (("opponent", opponent), ("synthetic", synthetic))
    }
    return [
        {
            "name": name,
            "classes": [class_names[i] for i in members],
            "train": int(counts[members].sum()),
            **{arm: float(np.nanmean(values[members])) for arm, values in recall.items()},
        }
        for name, members in zip(("head", "medium", "tail"), np.array_split(order, 3), strict=True)
        if not np.isnan(recall["opponent"][members]).all()
    ]


def compare_joint(
    results: Sequence[ArmResults],
    synthetic: ArmResults,
    opponent: ArmResults,
    labels: NDArray[np.int64],
    grouping: Grouping,
) -> dict[str, Any]:
    """Return how every arm does on its worst joint group, and how two of them compare there.

    The worst group is each training's own: the lowest accuracy of any group with test rows. The interval is
    Student's t over the paired seeds; it says nothing of other test rows.

    Returns:
        columns; arms: for each the worst accuracy, the gap to the best group (both averaged over seeds) and the
        worst of each seed; value and interval (None with one seed) of synthetic minus opponent; entries: for each
        group with test rows its rows and its recall in both arms.
    """
    strata = grouping.index["test"]
    tested, trained = grouping.count("test"), grouping.count("train")
    present = np.flatnonzero(tested)
    recall = {
        result.arm.name: np.array(
            [[hits[strata == group].mean() for group in present] for hits in result.predictions() == labels]
        )
        for result in results
    }
    gain = recall[synthetic.arm.name].min(axis=1) - recall[opponent.arm.name].min(axis=1)
    after, before = recall[synthetic.arm.name].mean(axis=0), recall[opponent.arm.name].mean(axis=0)
    made = grouping.count_synthetic()
    return {
        "columns": list(grouping.columns),
        "synthetic": synthetic.arm.name,
        "opponent": opponent.arm.name,
        "arms": [
            {
                "name": name,
                "worst": float(values.min(axis=1).mean()),
                "gap": float((values.max(axis=1) - values.min(axis=1)).mean()),
                "per_seed": values.min(axis=1).tolist(),
            }
            for name, values in recall.items()
        ],
        "value": float(gain.mean()),
        "interval": _estimate_paired(gain),
        "entries": [
            {
                "name": grouping.names[group],
                "train": int(trained[group]),
                "synthetic": int(made[group]),
                "test": int(tested[group]),
                "opponent_recall": float(before[position]),
                "synthetic_recall": float(after[position]),
            }
            for position, group in enumerate(present)
        ],
    }


def _estimate_paired(differences: NDArray[np.float64]) -> list[float] | None:
    """Return the 95 % interval of a mean by Student's t; None for a single value."""
    number = len(differences)
    if number < 2:
        return None
    reach = float(stdtrit(number - 1, 0.975)) * float(differences.std(ddof=1)) / number**0.5
    return [float(differences.mean()) - reach, float(differences.mean()) + reach]


def count_equivalents(
    gain: float, interval: Sequence[float] | None, oracle: Mapping[int, float], synthetic_rows: int
) -> dict[str, Any] | None:
    """Return how many further real rows would have gained as much, and how many one synthetic row stands for.

    The gains of the oracle arms over the opponent are joined by straight lines from (0, 0), never falling. What
    lies above the last one is given as that number of rows, with `beyond` true.

    Args:
        gain: Of the synthetic arm over the opponent, in balanced accuracy.
        interval: Its 95 % interval; the ends are read off the same line.
        oracle: Further real rows -> gain over the opponent.
        synthetic_rows: Number of synthetic rows.

    Returns:
        rows, low, high, beyond, per_synthetic_row and points; None without oracle arms, or where even they gain
        nothing.
    """
    points = sorted(oracle.items())
    if not points or max(gains for _, gains in points) <= 0:
        return None
    rows = np.array([0, *(number for number, _ in points)], dtype=np.float64)
    gains = np.maximum.accumulate(np.array([0.0, *(value for _, value in points)]))

    def read(value: float) -> float:
        reached = int(np.searchsorted(gains, value, side="left"))
        if value <= 0 or reached == 0:
            return 0.0
        if reached == len(gains):
            return float(rows[-1])
        return float(np.interp(value, gains[reached - 1 : reached + 1], rows[reached - 1 : reached + 1]))

    ends = interval or (gain, gain)
    return {
        "rows": read(gain),
        "low": read(ends[0]),
        "high": read(ends[1]),
        "beyond": bool(gain > gains[-1]),
        "per_synthetic_row": read(gain) / synthetic_rows,
        "points": [[int(number), float(value)] for number, value in zip(rows, gains, strict=True)],
    }
