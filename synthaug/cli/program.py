"""The command line: parse, call, print the path of what was made."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# OpenMP threads that spin while they wait make a small network ten times slower on a machine that is shared;
# read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    name="synthaug",
    help="Synthetic data augmentation for labelled images, with the evidence beside it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="digits, a folder, a Parquet file or glob, or a Hub id")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="a run folder made by fit, or the Hub id of one")]
Output = Annotated[Path, typer.Option("--output", "-o", help="folder to make")]
Split = Annotated[str | None, typer.Option(help="split to read (default: train)")]
ImageColumn = Annotated[str | None, typer.Option(help="image column, when there are several")]
LabelColumn = Annotated[str | None, typer.Option(help="label column, when there are several")]
GroupBy = Annotated[str | None, typer.Option(metavar="COLUMNS", help="label,site,...: balance their joint groups")]
ImageSize = Annotated[int | None, typer.Option(help="size of the images emitted, 8 to 64")]
LimitPerClass = Annotated[int | None, typer.Option(help="use at most N rows of each class, always the same ones")]
OnBadImage = Annotated[str | None, typer.Option(help="error or skip")]
RecipeOption = Annotated[Path | None, typer.Option(help="YAML file with any of the keys")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="any key of the recipe: section.key=value")]
Fresh = Annotated[bool, typer.Option("--fresh", help="remove what an earlier run of this command left")]
Debug = Annotated[bool, typer.Option("--debug", hidden=True, help="show tracebacks")]
NumProcesses = Annotated[int, typer.Option(min=1, help="processes on this machine")]
Seed = Annotated[int | None, typer.Option(min=0, help="seed")]


def _print_path(path: object) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(path)


def _split_names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _collect(recipe: Path | None, flags: dict[str, Any], settings: Sequence[str] | None) -> dict[str, Any]:
    """Return the recipe's values with the given flags and --set on top."""
    from synthaug.core import InputError
    from synthaug.recipe import apply_settings, read_recipe

    values = apply_settings(read_recipe(recipe) if recipe else {}, [])
    for section in ("dataset", "generator", "fit", "generate"):
        if not isinstance(values.get(section) or {}, dict):
            raise InputError(
                f"recipe: {section} is {values[section]!r}; write its keys below it, such as path or family"
            )
    for path, value in flags.items():
        if value is not None:
            section, _, key = path.partition(".")
            values[section] = {**(values.get(section) or {}), key: value}
    return apply_settings(values, settings or [])


@app.command()
def quickstart(
    output: Output = Path("runs/quickstart"),
    generator: Annotated[str, typer.Option(help="cvae, cgan or glow")] = "cvae",
    fresh: Fresh = False,
) -> None:
    """Go through the whole journey on embedded digits, made long-tailed; under five minutes on two cores."""
    from synthaug.journey import run_quickstart

    _print_path(run_quickstart(output, generator=generator, fresh=fresh))


@app.command()
def inspect(
    dataset: DatasetArgument,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    group_by: GroupBy = None,
    image_size: ImageSize = None,
    limit_per_class: LimitPerClass = None,
) -> None:
    """Show what is in a dataset: columns, classes, sizes, bad rows, duplicates, the plan, and what a fit costs."""
    from synthaug.data import inspect_dataset
    from synthaug.training import describe_costs

    report = inspect_dataset(
        dataset,
        split=split or "train",
        image_column=image_column,
        label_column=label_column,
        group_by=_split_names(group_by),
        image_size=image_size,
        limit_per_class=limit_per_class,
    )
    print(report.table(), flush=True)
    size, _, channels = report.codec.shape
    print("\n" + describe_costs(list(report.class_counts.values()), size, channels))


