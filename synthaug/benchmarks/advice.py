"""Advice: whether to use synthetic rows, and which, as found on validation rows alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from synthaug.benchmarks.results import ArmResults
from synthaug.core import Estimate, InputError, estimate_mean, write_file
from synthaug.publishing import escape_markdown, percent, points

__all__ = ["CONFIDENCE", "Advice", "Evidence", "weigh_evidence"]

CONFIDENCE = 0.9
"""One-sided confidence in a lower likelihood loss that a recommendation needs."""

_JSON, _MARKDOWN = "recommendation.json", "recommendation.md"


@dataclass(frozen=True)
class Evidence:
    """What fresh seeds say about a candidate, on validation rows.

    Args:
        accuracy: Balanced accuracy, candidate minus opponent.
        loss: Likelihood loss at the best temperature in nats, opponent minus candidate: positive is better.
        bound: Lower end of the one-sided interval of `loss`.
    """

    accuracy: Estimate
    loss: Estimate
    bound: float

    @property
    def convinces(self) -> bool:
        """Whether the candidate is recommended: surely a lower loss, and no lower accuracy."""
        return self.bound > 0 and self.accuracy.value >= 0


def weigh_evidence(
    candidate: ArmResults,
    opponent: ArmResults,
    labels: NDArray[np.int64],
    *,
    strata: NDArray[np.int64] | None = None,
) -> Evidence:
    """Compare two arms, paired by seed and row, on validation rows of these labels.

    The likelihood loss tells more than the hits where rows are few: a row that is right either way still says how
    sure the classifier was.

    Args:
        candidate: With synthetic rows; at least two seeds.
        opponent: Without.
        labels: (n,) classes of the validation rows.
        strata: (n,) their joint groups, all of which count the same; the classes when None.
    """
    strata = labels if strata is None else strata
    hits, losses = (
        [np.array([seed["validation"][key] for seed in arm.seeds]) for arm in (candidate, opponent)]
        for key in ("predictions", "losses")
    )
    right = [(predicted == labels).astype(np.float64) for predicted in hits]
    accuracy = estimate_mean(right[0] - right[1], strata)
    loss = estimate_mean(losses[1] - losses[0], strata)
    bound = loss.value
    if loss.standard_error > 0:
        bound -= float(stdtrit(loss.degrees, CONFIDENCE)) * loss.standard_error
    return Evidence(accuracy, loss, bound)


@dataclass(frozen=True)
class Advice:
    """What `recommend` found.

    Args:
        recommended: Name of the recommended candidate; None when none helps.
        sentence: The advice in plain words.
        share: Share of synthetic rows in training; 0 when none helps.
        run: Run folder to generate from; "" when none helps.
        recipe: What `generate --recipe` takes.
        base: The best way to train on real rows alone.
        candidates: Everything that was tried: name, run, family, temperature, filter, share, finish (share of the
            steps, at the end, without synthetic rows), balanced_accuracy, nll, chosen.
        evidence: Of the best candidate against the best arm on real rows: accuracy, loss, bound, confidence, seeds.
        settings: What it ran with.
        arm: The way to train that is recommended, named as in `benchmark`.
        finish: Share of the steps, at the end, that see real rows alone.
    """

    recommended: str | None
    sentence: str
    share: float
    run: str
    recipe: dict[str, Any]
    base: str
    candidates: list[dict[str, Any]] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    arm: str = ""
    finish: float = 0.0

    @property
    def table(self) -> str:
        """The candidates as a Markdown table, best first."""
        lines = [
            "| candidate | temperature | filter | share | validation accuracy | likelihood loss | |",
            "|---|---:|---|---:|---:|---:|---|",
        ]
        for entry in sorted(self.candidates, key=lambda one: (one["nll"], -one["balanced_accuracy"])):
            temperature = "own" if entry["temperature"] is None else f"{entry['temperature']:g}"
            chosen = "best" if entry["chosen"] else ""
            finish = f", not in the last {100 * entry['finish']:g} %" if entry["finish"] else ""
            lines.append(
                f"| {escape_markdown(entry['name'])} | {temperature} | {entry['filter']} | {entry['share']:g}{finish} "
                f"| {percent(entry['balanced_accuracy'])} | {entry['nll']:.3f} | {chosen} |"
            )
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """Return the advice as Markdown."""
        parts = ["# Recommendation", f"**{self.sentence}**", self.table]
        if self.evidence:
            low, high = self.evidence["accuracy_interval"]
            parts.append(
                f"On {self.settings['validation_rows']} validation rows and {self.settings['seeds']} fresh seeds the "
                f"best candidate changes balanced accuracy by {points(self.evidence['accuracy'])} points "
                f"({points(low)} to {points(high)}) and lowers the likelihood loss by {self.evidence['loss']:.4f} "
                f"nats; with {100 * CONFIDENCE:.0f} % confidence by at least {self.evidence['bound']:.4f}. It is "
                "recommended where that bound is above zero and accuracy is no lower."
            )
        parts.append(
            "No test row was looked at. `synthaug benchmark` measures on test rows whether the advice was right."
        )
        return "\n\n".join(parts) + "\n"

    def save(self, folder: Path) -> Path:
        """Write recommendation.md and recommendation.json, the latter last."""
        write_file(folder / _MARKDOWN, self.to_markdown())
        write_file(folder / _JSON, json.dumps(asdict(self), indent=1, ensure_ascii=False))
        return folder

    @classmethod
    def load(cls, folder: Path) -> Advice:
        """Return what `save` wrote.

        Raises:
            InputError: If it cannot be read.
        """
        path = folder / _JSON
        try:
            values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**values)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{str(path)!r} cannot be read ({error}); add fresh=True to start anew") from None
