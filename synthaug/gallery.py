"""The pictures of a benchmark: samples beside real rows, and the training rows nearest to samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synthaug.contest import Contest
from synthaug.data import LabeledImages
from synthaug.neighbours import nearest_rows
from synthaug.pictures import tile_images

__all__ = ["draw_pictures"]

_CLASSES, _ROWS, _NEIGHBOURS, _WIDTH = 12, 8, 3, 860


def draw_pictures(contest: Contest) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the picture of samples and that of nearest training rows, with their captions."""
    made = contest.synthetic
    pictured = [c for c in range(len(contest.class_names)) if (made.labels == c).any()][:_CLASSES]
    names = ", ".join(contest.class_names[c] for c in pictured)
    samples = [_side_by_side(_first(contest.train, c, _ROWS), _first(made, c, _ROWS), _ROWS) for c in pictured]
    neighbours = [_with_neighbours(contest, c) for c in pictured]
    captions = {
        "samples": f"{_ROWS} real training rows on the left, as many synthetic ones on the right; "
        f"one line for each class: {names}.",
        "neighbours": f"Groups of {_NEIGHBOURS + 1}: a synthetic row, then the {_NEIGHBOURS} training rows nearest to "
        f"it in pixel distance, whatever their class; one line for each class: {names}.",
    }
    pictures = {
        name: tile_images(rows, scale=max(1, _WIDTH // (rows[0].shape[0] * (rows[0].shape[2] + 1))))
        for name, rows in (("samples", samples), ("neighbours", neighbours))
    }
    return pictures, captions


def _first(images: LabeledImages, label: int, count: int) -> NDArray[np.uint8]:
    return np.array(images.pixels[np.flatnonzero(images.labels == label)[:count]])


def _blank(like: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    return np.full((count, *like.shape[1:]), 255, dtype=np.uint8)


def _side_by_side(left: NDArray[np.uint8], right: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return `count` images, a gap and `count` images, filled up with blanks."""
    return np.concatenate([left, _blank(left, count - len(left) + 1), right, _blank(left, count - len(right))])


def _with_neighbours(contest: Contest, label: int) -> NDArray[np.uint8]:
    """Return, four times, a synthetic row of the class and the training rows nearest to it."""
    queries = _first(contest.synthetic, label, 4)
    count = min(_NEIGHBOURS, len(contest.train))
    parts = []
    for query, rows in zip(queries, nearest_rows(queries, contest.train.pixels, count), strict=True):
        parts += [query[None], np.array(contest.train.pixels[np.sort(rows)])[np.argsort(np.argsort(rows))]]
        parts.append(_blank(queries, 1))
    line = np.concatenate(parts)
    return np.concatenate([line, _blank(line, 4 * (count + 2) - len(line))])
