"""The report of a benchmark: one object, written as JSON, Markdown and one self-contained HTML page."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from synthaug.core import InputError, write_file
from synthaug.publishing import (
    draw_arms,
    draw_curves,
    draw_difference,
    escape_markdown,
    percent,
    points,
    probability,
    spread,
)

__all__ = ["Report"]

_FORMAT = 1
_JSON, _MARKDOWN, _HTML, _PICTURES = "report.json", "report.md", "report.html", "pictures"


@dataclass(frozen=True)
class Report:
    """What a benchmark found; every field but `pictures` is JSON-friendly.

    Shares are fractions in [0, 1]; differences are synthetic arm minus opponent.

    Args:
        verdict: "helps", "no clear change" or "harms".
        sentence: The verdict as one plain sentence, with its numbers.
        difference: Paired difference in balanced accuracy.
        interval: Its 95 % interval (low, high); None with a single seed.
        arms: One entry for each arm: name, description, side, role ("synthetic", "opponent" or ""), options,
            balanced_accuracy, interval, per_seed, macro_f1, nll, calibration_error, worst_recall, validation,
            validation_loss, rows,
            seconds, difference (to the opponent: value, interval, p, p_holm).
        comparison: synthetic, opponent, per_seed, standard_error, seed_error, row_error, degrees,
            detectable, method.
        groups: Mean recall of head, medium and tail in both arms: name, classes, train, opponent, synthetic; empty
            where the classes are about equal.
        joint: How the arms do on their worst joint group: columns, synthetic, opponent, arms (name, worst, gap,
            per_seed), value, interval, entries; empty without `group_by`.
        worth: What the synthetic rows were worth in further real ones: rows, low, high, beyond,
            per_synthetic_row, points; empty without oracle arms.
        classes: One entry for each class: name, rows of each kind, recall in both arms, change.
        confusions: The most changed ones: true, predicted, opponent, synthetic, change (shares of the class).
        curves: Arm -> [[step, balanced accuracy on validation rows], ...], averaged over seeds.
        tuning: Every trial: stage, arm, options, balanced_accuracy, nll, chosen.
        leaks: run, dropped, near_duplicates.
        settings: What the benchmark ran with.
        cost: seconds, cells, processes, device.
        not_varied: What every seed had in common, so that the interval says nothing of it.
        notes: Remarks on the data and the choices.
        command: How to run it again.
        pictures: Name -> PNG; written to pictures/ beside the report and into the page.
    """

    verdict: str
    sentence: str
    difference: float | None
    interval: tuple[float, float] | None
    arms: list[dict[str, Any]]
    comparison: dict[str, Any] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    joint: dict[str, Any] = field(default_factory=dict)
    worth: dict[str, Any] = field(default_factory=dict)
    classes: list[dict[str, Any]] = field(default_factory=list)
    confusions: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    tuning: list[dict[str, Any]] = field(default_factory=list)
    leaks: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    not_varied: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    command: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def table(self) -> str:
        """The arms as a Markdown table."""
        lines = [
            "| arm | balanced accuracy | 95 % interval | against the opponent, points | p after Holm | worst class "
            "| validation | validation loss |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for arm in self.arms:
            role = f" ({arm['role']})" if arm["role"] else ""
            change = arm.get("difference") or {"value": None, "interval": None, "p_holm": None}
            against = points(change["value"])
            if change["interval"]:
                against += f" ({points(change['interval'][0])} to {points(change['interval'][1])})"
            cells = [f"{arm['name']}{role}", percent(arm["balanced_accuracy"]), spread(arm["interval"]), against]
            cells += [probability(change["p_holm"]), percent(arm["worst_recall"]), percent(arm["validation"])]
            loss = arm.get("validation_loss")
            cells.append("–" if loss is None else f"{loss:.3f}")
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    @property
    def worst_groups(self) -> str:
        """The worst joint group of each arm in words; empty without groups."""
        if not self.joint:
            return ""
        arms = [f"{arm['name']} {percent(arm['worst'])} (gap {percent(arm['gap'])})" for arm in self.joint["arms"]]
        interval = self.joint["interval"]
        reach = f", 95 % interval {points(interval[0])} to {points(interval[1])}" if interval else ""
        return (
            f"worst group of {', '.join(self.joint['columns'])}: {'; '.join(arms)}. {self.joint['synthetic']} against "
            f"{self.joint['opponent']}: {points(self.joint['value'])} percentage points{reach}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, JSON-friendly."""
        content = asdict(self)
        content["pictures"] = sorted(self.pictures)
        return {"format": _FORMAT, **_finite(content)}

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        return _environment(html=False).get_template("report.md.j2").render(**self._facts()).strip() + "\n"

    def to_html(self) -> str:
        """Return the report as one page that needs no other file."""
        pictures = {name: base64.b64encode(png).decode() for name, png in self.pictures.items()}
        return _environment(html=True).get_template("report.html.j2").render(**self._facts(), png=pictures)

    def save(self, folder: str | Path) -> Path:
        """Write report.json, report.md, report.html and pictures/ and return the folder.

        Every file appears by atomic rename, report.json last: where it is, the others are.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in self.pictures.items():
            write_file(folder / _PICTURES / f"{name}.png", png)
        write_file(folder / _MARKDOWN, self.to_markdown())
        write_file(folder / _HTML, self.to_html())
        content = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_file(folder / _JSON, content)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Report:
        """Return the report that `save` wrote.

        Raises:
            InputError: If there is none, or it cannot be read.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / _JSON).read_text(encoding="utf-8"))
            known = {item.name for item in fields(cls)}
            values = {key: value for key, value in content.items() if key in known}
            values["interval"] = None if values["interval"] is None else tuple(values["interval"])
            values["pictures"] = {
                name: path.read_bytes()
                for name in values.get("pictures", [])
                if (path := folder / _PICTURES / f"{Path(str(name)).name}.png").is_file()
            }
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(
                f"no report can be read in {str(folder)!r} ({reason}); give a folder that benchmark wrote"
            ) from None

    def _facts(self) -> dict[str, Any]:
        return {**{item.name: getattr(self, item.name) for item in fields(self)}, "table": self.table}


def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("synthaug.publishing"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        points=points,
        spread=spread,
        probability=probability,
        plain=escape_markdown,
        prose=_escape_prose,
    )
    environment.globals.update(draw_arms=draw_arms, draw_curves=draw_curves, draw_difference=draw_difference)
    return environment


def _escape_prose(text: str) -> str:
    return escape_markdown(text, limit=4000)  # our own sentences: a verdict must not lose its end


def _finite(value: Any) -> Any:
    """Return the value with nan and infinities as None, which JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
