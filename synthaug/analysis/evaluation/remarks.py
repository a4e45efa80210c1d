"""What the numbers of an evaluation say, in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from synthaug.publishing import percent, points, spread

__all__ = ["write_remarks"]

_LISTED = 5
_RECALL_GAP, _ACCEPTANCE, _WRONG_GAP = 0.05, 0.8, 0.02

Entry = Mapping[str, Any]


def write_remarks(facts: Entry) -> list[str]:
    """Return sentences on an evaluation: the score first, then what is wrong, then what is not.

    Args:
        facts: The fields of an `Evaluation`; without its settings the rows are not counted.
    """
    classes: Sequence[Entry] = facts["per_class"]
    found = [_on_accuracy(facts, classes), _on_copies(facts, classes), _on_labels(facts, classes)]
    return [*found, *_on_features(facts, classes), *_on_filter(facts, classes)]


def _list_classes(classes: Sequence[Entry], text: Callable[[Entry], str]) -> str:
    more = f" and {len(classes) - _LISTED} more" if len(classes) > _LISTED else ""
    return ", ".join(f"{row['name']} ({text(row)})" for row in classes[:_LISTED]) + more


def _on_accuracy(facts: Entry, classes: Sequence[Entry]) -> str:
    interval = facts["cas_difference_interval"]
    ground = "" if interval is None else f" (95 % interval {points(interval[0])} to {points(interval[1])})"
    rows = facts.get("settings", {}).get("rows", {"synthetic": 0, "cas_real": 0})
    made, real = rows["synthetic"], rows["cas_real"]
    compared = "as many real rows" if made == real else f"the {real:,} real rows there are (at most as many of a class)"
    sentence = (
        f"Trained on the {f'{made:,} ' if made else ''}synthetic rows alone, the fixed classifier recognises "
        f"{percent(facts['cas'])} of the test rows; trained on {compared}, {percent(facts['cas_real'])}: a difference "
        f"of {points(facts['cas_difference'])} points{ground}."
    )
    lower = [r for r in classes if r["cas"] is not None and r["cas_real"] - r["cas"] > _RECALL_GAP]
    if lower:
        worst = sorted(lower, key=lambda r: r["cas"] - r["cas_real"])
        named = _list_classes(worst, lambda r: points(r["cas"] - r["cas_real"]))
        sentence += f" Furthest behind, in points: {named}."
    return sentence


def _on_copies(facts: Entry, classes: Sequence[Entry]) -> str:
    share, base, nearer = facts["copies"], facts["copies_held_out"], facts["copy_test"]["nearer"]
    above = facts["copies_interval"][0] > facts["copies_held_out_interval"][1]
    if above:
        copied = [r for r in classes if r["copies"] and r["copies"] > (r["copies_held_out"] or 0.0)]
        worst = sorted(copied, key=lambda r: -r["copies"])
        return (
            f"Copies: {percent(share)} of the synthetic rows ({spread(facts['copies_interval'])}) are nearly training "
            f"rows, of held-out real rows only {percent(base)}. Look at the picture of the closest pairs before "
            f"sharing them. Most in: {_list_classes(worst, lambda r: percent(r['copies']))}."
        )
    sentence = (
        f"No sign of copies: {percent(share)} of the synthetic rows ({spread(facts['copies_interval'])}) are nearly "
        f"training rows, of held-out real rows {percent(base)}."
    )
    if nearer is not None and facts["copy_test"]["nearer_interval"][0] > 0.5:
        sentence += (
            f" Still, they lie nearer to the training rows than held-out ones in {percent(nearer)} of pairs, as smooth "
            "or typical images do too."
        )
    return sentence


def _on_labels(facts: Entry, classes: Sequence[Entry]) -> str:
    error = 1 - facts["referee_accuracy"]
    sentence = (
        f"A residual network trained on the real rows, which errs on {percent(error)} of the test rows, gives "
        f"{percent(facts['wrong_class'])} of the synthetic rows ({spread(facts['wrong_class_interval'])}) another "
        "class."
    )
    wrong = [
        r for r in classes if r["wrong_class"] is not None
        and r["wrong_class_interval"][0] > (r["referee_error"] or 0.0) + _WRONG_GAP
    ]  # fmt: skip
    if wrong:
        worst = sorted(wrong, key=lambda r: -r["wrong_class"])
        sentence += f" Labels to doubt most: {_list_classes(worst, lambda r: percent(r['wrong_class']))}."
    return sentence


def _on_features(facts: Entry, classes: Sequence[Entry]) -> list[str]:
    """Return a sentence for each of variety and fidelity that is clearly below that of real rows."""
    sentences = []
    for measure, meaning in (
        ("coverage", "Variety: the synthetic rows cover less of the test rows than real rows do"),
        ("density", "Fidelity: synthetic rows lie where few test rows are"),
    ):
        below = {}
        for space in ("classifier", "random"):
            entry = facts[measure].get(space) or {}
            known = (entry.get(kind) or {} for kind in ("validation", "training"))
            real = next((rows for rows in known if rows.get("value") is not None), None)  # few rows have no measure
            if entry.get("value") is not None and real and entry["interval"][1] < real["interval"][0]:
                below[space] = f"{measure} {entry['value']:.2f} against {real['value']:.2f} in {space} features"
        if below:
            space = next(iter(below))
            rows = [r for r in classes if r[measure][space]["value"] is not None]
            worst = sorted(rows, key=lambda r: r[measure][space]["value"])[:3]
            named = _list_classes(worst, lambda r: f"{r[measure][space]['value']:.2f}")  # noqa: B023
            sentences.append(f"{meaning} ({'; '.join(below.values())}). Lowest: {named}.")
    return sentences


def _on_filter(facts: Entry, classes: Sequence[Entry]) -> list[str]:
    if facts["acceptance"] is None:
        return []
    sentence = f"The default filter keeps {percent(facts['acceptance'])} of the draws."
    low = sorted((r for r in classes if r["acceptance"] < _ACCEPTANCE), key=lambda r: r["acceptance"])
    if low:
        sentence += f" It keeps few of: {_list_classes(low, lambda r: percent(r['acceptance']))}."
    return [sentence]
