"""Strong augmentation: TrivialAugment image by image, MixUp and CutMix across a batch.

Like the classical policies, an image is transformed by numbers that belong to its position of (seed, step) alone, so
arms of a benchmark that share a row share its transformation. MixUp and CutMix give a position its own weight and
box, and a partner by position. Every call takes the next stream of `rng`: calls one after the other draw fresh
numbers, also with other users of the same `rng` between them, and their order is part of the key.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as vision

from synthaug.core import BatchRandom, InputError, suggest

__all__ = ["MIXES", "OPERATIONS", "mix_images", "trivial_augment"]

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
"""What TrivialAugment chooses from, each as likely as the others."""

_GEOMETRIC = OPERATIONS[1:6]
_BINS = 31
_SHEAR, _SHIFT, _TURN, _TONE = 0.99, 1 / 3, 135.0, 0.99
_MIXUP, _CUTMIX = 0.2, 1.0
"""Parameters of the Beta distributions of MixUp and CutMix."""

MIXES = ("mixup", "cutmix")
"""The ways to mix the images of a batch."""


def trivial_augment(images: Tensor, rng: BatchRandom, *, flip: bool = False, backend: str = "torch") -> Tensor:
    """Return every image changed by one operation of a strength between nothing and its largest.

    The "wide" strengths of the paper (shear to 0.99, rotation to 135 degrees, tone factors 0.01 to 1.99, 8 to 2
    bits), in 31 steps and with either sign, as in torchvision's `TrivialAugmentWide`, but for four things. Shifts
    reach a third of the side and need not be whole pixels: 32 pixels would move small images out of sight. Shears
    keep the centre in place, not the top left corner. Moves interpolate. What they uncover is filled from the border.

    Args:
        images: (N, C, H, H) float in [-1, 1]; the last of 2 or 4 channels is alpha, which is moved but not toned.
        rng: Source of the random numbers; holds exactly N positions.
        flip: Whether half of the images are mirrored first.
        backend: "torch" (vectorised) or "albumentations" (one image after another, quantised to 8 bit).

    Returns:
        (N, C, H, H) float in [-1, 1].

    Raises:
        InputError: If the backend is unknown.

    References:
        Müller, Hutter: TrivialAugment: tuning-free yet state-of-the-art data augmentation (2021), algorithm 1.

    Example:
        >>> rng = BatchRandom(0, 0, start=0, count=2)
        >>> trivial_augment(torch.zeros(2, 1, 8, 8), rng).shape
        torch.Size([2, 1, 8, 8])
    """
    engines = {"torch": _apply_torch, "albumentations": _apply_albumentations}
    if backend not in engines:
        raise InputError(
            f"backend is {backend!r}; allowed are {', '.join(engines)}: choose one{suggest(backend, engines)}"
        )
    draws = rng.uniform(4).cpu()
    chosen = (draws[:, 0] * len(OPERATIONS)).long()
    strength = (draws[:, 1] * _BINS).floor() / (_BINS - 1)
    sign = torch.where(draws[:, 2] < 0.5, -1.0, 1.0)
    if flip:
        mirrored = (draws[:, 3] < 0.5).to(images.device)[:, None, None, None]
        images = torch.where(mirrored, images.flip(-1), images)
    return engines[backend](images, chosen, strength, sign)


def _apply_torch(images: Tensor, chosen: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    images, names = images.clone(), [OPERATIONS[number] for number in chosen.tolist()]
    signed = (strength * sign).tolist()
    moved = [row for row, name in enumerate(names) if name in _GEOMETRIC]
    if moved:
        where = torch.tensor(moved).to(images.device)
        matrices = torch.tensor([_matrix(names[row], signed[row]) for row in moved], dtype=torch.float32)
        part = images[where]
        grid = functional.affine_grid(matrices.to(images), list(part.shape), align_corners=False)
        images[where] = functional.grid_sample(part, grid, mode="bilinear", padding_mode="border", align_corners=False)
    groups = {name: [row for row, other in enumerate(names) if other == name] for name in _TONES if name in names}
    if groups:
        _tone(images, groups, strength, sign)
    return images


def _tone(images: Tensor, groups: dict[str, list[int]], strength: Tensor, sign: Tensor) -> None:
    """Apply each tone to its rows of `images`, in place; rows travel together, as small calls cost the most."""
    colours = images.shape[1] - (images.shape[1] in (2, 4))
    order = torch.tensor([row for rows in groups.values() for row in rows])
    place, sizes = order.to(images.device), [len(rows) for rows in groups.values()]
    shades = (images[place, :colours] + 1) / 2
    amounts = [values[order].to(shades)[:, None, None, None].split_with_sizes(sizes) for values in (strength, sign)]
    parts = zip(groups, shades.split_with_sizes(sizes), *amounts, strict=True)
    images[place, :colours] = torch.cat([_TONES[name](*part) for name, *part in parts]) * 2 - 1


def _matrix(name: str, amount: float) -> list[list[float]]:
    """Return the (2, 3) map from output to input coordinates in [-1, 1] for a signed strength in [-1, 1]."""
    cos, sin = math.cos(math.radians(_TURN * amount)), math.sin(math.radians(_TURN * amount))
    rows: dict[str, list[list[float]]] = {
        "shear_x": [[1, _SHEAR * amount, 0], [0, 1, 0]],
        "shear_y": [[1, 0, 0], [_SHEAR * amount, 1, 0]],
        "translate_x": [[1, 0, 2 * _SHIFT * amount], [0, 1, 0]],
        "translate_y": [[1, 0, 0], [0, 1, 2 * _SHIFT * amount]],
        "rotate": [[cos, sin, 0], [-sin, cos, 0]],
    }
    return rows[name]


# Tones take shades (N, C, H, W) in [0, 1], and strength and sign (N, 1, 1, 1).


def _blend(shades: Tensor, plain: Tensor | float, strength: Tensor, sign: Tensor) -> Tensor:
    """Return factor x shades + (1 - factor) x plain with the factor 1 + signed strength."""
    factor = 1 + _TONE * strength * sign
    return (factor * shades + (1 - factor) * plain).clamp(0, 1)


def _grey(shades: Tensor) -> Tensor:
    if shades.shape[1] == 1:
        return shades
    weights = torch.tensor([0.2989, 0.587, 0.114])
    return (shades * (weights / weights.sum()).to(shades)[:, None, None]).sum(dim=1, keepdim=True)


def _soften(shades: Tensor) -> Tensor:
    """Return every inner pixel averaged with its neighbours, as Pillow's SMOOTH does; the border stays."""
    kernel = torch.tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13
    kernel = kernel.to(shades).expand(shades.shape[1], 1, 3, 3)
    soft = shades.clone()
    soft[..., 1:-1, 1:-1] = functional.conv2d(shades, kernel, groups=shades.shape[1])
    return soft


