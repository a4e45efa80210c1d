"""benchmark(): does a classifier get better with the synthetic rows, measured over arms and paired seeds."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm import tqdm

import synthaug
from synthaug.benchmarks.arms import Arm, check_arms
from synthaug.benchmarks.cellpool import CellPool
from synthaug.benchmarks.cells import Cell
from synthaug.benchmarks.contest import Contest, load_contest
from synthaug.benchmarks.findings import ArmResults, write_findings
from synthaug.benchmarks.tuning import TRIALS, TUNING_SEEDS, choose_options, count_trials
from synthaug.classical import BACKENDS
from synthaug.classifier import resolve_device
from synthaug.errors import InputError, StoppedError, suggest
from synthaug.report import Report
from synthaug.shards import locked, write_file
from synthaug.signals import StopSignals

__all__ = ["benchmark"]

_RECORD, _CELLS, _REPORT = "benchmark.json", "cells", ("report.json", "report.md", "report.html")


def benchmark(
    real: Dataset,
    synthetic: Dataset,
    *,
    test: Dataset,
    seeds: int = 5,
    arms: Sequence[str] | None = None,
    steps: int | None = None,
    classifier: str = "small",
    image_column: str | None = None,
    label_column: str | None = None,
    image_size: int | None = None,
    limit_per_class: int | None = None,
    on_bad_image: str = "error",
    source: Mapping[str, Any] | None = None,
    drop_leaks: bool = False,
    backend: str = "torch",
    device: str = "auto",
    output: str | Path | None = None,
    num_processes: int | None = None,
    fresh: bool = False,
    command: str | None = None,
) -> Report:
    """Train a classifier with and without the synthetic rows and say whether they help.

    Every arm takes the same number of optimiser steps and of tuning trials; for one seed all arms start from
    the same weights and see the same real batches. Everything is chosen on validation rows, which no arm
    trains on; the test rows are predicted once, by the reported trainings, at their end.

    Args:
        real: Real rows; the validation rows are taken from them.
        synthetic: Synthetic rows: those marked as such, or all where none is marked.
        test: Rows that nothing was fitted or chosen on.
        seeds: Number of paired seeds; fewer than 5 never give another verdict than "no clear change".
        arms: Names of the arms; all five when None.
        steps: Optimiser steps of every arm; from the number of rows when None.
        classifier: "small", the only one so far.
        image_column: Found by feature type when None.
        label_column: Found by feature type when None.
        image_size: Side at which all rows are compared; the data's own when None.
        limit_per_class: Real rows taken of each class, the same ones as in fit.
        on_bad_image: "error" stops at a corrupt image, "skip" leaves it out.
        source: The run's source.json, so that its rows can be compared with the test rows.
        drop_leaks: Remove rows that equal a test row from the arms, where the run has not seen them.
        backend: Engine of the classical augmentation, "torch" or "albumentations".
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        output: Folder for the report; finished trainings are kept there, so that an interrupted benchmark
            goes on where it was.
        num_processes: Worker processes on the CPU; as many as there are cores when None.
        fresh: Forget what is in `output`.
        command: How to run this again, for the report.

    Returns:
        The report.

    Raises:
        InputError: An argument out of range, rows that do not fit together, a leak, or an output that was
            made with other arguments.
        FailedError: If a training failed.
        StoppedError: If a signal came; what was finished is kept in `output`.
    """
    chosen, device = check_arms(arms), resolve_device(device)
    _check_numbers(seeds=seeds, steps=steps, num_processes=num_processes)
    _check_word("classifier", classifier, ["small"])
    _check_word("backend", backend, list(BACKENDS))
    contest = load_contest(
        real, synthetic, test, image_column=image_column, label_column=label_column, image_size=image_size,
        limit_per_class=limit_per_class, on_bad_image=on_bad_image, source=source, drop_leaks=drop_leaks,
    )  # fmt: skip
    for kind, row, other, _ in contest.near_duplicates[:1]:
        count = len(contest.near_duplicates)
        message = f"{count} test rows look nearly like rows of an arm, e.g. row {row} and {kind} row {other}"
        print(f"warning: {message}", file=sys.stderr)
    template = _template(contest, steps=steps, backend=backend, device=device)
    arguments = {
        "version": synthaug.__version__, "arms": [arm.name for arm in chosen], "seeds": seeds,
        "steps": template.steps, "classifier": classifier, "backend": backend, "device": device,
        "drop_leaks": drop_leaks, "source": contest.leaks.run, **contest.digests(),
    }  # fmt: skip
    command = command or _describe_call(arguments, limit_per_class)
    processes = 1 if device != "cpu" else num_processes or _cores()
    with contextlib.ExitStack() as stack:
        folder = None if output is None else Path(output)
        if folder is not None:
            stack.enter_context(locked(folder))
            if (finished := _open_folder(folder, arguments, fresh=fresh)) is not None:
                return finished
        return _run(contest, chosen, template, seeds, folder, processes, command)


def _run(
    contest: Contest,
    arms: Sequence[Arm],
    template: Cell,
    seeds: int,
    folder: Path | None,
    processes: int,
    command: str,
) -> Report:
    """Run every cell that is not there yet and write the report."""
    rows = len(contest.validation)
    total = count_trials(arms, validation_rows=rows) + len(arms) * seeds
    with (
        StopSignals() as stop,
        tqdm(total=total, desc="tuning", unit="training", mininterval=0.5) as bar,
        CellPool(contest.arrays(), num_processes=processes, should_stop=lambda: stop.received > 0) as pool,
    ):
        ledger = _Ledger(pool, folder, bar)
        try:
            choice = choose_options(arms, template, ledger.run, validation_rows=rows)
            bar.set_description("arms x seeds")
            seeded = {
                arm: [replace(choice.options[arm.name], seed=seed, test=True) for seed in range(seeds)] for arm in arms
            }
            results = ledger.run([cell for cells in zip(*seeded.values(), strict=True) for cell in cells])
        except InterruptedError:
            kept = f"the finished trainings are in {str(folder)!r}" if folder else "nothing is kept"
            raise StoppedError(f"stopped: {kept}; run the same again to go on", stop.received) from None
    report = write_findings(
        [ArmResults(arm, choice.options[arm.name], [results[cell] for cell in cells]) for arm, cells in seeded.items()],
        choice,
        contest,
        settings=_describe_settings(contest, template, seeds, trials=TRIALS if choice.trials else 0),
        cost={
            "seconds": ledger.seconds,
            "cells": len(ledger.results),
            "processes": processes,
            "device": template.device,
        },
        command=command,
    )
    if folder is not None:
        report.save(folder)
    return report


def _describe_settings(contest: Contest, template: Cell, seeds: int, *, trials: int) -> dict[str, Any]:
    return {
        "version": synthaug.__version__,
        "seeds": list(range(seeds)),
        "tuning_seeds": list(TUNING_SEEDS),
        "trials": trials,
        "steps": template.steps,
        "batch_size": template.batch_size,
        "classifier": "small",
        "backend": template.backend,
        "image_size": contest.train.codec.image_size,
        "channels": contest.train.codec.channels,
    }


class _Ledger:
    """Runs cells, keeps their results, as files too, and does not run again what is there."""

    def __init__(self, pool: CellPool, folder: Path | None, bar: tqdm[Any]) -> None:
        self._pool, self._bar = pool, bar
        self._folder = None if folder is None else folder / _CELLS
        self.results: dict[Cell, dict[str, Any]] = {}
        """What is known so far, from earlier calls of the command too."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def seconds(self) -> float:
        """Computing time of all cells."""
        return float(sum(result["seconds"] for result in self.results.values()))

    def run(self, cells: Sequence[Cell]) -> dict[Cell, dict[str, Any]]:
        """Return the result of every cell."""
        missing = [cell for cell in cells if not self._know(cell)]
        self._bar.update(len(cells) - len(missing))
        self._pool.run(missing, self._keep)
        return self.results

    def _know(self, cell: Cell) -> bool:
        path = None if self._folder is None else self._folder / cell.name
        if cell not in self.results and path is not None and path.is_file():
            self.results[cell] = json.loads(path.read_text())
        return cell in self.results

    def _keep(self, cell: Cell, result: dict[str, Any]) -> None:
        self.results[cell] = result
        if self._folder is not None:
            write_file(self._folder / cell.name, json.dumps(result))
        self._bar.update(1)


