"""The small downstream classifier and its training by a fixed number of optimiser steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from synthaug.classifiers.residual import ResidualClassifier
from synthaug.core import BatchRandom, InputError

__all__ = [
    "CLASSIFIERS",
    "DrawBatch",
    "Loss",
    "SmallClassifier",
    "fit_classifier",
    "initial_classifier",
    "predict_logits",
    "resolve_device",
    "row_schedule",
]

DrawBatch = Callable[[int], tuple[Tensor, Tensor]]
"""Maps the number of a step to its images (N, C, H, W) in [-1, 1] and labels (N,), or targets (N, K)."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (N, K) and labels or targets to a scalar."""

Network = TypeVar("Network", bound=nn.Module)


def _block(inputs: int, outputs: int, *, pool: bool) -> list[nn.Module]:
    # Pooling before normalisation: the two commute nearly, and the cost of the rest falls to a quarter.
    pooling = [nn.MaxPool2d(2, ceil_mode=True)] if pool else []
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [convolution, *pooling, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class SmallClassifier(nn.Module):
    """A four-layer convolutional network for images of 8 to 64 pixels (widths 16-32-32-64, three poolings).

    Poolings round up, which pads a side that is no multiple of 8.

    Args:
        num_classes: Number of classes, at least 1.
        image_size: Height and width of the images.
        channels: Channels of the images, 1 to 4.
        width: Width of the first layer; the others are 2, 2 and 4 times as wide.

    Example:
        >>> SmallClassifier(3, 28, 1)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 3])
    """

    def __init__(self, num_classes: int, image_size: int, channels: int, width: int = 16) -> None:
        super().__init__()
        self.num_classes, self.image_size, self.channels, self.width = (
            num_classes,
            image_size,
            channels,
            width,
        )
        early = image_size > 16  # tiny images keep their resolution for one layer more
        self.features = nn.Sequential(
            *_block(channels, width, pool=early),
            *_block(width, 2 * width, pool=True),
            *_block(2 * width, 2 * width, pool=not early),
            *_block(2 * width, 4 * width, pool=True),
        )
        self.head = nn.Linear(4 * width * (-(-image_size // 8)) ** 2, num_classes)
        self.to(memory_format=torch.channels_last)  # twice as fast on CPUs

    def embed(self, images: Tensor) -> Tensor:
        """Return the features (N, F) before the last layer of images (N, C, H, W) in [-1, 1]."""
        features = self.features(images.contiguous(memory_format=torch.channels_last))
        return cast(Tensor, features.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of images (N, C, H, W) in [-1, 1]."""
        return cast(Tensor, self.head(self.embed(images)))


CLASSIFIERS: dict[str, type[SmallClassifier] | type[ResidualClassifier]] = {
    "small": SmallClassifier,
    "resnet": ResidualClassifier,
}
"""The networks a benchmark can train."""


@overload
def initial_classifier(num_classes: int, image_size: int, channels: int, *, seed: int) -> SmallClassifier: ...


@overload
def initial_classifier(
    num_classes: int, image_size: int, channels: int, *, seed: int, kind: str
) -> SmallClassifier | ResidualClassifier: ...


def initial_classifier(
    num_classes: int, image_size: int, channels: int, *, seed: int, kind: str = "small"
) -> SmallClassifier | ResidualClassifier:
    """Return an untrained classifier whose weights depend on its kind, the shape and `seed` alone.

    The global random state of torch is left as it was.

    Args:
        num_classes: Number of classes.
        image_size: Side of the images.
        channels: Channels of the images.
        seed: Seed of the weights.
        kind: A key of `CLASSIFIERS`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLASSIFIERS[kind](num_classes, image_size, channels)


def row_schedule(labels: NDArray[np.int64], *, length: int, seed: int, balanced: bool) -> NDArray[np.int64]:
    """Return which row stands at each of `length` consecutive positions of a training.

    Natural: one random permutation of all rows after another. Balanced: one random permutation of the classes
    after another, and within a class one permutation of its rows after another, so that no row is repeated
    before all the others of its class were seen.

    Args:
        labels: (N,) class index of every row; a class may be absent.
        length: Number of positions (steps times batch size).
        seed: Seed of the order.
        balanced: Whether classes are visited equally often.

    Returns:
        (length,) int64 row numbers.
    """
    if not balanced:
        return cycle_rows(np.arange(len(labels)), length, seed=seed, stream=0)
    present = np.unique(labels)
    classes = cycle_rows(present, length, seed=seed, stream=0)
    rows = np.empty(length, dtype=np.int64)
    for label in present:
        positions = np.flatnonzero(classes == label)
        members = np.flatnonzero(labels == label)
        rows[positions] = cycle_rows(members, len(positions), seed=seed, stream=1 + int(label))
    return rows


def cycle_rows(values: NDArray[np.int64], length: int, *, seed: int, stream: int) -> NDArray[np.int64]:
    """Return `length` values: permutation after permutation of `values`."""
    rounds = -(-length // len(values))
    draws = BatchRandom(seed, stream, start=0, count=rounds, stream=7).uniform(len(values)).numpy()
    return values[np.argsort(draws, axis=1, kind="stable").reshape(-1)[:length]]


def fit_classifier(
    network: Network,
    draw_batch: DrawBatch,
    *,
    steps: int,
    learning_rate: float = 4e-3,
    weight_decay: float = 0.05,
    label_smoothing: float = 0.05,
    loss: Loss | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Network:
    """Train `network` for exactly `steps` optimiser steps, in place, and leave it in evaluation mode.

    AdamW; the learning rate rises linearly over the first tenth of the steps and falls linearly to zero.

    Args:
        network: The classifier to train, on any device.
        draw_batch: Gives the batch of a step; its tensors lie on the device of the network.
        steps: Number of optimiser steps.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        label_smoothing: Share of the target spread over all classes.
        loss: Replaces cross-entropy with that smoothing.
        on_step: Called after every step with the number of steps done; may evaluate the network.

    Returns:
        `network`.
    """
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    measure = loss or functools.partial(functional.cross_entropy, label_smoothing=label_smoothing)
    warmup = max(1, steps // 10)
    for step in range(steps):
        network.train()
        optimizer.param_groups[0]["lr"] = learning_rate * min(
            (step + 1) / warmup, (steps - step) / max(1, steps - warmup)
        )
        images, labels = draw_batch(step)
        measured = measure(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        measured.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if on_step is not None:
            on_step(step + 1)
    return network.eval()


@torch.no_grad()
def predict_logits(network: nn.Module, images: Tensor | Sequence[Tensor], *, batch_size: int = 512) -> Tensor:
    """Return the logits (N, K) on the CPU of images (N, C, H, W), in evaluation mode and in batches."""
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    parts = [
        network(torch.as_tensor(images[start : start + batch_size]).to(device)).float().cpu()
        for start in range(0, len(images), batch_size)
    ]
    network.train(was_training)
    return torch.cat(parts) if parts else torch.empty(0, 0)


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises:
        InputError: If it is another word, or there is no GPU to use.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device is {device!r}; allowed are 'auto', 'cpu' and, where there is a GPU, 'cuda'")
    return device
