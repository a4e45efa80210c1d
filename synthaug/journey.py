"""Whole journeys: what the commands do with several modules in a row."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from synthaug.analysis import Evaluation, evaluate
from synthaug.balance import BalancePlan, make_plan, parse_target, per_class_plan
from synthaug.benchmarks import Advice, Report, benchmark_datasets, load_like_run, recommend, resolve_judge
from synthaug.core import InputError
from synthaug.data import (
    has_provenance,
    inspect_dataset,
    make_long_tailed,
    open_dataset,
    open_splits,
    open_test,
    pick_split,
    pick_test,
)
from synthaug.generation import mix, strip, write_dataset, write_rows
from synthaug.generators import load_run, read_source, resolve_run
from synthaug.publishing import VerdictFacts, check_name, check_push, push_folder
from synthaug.recipe import GenerateSection, Recipe, dump_recipe, parse_recipe, spell_path
from synthaug.training import fit, plan_fit

__all__ = [
    "describe_environment",
    "describe_recipe",
    "evaluate_run",
    "generate_dataset",
    "mix_datasets",
    "push",
    "recommend_dataset",
    "run_quickstart",
    "run_recipe",
    "strip_dataset",
]

QUICKSTART_ARMS = (
    "real+classical", "oversampled+classical", "real+classical+balanced-softmax", "best+smote", "best+synthetic",
    "synthetic",
)  # fmt: skip
"""Enough arms for an honest answer within five minutes."""

QUICKSTART_IMBALANCE = 20.0
"""How many times as many rows the first class of the quickstart's digits has as the last."""


def _resolve_plan(section: GenerateSection, counts: Mapping[str, int]) -> BalancePlan:
    """Return the plan that the recipe's `generate` section asks for."""
    if section.per_class is not None:
        return per_class_plan(counts, section.per_class)
    target = section.balance if section.balance is not None else "majority"
    target = parse_target(target) if isinstance(target, str) else target
    return make_plan(counts, target, max_synthetic_fraction=section.max_synthetic_fraction)


def generate_dataset(
    run: str | Path,
    output: Path,
    values: Mapping[str, Any],
    *,
    mix_with: str | None = None,
    split: str | None = None,
    limit_per_class: int | None = None,
    on_bad_image: str = "error",
    group_by: Sequence[str] | None = None,
    num_processes: int = 1,
    device: str = "cpu",
    fresh: bool = False,
) -> None:
    """Generate from a run folder into a dataset folder, counting the rows of `mix_with` or those of the fit.

    Args:
        run: A finished run, or the Hub id of one.
        output: The dataset folder to make.
        values: The recipe's `generate` section.
        mix_with: Dataset whose real rows come first and are counted.
        split: Its split; the others pass through.
        limit_per_class: Of `mix_with`, only so many rows of each class, the same ones as in fit.
        on_bad_image: For corrupt rows of `mix_with`, "error" or "skip".
        group_by: The columns that the run was fitted by, if one wants to be sure; the run knows them.
        num_processes: Worker processes; one on an accelerator.
        device: Where the images are computed, as torch names it.
        fresh: Remove what an earlier run left in `output`.

    Raises:
        InputError: If there is no such device here, or the arguments do not fit each other.
    """
    folder = resolve_run(run)
    generator, source = load_run(folder, device=device), read_source(folder)
    if limit_per_class is not None and mix_with is None:
        raise InputError("limit_per_class speaks of the rows of mix_with; give that too, or leave it out")
    if group_by is not None and set(group_by) != set(source.get("group_by") or ()):
        fitted = ",".join(source.get("group_by") or [source["label_column"]])
        raise InputError(
            f"group_by is {','.join(group_by)}, but the run was fitted by {fitted}; leave it out or fit another run"
        )
    if mix_with is not None:
        _refuse_input(output, mix_with)
    section = _parse_generate(values)
    real, others, counts = None, {}, dict(source["class_counts"])
    split = split or "train"
    if mix_with is not None:
        splits = open_splits(mix_with)
        real = pick_split(splits, split, mix_with)
        others = {name: data for name, data in splits.items() if data is not real}
        images = load_like_run(real, source, limit_per_class=limit_per_class)
        counts = {**dict.fromkeys(source["class_names"], 0), **images.class_counts}
        real = real if limit_per_class is None else real.select(images.rows)
    write_rows(
        generator,
        _resolve_plan(section, counts),
        seed=section.seed,
        temperature=section.temperature,
        filter=section.filter,
        judge=resolve_judge(section),
        max_draws=section.max_draws,
        output=output,
        mix_with=real,
        other_splits=others,
        split=split,
        on_bad_image=on_bad_image,
        recipe={
            "run": spell_path(str(run)),
            "mix_with": None if mix_with is None else spell_path(mix_with),
            "generate": section.model_dump(),
        },
        num_processes=num_processes,
        fresh=fresh,
    )