def _open_folder(folder: Path, arguments: Mapping[str, Any], *, fresh: bool) -> Report | None:
    """Return the report if the folder is finished; else make it ready for these arguments."""
    record = folder / _RECORD
    if fresh:
        _forget(folder)
    if record.is_file():
        try:
            found = json.loads(record.read_text())["arguments"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{str(record)!r} is not readable; add --fresh to benchmark anew") from None
        given = json.loads(json.dumps(dict(arguments)))
        differing = sorted(key for key in {*found, *given} if found.get(key) != given.get(key))
        if differing:
            raise InputError(
                f"output {str(folder)!r} was made with other arguments ({', '.join(differing)}); "
                "use them again or add --fresh"
            )
        return Report.load(folder) if (folder / _REPORT[0]).is_file() else None
    write_file(record, json.dumps({"arguments": dict(arguments)}, indent=1))
    return None


def _forget(folder: Path) -> None:
    """Remove what an earlier benchmark left, and nothing else."""
    for path in (*(folder / _CELLS).glob("*.json"), *(folder / "pictures").glob("*.png")):
        path.unlink()
    for name in (*_REPORT, _RECORD):  # the record last: what remains after an interruption is still ours
        (folder / name).unlink(missing_ok=True)


def _template(contest: Contest, *, steps: int | None, backend: str, device: str) -> Cell:
    """Return a cell with what all cells share: steps 300 (up to 1,000 rows) to 600 (32,000 and more)."""
    rows, classes = len(contest.train), len(contest.class_names)
    batch_size = 32 if rows < 1_000 else 64
    batch_size = max(batch_size, min(256, 1 << (classes - 1).bit_length()))
    steps = steps or int(np.clip(round(300 * (rows / 1_000) ** 0.2, -1), 300, 600))
    return Cell("", 0, steps, batch_size, "", 0.0, 0.0, backend, device)


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and not whole:
            raise InputError(f"{name} is {value!r}; give an integer of at least 1")
        if name == "seeds" and value is not None and value > TUNING_SEEDS[0]:
            raise InputError(f"seeds is {value}; give at most {TUNING_SEEDS[0]}")


def _check_word(name: str, value: str, allowed: list[str]) -> None:
    if value not in allowed:
        hint = suggest(str(value), allowed)
        raise InputError(f"{name} is {value!r}; allowed are {', '.join(allowed)}: choose one{hint}")


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _describe_call(arguments: Mapping[str, Any], limit_per_class: int | None) -> str:
    """Return the call in Python, with the names of the three datasets left as the caller's."""
    options = [f"{key}={arguments[key]!r}" for key in ("arms", "seeds", "steps", "backend", "device")]
    if limit_per_class is not None:
        options.append(f"limit_per_class={limit_per_class}")
    return "synthaug.benchmark(\n    real, synthetic, test=test,\n    " + ",\n    ".join(options) + ",\n)"
