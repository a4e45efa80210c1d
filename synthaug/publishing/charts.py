"""Charts as inline SVG: no library, no script, colours from the page's own variables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

__all__ = ["draw_arms", "draw_curves", "draw_difference"]

_SERIES = 6
"""Colours that the page defines as --series-0, --series-1, ..."""


def _scale(low: float, high: float, left: float, right: float) -> tuple[float, float]:
    """Return (a, b) of x -> a x + b, which maps [low, high] to [left, right]."""
    slope = (right - left) / max(high - low, 1e-9)
    return slope, left - slope * low


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers within [low, high], about `count` of them."""
    rough = max(high - low, 1e-9) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _text(x: float, y: float, content: str, anchor: str = "start", style: str = "label") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(
        x, y, style, anchor, content
    )


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, style)


def _band(left: float, right: float, style: str) -> Markup:
    template = Markup('<rect x="{:.1f}" y="8" width="{:.1f}" height="62" class="{}"/>')
    return template.format(left, right - left, style)


def _dot(x: float, y: float, radius: float, style: str) -> Markup:
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}"/>').format(x, y, radius, style)


def _svg(width: int, height: int, title: str, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">{}</svg>'
    ).format(width, height, title, Markup("").join(parts))


def draw_arms(arms: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw one line for each arm: the seeds as small dots, mean and 95 % interval on top.

    Args:
        arms: Entries of `Report.arms`.

    Returns:
        Inline SVG.
    """
    width, row, left, right = 880, 38, 270, 800
    values = [v for arm in arms for v in (*arm["per_seed"], *(arm["interval"] or ()), arm["balanced_accuracy"])]
    low, high = 100 * min(values), 100 * max(values)
    margin = max(0.06 * (high - low), 0.1)
    low, high = max(0.0, low - margin), min(100.0, high + margin)
    slope, offset = _scale(low, high, left, right)
    height = row * len(arms) + 50
    parts = [_line(slope * t + offset, 6, slope * t + offset, height - 40, "grid") for t in _ticks(low, high)]
    for position, arm in enumerate(arms):
        y = 26 + row * position
        kind = arm["role"] or "other"
        parts.append(_text(left - 16, y + 4.5, arm["name"], "end", f"label {kind}"))
        ends = arm["interval"] or (arm["balanced_accuracy"],) * 2
        x1, x2 = (slope * 100 * end + offset for end in ends)
        parts.append(_line(x1, y, x2, y, f"range {kind}"))
        parts += [_dot(slope * 100 * seed + offset, y, 2.6, "seed") for seed in arm["per_seed"]]
        parts.append(_dot(slope * 100 * arm["balanced_accuracy"] + offset, y, 6, f"mean {kind}"))
        parts.append(_text(width - 4, y + 4.5, f"{100 * arm['balanced_accuracy']:.2f}", "end", f"value {kind}"))
    parts += [_text(slope * t + offset, height - 22, _number(t), "middle", "tick") for t in _ticks(low, high)]
    parts.append(_text((left + right) / 2, height - 5, "balanced accuracy on test rows, %", "middle", "tick"))
    return _svg(width, height, "Balanced accuracy of every arm", parts)


def draw_difference(difference: float, interval: Sequence[float] | None, per_seed: Sequence[float]) -> Markup:
    """Draw the paired difference with its interval against zero, in percentage points.

    Args:
        difference: Its mean.
        interval: Its 95 % interval; None with a single seed.
        per_seed: The difference of each seed.

    Returns:
        Inline SVG.
    """
    width, height, y = 880, 108, 40
    ends = [100 * end for end in (interval or (difference, difference))]
    reach = 1.12 * max(0.2, *(abs(v) for v in ends), *(100 * abs(v) for v in per_seed))
    slope, offset = _scale(-reach, reach, 30, width - 30)
    parts = [
        _band(30, offset, "harm-side"),
        _band(offset, width - 30, "help-side"),
        _text(40, 24, "synthetic rows harm", "start", "tick"),
        _text(width - 40, 24, "synthetic rows help", "end", "tick"),
    ]
    parts += [_text(slope * t + offset, 88, _number(t), "middle", "tick") for t in _ticks(-reach, reach, 8)]
    parts.append(_line(offset, 8, offset, 70, "zero"))
    parts.append(_line(slope * ends[0] + offset, y, slope * ends[1] + offset, y, "range verdict"))
    parts += [_line(slope * end + offset, y - 8, slope * end + offset, y + 8, "cap") for end in ends]
    parts += [_dot(slope * 100 * seed + offset, y + 20, 3, "seed") for seed in per_seed]
    parts.append(_dot(slope * 100 * difference + offset, y, 7, "mean verdict"))
    parts.append(_text(width / 2, 104, "percentage points of balanced accuracy", "middle", "tick"))
    return _svg(width, height, "Paired difference", parts)


def draw_curves(curves: Mapping[str, Sequence[Sequence[float]]]) -> Markup:
    """Draw validation accuracy over optimiser steps, one line for each arm.

    Args:
        curves: Arm -> [[step, share], ...].

    Returns:
        Inline SVG, empty when there is nothing to draw.
    """
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return Markup("")
    width, left, right, top, bottom = 880, 44, 570, 10, 220
    every = [100 * value for curve in curves.values() for _, value in curve]
    low, high = max(0.0, min(every) - 1), min(100.0, max(every) + 1)
    last = max(step for curve in curves.values() for step, _ in curve)
    xs, xo = _scale(0, last, left, right)
    ys, yo = _scale(low, high, bottom, top)
    parts = []
    for tick in _ticks(low, high):
        parts.append(_line(left, ys * tick + yo, right, ys * tick + yo, "grid"))
        parts.append(_text(left - 8, ys * tick + yo + 4, _number(tick), "end", "tick"))
    parts += [_text(xs * t + xo, bottom + 20, _number(t), "middle", "tick") for t in _ticks(0, last)]
    parts.append(_text((left + right) / 2, bottom + 38, "optimiser steps", "middle", "tick"))
    for position, (name, curve) in enumerate(curves.items()):
        path = " ".join(f"{xs * step + xo:.1f},{ys * 100 * value + yo:.1f}" for step, value in curve)
        style = f"series-{position % _SERIES}"
        parts.append(Markup('<polyline points="{}" class="curve {}"/>').format(path, style))
        y = top + 12 + 24 * position
        parts.append(_line(right + 24, y, right + 48, y, f"curve {style}"))
        parts.append(_text(right + 58, y + 4.5, name, "start", "label"))
    return _svg(width, max(bottom + 44, 24 * len(curves) + 24), "Validation accuracy over training", parts)
