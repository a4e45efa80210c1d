"""Whether test rows were seen: by an arm of the benchmark, or by the run that made the synthetic rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthaug.core import InputError

__all__ = ["LeakCheck", "check_leaks", "run_hashes"]

_LISTED = 5


@dataclass(frozen=True)
class LeakCheck:
    """What the leak check found.

    Args:
        run: "clean" or "not checked" (no hashes of the run's rows were given).
        dropped: For each kind of arm rows, how many were removed because a test row equals them.
        keep: For each kind of arm rows, (N,) bool, the rows that remain.
    """

    run: str
    dropped: dict[str, int]
    keep: dict[str, NDArray[np.bool_]]

    def facts(self) -> dict[str, Any]:
        """Return the JSON-friendly part."""
        return {"run": self.run, "dropped": self.dropped}


def run_hashes(source: Mapping[str, Any] | None) -> dict[str, list[str]] | None:
    """Return the run's pixel hashes by part ("train", "validation"), or None where they are not known.

    Raises:
        InputError: If `source` carries hashes that are not lists of strings.
    """
    if not source or not source.get("hashes"):
        return None
    hashes = source["hashes"]
    if not isinstance(hashes, Mapping) or not all(isinstance(part, list | tuple) for part in hashes.values()):
        raise InputError(
            "source['hashes'] must map 'train' and 'validation' to lists of pixel hashes; "
            "give the content of the run's source.json"
        )
    return {str(part): [str(value) for value in values] for part, values in hashes.items()}


def check_leaks(
    test: NDArray[np.str_],
    arms: Mapping[str, NDArray[np.str_]],
    run: Mapping[str, Sequence[str]] | None,
    *,
    test_rows: NDArray[np.int64],
    drop: bool,
    remedy: str = "give other test rows, or fit again without these",
) -> LeakCheck:
    """Compare the pixel hashes of the test rows with those of everything that was learnt from.

    Args:
        test: (n,) pixel hashes of the test rows.
        arms: Kind of row ("real", "synthetic") -> (N,) pixel hashes.
        run: Part of the run's rows -> pixel hashes; None when they are not known.
        test_rows: (n,) row numbers of the test rows, for messages.
        drop: Remove leaked rows from the arms instead of refusing.
        remedy: What to do where the run has seen test rows, for the message.

    Returns:
        What was found; every test row stays.

    Raises:
        InputError: If the run has seen a test row (whatever `drop` says), or an arm holds one and `drop` is
            false; the first ones are listed.
    """
    for part, known in (run or {}).items():
        seen = np.flatnonzero(np.isin(test, np.array(list(known), dtype=str)))
        if len(seen):
            raise InputError(
                f"{len(seen)} of {len(test)} test rows are among the {part} rows of the run "
                f"({_list_rows(test_rows[seen])}); what the generator has seen cannot judge it: {remedy}"
            )
    keep, found = {}, []
    for kind, hashes in arms.items():
        keep[kind] = ~np.isin(hashes, test)
        leaked = np.flatnonzero(np.isin(test, hashes))
        if len(leaked):
            found.append(f"{len(leaked)} are among the {kind} rows ({_list_rows(test_rows[leaked])})")
    if found and not drop:
        raise InputError(
            f"of {len(test)} test rows {'; '.join(found)}; give test rows of their own, or add drop_leaks=True "
            "to remove them from the arms"
        )
    dropped = {kind: int((~kept).sum()) for kind, kept in keep.items()}
    return LeakCheck("not checked" if run is None else "clean", dropped, keep)


def _list_rows(rows: NDArray[np.int64]) -> str:
    """Return "test rows 3, 8, 9 and 2 more"."""
    more = f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
    return f"test rows {', '.join(map(str, rows[:_LISTED].tolist()))}{more}"
