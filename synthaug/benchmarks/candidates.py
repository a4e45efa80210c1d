"""Ways to draw synthetic rows that `recommend` tries: of each family, several temperatures and no filter."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from synthaug.balance import benchmark_plan
from synthaug.core import FailedError
from synthaug.generation import generate
from synthaug.generators import load_run, read_source
from synthaug.training import fit

__all__ = ["Candidate", "draw_candidates", "fit_candidates", "fit_family"]

_SCALES = (0.8, 1.2)
"""Multiples of a family's own temperature that are tried beside it."""


@dataclass(frozen=True)
class Candidate:
    """One way to draw synthetic rows.

    Args:
        name: How reports call it.
        family: Its generator.
        run: The run folder to draw from.
        scale: Multiple of the family's own temperature.
        temperature: That temperature; None for the family's own.
        filter: "default" or "none".
    """

    name: str
    family: str
    run: Path
    scale: float
    temperature: float | None
    filter: str

    @property
    def role(self) -> tuple[str, float, str]:
        """What makes it the same candidate in another fit of the family."""
        return self.family, self.scale, self.filter


def fit_family(real: Dataset, family: str, run: Path, options: Mapping[str, Any], shown: str = "") -> float:
    """Fit a family, or find the fit finished, and return its own temperature.

    Args:
        real: Real rows.
        family: Name of a generator.
        run: The run folder.
        options: Arguments of `fit`.
        shown: What the line on stderr adds to the family.
    """
    print(f"recommend: fitting {family}{shown}", file=sys.stderr)
    return float(fit(real, family, output=run, **options).default_temperature)


def fit_candidates(
    real: Dataset, family: str, folder: Path, options: Mapping[str, Any], shown: str = ""
) -> list[Candidate]:
    """Fit a family in `folder` and return the ways to draw from it; arguments as in `fit_family`."""
    run = folder / "runs" / family
    own = fit_family(real, family, run, options, shown)
    return [
        Candidate(family, family, run, 1.0, None, "default"),
        *(Candidate(f"{family}-t{own * scale:.2g}", family, run, scale, own * scale, "default") for scale in _SCALES),
        Candidate(f"{family}-raw", family, run, 1.0, None, "none"),
    ]


def draw_candidates(candidates: Sequence[Candidate], folder: Path, *, seed: int) -> dict[Candidate, Dataset]:
    """Draw the rows of every candidate; one whose filter lets too little through is left out, with a warning.

    Raises:
        FailedError: None made enough rows.
    """
    drawn = {}
    for candidate in candidates:
        print(f"recommend: drawing from {candidate.name}", file=sys.stderr)
        try:
            drawn[candidate] = generate(
                load_run(candidate.run),
                benchmark_plan(read_source(candidate.run)["class_counts"]),
                seed=seed,
                temperature=candidate.temperature,
                filter=candidate.filter,
                output=folder / "draws" / candidate.name,
            )
        except FailedError as error:
            print(f"warning: {candidate.name} is left out: {error}", file=sys.stderr)
    if not drawn:
        raise FailedError("no candidate made enough rows; fit longer: a larger budget= or images=")
    return drawn
