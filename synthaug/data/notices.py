"""What a reader says of a dataset besides its rows: what it passed over, and what may be read in two ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath

from datasets import Dataset

__all__ = ["PassedOver", "add_notices", "read_notices"]

_PREFIX = "notice: "
_SHOWN = 8


class PassedOver:
    """Counts what lies in a folder and is not read."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._suffixes: Counter[str] = Counter()

    def add(self, reason: str, number: int = 1) -> None:
        """Count things that are passed over for a reason.

        Args:
            reason: What they are, such as "image(s) beside the class folders".
            number: How many there are.
        """
        if number:
            self._reasons[reason] += number

    def add_files(self, files: Iterable[PurePath]) -> None:
        """Count files that are passed over for their type."""
        self._suffixes.update(file.suffix.lower() or "without suffix" for file in files)

    def describe(self) -> str:
        """Return everything in one line, the most frequent suffixes first; empty if nothing was passed over."""
        parts = [f"{number:,} {suffix}" for suffix, number in self._suffixes.most_common(_SHOWN)]
        if more := sum(self._suffixes.values()) - sum(n for _, n in self._suffixes.most_common(_SHOWN)):
            parts.append(f"{more:,} of other types")
        reasons = self._reasons.most_common()
        parts += [f"{number:,} {reason.replace('(s)', 's' * (number > 1), 1)}" for reason, number in reasons[:_SHOWN]]
        if len(reasons) > _SHOWN:
            parts.append(f"{sum(number for _, number in reasons[_SHOWN:]):,} for other reasons")
        return f"passed over: {', '.join(parts)}" if parts else ""


def add_notices(splits: Mapping[str, Dataset], notices: Iterable[str]) -> dict[str, Dataset]:
    """Return the splits with notices in the description of each, where `select`, `filter` and `map` keep them."""
    lines = [f"{_PREFIX}{' '.join(notice.split())}" for notice in notices if notice]
    for split in splits.values():
        if lines:
            split.info.description = "\n".join([*filter(None, [split.info.description]), *lines])
    return dict(splits)


def read_notices(dataset: Dataset) -> tuple[str, ...]:
    """Return the notices of a dataset, in the order in which they were added."""
    lines = (dataset.info.description or "").split("\n")
    return tuple(line.removeprefix(_PREFIX) for line in lines if line.startswith(_PREFIX))
