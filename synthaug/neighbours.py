"""Nearest images: near-duplicates between two sets, and the training rows a synthetic row resembles most."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["find_near_duplicates", "nearest_rows"]

_CHUNK = 1_024
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