def _parse_generate(values: Mapping[str, Any]) -> GenerateSection:
    whole = {"dataset": {"path": "-"}, "generator": {"family": "-"}, "generate": dict(values)}
    return parse_recipe(whole, origin="generate").generate


def mix_datasets(
    real: str,
    synthetic: str,
    output: Path,
    *,
    split: str = "train",
    label_column: str | None = None,
    fresh: bool = False,
) -> Path:
    """Write real rows and then synthetic ones as a dataset folder; the other splits pass through.

    Args:
        real: DATASET with the real rows.
        synthetic: DATASET with the synthetic ones; one that `generate` made knows its label column.
        output: Folder to make.
        split: Split of the real rows.
        label_column: By which the synthetic rows are put in order; found when None.
        fresh: Remove what an earlier run left in `output`.
    """
    _refuse_input(output, real, synthetic)
    splits, record = open_splits(real), Path(synthetic) / "synthaug.json"
    rows = pick_split(splits, split, real)
    if label_column is None and record.is_file():
        known = json.loads(record.read_text(encoding="utf-8")).get("label_column")
        label_column = known if known in rows.features else None
    elif label_column is not None and label_column not in rows.features:
        there = ", ".join(map(repr, rows.features))
        raise InputError(f"no column {label_column!r} in {real!r}; name one of its columns: {there}")
    mixed = mix(rows, open_dataset(synthetic), label_column=label_column)
    return _write_beside(splits, split, mixed, output, "mix", fresh)


def strip_dataset(dataset: str, output: Path, *, split: str = "train", fresh: bool = False) -> Path:
    """Write the real rows of a dataset, with their original columns; the other splits pass through."""
    _refuse_input(output, dataset)
    splits = open_splits(dataset)
    return _write_beside(splits, split, strip(pick_split(splits, split, dataset)), output, "strip", fresh)


def _refuse_input(output: Path, *datasets: str) -> None:
    """Refuse an output folder in which a dataset lies that the command reads: `--fresh` would remove it first."""
    for dataset in datasets:
        place = Path(dataset).resolve()
        if (place.exists() or "*" in dataset) and output.resolve() in (place, *place.parents):
            raise InputError(f"output {str(output)!r} is or holds {dataset!r}, which is read; give another folder")


def _write_beside(
    splits: Mapping[str, Dataset], split: str, made: Dataset, output: Path, command: str, fresh: bool
) -> Path:
    """Write the split that was made in the place of the one it came from; others as they are, stripped if need be."""
    bare = not has_provenance(made.features)
    others = {
        name: strip(data) if bare and has_provenance(data.features) else data
        for name, data in splits.items()
        if name != split
    }
    return write_dataset({split: made, **others}, output, split=split, command=command, fresh=fresh)


def recommend_dataset(dataset: str, output: Path, *, split: str = "train", **options: Any) -> Advice:
    """Recommend what to generate for a dataset, and write the recipe for `generate` beside the advice.

    Args:
        dataset: DATASET with the real rows.
        output: Folder to make.
        split: Its split.
        **options: Arguments of `recommend`.
    """
    rows = {"path": dataset, "split": split}
    keys = ("image_column", "label_column", "group_by", "limit_per_class", "on_bad_image")
    rows |= {key: options[key] for key in keys if options.get(key) is not None}
    return recommend(open_dataset(dataset, split), output=output, dataset=rows, **options)


