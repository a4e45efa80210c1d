"""One cell of a benchmark: one arm with one seed, trained and measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from synthaug.benchmarks.arms import Arm, parse_arm
from synthaug.benchmarks.losses import make_loss
from synthaug.benchmarks.order import schedule_rows
from synthaug.classifiers import fit_classifier, initial_classifier, mix_images, predict_logits, trivial_augment
from synthaug.core import POLICIES, BatchRandom, augment, balance_mean, balanced_nll, calibration_error, scaled_losses

__all__ = ["Cell", "CellData", "Rows", "run_cell"]

_CURVE_POINTS = 10
_CURVE_ROWS = 1_000


@dataclass(frozen=True)
class Rows:
    """Pixels with their classes.

    Args:
        pixels: (N, H, W, C) uint8.
        labels: (N,) int64.
        groups: (N,) int64 joint groups, by which rows are then sampled and choices balanced; None without any.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def strata(self) -> NDArray[np.int64]:
        """The groups, or the labels where there are none."""
        return np.asarray(self.labels if self.groups is None else self.groups)


@dataclass(frozen=True)
class CellData:
    """Every row a benchmark trains on and measures with.

    Args:
        num_classes: Number of classes.
        real: Training rows, without validation rows.
        validation: Rows that choose; may be empty.
        test: Rows that judge.
        others: Kind ("synthetic", "smote", ...) -> rows that an arm exchanges real ones for.
    """

    num_classes: int
    real: Rows
    validation: Rows
    test: Rows
    others: Mapping[str, Rows] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the arrays as .npy files, which workers map into memory."""
        parts = {"real": self.real, "validation": self.validation, "test": self.test}
        kinds = list(self.others)
        for name, rows in (*parts.items(), *((f"other-{kinds.index(kind)}", self.others[kind]) for kind in kinds)):
            np.save(folder / f"{name}-pixels.npy", rows.pixels, allow_pickle=False)
            np.save(folder / f"{name}-labels.npy", rows.labels, allow_pickle=False)
            if rows.groups is not None:
                np.save(folder / f"{name}-groups.npy", rows.groups, allow_pickle=False)
        (folder / "data.json").write_text(json.dumps({"num_classes": self.num_classes, "others": kinds}))

    @classmethod
    def load(cls, folder: Path) -> CellData:
        """Return what `save` wrote, memory-mapped."""

        def read(name: str) -> Rows:
            paths = [folder / f"{name}-{part}.npy" for part in ("pixels", "labels", "groups")]
            arrays = [np.load(path, mmap_mode="r") for path in paths if path.is_file()]
            return Rows(*arrays)

        facts = json.loads((folder / "data.json").read_text())
        others = {kind: read(f"other-{number}") for number, kind in enumerate(facts["others"])}
        return cls(facts["num_classes"], read("real"), read("validation"), read("test"), others)


@dataclass(frozen=True)
class Cell:
    """What decides a cell's result, apart from the data.

    Args:
        arm: Name of the arm, without "best".
        seed: Paired seed.
        steps: Optimiser steps.
        batch_size: Rows of a step.
        policy: Name of the classical policy, or "trivial" or "trivial+flip".
        learning_rate: Peak learning rate.
        mix: "", "mixup" or "cutmix": how the images of a batch are mixed with each other.
        share: Probability that a row is exchanged (arms that exchange).
        finish: Share of the steps at the end at which real rows stay.
        backend: Engine of the augmentation.
        classifier: Name of the network.
        device: Where to train.
        test: Whether the test rows are predicted at the end; False while tuning.
    """

    arm: str
    seed: int
    steps: int
    batch_size: int
    policy: str
    learning_rate: float
    mix: str = ""
    share: float = 0.0
    finish: float = 0.0
    backend: str = "torch"
    classifier: str = "small"
    device: str = "cpu"
    test: bool = False

    @property
    def name(self) -> str:
        """File name of the result: arm, seed and a hash of everything."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.arm.replace('/', '-')}-seed{self.seed}-{digest}.json"

    def settle(self, sources: Sequence[str]) -> Cell:
        """Return the cell that trains the same: an arm that exchanges nothing is the arm it rests on."""
        arm = parse_arm(self.arm, sources)
        return dataclasses.replace(self, arm=arm.base, finish=0.0) if arm.exchanges and not self.share else self


def _pool(pixels: Sequence[NDArray[np.uint8]], device: str) -> Tensor:
    """Return arrays (n, H, W, C) one after the other as one uint8 tensor (N, C, H, W) on the device."""
    parts = [torch.from_numpy(np.array(part)).permute(0, 3, 1, 2) for part in pixels]
    return torch.cat(parts).contiguous().to(device)


