"""The processes that run the cells of a benchmark.

Workers are started as ``python -m synthaug.benchmarks.cellpool FOLDER`` and spoken to in lines of JSON. Unlike with
`multiprocessing`, the caller's script is not imported a second time, so it needs no ``__main__`` guard.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synthaug.benchmarks.cells import Cell, CellData, run_cell
from synthaug.errors import FailedError

__all__ = ["CellPool"]


class _Worker:
    """A child process that runs one cell after another."""

    def __init__(self, folder: Path) -> None:
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "synthaug.benchmarks.cellpool", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which decides
        )

    def run(self, cell: Cell) -> dict[str, Any]:
        """Return the result of a cell."""
        stdin, stdout = self.process.stdin, self.process.stdout
        line = ""
        if stdin is not None and stdout is not None:
            try:
                stdin.write(json.dumps(asdict(cell)) + "\n")
                stdin.flush()
                line = stdout.readline()
            except (BrokenPipeError, ValueError):
                line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the worker process ended"}
        if "error" in answer:
            fewer = "; run fewer at once: num_processes=1" if "memory" in answer["error"].lower() else ""
            raise FailedError(f"cell {cell.arm}, seed {cell.seed} failed: {answer['error']}{fewer}")
        return answer

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.terminate()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class CellPool:
    """Runs cells on worker processes, or in this one; use it as a context.

    Workers start with the first cells and stay until the end, because starting one costs seconds.

    Args:
        data: What the cells train on.
        num_processes: Number of workers; 1 runs the cells in this process.
        should_stop: True ends the work; cells under way are abandoned.
    """

    def __init__(self, data: CellData, *, num_processes: int, should_stop: Callable[[], bool] = lambda: False) -> None:
        self._data, self._count, self._should_stop = data, num_processes, should_stop
        self._folder = tempfile.TemporaryDirectory(prefix="synthaug-cells-")
        self._workers: list[_Worker] = []
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def __enter__(self) -> CellPool:
        return self

    def __exit__(self, *problem: object) -> None:
        for worker in self._workers:
            worker.close()
        self._folder.cleanup()

    def run(self, cells: Sequence[Cell], on_done: Callable[[Cell, dict[str, Any]], None]) -> None:
        """Run cells and hand over every result as it comes, in this thread.

        Raises:
            InterruptedError: If the work was ended by `should_stop`.
            FailedError: If a cell failed.
        """
        if self._count <= 1:
            for cell in cells:
                on_done(cell, run_cell(cell, self._data, should_stop=self._should_stop))
            return
        self._start(min(self._count, len(cells)))
        threads = ThreadPoolExecutor(max(1, len(self._workers)))
        try:
            self._collect({threads.submit(self._run_one, cell): cell for cell in cells}, on_done)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _start(self, count: int) -> None:
        if not self._workers and count:
            self._data.save(Path(self._folder.name))
        while len(self._workers) < count:
            self._workers.append(_Worker(Path(self._folder.name)))
            self._free.put(self._workers[-1])

    def _run_one(self, cell: Cell) -> dict[str, Any]:
        worker = self._free.get()
        try:
            return worker.run(cell)
        finally:
            self._free.put(worker)

    def _collect(
        self, pending: dict[Future[dict[str, Any]], Cell], on_done: Callable[[Cell, dict[str, Any]], None]
    ) -> None:
        while pending:
            finished, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                on_done(pending.pop(future), future.result())
            if self._should_stop():
                raise InterruptedError("stopped")


def _serve(folder: Path) -> None:
    """Answer cells on standard input with results on standard output until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else may write between the answers
    data = CellData.load(folder)
    for line in sys.stdin:
        try:
            answer = run_cell(Cell(**json.loads(line)), data)
        except Exception as error:  # handed to the parent, which reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:  # the parent was killed: nobody to tell
            os._exit(1)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
