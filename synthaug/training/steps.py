"""Steps of a fit: the rows of a batch that fall to this process, and one optimiser step of every objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from synthaug.core import BatchRandom
from synthaug.generators import Objective
from synthaug.training.accumulation import Part, backpropagate
from synthaug.training.order import RowOrder

__all__ = ["Descent", "Feed"]

_START_ROWS, _START_VALUES = 4_096, 4_000_000
"""Rows that set the data-dependent start at most; fewer, down to 256, when images hold more values."""


class Feed:
    """Training rows as uint8, and the parts of a global batch that fall to this process.

    The rows lie on the device, on the host where they are too many for it.

    A batch is a range of positions in the row order, so it does not depend on the number of processes.

    Args:
        pixels: (N, H, W, C) uint8, in RAM or memory-mapped.
        labels: (N,) int64.
        order: Which rows come when.
        batch_size: Global batch in images, a multiple of processes times `accumulation`.
        accumulation: Parts in which each process computes its rows.
        accelerator: One process or many.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        *,
        order: RowOrder,
        batch_size: int,
        accumulation: int,
        accelerator: Accelerator,
    ) -> None:
        self.device = accelerator.device
        self._pixels, self._labels = torch.from_numpy(np.asarray(pixels)), torch.from_numpy(np.asarray(labels))
        self._labels = self._labels.to(self.device)
        if _has_room(self._pixels, self.device):
            self._pixels = self._pixels.to(self.device)
        self._order, self.batch_size = order, batch_size
        local = batch_size // accelerator.num_processes
        self.part_rows = local // accumulation
        first = local * accelerator.process_index
        self.starts = range(first, first + local, self.part_rows)
        """Where in the global batch each part of this process begins."""

    def load_start(self) -> tuple[Tensor, Tensor]:
        """Return the images and labels that set the data-dependent start, the same on every process."""
        fitting = max(256, _START_VALUES // self._pixels[0].numel())
        return self._load(0, max(self.batch_size, min(len(self._pixels), _START_ROWS, fitting)))

    def load_parts(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """Return images (N, C, H, W) in [-1, 1] and labels (N,) of each part of this process in a step."""
        return [self._load(step * self.batch_size + start, self.part_rows) for start in self.starts]

    def _load(self, position: int, count: int) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(self._order.positions(position, count))
        pixels = self._pixels[chosen.to(self._pixels.device)].to(self.device)
        images = pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()
        return images, self._labels[chosen.to(self.device)]


def _has_room(pixels: Tensor, device: torch.device) -> bool:
    """Return whether the pixels take at most half of the device's free memory; else they stay on the host."""
    return device.type != "cuda" or 2 * pixels.nbytes <= torch.cuda.mem_get_info(device)[0]


class Descent:
    """The objectives of a generator, each with its optimiser, stepped in turn on the same batch.

    Args:
        objectives: In the order in which they step.
        feed: Gives the batches.
        accelerator: One process or many.
        seed: Seed of the random numbers of a step.
        mixed_precision: "no" or "bf16".
    """

    def __init__(
        self, objectives: Sequence[Objective], feed: Feed, accelerator: Accelerator, *, seed: int, mixed_precision: str
    ) -> None:
        self._objectives, self._feed, self._accelerator = list(objectives), feed, accelerator
        self._seed, self._mixed_precision = seed, mixed_precision
        self.optimizers = [_make_optimizer(objective) for objective in self._objectives]
        self._modules: list[Any] = []

    def prepare(self) -> None:
        """Hand the modules to Accelerate, once their weights are those to begin with."""
        self._modules = [self._accelerator.prepare(objective.module) for objective in self._objectives]

    def take_step(self, step: int, progress: float) -> dict[str, Tensor]:
        """Let every objective descend once, and return the terms of its loss as "objective.name".

        Args:
            step: Number of the step.
            progress: Fraction of the fit done.
        """
        torch.manual_seed(_step_seed(self._seed, step, self._accelerator.process_index))
        losses, batch = dict[str, Tensor](), self._feed.load_parts(step)
        for index, (objective, optimizer) in enumerate(zip(self._objectives, self.optimizers, strict=True)):
            for other in self._objectives:  # only its own module is differentiable
                other.module.requires_grad_(other is objective)
            parts = [
                Part(*rows, partial(self._make_random, step, start, index, progress))
                for rows, start in zip(batch, self._feed.starts, strict=True)
            ]
            optimizer.zero_grad(set_to_none=True)
            mean = _averager(self._accelerator)
            terms = backpropagate(
                objective, self._modules[index], parts, self._accelerator, mean=mean, precision=self._precision
            )
            _descend(objective, optimizer, progress)
            losses.update({f"{objective.name}.{name}": value for name, value in terms.items()})
        return losses

    def release(self) -> None:
        """Make all modules differentiable again."""
        for objective in self._objectives:
            objective.module.requires_grad_(True)

    def _make_random(self, step: int, start: int, stream: int, progress: float, mean: Any) -> BatchRandom:
        return BatchRandom(
            self._seed, step, start=start, count=self._feed.part_rows, progress=progress,
            images_seen=step * self._feed.batch_size, stream=stream, device=self._feed.device, mean=mean,
        )  # fmt: skip

    def _precision(self) -> Any:
        return torch.autocast(self._feed.device.type, torch.bfloat16, enabled=self._mixed_precision == "bf16")


def _make_optimizer(objective: Objective) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        objective.module.parameters(),
        lr=objective.learning_rate,
        betas=objective.betas,
        weight_decay=objective.weight_decay,
        fused=True,
    )


def _descend(objective: Objective, optimizer: torch.optim.Optimizer, progress: float) -> None:
    """Take the step of an objective whose gradients are there."""
    if objective.clip_norm is not None:
        norm = torch.nn.utils.clip_grad_norm_(objective.module.parameters(), objective.clip_norm)
        if objective.skip_norm is not None:
            # the fused optimiser leaves out the step where this is 1; nan compares false
            optimizer.found_inf = (~(norm <= objective.skip_norm)).float()  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        group["lr"] = objective.learning_rate * _decay(objective, progress)
    optimizer.step()


def _decay(objective: Objective, progress: float) -> float:
    """Return the factor on the learning rate: linear warm-up, then a cosine to `final`."""
    if progress < objective.warmup:
        return max(1e-3, progress / objective.warmup)
    share = (progress - objective.warmup) / max(1e-9, 1 - objective.warmup)
    return objective.final + (1 - objective.final) * 0.5 * (1 + math.cos(math.pi * share))


def _step_seed(seed: int, step: int, process: int) -> int:
    """Return the seed of torch's own generator in a step (dropout in a family of the user's)."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0] >> 1)


def _averager(accelerator: Accelerator) -> Any:
    if accelerator.num_processes == 1:
        return None
    return lambda value: accelerator.reduce(value, reduction="mean")
