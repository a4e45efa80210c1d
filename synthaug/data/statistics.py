"""What the images of a dataset are like, and the codec that follows from it."""

from __future__ import annotations

import statistics
from collections import Counter

import numpy as np
from PIL import Image

from synthaug.data.codec import MIN_SIZE, Codec, find_depth, has_alpha

__all__ = ["DEFAULT_SIZE", "ImageStatistics"]

DEFAULT_SIZE = 64
"""Largest size that is chosen when the user names none, in pixels."""


class ImageStatistics:
    """Sizes, modes and value ranges of the images seen, from which the codec follows."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, int, int, bool, bool]] = Counter()
        self._integers: tuple[float, float] | None = None
        self._floats: tuple[float, float] | None = None
        self._depths: set[str] = set()

    def add(self, image: Image.Image) -> None:
        """Count one image as its file stores it; only images of more than 8 bits need their pixels."""
        mode = image.mode
        self._depths.add(find_depth(image))
        if mode == "F":
            self._floats = _widen(self._floats, image)
        elif mode.startswith("I"):
            self._integers = _widen(self._integers, image)
        self._seen[mode, image.width, image.height, has_alpha(image), _is_grey(image)] += 1

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """How many images have each (width, height) in pixels, as stored."""
        counter: Counter[tuple[int, int]] = Counter()
        for (_, width, height, _, _), number in self._seen.items():
            counter[width, height] += number
        return counter

    @property
    def modes(self) -> Counter[str]:
        """How many images have each Pillow mode."""
        counter: Counter[str] = Counter()
        for (mode, *_), number in self._seen.items():
            counter[mode] += number
        return counter

    def codec(self, image_size: int | None = None) -> Codec:
        """Return the codec that suits all images seen.

        The size is the median of the shorter sides, within 8..64; the channels are grey where every image is
        grey, with alpha where every image has it; the value range of integer images is 0..2**k - 1, that of
        floating-point ones 0..1 or 0..255 where they fit, else what occurs.
        """
        shorter = Counter[int]()
        for (width, height), number in self.sizes.items():
            shorter[min(width, height)] += number
        common = statistics.median_low(shorter.elements()) if shorter else DEFAULT_SIZE
        grey = all(key[4] for key in self._seen) and bool(self._seen)
        alpha = all(key[3] for key in self._seen) and bool(self._seen)
        size = min(max(common, MIN_SIZE), DEFAULT_SIZE) if image_size is None else image_size
        return Codec(size, (1 if grey else 3) + alpha, self._value_range(), self.depth)

    @property
    def depth(self) -> str:
        """How the images store their values: one of `DEPTHS`, or "mixed"."""
        return next(iter(self._depths), "uint8") if len(self._depths) < 2 else "mixed"

    def _value_range(self) -> tuple[float, float] | None:
        both = [pair for pair in (self._integers, self._floats) if pair is not None]
        if not both:
            return None
        low, high = min(pair[0] for pair in both), max(pair[1] for pair in both)
        if low >= 0 and self._floats is None:
            return 0.0, float(max(2 ** int(high).bit_length() - 1, 1))
        for limit in (1.0, 255.0):
            if low >= 0 and high <= limit:
                return 0.0, limit
        return low, high if high > low else low + 1.0


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA") and image.palette is not None:
        return all(len(set(color[:3])) == 1 for color in image.palette.colors)
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _widen(bounds: tuple[float, float] | None, image: Image.Image) -> tuple[float, float]:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("pixels that are not finite numbers")
    return (low, high) if bounds is None else (min(low, bounds[0]), max(high, bounds[1]))
