"""Images of every type that data sets yield: read as pixels, and made again in the type of an example."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor
from torchvision import tv_tensors

from synthaug.core import InputError

__all__ = ["fit_pixels", "imitate_image", "imitate_value", "read_pixels", "to_picture"]

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_CHANNELS = {mode: channels for channels, mode in _MODES.items()}


def read_pixels(image: Any) -> NDArray[np.uint8]:
    """Return an image as pixels.

    Args:
        image: A PIL image; a tensor (C, H, W) or (H, W), or an array (H, W, C) or (H, W), each of uint8, or of
            floats in [0, 1].

    Returns:
        (H, W, C) uint8.

    Raises:
        InputError: It is none of these, or its values lie outside [0, 1].
    """
    if isinstance(image, PillowImage.Image):
        if image.mode == "F" or image.mode.startswith("I"):
            raise InputError(
                f"an image has the mode {image.mode} (more than 8 bits); give images of 8 bits, or tensors or arrays "
                "of floats in [0, 1]"
            )
        plain = image if image.mode in _CHANNELS else image.convert("RGB")
        values = np.asarray(plain)
    elif isinstance(image, Tensor):
        tensor = image.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor  # numpy knows no bfloat16
        values = (tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor).numpy()
    elif isinstance(image, np.ndarray):
        values = image
    else:
        raise InputError(
            f"an image is a {type(image).__name__}; give PIL images, tensors (C, H, W) or arrays (H, W, C)"
        )
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[2] not in _MODES:
        raise InputError(f"an image has the shape {tuple(image.shape)}; give (C, H, W) tensors or (H, W, C) arrays")
    return _to_bytes(values)


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"an image holds {values.dtype}; give uint8, or floats in [0, 1]")
    if values.size and not 0 <= values.min() <= values.max() <= 1:
        raise InputError(
            f"an image holds values from {values.min():.4g} to {values.max():.4g}, so it is already normalised; give "
            "the data set without its transform, and the transform as `transform`"
        )
    return np.asarray(np.rint(values * 255), np.uint8)


def fit_pixels(pixels: NDArray[np.uint8], channels: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return pixels with this number of channels and this size.

    Args:
        pixels: (H, W, C) uint8.
        channels: 1 to 4; grey and colour are turned into each other, alpha is dropped or opaque.
        size: Height and width, reached bicubically; None leaves them.

    Returns:
        (*size, channels) uint8; `pixels` itself where nothing is to be done.
    """
    if pixels.shape[2] == channels and size in (None, pixels.shape[:2]):
        return pixels
    image = to_picture(pixels).convert(_MODES[channels])
    if size is not None and size != pixels.shape[:2]:
        image = image.resize((size[1], size[0]), PillowImage.Resampling.BICUBIC)
    return np.asarray(image).reshape(image.height, image.width, channels)


def to_picture(pixels: NDArray[np.uint8]) -> PillowImage.Image:
    """Return pixels (H, W, C) uint8 as a PIL image of mode L, LA, RGB or RGBA."""
    return PillowImage.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def imitate_image(pixels: NDArray[np.uint8], example: Any) -> Any:
    """Return pixels as an image of the type of an example.

    A tensor or an array takes the example's dtype, channels and size. A PIL image takes its mode where that has
    more channels, and keeps its own size: sizes of files vary, and transforms resize.

    Args:
        pixels: (H, W, C) uint8.
        example: What `read_pixels` reads.
    """
    if isinstance(example, PillowImage.Image):
        channels = max(pixels.shape[2], _CHANNELS.get(example.mode, 1))
        return to_picture(fit_pixels(pixels, channels, None))
    flat = example.ndim == 2
    if isinstance(example, Tensor):
        height, width = example.shape[-2:]
        values = fit_pixels(pixels, 1 if flat else example.shape[0], (height, width))
        tensor = torch.from_numpy(values.transpose(2, 0, 1).copy()).reshape(example.shape)
        tensor = tensor.to(example.dtype) if example.dtype == torch.uint8 else (tensor / 255).to(example.dtype)
        return tv_tensors.wrap(tensor, like=example) if isinstance(example, tv_tensors.TVTensor) else tensor
    height, width = example.shape[:2]
    values = fit_pixels(pixels, 1 if flat else example.shape[2], (height, width)).reshape(example.shape)
    return values.copy() if example.dtype == np.uint8 else (values / 255).astype(example.dtype)


def imitate_value(value: Any, example: Any) -> Any:
    """Return a label as the type of an example: a tensor, a numpy number or a plain Python value."""
    if isinstance(example, Tensor):
        return torch.as_tensor(value, dtype=example.dtype).reshape(example.shape)
    if isinstance(example, np.ndarray | np.generic):
        return example.dtype.type(value) if isinstance(example, np.generic) else np.full_like(example, value)
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.item()
    return value
