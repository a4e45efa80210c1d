"""The arms of a benchmark: what a classifier is trained on and how, as a name made of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from synthaug.core import InputError, suggest

__all__ = ["BEST", "RESERVED", "SIDES", "SYNTHETIC", "Arm", "Side", "check_arms", "default_arms", "parse_arm"]

BEST, SYNTHETIC = "best", "synthetic"
"""The best arm on real rows alone, chosen on validation rows; all synthetic rows together."""

_SAMPLINGS = ("real", "oversampled")
_AUGMENTATIONS = ("classical", "strong")
_LOSSES = ("weighted", "balanced-softmax")
_RIVALS = ("smote", "latent-smote")
_CONTROLS = ("duplicated", "gaussian", "shuffled")
_ORACLES = ("oracle", "oracle/4")
RESERVED = (*_SAMPLINGS, BEST, *_AUGMENTATIONS, *_LOSSES, *_RIVALS, *_CONTROLS, *_ORACLES)
"""Words in the names of arms that no source of synthetic rows may be called."""

_SKEWED = 1.5
"""Largest class over smallest from which arms against imbalance are among the defaults."""

Side = Literal["classical", "synthetic", "alone", "control", "oracle"]

SIDES: Mapping[Side, str] = {
    "classical": "without a generator; the best of these is the opponent",
    "synthetic": "real rows and a generator's; the best of these is the synthetic arm",
    "alone": "a generator's rows alone",
    "control": "must not help",
    "oracle": "as if more real rows had been found",
}
"""What each side of a benchmark is for."""

_SHOWN = {
    "synthetic": "synthetic rows of the same {unit}",
    "smote": "rows between two neighbours of the {unit} (SMOTE)",
    "latent-smote": "rows between two neighbours of the {unit} in the latent space (SMOTE, decoded)",
    "duplicated": "repeated real rows of the same {unit}",
    "gaussian": "draws from one normal distribution for each {unit}",
    "shuffled": "synthetic rows under shuffled labels",
    "oracle": "further real rows of the same {unit}",
    "oracle/4": "further real rows of the same {unit}, a quarter as many",
}


@dataclass(frozen=True)
class Arm:
    """One way to train the classifier.

    Args:
        name: As given, e.g. "oversampled+classical+synthetic".
        sampling: "real" (rows as they come), "oversampled" (classes equally often), "best", or "" (no real row).
        augmentation: "", "classical" or "strong".
        loss: "", "weighted" or "balanced-softmax".
        rows: Kind of the rows that a share of the real ones is exchanged for, or all; "" for none.
        share: Fixed share of them; None when it is chosen on validation rows.
    """

    name: str
    sampling: str
    augmentation: str = ""
    loss: str = ""
    rows: str = ""
    share: float | None = None

    @property
    def balanced(self) -> bool:
        """Whether classes are visited equally often."""
        return self.sampling != "real"

    @property
    def alone(self) -> bool:
        """Whether no real row is trained on (the literature's classification accuracy score)."""
        return not self.sampling

    @property
    def exchanges(self) -> bool:
        """Whether a share of the real rows is exchanged for others."""
        return bool(self.rows) and not self.alone

    @property
    def side(self) -> Side:
        """What the arm stands for in the comparison."""
        if self.alone:
            return "alone"
        if self.rows in _CONTROLS:
            return "control"
        if self.rows in _ORACLES:
            return "oracle"
        return "classical" if self.rows in ("", *_RIVALS) else "synthetic"

    @property
    def describe(self) -> str:
        """Say in a few words what the arm trains on."""
        return self.describe_by("class")

    def describe_by(self, unit: str) -> str:
        """Say in a few words what the arm trains on.

        Args:
            unit: What rows are balanced by and exchanged within, "class" or "group".
        """
        often = f", {'classes' if unit == 'class' else unit + 's'} equally often"
        shown = self._rows_shown.format(unit=unit)
        moved = {"": "", "classical": ", augmented", "strong": ", strongly augmented"}[self.augmentation]
        if self.alone:
            return f"{shown} alone{often}{moved}"
        order = often if self.balanced else " as they come"
        loss = {"": "", "weighted": ", class-balanced loss", "balanced-softmax": ", balanced softmax"}[self.loss]
        return f"real rows{order}{moved}{loss}" + (f"; a share exchanged for {shown}" if self.rows else "")

    @property
    def _rows_shown(self) -> str:
        if self.alone and self.rows == SYNTHETIC:
            return "synthetic rows"
        return _SHOWN.get(self.rows, f"synthetic rows of {self.rows}".replace("{", "{{").replace("}", "}}"))

    @property
    def base(self) -> str:
        """Name of the same arm without exchanged rows."""
        return "+".join(filter(None, [self.sampling, self.augmentation, self.loss]))

    def rest_on(self, best: Arm) -> Arm:
        """Return this arm with `best` put in the place of the word "best"."""
        if self.sampling != BEST:
            return self
        name = "+".join([best.name, *self.name.split("+")[1:]])
        return replace(best, name=name, rows=self.rows, share=self.share)


def parse_arm(name: str, sources: Sequence[str] = ()) -> Arm:
    """Return the arm of a name.

    A name is "real", "oversampled" or "best", then any of "+classical" or "+strong", "+weighted" or
    "+balanced-softmax" ("best" takes neither), and "+ROWS" for rows that a share of the real ones is exchanged
    for; "+ROWS@0.3" fixes that share. Or it is "synthetic" or a source alone, with or without "+strong".

    Args:
        name: The name.
        sources: Names of the single sources of synthetic rows.

    Raises:
        InputError: If the name is none of these.

    Example:
        >>> parse_arm("oversampled+classical+synthetic@0.25").share
        0.25
    """
    kinds = (SYNTHETIC, *sources, *_RIVALS, *_CONTROLS, *_ORACLES)
    base, *extras = name.split("+")
    if base in (SYNTHETIC, *sources):
        if extras in ([], ["classical"], ["strong"]):
            return Arm(name, "", augmentation=(extras or ["classical"])[0], rows=base)
        raise _unknown(name, sources)
    found = {"augmentation": "", "loss": "", "rows": ""}
    share: float | None = None
    for extra in extras:
        word, at, number = extra.partition("@")
        slot = _slot_of(word, kinds)
        if slot is None or found[slot] or (at and slot != "rows") or (base == BEST and slot != "rows"):
            raise _unknown(name, sources)
        found[slot] = word
        share = _parse_share(name, number) if at else share
    if base not in (*_SAMPLINGS, BEST) or (base == BEST and not found["rows"]):
        raise _unknown(name, sources)
    if found["rows"] in (*_CONTROLS, *_ORACLES) and share is None:
        share = 1.0 if found["rows"] in _ORACLES else 0.5  # an oracle is shown each row as often as a real one
    return Arm(name, base, share=share, **found)


def _slot_of(word: str, kinds: Sequence[str]) -> str | None:
    slots = {"augmentation": _AUGMENTATIONS, "loss": _LOSSES, "rows": kinds}
    return next((slot for slot, words in slots.items() if word in words), None)


def _parse_share(name: str, number: str) -> float:
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise InputError(f"arm {name!r} asks for the share {number!r}; give a number above 0 and at most 1")
    return share


def _unknown(name: str, sources: Sequence[str]) -> InputError:
    known = [*default_arms([1, 2], oracle=True), *(f"{BEST}+{source}" for source in sources)]
    rows = ", ".join([SYNTHETIC, *sources, *_RIVALS, *_CONTROLS, "oracle"])
    return InputError(
        f"arm {name!r} is unknown{suggest(name, known)}; an arm is real or oversampled, then +classical or +strong, "
        f"+weighted or +balanced-softmax and +ROWS, or best+ROWS, or synthetic; ROWS is one of {rows}"
    )


def default_arms(class_counts: Sequence[int], *, sources: Sequence[str] = (), oracle: bool = False) -> tuple[str, ...]:
    """Return the names of the arms that a benchmark takes by itself.

    Arms against imbalance join where the largest class has at least 1.5 times as many rows as the smallest.

    Args:
        class_counts: Real training rows of each class.
        sources: Names of the single sources of synthetic rows; with more than one, each is tried alone too.
        oracle: Whether further real rows are at hand.
    """
    skewed = max(class_counts) >= _SKEWED * max(1, min(class_counts))
    real = ["real", "real+classical", "real+strong"]
    if skewed:
        real = ["real", "real+classical", "oversampled+classical", "oversampled+strong"]
        real += ["real+classical+weighted", "real+classical+balanced-softmax"]
    apart = [f"{BEST}+{source}" for source in sources] if len(sources) > 1 else []
    names = [*real, f"{BEST}+smote", f"{BEST}+{SYNTHETIC}", *apart, SYNTHETIC, f"{BEST}+duplicated"]
    return (*names, *(f"{BEST}+{kind}" for kind in _ORACLES if oracle))


def check_arms(names: Sequence[str], sources: Sequence[str] = ()) -> tuple[Arm, ...]:
    """Return the arms of a benchmark in their order.

    Raises:
        InputError: If one is unknown or repeated, or if there is nothing to compare: no arm that mixes
            synthetic rows in, or no arm without a generator, or "best" without an arm on real rows alone.
    """
    arms = tuple(parse_arm(name, sources) for name in names)
    chosen = ", ".join(arm.name for arm in arms) or "none"
    if len({arm.name for arm in arms}) < len(arms):
        raise InputError(f"arms are {chosen}; name each arm once")
    plain = any(arm.side == "classical" and not arm.rows for arm in arms)
    if not any(arm.side == "synthetic" for arm in arms) or not any(arm.side == "classical" for arm in arms):
        raise InputError(
            f"arms are {chosen}; a comparison needs one with real and synthetic rows and one with real rows "
            "alone, e.g. oversampled+classical,oversampled+classical+synthetic"
        )
    if not plain and any(arm.sampling == BEST for arm in arms):
        raise InputError(f"arms are {chosen}; 'best' needs an arm on real rows alone to stand for, e.g. real+classical")
    return arms
