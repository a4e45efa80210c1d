"""What moving along a latent direction does to an image, measured and put into words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.analysis.exploration.appearance import measure_appearance
from synthaug.generators import Direction, LatentSpace

__all__ = ["Effect", "Traversal", "measure_effects", "traverse"]

_LEAST_EFFECT, _LEAST_CONSISTENCY, _NAMED = 0.15, 0.6, 3
_STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)


@dataclass(frozen=True)
class Effect:
    """How one statistic follows a direction.

    Args:
        statistic: Its name, see `measure_appearance`.
        strength: Change for one standard deviation along the direction, in standard deviations of the
            statistic over the images.
        consistency: Mean correlation over the images moved, in [-1, 1].
    """

    statistic: str
    strength: float
    consistency: float


@dataclass(frozen=True)
class Traversal:
    """A direction with what it does.

    Args:
        direction: Where it goes.
        change: Root mean square change of a pixel for one standard deviation, in [-1, 1] units.
        effects: All statistics, strongest first.
    """

    direction: Direction
    change: float
    effects: list[Effect]

    @property
    def named(self) -> list[Effect]:
        """The effects that are strong and the same from image to image."""
        clear = [e for e in self.effects
                 if abs(e.strength) >= _LEAST_EFFECT and abs(e.consistency) >= _LEAST_CONSISTENCY]  # fmt: skip
        return clear[:_NAMED]

    def describe(self) -> str:
        """Return e.g. "dimension 7 (1.9 nats): slant +0.84, also width -0.31"."""
        size = f" ({self.direction.nats:.2f} nats)" if self.direction.nats is not None else ""
        words = [f"{effect.statistic} {effect.strength:+.2f}" for effect in self.named]
        if not words:
            seen = f"no simple statistic follows it (pixels change by {self.change:.3f})"
            return f"{self.direction.title}{size}: {seen}"
        more = f", also {', '.join(words[1:])}" if words[1:] else ""
        return f"{self.direction.title}{size}: {words[0]}{more}"


def traverse(
    space: LatentSpace, direction: Direction, bases: Tensor, centres: Tensor, labels: Tensor, steps: Tensor
) -> Tensor:
    r"""Return images (N, steps, C, H, W) with the latents' coordinate along a direction set to each step.

    .. math:: z_t = z + \left(t s - u^{\top} (z - m_y)\right) u

    Args:
        space: Decodes.
        direction: u and its spread s.
        bases: (N, D) latents z.
        centres: (N, D) mean latents m_y of the class of each.
        labels: (N,) int64.
        steps: (T,) t, in standard deviations.
    """
    own = (bases - centres) @ direction.vector
    shift = steps[None] * direction.spread - own[:, None]
    moved = bases[:, None] + shift[..., None] * direction.vector
    images = space.decode(moved.flatten(0, 1), labels.repeat_interleave(len(steps)))
    return images.reshape(len(bases), len(steps), *images.shape[1:])


def measure_effects(
    space: LatentSpace,
    direction: Direction,
    bases: Tensor,
    centres: Tensor,
    labels: Tensor,
    spreads: dict[str, float],
) -> Traversal:
    """Return how the statistics of images follow a direction.

    Args:
        space: Decodes.
        direction: The direction.
        bases: (N, D) latents, some of each class.
        centres: (N, D) mean latents of their classes.
        labels: (N,) int64.
        spreads: Statistic -> its standard deviation over many images; see `measure_appearance`.
    """
    steps = torch.tensor(_STEPS)
    images = traverse(space, direction, bases, centres, labels, steps)
    change = float(((images[:, 3] - images[:, 1]) / 2).square().mean().sqrt())
    effects = []
    for name, values in measure_appearance(images.flatten(0, 1)).items():
        values = values.reshape(len(bases), len(steps))
        away, t = values - values.mean(1, keepdim=True), steps.double()
        slopes = (away @ t) / (t**2).sum()
        correlation = (away @ t) / ((away**2).sum(1) * (t**2).sum()).sqrt().clamp_min(1e-9)
        effects.append(Effect(name, float(slopes.mean()) / max(spreads[name], 1e-6), float(correlation.mean())))
    effects.sort(key=lambda effect: -abs(effect.strength * effect.consistency))
    return Traversal(direction, change, effects)
