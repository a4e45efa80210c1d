"""Numbers of reports as text: shares, differences, p-values and intervals."""

from __future__ import annotations

import math

__all__ = ["percent", "points", "probability", "spread"]


def percent(value: float | None) -> str:
    """Return a share as a percentage with two decimals, or a dash."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.2f} %"


def points(value: float | None) -> str:
    """Return a difference of shares in signed percentage points, or a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    written = f"{100 * value:+.2f}"
    return "0.00" if float(written) == 0 else written.replace("-", "−")


def probability(value: float | None) -> str:
    """Return a p-value with three decimals, or a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def spread(interval: tuple[float, float] | list[float] | None) -> str:
    """Return an interval of shares as percentages, or a dash."""
    return "–" if interval is None else f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"