def _to_float(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def _batches(cell: Cell, arm: Arm, data: CellData) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return the function that gives the batch of a step."""
    parts = [data.real, *([data.others[arm.rows]] if arm.rows else [])]
    labels = [np.asarray(part.labels) for part in parts]
    schedule = schedule_rows(
        arm, parts[0].strata, parts[-1].strata, length=cell.steps * cell.batch_size, seed=cell.seed, share=cell.share,
        finish=cell.finish,
    )  # fmt: skip
    rows = torch.from_numpy(schedule).to(cell.device)
    images = _pool([part.pixels for part in parts], cell.device)
    classes = torch.from_numpy(np.concatenate(labels)).to(cell.device)

    def draw_batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = rows[step * cell.batch_size : (step + 1) * cell.batch_size]
        batch, targets = _to_float(images[chosen]), classes[chosen]
        if not arm.augmentation:
            return batch, targets
        rng = BatchRandom(cell.seed, step, start=0, count=cell.batch_size, device=cell.device)
        batch = _augment(batch, cell, rng)
        if not cell.mix:
            return batch, targets
        shares = functional.one_hot(targets, data.num_classes).float()
        return mix_images(batch, shares, rng, kind=cell.mix)

    return draw_batch


def _augment(images: Tensor, cell: Cell, rng: BatchRandom) -> Tensor:
    if cell.policy in ("trivial", "trivial+flip"):
        return trivial_augment(images, rng, flip=cell.policy.endswith("+flip"), backend=cell.backend)
    return augment(images, POLICIES[cell.policy], rng, backend=cell.backend)


def _predict(network: nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    device = next(network.parameters()).device
    parts = [
        predict_logits(network, _to_float(_pool([pixels[start : start + 4096]], str(device))))
        for start in range(0, len(pixels), 4096)
    ]
    return torch.cat(parts).numpy()


def _measure(network: nn.Module, rows: Rows, num_classes: int) -> dict[str, Any]:
    logits, truth = _predict(network, rows.pixels), np.asarray(rows.labels)
    predictions, losses = logits.argmax(axis=1), scaled_losses(truth, logits, num_classes)
    strata, number = rows.strata, num_classes if rows.groups is None else int(rows.strata.max()) + 1
    return {
        "balanced_accuracy": balance_mean(strata, (predictions == truth).astype(np.float64), number),
        "nll": balanced_nll(truth, logits, num_classes),
        "scaled_nll": balance_mean(strata, losses, number),
        "calibration_error": calibration_error(truth, logits),
        "predictions": predictions.tolist(),
        "losses": losses.round(5).tolist(),
    }


def run_cell(cell: Cell, data: CellData) -> dict[str, Any]:
    """Train one arm with one seed and measure it, on one thread.

    Args:
        cell: What to train.
        data: What to train on.

    Returns:
        JSON-friendly: "cell", "seconds", "curve" [[step, balanced accuracy on validation rows], ...], "validation" and,
        when asked for, "test": each balanced_accuracy, nll, scaled_nll, calibration_error and predictions, and
        the validation rows' losses.
    """
    started, curve = time.perf_counter(), list[tuple[int, float]]()
    arm, classes = parse_arm(cell.arm, tuple(data.others)), data.num_classes
    network = initial_classifier(
        classes, data.real.pixels.shape[1], data.real.pixels.shape[3], seed=cell.seed, kind=cell.classifier
    ).to(cell.device)
    every = max(1, cell.steps // _CURVE_POINTS)
    spaced = np.unique(np.linspace(0, len(data.validation) - 1, _CURVE_ROWS).astype(np.int64))

    def on_step(done: int) -> None:
        if cell.test and len(data.validation) and done % every == 0:
            part = data.validation
            shown = Rows(part.pixels[spaced], part.labels[spaced], None if part.groups is None else part.strata[spaced])
            curve.append((done, _measure(network, shown, classes)["balanced_accuracy"]))

    with _one_thread():
        counts = np.bincount(data.real.labels, minlength=classes)
        fit_classifier(
            network, _batches(cell, arm, data), steps=cell.steps, learning_rate=cell.learning_rate, on_step=on_step,
            loss=make_loss(arm.loss, counts, device=cell.device),
        )  # fmt: skip
        result: dict[str, Any] = {"cell": asdict(cell), "curve": curve, "validation": None, "test": None}
        if len(data.validation):
            result["validation"] = _measure(network, data.validation, classes)
        if cell.test:
            result["test"] = _measure(network, data.test, classes)
            del result["test"]["losses"]
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
