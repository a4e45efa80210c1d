"""recommend(): which family, filter, temperature and share to use, or none, judged on validation rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm import tqdm

from synthaug.benchmarks.advice import CONFIDENCE, Advice, Evidence, weigh_evidence
from synthaug.benchmarks.arms import SYNTHETIC, Arm, default_arms, parse_arm
from synthaug.benchmarks.candidates import Candidate, draw_candidates, fit_candidates, fit_family
from synthaug.benchmarks.cells import Cell
from synthaug.benchmarks.folds import Fold, PooledFolds
from synthaug.benchmarks.results import ArmResults, choose_front
from synthaug.benchmarks.runner import Runner, Setting, count_processes, make_template
from synthaug.benchmarks.splits import Splits, load_splits
from synthaug.benchmarks.training_data import collect_data
from synthaug.benchmarks.tuning import MIXTURES, TRIALS
from synthaug.classifiers import CLASSIFIERS, resolve_device
from synthaug.core import (
    POLICIES,
    TUNING_SEEDS,
    FailedError,
    InputError,
    OutputFolder,
    __version__,
    suggest,
    write_file,
)
from synthaug.data import load_images, split_validation
from synthaug.generators import GENERATORS, read_source
from synthaug.recipe import dump_recipe, parse_count, parse_duration, parse_recipe

__all__ = ["recommend"]

_MOST_FOLDS = 20
_RECIPE = "recipe.yaml"


def recommend(
    real: Dataset,
    *,
    output: str | Path,
    families: Sequence[str] = tuple(GENERATORS),
    budget: str | float | None = None,
    images: int | str | None = None,
    seeds: int = 5,
    steps: int | None = None,
    arms: Sequence[str] | None = None,
    classifier: str = "small",
    image_column: str | None = None,
    label_column: str | None = None,
    group_by: Sequence[str] | None = None,
    image_size: int | None = None,
    limit_per_class: int | None = None,
    on_bad_image: str = "error",
    folds: int | None = None,
    seed: int = 0,
    device: str = "auto",
    num_processes: int | None = None,
    fresh: bool = False,
    dataset: Mapping[str, Any] | None = None,
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
        arms: Ways to train without synthetic rows that compete, named as in `benchmark`; its own when None.
        classifier: "small" or "resnet".
        image_column: Found by feature type when None.
        label_column: Found by feature type when None.
        group_by: Columns, the label among them: generators are fitted, rows sampled and validation rows weighted by
            their joint groups. The classifier predicts the label.
        image_size: Side of the images; the data's own when None.
        limit_per_class: Real rows taken of each class.
        on_bad_image: "error" or "skip".
        folds: Instead of holding out validation rows once, hold out each of so many parts in turn, and pool what all
            rows say: for few rows, or few in some groups. Every family is fitted once for each part, and what is
            recommended once more.
        seed: Seed of the fits and the draws.
        device: "auto", "cpu" or "cuda", for the classifiers.
        num_processes: Worker processes; when None as many as there are cores, on a GPU as many as its memory
            holds, 16 at most.
        fresh: Forget what is in `output`.
        dataset: Where the rows come from, as the `dataset` section of a recipe says it; `recipe.yaml`, which `generate`
            takes, is then written beside the advice.

    Returns:
        The advice; `recommended` is None when none helps.

    Raises:
        InputError: An argument out of range, no validation rows, or an output made with other arguments.
        StoppedError: After a signal; what was finished is kept.
    """
    device, families = resolve_device(device), tuple(families)
    _check_arguments(families, seeds=seeds, classifier=classifier)
    _check_folds(folds)
    plain = None if arms is None else _read_arms(arms)
    length = _split_budget(budget, images, len(families) * (folds or 1) + bool(folds))
    data: dict[str, Any] = {
        "image_column": image_column, "label_column": label_column, "image_size": image_size,
        "group_by": None if group_by is None else list(group_by), "limit_per_class": limit_per_class,
        "on_bad_image": on_bad_image,
    }  # fmt: skip
    arguments = {
        "version": __version__, "families": list(families), **length, "seeds": seeds, "steps": steps,
        "classifier": classifier, "seed": seed, "device": device, "rows": _digest_rows(real, folds, data),
        **{key: value for key, value in {**data, "folds": folds, "arms": arms}.items() if value is not None},
    }  # fmt: skip
    folder = Path(output)
    with OutputFolder(folder, "recommend", arguments, fresh=fresh) as made:
        if made.has_finished("recommendation.json", *([] if dataset is None else [_RECIPE])):
            return Advice.load(folder)
        options = {**{key: value for key, value in data.items() if value is not None}, **length, "seed": seed}
        drawn = [_draw_split(real, families, split, options) for split in _split_rows(folder, folds)]
        candidates = _keep_common(drawn)
        names = tuple(candidate.name for candidate in candidates)
        fold_splits = [_load_rows(real, own, candidates, data) for own in drawn]
        template = make_template(fold_splits[0], steps=steps, backend="torch", classifier=classifier, device=device)
        processes = count_processes(device, num_processes, shown_bytes=fold_splits[0].shown_bytes)
        setting = Setting(template, seeds, processes, names, test=False)
        if plain is None:
            plain = [
                arm for arm in map(parse_arm, default_arms(fold_splits[0].stratum_counts)) if arm.side == "classical"
            ]
        folders = [split.folder for split in _split_rows(folder, folds)]
        advice = _advise(fold_splits, plain, candidates, setting, folders)
        if folds and advice.recommended is not None:
            advice = _fit_anew(real, advice, candidates, folder, options)
        if dataset is not None:
            recipe = {"dataset": dict(dataset), "generator": {"family": "cvae"}, **advice.recipe}
            write_file(folder / _RECIPE, dump_recipe(parse_recipe(recipe, origin="recommend")))
        advice.save(folder)
        made.finish()
        return advice


