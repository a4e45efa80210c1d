"""benchmark(): does a classifier get better with the synthetic rows, measured over arms and paired seeds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm import tqdm

import synthaug
from synthaug.benchmarks.arms import Arm, check_arms, default_arms
from synthaug.benchmarks.cellpool import CellPool
from synthaug.benchmarks.cells import Cell, CellData
from synthaug.benchmarks.contest import Contest, load_contest
from synthaug.benchmarks.findings import write_findings
from synthaug.benchmarks.material import collect_material
from synthaug.benchmarks.results import ArmResults, choose_front
from synthaug.benchmarks.tuning import TRIALS, TUNING_SEEDS, Tuner, count_trials
from synthaug.classical import BACKENDS
from synthaug.classifier import CLASSIFIERS, resolve_device
from synthaug.errors import InputError, StoppedError, suggest
from synthaug.generators.base import ConditionalGenerator
from synthaug.report import Report
from synthaug.shards import locked, write_file
from synthaug.signals import StopSignals

__all__ = ["benchmark", "count_positions"]

_RECORD, _CELLS, _REPORT = "benchmark.json", "cells", ("report.json", "report.md", "report.html")


def benchmark(
    real: Dataset,
    synthetic: Dataset | Mapping[str, Dataset],
    *,
    test: Dataset,
    oracle: Dataset | None = None,
    generator: ConditionalGenerator | None = None,
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
        synthetic: Synthetic rows: those marked as such, or all where none is marked; or several sources by name,
            whose names then are kinds of rows for the arms.
        test: Rows that nothing was fitted or chosen on.
        oracle: Further real rows, for arms that show what those would be worth; the rows beyond
            `limit_per_class` when None.
        generator: Encodes and decodes for arms with latent SMOTE.
        seeds: Number of paired seeds; fewer than 5 never give another verdict than "no clear change".
        arms: Names of the arms, see `parse_arm`; when None, those of `default_arms`.
        steps: Optimiser steps of every arm; from the number of rows when None.
        classifier: "small" or "resnet".
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
    device = resolve_device(device)
    _check_numbers(seeds=seeds, steps=steps, num_processes=num_processes)
    _check_word("classifier", classifier, list(CLASSIFIERS))
    _check_word("backend", backend, list(BACKENDS))
    sources = dict(synthetic) if isinstance(synthetic, Mapping) else {"synthetic": synthetic}
    _check_sources(sources)
    named = tuple(sources) if len(sources) > 1 else ()
    if arms is not None:
        check_arms(arms, named)
    contest = load_contest(
        real, sources, test, oracle=oracle, image_column=image_column, label_column=label_column,
        image_size=image_size, limit_per_class=limit_per_class, on_bad_image=on_bad_image, source=source,
        drop_leaks=drop_leaks,
    )  # fmt: skip
    for kind, row, other, _ in contest.near_duplicates[:1]:
        count = len(contest.near_duplicates)
        message = f"{count} test rows look nearly like rows of an arm, e.g. row {row} and {kind} row {other}"
        print(f"warning: {message}", file=sys.stderr)
    counts = list(contest.train.class_counts.values())
    names = default_arms(counts, sources=named, oracle=contest.oracle is not None) if arms is None else tuple(arms)
    template = _template(contest, steps=steps, backend=backend, classifier=classifier, device=device)
    arguments = {
        "version": synthaug.__version__, "arms": list(names), "seeds": seeds,
        "steps": template.steps, "classifier": classifier, "backend": backend, "device": device,
        "drop_leaks": drop_leaks, "source": contest.leaks.run, **contest.digests(),
    }  # fmt: skip
    match = _Match(
        contest, check_arms(names, named), named, generator, template, seeds,
        processes=1 if device != "cpu" else num_processes or _cores(),
        command=command or _describe_call(arguments, limit_per_class),
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        folder = None if output is None else Path(output)
        if folder is not None:
            stack.enter_context(locked(folder))
            if (finished := _open_folder(folder, arguments, fresh=fresh)) is not None:
                return finished
        report = _play(match, folder)
        if folder is not None:
            report.save(folder)
        return report


@dataclass(frozen=True)
class _Match:
    """Everything a benchmark was asked for."""

    contest: Contest
    arms: Sequence[Arm]
    sources: Sequence[str]
    generator: ConditionalGenerator | None
    template: Cell
    seeds: int
    processes: int
    command: str


def _play(match: _Match, folder: Path | None) -> Report:
    """Run every cell that is not there yet and return the report."""
    rows = len(match.contest.validation)
    total = count_trials(match.arms, validation_rows=rows) + len(match.arms) * match.seeds
    data = collect_material(match.contest, match.arms, match.generator)
    with (
        StopSignals() as stop,
        tqdm(total=total, desc="tuning", unit="training", mininterval=0.5) as bar,
        CellPool(data, num_processes=match.processes, should_stop=lambda: stop.received > 0) as pool,
    ):
        ledger = _Ledger(pool, folder, bar)
        tuner = Tuner(match.template, ledger.run, match.sources, rows)
        try:
            results = _run_arms(match, data, tuner, ledger, bar)
        except InterruptedError:
            kept = f"the finished trainings are in {str(folder)!r}" if folder else "nothing is kept"
            raise StoppedError(f"stopped: {kept}; run the same again to go on", stop.received) from None
    return write_findings(
        results,
        tuner.trials,
        match.contest,
        settings=_describe_settings(match, trials=TRIALS if tuner.trials else 0),
        cost={
            "seconds": ledger.seconds,
            "cells": len(ledger.results),
            "processes": match.processes,
            "device": match.template.device,
        },
        command=match.command,
    )


def _run_arms(match: _Match, data: CellData, tuner: Tuner, ledger: _Ledger, bar: tqdm[Any]) -> list[ArmResults]:
    """Tune and run the arms: first those that exchange nothing, then, knowing which is the best, the others."""
    found: dict[str, ArmResults] = {}
    added = {kind: len(rows) for kind, rows in data.others.items()}

    def run(arms: Sequence[Arm], shown: str) -> None:
        bar.set_description(f"tuning, {shown}")
        tuner.choose_options(arms)
        bar.set_description(f"seeds, {shown}")
        cells = {
            arm: [replace(tuner.options[arm.name], seed=seed, test=True) for seed in range(match.seeds)] for arm in arms
        }
        settled = [cell.settle(match.sources) for seed in zip(*cells.values(), strict=True) for cell in seed]
        results = ledger.run(list(dict.fromkeys(settled)))
        for arm, own in cells.items():
            seeded = [results[cell.settle(match.sources)] for cell in own]
            found[arm.name] = ArmResults(arm, tuner.options[arm.name], seeded, added.get(arm.rows, 0))

    first = [arm for arm in match.arms if not arm.exchanges]
    bar.set_description("tuning, policy")
    tuner.choose_policy(first)
    run(first, "real rows alone")
    plain = [result for result in found.values() if result.arm.side == "classical"]
    best = choose_front(plain).arm if plain else None
    order = [arm if best is None else arm.rest_on(best) for arm in match.arms]
    run([arm for arm in dict.fromkeys(order) if arm.name not in found], "rows added")
    bar.update(max(0, (bar.total or 0) - bar.n))
    return [found[name] for name in dict.fromkeys(arm.name for arm in order)]


def _describe_settings(match: _Match, *, trials: int) -> dict[str, Any]:
    template, codec = match.template, match.contest.train.codec
    return {
        "version": synthaug.__version__,
        "seeds": list(range(match.seeds)),
        "tuning_seeds": list(TUNING_SEEDS),
        "trials": trials,
        "steps": template.steps,
        "batch_size": template.batch_size,
        "classifier": template.classifier,
        "backend": template.backend,
        "image_size": codec.image_size,
        "channels": codec.channels,
        "sources": {name: len(rows) for name, rows in match.contest.sources.items()},
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
        self._pool.run(missing, self._keep)
        return self.results

    def _know(self, cell: Cell) -> bool:
        path = None if self._folder is None else self._folder / cell.name
        if cell not in self.results and path is not None and path.is_file():
            self.results[cell] = json.loads(path.read_text())
            self._bar.update(1)
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


def _template(contest: Contest, *, steps: int | None, backend: str, classifier: str, device: str) -> Cell:
    """Return a cell with what all cells share."""
    steps, batch_size = _count_steps(len(contest.train), len(contest.class_names), steps)
    return Cell("", 0, steps, batch_size, "", 0.0, backend=backend, classifier=classifier, device=device)


def _count_steps(rows: int, classes: int, steps: int | None) -> tuple[int, int]:
    """Return steps, 300 (up to 1,000 rows) to 600 (32,000 and more), and batch size."""
    batch_size = 32 if rows < 1_000 else 64
    batch_size = max(batch_size, min(256, 1 << (classes - 1).bit_length()))
    return steps or int(np.clip(round(300 * (rows / 1_000) ** 0.2, -1), 300, 600)), batch_size


def count_positions(rows: int, classes: int, steps: int | None = None) -> int:
    """Return how many images one training shows."""
    steps, batch_size = _count_steps(rows, classes, steps)
    return steps * batch_size


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and not whole:
            raise InputError(f"{name} is {value!r}; give an integer of at least 1")
        if name == "seeds" and value is not None and value > TUNING_SEEDS[0]:
            raise InputError(f"seeds is {value}; give at most {TUNING_SEEDS[0]}")


def _check_sources(sources: Mapping[str, Dataset]) -> None:
    """Refuse names of sources that would not be told apart in the name of an arm."""
    taken = ("real", "oversampled", "best", "classical", "strong", "oracle")
    for name in sources:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or name in taken:
            raise InputError(
                f"source name {name!r} cannot be used in the name of an arm; give a word of small letters and digits "
                f"other than {', '.join(taken)}"
            )


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
    options = [f"{key}={arguments[key]!r}" for key in ("arms", "seeds", "steps", "classifier", "device")]
    if limit_per_class is not None:
        options.append(f"limit_per_class={limit_per_class}")
    return "synthaug.benchmark(\n    real, synthetic, test=test,\n    " + ",\n    ".join(options) + ",\n)"
