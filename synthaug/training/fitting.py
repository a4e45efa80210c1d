"""From a labelled dataset to a finished run folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset, IterableDataset

from synthaug.core import InputError, OutputFolder, ask_first, list_files, make_accelerator, stopped_at_once, write_file
from synthaug.data import STREAM_ROWS, read_stream
from synthaug.generators import ConditionalGenerator, is_run, load_run, read_source
from synthaug.recipe import Recipe, dump_recipe, parse_count, parse_duration, parse_recipe, read_recipe
from synthaug.training.budget import Budget
from synthaug.training.completion import finish_run, reserve_share
from synthaug.training.loop import Schedule, train
from synthaug.training.plan import FitPlan, plan_fit, resolve_recipe
from synthaug.training.tracking import Journal, check_tracker

__all__ = ["fit"]

_WEIGHTS = "model.safetensors"


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
    plan = plan_fit(real, family, resolved)
    arguments = _describe_arguments(resolved, _digest(plan))
    if fresh:
        _check(plan, accelerator)  # before the earlier fit is removed
    made = OutputFolder(folder, "fit", arguments, fresh=fresh, earlier=partial(_read_earlier, folder, plan))
    with contextlib.ExitStack() as stack:
        if not ask_first(
            accelerator, lambda: stack.enter_context(made).has_finished("model.safetensors", "config.json")
        ):
            _check(plan, accelerator)
            _fit_into(made, plan, accelerator, hashlib.sha256(json.dumps(arguments).encode()).hexdigest())
    return load_run(folder, plan.family)


# ------------------------------------------------------------------------------------------------- run folder


def _describe_arguments(recipe: Recipe, rows: str | None) -> dict[str, Any]:
    """Return what decides the weights: the recipe's sections but for the tracker, and a digest of the rows."""
    sections = recipe.model_dump(include={"dataset", "generator", "fit"})
    found = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    return {**{key: value for key, value in found.items() if key != "fit.track"}, "rows of the dataset": rows}


def _digest(plan: FitPlan) -> str:
    """Return a sha256 of pixels, size and class of every row, and of which rows are held out."""
    digest = hashlib.sha256()
    for images in (plan.train, plan.validation):
        names = [images.class_names[label] for label in images.labels.tolist()]
        digest.update(json.dumps([images.hashes.tolist(), names]).encode())
    return digest.hexdigest()


def _read_earlier(folder: Path, plan: FitPlan) -> tuple[dict[str, Any], bool] | None:
    """Return the arguments of a finished run that was made before there were marks; None where there is none."""
    if not is_run(folder) or not (folder / "recipe.yaml").is_file():
        return None
    hashes = read_source(folder).get("hashes")
    same = hashes == {"train": plan.train.hashes.tolist(), "validation": plan.validation.hashes.tolist()}
    recipe = parse_recipe(read_recipe(folder / "recipe.yaml"))
    return _describe_arguments(recipe, _digest(plan) if same else None), True


def _check(plan: FitPlan, accelerator: Accelerator) -> None:
    """Refuse what cannot be fitted here: a tracker that is not installed, a batch that does not divide."""
    section = plan.recipe.fit
    check_tracker(section.track)
    pieces = accelerator.num_processes * section.accumulation
    if plan.batch_size % pieces:
        raise InputError(
            f"the batch of {plan.batch_size} images does not divide into {accelerator.num_processes} processes "
            f"times {section.accumulation} parts (fit.accumulation); take other numbers of them or set "
            f"fit.batch_size to a multiple of {pieces}"
        )


def _fit_into(output: OutputFolder, plan: FitPlan, accelerator: Accelerator, digest: str) -> None:
    folder = output.path
    recipe, main = plan.recipe, accelerator.is_main_process
    if main:
        print(plan.describe(), file=sys.stderr)
        write_file(folder / "recipe.yaml", dump_recipe(recipe))
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
        fit=digest,
    )
    with stopped_at_once(f"the training is saved in {folder}; the same command finishes the run"):
        if main:
            finish_run(folder, plan, generator, summary)
            list_files(folder / "log.jsonl")
            output.finish()
        while not is_run(folder):  # no collective: its timeout would end a long finish
            time.sleep(0.1)
        with contextlib.suppress(RuntimeError):  # another process was stopped; the run is finished
            accelerator.wait_for_everyone()  # short: all are here, and end together
