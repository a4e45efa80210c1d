"""The benchmark as a command: datasets opened, rows drawn from runs, both handed to `benchmark`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from synthaug.balance import BalancePlan, benchmark_plan, per_class_plan
from synthaug.benchmarks.arms import check_arms
from synthaug.benchmarks.benchmarking import benchmark
from synthaug.benchmarks.report import Report
from synthaug.benchmarks.runner import count_positions
from synthaug.core import InputError, OutputFolder
from synthaug.data import Codec, LabeledImages, check_leaks, load_images, open_dataset, open_test, run_hashes
from synthaug.generation import generate
from synthaug.generators import Encoding, is_run, load_run, read_source, resolve_run
from synthaug.recipe import GenerateSection

__all__ = ["benchmark_datasets", "load_like_run", "resolve_judge"]


def load_like_run(real: Dataset, source: Mapping[str, Any], *, limit_per_class: int | None = None) -> LabeledImages:
    """Read a dataset with the columns and the codec of a run."""
    return load_images(
        real,
        image_column=source["image_column"],
        label_column=source["label_column"],
        group_by=source.get("group_by"),
        codec=Codec.from_dict(source["codec"]),
        limit_per_class=limit_per_class,
        on_bad_image="skip",
    )


def benchmark_datasets(
    real: str | Dataset,
    synthetic: str | Path | Sequence[str],
    test: str | Dataset,
    output: Path,
    *,
    split: str = "train",
    test_split: str | None = None,
    oracle: str | None = None,
    limit_per_class: int | None = None,
    drop_leaks: bool = False,
    num_processes: int | None = None,
    fresh: bool = False,
    on_bad_image: str = "error",
    drawing: GenerateSection | None = None,
    draws: str = "plan",
    **options: Any,
) -> Report:
    """Benchmark synthetic datasets, or runs from which enough is generated first, into `output`.

    From a run, each class gets the larger of what the majority plan misses and its real count, drawn with the
    seed, temperature, filter, judge and max_draws of `drawing`; with `draws` "fresh", so many that no training
    shows one twice.

    Args:
        real: DATASET with the real rows.
        synthetic: DATASET or RUN, or several, each as NAME=DATASET_OR_RUN.
        test: DATASET with rows that nothing was fitted on.
        output: Report folder; rows drawn from a run go to `synthetic` in it.
        split: Split of the real rows.
        test_split: Split of the test rows; `test` or the only one when None.
        oracle: DATASET with further real rows.
        limit_per_class: Real rows taken of each class.
        drop_leaks: See `benchmark`.
        num_processes: Worker processes.
        fresh: Start anew.
        on_bad_image: "error" or "skip".
        drawing: How to draw from a run.
        draws: "plan" or "fresh".
        **options: Further arguments of `benchmark`: arms, seeds, steps, classifier, the columns. What a run or the
            folder of a generated dataset says about columns is taken.
    """
    if draws not in ("plan", "fresh"):
        raise InputError(f"draws is {draws!r}; give 'plan' or 'fresh'")
    real_rows = open_dataset(real, split) if isinstance(real, str) else real
    test_rows = open_test(test, test_split) if isinstance(test, str) else test
    rows, sources = dict[str, Dataset](), list[dict[str, Any]]()
    named = _name_sources([synthetic] if isinstance(synthetic, str | Path) else synthetic)
    OutputFolder(output, "benchmark", {}, fresh=fresh).look()  # before anything is drawn into it
    for name, spec in named.items():
        run = resolve_run(spec) if _names_run(spec) else None
        if run is None:
            rows[name], source = _open_synthetic(spec)
            sources += [source] if source else []
            options["group_by"] = _agree(options.get("group_by"), source or {})
            options |= _columns_of(options, source or {}, real_rows)
            continue
        source = read_source(run)
        sources.append(source)
        like = load_like_run(real_rows, source, limit_per_class=limit_per_class)
        _check_before_drawing(like, test_rows, source, options.get("arms"), list(named), on_bad_image, drop_leaks)
        counts = like.class_counts
        generator = load_run(run)
        folder = output / "synthetic" if len(named) == 1 else output / "synthetic" / name
        plan = _fresh_plan(counts, options.get("steps")) if draws == "fresh" else benchmark_plan(counts)
        rows[name] = generate(
            generator, plan, output=folder, fresh=fresh, num_processes=num_processes or 1, **_drawing_options(drawing)
        )
        options |= _columns_of(options, source, real_rows)
        options["group_by"] = _agree(options.get("group_by"), source)
        options["image_size"] = source["codec"]["image_size"]
        if "generator" not in options and isinstance(generator, Encoding):
            options["generator"] = generator
    return benchmark(
        real_rows, rows if len(rows) > 1 else next(iter(rows.values())), test=test_rows,
        oracle=None if oracle is None else open_dataset(oracle, "train"), source=_join_hashes(sources, len(named)),
        limit_per_class=limit_per_class, drop_leaks=drop_leaks, num_processes=num_processes, output=output,
        fresh=fresh, on_bad_image=on_bad_image, **options,
    )  # fmt: skip


def _check_before_drawing(
    real: LabeledImages,
    test: Dataset,
    source: Mapping[str, Any],
    arms: Sequence[str] | None,
    names: Sequence[str],
    on_bad_image: str,
    drop_leaks: bool,
) -> None:
    """Look for what `benchmark` would refuse whatever is drawn: its arms, the test rows and their classes, leaks.

    Raises:
        InputError: There is such a thing.
    """
    if arms is not None:
        check_arms(arms, names if len(names) > 1 else ())
    known = [name if name in test.column_names else None for name in (real.columns.image, real.columns.label)]
    judging = load_images(
        test,
        image_column=known[0],
        label_column=known[1],
        codec=real.codec,
        class_names=None if source.get("group_by") else real.class_names,
        on_bad_image=on_bad_image,
    )
    check_leaks(judging.hashes, {"real": real.hashes}, run_hashes(source), test_rows=judging.rows, drop=drop_leaks)


def _columns_of(options: Mapping[str, Any], source: Mapping[str, Any], real: Dataset) -> dict[str, Any]:
    """Return the columns that a run was fitted with, where they were not named and the real rows have them.

    Raises:
        InputError: Other columns are named.
    """
    found = {}
    for key in ("image_column", "label_column"):
        given, fitted = options.get(key), source.get(key)
        if given and fitted and given != fitted:
            raise InputError(f"{key} is {given!r}, but the synthetic rows were made for {fitted!r}; leave it out")
        found[key] = given or (fitted if fitted in real.column_names else None)
    return found


def _agree(group_by: Sequence[str] | None, source: Mapping[str, Any]) -> list[str] | None:
    """Return the columns that a run was fitted by, or those asked for where it was fitted by the label alone."""
    fitted = source.get("group_by")
    if fitted and group_by is not None and set(group_by) != set(fitted):
        raise InputError(
            f"group_by is {','.join(group_by)}, but the run was fitted by {','.join(fitted)}; leave it out to take that"
        )
    return list(group_by) if group_by and not fitted else fitted


def _name_sources(specs: Sequence[str | Path]) -> dict[str, str]:
    """Return name -> DATASET_OR_RUN; a single one needs no name."""
    if len(specs) == 1:
        return {"synthetic": str(specs[0])}
    pairs = [str(spec).partition("=") for spec in specs]
    names = [name for name, _, _ in pairs]
    if not all(at for _, at, _ in pairs) or len(set(names)) < len(names):
        raise InputError(
            f"--synthetic is given {len(specs)} times ({', '.join(map(str, specs))}); give each as NAME=DATASET_OR_RUN "
            "with a name of its own, e.g. cvae=runs/cvae"
        )
    return {name: spec for name, _, spec in pairs}


def _fresh_plan(counts: Mapping[str, int], steps: int | None) -> BalancePlan:
    """Return a plan with as many rows of each class as the longest training shows of it when classes are balanced."""
    shown = count_positions(sum(counts.values()), len(counts), steps)
    each = -(-shown // max(1, sum(1 for rows in counts.values() if rows)))
    return per_class_plan(counts, each)


def _join_hashes(sources: Sequence[Mapping[str, Any]], number: int) -> dict[str, Any] | None:
    """Return the row hashes of all runs together; None unless all of them are known."""
    if len(sources) < number or any(not source.get("hashes") for source in sources):
        return None
    parts = {part for source in sources for part in source["hashes"]}
    return {
        "hashes": {
            part: sorted({value for source in sources for value in source["hashes"].get(part, [])})
            for part in sorted(parts)
        }
    }


def resolve_judge(section: GenerateSection) -> Path | None:
    """Return the run folder of the judge that a `generate` section names."""
    return None if section.judge is None else resolve_run(section.judge)


def _drawing_options(section: GenerateSection | None) -> dict[str, Any]:
    """Return what a `generate` section says of how to draw, not of how many."""
    if section is None:
        return {}
    return {
        **section.model_dump(include={"seed", "temperature", "filter", "max_draws"}),
        "judge": resolve_judge(section),
    }


def _names_run(synthetic: str | Path) -> bool:
    """Tell whether `--synthetic` is a run folder rather than a dataset; an unfinished run is one too."""
    return is_run(synthetic) or (Path(synthetic) / "state").is_dir()


def _open_synthetic(spec: str) -> tuple[Dataset, dict[str, Any] | None]:
    """Open synthetic rows and, when generate left it there, what the run knew about its rows."""
    record = Path(spec) / "synthaug.json"
    source = None
    if record.is_file():
        content = json.loads(record.read_text(encoding="utf-8"))
        known = ("hashes", "group_by", "image_column", "label_column")
        source = {key: content[key] for key in known if content.get(key)} or None
    return open_dataset(spec, "train"), source