@dataclass(frozen=True)
class _Split:
    """One way of holding out validation rows, and where what is fitted without them is kept."""

    folder: Path
    validation: str = "auto"

    @property
    def shown(self) -> str:
        return "" if self.validation == "auto" else f", fold {self.validation.replace('/', ' of ')}"


def _split_rows(folder: Path, folds: int | None) -> list[_Split]:
    if folds is None:
        return [_Split(folder)]
    return [_Split(folder / "folds" / str(number), f"{number}/{folds}") for number in range(1, folds + 1)]


def _draw_split(
    real: Dataset, families: Sequence[str], split: _Split, options: Mapping[str, Any]
) -> dict[Candidate, Dataset]:
    """Fit every family without the validation rows of a split, and draw from it."""
    split.folder.mkdir(parents=True, exist_ok=True)
    own = {**options, "validation": split.validation}
    tried = [c for family in families for c in fit_candidates(real, family, split.folder, own, split.shown)]
    return draw_candidates(tried, split.folder, seed=options["seed"])


def _keep_common(drawn: Sequence[Mapping[Candidate, Dataset]]) -> list[Candidate]:
    """Return the first split's candidates that every split has."""
    roles = set.intersection(*({candidate.role for candidate in own} for own in drawn))
    if not roles:
        raise FailedError("no candidate made enough rows in every fold; fit longer: a larger budget= or images=")
    return [candidate for candidate in drawn[0] if candidate.role in roles]


def _fit_anew(
    real: Dataset, advice: Advice, candidates: Sequence[Candidate], folder: Path, options: Mapping[str, Any]
) -> Advice:
    """Fit what is recommended on the rows of all folds, less the usual validation rows, and let the advice name it."""
    chosen = next(candidate for candidate in candidates if candidate.name == advice.recommended)
    own = fit_family(real, chosen.family, folder / "runs" / chosen.family, options, " to generate from")
    recipe = dict(advice.recipe)
    if chosen.temperature is not None:
        recipe["generate"] = {**recipe["generate"], "temperature": round(own * chosen.scale, 4)}
    return replace(advice, run=f"runs/{chosen.family}", recipe=recipe)


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


def _check_folds(folds: object) -> None:
    whole = isinstance(folds, int) and not isinstance(folds, bool)
    if folds is not None and (not whole or not 2 <= folds <= _MOST_FOLDS):  # type: ignore[operator]
        raise InputError(f"folds is {folds!r}; give an integer from 2 to {_MOST_FOLDS}, or none for one split")