@app.command()
def fit(
    dataset: Annotated[str | None, typer.Argument(metavar="DATASET", help="digits, folder, Parquet or Hub id")] = None,
    generator: Annotated[str | None, typer.Option(help="cvae, cgan or glow")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="run folder to make")] = None,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    group_by: GroupBy = None,
    image_size: ImageSize = None,
    limit_per_class: LimitPerClass = None,
    on_bad_image: OnBadImage = None,
    budget: Annotated[str | None, typer.Option(help="duration, such as 10m (the default)")] = None,
    images: Annotated[str | None, typer.Option(help="number of images to see, such as 2M, instead of a budget")] = None,
    seed: Seed = None,
    track: Annotated[str | None, typer.Option(help="tensorboard, trackio or wandb: logs to watch, in RUN/logs")] = None,
    num_processes: NumProcesses = 1,
    recipe: RecipeOption = None,
    settings: Settings = None,
    fresh: Fresh = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the resolved recipe and the plan only")] = False,
) -> None:
    """Fit a class-conditional generator and leave a run folder; the same command again resumes."""
    from synthaug.core import InputError, is_launched, launch
    from synthaug.recipe import dump_recipe, parse_recipe

    flags = {
        "dataset.path": dataset, "dataset.split": split, "dataset.image_column": image_column,
        "dataset.label_column": label_column, "dataset.group_by": group_by, "dataset.limit_per_class": limit_per_class,
        "dataset.on_bad_image": on_bad_image, "generator.family": generator, "generator.image_size": image_size,
        "fit.budget": budget, "fit.images": images, "fit.seed": seed, "fit.track": track,
    }  # fmt: skip
    values = _collect(recipe, flags, settings)
    if images is not None and budget is None:
        values["fit"].pop("budget", None)
    if budget is not None and images is None:
        values["fit"].pop("images", None)
    if not (values.get("dataset") or {}).get("path"):
        raise InputError("no DATASET given; name one, such as digits, a folder or a Parquet file")
    if not (values.get("generator") or {}).get("family"):
        raise InputError("no generator given; add --generator cvae, cgan or glow")
    resolved = parse_recipe(values, origin="fit")
    folder = output or (Path(resolved.output) if resolved.output else None)
    if folder is None and not dry_run:
        raise InputError("no --output given; name the run folder to make")
    from synthaug.generators import find_family
    from synthaug.training import check_tracker

    find_family(resolved.generator.family)
    check_tracker(resolved.fit.track)
    if num_processes > 1 and not is_launched() and not dry_run:
        launch(sys.argv[1:], num_processes)  # what stopped it is told by its processes

    from synthaug.data import open_dataset
    from synthaug.training import fit as fit_generator, plan_fit

    real = open_dataset(resolved.dataset.path, resolved.dataset.split)
    if dry_run:
        planned = plan_fit(real, resolved.generator.family, resolved)
        print(dump_recipe(resolved), end="")
        print(planned.describe())
        return
    assert folder is not None
    fit_generator(real, resolved.generator.family, output=folder, recipe=resolved, fresh=fresh)
    _print_path(folder)


@app.command()
def generate(
    run: RunArgument,
    output: Output,
    balance: Annotated[str | None, typer.Option(help="majority, median, N, auto, ..., or a JSON file")] = None,
    per_class: Annotated[int | None, typer.Option(help="exactly N new images in each class")] = None,
    mix_with: Annotated[str | None, typer.Option(metavar="DATASET", help="real rows to put first")] = None,
    split: Annotated[str | None, typer.Option(help="split of --mix-with, and of what is made (default: train)")] = None,
    group_by: GroupBy = None,
    limit_per_class: Annotated[int | None, typer.Option(help="of --mix-with, N rows a class as in fit")] = None,
    on_bad_image: OnBadImage = None,
    max_synthetic_fraction: Annotated[float | None, typer.Option(help="cap per class, in [0, 1)")] = None,
    seed: Seed = None,
    temperature: Annotated[float | None, typer.Option(help="scale of the noise")] = None,
    filter: Annotated[str | None, typer.Option(help="none or default")] = None,
    judge: Annotated[str | None, typer.Option(metavar="RUN", help="a Glow run: its likelihood filters too")] = None,
    max_draws: Annotated[int | None, typer.Option(help="most draws per class (default 20 x missing + 1,000)")] = None,
    num_processes: NumProcesses = 1,
    device: Annotated[str, typer.Option(help="cpu, or an accelerator such as cuda (other bytes, one process)")] = "cpu",
    recipe: RecipeOption = None,
    push_to: Annotated[str | None, typer.Option(metavar="USER/NAME", help="push the dataset folder")] = None,
    public: Annotated[bool, typer.Option("--public", help="with --push-to: not private")] = False,
    force: Annotated[bool, typer.Option("--force", help="with --push-to: write over a foreign repository")] = False,
    fresh: Fresh = False,
) -> None:
    """Generate exactly the missing images of each class; with --mix-with, behind the real rows."""
    from synthaug.journey import generate_dataset, push as push_folder
    from synthaug.publishing import check_push

    if push_to:
        check_push(push_to)
    flags = {
        "generate.balance": balance, "generate.per_class": per_class, "generate.seed": seed,
        "generate.max_synthetic_fraction": max_synthetic_fraction, "generate.temperature": temperature,
        "generate.filter": filter, "generate.judge": judge, "generate.max_draws": max_draws,
    }  # fmt: skip
    values = _collect(recipe, flags, None).get("generate") or {}
    if per_class is not None and balance is None:
        values.pop("balance", None)
    if balance is not None and per_class is None:
        values.pop("per_class", None)
    generate_dataset(
        run,
        output,
        values,
        mix_with=mix_with,
        split=split,
        limit_per_class=limit_per_class,
        on_bad_image=on_bad_image or "error",
        group_by=_split_names(group_by),
        num_processes=num_processes,
        device=device,
        fresh=fresh,
    )
    if push_to:
        print(push_folder(output, push_to, private=not public, force=force), file=sys.stderr)
    _print_path(output)


