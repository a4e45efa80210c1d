"""The pictures of an exploration: samples, ways between classes and images, directions, nearest rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthaug.analysis.exploration.traversals import Traversal, traverse
from synthaug.core import tile_images
from synthaug.data import LabeledImages, nearest_rows, to_pixels, to_tensor
from synthaug.generators import LatentSpace, interpolate

__all__ = ["PICTURED", "Panel", "draw_classes", "draw_images", "draw_nearest", "draw_pairs", "draw_samples",
           "draw_temperatures", "draw_traversals"]  # fmt: skip

PICTURED = 12
"""Classes that are pictured at most."""
TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25)
_STEPS, _NEIGHBOURS, _QUERIES, _WIDTH = 9, 3, 4, 860


@dataclass(frozen=True)
class Panel:
    """One picture.

    Args:
        name: Of its file, without ending.
        title: A few words.
        caption: What is seen, line by line.
        png: Its bytes.
    """

    name: str
    title: str
    caption: str
    png: bytes


def _tile(lines: Sequence[NDArray[np.uint8]]) -> bytes:
    widest = max(len(line) for line in lines)
    return tile_images(lines, scale=max(1, _WIDTH // (widest * (lines[0].shape[2] + 1))))


def _gap(like: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.full((1, *like.shape[1:]), 255, dtype=np.uint8)


def _join(parts: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the parts beside each other, a gap between them."""
    joined = [parts[0]]
    for part in parts[1:]:
        joined += [_gap(part), part]
    return np.concatenate(joined)


def _sample(space: LatentSpace, labels: Tensor, rng: torch.Generator) -> NDArray[np.uint8]:
    """Return the pixels of samples of these labels."""
    return to_pixels(space.generator.sample(labels, temperature=space.temperature, rng=rng))


def _names(space: LatentSpace, classes: Sequence[int]) -> str:
    return ", ".join(space.generator.class_names[k] for k in classes)


def draw_samples(space: LatentSpace, classes: list[int], per_class: int, rng: torch.Generator) -> Panel:
    """Return `per_class` samples of each class."""
    lines = np.split(_sample(space, torch.tensor(classes).repeat_interleave(per_class), rng), len(classes))
    caption = f"Samples at temperature {space.temperature:g}; one line for each class: {_names(space, classes)}."
    return Panel("samples", "Samples", caption, _tile(lines))


def draw_temperatures(space: LatentSpace, classes: list[int], rng: torch.Generator) -> Panel:
    """Return two draws of each class at several temperatures, the noise being the same."""
    labels = torch.tensor(classes).repeat_interleave(2)
    noise = torch.randn((len(labels), *space.generator.noise_shape), generator=rng)
    drawn = [to_pixels(space.generator.sample(labels, noise=noise, temperature=t)) for t in TEMPERATURES]
    draws = np.stack(drawn, axis=1)
    lines = [_join(draws[2 * row : 2 * row + 2]) for row in range(len(classes))]
    listed = ", ".join(f"{t:g}" for t in TEMPERATURES)
    caption = (
        f"Two draws of each class ({_names(space, classes)}) at the temperatures {listed}: the same noise, scaled. "
        "Low temperatures give what is typical, high ones what is rare, and what the model does not know."
    )
    return Panel("temperatures", "Temperature", caption, _tile(lines))


def draw_classes(space: LatentSpace, classes: list[int], rng: torch.Generator) -> Panel:
    """Return samples, each as every class, from the same latents."""
    own, count = torch.tensor(classes), len(classes)
    latents, _ = space.draw(own, rng)
    images = space.decode(latents.repeat_interleave(count, dim=0), own.repeat(count))
    lines = np.split(to_pixels(images), count)
    what = "latents of a sample" if space.encodes else "noise"
    caption = (
        f"Each line is the same {what}, decoded as each class ({_names(space, classes)}). On the diagonal the class "
        "they were drawn for. What stays along a line is style that the classes share; where nothing stays, the "
        "label decides alone."
    )
    return Panel("classes", "The same latents as every class", caption, _tile(lines))


