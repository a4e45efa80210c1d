"""What an evaluation found: one object, written as JSON, as one readable page and as pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from markupsafe import Markup

from synthaug.core import InputError, write_file
from synthaug.publishing import environment, escape_markdown, percent, spread

__all__ = ["Evaluation"]

_FORMAT = 1
_JSON, _MARKDOWN = "evaluation.json", "evaluation.md"

Interval = tuple[float, float] | list[float] | None
_NAMES = {"classifier": "classifier features", "random": "random features"}


@dataclass(frozen=True)
class Evaluation:
    """How good the rows of a generator are; every field but `pictures` is JSON-friendly.

    Shares are fractions in [0, 1]; intervals are 95 % ones, None where nothing shows a spread.

    Args:
        cas: Balanced accuracy on test rows of the fixed classifier trained on the synthetic rows alone.
        cas_interval: Its interval over seeds and test rows.
        cas_real: The same classifier trained on as many real rows of each class, or all where there are fewer.
        cas_real_interval: Its interval.
        cas_difference: `cas` minus `cas_real`, paired.
        cas_difference_interval: Its interval.
        wrong_class: Share of synthetic rows that a classifier trained on all real training rows gives another
            class ("reverse CAS").
        wrong_class_interval: Its interval.
        referee_accuracy: Balanced accuracy of that classifier on the test rows.
        copies: Share of synthetic rows nearer to a training row than a third of the median distance of held-out
            real rows.
        copies_interval: Its interval.
        copies_held_out: The same share of the held-out real rows: what chance gives.
        copies_held_out_interval: Its interval.
        copy_test: Further numbers of the copy test: "nearer", "nearer_interval", "score", "own_copies" and more.
        density: Features ("classifier", "random") -> value, interval, rows, and the same of real "training" and
            "validation" rows.
        coverage: Likewise, with what rows of the same distribution would give as "expected".
        kernel_distance: Likewise.
        acceptance: Share of the draws that the default filter keeps; None without a judge.
        per_class: One entry for each class with all of these.
        remarks: What the numbers say, in plain sentences, the worst first.
        notes: Remarks on the rows.
        settings: What the evaluation ran with.
        command: How to run it again.
        arguments: What must be the same for the folder to be taken as finished.
        pictures: Name -> PNG, written beside the page.
    """

    cas: float
    cas_interval: Interval
    cas_real: float
    cas_real_interval: Interval
    cas_difference: float
    cas_difference_interval: Interval
    wrong_class: float
    wrong_class_interval: Interval
    referee_accuracy: float
    copies: float
    copies_interval: Interval
    copies_held_out: float
    copies_held_out_interval: Interval
    copy_test: dict[str, Any]
    density: dict[str, Any]
    coverage: dict[str, Any]
    kernel_distance: dict[str, Any]
    acceptance: float | None
    per_class: list[dict[str, Any]]
    remarks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def table(self) -> str:
        """The numbers over all classes as a Markdown table."""
        rows = [
            ("CAS", percent(self.cas), spread(self.cas_interval), f"{percent(self.cas_real)}, same classifier"),
            ("wrong class", percent(self.wrong_class), spread(self.wrong_class_interval),
             f"{percent(1 - self.referee_accuracy)} of test rows"),
            ("near copies", percent(self.copies), spread(self.copies_interval),
             f"{percent(self.copies_held_out)} of held-out rows"),
        ]  # fmt: skip
        for space, name in _NAMES.items():
            for title, numbers in (
                ("density", self.density),
                ("coverage", self.coverage),
                ("kernel distance", self.kernel_distance),
            ):
                rows.append((f"{title}, {name}", *_describe_against(numbers.get(space))))
        if self.acceptance is not None:
            rows.append(("default filter keeps", percent(self.acceptance), "–", "–"))
        head = ["| measure | synthetic rows | 95 % interval | real rows |", "|---|---:|---:|---|"]
        return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, JSON-friendly."""
        return {"format": _FORMAT, **asdict(self), "pictures": sorted(self.pictures)}

    def to_markdown(self) -> str:
        """Return the evaluation as one page of Markdown."""
        facts = {item.name: getattr(self, item.name) for item in fields(self)}
        page = (
            environment()
            .get_template("evaluation.md.j2")
            .render(
                **facts,
                table=Markup(self.table),
                percent=percent,
                spread=spread,
                decimals=_decimals,
                command_line=Markup(self.command.replace("```", "")),
                prose=_escape_prose,
            )
        )
        return page.strip() + "\n"

    def save(self, folder: str | Path) -> Path:
        """Write evaluation.json, evaluation.md and the pictures, and return the folder.

        Every file appears by atomic rename, evaluation.json last: where it is, the others are.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in self.pictures.items():
            write_file(folder / f"{name}.png", png)
        write_file(folder / _MARKDOWN, self.to_markdown())
        write_file(folder / _JSON, json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Return the evaluation that `save` wrote.

        Raises:
            InputError: If there is none, or it cannot be read.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / _JSON).read_text(encoding="utf-8"))
            known = {item.name for item in fields(cls)}
            values = {key: value for key, value in content.items() if key in known}
            values["pictures"] = {
                name: path.read_bytes()
                for name in content.get("pictures", [])
                if (path := folder / f"{Path(str(name)).name}.png").is_file()
            }
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(
                f"no evaluation can be read in {str(folder)!r} ({reason}); add fresh=True to evaluate anew"
            ) from None


def _escape_prose(text: str) -> Markup:
    """Return a sentence of ours, with the names of the data's classes in it, as Markdown."""
    return Markup(escape_markdown(text, limit=4_000))


def _decimals(value: float | None) -> str:
    """Return a number with three significant decimals, or a dash."""
    if value is None:
        return "–"
    written = f"{value:.3f}" if abs(value) >= 0.0995 else f"{value:.2g}"
    return written if "e" in written else written.replace("-", "−")


def _describe_against(entry: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Return value, interval and the values of real rows of one entry as three cells."""
    if not entry or entry.get("value") is None:
        return "–", "–", "–"
    real = [
        f"{_decimals(entry[kind]['value'])} {kind}"
        for kind in ("training", "validation")
        if entry.get(kind) and entry[kind].get("value") is not None
    ]
    low, high = entry["interval"]
    return _decimals(entry["value"]), f"{_decimals(low)} to {_decimals(high)}", ", ".join(real) or "–"
