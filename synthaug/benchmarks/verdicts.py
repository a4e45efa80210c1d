"""The verdict of a benchmark and the sentence that says it."""

from __future__ import annotations

from synthaug.core import MINIMUM_SEEDS, Estimate, judge_difference

__all__ = ["decide", "write_sentence"]


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


def write_sentence(
    verdict: str,
    difference: Estimate,
    opponent: str,
    rows: int,
    own: Estimate,
    matched: str,
    *,
    unused: bool = False,
) -> str:
    """Return the verdict in plain words, with its numbers.

    Args:
        verdict: The verdict.
        difference: Synthetic arm minus opponent.
        opponent: Its name.
        rows: Number of test rows.
        own: Synthetic arm minus the same arm without synthetic rows.
        matched: Name of that arm.
        unused: Whether validation rows chose to leave the synthetic rows out.
    """
    if unused:
        return (
            "On validation rows every share of synthetic rows did worse than none, so none is recommended: train "
            f"without them ({opponent})."
        )
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
        f"{change} percentage points from {against}, {ground}; a true difference of "
        f"{_points(difference.detectable).lstrip('+')} would have been found four times in five. Until something does, "
        "train on the real rows alone."
    )
