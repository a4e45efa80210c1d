"""Pictures of synthetic rows: beside real rows, beside the training rows nearest to them, and the likeliest copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from synthaug.core import tile_images
from synthaug.data import nearest_rows

__all__ = ["Rows", "draw_closest", "draw_pictures"]

_CLASSES, _ROWS, _NEIGHBOURS, _WIDTH = 12, 8, 3, 860
_PAIRS = 6


class Rows(Protocol):
    """What is shown of rows."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(N, H, W, C) uint8."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64."""


def draw_pictures(train: Rows, synthetic: Rows, class_names: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the picture of samples and that of nearest training rows, with their captions.

    Args:
        train: Real rows that were trained on.
        synthetic: Synthetic rows; the first ones of each class are shown.
        class_names: Names of the classes, by label.
    """
    pictured = _pictured(synthetic, class_names)
    names = ", ".join(class_names[c] for c in pictured)
    samples = [_side_by_side(_first(train, c, _ROWS), _first(synthetic, c, _ROWS), _ROWS) for c in pictured]
    neighbours = [_with_neighbours(train, synthetic, c) for c in pictured]
    captions = {
        "samples": f"{_ROWS} real training rows on the left, as many synthetic ones on the right; "
        f"one line for each class: {names}.",
        "neighbours": f"Groups of {_NEIGHBOURS + 1}: a synthetic row, then the {_NEIGHBOURS} training rows nearest to "
        f"it in pixel distance, whatever their class; one line for each class: {names}.",
    }
    return {"samples": _tile(samples), "neighbours": _tile(neighbours)}, captions


def draw_closest(
    train: Rows,
    synthetic: Rows,
    class_names: Sequence[str],
    *,
    nearest: NDArray[np.int64],
    distances: NDArray[np.float64],
) -> tuple[bytes, str]:
    """Return the picture of the synthetic rows that lie nearest to a training row, with its caption.

    Args:
        train: Real rows that were trained on.
        synthetic: Synthetic rows.
        class_names: Names of the classes, by label.
        nearest: (N,) the training row nearest to each synthetic row.
        distances: (N,) its distance.
    """
    pictured, lines = _pictured(synthetic, class_names), []
    for label in pictured:
        members = np.flatnonzero(synthetic.labels == label)
        chosen = members[np.argsort(distances[members], kind="stable")[:_PAIRS]]
        blank = _blank(synthetic.pixels[:1], 1)
        pairs = [
            np.concatenate([synthetic.pixels[row][None], train.pixels[nearest[row]][None], blank]) for row in chosen
        ]
        line = np.concatenate(pairs)
        lines.append(np.concatenate([line, _blank(line, 3 * _PAIRS - len(line))]))
    names = ", ".join(class_names[c] for c in pictured)
    caption = (
        f"The {_PAIRS} synthetic rows of each class that lie nearest to a training row in pixel distance, the "
        f"nearest first, each with that training row on its right; one line for each class: {names}."
    )
    return _tile(lines), caption


def _pictured(synthetic: Rows, class_names: Sequence[str]) -> list[int]:
    return [c for c in range(len(class_names)) if (synthetic.labels == c).any()][:_CLASSES]


def _tile(lines: list[NDArray[np.uint8]]) -> bytes:
    return tile_images(lines, scale=max(1, _WIDTH // (lines[0].shape[0] * (lines[0].shape[2] + 1))))


def _first(images: Rows, label: int, count: int) -> NDArray[np.uint8]:
    return np.array(images.pixels[np.flatnonzero(images.labels == label)[:count]])


def _blank(like: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    return np.full((count, *like.shape[1:]), 255, dtype=np.uint8)


def _side_by_side(left: NDArray[np.uint8], right: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return `count` images, a gap and `count` images, filled up with blanks."""
    return np.concatenate([left, _blank(left, count - len(left) + 1), right, _blank(left, count - len(right))])


def _with_neighbours(train: Rows, synthetic: Rows, label: int) -> NDArray[np.uint8]:
    """Return, four times, a synthetic row of the class and the training rows nearest to it."""
    queries = _first(synthetic, label, 4)
    count = min(_NEIGHBOURS, len(train.labels))
    parts = []
    for query, rows in zip(queries, nearest_rows(queries, train.pixels, count), strict=True):
        parts += [query[None], np.array(train.pixels[np.sort(rows)])[np.argsort(np.argsort(rows))]]
        parts.append(_blank(queries, 1))
    line = np.concatenate(parts)
    return np.concatenate([line, _blank(line, 4 * (count + 2) - len(line))])