def _posterize(shades: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    width = 2.0 ** (strength * 6).round()
    return torch.floor((shades * 255).round() / width) * width / 255


def _solarize(shades: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return torch.where(shades >= 1 - strength, 1 - shades, shades)


def _stretch(shades: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    low, high = shades.amin(dim=(2, 3), keepdim=True), shades.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (shades - low) / (high - low).clamp(min=1e-6), shades)


def _equalize(shades: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    flat: Tensor = vision.equalize_image((shades * 255).round().to(torch.uint8))
    return flat.to(shades) / 255


_TONES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "brightness": lambda shades, *amount: _blend(shades, 0.0, *amount),
    "color": lambda shades, *amount: _blend(shades, _grey(shades), *amount) if shades.shape[1] == 3 else shades,
    "contrast": lambda shades, *amount: _blend(shades, _grey(shades).mean(dim=(2, 3), keepdim=True), *amount),
    "sharpness": lambda shades, *amount: _blend(shades, _soften(shades), *amount),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _stretch,
    "equalize": _equalize,
}


@functools.lru_cache(maxsize=1024)
def _pipeline(name: str, amount: float, size: int) -> Any:
    """Return the albumentations transform of one operation at a signed strength, None where nothing changes.

    Every range is a single value, so no transform has anything left to draw and none needs a seed.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import otherwise asks the package index
    import albumentations as library
    import cv2

    cv2.setNumThreads(0)
    moving: dict[str, Any] = {"border_mode": cv2.BORDER_REPLICATE, "interpolation": cv2.INTER_LINEAR, "p": 1.0}
    factor, angle = 1 + _TONE * amount, math.degrees(math.atan(_SHEAR * amount))
    bits = 8 - round(6 * abs(amount))
    if name == "posterize" and bits == 8:  # the library refuses to keep all bits
        return None
    fixed = {
        "shear_x": lambda: library.Affine(shear={"x": (angle, angle), "y": (0.0, 0.0)}, **moving),
        "shear_y": lambda: library.Affine(shear={"x": (0.0, 0.0), "y": (angle, angle)}, **moving),
        "translate_x": lambda: library.Affine(translate_px={"x": round(-_SHIFT * amount * size), "y": 0}, **moving),
        "translate_y": lambda: library.Affine(translate_px={"x": 0, "y": round(-_SHIFT * amount * size)}, **moving),
        "rotate": lambda: library.Affine(rotate=(-_TURN * amount,) * 2, **moving),
        "brightness": lambda: _jitter(library, brightness=(factor, factor)),
        "color": lambda: _jitter(library, saturation=(factor, factor)),
        "contrast": lambda: _jitter(library, contrast=(factor, factor)),
        "posterize": lambda: library.Posterize(num_bits=bits, p=1.0),
        "solarize": lambda: library.Solarize(threshold_range=(1 - abs(amount),) * 2, p=1.0),
        "autocontrast": lambda: library.AutoContrast(method="pil", p=1.0),
        "equalize": lambda: library.Equalize(mode="pil", by_channels=True, p=1.0),
    }
    return fixed[name]() if name in fixed else None


def _jitter(library: Any, **factors: tuple[float, float]) -> Any:
    rest: dict[str, Any] = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    return library.ColorJitter(**{**rest, **factors}, p=1.0)


def _apply_albumentations(images: Tensor, chosen: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Apply the same operations with albumentations; what it lacks (sharpening by a factor) is done in torch."""
    colours, results = images.shape[1] - (images.shape[1] in (2, 4)), list[Tensor]()
    for row, (number, amount) in enumerate(zip(chosen.tolist(), (strength * sign).tolist(), strict=True)):
        name, one = OPERATIONS[number], images[row : row + 1]
        transform = _pipeline(name, amount, images.shape[-1])
        if name == "sharpness" or (name == "color" and colours != 3):
            one = _apply_torch(one, *(values[row : row + 1] for values in (chosen, strength, sign)))
        elif transform is not None:
            whole = ((one[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            part = whole if name in _GEOMETRIC else whole[..., :colours]
            done = transform(image=np.ascontiguousarray(part))["image"].reshape(part.shape)
            joined = done if name in _GEOMETRIC else np.concatenate([done, whole[..., colours:]], axis=-1)
            one = (torch.from_numpy(joined).permute(2, 0, 1).to(images) / 127.5 - 1)[None]
        results.append(one)
    return torch.cat(results) if results else images


def mix_images(images: Tensor, targets: Tensor, rng: BatchRandom, *, kind: str) -> tuple[Tensor, Tensor]:
    r"""Return every image of a batch mixed with another one of it, and the targets mixed as much.

    .. math:: x' = \lambda x + (1 - \lambda) x_j, \quad y' = \lambda y + (1 - \lambda) y_j, \quad
              \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    "mixup" blends whole images, with alpha 0.2, of the paper's 0.1 to 0.4 for ImageNet (it takes 1 for CIFAR).
    "cutmix", with alpha 1, pastes a box of the share 1 - lambda of the area, and lambda then is the share of pixels
    that stayed. Each image has a lambda, a box and a partner of its own.

    Args:
        images: (N, C, H, W) float.
        targets: (N, K) float, rows that sum to one.
        rng: Source of the random numbers; holds exactly N positions.
        kind: "mixup" or "cutmix".

    Returns:
        Images (N, C, H, W) and targets (N, K).

    Raises:
        InputError: If the kind is unknown.

    References:
        Zhang et al.: mixup: beyond empirical risk minimization (2018), eq. 1 in section 2.
        Yun et al.: CutMix (2019), eq. 1 and 2.
    """
    if kind not in MIXES:
        raise InputError(f"mix is {kind!r}; allowed are {', '.join(MIXES)}: choose one{suggest(kind, MIXES)}")
    draws = rng.uniform(4).double().cpu()
    partner = draws[:, 0].argsort(stable=True).to(images.device)
    alpha = _MIXUP if kind == "mixup" else _CUTMIX
    kept = torch.from_numpy(np.asarray(betaincinv(alpha, alpha, draws[:, 1].numpy())))
    if kind == "mixup":
        share = kept.to(images)[:, None, None, None]
        mixed = share * images + (1 - share) * images[partner]
    else:
        inside = _boxes(kept, draws[:, 2:], images.shape[-2], images.shape[-1]).to(images.device)
        kept = 1 - inside.double().mean(dim=(1, 2)).cpu()
        mixed = torch.where(inside[:, None], images[partner], images)
    weight = kept.to(targets)[:, None]
    return mixed, weight * targets + (1 - weight) * targets[partner]


def _boxes(kept: Tensor, centres: Tensor, height: int, width: int) -> Tensor:
    """Return (N, H, W) bool: within the box around a centre, cut at the border."""
    half = (1 - kept).sqrt()[:, None] / 2
    spans = []
    for axis, side in ((0, height), (1, width)):
        centre = centres[:, axis : axis + 1] * side
        places = torch.arange(side, dtype=torch.float64)[None] + 0.5
        spans.append((places - centre).abs() < half * side)
    return spans[0][:, :, None] & spans[1][:, None, :]
