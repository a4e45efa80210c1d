"""The end of a fit: judge, choices on validation rows, label check, and the files of a finished run."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthaug.classifiers import Density, Judge, fit_judge, likelihood_filter, save_judge
from synthaug.core import __version__, write_file
from synthaug.data import LabeledImages, class_values, to_tensor
from synthaug.generators import ConditionalGenerator, load_snapshots, save_generator
from synthaug.publishing import name_public, render_model_card
from synthaug.recipe import dump_recipe, parse_duration
from synthaug.training.loop import sample_grid
from synthaug.training.plan import FitPlan
from synthaug.training.selection import Candidate, Trial, audit_samples, compare_candidates, copy_with

__all__ = ["finish_run", "reserve_share"]

_BATCH_ROWS, _BATCH_VALUES, _JUDGE_BYTES = 512, 1 << 21, 512 << 20
_RESERVE = 0.07
"""Share of a budget kept for comparing candidates."""
_WRONG = 0.15
"""Share of a class's samples that may look like another class before the fit warns."""
_FEW = 0.2
"""Share of them that the default filter must keep, likewise."""
_KNOWN_ROWS = 30
"""Training rows of a joint group under which the judge's doubt may be its own."""

_LEAST_JUDGED, _MOST_JUDGED, _KEPT = 20, 1_000, 0.9
"""Held-out rows that tell whether a density judges well, at least and at most; the share it should keep."""


def reserve_share(seconds: float) -> float:
    """Return the share of a budget in seconds that is kept for what comes after the training."""
    return _RESERVE if _is_worth_choosing(seconds, None) else 0.02


def finish_run(folder: Path, plan: FitPlan, generator: ConditionalGenerator, summary: Mapping[str, Any]) -> None:
    """Write what a finished run holds; config.json comes last."""
    rows, recipe = plan.train, plan.recipe
    generator.memorize(_read_batches(rows, next(generator.parameters()).device))
    generator.cpu()
    print("fitting the judge", file=sys.stderr)
    few = _choose_judge_rows(rows, recipe.fit.seed)
    judge = fit_judge(few.pixels, few.labels, class_names=rows.class_names, seed=recipe.fit.seed)
    save_judge(folder, judge)
    generator, chosen, compared, scores = _settle(folder, plan, generator, judge, summary)
    constructor = {**plan.constructor, **chosen}
    warnings = [*summary["warnings"], *_check_samples(plan, generator, judge, scores)]
    warnings += _check_density(plan, generator, scores)
    source = _describe_source(plan)
    write_file(folder / "source.json", json.dumps(source, ensure_ascii=False))
    write_file(folder / "samples" / "final.png", sample_grid(generator))
    facts = {
        "family": generator.family,
        "version": generator.version,
        "constructor": constructor,
        "preset": plan.preset_table(constructor, compared),
        "scores": scores,
        "warnings": warnings,
        "class_counts": source["class_counts"],
        "train_rows": len(rows.labels),
        "validation_rows": len(plan.validation.labels),
        "summary": dict(summary),
        "recipe": dump_recipe(recipe),
        "synthaug_version": __version__,
        "sample_grid": "samples/final.png",
        "latents": bool(generator.latents),
    }
    write_file(folder / "README.md", render_model_card(facts))
    save_generator(folder, generator, constructor)


def _is_worth_choosing(seconds: float | None, images_seen: int | None) -> bool:
    """Tell whether a fit is long enough for its candidates to be compared."""
    return (seconds is None or seconds >= 60) and (images_seen is None or images_seen >= 20_000)


def _settle(
    folder: Path, plan: FitPlan, generator: ConditionalGenerator, judge: Judge, summary: Mapping[str, Any]
) -> tuple[ConditionalGenerator, dict[str, Any], set[str], dict[str, float]]:
    """Return the generator to keep, the arguments left open, which of them were compared, scores on validation rows.

    First the snapshot, then each open choice, all by `compare_candidates`.
    """
    recipe, scores = plan.recipe, dict[str, float]()
    choices = generator.open_choices()
    chosen: dict[str, Any] = {name: values[0] for name, values in choices.items()}
    compared, attributes = set[str](), plan.attributes
    seconds = parse_duration(recipe.fit.budget) if recipe.fit.budget else None
    compare = partial(
        compare_candidates, judge=judge, validation=plan.validation, seed=recipe.fit.seed, training=plan.train,
        targets=None if attributes is None else [values[0] for values in attributes],
    )  # fmt: skip
    if len(plan.validation) and _is_worth_choosing(seconds, summary["images_seen"]):
        snapshots = load_snapshots(folder, generator)
        if snapshots:
            candidates = [Candidate("last weights", lambda: copy_with(generator, **chosen))]
            candidates += [Candidate(n, partial(_restore, generator, w, plan.train)) for n, w in snapshots.items()]
            best, trials = compare(candidates)
            generator = candidates[best].prepare()
            scores |= _describe_trials(trials, best)
        for name, values in choices.items():
            candidates = [Candidate(f"{name}={v}", partial(copy_with, generator, **{name: v})) for v in values]
            best, trials = compare(candidates)
            chosen[name] = values[best]
            compared.add(name)
            scores |= _describe_trials(trials, best)
    return copy_with(generator, **chosen), chosen, compared, scores


def _restore(generator: ConditionalGenerator, weights: Mapping[str, torch.Tensor], rows: LabeledImages) -> Any:
    """Return a copy of the generator with other weights, its latents made anew."""
    other = copy.deepcopy(generator)
    other.load_state_dict(weights)
    other.memorize(_read_batches(rows, torch.device("cpu")))
    return other