def _read_arms(names: Sequence[str]) -> list[Arm]:
    """Return the arms of these names, one of which must train on real rows as they are."""
    arms = [parse_arm(name) for name in names]
    wrong = [arm.name for arm in arms if arm.side != "classical"]
    if wrong:
        raise InputError(f"arm {wrong[0]!r} is none without synthetic rows; name such as real+classical or best+smote")
    if all(arm.exchanges for arm in arms):
        raise InputError("arms need one that exchanges no row; add one such as real+classical")
    return arms


def _split_budget(budget: str | float | None, images: int | str | None, fits: int) -> dict[str, Any]:
    """Return how long each fit is: its part of the budget in seconds, or its number of images."""
    if images is not None:
        if budget is not None:
            raise InputError("budget and images are both given; give one of them")
        return {"images": parse_count(images)}
    whole = parse_duration(budget if budget is not None else "10m")
    return {"budget": whole / fits}


def _digest_rows(real: Dataset, folds: int | None, data: Mapping[str, Any]) -> str:
    """Return a sha256 of the rows that will be taken, once it is seen that every split holds some out."""
    images = load_images(real, **{key: value for key, value in data.items() if value is not None})
    for split in _split_rows(Path(), folds):
        if not len(split_validation(images, split.validation)[1]):
            raise InputError(
                f"none of the {len(images)} real rows is left for validation{split.shown} (one split holds out none of "
                "a class under 5 rows, and many folds leave some empty); recommend chooses on such rows: give more "
                "rows, or folds=2"
            )
    content = repr((images.class_names, images.codec)).encode() + images.labels.tobytes()
    return hashlib.sha256(content + "".join(images.hashes.tolist()).encode()).hexdigest()


def _load_rows(
    real: Dataset, drawn: Mapping[Candidate, Dataset], candidates: Sequence[Candidate], data: Mapping[str, Any]
) -> Splits:
    """Return the rows of every candidate with the real ones; no test row is asked for."""
    source = read_source(next(iter(drawn)).run)
    by_role = {candidate.role: rows for candidate, rows in drawn.items()}
    synthetic = {candidate.name: by_role[candidate.role] for candidate in candidates}
    return load_splits(real, synthetic, None, source=source, **data)


def _advise(
    fold_splits: Sequence[Splits],
    plain: Sequence[Arm],
    candidates: Sequence[Candidate],
    setting: Setting,
    folders: Sequence[Path],
) -> Advice:
    """Run the trainings and draw the conclusion."""
    splits = fold_splits[0]
    mixed = [parse_arm(f"best+{candidate.name}", setting.sources) for candidate in candidates]
    trainings = len(TUNING_SEEDS) * (len(POLICIES) + TRIALS * len(plain) + (TRIALS - 1) * len(mixed))
    trainings = len(fold_splits) * (trainings + setting.seeds * (len(plain) + 2))
    bar: tqdm[Any] = tqdm(total=trainings, desc="tuning", unit="training", mininterval=0.5)
    each = [
        Fold(own, Runner(collect_data(own, [*plain, *mixed]), setting, folder, bar=bar))
        for own, folder in zip(fold_splits, folders, strict=True)
    ]
    with bar, PooledFolds(each) as pooled:
        opponents = {result.arm.name: result for result in pooled.run_plain(plain)}
        base = choose_front(list(opponents.values())).arm
        replacing = [arm.rest_on(base) for arm in plain if arm.exchanges]
        pooled.tune(replacing, "replacing")
        opponents |= {result.arm.name: result for result in pooled.run_seeds(replacing, "replacing")}
        opponent = choose_front(list(opponents.values())).arm
        resting = [arm.rest_on(base) for arm in mixed]
        fronts = [choose_front(trials) for trials in pooled.tune(resting, "candidates")]
        best = choose_front(fronts)
        tried = [
            _describe_candidate(candidate, front, chosen=front is best)
            for candidate, front in zip(candidates, fronts, strict=True)
        ]
        place = next(number for number, front in enumerate(fronts) if front is best)
        evidence, share = None, best.cell.share
        if share:
            pooled.settle(best.arm, best.cell)
            finals = pooled.run_seeds([best.arm, opponent], "confirming", first=setting.seeds)
            evidence = weigh_evidence(finals[0], finals[1], pooled.labels, strata=pooled.strata)
        bar.update(max(0, trainings - bar.n))
    chosen = candidates[place] if evidence is not None and evidence.convinces else None
    return Advice(
        recommended=None if chosen is None else chosen.name,
        sentence=_write_sentence(candidates[place], best.cell, evidence, opponent, chosen is not None),
        share=share if chosen else 0.0,
        finish=best.cell.finish if chosen else 0.0,
        arm=f"{base.name}+{SYNTHETIC}@{share:g}" if chosen else opponent.name,
        run="" if chosen is None else str(chosen.run.relative_to(folders[0])),
        recipe=_write_recipe(chosen, share, splits, base),
        base=opponent.name,
        candidates=tried,
        evidence={} if evidence is None else _describe_evidence(evidence),
        settings={
            "version": __version__, "steps": setting.template.steps, "seeds": setting.seeds,
            "classifier": setting.template.classifier, "mixtures": [list(pair) for pair in MIXTURES],
            "validation_rows": len(pooled.labels), "training_rows": len(splits.train), "folds": len(fold_splits),
        },
    )  # fmt: skip