@app.command()
def mix(
    real: Annotated[str, typer.Argument(metavar="REAL", help="dataset with the real rows")],
    synthetic: Annotated[str, typer.Argument(metavar="SYNTHETIC", help="dataset made by generate")],
    output: Output,
    split: Split = None,
    label_column: LabelColumn = None,
    fresh: Fresh = False,
) -> None:
    """Put real rows, in their order, before synthetic ones; never shuffles."""
    from synthaug.journey import mix_datasets

    _print_path(mix_datasets(real, synthetic, output, split=split or "train", label_column=label_column, fresh=fresh))


@app.command()
def strip(dataset: DatasetArgument, output: Output, split: Split = None, fresh: Fresh = False) -> None:
    """Give back the real rows and the original columns."""
    from synthaug.journey import strip_dataset

    _print_path(strip_dataset(dataset, output, split=split or "train", fresh=fresh))


@app.command()
def benchmark(
    real: Annotated[str, typer.Option(metavar="DATASET", help="the real training rows")],
    synthetic: Annotated[
        list[str],
        typer.Option(metavar="DATASET_OR_RUN", help="synthetic rows, or a run to draw from; several as NAME=..."),
    ],
    test: Annotated[str, typer.Option(metavar="DATASET", help="rows that nothing was fitted on")],
    output: Output,
    split: Split = None,
    test_split: Annotated[str | None, typer.Option(help="split of --test (default: test, or its only split)")] = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    group_by: GroupBy = None,
    limit_per_class: LimitPerClass = None,
    on_bad_image: OnBadImage = None,
    oracle: Annotated[str | None, typer.Option(metavar="DATASET", help="further real rows, for comparison")] = None,
    draws: Annotated[str, typer.Option(help="from a run: plan, or fresh (no row twice in balanced arms)")] = "plan",
    arms: Annotated[str | None, typer.Option(help="comma-separated names; default by the class counts")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="paired seeds")] = 5,
    steps: Annotated[int | None, typer.Option(min=1, help="optimiser steps of every arm")] = None,
    classifier: Annotated[str, typer.Option(help="small or resnet")] = "small",
    drop_leaks: Annotated[bool, typer.Option("--drop-leaks", help="remove test images from the arms")] = False,
    require_gain: Annotated[bool, typer.Option("--require-gain", help="exit 3 unless the verdict is helps")] = False,
    num_processes: Annotated[int | None, typer.Option(min=1, help="worker processes (default: all cores)")] = None,
    fresh: Fresh = False,
) -> None:
    """Measure with a downstream classifier whether the synthetic rows help, over paired seeds."""
    from synthaug.benchmarks import benchmark_datasets
    from synthaug.core import GainError

    report = benchmark_datasets(
        real, synthetic, test, output, split=split or "train", test_split=test_split,
        oracle=oracle, draws=draws, limit_per_class=limit_per_class, arms=arms.split(",") if arms else None,
        image_column=image_column, label_column=label_column, group_by=_split_names(group_by), seeds=seeds, steps=steps,
        classifier=classifier, drop_leaks=drop_leaks, num_processes=num_processes, fresh=fresh,
        on_bad_image=on_bad_image or "error",
    )  # fmt: skip
    print(report.table, file=sys.stderr)
    if report.joint:
        print(report.worst_groups, file=sys.stderr)
    print(f"verdict: {report.verdict}")
    _print_path(output)
    if require_gain and report.verdict != "helps":
        raise GainError(f"--require-gain is not met: the verdict is {report.verdict!r}; the report is in {output}")


