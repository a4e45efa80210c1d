"""All trainings of a benchmark, in their order: the policy, the arms on real rows, then those that rest on the best."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from synthaug.benchmarks.arms import Arm
from synthaug.benchmarks.cache import TrainingCache
from synthaug.benchmarks.cell_pool import CellPool
from synthaug.benchmarks.cells import Cell, CellData
from synthaug.benchmarks.results import ArmResults, choose_front
from synthaug.benchmarks.splits import Splits
from synthaug.benchmarks.tuning import Tuner, count_trials
from synthaug.core import stopped_at_once

__all__ = ["Runner", "Setting", "count_positions", "count_processes", "count_trainings", "make_template"]

_MOST_ON_GPU, _WORKER_BYTES = 16, 2 << 30
"""Workers that share a GPU at most, and what each holds there beside the rows: context, kernels, activations."""


@dataclass(frozen=True)
class Setting:
    """What a runner trains with.

    Args:
        template: Cell with what all cells share.
        seeds: Number of paired seeds.
        processes: Worker processes.
        sources: Names of the single sources of synthetic rows; empty when there is one.
        test: Whether the reported seeds predict the test rows.
    """

    template: Cell
    seeds: int
    processes: int
    sources: Sequence[str] = ()
    test: bool = True


class Runner:
    """Tunes arms and runs their seeds; use it as a context.

    It can be entered again, and goes on from what was chosen and trained before.

    Args:
        data: What the cells train on.
        setting: What they train with.
        folder: Where finished trainings are kept; None keeps them in memory.
        trainings: About how many there will be, for a progress bar of its own; or
        bar: one that others share.
    """

    def __init__(
        self,
        data: CellData,
        setting: Setting,
        folder: Path | None,
        *,
        trainings: int = 0,
        bar: tqdm[Any] | None = None,
    ) -> None:
        self._data, self.setting, self._folder, self._trainings = data, setting, folder, trainings
        self._shared = bar
        self._results: dict[Cell, dict[str, Any]] = {}
        self.tuner = Tuner(setting.template, self._run, setting.sources, len(data.validation))

    def __enter__(self) -> Runner:
        kept = f"the finished trainings are in {str(self._folder)!r}; run the same again to go on"
        nothing = "nothing is kept; give an output folder to be able to go on"
        with contextlib.ExitStack() as stack:
            stack.enter_context(stopped_at_once(kept if self._folder else nothing))
            if self._shared is None:
                own: tqdm[Any] = tqdm(total=self._trainings, desc="tuning", unit="training", mininterval=0.5)
                self._bar = stack.enter_context(own)
            else:
                self._bar = self._shared
            pool = stack.enter_context(CellPool(self._data, num_processes=self.setting.processes))
            self.cache = TrainingCache(pool, self._folder, self._bar, self._results)
            self._stack = stack.pop_all()
        return self

    def _run(self, cells: Sequence[Cell]) -> dict[Cell, dict[str, Any]]:
        return self.cache.run(cells)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._shared is None:
            self._bar.update(max(0, self._trainings - self._bar.n))
        self._stack.__exit__(kind, value, trace)

    def run_all(self, arms: Sequence[Arm]) -> list[ArmResults]:
        """Tune and run these arms: first those that exchange nothing; "best" is the best of them on real rows."""
        found = {result.arm.name: result for result in self.run_plain(arms)}
        plain = [result for result in found.values() if result.arm.side == "classical"]
        best = choose_front(plain).arm if plain else None
        order = list(dict.fromkeys(arm if best is None else arm.rest_on(best) for arm in arms))
        rest = [arm for arm in order if arm.name not in found]
        self.tune(rest, "rows added")
        found |= {result.arm.name: result for result in self.run_seeds(rest, "rows added")}
        return [found[name] for name in dict.fromkeys(arm.name for arm in order)]

    def run_plain(self, arms: Sequence[Arm]) -> list[ArmResults]:
        """Choose the policy, then tune and run those of these arms that exchange nothing."""
        first = [arm for arm in arms if not arm.exchanges]
        self._bar.set_description("tuning, policy")
        self.tuner.choose_policy(first)
        self.tune(first, "real rows alone")
        return self.run_seeds(first, "real rows alone")

    def tune(self, arms: Sequence[Arm], shown: str) -> None:
        """Choose the options of these arms."""
        self._bar.set_description(f"tuning, {shown}")
        self.tuner.choose_options(arms)

    def run_seeds(self, arms: Sequence[Arm], shown: str, *, first: int = 0) -> list[ArmResults]:
        """Run the paired seeds, from number `first`, of arms whose options are chosen."""
        self._bar.set_description(f"seeds, {shown}")
        sources, seeds = self.setting.sources, range(first, first + self.setting.seeds)
        cells = {
            arm: [replace(self.tuner.options[arm.name], seed=seed, test=self.setting.test) for seed in seeds]
            for arm in arms
        }
        settled = [cell.settle(sources) for seed in zip(*cells.values(), strict=True) for cell in seed]
        results = self.cache.run(list(dict.fromkeys(settled)))
        added = {kind: len(rows) for kind, rows in self._data.others.items()}
        return [
            ArmResults(
                arm,
                self.tuner.options[arm.name],
                [results[cell.settle(sources)] for cell in own],
                added.get(arm.rows, 0),
            )
            for arm, own in cells.items()
        ]


def count_trainings(arms: Sequence[Arm], *, validation_rows: int, seeds: int) -> int:
    """Return about how many trainings `run_all` takes."""
    return count_trials(arms, validation_rows=validation_rows) + len(arms) * seeds


def make_template(splits: Splits, *, steps: int | None, backend: str, classifier: str, device: str) -> Cell:
    """Return a cell with what all cells share."""
    steps, batch_size = _count_steps(len(splits.train), len(splits.class_names), steps)
    return Cell("", 0, steps, batch_size, "", 0.0, backend=backend, classifier=classifier, device=device)


def _count_steps(rows: int, classes: int, steps: int | None) -> tuple[int, int]:
    """Return steps, 600 (up to 1,000 rows) to 1,200 (32,000 and more), and batch size."""
    batch_size = 32 if rows < 500 else 64
    batch_size = max(batch_size, min(256, 1 << (classes - 1).bit_length()))
    return steps or int(np.clip(round(600 * (rows / 1_000) ** 0.2, -1), 600, 1_200)), batch_size


def count_positions(rows: int, classes: int, steps: int | None = None) -> int:
    """Return how many images one training shows."""
    steps, batch_size = _count_steps(rows, classes, steps)
    return steps * batch_size


def count_processes(device: str, asked: int | None, *, shown_bytes: int = 0) -> int:
    """Return the number of worker processes.

    Cells are small, so that one leaves most of a GPU idle: several of them share it, as many as its free memory holds.

    Args:
        device: "cpu" or "cuda".
        asked: The user's number, which stands.
        shown_bytes: Pixel bytes that a cell puts on the device.
    """
    if asked:
        return asked
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    if device == "cpu":
        return cores
    free = torch.cuda.mem_get_info()[0]
    return max(1, min(cores, _MOST_ON_GPU, int(free // (_WORKER_BYTES + shown_bytes))))
