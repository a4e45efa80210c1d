"""benchmark(): does a classifier get better with the synthetic rows, measured over arms and paired seeds."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from synthaug.benchmarks.arms import RESERVED, SYNTHETIC, Arm, check_arms, default_arms
from synthaug.benchmarks.findings import write_findings
from synthaug.benchmarks.report import Report
from synthaug.benchmarks.runner import Runner, Setting, count_processes, count_trainings, make_template
from synthaug.benchmarks.splits import Splits, load_splits
from synthaug.benchmarks.training_data import collect_data
from synthaug.benchmarks.tuning import TRIALS
from synthaug.classifiers import CLASSIFIERS, resolve_device
from synthaug.core import BACKENDS, TUNING_SEEDS, InputError, OutputFolder, __version__, suggest
from synthaug.generation import name_generator
from synthaug.generators import ConditionalGenerator

__all__ = ["benchmark"]


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
    group_by: Sequence[str] | None = None,
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
        group_by: Columns, the label among them: rows are then sampled, and options chosen, by their joint groups,
            and the report says what the worst group comes to. The classifier still predicts the label.
        image_size: Side at which all rows are compared; the data's own when None.
        limit_per_class: Real rows taken of each class, the same ones as in fit.
        on_bad_image: "error" stops at a corrupt image, "skip" leaves it out.
        source: The run's source.json, so that its rows can be compared with the test rows.
        drop_leaks: Remove rows that equal a test row from the arms, where the run has not seen them.
        backend: Engine of the classical augmentation, "torch" or "albumentations".
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        output: Folder for the report; finished trainings are kept there, so that an interrupted benchmark
            goes on where it was.
        num_processes: Worker processes; when None as many as there are cores, on a GPU as many as its memory
            holds, 16 at most.
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
    splits = load_splits(
        real, sources, test, oracle=oracle, image_column=image_column, label_column=label_column,
        group_by=group_by, image_size=image_size, limit_per_class=limit_per_class, on_bad_image=on_bad_image,
        source=source, drop_leaks=drop_leaks,
    )  # fmt: skip
    for kind, row, other, _ in splits.near_duplicates[:1]:
        count = len(splits.near_duplicates)
        message = f"{count} test rows look nearly like rows of an arm, e.g. row {row} and {kind} row {other}"
        print(f"warning: {message}", file=sys.stderr)
    counts = splits.stratum_counts
    names = default_arms(counts, sources=named, oracle=splits.oracle is not None) if arms is None else tuple(arms)
    template = make_template(splits, steps=steps, backend=backend, classifier=classifier, device=device)
    arguments = {
        "version": __version__, "arms": list(names), "seeds": seeds,
        "steps": template.steps, "classifier": classifier, "backend": backend, "device": device,
        "drop_leaks": drop_leaks, "source": splits.leaks.run, **splits.digests(),
        **({} if splits.groups is None else {"group_by": splits.groups.facts()}),
        **({"generator": name_generator(generator)} if generator and any("latent-" in name for name in names) else {}),
    }  # fmt: skip
    processes = count_processes(device, num_processes, shown_bytes=splits.shown_bytes)
    setting = Setting(template, seeds, processes, named)
    command = command or _describe_call(arguments, limit_per_class)
    with contextlib.ExitStack() as stack:
        folder = None if output is None else Path(output)
        if folder is not None:
            made = stack.enter_context(OutputFolder(folder, "benchmark", arguments, fresh=fresh))
            if made.has_finished("report.json"):
                return Report.load(folder)
        report = _run(splits, check_arms(names, named), setting, generator, folder, command)
        if folder is not None:
            report.save(folder)
            made.finish()
        return report


def _run(
    splits: Splits,
    arms: Sequence[Arm],
    setting: Setting,
    generator: ConditionalGenerator | None,
    folder: Path | None,
    command: str,
) -> Report:
    """Run every cell that is not there yet and return the report."""
    data = collect_data(splits, arms, generator)
    trainings = count_trainings(arms, validation_rows=len(data.validation), seeds=setting.seeds)
    with Runner(data, setting, folder, trainings=trainings) as runner:
        results = runner.run_all(arms)
    cache, trials = runner.cache, runner.tuner.trials
    return write_findings(
        results,
        trials,
        splits,
        settings=_describe_settings(splits, setting, trials=TRIALS if trials else 0),
        cost={
            "seconds": cache.seconds,
            "cells": len(cache.results),
            "processes": setting.processes,
            "device": setting.template.device,
        },
        command=command,
    )


def _describe_settings(splits: Splits, setting: Setting, *, trials: int) -> dict[str, Any]:
    template, codec = setting.template, splits.train.codec
    return {
        "version": __version__,
        "seeds": list(range(setting.seeds)),
        "tuning_seeds": list(TUNING_SEEDS),
        "trials": trials,
        "steps": template.steps,
        "batch_size": template.batch_size,
        "classifier": template.classifier,
        "backend": template.backend,
        "image_size": codec.image_size,
        "channels": codec.channels,
        "sources": {name: len(rows) for name, rows in splits.sources.items()},
    }


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and not whole:
            raise InputError(f"{name} is {value!r}; give an integer of at least 1")
        if name == "seeds" and value is not None and value > TUNING_SEEDS[0]:
            raise InputError(f"seeds is {value}; give at most {TUNING_SEEDS[0]}")


def _check_sources(sources: Mapping[str, Dataset]) -> None:
    """Refuse names of sources that would not be told apart in the name of an arm."""
    taken = (*RESERVED, SYNTHETIC) if len(sources) > 1 else RESERVED
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


def _describe_call(arguments: Mapping[str, Any], limit_per_class: int | None) -> str:
    """Return the call in Python, with the names of the three datasets left as the caller's."""
    options = [f"{key}={arguments[key]!r}" for key in ("arms", "seeds", "steps", "classifier", "device")]
    if limit_per_class is not None:
        options.append(f"limit_per_class={limit_per_class}")
    return "synthaug.benchmark(\n    real, synthetic, test=test,\n    " + ",\n    ".join(options) + ",\n)"
