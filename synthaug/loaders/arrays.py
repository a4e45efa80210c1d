"""Arrays of images as imbalanced-learn takes them, and as generators make them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthaug.core import InputError
from synthaug.data import MIN_SIZE
from synthaug.loaders.image_types import fit_pixels

__all__ = ["Canvas", "find_shape"]

LARGEST = 64
"""Side of the largest image that a generator makes, in pixels."""


def find_shape(values: NDArray[Any], image_shape: Sequence[int] | None) -> tuple[int, int, int]:
    """Return height, width and channels of the images in `values`.

    Args:
        values: (N, H, W, C), (N, H, W), or flattened (N, H * W * C).
        image_shape: (H, W, C) or (H, W); flattened images need it.

    Raises:
        InputError: They do not fit, or the shape is missing.
    """
    shape = values.shape[1:] if image_shape is None else tuple(image_shape)
    if image_shape is None and values.ndim not in (3, 4):
        raise InputError(
            f"X has the shape {values.shape}; give (N, H, W, C), or image_shape=(H, W, C) for flattened images"
        )
    shape = (*shape, 1) if len(shape) == 2 else shape
    if len(shape) != 3 or not all(isinstance(n, int | np.integer) and n > 0 for n in shape) or shape[2] > 4:
        raise InputError(f"image_shape is {image_shape or shape}; give (H, W, C) with 1 to 4 channels, or (H, W)")
    if math.prod(values.shape[1:]) != math.prod(shape):
        raise InputError(
            f"X has {math.prod(values.shape[1:])} values a row, image_shape {shape} has {math.prod(shape)}"
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


class Canvas:
    """The square on which images lie for a generator, and the numbers that its pixels become.

    The image lies in the middle of the smallest square that holds it (of at least 8 pixels; its edge is repeated
    outwards), which is resized where a generator cannot make it that large. What comes from the generator is
    resized and cropped back.

    Args:
        shape: Height, width and channels.
        values: The images that tell the value range where none is given.
        value_range: Values of black and white; None takes 0..255 for integers and 0..1 for floats.

    Raises:
        InputError: The values lie outside the range.
    """

    def __init__(
        self, shape: tuple[int, int, int], values: NDArray[Any], value_range: tuple[float, float] | None = None
    ) -> None:
        self.shape, self.dtype = shape, values.dtype
        self.side = max(*shape[:2], MIN_SIZE)
        self.size = min(self.side, LARGEST)
        whole = np.issubdtype(values.dtype, np.integer)
        self.low, self.high = value_range or ((0.0, 255.0) if whole else (0.0, 1.0))
        if not self.low < self.high:
            raise InputError(f"value_range is {value_range}; give two numbers, the smaller one first")
        if values.size and (values.min() < self.low or values.max() > self.high):
            raise InputError(
                f"X goes from {values.min():.4g} to {values.max():.4g}, outside {self.low:g} to {self.high:g}; give "
                "value_range=(black, white) of your images"
            )

    def lay(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return images as a generator is fitted on them.

        Args:
            values: (N, ...) images of `shape`, flattened or not.

        Returns:
            (N, size, size, C) uint8.
        """
        images = values.reshape(-1, *self.shape).astype(np.float64)
        scaled = np.rint((images - self.low) * (255 / (self.high - self.low))).astype(np.uint8)
        edges = [(before, self.side - length - before) for before, length in self._margins()]
        padded = np.pad(scaled, [(0, 0), *edges, (0, 0)], mode="edge")
        if self.size == self.side:
            return padded
        return np.stack([fit_pixels(image, self.shape[2], (self.size, self.size)) for image in padded])

    def take(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return what a generator made as images of `shape` and of the dtype of X.

        Args:
            pixels: (N, S, S, any channels) uint8.

        Returns:
            (N, *shape).
        """
        square = [fit_pixels(image, self.shape[2], (self.side, self.side)) for image in pixels]
        (top, height), (left, width) = self._margins()
        cropped = np.stack(square)[:, top : top + height, left : left + width]
        values = cropped * ((self.high - self.low) / 255) + self.low
        return (np.rint(values) if np.issubdtype(self.dtype, np.integer) else values).astype(self.dtype)

    def _margins(self) -> list[tuple[int, int]]:
        """Return the first pixel and the length of the image in each direction."""
        return [((self.side - length) // 2, length) for length in self.shape[:2]]
