"""From a labelled dataset to a finished run folder."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset, IterableDataset

from synthaug.budget import Budget
from synthaug.checkpoint import is_run, load_generator, write_text
from synthaug.completion import finish_run, reserve_share
from synthaug.data import LabeledImages
from synthaug.engine import make_accelerator
from synthaug.errors import InputError
from synthaug.fitplan import FitPlan, plan_fit, resolve_recipe
from synthaug.generators.base import ConditionalGenerator
from synthaug.recipe import Recipe, dump_recipe, parse_count, parse_duration, parse_recipe, read_recipe
from synthaug.shards import locked
from synthaug.signals import stopped_at_once
from synthaug.streaming import STREAM_ROWS, read_stream
from synthaug.tracking import LOGS, Journal, check_tracker
from synthaug.training import Schedule, train

__all__ = ["fit"]

_OWN_FILES = (
    "config.json", "model.safetensors", "judge.safetensors", "latents.safetensors", "source.json", "recipe.yaml",
    "README.md", "log.jsonl", "samples", "state", "evaluation", "exploration", LOGS,
)  # fmt: skip


def fit(
    real: Dataset | IterableDataset,
    family: str | type[ConditionalGenerator] = "cvae",
    *,
    output: str | Path,
    budget: str | float | None = None,
    images: int | str | None = None,
    recipe: Mapping[str, Any] | Recipe | None = None,
    fresh: bool = False,
    stream_rows: int = STREAM_ROWS,
    **options: Any,
) -> ConditionalGenerator:
    """Fit a class-conditional generator on a dataset and leave a run folder.

    The same call again returns the finished generator, or resumes an interrupted fit.

    Args:
        real: Labelled images; rows marked synthetic are left out. Of a streaming dataset the first `stream_rows`.
        family: "cvae", "cgan", "glow", or a `ConditionalGenerator` class of your own.
        output: The run folder.
        budget: Duration such as "10m" (default), or
        images: a number of images to see, such as "2M"; then resuming is exact.
        recipe: A whole recipe instead of `options`.
        fresh: Remove what an earlier fit left in `output`.
        stream_rows: How many rows of a streaming dataset are read (to disk) at most.
        **options: `image_column`, `label_column`, `group_by` (columns whose joint groups are the classes),
            `limit_per_class`, `image_size`, `on_bad_image`, `validation`,
            `batch_size`, `accumulation`, `save_every`, `seed`, `mixed_precision`, and keyword arguments of the family;
            `track` ("tensorboard", "trackio" or "wandb") writes what can be watched to RUN/logs.

    Returns:
        The generator with averaged weights, in eval mode.

    Raises:
        InputError: For bad input, or when `output` was made with other arguments.
        StoppedError: After a signal, with the state saved.
        FailedError: If the fit diverges.
    """
    folder = Path(output)
    if isinstance(real, IterableDataset):
        real = read_stream(real, stream_rows)
    resolved = resolve_recipe(real, family, budget, images, recipe, options)
    accelerator = make_accelerator()
    if _is_finished(folder, resolved, fresh):
        return load_generator(folder, None if isinstance(family, str) else family)
    check_tracker(resolved.fit.track)
    if not accelerator.is_main_process:
        return _fit_into(folder, plan_fit(real, family, resolved), accelerator)
    with stopped_at_once("run the same command again"), locked(folder):
        if fresh:
            _remove_run(folder)
        return _fit_into(folder, plan_fit(real, family, resolved), accelerator)


# ------------------------------------------------------------------------------------------------- run folder


def _is_finished(folder: Path, recipe: Recipe, fresh: bool) -> bool:
    """Tell whether `folder` already holds this very fit, finished.

    Raises:
        InputError: If it holds something else.
    """
    if folder.is_file():
        raise InputError(f"output {str(folder)!r} is a file; give a folder")
    if fresh or not folder.is_dir() or not any(p for p in folder.iterdir() if not p.name.startswith(".")):
        return False
    if not (folder / "recipe.yaml").is_file():
        raise InputError(f"output {str(folder)!r} is not empty and no run of synthaug; give another folder")
    before, now = parse_recipe(read_recipe(folder / "recipe.yaml")).model_dump(), recipe.model_dump()
    keys = [
        f"{section}.{key}"
        for section in ("dataset", "generator", "fit")
        for key in {**before[section], **now[section]}
        if before[section].get(key) != now[section].get(key) and (section, key) != ("fit", "track")
    ]
    if keys:
        shown = ", ".join(keys)
        message = f"output {str(folder)!r} was made with other arguments ({shown})"
        raise InputError(f"{message}; use them again or add --fresh (fresh=True)")
    return is_run(folder)


def _remove_run(folder: Path) -> None:
    others = [p.name for p in folder.iterdir() if p.name not in _OWN_FILES and not p.name.startswith(".")]
    if others:
        message = f"--fresh would remove {others[0]!r} in {str(folder)!r}, which no fit made"
        raise InputError(f"{message}; give another folder")
    for name in _OWN_FILES:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _fit_into(folder: Path, plan: FitPlan, accelerator: Accelerator) -> ConditionalGenerator:
    recipe, main = plan.recipe, accelerator.is_main_process
    pieces = accelerator.num_processes * recipe.fit.accumulation
    if plan.batch_size % pieces:
        raise InputError(
            f"the batch of {plan.batch_size} images does not divide into {accelerator.num_processes} processes "
            f"times {recipe.fit.accumulation} parts (fit.accumulation); take other numbers of them or set "
            f"fit.batch_size to a multiple of {pieces}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if main:
        print(plan.describe(), file=sys.stderr)
        write_text(folder / "recipe.yaml", dump_recipe(recipe))  # first: a folder without it is taken for foreign
        _check_same_rows(folder, plan)
    accelerator.wait_for_everyone()

    seconds = parse_duration(recipe.fit.budget) if recipe.fit.budget else None
    reserve = seconds * reserve_share(seconds) if seconds else 0.0
    budget = Budget(images=recipe.fit.images, seconds=seconds, reserve=reserve)
    every = recipe.fit.save_every
    schedule = Schedule(
        batch_size=plan.batch_size,
        ema_images=plan.preset.ema_images,
        class_power=plan.preset.class_power,
        save_images=parse_count(every) if isinstance(every, int) else None,
        save_seconds=parse_duration(every) if isinstance(every, str) else 0.0,
        seed=recipe.fit.seed,
        mixed_precision=recipe.fit.mixed_precision,
        accumulation=recipe.fit.accumulation,
    )
    generator, summary = train(
        plan.build(),
        plan.train.pixels,
        plan.train.labels,
        budget=budget,
        schedule=schedule,
        accelerator=accelerator,
        folder=folder,
        journal=Journal(accelerator, recipe.fit.track, folder),
    )
    with stopped_at_once(f"the training is saved in {folder}; the same command finishes the run"):
        if main:
            finish_run(folder, plan, generator, summary)
        while not is_run(folder):  # no collective: its timeout would end a long finish
            time.sleep(0.1)
        with contextlib.suppress(RuntimeError):  # another process was stopped; the run is finished
            accelerator.wait_for_everyone()  # short: all are here, and end together
    return load_generator(folder, plan.family)


def _check_same_rows(folder: Path, plan: FitPlan) -> None:
    """Refuse to resume on other rows than the fit began with."""
    path = folder / "state" / "rows.json"
    rows = {"train": len(plan.train.labels), "digest": _digest(plan.train)}
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != rows:
        raise InputError(
            f"the dataset changed since {str(folder)!r} was begun; add --fresh (fresh=True) to fit on it anew"
        )
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(rows))


def _digest(images: LabeledImages) -> str:
    import hashlib

    digest = hashlib.sha256()
    for pixel_hash, label in zip(images.hashes.tolist(), images.labels.tolist(), strict=True):
        digest.update(f"{pixel_hash}:{label};".encode())
    return digest.hexdigest()
