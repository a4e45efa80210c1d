"""The judge of generated images: a small classifier with one prototype and one radius per class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor, nn
from torch.nn import functional

from synthaug.classifiers.small import SmallClassifier, fit_classifier, initial_classifier, row_schedule
from synthaug.core import (
    BatchRandom,
    InputError,
    Policy,
    TensorFile,
    augment,
    describe_tensors,
    outline_module,
    read_tensors,
)
from synthaug.data import MAX_SIZE, MIN_SIZE
from synthaug.generators import MAX_CLASSES, explain_damage, write_tensors

__all__ = ["Judge", "fit_judge", "load_judge", "save_judge"]

MAX_WIDTH = 1_024
"""Largest width of a judge that is loaded."""

_MILD = Policy(rotate=8.0, translate=0.06, scale=0.08, shear=5.0)
_QUANTILE = 0.99
_SLACK = 1.05
_PRIOR_ROWS = 20
"""A class's own quantile weighs as much as the pooled one when it rests on this many rows."""


class _JudgeArguments(BaseModel):
    """Arguments of a judge, as they stand in its file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    class_names: list[str] = Field(min_length=1, max_length=MAX_CLASSES)
    image_size: int = Field(ge=MIN_SIZE, le=MAX_SIZE)
    channels: int = Field(ge=1, le=4)
    width: int = Field(ge=1, le=MAX_WIDTH)

    @field_validator("class_names")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("a name stands twice")
        return names


class Judge(nn.Module):
    """A classifier fitted on the training rows that says whether an image looks like its class.

    Args:
        class_names: Names of the classes, in label order.
        image_size: Height and width of the images.
        channels: Channels of the images, 1 to 4.
        width: Width of the network.

    Attributes:
        prototypes: (K, F) unit vectors, the direction of the mean unit embedding of each class.
        radii: (K,) distance from the prototype within which nearly all new real rows of the class lie.

    Example:
        >>> judge = Judge(class_names=["a", "b"], image_size=8, channels=1)
        >>> judge.logits(torch.zeros(3, 1, 8, 8)).shape, judge.radii.shape
        (torch.Size([3, 2]), torch.Size([2]))
    """

    prototypes: Tensor
    radii: Tensor

    def __init__(self, *, class_names: Sequence[str], image_size: int, channels: int, width: int = 16) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.network = SmallClassifier(len(self.class_names), image_size, channels, width)
        features = self.network.head.in_features
        self.register_buffer("prototypes", torch.zeros(len(self.class_names), features))
        self.register_buffer("radii", torch.full((len(self.class_names),), 2.0))
        self.eval()

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-friendly."""
        network = self.network
        return {
            "class_names": list(self.class_names),
            "image_size": network.image_size,
            "channels": network.channels,
            "width": network.width,
        }

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [-1, 1]."""
        return cast(Tensor, self.network(images))

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Return the unit embeddings (N, F) of images (N, C, H, W) in [-1, 1]."""
        return functional.normalize(self.network.embed(images), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return `logits(images)`."""
        return self.logits(images)

    def train(self, mode: bool = True) -> Judge:
        """Stay in evaluation mode: a judge uses its running statistics, whatever its owner does."""
        return super().train(False)


def _default_steps(rows: int, num_classes: int) -> int:
    """Return the number of steps: 180 up to 5,000 rows or 50 classes, then its root, at most 800."""
    return int(np.clip(180 * max(rows / 5_000, num_classes / 50) ** 0.5, 180, 800))


def _fit_network(
    images: Tensor, labels: NDArray[np.int64], *, num_classes: int, seed: int, steps: int
) -> SmallClassifier:
    """Fit the judge's network on class-balanced batches with mild geometric augmentation."""
    batch_size = 64 if num_classes <= 64 else 256
    rows = torch.from_numpy(row_schedule(labels, length=steps * batch_size, seed=seed, balanced=True))
    targets = torch.from_numpy(labels)
    network = initial_classifier(num_classes, images.shape[-1], images.shape[1], seed=seed).to(images.device)

    def draw_batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = rows[step * batch_size : (step + 1) * batch_size]
        rng = BatchRandom(seed, step, start=0, count=batch_size, device=images.device)
        batch = images[chosen.to(images.device)].float() / 127.5 - 1
        return augment(batch, _MILD, rng), targets[chosen].to(images.device)

    return fit_classifier(network, draw_batch, steps=steps)


@torch.no_grad()
def _unit_embeddings(network: SmallClassifier, images: Tensor) -> Tensor:
    """Return the unit embeddings (N, F) of uint8 images (N, C, H, W)."""
    parts = [network.embed(part.float() / 127.5 - 1) for part in torch.split(images, 512)]
    return functional.normalize(torch.cat(parts), dim=1)


def _class_means(embeddings: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return (K, F) unit vectors along each class's mean; a zero vector for a class without rows."""
    sums = torch.zeros(num_classes, embeddings.shape[1], device=embeddings.device)
    return functional.normalize(sums.index_add_(0, labels, embeddings), dim=1)


def _fold_of(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return 0 or 1 for every row, each class dealt out evenly and at random."""
    draws = BatchRandom(seed, 0, start=0, count=1, stream=8).uniform(len(labels)).numpy()[0]
    fold = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        fold[members[np.argsort(draws[members], kind="stable")]] = np.arange(len(members)) % 2
    return fold


def _held_out_distances(
    images: Tensor, labels: NDArray[np.int64], *, num_classes: int, seed: int, steps: int
) -> NDArray[np.float64]:
    """Return for every row its distance to the prototype of its class in a network fitted on the other half.

    nan where the other half holds no row of the class.
    """
    fold, targets = _fold_of(labels, seed), torch.from_numpy(labels).to(images.device)
    distances = np.full(len(labels), np.nan)
    for part in (0, 1):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        if len(inside) == 0 or len(outside) == 0:
            continue
        known = torch.from_numpy(inside).to(images.device)
        network = _fit_network(
            images[known], labels[inside], num_classes=num_classes, seed=seed + 1 + part, steps=steps
        )
        prototypes = _class_means(_unit_embeddings(network, images[known]), targets[known], num_classes)
        held = torch.from_numpy(outside).to(images.device)
        found = _unit_embeddings(network, images[held]) - prototypes[targets[held]]
        usable = np.isin(labels[outside], labels[inside])
        distances[outside[usable]] = found.norm(dim=1).double().cpu().numpy()[usable]
    return distances


def _weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], level: float) -> float:
    """Return the smallest value up to which `level` of the weight lies."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    place = np.searchsorted(cumulative, level * cumulative[-1] * (1 - 1e-12))
    return float(values[order][min(int(place), len(values) - 1)])


def _radii(distances: NDArray[np.float64], labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Return the radius of each class: its 0.99 quantile, drawn towards the pooled one where rows are few.

    A class's own quantile is rank-based (the largest distance under 100 rows); it is never drawn downwards,
    because few rows understate a quantile.
    """
    usable = np.isfinite(distances)
    if not usable.any():
        return np.full(num_classes, 2.0)  # the largest distance there is: nothing is turned away
    # Every class weighs the same in the pooled quantile: rows of small classes lie further out.
    weights = 1.0 / np.bincount(labels[usable], minlength=num_classes)[labels[usable]]
    pooled = _weighted_quantile(distances[usable], weights, _QUANTILE)
    radii = np.full(num_classes, pooled)
    for label in np.unique(labels[usable]):
        own = distances[usable & (labels == label)]
        quantile = float(np.quantile(own, _QUANTILE, method="higher"))
        prior = max(quantile, pooled)
        radii[label] = (len(own) * quantile + _PRIOR_ROWS * prior) / (len(own) + _PRIOR_ROWS)
    return np.minimum(radii * _SLACK, 2.0)


def fit_judge(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    class_names: Sequence[str],
    seed: int = 0,
    device: torch.device | str = "cpu",
    steps: int | None = None,
) -> Judge:
    """Fit a judge on training rows: network, prototypes and radii.

    The radii come from two-fold cross-fitting: each half is measured by a network and prototypes that were
    fitted on the other half, so they tell how far *new* real rows lie, not how close memorised ones do.

    Args:
        pixels: (N, H, W, C) uint8 training rows, square; never a validation or test row.
        labels: (N,) int64 in [0, len(class_names)); a class may have as few as one row.
        class_names: Names of the classes.
        seed: Seed of weights, order, augmentation and folds.
        device: Where to fit.
        steps: Optimiser steps (each of the two folds takes half as many); from the data when None.

    Returns:
        The judge, on the CPU, in evaluation mode.

    Raises:
        InputError: If there is no row or a label is out of range.
    """
    num_classes = len(class_names)
    if len(pixels) == 0 or len(pixels) != len(labels):
        raise InputError(f"got {len(pixels)} images and {len(labels)} labels; give at least one row of each")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(f"labels lie in {labels.min()}..{labels.max()}; allowed are 0..{num_classes - 1}")
    steps = steps or _default_steps(len(pixels), num_classes)
    labels = np.ascontiguousarray(labels, dtype=np.int64)
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).contiguous().to(device)
    distances = _held_out_distances(images, labels, num_classes=num_classes, seed=seed, steps=max(1, steps // 2))
    judge = Judge(class_names=class_names, image_size=images.shape[-1], channels=images.shape[1])
    network = _fit_network(images, labels, num_classes=num_classes, seed=seed, steps=steps)
    judge.network.load_state_dict(network.state_dict())
    targets = torch.from_numpy(labels).to(device)
    judge.prototypes.copy_(_class_means(_unit_embeddings(network, images), targets, num_classes))
    judge.radii.copy_(torch.from_numpy(_radii(distances, labels, num_classes)))
    return judge


def save_judge(folder: Path, judge: Judge) -> None:
    """Write judge.safetensors; the constructor's arguments travel in its metadata."""
    write_tensors(folder / "judge.safetensors", judge.state_dict(), {"config": json.dumps(judge.config())})


def load_judge(folder: str | Path) -> Judge:
    """Load the run's judge, in eval mode.

    Raises:
        InputError: If the run has none, or one whose file is damaged.
    """
    path = Path(folder) / "judge.safetensors"
    if not path.is_file():
        raise InputError(f"{str(folder)!r} has no judge.safetensors; use filter='none' or fit again")
    with explain_damage(path.parent):
        file = TensorFile.open(path)
        config = _read_arguments(file)
        blank = outline_module(lambda: Judge(**config), file)
        weights = read_tensors(file, describe_tensors(blank.state_dict()))
        judge = Judge(**config)
        judge.load_state_dict(weights, strict=True)
    return judge.eval()


def _read_arguments(file: TensorFile) -> dict[str, Any]:
    try:
        return _JudgeArguments.model_validate_json(file.metadata.get("config", "null")).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(("config", *map(str, first["loc"])))
        raise ValueError(f"{file.path.name}: {where}: {first['msg']}") from None
