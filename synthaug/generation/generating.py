"""From a plan to a dataset: sample block by block, filter, top up, write shards with provenance."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features
from tqdm import tqdm

from synthaug.balance import BalancePlan
from synthaug.classifiers import Filter
from synthaug.core import FailedError, InputError, OutputFolder, StopSignals, local_processes, process_number, suggest
from synthaug.data import quiet_datasets
from synthaug.generation.blocks import BlockPool
from synthaug.generation.dataset_folder import ShardFolder, is_finished, read_earlier
from synthaug.generation.export import DATASET_FILES, finish_folder
from synthaug.generation.jobs import GenerationJob
from synthaug.generation.shards import ROWS_PER_SHARD
from synthaug.generators import ConditionalGenerator

__all__ = ["WrittenRows", "generate", "write_rows"]

_TEMPORARY: list[tempfile.TemporaryDirectory[str]] = []
"""Folders of datasets that were given no output, and Arrow copies; they live as long as the process."""


_ROWS_AT_ONCE = 10_000
"""Rows in a batch of that copy; opening it touches a page or more of each, which adds up where batches are small."""


@dataclass(frozen=True)
class WrittenRows:
    """A finished dataset folder and the split that was made.

    Args:
        folder: The folder with its manifest.
        split: Name of the split.
        features: Its features.
    """

    folder: ShardFolder
    split: str
    features: Features

    def open(self) -> Dataset:
        """Return the rows of the split, converted once to Arrow in a temporary folder."""
        if not sum(entry["rows"] for entry in self.folder.manifest["shards"] if entry["split"] == self.split):
            return Dataset(self.features.arrow_schema.empty_table())  # from_parquet refuses an empty split
        with quiet_datasets():
            return Dataset.from_parquet(
                [str(path) for path in self.folder.paths(self.split)],
                features=self.features,
                split=self.split,
                cache_dir=str(_temporary_folder()),
                batch_size=_ROWS_AT_ONCE,
                writer_batch_size=_ROWS_AT_ONCE,
            )


def generate(
    generator: ConditionalGenerator,
    plan: BalancePlan,
    *,
    seed: int = 0,
    temperature: float | None = None,
    filter: str | Filter = "default",
    judge: ConditionalGenerator | str | Path | None = None,
    max_draws: int | None = None,
    output: str | Path | None = None,
    mix_with: Dataset | None = None,
    other_splits: Mapping[str, Dataset] | None = None,
    split: str = "train",
    on_bad_image: str = "error",
    num_processes: int = 1,
    recipe: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
    fresh: bool = False,
) -> Dataset:
    """Generate exactly the images that a plan says are missing.

    The bytes written do not depend on `num_processes` or on interruptions; the same call again resumes, or
    finds the folder finished. Under a launcher (torchrun) the first process generates, with as many workers as
    there are processes on its machine, and the others wait for it.

    Args:
        generator: A fitted generator.
        plan: What each class misses; see `plan_balance`.
        seed: Seed of the draws, 0 <= seed < 2**63.
        temperature: Scale of the noise, at least 0; the family's own default when None.
        filter: "default" (the run's judge), "none", or a callable (images, labels) -> keep mask, which is
            recorded by its name.
        judge: A fitted generator with a likelihood, such as a Glow, or its run folder. Besides what `filter`
            asks, an image must then be given its label by Bayes' rule, and be as likely as real ones are.
        max_draws: Draws allowed in each class; 20 times what it misses and 1,000 when None.
        output: Dataset folder to make; a temporary one when None.
        mix_with: Real rows to put first, with their original bytes; rows marked synthetic are left out.
        other_splits: Split name -> dataset, passed through.
        split: Name of the split that is made.
        on_bad_image: "error" stops at a corrupt real image, "skip" leaves the row out.
        num_processes: Worker processes that compute blocks (on the CPU).
        recipe: Resolved recipe to keep in synthaug.json and the card.
        facts: Further facts for the card, such as title, source, license, verdict; see `DatasetFacts`.
        rows_per_shard: Rows in a Parquet file.
        fresh: Remove what an earlier call left in `output`.

    Returns:
        The rows of the split: features of the real data, `synthetic` and `provenance`.

    Raises:
        InputError: For bad input, or when `output` was made with other arguments.
        FailedError: If a class falls short after `max_draws`, or the generator gives no finite values.
        StoppedError: After a signal; the rows so far are kept.
    """
    return write_rows(
        generator, plan, seed=seed, temperature=temperature, filter=filter, judge=judge, max_draws=max_draws,
        output=output, mix_with=mix_with, other_splits=other_splits, split=split, on_bad_image=on_bad_image,
        num_processes=num_processes, recipe=recipe, facts=facts, rows_per_shard=rows_per_shard, fresh=fresh,
    ).open()  # fmt: skip


def write_rows(
    generator: ConditionalGenerator,
    plan: BalancePlan,
    *,
    seed: int,
    temperature: float | None,
    filter: str | Filter,
    judge: ConditionalGenerator | str | Path | None,
    max_draws: int | None,
    output: str | Path | None,
    mix_with: Dataset | None,
    other_splits: Mapping[str, Dataset] | None,
    split: str,
    on_bad_image: str,
    num_processes: int,
    fresh: bool,
    recipe: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
) -> WrittenRows:
    """Do what `generate` does without opening the rows, so that memory does not grow with their number.

    Arguments and errors are those of `generate`.
    """
    _check_arguments(generator, plan, seed, temperature, max_draws, num_processes, rows_per_shard, on_bad_image)
    job = GenerationJob.prepare(
        generator, plan, seed, temperature, filter, judge, mix_with, other_splits, split, on_bad_image
    )
    if output is not None and not plan.num_missing and not job.real:
        raise InputError(
            "the plan misses no image, so the dataset would be empty; ask for more (a total, or per_class) "
            "or give the real rows to mix with"
        )
    target = Path(output) if output is not None else _temporary_folder() / "dataset"
    arguments = {**job.arguments(), "rows_per_shard": rows_per_shard}
    if output is not None and process_number() > 0:
        return WrittenRows(_wait_for(target, arguments, fresh), split, job.features)
    num_processes = max(num_processes, local_processes())
    made = OutputFolder(target, "generate", arguments, fresh=fresh, earlier=lambda: read_earlier(target))
    with made, StopSignals() as stop:
        folder = ShardFolder(target, arguments)
        if not (made.has_finished(*DATASET_FILES) and folder.finished):
            print(job.describe(), file=sys.stderr)
            num_processes = num_processes if job.device == "cpu" else 1  # workers would share one accelerator
            bar = tqdm(total=plan.num_missing, desc="generate", unit="img", mininterval=0.5, file=sys.stderr)
            with BlockPool(job.sampler, num_processes, stop) as pool, bar:
                synthetic = job.synthetic_rows(pool, max_draws, bar)
                try:
                    folder.write(
                        job.streams(synthetic),
                        job.features.arrow_schema,
                        rows_per_shard=rows_per_shard,
                        stopped=lambda: stop.received,
                    )
                    record = job.record(synthetic, recipe)
                    finish_folder(folder, job.facts(record, facts), record, job.shown)
                    made.finish()
                except (OSError, pa.ArrowInvalid) as error:
                    reason = str(error).splitlines()[0]
                    raise FailedError(f"cannot write {str(target)!r}: {reason}; free space and run it again") from error
    return WrittenRows(folder, split, job.features)


def _check_arguments(
    generator: ConditionalGenerator,
    plan: BalancePlan,
    seed: int,
    temperature: float | None,
    max_draws: int | None,
    num_processes: int,
    rows_per_shard: int,
    on_bad_image: str,
) -> None:
    if not isinstance(generator, ConditionalGenerator):
        kind = type(generator).__name__
        raise InputError(f"generator is a {kind}; give what fit or load_generator returned: load_generator(RUN)")
    if not isinstance(plan, BalancePlan):
        raise InputError(f"plan is a {type(plan).__name__}; give what plan_balance returned: plan_balance(real)")
    for name, number in plan.missing.items():
        if number and name not in generator.class_names:
            hint = suggest(name, generator.class_names)
            allowed = ", ".join(map(repr, generator.class_names[:20]))
            raise InputError(f"the plan asks for class {name!r}{hint}; the generator knows {allowed}")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}; give an integer from 0 to 2**63 - 1")
    if temperature is not None and not 0 <= temperature < float("inf"):
        raise InputError(f"temperature is {temperature}; give a number of at least 0, such as 0.9")
    for key, value in (
        ("max_draws", max_draws),
        ("num_processes", num_processes),
        ("rows_per_shard", rows_per_shard),
    ):
        if value is not None and value < 1:
            raise InputError(f"{key} is {value}; give an integer of at least 1")
    if on_bad_image not in ("error", "skip"):
        raise InputError(f"on_bad_image is {on_bad_image!r}; give 'error' or 'skip'")


def _wait_for(target: Path, arguments: Mapping[str, Any], fresh: bool) -> ShardFolder:
    """Return the folder once the first of several processes has finished it; the launcher ends us if it fails."""
    if fresh:
        raise InputError("fresh cannot be used by several processes at once; remove the output folder beforehand")
    while True:
        if is_finished(target):
            folder = ShardFolder(target, arguments)
            if folder.finished:
                return folder
        time.sleep(0.2)


def _temporary_folder() -> Path:
    _TEMPORARY.append(tempfile.TemporaryDirectory(prefix="synthaug-"))
    return Path(_TEMPORARY[-1].name)