def evaluate_run(
    run: str,
    test: str,
    output: Path | None,
    *,
    test_split: str | None = None,
    real: str | None = None,
    split: str | None = None,
    **options: Any,
) -> tuple[Evaluation, Path]:
    """Evaluate a run into a folder, by default `evaluation` inside a run folder.

    Args:
        run: A finished run, or the Hub id of one.
        test: DATASET with rows that nothing was fitted on.
        output: Folder to write; needed for a Hub id.
        test_split: Its split; `test` or the only one when None.
        real: DATASET in which the rows the run was fitted on are found; that of `test` when None. What the run names
            is not opened.
        split: Its split; the one of the fit when None.
        **options: Arguments of `evaluate`.

    Returns:
        The evaluation and its folder.
    """
    if output is None and not Path(run).is_dir():
        raise InputError(f"{run!r} is no folder here; name a folder for the evaluation with output=")
    folder = Path(run) / "evaluation" if output is None else output
    fitted = resolve_run(run)
    generator, splits = load_run(fitted), open_splits(test)
    judging = pick_test(splits, test_split, test)
    name = split or str(read_source(fitted).get("split") or "train")
    if real is None and name not in splits:
        raise InputError(
            f"{test!r} has no split {name!r} in which the rows the run was fitted on could be found; name their "
            "dataset with real=DATASET"
        )
    rows = splits[name] if real is None else open_dataset(real, name)
    told = {"test_split": test_split, "real": real, "split": split, "output": output, **options}
    command = _describe_command(f"synthaug evaluate {shlex.quote(run)} --test {shlex.quote(test)}", told)
    return evaluate(generator, judging, real=rows, output=folder, command=command, **options), folder


def _describe_command(start: str, options: Mapping[str, Any]) -> str:
    """Return a command line with the options that were given."""
    given = {name: value for name, value in options.items() if name != "fresh" and value is not None}
    flags = {name: f"--{name.replace('_', '-')}" for name, value in given.items() if value is not False}
    words = [flag if given[name] is True else f"{flag} {shlex.quote(str(given[name]))}" for name, flag in flags.items()]
    return " ".join([start, *words])


# ----------------------------------------------------------------------------------------------- whole journeys