def _describe_trials(trials: list[Trial], best: int) -> dict[str, float]:
    """Return what the card says of the candidates, and say it on stderr."""
    scores = {}
    for index, trial in enumerate(trials):
        name = f"{trial.name}, chosen" if index == best else trial.name
        scores[f"CAS, {name}"], scores[f"coverage, {name}"] = trial.accuracy, trial.coverage
        scores[f"another class, {name}"] = trial.wrong
        line = f"validation rows: {name}: CAS {trial.accuracy:.3f}, coverage {trial.coverage:.3f}"
        line += f", another class {trial.wrong:.3f}"
        if trial.copies is not None:
            scores[f"near copies, {name}"] = trial.copies
            line += f", near copies {trial.copies:.3f}"
        print(line, file=sys.stderr)
    return scores


def _check_samples(plan: FitPlan, generator: ConditionalGenerator, judge: Judge, scores: dict[str, float]) -> list[str]:
    """Ask the judge about samples of every class into `scores`; return a warning for each bad class."""
    counts = plan.train.class_counts
    if len(counts) < 2:
        return []
    shares = audit_samples(generator, judge, seed=plan.recipe.fit.seed)
    known = {name: each for name, each in zip(plan.train.class_names, shares, strict=True) if counts[name]}
    scores["samples of another class"] = sum(wrong for wrong, _ in known.values()) / max(1, len(known))
    scores["samples that the default filter keeps"] = sum(kept for _, kept in known.values()) / max(1, len(known))
    doubted = {name for name, (wrong, kept) in known.items() if wrong > _WRONG or kept < _FEW}
    rare = [name for name in known if name in doubted and plan.attributes is not None and counts[name] < _KNOWN_ROWS]
    warnings = [_describe_doubt(name, *known[name]) for name in known if name in doubted and name not in rare]
    if rare:
        warnings.append(
            f"groups {', '.join(map(repr, rare))}: the judge doubts more than {_WRONG:.0%} of the samples, and knows "
            f"them by fewer than {_KNOWN_ROWS} rows each; look at the sample grid: the default filter rejects what it "
            "doubts, right samples too"
        )
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    return warnings


def _describe_doubt(name: str, wrong: float, kept: float) -> str:
    """Return a warning about a class of which so many samples look like another, and so many pass the filter."""
    if kept < _FEW:
        return (
            f"class {name!r}: the default filter keeps {kept:.0%} of the samples ({wrong:.0%} look like another class "
            "to the judge), so that generate is slow or falls short; fit longer, or generate with filter none and look"
        )
    return (
        f"class {name!r}: {wrong:.0%} of the samples look like another class to the judge; fit longer, or rely on the "
        f"default filter, which keeps {kept:.0%}"
    )


@torch.no_grad()
def _check_density(plan: FitPlan, generator: ConditionalGenerator, scores: dict[str, float]) -> list[str]:
    """Count the held-out rows that a density would keep as a judge into `scores`; return a warning if they are few."""
    if not isinstance(generator, Density) or len(plan.validation) < _LEAST_JUDGED:
        return []
    rows = np.random.default_rng(plan.recipe.fit.seed).permutation(len(plan.validation))[:_MOST_JUDGED]
    check, kept = likelihood_filter(generator), 0
    for images, labels in _read_batches(plan.validation.take(np.sort(rows)), next(generator.parameters()).device):
        kept += int(check(images, labels).sum())
    scores["held-out rows that it keeps as a judge"] = share = kept / len(rows)
    if share >= _KEPT:
        return []
    line = (
        f"as a judge of other generators (generate --judge) this run would keep {share:.0%} of held-out real rows; "
        "fit it longer before it judges"
    )
    print(f"warning: {line}", file=sys.stderr)
    return [line]


def _read_batches(rows: LabeledImages, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield all rows in small batches, so that a memory-mapped set stays on disk."""
    count = max(1, min(_BATCH_ROWS, _BATCH_VALUES // rows.pixels[0].size))
    for start in range(0, len(rows), count):
        part = slice(start, start + count)
        yield to_tensor(rows.pixels[part]).to(device), torch.from_numpy(rows.labels[part]).to(device)


def _choose_judge_rows(rows: LabeledImages, seed: int) -> LabeledImages:
    """Return the rows the judge is fitted on: all of them, or as many of each class as fit into memory."""
    most = max(1, _JUDGE_BYTES // rows.pixels[0].nbytes // len(rows.class_names))
    if len(rows) <= most * len(rows.class_names):
        return rows
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = [order[rows.labels[order] == label][:most] for label in range(len(rows.class_names))]
    return rows.take(np.sort(np.concatenate(chosen)))


def _describe_groups(images: LabeledImages) -> dict[str, Any]:
    """Return the columns that make the classes and each class's values in them; nothing without group_by."""
    columns, features = images.columns, images.dataset.features
    if not columns.groups:
        return {}
    return {
        "group_by": list(columns.groups),
        "groups": {name: class_values(features, columns, name) for name in images.class_names},
    }


def _describe_source(plan: FitPlan) -> dict[str, Any]:
    images, section = plan.images, plan.recipe.dataset
    return {
        "dataset": name_public(section.path),
        "split": section.split,
        "limit_per_class": section.limit_per_class,
        "image_column": images.columns.image,
        "label_column": images.columns.label,
        **_describe_groups(images),
        "features": images.dataset.features.to_dict(),
        "class_names": list(images.class_names),
        "class_counts": images.class_counts,
        "codec": images.codec.to_dict(),
        "hashes": {"train": plan.train.hashes.tolist(), "validation": plan.validation.hashes.tolist()},
        "corrupt": [[bad.row, bad.reason] for bad in images.corrupt],
        "unlabelled": images.unlabelled,
    }