@app.command()
def recommend(
    dataset: DatasetArgument,
    output: Output,
    split: Split = None,
    families: Annotated[str | None, typer.Option(help="comma-separated: cvae, cgan, glow (default: all)")] = None,
    budget: Annotated[str | None, typer.Option(help="duration of all fits together (default 10m)")] = None,
    images: Annotated[str | None, typer.Option(help="images that each fit sees, instead of a duration")] = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    group_by: GroupBy = None,
    limit_per_class: LimitPerClass = None,
    on_bad_image: OnBadImage = None,
    folds: Annotated[int | None, typer.Option(min=2, help="hold out each of so many parts in turn")] = None,
    seeds: Annotated[int, typer.Option(min=2, help="paired seeds of each stage")] = 5,
    steps: Annotated[int | None, typer.Option(min=1, help="optimiser steps of every training")] = None,
    arms: Annotated[str | None, typer.Option(help="comma-separated arms without synthetic rows that compete")] = None,
    classifier: Annotated[str, typer.Option(help="small or resnet")] = "small",
    seed: Annotated[int, typer.Option(min=0, help="seed of the fits and the draws")] = 0,
    num_processes: Annotated[int | None, typer.Option(min=1, help="worker processes (default: all cores)")] = None,
    fresh: Fresh = False,
) -> None:
    """Say which family, filter, temperature and share to use, or none, judged on validation rows alone."""
    from synthaug.journey import recommend_dataset

    names = {} if families is None else {"families": families.split(",")}
    if arms is not None:
        names["arms"] = arms.split(",")
    advice = recommend_dataset(
        dataset, output, split=split or "train", budget=budget, images=images, image_column=image_column,
        label_column=label_column, group_by=_split_names(group_by), limit_per_class=limit_per_class,
        on_bad_image=on_bad_image or "error", folds=folds, seeds=seeds, steps=steps, classifier=classifier, seed=seed,
        num_processes=num_processes, fresh=fresh, **names,
    )  # fmt: skip
    print(advice.table, file=sys.stderr)
    print(advice.sentence)
    _print_path(output)


@app.command()
def explore(
    run: RunArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="folder to make (RUN/exploration)")] = None,
    real: Annotated[str | None, typer.Option(metavar="DATASET", help="the rows the run was fitted on")] = None,
    split: Annotated[str | None, typer.Option(help="split of --real (default: that of the fit)")] = None,
    per_class: Annotated[int, typer.Option(help="samples of each class")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="seed")] = 0,
    temperature: Annotated[float | None, typer.Option(help="scale of the noise")] = None,
    fresh: Fresh = False,
) -> None:
    """Picture the latent space: samples, ways between classes and images, what single directions do, neighbours."""
    from synthaug.analysis import explore as explore_run

    found = explore_run(
        run, output=output, real=real, split=split, per_class=per_class, seed=seed, temperature=temperature, fresh=fresh
    )
    for direction in found.directions:
        print(direction["words"], file=sys.stderr)
    _print_path(found.folder)


@app.command()
def score(
    run: RunArgument,
    dataset: DatasetArgument,
    output: Output,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    outlier_column: Annotated[str | None, typer.Option(help="marks foreign images (default: outlier)")] = None,
    wrong_label_column: Annotated[str | None, typer.Option(help="marks wrong labels (default: wrong_label)")] = None,
    on_bad_image: OnBadImage = None,
    fresh: Fresh = False,
) -> None:
    """Add likelihoods and suspicions to every row: outliers, wrong labels, bits per dimension."""
    from synthaug.analysis import score as score_rows

    found = score_rows(
        run, dataset, output=output, split=split, image_column=image_column, label_column=label_column,
        outlier_column=outlier_column, wrong_label_column=wrong_label_column, on_bad_image=on_bad_image or "error",
        fresh=fresh,
    )  # fmt: skip
    print(found.describe())
    _print_path(output)


