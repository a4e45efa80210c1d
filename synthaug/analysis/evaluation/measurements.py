"""The four parts of an evaluation: accuracy scores, wrong classes, features, copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from synthaug.analysis.evaluation.cache import NetworkCache
from synthaug.analysis.evaluation.cas import ScoreClassifier, fit_score_classifier, predict_classes
from synthaug.analysis.evaluation.fidelity import (
    NEIGHBOURS,
    Measure,
    cover_rows,
    measure_kernel,
    measure_nearness,
    measure_share,
    score_copying,
    whiten,
)
from synthaug.analysis.evaluation.networks import RandomNetwork, embed_rows
from synthaug.analysis.evaluation.samples import Draws
from synthaug.analysis.evaluation.splits import ComparedRows, take_evenly
from synthaug.classifiers import ResidualClassifier
from synthaug.core import POLICIES, TUNING_SEEDS, balanced_accuracy
from synthaug.data import LabeledImages, measure_nearest

__all__ = [
    "SPACES",
    "Accuracy",
    "Comparison",
    "Copying",
    "compare_features",
    "find_copies",
    "score_accuracy",
]

Hits = NDArray[np.bool_]
Classes = NDArray[np.int64]
Step = Callable[[int], None]

SPACES = ("classifier", "random")
"""Features in which rows are compared: those of the referee, those of the fixed random network."""

NEAR = 1 / 3
"""A row nearer to a training row than this share of the median distance of held-out rows looks like a copy."""

_MOST_ROWS = 10_000
_LEAST_ROWS = 5


@dataclass(frozen=True)
class Accuracy:
    """Which test rows the fixed classifier recognises.

    Args:
        synthetic: (S, n) bool, trained on the synthetic rows; one row for each seed.
        real: (S, n) bool, trained on at most as many real rows of each class.
        real_rows: (K,) how many real rows of each class those were.
        policy: Name of the classical augmentation; None for none.
    """

    synthetic: Hits
    real: Hits
    real_rows: NDArray[np.int64]
    policy: str | None


def score_accuracy(
    compared_rows: ComparedRows,
    *,
    seeds: int,
    steps: int,
    augmentation: str,
    device: str,
    cache: NetworkCache,
    on_step: Step,
) -> Accuracy:
    """Train the fixed classifier on synthetic rows alone, and on at most as many real ones a class, and test both.

    Args:
        compared_rows: The rows.
        seeds: Number of seeds; both trainings of a seed share initial weights.
        steps: Optimiser steps of each training.
        augmentation: "none"; "classical": the policy that does best on the validation rows when training on the
            real rows (the mildest where there are none); or the name of a policy.
        device: Where to train.
        cache: Keeps what is trained.
        on_step: Called with the number of optimiser steps just done, all of a training that was kept.
    """
    train, made, test = compared_rows.real.train, compared_rows.synthetic, compared_rows.real.test
    classes = len(train.class_names)
    counts = np.minimum(np.bincount(train.labels, minlength=classes), np.bincount(made.labels, minlength=classes))
    real = train.take(take_evenly(train.labels, counts))

    def predict(rows: Draws | LabeledImages, kind: str, seed: int, policy: str | None, asked: LabeledImages) -> Classes:
        done = 0

        def count(step: int) -> None:
            nonlocal done
            on_step(step - done)
            done = step

        network = cache.fetch(
            f"{kind}-{seed}-{policy}",
            lambda: ScoreClassifier(classes, rows.pixels.shape[1], rows.pixels.shape[3]).to(device),
            lambda: fit_score_classifier(
                rows.pixels, rows.labels, classes, seed=seed, policy=POLICIES[policy] if policy else None, steps=steps,
                device=device, on_step=count,
            ),
        )  # fmt: skip
        on_step(steps - done)
        return predict_classes(network, asked.pixels)

    policy: str | None = None if augmentation == "none" else augmentation
    if augmentation == "classical":
        policy, choosing = next(iter(POLICIES)), compared_rows.real.validation
        if len(choosing):
            scores = {
                name: balanced_accuracy(
                    choosing.labels, predict(real, "real", TUNING_SEEDS[0], name, choosing), classes
                )
                for name in POLICIES
            }
            policy = max(scores, key=lambda name: scores[name])  # the first, mildest one where they are equal
    hits = [
        [predict(rows, kind, seed, policy, test) == test.labels for seed in range(seeds)]
        for kind, rows in (("synthetic", made), ("real", real))
    ]
    return Accuracy(np.array(hits[0]), np.array(hits[1]), counts, policy)


@dataclass(frozen=True)
class Comparison:
    """Rows against test rows in one kind of features: None where there are too few rows.

    Args:
        density: See `fidelity.cover_rows`.
        coverage: See `fidelity.cover_rows`.
        kernel_distance: See `fidelity.measure_kernel`.
        rows: How many rows there were on each side.
    """

    density: Measure | None
    coverage: Measure | None
    kernel_distance: Measure | None
    rows: int


Comparisons = dict[str, dict[str, tuple[Comparison, list[Comparison]]]]


def compare_features(
    compared_rows: ComparedRows, referee: ResidualClassifier, *, on_step: Step | None = None
) -> Comparisons:
    """Compare synthetic, training and validation rows with as many test rows, in both kinds of features.

    Both sides hold the same number of rows of each class, so that nothing but the rows themselves differs.

    Args:
        compared_rows: The rows.
        referee: The classifier trained on real rows.
        on_step: Called after every comparison.

    Returns:
        Kind of features -> kind of rows ("synthetic", "training", "validation") -> (all classes together, each
        class on its own).
    """
    real, made = compared_rows.real, compared_rows.synthetic
    kinds = {
        "synthetic": (made.pixels, made.labels),
        "training": (real.train.pixels, real.train.labels),
        "validation": (real.validation.pixels, real.validation.labels),
    }
    classes, test = len(real.class_names), real.test
    most = np.minimum(
        np.bincount(test.labels, minlength=classes),
        min(len(made) // classes, max(NEIGHBOURS + 1, _MOST_ROWS // classes)),
    )
    judging = take_evenly(test.labels, most)
    networks: dict[str, ResidualClassifier | RandomNetwork] = {
        "classifier": referee,
        "random": RandomNetwork(test.codec.channels),
    }
    found: Comparisons = {space: {} for space in SPACES}
    for space in SPACES:
        tested = embed_rows(networks[space], test.pixels[judging])
        for kind, (pixels, labels) in kinds.items():
            counts = np.minimum(most, np.bincount(labels, minlength=classes))
            chosen = take_evenly(labels, counts)
            if not len(chosen):
                continue
            reference, others = whiten(tested, embed_rows(networks[space], pixels[chosen]))
            own = take_evenly(test.labels[judging], counts)
            found[space][kind] = _compare_classes(
                reference[own], test.labels[judging][own], others, labels[chosen], classes
            )
            if on_step is not None:
                on_step(1)
    return found


def _compare_classes(
    real: Tensor, real_labels: NDArray[np.int64], other: Tensor, labels: NDArray[np.int64], classes: int
) -> tuple[Comparison, list[Comparison]]:
    """Return the comparison of all rows and those of the classes."""
    each = [_compare(real[real_labels == label], other[labels == label]) for label in range(classes)]
    return _compare(real, other), each


def _compare(real: Tensor, other: Tensor) -> Comparison:
    density, coverage = cover_rows(real, other) or (None, None)
    return Comparison(density, coverage, measure_kernel(real, other), len(other))


@dataclass(frozen=True)
class Nearness:
    """How near synthetic rows lie to training rows, beside held-out real rows.

    Args:
        copies: Share nearer than a third of the median distance of all held-out rows.
        held_out: The same share of the held-out rows themselves.
        own_copies: As `copies`, by the median of the held-out rows of the same class.
        own_held_out: As `held_out`, likewise.
        nearer: Probability that a synthetic row lies nearer than a held-out one.
        score: See `fidelity.score_copying`.
    """

    copies: Measure | None
    held_out: Measure | None
    own_copies: Measure | None
    own_held_out: Measure | None
    nearer: Measure | None
    score: float | None


@dataclass(frozen=True)
class Copying:
    """The copy test.

    Args:
        overall: All classes together; `own_copies` and `own_held_out` by each row's own class.
        classes: Each class.
        median: Median distance of the held-out rows to their nearest training row, pixel values in [0, 1].
        nearest: (N,) the training row nearest to each synthetic row.
        distances: (N,) its distance.
    """

    overall: Nearness
    classes: list[Nearness]
    median: float
    nearest: NDArray[np.int64]
    distances: NDArray[np.float64]


def find_copies(compared_rows: ComparedRows, *, on_part: Step | None = None) -> Copying:
    """Measure how far synthetic and held-out rows lie from their nearest training rows, in pixel L2 distance.

    Args:
        compared_rows: The rows.
        on_part: Called with the number of training rows just compared.

    References:
        Meehan, Chaudhuri, Dasgupta: A non-parametric test to detect data-copying in generative models (2020).
    """
    made, train, held = compared_rows.synthetic, compared_rows.real.train, compared_rows.real.held_out
    classes = len(train.class_names)
    most = np.minimum(np.bincount(held.labels, minlength=classes), max(500, len(made) // classes))
    held = held.take(take_evenly(held.labels, most))
    both = np.concatenate([made.pixels, held.pixels])
    nearest, distances = measure_nearest(both, train.pixels, on_part=on_part)
    near, far = distances[: len(made)], distances[len(made) :]
    medians = {
        label: float(np.median(far[held.labels == label])) for label in np.flatnonzero(most >= _LEAST_ROWS).tolist()
    }
    pooled = float(np.median(far))
    parts = [
        _measure_nearness(near[made.labels == label], far[held.labels == label], pooled, medians.get(label))
        for label in range(classes)
    ]
    own = [
        np.concatenate([values[labels == label] < NEAR * median for label, median in medians.items()] or [np.zeros(0)])
        for values, labels in ((near, made.labels), (far, held.labels))
    ]
    whole = Nearness(
        measure_share(near < NEAR * pooled), measure_share(far < NEAR * pooled),
        measure_share(own[0].astype(bool)), measure_share(own[1].astype(bool)),
        measure_nearness(near, far), score_copying(near, far),
    )  # fmt: skip
    return Copying(whole, parts, pooled, nearest[: len(made)], near)


def _measure_nearness(
    near: NDArray[np.float64], far: NDArray[np.float64], pooled: float, own: float | None
) -> Nearness:
    return Nearness(
        copies=measure_share(near < NEAR * pooled),
        held_out=measure_share(far < NEAR * pooled),
        own_copies=None if own is None else measure_share(near < NEAR * own),
        own_held_out=None if own is None else measure_share(far < NEAR * own),
        nearer=measure_nearness(near, far),
        score=score_copying(near, far),
    )
