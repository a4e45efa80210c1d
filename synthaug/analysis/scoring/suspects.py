"""What the scores of many rows come to: bits per dimension, AUROC of marked rows, the most suspicious ones."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import stdtrit

from synthaug.analysis.scoring.row_scores import RowScores
from synthaug.core import estimate_auroc
from synthaug.data import Scan

__all__ = ["SUSPECTS", "summarize_scores"]

SUSPECTS = 20
"""Rows of either kind that are listed and pictured."""


def summarize_scores(
    figures: RowScores,
    scan: Scan,
    labels: NDArray[np.int64],
    class_names: list[str],
    kept: Dataset,
    marks: dict[str, str],
) -> dict[str, Any]:
    """Return the fields of `Scores` that follow from the figures of its rows.

    Args:
        figures: Those of the N rows.
        scan: Their pixels, row numbers, and the rows left out.
        labels: (N,) int64, -1 where there is no label.
        class_names: The classes that labels count.
        kept: The rows themselves.
        marks: "outlier" and "wrong_label" -> the column that marks such rows.
    """
    bits = {"all": _mean_bits(figures.bits_per_dim)}
    bits |= {name: _mean_bits(figures.bits_per_dim[labels == k]) for k, name in enumerate(class_names)}
    ranks = {"outlier": figures.outlier, "wrong_label": figures.wrong_label}
    found = {}
    for kind, column in marks.items():
        usable = np.isfinite(ranks[kind])
        marked = np.array([bool(value) for value in kept[column]], dtype=np.bool_)[usable]
        area = estimate_auroc(marked, ranks[kind][usable])
        if area is None:
            print(f"note: column {column!r} marks all rows or none, so there is no AUROC", file=sys.stderr)
            continue
        single = {name: estimate_auroc(marked, values[usable]) for name, values in figures.figures[kind].items()}
        found[kind] = {
            "column": column,
            "marked": int(marked.sum()),
            "auroc": area[0],
            "interval": list(area[1:]),
            "single": {name: one[0] for name, one in single.items() if one is not None},
        }
    return {
        "rows": len(labels),
        "unlabelled": int((labels < 0).sum()),
        "corrupt": [[bad.row, bad.reason] for bad in scan.corrupt],
        "bits": {name: entry for name, entry in bits.items() if entry["rows"]},
        "marks": found,
        "suspects": {kind: _list_suspects(rank, figures, scan, labels, class_names) for kind, rank in ranks.items()},
    }


def _mean_bits(bits: NDArray[np.float64]) -> dict[str, Any]:
    rows = len(bits)
    if rows < 2:
        return {"rows": rows, "bits": float(bits.mean()) if rows else None, "interval": None}
    mean, reach = float(bits.mean()), float(stdtrit(rows - 1, 0.975) * bits.std(ddof=1) / rows**0.5)
    return {"rows": rows, "bits": mean, "interval": [mean - reach, mean + reach]}


def _list_suspects(
    ranks: NDArray[np.float64], figures: RowScores, scan: Scan, labels: NDArray[np.int64], class_names: list[str]
) -> list[dict[str, Any]]:
    order = np.argsort(-np.nan_to_num(ranks, nan=-1.0), kind="stable")[:SUSPECTS]
    return [
        {
            "row": int(scan.rows[i]),
            "position": int(i),
            "label": class_names[labels[i]] if labels[i] >= 0 else None,
            "predicted": class_names[figures.predicted[i]],
            "bits_per_dim": float(figures.bits_per_dim[i]),
            "label_probability": float(figures.label_probability[i]) if labels[i] >= 0 else None,
            "score": float(ranks[i]),
        }
        for i in order.tolist()
        if np.isfinite(ranks[i])
    ]
