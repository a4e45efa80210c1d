"""Nearest images: near-duplicates between two sets, and the training rows a synthetic row resembles most."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["find_near_duplicates", "measure_nearest", "nearest_rows"]

_CHUNK = 1_024
_REFERENCES = 4_096
_VALUES = 1 << 23
"""Pixel values that a part of a comparison holds at most, whatever the size of the images."""
_SIDE = 8


def _descriptors(pixels: NDArray[np.uint8], side: int | None) -> Tensor:
    """Return (N, F) centred unit vectors of the images averaged down to `side` pixels; blank ones are 0."""
    parts = []
    for start in range(0, len(pixels), 4_096):
        images = torch.from_numpy(np.array(pixels[start : start + 4_096])).permute(0, 3, 1, 2).float()
        if side is not None and images.shape[-1] > side:
            images = functional.adaptive_avg_pool2d(images, side)
        flat = images.flatten(1)
        parts.append(functional.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1, eps=1e-3))
    return torch.cat(parts)


def find_near_duplicates(
    queries: NDArray[np.uint8], references: NDArray[np.uint8], *, threshold: float
) -> list[tuple[int, int, float]]:
    """Return the queries that look nearly like a reference, nearest first.

    The distance is the Euclidean one of centred unit vectors, sqrt(2 - 2 correlation): blind to brightness
    and contrast. Candidates are found at 8x8 pixels and confirmed at the full size.

    Args:
        queries: (N, H, W, C) uint8.
        references: (M, H, W, C) uint8 of the same size.
        threshold: Largest distance, in [0, 2].

    Returns:
        (query, its nearest reference, distance) for every query within the threshold at both sizes.
    """
    if not len(queries) or not len(references):
        return []
    small, known = _descriptors(queries, _SIDE), _descriptors(references, _SIDE)
    found = []
    for start in range(0, len(small), _CHUNK):
        closest = (small[start : start + _CHUNK] @ known.T).max(dim=1)
        distance = (2 - 2 * closest.values).clamp(min=0).sqrt()
        for row in torch.nonzero(distance <= threshold)[:, 0].tolist():
            query, reference = start + row, int(closest.indices[row])
            pair = _descriptors(np.stack([queries[query], references[reference]]), None)
            exact = float((pair[0] - pair[1]).norm())
            if exact <= threshold and bool(pair.any()):
                found.append((query, reference, exact))
    return sorted(found, key=lambda item: item[2])


def nearest_rows(queries: NDArray[np.uint8], references: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Return (N, count) the references nearest to each query in pixel L2 distance, nearest first.

    Args:
        queries: (N, H, W, C) uint8, few of them.
        references: (M, H, W, C) uint8, at least `count`.
        count: Neighbours of each query.
    """
    asked = torch.from_numpy(np.array(queries)).flatten(1).float()
    best_value, best_index = torch.full((len(asked), 0), 0.0), torch.zeros(len(asked), 0, dtype=torch.int64)
    for start in range(0, len(references), 8_192):
        part = torch.from_numpy(np.array(references[start : start + 8_192])).flatten(1).float()
        value = torch.cat([best_value, torch.cdist(asked, part)], dim=1)
        index = torch.arange(start, start + len(part)).expand(len(asked), -1)
        index = torch.cat([best_index, index], dim=1)
        kept = value.topk(min(count, value.shape[1]), dim=1, largest=False)
        best_value, best_index = kept.values, index.gather(1, kept.indices)
    return best_index.numpy()


def measure_nearest(
    queries: NDArray[np.uint8], references: NDArray[np.uint8], *, on_part: Callable[[int], None] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return for each query its nearest reference in pixel L2 distance, and that distance.

    Args:
        queries: (N, H, W, C) uint8.
        references: (M, H, W, C) uint8 of the same size, at least one; may be memory-mapped.
        on_part: Called with the number of references just compared.

    Returns:
        (N,) row numbers in `references`, and (N,) distances with pixel values in [0, 1].
    """
    best, index = torch.full((len(queries),), float("inf")), torch.zeros(len(queries), dtype=torch.int64)
    size = _part_rows(references)
    for first in range(0, len(references), size):
        part = _flatten(references[first : first + size])
        norms = (part**2).sum(dim=1)
        for start in range(0, len(queries), min(size, _CHUNK)):
            rows = slice(start, start + min(size, _CHUNK))
            found = torch.addmm(norms, _flatten(queries[rows]), part.T, alpha=-2).min(dim=1)  # less the query's norm
            nearer = found.values < best[rows]
            best[rows] = torch.where(nearer, found.values, best[rows])
            index[rows] = torch.where(nearer, first + found.indices, index[rows])
        if on_part is not None:
            on_part(len(part))
    return index.numpy(), _exact_distances(queries, references, index.numpy())


def _part_rows(images: NDArray[np.uint8]) -> int:
    """Return how many images are compared at a time."""
    return max(1, min(_REFERENCES, _VALUES // math.prod(images.shape[1:])))


def _flatten(images: NDArray[np.uint8]) -> Tensor:
    """Return the pixel values (N, F) in [0, 1]."""
    return torch.from_numpy(np.array(images)).flatten(1).float() / 255


def _exact_distances(
    queries: NDArray[np.uint8], references: NDArray[np.uint8], index: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the distances of chosen pairs: those of a copy are 0, which a matrix product does not give."""
    distances, size = np.zeros(len(index)), min(_CHUNK, _part_rows(references))
    for start in range(0, len(index), size):
        rows = slice(start, start + size)
        difference = queries[rows].astype(np.float32) - references[index[rows]].astype(np.float32)
        distances[rows] = np.sqrt((difference.reshape(len(difference), -1).astype(np.float64) ** 2).sum(axis=1)) / 255
    return distances
