"""Rows drawn from a generator for a closer look: the ones that `generate` would write, kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from synthaug.classifiers import Filter, judge_images
from synthaug.core import BLOCK_SIZE, FailedError
from synthaug.data import to_tensor
from synthaug.generation import NUM_THREADS, BlockPool, Sampler
from synthaug.generators import ConditionalGenerator

__all__ = ["Acceptance", "Draws", "take_draws"]


@dataclass
class Acceptance:
    """What the default filter says of the draws of one class.

    Args:
        drawn: Draws looked at.
        accepted: Draws it keeps.
        rejected: Reason -> draws it turns away.
    """

    drawn: int = 0
    accepted: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Share kept."""
        return self.accepted / self.drawn


@dataclass(frozen=True)
class Draws:
    """Synthetic rows, class after class, and what the default filter says of them.

    Args:
        pixels: (N, H, W, C) uint8.
        labels: (N,) int64.
        acceptance: One entry for each class; None where there is no judge to ask.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    acceptance: tuple[Acceptance, ...] | None

    def __len__(self) -> int:
        return len(self.labels)


def take_draws(
    generator: ConditionalGenerator,
    per_class: int,
    *,
    seed: int,
    temperature: float,
    check: Filter | None,
    judge: Filter | None,
    num_processes: int = 1,
    on_rows: Callable[[int], None] | None = None,
) -> Draws:
    """Return the first `per_class` draws of each class that a filter keeps, as `generate` would write them.

    Args:
        generator: The generator.
        per_class: Rows of each class.
        seed: Seed of the draws.
        temperature: Scale of the noise.
        check: Filter; None keeps every draw.
        judge: The default filter, asked about every draw looked at, whatever `check` is; None leaves it out.
        num_processes: Worker processes; the rows do not depend on it.
        on_rows: Called with the number of rows just kept.

    Raises:
        FailedError: If a filter keeps too few in 20 times as many draws and 1,000 more.
    """
    device = next(generator.parameters()).device
    pixels, asked = [], []
    with BlockPool(Sampler(generator, None, seed=seed, temperature=temperature), num_processes) as pool:
        for label, name in enumerate(generator.class_names):
            kept, tally = 0, Acceptance()
            for block in _blocks(pool, label, per_class, certain=check is None):
                chosen, looked_at = _choose(check, block, label, per_class - kept, device)
                _count(judge, block, label, looked_at, tally, device)
                pixels.append(block[chosen])
                kept += len(chosen)
                if on_rows is not None:
                    on_rows(len(chosen))
                if kept == per_class:
                    break
            else:
                raise FailedError(
                    f"class {name!r}: the filter kept {kept:,} of {20 * per_class + 1_000:,} draws, fewer than "
                    f"{per_class:,}; ask for fewer per class, use filter none, or fit longer"
                )
            asked.append(tally)
    labels = np.repeat(np.arange(len(generator.class_names)), per_class)
    return Draws(np.concatenate(pixels), labels, None if judge is None else tuple(asked))


def _blocks(pool: BlockPool, label: int, per_class: int, *, certain: bool) -> Iterator[NDArray[np.uint8]]:
    """Yield the pixels of block after block of a class, up to the last one allowed."""
    needed = -(-per_class // BLOCK_SIZE)
    for number in range(-(-(20 * per_class + 1_000) // BLOCK_SIZE) if not certain else needed):
        upcoming = [(label, other) for other in range(number + 1, needed)]
        yield pool.get((label, number), upcoming).pixels


def _judge(
    check: Filter, block: NDArray[np.uint8], label: int, device: torch.device
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Ask a filter about a whole block on as many threads as `generate` does, so that the answers are the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    try:
        labels = torch.full((len(block),), label, dtype=torch.int64, device=device)
        return judge_images(check, to_tensor(block).to(device), labels)
    finally:
        torch.set_num_threads(before)


def _choose(
    check: Filter | None, block: NDArray[np.uint8], label: int, missing: int, device: torch.device
) -> tuple[NDArray[np.int64], int]:
    """Return which draws of a block to take, and how many of them had to be looked at."""
    if check is None:
        count = min(missing, len(block))
        return np.arange(count), count
    kept = np.flatnonzero(_judge(check, block, label, device)[0].numpy())[:missing]
    return kept, int(kept[-1]) + 1 if len(kept) == missing else len(block)


def _count(
    judge: Filter | None,
    block: NDArray[np.uint8],
    label: int,
    looked_at: int,
    tally: Acceptance,
    device: torch.device,
) -> None:
    """Add what the default filter says of the first draws of a block."""
    if judge is None:
        return
    kept, rejected = _judge(judge, block, label, device)
    tally.drawn += looked_at
    tally.accepted += int(kept[:looked_at].sum())
    for reason, mask in rejected.items():
        tally.rejected[reason] = tally.rejected.get(reason, 0) + int(mask[:looked_at].sum())
