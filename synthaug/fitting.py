"""From a labelled dataset to a finished run folder."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset

from synthaug import __version__
from synthaug.budget import Budget
from synthaug.cards import render_model_card
from synthaug.checkpoint import (
    find_family,
    is_run,
    load_generator,
    save_generator,
    save_judge,
    write_text,
)
from synthaug.codec import to_tensor
from synthaug.data import LabeledImages, load_images, split_validation
from synthaug.errors import InputError, suggest
from synthaug.generators.base import ConditionalGenerator, Preset
from synthaug.judge import fit_judge
from synthaug.recipe import Recipe, dump_recipe, parse_count, parse_duration, parse_recipe, read_recipe
from synthaug.shards import locked
from synthaug.training import Schedule, sample_grid, train

__all__ = ["FitPlan", "fit", "plan_fit"]

_BATCH_ROWS, _JUDGE_BYTES = 512, 512 << 20
_OWN_FILES = (
    "config.json", "model.safetensors", "judge.safetensors", "latents.safetensors", "source.json", "recipe.yaml",
    "README.md", "log.jsonl", "samples", "state",
)  # fmt: skip


@dataclass(frozen=True)
class FitPlan:
    """What a fit will do: the resolved recipe and what follows from the data."""

    recipe: Recipe
    family: type[ConditionalGenerator]
    constructor: dict[str, Any]
    preset: Preset
    train: LabeledImages
    validation: LabeledImages
    images: LabeledImages

    def describe(self) -> str:
        """Return the plan as a few readable lines."""
        size = sum(p.numel() for p in self.build().parameters())
        numbers = ", ".join(f"{k}={v}" for k, v in self.constructor.items() if k not in ("class_names",))
        length = self.recipe.fit.budget or f"{self.recipe.fit.images:,} images"
        return (
            f"{self.family.family}: {size / 1e6:.2f} M parameters ({numbers})\n"
            f"rows: {len(self.train.labels):,} to fit on, {len(self.validation.labels):,} held out, "
            f"{len(self.images.class_names)} classes; batch {self.batch_size}; length {length}"
        )

    @property
    def batch_size(self) -> int:
        """Global batch in images."""
        return self.recipe.fit.batch_size or self.preset.batch_size

    def build(self) -> ConditionalGenerator:
        """Return a fresh generator, its weights a function of the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.fit.seed)
            try:
                return self.family(**self.constructor)
            except (RuntimeError, TypeError, ValueError) as error:
                if isinstance(error, InputError) or not self.recipe.generator.model_extra:
                    raise
                raise InputError(
                    f"{self.family.family} cannot be built with generator {self.recipe.generator.model_extra} "
                    f"({' '.join(str(error).split())[:120]}); change these keys or leave them out"
                ) from error


def fit(
    real: Dataset,
    family: str | type[ConditionalGenerator] = "cvae",
    *,
    output: str | Path,
    budget: str | float | None = None,
    images: int | str | None = None,
    recipe: Mapping[str, Any] | Recipe | None = None,
    fresh: bool = False,
    **options: Any,
) -> ConditionalGenerator:
    """Fit a class-conditional generator on a dataset and leave a run folder.

    The same call again returns the finished generator, or resumes an interrupted fit.

    Args:
        real: Labelled images; rows marked synthetic are left out.
        family: "cvae", "cgan", "glow", or a `ConditionalGenerator` class of your own.
        output: The run folder.
        budget: Duration such as "10m" (default), or
        images: a number of images to see, such as "2M"; then resuming is exact.
        recipe: A whole recipe instead of `options`.
        fresh: Remove what an earlier fit left in `output`.
        **options: `image_column`, `label_column`, `limit_per_class`, `image_size`, `on_bad_image`, `validation`,
            `batch_size`, `save_every`, `seed`, `mixed_precision`, and keyword arguments of the family.

    Returns:
        The generator with averaged weights, in eval mode.

    Raises:
        InputError: For bad input, or when `output` was made with other arguments.
        StoppedError: After a signal, with the state saved.
        FailedError: If the fit diverges.
    """
    folder = Path(output)
    resolved = _resolve_recipe(real, family, budget, images, recipe, options)
    accelerator = _make_accelerator(resolved)
    if _is_finished(folder, resolved, fresh):
        return load_generator(folder, None if isinstance(family, str) else family)
    if not accelerator.is_main_process:
        return _fit_into(folder, plan_fit(real, family, resolved), accelerator)
    with locked(folder):
        if fresh:
            _remove_run(folder)
        return _fit_into(folder, plan_fit(real, family, resolved), accelerator)


