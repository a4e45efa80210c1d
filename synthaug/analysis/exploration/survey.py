"""A survey of a latent space: every picture that family and rows allow, and the directions that matter."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.analysis.exploration.appearance import measure_appearance
from synthaug.analysis.exploration.panels import (
    PICTURED,
    Panel,
    draw_classes,
    draw_images,
    draw_nearest,
    draw_pairs,
    draw_samples,
    draw_temperatures,
    draw_traversals,
)
from synthaug.analysis.exploration.traversals import Traversal, measure_effects
from synthaug.data import LabeledImages, to_tensor
from synthaug.generators import LatentSpace, find_directions

__all__ = ["Survey", "describe_traversal", "survey_space"]

_DIRECTIONS, _ROWS, _BASES = 10, 512, 24


@dataclass(frozen=True)
class Survey:
    """What was drawn and found.

    Args:
        panels: The pictures.
        traversals: The directions that matter, with what they do.
        notes: What is missing, and what it would need.
    """

    panels: list[Panel]
    traversals: list[Traversal]
    notes: list[str]


def survey_space(space: LatentSpace, training: LabeledImages | None, why: str, *, per_class: int, seed: int) -> Survey:
    """Draw every panel that family and rows allow.

    Args:
        space: The latent space.
        training: The rows of the fit, or None.
        why: Why there are none.
        per_class: Samples of each class.
        seed: Seed of the draws.
    """
    rng = torch.Generator().manual_seed(seed)
    classes = list(range(min(space.generator.num_classes, PICTURED)))
    print("exploring: samples and classes", file=sys.stderr)
    panels = [
        draw_samples(space, classes, per_class, rng),
        draw_temperatures(space, classes, rng),
        draw_classes(space, classes, rng),
        draw_pairs(space, classes, rng),
    ]
    notes = []
    if training is not None and space.encodes:
        panels.append(draw_images(space, classes, training, rng))
    elif not space.encodes:
        notes.append(
            f"a {space.generator.family} has no encoder, so real images cannot be placed in its latent space: "
            "interpolation between real images needs an encoder (cvae or glow), and all other ways and directions "
            "go through the noise behind the samples"
        )
    print("exploring: directions", file=sys.stderr)
    latents, images, labels = _gather(space, training if space.encodes else None, rng)
    traversals, bases = _find_traversals(space, latents, images, labels)
    if traversals:
        panels.append(draw_traversals(space, traversals, *bases))
    if training is not None:
        panels.append(draw_nearest(space, classes, training, rng))
    else:
        notes.append(why)
    if space.generator.num_classes > PICTURED:
        notes.append(f"the first {PICTURED} of {space.generator.num_classes} classes are pictured")
    return Survey(panels, traversals, notes)


def _gather(space: LatentSpace, training: LabeledImages | None, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents, images and labels of some training rows, or of samples, all classes alike."""
    number = space.generator.num_classes
    if training is None:
        labels = torch.arange(_ROWS) % number
        latents, images = space.draw(labels, rng)
        return latents, images, labels
    order = torch.randperm(len(training), generator=rng).numpy()
    most = -(-_ROWS // number)
    chosen = np.sort(np.concatenate([order[training.labels[order] == k][:most] for k in range(number)]))
    few = training.take(chosen.astype(np.int64))
    images, labels = to_tensor(few.pixels), torch.from_numpy(few.labels)
    return space.encode(images, labels), images, labels


def _find_traversals(
    space: LatentSpace, latents: Tensor, images: Tensor, labels: Tensor
) -> tuple[list[Traversal], tuple[Tensor, Tensor, Tensor]]:
    """Return the directions with what they do, and the latents, class means and labels they start from."""
    spreads = {name: float(values.std()) for name, values in measure_appearance(images).items()}
    directions = find_directions(latents, images, labels, space.mean_kl(images, labels), _DIRECTIONS)
    means = torch.zeros(space.generator.num_classes, latents.shape[1])
    for label in torch.unique(labels).tolist():
        means[label] = latents[labels == label].mean(dim=0)
    chosen = torch.linspace(0, len(labels) - 1, min(_BASES, len(labels))).long()
    chosen = labels.argsort(stable=True)[chosen]  # from every class
    bases = (latents[chosen], means[labels[chosen]], labels[chosen])
    return [measure_effects(space, direction, *bases, spreads) for direction in directions], bases


def describe_traversal(found: Traversal) -> dict[str, Any]:
    """Return a traversal as plain values."""
    direction = found.direction
    return {
        "title": direction.title,
        "words": found.describe(),
        "nats": direction.nats,
        "spread": direction.spread,
        "change": found.change,
        "named": [asdict(effect) for effect in found.named],
        "effects": [asdict(effect) for effect in found.effects],
    }
