"""How many images each class misses: plain integers, decided before anything is drawn.

The words `auto`, `not-majority`, `minority`, `not-minority` and `all` and a mapping of totals mean what
they mean in imbalanced-learn's over-samplers; `majority`, `median` and a number are totals that every
class is raised to.

References:
    Lemaitre, Nogueira, Aridas: Imbalanced-learn, a Python toolbox to tackle the curse of imbalanced datasets
    in machine learning (2017); `imblearn.utils.check_sampling_strategy`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from synthaug.core import InputError, suggest

__all__ = ["STRATEGIES", "BalancePlan", "benchmark_plan", "make_plan", "parse_target", "per_class_plan"]

Counts = dict[str, int]


@dataclass(frozen=True)
class BalancePlan:
    """What every class has, and what it is given.

    Args:
        real: Class name -> number of real rows, in label order.
        missing: Class name -> number of synthetic rows to make; the same names in the same order.
        notices: What the user should know about the plan, one sentence each.

    Raises:
        InputError: If the names differ or a number is not an integer of at least 0.

    Example:
        >>> plan = make_plan({"cat": 5, "dog": 2})
        >>> plan.missing, plan.total
        ({'cat': 0, 'dog': 3}, {'cat': 5, 'dog': 5})
    """

    real: Counts
    missing: Counts
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if list(self.real) != list(self.missing):
            raise InputError("plan: `real` and `missing` must name the same classes in the same order")
        for name, number in [*self.real.items(), *self.missing.items()]:
            _check_count(f"plan: class {name!r}", number)

    @property
    def total(self) -> Counts:
        """Class name -> real and synthetic rows together."""
        return {name: count + self.missing[name] for name, count in self.real.items()}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return tuple(self.real)

    @property
    def num_missing(self) -> int:
        """Synthetic rows over all classes."""
        return sum(self.missing.values())

    def table(self) -> str:
        """Return the plan as aligned text: one class a line, then the sums and the notices."""
        total = self.total
        rows = [(_printable(name), self.real[name], self.missing[name], total[name]) for name in self.real]
        rows.append(("all", sum(self.real.values()), self.num_missing, sum(total.values())))
        width = max(len("class"), *(len(row[0]) for row in rows))
        lines = [f"{'class':<{width}}  {'real':>9}  {'missing':>9}  {'total':>9}"]
        lines += [f"{name:<{width}}  {real:>9}  {lack:>9}  {final:>9}" for name, real, lack, final in rows]
        return "\n".join([*lines, *(f"note: {notice}" for notice in self.notices)])

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-friendly values."""
        notices = list(self.notices)
        return {"real": self.real, "missing": self.missing, "total": self.total, "notices": notices}


def make_plan(
    class_counts: Mapping[str, int],
    target: str | int | Mapping[str, int] = "majority",
    *,
    max_synthetic_fraction: float | None = None,
) -> BalancePlan:
    """Decide how many images each class misses: ``missing = max(0, total - real)``.

    Args:
        class_counts: Class name -> real rows, in label order (the first of several equally large or small
            classes counts as the majority or minority, as in imbalanced-learn).
        target: A name of `STRATEGIES`, a total N >= 1, or class name -> total for the classes to raise.
        max_synthetic_fraction: Largest share of synthetic rows in any class, F in [0, 1): at most
            ``floor(F / (1 - F) * real)`` are added.

    Returns:
        The plan, with a notice for every class that stays above the total or is capped.

    Raises:
        InputError: If there is no class, the target or a class in it is unknown, or a total is below the
            real count.

    Example:
        >>> make_plan({"a": 9, "b": 4, "c": 1}, "median").missing
        {'a': 0, 'b': 0, 'c': 3}
    """
    real = _checked_counts(class_counts)
    notices: list[str] = []
    if isinstance(target, str):
        target = _number_or_name(target)
    if isinstance(target, Mapping):
        wanted = _totals_of_mapping(real, target)
    elif isinstance(target, str):
        wanted = STRATEGIES[target](real)
    else:
        _check_count("balance", target, minimum=1)
        wanted = dict.fromkeys(real, int(target))
    if target == "median" or not isinstance(target, (str, Mapping)):
        notices += _notice_of_larger(real, wanted)
    missing = {name: max(0, wanted[name] - count) for name, count in real.items()}
    if max_synthetic_fraction is not None:
        missing, capped = _cap(real, missing, max_synthetic_fraction)
        notices += capped
    return BalancePlan(real, missing, tuple(notices))


def per_class_plan(class_counts: Mapping[str, int], number: int) -> BalancePlan:
    """Plan exactly `number` new images in each class, whatever is there already.

    Args:
        class_counts: Class name -> real rows, in label order.
        number: New images in each class, at least 1.

    Raises:
        InputError: If there is no class or the number is below 1.

    Example:
        >>> per_class_plan({"a": 9, "b": 4}, 2).total
        {'a': 11, 'b': 6}
    """
    real = _checked_counts(class_counts)
    _check_count("per_class", number, minimum=1)
    return BalancePlan(real, dict.fromkeys(real, int(number)))


def benchmark_plan(class_counts: Mapping[str, int]) -> BalancePlan:
    """Plan the rows a benchmark needs: per class the larger of what `majority` misses and the real count.

    Args:
        class_counts: Class name -> real rows, in label order.

    Example:
        >>> benchmark_plan({"a": 9, "b": 4}).missing
        {'a': 9, 'b': 5}
    """
    plan = make_plan(class_counts)
    return BalancePlan(plan.real, {name: max(plan.missing[name], plan.real[name]) for name in plan.real})