@app.command()
def evaluate(
    run: RunArgument,
    test: Annotated[str, typer.Option(metavar="DATASET", help="rows that nothing was fitted on")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="folder (default: RUN/evaluation)")] = None,
    test_split: Annotated[str | None, typer.Option(help="split of --test (default: test, or its only split)")] = None,
    real: Annotated[
        str | None, typer.Option(metavar="DATASET", help="where the rows it was fitted on are (default: --test)")
    ] = None,
    split: Annotated[str | None, typer.Option(help="split of --real (default: that of the fit)")] = None,
    on_bad_image: OnBadImage = None,
    drop_leaks: Annotated[bool, typer.Option("--drop-leaks", help="leave out test rows that the run has seen")] = False,
    per_class: Annotated[int, typer.Option(min=1, help="synthetic rows of each class")] = 500,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of the accuracy score, on either side")] = 3,
    seed: Seed = None,
    temperature: Annotated[float | None, typer.Option(help="scale of the noise")] = None,
    filter: Annotated[str, typer.Option(help="none or default")] = "none",
    augmentation: Annotated[str, typer.Option(help="none, classical, or the name of a policy")] = "none",
    num_processes: NumProcesses = 1,
    fresh: Fresh = False,
) -> None:
    """Measure the rows of a run: accuracy score, wrong classes, fidelity and variety, copies of training rows."""
    from synthaug.journey import evaluate_run

    evaluation, folder = evaluate_run(
        run, test, output, test_split=test_split, real=real, split=split, on_bad_image=on_bad_image or "error",
        drop_leaks=drop_leaks, per_class=per_class, seeds=seeds, seed=seed or 0, temperature=temperature, filter=filter,
        augmentation=augmentation, num_processes=num_processes, fresh=fresh,
    )  # fmt: skip
    print(evaluation.table, file=sys.stderr)
    for remark in evaluation.remarks:
        print(f"- {remark}", file=sys.stderr)
    _print_path(folder)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a run or dataset folder")],
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="repository on the Hub")],
    public: Annotated[bool, typer.Option("--public", help="not private")] = False,
    force: Annotated[bool, typer.Option("--force", help="write over a repository that synthaug did not make")] = False,
    include_latents: Annotated[bool, typer.Option("--include-latents", help="push latents of training images")] = False,
) -> None:
    """Push a run or a dataset folder with its card; private unless --public."""
    from synthaug.journey import push as push_folder

    print(push_folder(folder, repo, private=not public, force=force, include_latents=include_latents))


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file")],
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the resolved recipe and the plan only")] = False,
    fresh: Fresh = False,
) -> None:
    """Go through a whole journey from one recipe."""
    from synthaug.journey import describe_recipe, run_recipe
    from synthaug.recipe import apply_settings, parse_recipe, read_recipe

    resolved = parse_recipe(apply_settings(read_recipe(recipe), settings or []), origin=str(recipe))
    if dry_run:
        print(describe_recipe(resolved))
        return
    _print_path(run_recipe(resolved, fresh=fresh))


@app.command()
def env() -> None:
    """Print versions and devices, for bug reports."""
    from synthaug.journey import describe_environment

    print(describe_environment())


_FITS_INSIDE = ("run", "recommend", "quickstart")
_CLICK_EXCEPTION: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code: 0 done, 1 failed, 2 bad input, 3 no gain, 130/143 stopped."""
    for stream in (sys.stdout, sys.stderr):  # what the terminal cannot show is replaced
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    sys.exit(_run([word for word in given if word != "--debug"], debug))


def _run(arguments: list[str], debug: bool) -> int:
    from synthaug.core import FailedError, GainError, InputError, RankError, StoppedError, num_processes, process_number

    command = next((word for word in arguments if not word.startswith("-")), "")
    if command in _FITS_INSIDE and num_processes() > 1:
        return _fail(f"{command} runs on one process; start only fit or generate with a launcher", 2)
    if command != "fit" and process_number() > 0:
        return 0  # the first process does the work, with its own workers
    try:
        code = app(args=arguments or ["--help"], prog_name="synthaug", standalone_mode=False)
        if code == 130:  # typer's answer to a KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except _CLICK_EXCEPTION as error:
        known = command if command in {one.callback.__name__ for one in app.registered_commands if one.callback} else ""
        words = " ".join(filter(None, ("synthaug", known, "--help")))
        return _fail(f"{error.format_message().rstrip('.')}; see {words}", error.exit_code)
    except (FailedError, GainError, InputError, StoppedError) as error:
        if debug:
            raise
        return _fail(_use_flags(str(error), command), error.exit_code, always=isinstance(error, RankError))
    except KeyboardInterrupt:
        return _fail("stopped; run the same command again", 130)
    except OSError as error:
        if debug:
            raise
        return _fail(f"{error.strerror or error}: {error.filename or ''}; free space or mend the path", 1)
    except Exception as error:
        if debug:
            raise
        return _fail(f"{type(error).__name__}: {error}; add --debug for the traceback", 1)


def _use_flags(message: str, command: str) -> str:
    """Return an error in the words of the command line."""
    from synthaug.cli.wording import use_flags
    from synthaug.recipe import Recipe

    found: Any = typer.main.get_command(app)
    parameters = getattr(found.commands.get(command), "params", [])
    flags = {one.name: one.opts[0] for one in parameters if one.opts[0].startswith("--")}
    keys = {"learning_rate": "generator.learning_rate"} if "settings" in flags else {}
    for section in ("dataset", "fit", "generate") if keys else ():
        model: Any = Recipe.model_fields[section].annotation
        keys |= {name: f"{section}.{name}" for name in model.model_fields}
    return use_flags(message, flags, keys)


def _fail(message: str, code: int, *, always: bool = False) -> int:
    if always or os.environ.get("RANK", "0") == "0":
        print("error: " + " ".join(str(message).split()), file=sys.stderr)
    return code