def describe_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe and what the fit and the balance would be, without doing anything."""
    plan = plan_fit(open_dataset(recipe.dataset.path, recipe.dataset.split), recipe.generator.family, recipe)
    balance = _resolve_plan(recipe.generate, plan.images.class_counts)
    return f"{dump_recipe(recipe)}\n{plan.describe()}\n\n{balance.table()}"


def run_recipe(recipe: Recipe, *, fresh: bool = False) -> Path:
    """Fit, generate, mix, benchmark and push as the recipe says; each step resumes or is skipped when done.

    Returns:
        The output folder, holding run/, dataset/ and report/.
    """
    if recipe.output is None:
        raise InputError("the recipe has no `output`; add the folder to make")
    if recipe.push.repo:
        check_push(recipe.push.repo)
    output = Path(recipe.output)
    real = open_dataset(recipe.dataset.path, recipe.dataset.split)
    return _travel(recipe, real, recipe.dataset.path, output, fresh=fresh)


def _travel(recipe: Recipe, real: Dataset, real_spec: str, output: Path, *, fresh: bool) -> Path:
    run, dataset = output / "run", output / "dataset"
    fit(real, recipe.generator.family, output=run, recipe=recipe, fresh=fresh)
    section = recipe.generate.model_dump(exclude_none=True)
    generate_dataset(
        run, dataset, section, mix_with=real_spec, split=recipe.dataset.split,
        limit_per_class=recipe.dataset.limit_per_class, on_bad_image=recipe.dataset.on_bad_image, fresh=fresh,
    )  # fmt: skip
    report = None
    if recipe.benchmark is not None:
        judged = recipe.benchmark
        report = benchmark_datasets(
            real, run, open_test(judged.test.path, judged.test.split), output / "report",
            limit_per_class=recipe.dataset.limit_per_class, arms=judged.arms, seeds=judged.seeds,
            steps=judged.steps, classifier=judged.classifier, fresh=fresh,
            on_bad_image=recipe.dataset.on_bad_image, drawing=recipe.generate,
        )  # fmt: skip
        print(f"\n{report.table}\n\nverdict: {report.verdict}", file=sys.stderr)
    if recipe.push.repo:
        push(dataset, recipe.push.repo, report=report, private=recipe.push.private)
    return output


def run_quickstart(output: Path, *, generator: str = "cvae", fresh: bool = False) -> Path:
    """Make the embedded digits long-tailed and go the whole way: inspect, fit, generate, mix, benchmark, report.

    Args:
        output: Folder that will hold real/, run/, dataset/ and report/.
        generator: The family.
        fresh: Start anew.
    """
    splits = open_splits("digits")
    tailed = make_long_tailed(splits["train"], "label", QUICKSTART_IMBALANCE)
    title, rows = "scikit-learn's digits, made long-tailed", {"train": tailed, "test": splits["test"]}
    real = write_dataset(rows, output / "real", title=title, command="quickstart", fresh=fresh)
    print(inspect_dataset(str(real)).table(), file=sys.stderr)
    recipe = parse_recipe(
        {
            "dataset": {"path": str(real)},
            "generator": {"family": generator},
            "fit": {"budget": "60s"},
            "benchmark": {"test": {"path": str(real), "split": "test"}, "arms": list(QUICKSTART_ARMS)},
            "output": str(output),
        }
    )
    made = run_recipe(recipe, fresh=fresh)
    print(f"report: {made / 'report' / 'report.html'}")
    return made


def describe_environment() -> str:
    """Return versions and devices as lines."""
    import torch

    from synthaug.core import __version__

    lines = [f"synthaug {__version__}", f"python {platform.python_version()} on {platform.platform()}"]
    for name in ("torch", "torchvision", "datasets", "accelerate", "huggingface_hub", "safetensors", "numpy",
                 "pyarrow", "pillow", "albumentations", "scikit-learn"):  # fmt: skip
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name} not installed")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines.append(f"devices: {', '.join(gpus) if gpus else f'CPU, {torch.get_num_threads()} threads'}")
    return "\n".join(lines)


def push(
    what: Dataset | DatasetDict | str | Path,
    repo_id: str,
    *,
    report: Report | None = None,
    private: bool = True,
    force: bool = False,
    include_latents: bool = False,
) -> str:
    """Push a finished run folder, a dataset folder or a dataset to the Hub, in one commit.

    Pushing again replaces what an earlier push left; what a person added to the card's metadata stays.

    Args:
        what: A run folder, a dataset folder, or a dataset made by `generate` or `mix`.
        repo_id: "user/name".
        report: Its verdict is put in the card.
        private: Make a new repository private; an existing public one is then refused.
        force: Write over a repository that synthaug did not make.
        include_latents: Push latents.safetensors too, which is derived from training images.

    Returns:
        Address of the repository.

    Raises:
        InputError: If `what` is nothing finished, the repository is foreign or public, the token may not
            write, or the Hub is switched off (HF_HUB_OFFLINE).
        FailedError: If the Hub or the network fails for longer than the retries last.

    Example:
        >>> synthaug.push(augmented, "me/xrays-balanced", report=report)  # doctest: +SKIP
        'https://huggingface.co/datasets/me/xrays-balanced'
    """
    check_name(repo_id)
    verdict = None if report is None else _read_verdict(report)
    with _as_folder(what, repo_id.split("/")[1]) as folder:
        return push_folder(
            folder, repo_id, verdict=verdict, private=private, force=force, include_latents=include_latents
        )


@contextmanager
def _as_folder(what: Dataset | DatasetDict | str | Path, title: str) -> Iterator[Path]:
    """Yield the folder to push; a dataset is written into a temporary one."""
    if isinstance(what, str | Path):
        yield Path(what)
        return
    if not isinstance(what, Dataset | DatasetDict):
        given = type(what).__name__
        raise InputError(f"cannot push a {given}; give a run folder, a dataset folder or a Dataset")
    with tempfile.TemporaryDirectory(prefix="synthaug-push-") as parent:
        yield write_dataset(what, Path(parent) / title, title=title)


def _read_verdict(report: Report) -> VerdictFacts:
    return {
        "verdict": report.verdict,
        "difference": report.difference,
        "interval": report.interval,
        "table": report.table,
    }