def plan_fit(real: Dataset, family: str | type[ConditionalGenerator], recipe: Recipe) -> FitPlan:
    """Read the data and resolve the presets, without fitting anything.

    Raises:
        InputError: For bad input.
    """
    cls, section = find_family(family), recipe.dataset
    images = load_images(
        real,
        image_column=section.image_column,
        label_column=section.label_column,
        image_size=recipe.generator.image_size,
        limit_per_class=section.limit_per_class,
        on_bad_image=section.on_bad_image,
    )
    training, validation = split_validation(images, section.validation)
    codec = images.codec
    counts = [training.class_counts[name] for name in images.class_names]
    preset = cls.preset(counts, codec.image_size, codec.channels)
    own = dict(recipe.generator.model_extra or {})
    allowed = [p for p in inspect.signature(cls).parameters if p not in ("class_names", "image_size", "channels")]
    for key in own:
        if key not in allowed:
            hint = suggest(key, allowed)
            raise InputError(f"unknown key generator.{key}{hint}; {cls.family} has {', '.join(allowed)}")
        _check_kind(key, own[key], inspect.signature(cls).parameters[key].default)
    constructor = {
        "class_names": list(images.class_names),
        "image_size": codec.image_size,
        "channels": codec.channels,
        **preset.constructor,
        **own,
    }
    return FitPlan(recipe, cls, constructor, preset, training, validation, images)


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Raise InputError where a number, a word or a truth value is expected, going by the default."""
    kinds: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}
    expected = kinds.get(type(default))
    if expected and (not isinstance(value, expected) or isinstance(value, bool) != isinstance(default, bool)):
        raise InputError(f"generator.{key} is {value!r}; give {expected[-1].__name__} like the default {default!r}")


def _resolve_recipe(
    real: Dataset,
    family: str | type[ConditionalGenerator],
    budget: str | float | None,
    images: int | str | None,
    recipe: Mapping[str, Any] | Recipe | None,
    options: Mapping[str, Any],
) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return parse_recipe(recipe)
    name = family if isinstance(family, str) else family.family
    values: dict[str, Any] = {"dataset": {"path": f"Dataset {real._fingerprint}"}, "generator": {"family": name}}
    values["fit"] = {"budget": budget, "images": images}
    sections: dict[str, tuple[str, ...]] = {
        "dataset": ("image_column", "label_column", "limit_per_class", "on_bad_image", "validation"),
        "fit": ("batch_size", "save_every", "seed", "mixed_precision"),
    }
    for key, value in options.items():
        section = next((s for s, keys in sections.items() if key in keys), "generator")
        values[section][key] = value
    return parse_recipe(values, origin="fit")


def _make_accelerator(recipe: Recipe) -> Accelerator:
    from accelerate.utils import DistributedDataParallelKwargs

    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=recipe.fit.mixed_precision,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    return accelerator


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
        if before[section].get(key) != now[section].get(key)
    ]
    if keys:
        shown = ", ".join(keys)
        message = f"output {str(folder)!r} was made with other arguments ({shown})"
        raise InputError(f"{message}; use them again or add --fresh")
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
    if plan.batch_size % accelerator.num_processes:
        raise InputError(
            f"the batch of {plan.batch_size} images does not divide into {accelerator.num_processes} processes; "
            "take another number of processes or set fit.batch_size to a multiple of it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if main:
        print(plan.describe(), file=sys.stderr)
        _check_same_rows(folder, plan)
        write_text(folder / "recipe.yaml", dump_recipe(recipe))
    accelerator.wait_for_everyone()

    seconds = parse_duration(recipe.fit.budget) if recipe.fit.budget else None
    budget = Budget(images=recipe.fit.images, seconds=seconds, reserve=0.02 * seconds if seconds else 0.0)
    every = recipe.fit.save_every
    schedule = Schedule(
        batch_size=plan.batch_size,
        ema_images=plan.preset.ema_images,
        class_power=plan.preset.class_power,
        save_images=parse_count(every) if isinstance(every, int) else None,
        save_seconds=parse_duration(every) if isinstance(every, str) else 0.0,
        seed=recipe.fit.seed,
    )
    generator, summary = train(
        plan.build(),
        plan.train.pixels,
        plan.train.labels,
        budget=budget,
        schedule=schedule,
        accelerator=accelerator,
        folder=folder,
    )
    if main:
        _finish(folder, plan, generator, summary)
    accelerator.wait_for_everyone()
    return load_generator(folder, plan.family)


def _check_same_rows(folder: Path, plan: FitPlan) -> None:
    """Refuse to resume on other rows than the fit began with."""
    path = folder / "state" / "rows.json"
    rows = {"train": len(plan.train.labels), "digest": _digest(plan.train)}
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != rows:
        raise InputError(f"the dataset changed since {str(folder)!r} was begun; add --fresh to fit on it anew")
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(rows))


def _digest(images: LabeledImages) -> str:
    import hashlib

    digest = hashlib.sha256()
    for pixel_hash, label in zip(images.hashes.tolist(), images.labels.tolist(), strict=True):
        digest.update(f"{pixel_hash}:{label};".encode())
    return digest.hexdigest()


def _finish(folder: Path, plan: FitPlan, generator: ConditionalGenerator, summary: Mapping[str, Any]) -> None:
    """Write what a finished run holds; config.json comes last."""
    rows, recipe = plan.train, plan.recipe
    device = next(generator.parameters()).device
    generator.memorize(_read_batches(rows, device))
    generator.cpu()
    print("fitting the judge", file=sys.stderr)
    few = _choose_judge_rows(rows, recipe.fit.seed)
    judge = fit_judge(few.pixels, few.labels, class_names=rows.class_names, seed=recipe.fit.seed)
    save_judge(folder, judge)
    source = _describe_source(plan)
    write_text(folder / "source.json", json.dumps(source, ensure_ascii=False))
    (folder / "samples").mkdir(exist_ok=True)
    (folder / "samples" / "final.png").write_bytes(sample_grid(generator))
    facts = {
        "family": generator.family,
        "version": generator.version,
        "constructor": plan.constructor,
        "class_counts": source["class_counts"],
        "train_rows": len(rows.labels),
        "validation_rows": len(plan.validation.labels),
        "summary": dict(summary),
        "recipe": dump_recipe(recipe),
        "synthaug_version": __version__,
        "sample_grid": "samples/final.png",
        "latents": bool(generator.latents),
    }
    write_text(folder / "README.md", render_model_card(facts))
    save_generator(folder, generator, plan.constructor)


def _read_batches(rows: LabeledImages, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield all rows in small batches, so that a memory-mapped set stays on disk."""
    for start in range(0, len(rows), _BATCH_ROWS):
        part = slice(start, start + _BATCH_ROWS)
        yield to_tensor(rows.pixels[part]).to(device), torch.from_numpy(rows.labels[part]).to(device)


def _choose_judge_rows(rows: LabeledImages, seed: int) -> LabeledImages:
    """Return the rows the judge is fitted on: all of them, or as many of each class as fit into memory."""
    most = max(1, _JUDGE_BYTES // rows.pixels[0].nbytes // len(rows.class_names))
    if len(rows) <= most * len(rows.class_names):
        return rows
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = [order[rows.labels[order] == label][:most] for label in range(len(rows.class_names))]
    return rows.take(np.sort(np.concatenate(chosen)))


def _describe_source(plan: FitPlan) -> dict[str, Any]:
    images, section = plan.images, plan.recipe.dataset
    return {
        "dataset": section.path,
        "split": section.split,
        "limit_per_class": section.limit_per_class,
        "image_column": images.columns.image,
        "label_column": images.columns.label,
        "features": images.dataset.features.to_dict(),
        "class_names": list(images.class_names),
        "class_counts": images.class_counts,
        "codec": images.codec.to_dict(),
        "hashes": {"train": plan.train.hashes.tolist(), "validation": plan.validation.hashes.tolist()},
        "corrupt": [[bad.row, bad.reason] for bad in images.corrupt],
        "unlabelled": images.unlabelled,
    }