def parse_target(text: str) -> str | int | dict[str, int]:
    """Read what a command line says after ``--balance``: a name, a number, or a JSON file of totals.

    Args:
        text: A name of `STRATEGIES`, digits, or the path of a file ``{"class name": total, ...}``.

    Raises:
        InputError: If it is none of these or the file is not such a mapping.

    Example:
        >>> parse_target("500")
        500
    """
    if not text.endswith(".json"):
        return _number_or_name(text)
    shape = "give a file {class name: total}"
    try:
        totals = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"balance: cannot read {text!r} as JSON ({reason}); {shape}") from None
    if not isinstance(totals, dict):
        raise InputError(f"balance: {text!r} holds a {type(totals).__name__}; {shape}")
    for name, total in totals.items():
        _check_count(f"balance: the total of class {name!r} in {text!r}", total)
    return totals


def _majority(real: Counts) -> Counts:
    return dict.fromkeys(real, max(real.values()))


def _median(real: Counts) -> Counts:
    ordered = sorted(real.values())
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
    return dict.fromkeys(real, middle)


def _minority(real: Counts) -> Counts:
    smallest = min(real, key=lambda name: real[name])
    return {**real, smallest: max(real.values())}


def _not_minority(real: Counts) -> Counts:
    smallest = min(real, key=lambda name: real[name])
    return {**_majority(real), smallest: real[smallest]}


STRATEGIES: dict[str, Callable[[Counts], Counts]] = {
    "majority": _majority,
    "median": _median,
    "auto": _majority,
    "not-majority": _majority,
    "minority": _minority,
    "not-minority": _not_minority,
    "all": _majority,
}
"""Name -> function of the real counts that gives the total of every class."""


def _number_or_name(text: str) -> str | int:
    """Return digits as a number and a known name in its canonical spelling (imblearn writes blanks)."""
    if text.strip().isdecimal():
        return int(text)
    name = text.strip().replace(" ", "-").replace("_", "-")
    if name not in STRATEGIES:
        allowed = ", ".join(STRATEGIES)
        raise InputError(
            f"balance is {text!r}{suggest(name, STRATEGIES)}; allowed are {allowed}, a total such as 500, "
            f"or a .json file {{class name: total}}"
        )
    return name


def _totals_of_mapping(real: Counts, target: Mapping[str, int]) -> Counts:
    """Return the total of every class where `target` gives those of some."""
    wanted = dict(real)
    for key, total in target.items():
        name = str(key)
        if name not in real:
            allowed = ", ".join(map(repr, list(real)[:20])) + (", ..." if len(real) > 20 else "")
            raise InputError(
                f"balance names the class {name!r}{suggest(name, real)}, which has no training rows; "
                f"allowed are {allowed}"
            )
        _check_count(f"balance: the total of class {name!r}", total)
        if total < real[name]:
            raise InputError(
                f"balance: the total {total} of class {name!r} is below its {real[name]} real rows; "
                f"give at least {real[name]} or leave the class out"
            )
        wanted[name] = int(total)
    return wanted


def _notice_of_larger(real: Counts, wanted: Counts) -> list[str]:
    larger = [f"{_printable(name)} ({count})" for name, count in real.items() if count > wanted[name]]
    if not larger:
        return []
    total = next(iter(wanted.values()))
    return [f"already above the total of {total} and left as they are: {_listing(larger)}"]


def _cap(real: Counts, missing: Counts, fraction: float) -> tuple[Counts, list[str]]:
    """Cap the synthetic share of every class at `fraction`."""
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction < 1:
        raise InputError(f"max_synthetic_fraction is {fraction}; it must be at least 0 and below 1, such as 0.5")
    share = Fraction(str(fraction))  # the decimal as written: 0.6 / 0.4 in floats is below 1.5
    limits = {name: math.floor(share / (1 - share) * count) for name, count in real.items()}
    capped = [
        f"{_printable(name)} ({number} -> {limits[name]})" for name, number in missing.items() if number > limits[name]
    ]
    notices = [f"max_synthetic_fraction {fraction:g} caps {_listing(capped)}"] if capped else []
    return {name: min(number, limits[name]) for name, number in missing.items()}, notices


def _checked_counts(class_counts: Mapping[str, int]) -> Counts:
    if not class_counts:
        raise InputError("class_counts is empty; a plan needs at least one class with labelled rows")
    for name, count in class_counts.items():
        _check_count(f"class_counts: class {name!r}", count)
    return {str(name): int(count) for name, count in class_counts.items()}


def _check_count(what: str, number: Any, *, minimum: int = 0) -> None:
    integral = not isinstance(number, bool) and hasattr(number, "__index__")
    if not integral or number < minimum:
        raise InputError(f"{what} is {number!r}; it must be a whole number of at least {minimum}")


def _listing(items: list[str]) -> str:
    return ", ".join(items[:10]) + (f" and {len(items) - 10} more" if len(items) > 10 else "")


def _printable(name: str) -> str:
    """Return the name without control characters: it comes from data and goes to a terminal."""
    return "".join(character if character.isprintable() else "?" for character in name)
