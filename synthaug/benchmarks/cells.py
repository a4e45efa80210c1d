"""One cell of a benchmark: one arm with one seed, trained and measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthaug.benchmarks.arms import parse_arm, schedule_rows
from synthaug.classical import POLICIES, augment
from synthaug.classifier import SmallClassifier, fit_classifier, initial_classifier, predict_logits
from synthaug.metrics import balanced_accuracy, balanced_nll
from synthaug.noise import BatchRandom

__all__ = ["Cell", "CellData", "run_cell"]

_CURVE_POINTS = 10
_CURVE_ROWS = 1_000


@dataclass(frozen=True)
class CellData:
    """Every array a benchmark trains on and measures with; pixels (N, H, W, C) uint8, labels (N,) int64.

    Args:
        num_classes: Number of classes.
        real_pixels: Training rows, without validation rows.
        real_labels: Their classes.
        synthetic_pixels: Synthetic rows.
        synthetic_labels: Their classes.
        validation_pixels: Rows that choose; may be empty.
        validation_labels: Their classes.
        test_pixels: Rows that judge.
        test_labels: Their classes.
    """

    num_classes: int
    real_pixels: NDArray[np.uint8]
    real_labels: NDArray[np.int64]
    synthetic_pixels: NDArray[np.uint8]
    synthetic_labels: NDArray[np.int64]
    validation_pixels: NDArray[np.uint8]
    validation_labels: NDArray[np.int64]
    test_pixels: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    def save(self, folder: Path) -> None:
        """Write the arrays as .npy files, which workers map into memory."""
        for field in dataclasses.fields(self):
            np.save(folder / f"{field.name}.npy", np.asarray(getattr(self, field.name)), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> CellData:
        """Return what `save` wrote, memory-mapped."""
        arrays = {
            field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r", allow_pickle=False)
            for field in dataclasses.fields(cls)
        }
        return cls(**{**arrays, "num_classes": int(arrays["num_classes"])})


@dataclass(frozen=True)
class Cell:
    """What decides a cell's result, apart from the data.

    Args:
        arm: Name of the arm.
        seed: Paired seed.
        steps: Optimiser steps.
        batch_size: Rows of a step.
        policy: Name of the classical policy.
        learning_rate: Peak learning rate.
        share: Probability that a row is exchanged for a synthetic one (arms that mix).
        backend: Engine of the classical augmentation.
        device: Where to train.
        test: Whether the test rows are predicted at the end; False while tuning.
    """

    arm: str
    seed: int
    steps: int
    batch_size: int
    policy: str
    learning_rate: float
    share: float
    backend: str = "torch"
    device: str = "cpu"
    test: bool = False

    @property
    def name(self) -> str:
        """File name of the result: arm, seed and a hash of everything."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.arm}-seed{self.seed}-{digest}.json"


def _pool(pixels: Sequence[NDArray[np.uint8]], device: str) -> Tensor:
    """Return arrays (n, H, W, C) one after the other as one uint8 tensor (N, C, H, W) on the device."""
    parts = [torch.from_numpy(np.array(part)).permute(0, 3, 1, 2) for part in pixels]
    return torch.cat(parts).contiguous().to(device)


def _to_float(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def _batches(cell: Cell, data: CellData) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return the function that gives the batch of a step."""
    arm = parse_arm(cell.arm)
    rows = torch.from_numpy(
        schedule_rows(
            arm,
            np.asarray(data.real_labels),
            np.asarray(data.synthetic_labels),
            length=cell.steps * cell.batch_size,
            seed=cell.seed,
            share=cell.share,
        )
    ).to(cell.device)
    images = _pool([data.real_pixels, data.synthetic_pixels], cell.device)
    labels = torch.from_numpy(np.concatenate([data.real_labels, data.synthetic_labels])).to(cell.device)

    def draw_batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = rows[step * cell.batch_size : (step + 1) * cell.batch_size]
        batch = _to_float(images[chosen])
        if arm.classical:
            rng = BatchRandom(cell.seed, step, start=0, count=cell.batch_size, device=cell.device)
            batch = augment(batch, POLICIES[cell.policy], rng, backend=cell.backend)
        return batch, labels[chosen]

    return draw_batch


def _predict(network: SmallClassifier, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    device = next(network.parameters()).device
    parts = [
        predict_logits(network, _to_float(_pool([pixels[start : start + 4096]], str(device))))
        for start in range(0, len(pixels), 4096)
    ]
    return torch.cat(parts).numpy()


def _measure(network: SmallClassifier, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, Any]:
    logits = _predict(network, pixels)
    predictions, truth = logits.argmax(axis=1), np.asarray(labels)
    return {
        "balanced_accuracy": balanced_accuracy(truth, predictions, network.num_classes),
        "nll": balanced_nll(truth, logits, network.num_classes),
        "predictions": predictions.tolist(),
    }


def run_cell(cell: Cell, data: CellData, *, should_stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Train one arm with one seed and measure it, on one thread.

    Args:
        cell: What to train.
        data: What to train on.
        should_stop: Looked at after every step; true abandons the cell.

    Returns:
        JSON-friendly: "cell", "validation" (balanced accuracy, nll), "curve" [[step, balanced accuracy on
        validation rows], ...] and "test" (balanced accuracy, nll, predictions) when asked for, "seconds".

    Raises:
        InterruptedError: If it was abandoned.
    """
    started, curve = time.perf_counter(), list[tuple[int, float]]()
    network = initial_classifier(
        data.num_classes, data.real_pixels.shape[1], data.real_pixels.shape[3], seed=cell.seed
    ).to(cell.device)
    every = max(1, cell.steps // _CURVE_POINTS)
    spaced = np.unique(np.linspace(0, len(data.validation_labels) - 1, _CURVE_ROWS).astype(np.int64))

    def on_step(done: int) -> None:
        if should_stop():
            raise InterruptedError(cell.name)
        if cell.test and len(data.validation_labels) and done % every == 0:
            measured = _measure(network, data.validation_pixels[spaced], data.validation_labels[spaced])
            curve.append((done, measured["balanced_accuracy"]))

    with _one_thread():
        fit_classifier(
            network, _batches(cell, data), steps=cell.steps, learning_rate=cell.learning_rate, on_step=on_step
        )
        result: dict[str, Any] = {"cell": asdict(cell), "curve": curve, "validation": None, "test": None}
        if len(data.validation_labels):
            result["validation"] = _measure(network, data.validation_pixels, data.validation_labels)
            del result["validation"]["predictions"]
        if cell.test:
            result["test"] = _measure(network, data.test_pixels, data.test_labels)
    result["seconds"] = time.perf_counter() - started
    return result


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, whatever the launcher: results must not depend on how many cells run at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
