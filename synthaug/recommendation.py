"""recommend(): which family, filter, temperature and share to use, or none, judged on validation rows."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

import synthaug
from synthaug.balance import benchmark_plan
from synthaug.benchmarks.advice import CONFIDENCE, Advice, Evidence, weigh_evidence
from synthaug.benchmarks.arms import Arm, default_arms, parse_arm
from synthaug.benchmarks.campaign import Campaign, Setting, count_processes, make_template
from synthaug.benchmarks.contest import Contest, load_contest
from synthaug.benchmarks.ledger import CELLS, open_record
from synthaug.benchmarks.material import collect_material
from synthaug.benchmarks.results import choose_front
from synthaug.benchmarks.tuning import MIXTURES, TRIALS, TUNING_SEEDS
from synthaug.checkpoint import load_generator, read_source
from synthaug.classical import POLICIES
from synthaug.classifier import CLASSIFIERS, resolve_device
from synthaug.errors import FailedError, InputError, suggest
from synthaug.fitting import fit
from synthaug.generation import generate
from synthaug.generators import GENERATORS
from synthaug.recipe import parse_count, parse_duration
from synthaug.shards import locked

__all__ = ["recommend"]

_RECORD = "recommend.json"
_FILES = (_RECORD, "recommendation.json", "recommendation.md")
_TEMPERATURES = (0.8, 1.2)
"""Multiples of a family's own temperature that are tried beside it."""


@dataclass(frozen=True)
class _Candidate:
    """One way to draw synthetic rows."""

    name: str
    family: str
    run: Path
    temperature: float | None
    filter: str


def recommend(
    real: Dataset,
    *,
    output: str | Path,
    families: Sequence[str] = tuple(GENERATORS),
    budget: str | float | None = None,
    images: int | str | None = None,
    seeds: int = 5,
    steps: int | None = None,
    classifier: str = "small",
    image_column: str | None = None,
    label_column: str | None = None,
    group_by: Sequence[str] | None = None,
    image_size: int | None = None,
    limit_per_class: int | None = None,
    on_bad_image: str = "error",
    seed: int = 0,
    device: str = "auto",
    num_processes: int | None = None,
    fresh: bool = False,
) -> Advice:
    """Fit every family, try what it draws on validation rows, and say what to use, or that nothing helps.

    Every choice is made on the validation rows that the fits held out. Each family is drawn from at three
    temperatures with the default filter, and once without a filter; each of these is mixed, at the shares that a
    benchmark tries, into the best way to train on real rows alone. The best candidate then has to hold its own on
    fresh seeds: it is recommended if the likelihood loss on validation rows is lower with 90 % confidence and
    balanced accuracy no lower.

    Args:
        real: Real rows.
        output: Folder for the runs, the draws, the finished trainings and the advice; an interrupted call goes on
            where it was.
        families: Names of generators.
        budget: Duration of all fits together, "10m" when None; or
        images: a number of images for each fit to see.
        seeds: Paired seeds of each stage.
        steps: Optimiser steps of every training; from the number of rows when None.
        classifier: "small" or "resnet".
        image_column: Found by feature type when None.
        label_column: Found by feature type when None.
        group_by: Columns, the label among them: generators are fitted, rows sampled and validation rows weighted by
            their joint groups. The classifier predicts the label.
        image_size: Side of the images; the data's own when None.
        limit_per_class: Real rows taken of each class.
        on_bad_image: "error" or "skip".
        seed: Seed of the fits and the draws.
        device: "auto", "cpu" or "cuda", for the classifiers.
        num_processes: Worker processes; when None as many as there are cores, on a GPU as many as its memory
            holds, 16 at most.
        fresh: Forget what is in `output`.

    Returns:
        The advice; `recommended` is None when none helps.

    Raises:
        InputError: An argument out of range, no validation rows, or an output made with other arguments.
        StoppedError: After a signal; what was finished is kept.
    """
    device, families = resolve_device(device), tuple(families)
    _check_arguments(families, seeds=seeds, classifier=classifier)
    length = _split_budget(budget, images, len(families))
    data: dict[str, Any] = {
        "image_column": image_column, "label_column": label_column, "image_size": image_size,
        "group_by": None if group_by is None else list(group_by), "limit_per_class": limit_per_class,
        "on_bad_image": on_bad_image,
    }  # fmt: skip
    arguments = {
        "version": synthaug.__version__, "families": list(families), **length, "seeds": seeds, "steps": steps,
        "classifier": classifier, "seed": seed, "device": device, "rows": real._fingerprint,
        **{key: value for key, value in data.items() if value is not None},
    }  # fmt: skip
    folder = Path(output)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(folder))
        if fresh:
            _forget(folder)
        open_record(folder / _RECORD, arguments)
        if (finished := Advice.load(folder)) is not None:
            return finished
        tried = [c for family in families for c in _fit_family(real, family, folder, length, data, seed)]
        drawn = _draw_candidates(tried, folder, seed)
        contest, candidates = _load_rows(real, drawn, data), list(drawn)
        template = make_template(contest, steps=steps, backend="torch", classifier=classifier, device=device)
        names = tuple(candidate.name for candidate in candidates)
        processes = count_processes(device, num_processes, shown_bytes=contest.shown_bytes)
        setting = Setting(template, seeds, processes, names, test=False)
        advice = _advise(contest, candidates, setting, folder)
        advice.save(folder)
        return advice


