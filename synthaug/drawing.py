"""Blocks of 64 draws, computed whole and in any process, handed out in the order they are asked for."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.reduction import ForkingPickler
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from synthaug.codec import to_pixels, to_tensor
from synthaug.errors import FailedError, InputError
from synthaug.filtering import Filter, judge_images
from synthaug.generators.base import ConditionalGenerator
from synthaug.noise import BLOCK_SIZE, draw_normal

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

    Raises:
        InputError: If the sampler cannot be sent to other processes.
    """

    def __init__(self, sampler: Sampler, num_processes: int) -> None:
        self._ahead = max(4, 2 * num_processes)
        self._sampler = sampler
        self._futures: dict[Key, Future[Block]] = {}
        self._executor: Executor | None = None
        if num_processes > 1:
            try:
                ForkingPickler.dumps(sampler)
            except Exception as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise InputError(
                    f"num_processes is {num_processes}, but the generator or the filter cannot be sent to "
                    f"another process ({reason}); define them at the top of a module or use num_processes=1"
                ) from None
            # like spawn, but the server imports torch once and its children share it
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            self._executor = ProcessPoolExecutor(
                num_processes,
                mp_context=context,
                initializer=_start_worker,
                initargs=(sampler,),
            )

    def __enter__(self) -> BlockPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def get(self, key: Key, upcoming: Iterable[Key]) -> Block:
        """Return a block.

        Args:
            key: Which one.
            upcoming: Blocks that are certain to be asked for next, in that order; workers begin with them.

        Raises:
            FailedError: If the block cannot be computed or a worker process died.
        """
        if self._executor is None:
            with fixed_threads():
                return self._sampler(key)
        try:
            for wanted in (key, *islice(upcoming, self._ahead)):
                if wanted not in self._futures and (wanted == key or len(self._futures) < self._ahead):
                    self._futures[wanted] = self._executor.submit(_compute, wanted)
            return self._futures.pop(key).result()
        except BrokenProcessPool:
            raise FailedError(
                "a worker process died (out of memory, or a script without an `if __name__ == '__main__':` "
                "guard); run it again to go on, or with num_processes=1"
            ) from None


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Context in which torch computes on NUM_THREADS threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_worker_sampler: Sampler | None = None


def _start_worker(sampler: Sampler) -> None:
    global _worker_sampler
    _worker_sampler = sampler
    torch.set_num_threads(NUM_THREADS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _compute(key: Key) -> Block:
    if _worker_sampler is None:
        raise FailedError("the worker process was not started by a BlockPool")
    return _worker_sampler(key)
