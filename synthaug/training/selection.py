"""What a finished fit leaves open, decided on validation rows: the snapshot, the way of sampling, and a label check."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthaug.classifiers import (
    Filter,
    Judge,
    default_filter,
    fit_classifier,
    initial_classifier,
    predict_logits,
    row_schedule,
)
from synthaug.core import balance_mean, draw_normal
from synthaug.data import LabeledImages, measure_nearest, to_pixels, to_tensor
from synthaug.generators import ConditionalGenerator

__all__ = ["Candidate", "Trial", "audit_samples", "compare_candidates"]

_DRAWS, _MOST_DRAWS, _MOST_ROWS = 200, 4_000, 2_000
_STEPS, _BATCH = 150, 64
_NEIGHBOURS = 5
_NEAR, _MOST_COPIES, _LEAST_ROWS = 1 / 3, 0.01, 20
"""Nearer than this share of the median distance of validation rows is a near copy; the share of them that costs
nothing; fewer validation rows than the last tell no distance."""
_MOST_COMPARED, _COMPARED_VALUES = 16_384, 1 << 26
"""Training rows of a class, evenly taken, with which samples are compared at most, and their pixel values."""
_PART_VALUES = 1 << 20
"""Pixel values that a network is given at a time."""
_FIRST_DRAW = 1 << 32
"""Draws far beyond those of a generation, so that nothing is chosen for the images that are written."""

Prepare = Callable[[], ConditionalGenerator]


@dataclass(frozen=True)
class Candidate:
    """One way of finishing a fit.

    Args:
        name: How the card calls it.
        prepare: Returns the generator so finished, ready to sample.
    """

    name: str
    prepare: Prepare


@dataclass(frozen=True)
class Trial:
    """How a candidate did on validation rows.

    Args:
        name: Its name.
        accuracy: Balanced accuracy of a small classifier trained on its samples alone (CAS).
        coverage: Share of validation rows with a sample nearer than their 5th nearest other validation row, in
            the judge's features.
        copies: Share of samples nearer to a training row of their class than a third of the median distance of
            validation rows; None where it was not counted.
        wrong: Share of samples that the judge gives another class (of another target).
        doubted: Whether the judge's word does not count: of joint groups it knows the rare ones by few rows, and takes
            many a right sample unlike them for another class.
    """

    name: str
    accuracy: float
    coverage: float
    copies: float | None = None
    wrong: float = 0.0
    doubted: bool = False

    @property
    def score(self) -> float:
        """Mean of accuracy and coverage, less the share of wrong classes and that of near copies above 1 %."""
        wrong = 0.0 if self.doubted else self.wrong
        return 0.5 * (self.accuracy + self.coverage) - wrong - max(0.0, (self.copies or 0.0) - _MOST_COPIES)


def compare_candidates(
    candidates: Sequence[Candidate],
    judge: Judge,
    validation: LabeledImages,
    *,
    seed: int,
    training: LabeledImages | None = None,
    targets: Sequence[int] | None = None,
) -> tuple[int, list[Trial]]:
    """Return the index of the candidate to take and how all of them did.

    The first one stays unless another beats its score by more than the standard error of an accuracy on so
    many rows.

    Args:
        candidates: The default first.
        judge: Gives the features in which coverage is counted.
        validation: Rows that neither generator nor judge learned from.
        seed: Seed of draws and classifier; the same for all.
        training: Rows the generator was fitted on, near which samples count as copies; None counts none.
        targets: Where classes are joint groups what a classifier is to predict, for each of them: groups of the same
            target are not told apart, and the judge is doubted.
    """
    target_of = np.arange(len(validation.class_names)) if targets is None else np.asarray(targets)
    rows = _take_rows(validation)
    near = None if training is None else _Nearness(training, rows)
    trials = []
    for candidate in candidates:
        generator = candidate.prepare()
        pixels, labels = _draw(generator, np.unique(rows.labels), seed)
        accuracy = _score_classifier(pixels, labels, rows, target_of, seed)
        copies = None if near is None else near.count_copies(pixels, labels)
        wrong = _count_wrong(judge, pixels, labels, target_of)
        coverage = _cover(judge, pixels, rows.pixels)
        trials.append(Trial(candidate.name, accuracy, coverage, copies, wrong, targets is not None))
    best = max(range(len(trials)), key=lambda index: trials[index].score)
    first = trials[0]
    margin = math.sqrt(max(first.accuracy * (1 - first.accuracy), 1 / len(rows)) / len(rows))
    return (best if trials[best].score > first.score + margin else 0), trials


def audit_samples(
    generator: ConditionalGenerator, judge: Judge, *, seed: int, most: int = 2_000
) -> list[tuple[float, float]]:
    """Return for each class the share of its samples that the judge gives another class, and that its filter keeps.

    Args:
        generator: A finished generator.
        judge: Its judge.
        seed: Seed of the draws.
        most: Samples in all; at most 64 of each class.
    """
    each, check = max(8, min(64, most // generator.num_classes)), default_filter(judge)
    shares = []
    for label in range(generator.num_classes):
        pixels, labels = _draw(generator, np.array([label]), seed, each)
        kept = _apply(partial(_ask, check, label), pixels)
        wrong = _count_wrong(judge, pixels, labels, np.arange(generator.num_classes))
        shares.append((wrong, float(kept.float().mean())))
    return shares


def _ask(check: Filter, label: int, images: Tensor) -> Tensor:
    """Return what a filter says of images of one class."""
    return check(images, torch.full((len(images),), label))


def _count_wrong(
    judge: Judge, pixels: NDArray[np.uint8], labels: NDArray[np.int64], target_of: NDArray[np.int64]
) -> float:
    """Return the share of samples that the judge gives a class of another target."""
    return float((target_of[_apply(judge.logits, pixels).argmax(1).numpy()] != target_of[labels]).mean())


def _apply(function: Callable[[Tensor], Tensor], pixels: NDArray[np.uint8]) -> Tensor:
    """Return what a network makes of (N, H, W, C) uint8 images, given in parts so that memory is bounded."""
    count = max(1, _PART_VALUES // pixels[0].size)
    parts = [function(to_tensor(pixels[start : start + count])) for start in range(0, len(pixels), count)]
    return torch.cat(parts)


def _take_rows(validation: LabeledImages) -> LabeledImages:
    """Return at most so many rows, evenly from the classes, the first ones of each."""
    most = max(1, _MOST_ROWS // max(1, len(np.unique(validation.labels))))
    kept = [np.flatnonzero(validation.labels == label)[:most] for label in np.unique(validation.labels)]
    return validation.take(np.sort(np.concatenate(kept)))


def _draw(
    generator: ConditionalGenerator, classes: NDArray[np.int64], seed: int, each: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return samples (N, H, W, C) uint8 of the classes and their labels."""
    each = each or max(16, min(_DRAWS, _MOST_DRAWS // len(classes)))
    temperature, parts = generator.default_temperature, []
    for label in classes.tolist():
        for start in range(0, each, 64):
            count = min(64, each - start)
            noise = torch.from_numpy(draw_normal(seed, label, _FIRST_DRAW + start, count, generator.noise_shape))
            labels = torch.full((count,), label)
            parts.append(to_pixels(generator.sample(labels, noise=noise, temperature=temperature)))
    return np.concatenate(parts), np.repeat(classes, each)


def _score_classifier(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], rows: LabeledImages, target_of: NDArray[np.int64], seed: int
) -> float:
    """Return the accuracy on `rows`, balanced over classes, of a classifier trained on the samples alone."""
    num_classes = len(rows.class_names)
    order = torch.from_numpy(row_schedule(labels, length=_STEPS * _BATCH, seed=seed, balanced=True))
    targets = torch.from_numpy(labels)
    network = initial_classifier(num_classes, pixels.shape[1], pixels.shape[-1], seed=seed)

    def draw_batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = order[step * _BATCH : (step + 1) * _BATCH]
        return to_tensor(pixels[chosen.numpy()]), targets[chosen]

    fit_classifier(network, draw_batch, steps=_STEPS)
    predictions = _apply(partial(predict_logits, network), rows.pixels).argmax(1).numpy()
    return balance_mean(rows.labels, (target_of[predictions] == target_of[rows.labels]).astype(np.float64), num_classes)


def _cover(judge: Judge, samples: NDArray[np.uint8], rows: NDArray[np.uint8]) -> float:
    """Return the share of rows with a sample within their distance to the 5th nearest other row.

    References:
        Naeem et al.: Reliable fidelity and diversity metrics for generative models (2020), eq. 5.
    """
    real, fake = (_apply(judge.embed, part) for part in (rows, samples))
    distances = torch.cdist(real, real)
    radius = distances.kthvalue(min(_NEIGHBOURS + 1, len(real)), dim=1).values
    return float((torch.cdist(real, fake).min(dim=1).values <= radius).float().mean())


class _Nearness:
    """Training rows, and how near to them a sample counts as a copy: much nearer than held-out rows lie.

    Args:
        training: The training rows.
        rows: Held-out rows; with few of them nothing is counted.
    """

    def __init__(self, training: LabeledImages, rows: LabeledImages) -> None:
        self._training = training
        self._radius: float | None = None
        if len(rows) >= _LEAST_ROWS:
            self._radius = _NEAR * float(np.median(self._measure(rows.pixels, rows.labels)))

    def count_copies(self, samples: NDArray[np.uint8], labels: NDArray[np.int64]) -> float | None:
        """Return the share of samples that count as copies; None where nothing is counted."""
        if self._radius is None:
            return None
        return float((self._measure(samples, labels) < self._radius).mean())

    def _measure(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the pixel distance of each image to the nearest training row of its class; infinite without one."""
        distances = np.full(len(pixels), np.inf)
        most = min(_MOST_COMPARED, max(1, _COMPARED_VALUES // pixels[0].size))
        for label in np.unique(labels):
            own, rows = labels == label, np.flatnonzero(self._training.labels == label)
            if len(rows):
                known = self._training.pixels[rows[:: -(-len(rows) // most)]]
                distances[own] = measure_nearest(pixels[own], known)[1]
        return distances


def copy_with(generator: ConditionalGenerator, **settings: object) -> ConditionalGenerator:
    """Return a copy of a generator with some attributes set."""
    other = copy.copy(generator)
    for name, value in settings.items():
        setattr(other, name, value)
    return other
