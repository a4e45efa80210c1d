"""Classical augmentation: the same policies in torch (vectorised, counter-based) and in albumentations.

The torch engine augments a whole batch at once from random numbers keyed by (seed, step, position), so that
every arm of a benchmark sees the same transformed real rows. The albumentations engine re-seeds its pipeline
for every image from the same source, because in its last free release workers otherwise repeat each other.

References:
    Buslaev et al.: Albumentations: fast and flexible image augmentations (2020).
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from synthaug.core.errors import InputError, suggest
from synthaug.core.noise import BatchRandom

__all__ = ["BACKENDS", "POLICIES", "Policy", "augment"]


@dataclass(frozen=True)
class Policy:
    """How far an image may be moved; every amount is drawn uniformly within its range, per image.

    Args:
        rotate: Largest rotation in degrees, either way.
        translate: Largest shift as a fraction of the side, per axis.
        scale: Zoom factors 1 - scale to 1 + scale.
        shear: Largest horizontal shear in degrees.
        flip: Whether half of the images are mirrored left to right.
        brightness: Largest shift of the grey value, as a fraction of the full range.
        contrast: Grey values are multiplied by 1 - contrast to 1 + contrast.
    """

    rotate: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0


_AFFINE = Policy(rotate=12.0, translate=0.08, scale=0.1, shear=8.0)
_TONED = replace(_AFFINE, brightness=0.15, contrast=0.25)

POLICIES: dict[str, Policy] = {
    "affine": _AFFINE,
    "affine+flip": replace(_AFFINE, flip=True),
    "affine+tone": _TONED,
    "affine+flip+tone": replace(_TONED, flip=True),
}
"""The policies a benchmark chooses from on validation rows, the mildest first (ties go to it)."""


def _matrices(policy: Policy, draws: Tensor) -> Tensor:
    """Return the (N, 2, 3) maps from output to input coordinates in [-1, 1] for uniform draws (N, 8)."""
    signed = 2 * draws - 1
    angle = signed[:, 0] * math.radians(policy.rotate)
    zoom = 1 + signed[:, 1] * policy.scale
    shear = torch.tan(signed[:, 2] * math.radians(policy.shear))
    mirror = 1 - 2 * (draws[:, 5] < 0.5).float() if policy.flip else torch.ones_like(angle)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    shift = signed[:, 3:5] * (2 * policy.translate)
    # The mirror comes first (on the right of the inverse map: last on the coordinates of the input).
    rows = torch.stack(
        [
            torch.stack([mirror * (cos + shear * -sin), mirror * (sin + shear * cos)], dim=-1),
            torch.stack([-sin, cos], dim=-1),
        ],
        dim=1,
    )
    offset = -(rows @ shift[:, :, None])
    return torch.cat([rows, offset], dim=2)


def _augment_torch(images: Tensor, policy: Policy, rng: BatchRandom) -> Tensor:
    draws = rng.uniform(8).to(images.device)
    grid = functional.affine_grid(_matrices(policy, draws), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if policy.brightness == 0 and policy.contrast == 0:
        return moved
    gain = (1 + (2 * draws[:, 6] - 1) * policy.contrast)[:, None, None, None]
    bias = ((2 * draws[:, 7] - 1) * policy.brightness)[:, None, None, None]
    colours = moved.shape[1] - (moved.shape[1] in (2, 4))  # an alpha channel has no brightness
    toned = (((moved[:, :colours] + 1) / 2 * gain + bias).clamp(0, 1)) * 2 - 1
    return torch.cat([toned, moved[:, colours:]], dim=1)


@functools.cache
def _pipelines(policy: Policy, size: int) -> tuple[Any, Any]:
    """Return the albumentations pipelines for geometry (all channels) and tone (colours only).

    It shifts by whole pixels: -m to m has the variance of the policy's shift t where m (m + 1) = t^2.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import otherwise asks the package index
    import albumentations
    import cv2

    cv2.setNumThreads(0)
    shift = round((math.sqrt(1 + 4 * (policy.translate * size) ** 2) - 1) / 2)
    moves: list[Any] = [albumentations.HorizontalFlip(p=0.5)] if policy.flip else []
    moves.append(
        albumentations.Affine(
            rotate=(-policy.rotate, policy.rotate),
            translate_px=dict.fromkeys("xy", (-shift, shift)),
            scale=(1 - policy.scale, 1 + policy.scale),
            shear={"x": (-policy.shear, policy.shear), "y": (0.0, 0.0)},
            interpolation=cv2.INTER_LINEAR,
            border_mode=cv2.BORDER_REPLICATE,
            keep_ratio=True,
            p=1.0,
        )
    )
    tone = albumentations.RandomBrightnessContrast(
        brightness_limit=(-policy.brightness, policy.brightness),
        contrast_limit=(-policy.contrast, policy.contrast),
        p=1.0,
    )
    return albumentations.Compose(moves), albumentations.Compose([tone])


def _augment_albumentations(images: Tensor, policy: Policy, rng: BatchRandom) -> Tensor:
    geometry, tone = _pipelines(policy, images.shape[-1])
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    colours = pixels.shape[-1] - (pixels.shape[-1] in (2, 4))
    results = []
    for image, seed in zip(pixels, rng.integers(2**31 - 1).tolist(), strict=True):
        geometry.set_random_seed(seed)
        moved = geometry(image=np.ascontiguousarray(image))["image"].reshape(image.shape)
        if policy.brightness or policy.contrast:
            tone.set_random_seed(seed)
            toned = tone(image=np.ascontiguousarray(moved[..., :colours]))["image"]
            moved = np.concatenate([toned.reshape(*image.shape[:2], colours), moved[..., colours:]], axis=-1)
        results.append(moved)
    stacked = torch.from_numpy(np.stack(results)).to(images.device)
    return stacked.permute(0, 3, 1, 2).to(images.dtype) / 127.5 - 1


BACKENDS: dict[str, Callable[[Tensor, Policy, BatchRandom], Tensor]] = {
    "torch": _augment_torch,
    "albumentations": _augment_albumentations,
}
"""The engines that can carry out a policy."""


def augment(images: Tensor, policy: Policy, rng: BatchRandom, *, backend: str = "torch") -> Tensor:
    """Return every image moved at random within `policy`.

    Image i is transformed by numbers that belong to position i of (seed, step) alone, so a batch in which
    some rows were exchanged keeps the transformations of all others.

    Args:
        images: (N, C, H, W) float in [-1, 1]; the last of 2 or 4 channels is alpha and keeps its brightness.
        policy: The ranges to draw from.
        rng: Source of the random numbers; holds exactly N positions.
        backend: "torch" (vectorised) or "albumentations" (one image after another, quantised to 8 bit).

    Returns:
        (N, C, H, W) float in [-1, 1].

    Raises:
        InputError: If the backend is unknown.

    Example:
        >>> rng = BatchRandom(0, 0, start=0, count=2)
        >>> augment(torch.zeros(2, 1, 8, 8), POLICIES["affine"], rng).shape
        torch.Size([2, 1, 8, 8])
    """
    if backend not in BACKENDS:
        hint = suggest(backend, BACKENDS)
        raise InputError(f"backend is {backend!r}; allowed are {', '.join(BACKENDS)}: choose one{hint}")
    return BACKENDS[backend](images, policy, rng)
