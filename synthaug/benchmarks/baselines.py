"""Rows that synthetic ones are compared with: neighbours interpolated, repeated, drawn from a normal, mislabelled.

Every kind has as many rows in each class as the synthetic rows have, so that it is shown as often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from synthaug.core import InputError
from synthaug.generators import ConditionalGenerator, Encoding, LatentSpace

__all__ = ["BASELINES", "draw_baseline", "draw_latent_smote"]

Pixels = NDArray[np.uint8]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_NEIGHBOURS = 5
"""Neighbours that SMOTE chooses from, as in the paper and in imbalanced-learn."""


def draw_baseline(
    kind: str, pixels: Pixels, labels: Integers, counts: Integers, *, seed: int
) -> tuple[Pixels, Integers]:
    """Return rows of a kind made from the real training rows.

    Args:
        kind: A key of `BASELINES`.
        pixels: (N, H, W, C) real training rows.
        labels: (N,) their classes.
        counts: (K,) how many rows of each class to make; a class without real rows gets none.
        seed: Seed.

    Returns:
        (M, H, W, C) uint8 and (M,) int64, class by class.
    """
    make = BASELINES[kind]

    def make_class(members: Integers, count: int, rng: np.random.Generator) -> Pixels:
        rows = make(pixels[members].reshape(len(members), -1), count, rng)
        return rows.reshape(count, *pixels.shape[1:])

    return _collect(labels, counts, make_class, pixels.shape[1:], seed=seed)


def draw_latent_smote(
    generator: ConditionalGenerator, pixels: Pixels, labels: Integers, counts: Integers, *, seed: int
) -> tuple[Pixels, Integers]:
    """Return rows between neighbours of a class in a generator's latent space, decoded; arguments as `draw_baseline`.

    Raises:
        InputError: The family has no encoder.

    References:
        Dablain, Krawczyk, Chawla: DeepSMOTE (2021), algorithm 2, with the generator as the autoencoder.
    """
    if not isinstance(generator, Encoding):
        raise InputError(
            f"arm 'best+latent-smote' needs a generator that encodes, and {type(generator).__name__} does not; "
            "give a cvae or glow run, or leave the arm out"
        )
    space = LatentSpace(generator, temperature=1.0)
    images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = space.encode(images, torch.from_numpy(labels)).double().numpy()

    def make_class(members: Integers, count: int, rng: np.random.Generator) -> Pixels:
        between = torch.from_numpy(_interpolate(latents[members], count, rng)).float()
        asked = torch.full((count,), int(labels[members[0]]))
        painted = space.decode(between, asked).permute(0, 2, 3, 1).numpy()
        return _to_pixels((painted + 1) * 127.5)

    return _collect(labels, counts, make_class, pixels.shape[1:], seed=seed)


def _collect(
    labels: Integers,
    counts: Integers,
    make_class: Callable[[Integers, int, np.random.Generator], Pixels],
    shape: tuple[int, ...],
    *,
    seed: int,
) -> tuple[Pixels, Integers]:
    parts = [np.zeros((0, *shape), np.uint8)]
    parts += [make_class(members, count, rng) for members, count, rng in _classes(labels, counts, seed)]
    made = [np.full(count, labels[members[0]]) for members, count, _ in _classes(labels, counts, seed)]
    return np.concatenate(parts), np.concatenate([np.zeros(0, np.int64), *made])


def _classes(labels: Integers, counts: Integers, seed: int) -> Iterator[tuple[Integers, int, np.random.Generator]]:
    for label, count in enumerate(counts.tolist()):
        members = np.flatnonzero(labels == label)
        if count and len(members):
            yield members, count, np.random.default_rng([seed, label])


def _to_pixels(values: NDArray[Any]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


def _interpolate(rows: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return x + u (x' - x) with x' one of the nearest neighbours of x and u uniform; x itself where it is alone."""
    starts = np.resize(rng.permutation(len(rows)), count)
    if len(rows) == 1:
        return rows[starts]
    number = min(_NEIGHBOURS, len(rows) - 1)
    nearest = NearestNeighbors(n_neighbors=number).fit(rows).kneighbors(return_distance=False)
    ends = nearest[starts, rng.integers(number, size=count)]
    return np.asarray(rows[starts] + rng.random((count, 1)) * (rows[ends] - rows[starts]))


def _smote(rows: Pixels, count: int, rng: np.random.Generator) -> Pixels:
    return _to_pixels(_interpolate(rows.astype(np.float64), count, rng))


def _repeat(rows: Pixels, count: int, rng: np.random.Generator) -> Pixels:
    return rows[np.resize(rng.permutation(len(rows)), count)]


def _gauss(rows: Pixels, count: int, rng: np.random.Generator) -> Pixels:
    """Return draws from the normal with the rows' mean and covariance: mean + z (x - mean) / sqrt(n - 1)."""
    mean = rows.mean(axis=0)
    weights = rng.standard_normal((count, len(rows))) / max(1, len(rows) - 1) ** 0.5
    return _to_pixels(mean + weights @ (rows - mean))


BASELINES: dict[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    "smote": _smote,
    "duplicated": _repeat,
    "gaussian": _gauss,
}
"""Kinds that are made of real training rows alone.

References:
    Chawla, Bowyer, Hall, Kegelmeyer: SMOTE: synthetic minority over-sampling technique (2002), section 4.2.
"""