def _describe_candidate(candidate: Candidate, front: ArmResults, *, chosen: bool) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "family": candidate.family,
        "run": f"runs/{candidate.run.name}",
        "temperature": candidate.temperature,
        "filter": candidate.filter,
        "share": front.cell.share,
        "finish": front.cell.finish,
        "balanced_accuracy": front.mean("validation", "balanced_accuracy"),
        "nll": front.mean("validation", "scaled_nll"),
        "chosen": chosen,
    }


def _describe_evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "accuracy": evidence.accuracy.value,
        "accuracy_interval": [evidence.accuracy.low, evidence.accuracy.high],
        "loss": evidence.loss.value,
        "bound": evidence.bound,
        "confidence": CONFIDENCE,
    }


def _write_recipe(chosen: Candidate | None, share: float, splits: Splits, base: Arm) -> dict[str, Any]:
    """Return a recipe whose `generate` section draws so many rows that they make up the share, mixed into `base`."""
    counts = {name: rows for name, rows in _whole_counts(splits).items() if rows}
    if chosen is None:
        return {"generate": {"balance": counts}}
    largest = max(counts.values())
    totals = {name: math.ceil((largest if base.balanced else rows) / (1 - share)) for name, rows in counts.items()}
    section: dict[str, Any] = {"balance": totals, "filter": chosen.filter}
    if chosen.temperature is not None:
        section["temperature"] = round(chosen.temperature, 4)
    return {"generator": {"family": chosen.family}, "generate": section}


def _whole_counts(splits: Splits) -> dict[str, int]:
    if splits.groups is not None:
        held_out = splits.groups.count("train") + splits.groups.count("validation")
        return dict(zip(splits.groups.names, held_out.tolist(), strict=True))
    held = splits.validation.class_counts
    return {name: rows + held[name] for name, rows in splits.train.class_counts.items()}


def _write_sentence(best: Candidate, cell: Cell, evidence: Evidence | None, opponent: Arm, recommended: bool) -> str:
    if not cell.share or evidence is None:
        return (
            "No synthetic rows: on validation rows every share of every candidate did worse than none. Train on the "
            f"real rows alone ({opponent.name})."
        )
    share = f"share of {cell.share:g}"
    if cell.finish:
        share += f", and real rows alone in the last {100 * cell.finish:g} % of the steps"
    if not recommended:
        return (
            f"No synthetic rows: the best candidate ({best.name}, {share}) is not clearly better on validation "
            f"rows than training on the real rows alone ({opponent.name})."
        )
    return (
        f"Use {best.name} with a {share}: on validation rows it is better than the best way to train on "
        f"real rows alone ({opponent.name})."
    )
