"""The processes that run the cells of a benchmark."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from synthaug.benchmarks.cells import Cell, CellData, run_cell
from synthaug.core import FailedError, WorkerPool

__all__ = ["CellPool"]


class CellPool:
    """Runs cells on worker processes, or in this one; use it as a context.

    Workers start with the first cells and stay until the end, because starting one costs seconds.

    Args:
        data: What the cells train on.
        num_processes: Number of workers; 1 runs the cells in this process.
    """

    def __init__(self, data: CellData, *, num_processes: int) -> None:
        self._data, self._count = data, num_processes
        self._folder = tempfile.TemporaryDirectory(prefix="synthaug-cells-")
        self._workers = WorkerPool(functools.partial(_run_saved, Path(self._folder.name)))
        self._saved = False

    def __enter__(self) -> CellPool:
        return self

    def __exit__(self, *problem: object) -> None:
        self._workers.__exit__(*problem)
        self._folder.cleanup()

    def run(self, cells: Sequence[Cell], on_done: Callable[[Cell, dict[str, Any]], None]) -> None:
        """Run cells and hand over every result as it comes, in this thread.

        Raises:
            FailedError: If a cell failed.
        """
        if self._count <= 1:
            for cell in cells:
                on_done(cell, run_cell(cell, self._data))
            return
        if cells and not self._saved:
            self._data.save(Path(self._folder.name))
            self._saved = True
        self._workers.grow(min(self._count, len(cells)))
        futures = {self._workers.submit(cell): cell for cell in cells}
        for future in as_completed(futures):
            cell = futures[future]
            if (error := future.exception()) is not None:
                raise _explain(cell, error) from error
            on_done(cell, future.result())


def _explain(cell: Cell, error: BaseException) -> FailedError:
    reason = str(error) if isinstance(error, FailedError) else f"{type(error).__name__}: {error}"
    fewer = "; run fewer at once: num_processes=1" if "memory" in reason.lower() else ""
    return FailedError(f"cell {cell.arm}, seed {cell.seed} failed: {reason}{fewer}")


def _run_saved(folder: Path, cell: Cell) -> dict[str, Any]:
    return run_cell(cell, _load(folder))


@functools.cache
def _load(folder: Path) -> CellData:
    return CellData.load(folder)
