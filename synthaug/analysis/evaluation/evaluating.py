"""evaluate(): how good the rows of a fitted generator are, before anybody trains on them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm import tqdm

from synthaug.analysis.evaluation.cache import NetworkCache
from synthaug.analysis.evaluation.cas import STEPS, predict_classes
from synthaug.analysis.evaluation.entries import describe_parts
from synthaug.analysis.evaluation.measurements import Accuracy, Copying, compare_features, find_copies, score_accuracy
from synthaug.analysis.evaluation.networks import count_referee_steps, fit_referee
from synthaug.analysis.evaluation.remarks import write_remarks
from synthaug.analysis.evaluation.report import Evaluation
from synthaug.analysis.evaluation.samples import take_draws
from synthaug.analysis.evaluation.splits import ComparedRows, load_real_rows
from synthaug.classifiers import Filter, ResidualClassifier, resolve_device
from synthaug.core import POLICIES, InputError, OutputFolder, __version__, stopped_at_once, suggest
from synthaug.data import digest_rows
from synthaug.generation import resolve_filter
from synthaug.generators import ConditionalGenerator, checkpoint_hash, read_source
from synthaug.publishing import draw_closest, draw_pictures

__all__ = ["evaluate"]

_MOST_SEEDS = 1_000


def evaluate(
    generator: ConditionalGenerator,
    test: Dataset,
    *,
    real: Dataset | None = None,
    per_class: int = 500,
    seeds: int = 3,
    seed: int = 0,
    temperature: float | None = None,
    filter: str | Filter = "none",
    augmentation: str = "none",
    on_bad_image: str = "error",
    drop_leaks: bool = False,
    device: str = "auto",
    num_processes: int = 1,
    output: str | Path | None = None,
    fresh: bool = False,
    command: str | None = None,
) -> Evaluation:
    """Measure the rows of a generator: accuracy scores, wrong classes, features, copies.

    The rows are those that `generate` writes with the same seed, temperature and filter. Nothing is downloaded.

    Args:
        generator: A fitted generator; its run folder tells which rows it has seen.
        test: Real rows that nothing was fitted or chosen on.
        real: Rows among which those it was fitted on are found; needed, as what its run names is not opened.
        per_class: Synthetic rows of each class.
        seeds: Trainings of the fixed classifier on either side; with one there is no interval.
        seed: Seed of the draws.
        temperature: Scale of the noise; the family's own default when None.
        filter: "none", "default" or a callable, as in `generate`.
        augmentation: "none"; "classical", with the policy chosen on validation rows; or a policy's name.
        on_bad_image: For corrupt test rows, "error" or "skip".
        drop_leaks: Leave out test rows that the run has seen, instead of refusing; the page says how many.
        device: "auto" (a GPU where there is one), "cpu" or "cuda"; the draws are made where the generator lies.
        num_processes: Worker processes that draw.
        output: Folder to write; nothing is written when None.
        fresh: Forget what is in `output`.
        command: How to run this again, for the page.

    Returns:
        The evaluation.

    Raises:
        InputError: An argument out of range, rows that cannot be found or do not fit, a test row that the run has
            seen, or an output that was made with other arguments.
        FailedError: If the filter keeps too few draws.
        StoppedError: After a signal; what was trained is kept in `output` until the same call goes on.
    """
    _check(generator, per_class, seeds, seed, temperature, augmentation, num_processes)
    device = resolve_device(device)
    temperature = generator.default_temperature if temperature is None else float(temperature)
    check, name = resolve_filter(generator, filter)
    run = generator.run_folder
    source = {} if run is None else read_source(run)
    arguments = {
        "version": __version__, "generator": f"{generator.family}@{generator.version}",
        "checkpoint": None if run is None else checkpoint_hash(run), "test": digest_rows(test),
        "real": None if real is None else digest_rows(real), "per_class": per_class, "seeds": seeds, "seed": seed,
        "temperature": temperature, "filter": name, "augmentation": augmentation, "device": device,
        "on_bad_image": on_bad_image, **({"drop_leaks": True} if drop_leaks else {}),
    }  # fmt: skip
    cache = NetworkCache(None if output is None or run is None else Path(output), arguments)
    nothing = "nothing is kept; with a run folder and an output it could go on"
    kept = "run the same again: what was trained is kept" if cache.keeps else nothing
    with contextlib.ExitStack() as stack:
        if output is not None:
            made = stack.enter_context(OutputFolder(output, "evaluate", arguments, fresh=fresh))
            if made.has_finished("evaluation.json"):
                return Evaluation.load(output)
        stack.enter_context(stopped_at_once(kept))
        started = time.perf_counter()
        rows = load_real_rows(generator, source, test, real=real, on_bad_image=on_bad_image, drop_leaks=drop_leaks)
        with _part("drawing", per_class * len(generator.class_names)) as advance:
            draws = take_draws(
                generator, per_class, seed=seed, temperature=temperature, check=check,
                judge=_default_filter(generator), num_processes=num_processes, on_rows=advance,
            )  # fmt: skip
        compared_rows, command = ComparedRows(rows, draws), command or _describe_call(arguments)
        evaluation = _measure(compared_rows, arguments, command, cache, started)
        if output is not None:
            evaluation.save(output)
            made.finish()
        cache.clear()
    return evaluation


def _measure(
    compared_rows: ComparedRows, arguments: Mapping[str, Any], command: str, cache: NetworkCache, started: float
) -> Evaluation:
    """Measure every part and put them together."""
    seeds, device = arguments["seeds"], arguments["device"]
    train, test, made = compared_rows.real.train, compared_rows.real.test, compared_rows.synthetic
    choosing = len(POLICIES) if arguments["augmentation"] == "classical" and len(compared_rows.real.validation) else 0
    with _part("accuracy score", STEPS * (2 * seeds + choosing)) as advance:
        accuracy = score_accuracy(
            compared_rows, seeds=seeds, steps=STEPS, augmentation=arguments["augmentation"], device=device,
            cache=cache, on_step=advance,
        )  # fmt: skip
    steps = count_referee_steps(len(train), train.codec.channels)
    with _part("referee", steps) as advance:
        classes, (side, channels) = len(train.class_names), train.pixels.shape[2:]
        referee = cache.fetch(
            "referee",
            lambda: ResidualClassifier(classes, side, channels).to(device),
            lambda: fit_referee(
                train.pixels, train.labels, classes, steps=steps, device=device, on_step=lambda _: advance(1)
            ),
        )
        found = {name: predict_classes(referee, rows.pixels) for name, rows in (("synthetic", made), ("test", test))}
    with _part("features", 6) as advance:
        comparisons = compare_features(compared_rows, referee, on_step=advance)
    with _part("nearest rows", len(train)) as advance:
        copying = find_copies(compared_rows, on_part=advance)
    facts = describe_parts(compared_rows, accuracy, found, comparisons, copying)
    pictures, captions = _draw(compared_rows, copying)
    facts["notes"] = list(compared_rows.real.notes)
    facts["settings"] = {
        **_describe_settings(compared_rows, arguments, accuracy, facts), "referee_steps": steps, "captions": captions,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    facts["remarks"] = write_remarks(facts)
    return Evaluation(**facts, command=command, arguments=dict(arguments), pictures=pictures)


def _describe_settings(
    compared_rows: ComparedRows, arguments: Mapping[str, Any], accuracy: Accuracy, facts: Mapping[str, Any]
) -> dict[str, Any]:
    real = compared_rows.real
    return {
        **{key: value for key, value in arguments.items() if key not in ("test", "real")},
        "augmentation": accuracy.policy,
        "steps": STEPS,
        "threads": torch.get_num_threads(),
        "leaks": real.leaks,
        "held_out": real.held_out_kind,
        "expected_coverage": (facts["coverage"].get("classifier") or {}).get("expected"),
        "rows": {
            "train": len(real.train), "validation": len(real.validation), "test": len(real.test),
            "synthetic": len(compared_rows.synthetic), "cas_real": int(accuracy.real_rows.sum()),
        },
    }  # fmt: skip


def _draw(compared_rows: ComparedRows, copying: Copying) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the pictures and their captions."""
    train, made, names = compared_rows.real.train, compared_rows.synthetic, compared_rows.real.class_names
    pictures, captions = draw_pictures(train, made, names)
    pictures["closest"], captions["closest"] = draw_closest(
        train, made, names, nearest=copying.nearest, distances=copying.distances
    )
    return pictures, captions


