"""What a card is made of: the facts that a run, a dataset and a benchmark know about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

__all__ = ["AcceptanceFacts", "DatasetFacts", "ModelFacts", "VerdictFacts"]


class VerdictFacts(TypedDict, total=False):
    """What a benchmark found; a `Report` has the same names as attributes.

    Keys:
        verdict: "helps", "no clear change" or "harms".
        difference: Paired difference in balanced accuracy, synthetic arm minus its opponent, in [-1, 1].
        interval: Its 95 % interval (low, high).
        table: The arms as a Markdown table (trusted Markdown; raw HTML in it is defused).
    """

    verdict: str
    difference: float | None
    interval: tuple[float, float] | None
    table: str | None


class AcceptanceFacts(TypedDict):
    """What the filter let through in one class.

    Keys:
        drawn: Images drawn from the generator.
        accepted: Images that passed the filter.
    """

    drawn: int
    accepted: int


class ModelFacts(TypedDict, total=False):
    """Facts of a run for `render_model_card`. Every key may be absent or None; its passage is then left out.

    Keys:
        title: Heading of the card, e.g. the name of the run folder.
        family: Name of the family, e.g. "cgan".
        version: Version of the family, e.g. "1".
        constructor: Keyword arguments of the family's constructor.
        preset: Argument -> its value and where it came from; the table of what a fit used.
        warnings: What went wrong or looked wrong while it was fitted.
        class_counts: Class name -> real rows the run was given, validation rows included, in label order.
        train_rows: Rows the generator was fitted on.
        validation_rows: Rows held out.
        source: The dataset as it was given (a Hub id is linked, a local path is never shown); default: the
            recipe's ``dataset.path``.
        split: Split of the source that was fitted; default: the recipe's.
        license: Licence of the source if it is known; never guessed.
        image_size: Height and width of the images in pixels; default: the constructor's.
        channels: 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA); default: the constructor's.
        summary: What `training.loop.train` returned; gives `images_seen`, `steps`, `seconds` and `losses`.
        images_seen: Training images seen at the end.
        steps: Optimiser steps at the end.
        budget: The budget, e.g. "10m"; default: the recipe's.
        batch_size: Global batch in images; default: the recipe's.
        seed: Seed of the run; default: the recipe's.
        seconds: Training time in seconds.
        device: Where it was trained, e.g. "cpu" or "cuda (1 process)".
        losses: Name -> value at the end of the training, as logged.
        scores: Name -> value on the validation rows, e.g. {"bits per dimension": 2.31}.
        sample_grid: Picture of samples, relative to the run folder, e.g. "samples/final.png".
        latents: True if latents.safetensors belongs to the run.
        notices: Sentences for the reader, e.g. corrupt rows that were skipped.
        recipe: The resolved recipe, as a mapping or YAML text; local paths are dropped before it is shown.
        synthaug_version: Version of synthaug that made the run.
        verdict: What a benchmark of this run found, see `VerdictFacts`.
    """

    title: str | None
    family: str | None
    version: str | None
    constructor: Mapping[str, Any] | None
    preset: Mapping[str, str] | None
    warnings: list[str] | None
    class_counts: Mapping[str, int] | None
    train_rows: int | None
    validation_rows: int | None
    source: str | None
    split: str | None
    license: str | None
    image_size: int | None
    channels: int | None
    summary: Mapping[str, Any] | None
    images_seen: int | None
    steps: int | None
    budget: str | None
    batch_size: int | None
    seed: int | None
    seconds: float | None
    device: str | None
    losses: Mapping[str, float] | None
    scores: Mapping[str, float] | None
    sample_grid: str | None
    latents: bool | None
    notices: list[str] | None
    recipe: Mapping[str, Any] | str | None
    synthaug_version: str | None
    verdict: VerdictFacts | None


class DatasetFacts(TypedDict, total=False):
    """Facts of a dataset folder for `render_dataset_card`. Every key may be absent or None.

    Keys:
        title: Heading of the card, e.g. the name of the dataset folder.
        splits: Split name -> rows.
        split: The split that carries the synthetic rows; default "train".
        real: Class name -> real rows in that split, in label order ({} or zeros without).
        synthetic: Class name -> synthetic rows in that split.
        acceptance: Class name -> `AcceptanceFacts` of the filter.
        filter: Name of the filter, e.g. "default" or "none".
        image_column: Name of the image column.
        label_column: Name of the label column.
        image_size: Height and width of the synthetic images in pixels.
        channels: 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
        generator: "family@version", as in the provenance column.
        checkpoint: sha256 of model.safetensors, as in the provenance column.
        model: Hub id of the generator, if it was pushed or came from there.
        seed: Seed of the draws.
        temperature: Scale of the noise.
        source: The dataset as it was given (a Hub id is linked, a local path is never shown).
        license: Licence of the source if it is known; never guessed.
        sample_grid: Picture of synthetic samples, relative to the dataset folder, e.g. "samples.png".
        pixel_hashes: True if a file of the folder holds pixel hashes of training rows (default: assumed).
        notices: Sentences for the reader, e.g. rows that were passed through uncounted.
        recipe: The resolved recipe, as a mapping or YAML text; local paths are dropped before it is shown.
        synthaug_version: Version of synthaug that made the dataset.
        verdict: What a benchmark of this dataset found, see `VerdictFacts`.
    """

    title: str | None
    splits: Mapping[str, int] | None
    split: str | None
    real: Mapping[str, int] | None
    synthetic: Mapping[str, int] | None
    acceptance: Mapping[str, AcceptanceFacts] | None
    filter: str | None
    image_column: str | None
    label_column: str | None
    image_size: int | None
    channels: int | None
    generator: str | None
    checkpoint: str | None
    model: str | None
    seed: int | None
    temperature: float | None
    source: str | None
    license: str | None
    sample_grid: str | None
    pixel_hashes: bool | None
    notices: list[str] | None
    recipe: Mapping[str, Any] | str | None
    synthaug_version: str | None
    verdict: VerdictFacts | None
