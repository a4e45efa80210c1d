"""What can be measured of how an image looks: ink, strokes, place, extent, slant, colour, sharpness."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["measure_appearance"]

_TINY = 1e-4


def measure_appearance(images: Tensor) -> dict[str, Tensor]:
    r"""Return simple statistics of images, name -> (N,) float64.

    Ink w is how far a pixel's grey lies from the background, which is the median of the frame. With ink as
    weights over the pixels' places (u rightwards, v downwards, from -1 to 1):

    .. math:: \bar u = \frac{\sum w u}{\sum w}, \quad \text{width} = \sqrt{\mathrm{var}\,u}, \quad
              \text{slant} = -\frac{\mathrm{cov}(u, v)}{\mathrm{var}\,v}, \quad
              \text{stroke thickness} = \frac{2 \sum w}{\sum |\nabla w|}

    A slant is positive where the upper part leans to the right; thickness is in pixels.

    Args:
        images: (N, C, H, W) float in [-1, 1]; an alpha channel (C of 2 or 4) is left out.

    Returns:
        brightness, ink, stroke thickness, horizontal position (rightwards), vertical position (downwards),
        width, height, slant, sharpness, and for colour images red, green and blue (against the mean of all).
    """
    colours = images.double()[:, : 3 if images.shape[1] >= 3 else 1]
    grey = colours.mean(dim=1)
    frame = torch.cat([grey[:, 0], grey[:, -1], grey[:, 1:-1, 0], grey[:, 1:-1, -1]], dim=1)
    ink = (grey - frame.median(dim=1).values[:, None, None]).abs()
    found = {"brightness": grey.mean(dim=(1, 2)), "ink": ink.mean(dim=(1, 2)), **_shape(ink)}
    second = F.conv2d(grey[:, None], _LAPLACE.to(grey))[:, 0]
    found["sharpness"] = second.flatten(1).std(dim=1) / grey.flatten(1).std(dim=1).clamp_min(_TINY)
    if colours.shape[1] == 3:
        balance = colours.mean(dim=(2, 3)) - grey.mean(dim=(1, 2))[:, None]
        found |= dict(zip(("red", "green", "blue"), balance.unbind(1), strict=True))
    return found


_LAPLACE = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]


def _shape(ink: Tensor) -> dict[str, Tensor]:
    """Return thickness, place, extent and slant from ink (N, H, W)."""
    v, u = (torch.linspace(-1, 1, size, dtype=ink.dtype, device=ink.device) for size in ink.shape[1:])
    total = ink.sum(dim=(1, 2)).clamp_min(_TINY)
    columns, rows = ink.sum(1), ink.sum(2)
    middle_u, middle_v = (columns @ u) / total, (rows @ v) / total
    away_u, away_v = u[None] - middle_u[:, None], v[None] - middle_v[:, None]
    variance_u = (columns * away_u**2).sum(1) / total
    variance_v = (rows * away_v**2).sum(1) / total
    covariance = torch.einsum("nvu,nu,nv->n", ink, away_u, away_v) / total
    gradient_v, gradient_u = torch.gradient(ink, dim=(1, 2))
    edges = (gradient_u**2 + gradient_v**2).sqrt().sum(dim=(1, 2)).clamp_min(_TINY)
    return {
        "stroke thickness": 2 * total / edges,
        "horizontal position": middle_u,
        "vertical position": middle_v,
        "width": variance_u.sqrt(),
        "height": variance_v.sqrt(),
        "slant": -covariance / variance_v.clamp_min(_TINY),
    }
