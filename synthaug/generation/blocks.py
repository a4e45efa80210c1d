"""Blocks of 64 draws, computed whole and in any process, handed out in the order they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from synthaug.classifiers import Filter, judge_images
from synthaug.core import BLOCK_SIZE, FailedError, StopSignals, WorkerPool, draw_normal
from synthaug.data import to_pixels, to_tensor
from synthaug.generators import ConditionalGenerator

__all__ = ["NUM_THREADS", "Block", "BlockPool", "Drawn", "Key", "Sampler", "fixed_threads"]

NUM_THREADS = 1
"""Threads on which a block is computed, whatever the machine: sums depend on it."""

Key = tuple[int, int]
"""Label and number of a block."""

Drawn = tuple[NDArray[np.uint8], NDArray[np.bool_], dict[str, NDArray[np.bool_]]]
"""Pixels of a block, which are kept, and which are rejected by reason."""


@dataclass(frozen=True)
class Block:
    """What became of 64 consecutive draws of one class.

    Args:
        kept: (64,) bool.
        rejected: Reason -> (64,) bool; the masks and `kept` are disjoint and cover everything.
        pixels: (kept draws, H, W, C) uint8, in order.
    """

    kept: NDArray[np.bool_]
    rejected: dict[str, NDArray[np.bool_]]
    pixels: NDArray[np.uint8]


class Sampler:
    """Computes a block; it can be sent to another process.

    Args:
        generator: The generator, on its device.
        check: Filter, or None to keep everything.
        seed: Seed of the draws.
        temperature: Scale of the noise.
    """

    def __init__(self, generator: ConditionalGenerator, check: Filter | None, *, seed: int, temperature: float) -> None:
        self.generator, self.check, self.seed, self.temperature = generator, check, seed, temperature

    def __call__(self, key: Key) -> Block:
        """Return one block.

        Args:
            key: Label and number of the block.

        Raises:
            FailedError: If an image is not finite.
        """
        pixels, kept, rejected = self.draw(key)
        return Block(kept, rejected, pixels if kept.all() else pixels[kept])

    @torch.no_grad()
    def draw(self, key: Key) -> Drawn:
        """Return the pixels of one block, which of them are kept, and which are rejected by reason.

        Args:
            key: Label and number of the block.

        Returns:
            (64, H, W, C) uint8, (64,) bool, and reason -> (64,) bool.

        Raises:
            FailedError: If an image is not finite.
        """
        label, number = key
        noise = draw_normal(self.seed, label, number * BLOCK_SIZE, BLOCK_SIZE, self.generator.noise_shape)
        labels = torch.full((BLOCK_SIZE,), label, dtype=torch.int64)
        images = self.generator.sample(labels, noise=torch.from_numpy(noise), temperature=self.temperature)
        if not math.isfinite(images.sum(dtype=torch.float32).item()):  # nor is a sum with such a term
            name = self.generator.class_names[label]
            raise FailedError(
                f"the generator gives values that are not finite (class {name!r}): the fit diverged; "
                "fit it again with a smaller learning rate or fewer images"
            )
        pixels = to_pixels(images)
        if self.check is None:
            return pixels, np.ones(BLOCK_SIZE, np.bool_), {}
        # the filter judges what is written: the images rounded to 8 bits
        kept, rejected = judge_images(self.check, to_tensor(pixels).to(images.device), labels.to(images.device))
        return pixels, kept.numpy(), {name: mask.numpy() for name, mask in rejected.items()}


class BlockPool:
    """Context that computes blocks: here when they are asked for, or ahead in worker processes, to the same bits.

    Args:
        sampler: Computes one block.
        num_processes: 1 computes in this process.
        stop: Signals that end the wait for a block.

    Raises:
        InputError: If the sampler cannot be sent to other processes.
    """

    def __init__(self, sampler: Sampler, num_processes: int, stop: StopSignals | None = None) -> None:
        self._compute, self._count, self._stop = partial(_compute, sampler), num_processes, stop or StopSignals()
        self._futures: dict[Key, Future[Block]] = {}
        self._workers = WorkerPool(self._compute, ahead=2) if num_processes > 1 else None

    def __enter__(self) -> BlockPool:
        if self._workers is not None:
            self._workers.grow(self._count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._workers is not None:
            self._workers.__exit__(kind, value, trace)

    def get(self, key: Key, upcoming: Iterable[Key]) -> Block:
        """Return a block.

        Args:
            key: Which one.
            upcoming: Blocks that are certain to be asked for next, in that order; workers begin with them.

        Raises:
            FailedError: If the block cannot be computed or a worker process died.
            StoppedError: After a signal.
        """
        with self._stop.at_once("run the same command again to go on"):
            return self._compute(key) if self._workers is None else self._fetch(self._workers, key, upcoming)

    def _fetch(self, workers: WorkerPool, key: Key, upcoming: Iterable[Key]) -> Block:
        most = max(4, 2 * self._count)
        for wanted in (key, *islice(upcoming, most)):
            if wanted not in self._futures and (wanted == key or len(self._futures) < most):
                self._futures[wanted] = workers.submit(wanted)
        return self._futures.pop(key).result()


def _compute(sampler: Sampler, key: Key) -> Block:
    with fixed_threads():
        return sampler(key)


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Context in which torch computes on NUM_THREADS threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)