def _check_arguments(families: Sequence[str], *, seeds: object, classifier: str) -> None:
    for family in families:
        if family not in GENERATORS:
            raise InputError(
                f"family {family!r} is unknown; allowed are {', '.join(GENERATORS)}: name some of them"
                f"{suggest(family, GENERATORS)}"
            )
    if not families or len(set(families)) < len(families):
        raise InputError(f"families are {', '.join(families) or 'none'}; name each one once")
    if not isinstance(seeds, int) or isinstance(seeds, bool) or not 2 <= seeds <= TUNING_SEEDS[0] // 2:
        raise InputError(f"seeds is {seeds!r}; give an integer from 2 to {TUNING_SEEDS[0] // 2}")
    if classifier not in CLASSIFIERS:
        raise InputError(f"classifier is {classifier!r}; allowed are {', '.join(CLASSIFIERS)}: choose one")


def _split_budget(budget: str | float | None, images: int | str | None, fits: int) -> dict[str, Any]:
    """Return how long each fit is: its part of the budget in seconds, or its number of images."""
    if images is not None:
        if budget is not None:
            raise InputError("budget and images are both given; give one of them")
        return {"images": parse_count(images)}
    whole = parse_duration(budget if budget is not None else "10m")
    return {"budget": whole / fits}


def _forget(folder: Path) -> None:
    """Remove what an earlier call left, and nothing else."""
    for name in ("runs", "draws", CELLS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def _fit_family(
    real: Dataset, family: str, folder: Path, length: Mapping[str, Any], data: Mapping[str, Any], seed: int
) -> list[_Candidate]:
    """Fit a family and return the ways to draw from it."""
    print(f"recommend: fitting {family}", file=sys.stderr)
    run = folder / "runs" / family
    given = {key: value for key, value in data.items() if value is not None}
    own = fit(real, family, output=run, seed=seed, **length, **given).default_temperature
    scaled = [
        _Candidate(f"{family}-t{own * factor:.2g}", family, run, own * factor, "default") for factor in _TEMPERATURES
    ]
    raw = _Candidate(f"{family}-raw", family, run, None, "none")
    return [_Candidate(family, family, run, None, "default"), *scaled, raw]


def _draw_candidates(candidates: Sequence[_Candidate], folder: Path, seed: int) -> dict[_Candidate, Dataset]:
    """Draw the rows of every candidate; one whose filter lets too little through is left out, with a warning."""
    drawn = {}
    for candidate in candidates:
        print(f"recommend: drawing from {candidate.name}", file=sys.stderr)
        try:
            drawn[candidate] = generate(
                load_generator(candidate.run),
                benchmark_plan(read_source(candidate.run)["class_counts"]),
                seed=seed,
                temperature=candidate.temperature,
                filter=candidate.filter,
                output=folder / "draws" / candidate.name,
            )
        except FailedError as error:
            print(f"warning: {candidate.name} is left out: {error}", file=sys.stderr)
    if not drawn:
        raise FailedError("no candidate made enough rows; fit longer: a larger --budget or --images")
    return drawn


def _load_rows(real: Dataset, drawn: Mapping[_Candidate, Dataset], data: Mapping[str, Any]) -> Contest:
    """Return the rows of every candidate with the real ones; no test row is asked for."""
    source = read_source(next(iter(drawn)).run)
    contest = load_contest(
        real, {candidate.name: rows for candidate, rows in drawn.items()}, None, source=source, **data
    )
    if not len(contest.validation):
        raise InputError(
            f"none of the {len(contest.train)} real rows is left for validation (classes under 5 rows have none); "
            "recommend chooses on such rows: give more rows"
        )
    return contest


def _advise(contest: Contest, candidates: Sequence[_Candidate], setting: Setting, folder: Path) -> Advice:
    """Run the trainings and draw the conclusion."""
    counts = contest.stratum_counts
    plain = [arm for arm in map(parse_arm, default_arms(counts)) if arm.side == "classical"]
    mixed = [parse_arm(f"best+{candidate.name}", setting.sources) for candidate in candidates]
    data = collect_material(contest, [*plain, *mixed])
    trainings = len(TUNING_SEEDS) * (len(POLICIES) + TRIALS * len(plain) + (TRIALS - 1) * len(mixed))
    trainings += setting.seeds * (len(plain) + 2)
    with Campaign(data, setting, folder, trainings=trainings) as campaign:
        opponents = {result.arm.name: result for result in campaign.run_plain(plain)}
        base = choose_front(list(opponents.values())).arm
        rivals = [arm.rest_on(base) for arm in plain if arm.exchanges]
        campaign.tune(rivals, "rivals")
        opponents |= {result.arm.name: result for result in campaign.run_seeds(rivals, "rivals")}
        opponent = choose_front(list(opponents.values())).arm
        resting = [arm.rest_on(base) for arm in mixed]
        campaign.tune(resting, "candidates")
        tried = [
            _describe_candidate(candidate, arm, campaign) for candidate, arm in zip(candidates, resting, strict=True)
        ]
        place = min(range(len(tried)), key=lambda i: (round(tried[i]["nll"], 9), -tried[i]["balanced_accuracy"]))
        best, tried[place]["chosen"] = resting[place], True
        evidence, share = None, tried[place]["share"]
        if share:
            finals = campaign.run_seeds([best, opponent], "confirming", first=setting.seeds)
            evidence = weigh_evidence(
                finals[0], finals[1], contest.validation.labels, strata=contest.strata("validation")
            )
    chosen = candidates[place] if evidence is not None and evidence.convinces else None
    return Advice(
        recommended=None if chosen is None else chosen.name,
        sentence=_write_sentence(candidates[place], share, evidence, opponent, chosen is not None),
        share=share if chosen else 0.0,
        run="" if chosen is None else str(chosen.run.relative_to(folder)),
        recipe=_write_recipe(chosen, share, contest, opponent),
        base=opponent.name,
        candidates=tried,
        evidence={} if evidence is None else _describe_evidence(evidence),
        settings={
            "version": synthaug.__version__, "steps": setting.template.steps, "seeds": setting.seeds,
            "classifier": setting.template.classifier, "mixtures": [list(pair) for pair in MIXTURES],
            "validation_rows": len(contest.validation), "training_rows": len(contest.train),
        },
    )  # fmt: skip


def _describe_candidate(candidate: _Candidate, arm: Arm, campaign: Campaign) -> dict[str, Any]:
    trial = next(trial for trial in campaign.tuner.trials if trial["arm"] == arm.name and trial["chosen"])
    return {
        "name": candidate.name,
        "family": candidate.family,
        "run": f"runs/{candidate.run.name}",
        "temperature": candidate.temperature,
        "filter": candidate.filter,
        "share": campaign.tuner.options[arm.name].share,
        "finish": campaign.tuner.options[arm.name].finish,
        "balanced_accuracy": trial["balanced_accuracy"],
        "nll": trial["nll"],
        "chosen": False,
    }


def _describe_evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "accuracy": evidence.accuracy.value,
        "accuracy_interval": [evidence.accuracy.low, evidence.accuracy.high],
        "loss": evidence.loss.value,
        "bound": evidence.bound,
        "confidence": CONFIDENCE,
    }


