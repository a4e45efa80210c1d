"""How far samples keep from the training images, as the network itself paints those."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from synthaug.generators.cvae.neighbourhood import pool_latents

__all__ = ["Paintings", "draw_clear"]

Paint = Callable[[Tensor, Tensor], Tensor]

_MOST_VALUES = 1 << 25
"""Pixel values, a byte each, of painted training images that are kept at most, over all classes."""
_ASKED = 128
"""Images of a class, evenly taken, whose nearest others tell the spacing."""
_PART, _PART_VALUES = 32, 1 << 19
"""Images that are painted, and pixel values that are compared, at a time."""


class Paintings:
    """The training images of each class as a decoder paints them from their latents, made when first asked for.

    A sample is compared with these and not with the images, which a run does not keep: what a decoder leaves
    out of an image it leaves out of a sample too.

    Args:
        stored: What `store_latents` returned.
        paint: Latents (N, D) and labels (N,) -> images (N, C, H, W).
        kin: Compare with the images of all kin of a class, each as one of this class; see `draw_between`.
    """

    def __init__(self, stored: Mapping[str, Tensor], paint: Paint, *, kin: bool = False) -> None:
        self.stored, self.paint, self.kin = stored, paint, kin
        self._images: dict[int, Tensor] = {}

    def of(self, label: int) -> Tensor:
        """Return the images (M, C * H * W) of a class as uint8; of very many, evenly so many that all classes fit."""
        if label not in self._images:
            self._images[label] = self._paint_evenly(pool_latents(self.stored, label, kin=self.kin), label)
        return self._images[label]

    def measure(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the Euclidean distance (N,) of images (N, C, H, W) to the nearest painting of their class.

        It is infinite where a class has fewer than two: what is drawn from a single image cannot keep away from it.
        """
        distances = images.new_full((len(images),), torch.inf)
        for label in torch.unique(labels).tolist():
            if len(known := self.of(label)) > 1:
                chosen = labels == label
                distances[chosen] = _measure_all(images[chosen].flatten(1), known).amin(dim=1)
        return distances

    def spacing(self) -> Tensor:
        """Return the median distance of a painting to the nearest other one of its class, (); 0 without any."""
        found = []
        for label in range(len(self.stored["counts"])):
            known = self.of(label)
            if len(known) < 2:
                continue
            rows = torch.arange(0, len(known), -(-len(known) // _ASKED), device=known.device)
            distances = _measure_all(_to_images(known[rows]), known)
            distances[torch.arange(len(rows), device=known.device), rows] = torch.inf
            found.append(distances.amin(dim=1))
        return torch.cat(found).median() if found else torch.zeros(())

    def _paint_evenly(self, latents: Tensor, label: int) -> Tensor:
        """Return (M, C * H * W) uint8."""
        if not len(latents):
            return latents.new_empty((0, 0), dtype=torch.uint8)
        values = self._decode(latents[:1], label).shape[1]
        most = max(1, _MOST_VALUES // (len(self.stored["counts"]) * values))
        if len(latents) > most:
            latents = latents[torch.linspace(0, len(latents) - 1, most, device=latents.device).round().long()]
        painted = latents.new_empty((len(latents), values), dtype=torch.uint8)
        for start in range(0, len(latents), _PART):
            painted[start : start + _PART] = self._decode(latents[start : start + _PART], label)
        return painted

    def _decode(self, latents: Tensor, label: int) -> Tensor:
        painted = self.paint(latents, latents.new_full((len(latents),), label, dtype=torch.int64)).flatten(1)
        return ((painted + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _to_images(painted: Tensor) -> Tensor:
    """Return uint8 values as float32 in [-1, 1]."""
    return painted.float() / 127.5 - 1.0


def _measure_all(images: Tensor, painted: Tensor) -> Tensor:
    """Return the distances (N, M) of float images (N, V) from uint8 ones (M, V)."""
    count = max(1, _PART_VALUES // images.shape[1])
    parts = [torch.cdist(images, _to_images(part)) for part in torch.split(painted, count)]
    return torch.cat(parts, dim=1)


def draw_clear(
    draw: Callable[[int, Tensor], Tensor], paintings: Paintings, labels: Tensor, *, tries: int, least: float
) -> Tensor:
    """Return for each label the first of several draws that keeps its distance, or the one that keeps most.

    The farthest of all draws would be fewer copies still, and odder: of 20 images a class they taught a classifier 1
    to 5 points less (docs/evidence.md, "Which draws are worth most").

    Args:
        draw: Number of the try and rows (n,) -> the images (n, C, H, W) of these rows of `labels` at that try.
        paintings: What to keep away from.
        labels: (N,) int64.
        tries: Draws for each label at most, at least 1.
        least: Distance at which a draw is taken.

    Returns:
        (N, C, H, W) images.
    """
    near = torch.arange(len(labels), device=labels.device)
    images = draw(0, near)
    distances = paintings.measure(images, labels)
    for number in range(1, tries):
        near = torch.nonzero(distances < least)[:, 0]
        if not len(near):
            break
        again = draw(number, near)
        reached = paintings.measure(again, labels[near])
        farther = reached > distances[near]
        images[near[farther]], distances[near[farther]] = again[farther], reached[farther]
    return images