def _default_filter(generator: ConditionalGenerator) -> Filter | None:
    """Return the run's default filter, to ask how much it would keep; None where there is no judge."""
    if generator.run_folder is None or not (Path(generator.run_folder) / "judge.safetensors").is_file():
        return None
    return resolve_filter(generator, "default")[0]


@contextmanager
def _part(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr; yield the function to call with the work just done."""
    with tqdm(total=total, desc=f"{name:>14}", mininterval=0.5, unit="") as bar:
        yield bar.update


def _check(
    generator: ConditionalGenerator,
    per_class: int,
    seeds: int,
    seed: int,
    temperature: float | None,
    augmentation: str,
    num_processes: int,
) -> None:
    if generator.num_classes < 2:
        raise InputError("the generator knows a single class; an evaluation needs at least two")
    for name, value, low, high in (
        ("per_class", per_class, 1, 1_000_000), ("seeds", seeds, 1, _MOST_SEEDS),
        ("seed", seed, 0, 2**63 - 1), ("num_processes", num_processes, 1, 1_024),
    ):  # fmt: skip
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InputError(f"{name} is {value!r}; give an integer from {low} to {high}")
    if temperature is not None and not 0 <= temperature < float("inf"):
        raise InputError(f"temperature is {temperature}; give a number of at least 0, such as 0.9")
    allowed = ["none", "classical", *POLICIES]
    if augmentation not in allowed:
        hint = suggest(str(augmentation), allowed)
        raise InputError(f"augmentation is {augmentation!r}; allowed are {', '.join(allowed)}: choose one{hint}")


def _describe_call(arguments: Mapping[str, Any]) -> str:
    """Return the call in Python, with generator and test rows left as the caller's."""
    keys = ("per_class", "seeds", "seed", "temperature", "filter", "augmentation")
    return f"synthaug.evaluate(generator, test, {', '.join(f'{key}={arguments[key]!r}' for key in keys)})"
