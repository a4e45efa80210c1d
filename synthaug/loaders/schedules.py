"""How the share of synthetic images goes over the epochs of a training."""

from __future__ import annotations

import math
from collections.abc import Callable

from synthaug.core import InputError, suggest

__all__ = ["SCHEDULES", "Schedule", "ShareFactor"]

Schedule = str | Callable[[float], float]
"""A name of `SCHEDULES`, "off-after:F", or a function of the fraction done that gives a factor in [0, 1]."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda fraction: 1.0,
    "linear": lambda fraction: 1.0 - fraction,
    "cosine": lambda fraction: 0.5 * (1.0 + math.cos(math.pi * fraction)),
}
"""Name -> function of the fraction done, in [0, 1], that gives the factor of the share."""

_ALLOWED = "'constant', 'linear', 'cosine', 'off-after:0.8' or a function of the fraction done, in [0, 1]"


class ShareFactor:
    """The factor of the share as a function of the epoch; it can be sent to worker processes.

    The fraction done is ``epoch / (epochs - 1)``: 0 in the first epoch, 1 in the last one and ever after.

    Args:
        schedule: A name of `SCHEDULES`; "off-after:F" gives 1 below the fraction F and 0 from there on; or a
            function ``fraction -> factor``, both in [0, 1].
        epochs: Number of epochs of the training; "constant" needs none.

    Raises:
        InputError: The name is unknown, or `epochs` is missing or below 1.

    Example:
        >>> [ShareFactor("linear", 3)(epoch) for epoch in range(4)]
        [1.0, 0.5, 0.0, 0.0]
    """

    def __init__(self, schedule: Schedule, epochs: int | None) -> None:
        self._given, self._epochs = schedule, epochs
        self._resolve()
        if epochs is None:
            if schedule != "constant":
                raise InputError(f"schedule {schedule!r} needs the length of the training; give epochs, such as 30")
        elif isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
            raise InputError(f"epochs is {epochs!r}; give an integer of at least 1")

    def _resolve(self) -> Callable[[float], float]:
        schedule = self._given
        if callable(schedule):
            return schedule
        if schedule in SCHEDULES:
            return SCHEDULES[schedule]
        name, _, text = str(schedule).partition(":")
        if name != "off-after":
            raise InputError(f"schedule is {schedule!r}{suggest(str(schedule), SCHEDULES)}; give {_ALLOWED}")
        try:
            end = float(text)
        except ValueError:
            end = math.nan
        if not 0 <= end <= 1:
            raise InputError(f"schedule is {schedule!r}; write the fraction in [0, 1] behind it, as in 'off-after:0.8'")
        return lambda fraction: 1.0 if fraction < end else 0.0

    def __call__(self, epoch: int) -> float:
        """Return the factor of an epoch, in [0, 1].

        Raises:
            InputError: The user's function gives something else.
        """
        if self._epochs is None:
            return 1.0
        fraction = min(1.0, epoch / (self._epochs - 1)) if self._epochs > 1 else 0.0
        factor = float(self._resolve()(fraction))
        if not 0 <= factor <= 1:
            raise InputError(f"the schedule gives {factor} at the fraction {fraction:g}; it must give 0 to 1")
        return factor
