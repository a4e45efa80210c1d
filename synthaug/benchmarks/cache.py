"""The results of cells: kept as files, and not computed again where they are there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from synthaug.benchmarks.cell_pool import CellPool
from synthaug.benchmarks.cells import Cell
from synthaug.core import is_listed, write_file

__all__ = ["TrainingCache"]

_CELLS = "cells"


class TrainingCache:
    """Runs cells, keeps their results, as files too, and does not run again what is there.

    Args:
        pool: Runs what is missing.
        folder: Of the benchmark; None keeps no files.
        bar: Moves on with every result.
        results: Those of an earlier cache, which this one adds to.
    """

    def __init__(
        self, pool: CellPool, folder: Path | None, bar: tqdm[Any], results: dict[Cell, dict[str, Any]] | None = None
    ) -> None:
        self._pool, self._bar = pool, bar
        self._folder = None if folder is None else folder / _CELLS
        self.results = {} if results is None else results
        """What is known so far, from earlier calls of the command too."""

    @property
    def seconds(self) -> float:
        """Computing time of all cells."""
        return float(sum(result["seconds"] for result in self.results.values()))

    def run(self, cells: Sequence[Cell]) -> dict[Cell, dict[str, Any]]:
        """Return the result of every cell."""
        missing = [cell for cell in cells if not self._know(cell)]
        self._pool.run(missing, self._keep)
        return self.results

    def _know(self, cell: Cell) -> bool:
        path = None if self._folder is None else self._folder / cell.name
        if cell not in self.results and path is not None and is_listed(path):
            self.results[cell] = json.loads(path.read_text())
            self._bar.update(1)
        return cell in self.results

    def _keep(self, cell: Cell, result: dict[str, Any]) -> None:
        self.results[cell] = result
        if self._folder is not None:
            write_file(self._folder / cell.name, json.dumps(result), replace=True)
        self._bar.update(1)
