"""Pictures of many small images: grids as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["tile_images"]

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def tile_images(rows: Sequence[NDArray[np.uint8]], *, scale: int | None = None, gap: int = 1) -> bytes:
    """Return a PNG with one row of images for each entry of `rows`.

    Args:
        rows: Arrays (n, H, W, C) uint8 of the same H, W, C; n may differ.
        scale: Every pixel becomes a square of this many pixels; None makes an image about 56 px wide.
        gap: White pixels (before scaling) between images.
    """
    filled = [row for row in rows if len(row)]
    height, width, channels = filled[0].shape[1:] if filled else (1, 1, 1)
    scale = scale or max(1, 56 // width)
    columns = max((len(row) for row in rows), default=1)
    shape = (len(rows) * (height + gap) + gap, columns * (width + gap) + gap, channels)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = gap + r * (height + gap), gap + c * (width + gap)
            canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas[..., 0] if channels == 1 else canvas, mode=_MODES[channels])
    picture = picture.resize((shape[1] * scale, shape[0] * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()