def _write_recipe(chosen: _Candidate | None, share: float, contest: Contest, opponent: Arm) -> dict[str, Any]:
    """Return a recipe whose `generate` section draws so many rows that they make up the recommended share."""
    counts = {name: rows for name, rows in _whole_counts(contest).items() if rows}
    if chosen is None:
        return {"generate": {"balance": counts}}
    largest = max(counts.values())
    totals = {name: math.ceil((largest if opponent.balanced else rows) / (1 - share)) for name, rows in counts.items()}
    section: dict[str, Any] = {"balance": totals, "filter": chosen.filter}
    if chosen.temperature is not None:
        section["temperature"] = round(chosen.temperature, 4)
    return {"generator": {"family": chosen.family}, "generate": section}


def _whole_counts(contest: Contest) -> dict[str, int]:
    if contest.groups is not None:
        held_out = contest.groups.count("train") + contest.groups.count("validation")
        return dict(zip(contest.groups.names, held_out.tolist(), strict=True))
    held = contest.validation.class_counts
    return {name: rows + held[name] for name, rows in contest.train.class_counts.items()}


def _write_sentence(best: _Candidate, share: float, evidence: Evidence | None, opponent: Arm, recommended: bool) -> str:
    if not share or evidence is None:
        return (
            "No synthetic rows: on validation rows every share of every candidate did worse than none. Train on the "
            f"real rows alone ({opponent.name})."
        )
    if not recommended:
        return (
            f"No synthetic rows: the best candidate ({best.name}, share {share:g}) is not clearly better on validation "
            f"rows than training on the real rows alone ({opponent.name})."
        )
    return (
        f"Use {best.name} with a share of {share:g}: on validation rows it is better than the best way to train on "
        f"real rows alone ({opponent.name})."
    )