def draw_pairs(space: LatentSpace, classes: list[int], rng: torch.Generator) -> Panel:
    """Return ways between draws of neighbouring classes, decoded with either label."""
    pairs = list(zip(classes, [*classes[1:], classes[0]], strict=True))[: max(1, PICTURED // 2)]
    labels = torch.tensor(pairs).flatten()
    ends, _ = space.draw(labels, rng)
    ways = interpolate(ends[::2], ends[1::2], _STEPS).repeat_interleave(2, dim=0)  # a line for each of both labels
    images = space.decode(ways.flatten(0, 1), labels.repeat_interleave(_STEPS))
    lines = np.split(to_pixels(images), len(labels))
    named = "; ".join(f"{space.generator.class_names[a]} to {space.generator.class_names[b]}" for a, b in pairs)
    caption = (
        f"On an arc through {'latent space' if space.encodes else 'the noise'} from a draw of one class to one of "
        f"another ({named}). Two lines for each pair: the way decoded as the first class, then as the second."
    )
    return Panel("class-to-class", "From class to class", caption, _tile(lines))


def draw_images(space: LatentSpace, classes: list[int], real: LabeledImages, rng: torch.Generator) -> Panel:
    """Return ways between two real images of each class, the images themselves at both ends."""
    lines = []
    for label in classes:
        members = np.flatnonzero(real.labels == label)
        if len(members) < 2:
            continue
        chosen = members[torch.randperm(len(members), generator=rng)[:2].numpy()]
        pixels = np.stack([np.array(real.pixels[row]) for row in chosen])
        latents = space.encode(to_tensor(pixels), torch.full((2,), label))
        way = space.decode(interpolate(latents[:1], latents[1:], _STEPS)[0], torch.full((_STEPS,), label))
        lines.append(_join([pixels[:1], to_pixels(way), pixels[1:]]))
    caption = (
        f"Two training images of each class ({_names(space, classes)}) at the ends; between them the arc from the "
        "latents of one to those of the other, decoded. First and last of the middle part are their "
        "reconstructions."
    )
    return Panel("image-to-image", "From image to image", caption, _tile(lines))


def draw_traversals(
    space: LatentSpace, traversals: Sequence[Traversal], bases: Tensor, centres: Tensor, labels: Tensor
) -> Panel:
    """Return one line for each direction, from -3 to 3 standard deviations, for two images beside each other."""
    steps = torch.linspace(-3, 3, 7)
    shown = torch.tensor([0, len(bases) // 2])[: len(bases)]
    lines = []
    for found in traversals:
        images = traverse(space, found.direction, bases[shown], centres[shown], labels[shown], steps)
        lines.append(_join([to_pixels(part) for part in images]))
    kind = "active latents" if traversals[0].direction.nats is not None else "directions that move the image most"
    caption = (
        f"One line for each of the {len(lines)} {kind}, strongest first, from -3 to 3 standard deviations in steps "
        f"of one, for an image of {_names(space, [int(k) for k in labels[shown]])} (left to right)."
    )
    return Panel("traversals", "What single directions do", caption, _tile(lines))


def draw_nearest(space: LatentSpace, classes: list[int], real: LabeledImages, rng: torch.Generator) -> Panel:
    """Return samples, each with the training rows nearest to it."""
    count = min(_NEIGHBOURS, len(real))
    samples = _sample(space, torch.tensor(classes).repeat_interleave(_QUERIES), rng)
    groups = [
        np.stack([sample, *(np.array(real.pixels[row]) for row in rows)])
        for sample, rows in zip(samples, nearest_rows(samples, real.pixels, count), strict=True)
    ]
    lines = [_join(groups[start : start + _QUERIES]) for start in range(0, len(groups), _QUERIES)]
    caption = (
        f"Groups of {count + 1}: a sample, then the {count} training rows nearest to it in pixel distance, whatever "
        f"their class; one line for each class: {_names(space, classes)}. A sample that equals its neighbour is a copy."
    )
    return Panel("nearest", "Nearest training rows", caption, _tile(lines))
