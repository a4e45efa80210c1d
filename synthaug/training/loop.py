"""The one training loop: any number of objectives, any number of processes, progress counted in images."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from synthaug.core import (
    FailedError,
    StoppedError,
    StopSignals,
    draw_normal,
    explain_failures,
    hold_vote,
    tile_images,
    write_file,
)
from synthaug.data import to_pixels
from synthaug.generators import ConditionalGenerator, load_state, save_snapshot, save_state
from synthaug.training.budget import Budget
from synthaug.training.ema import MovingAverage
from synthaug.training.order import RowOrder
from synthaug.training.steps import Descent, Feed
from synthaug.training.tracking import Journal, Monitor

__all__ = ["Schedule", "sample_grid", "train"]


@dataclass(frozen=True)
class Schedule:
    """The numbers of a training that belong to no family.

    Args:
        batch_size: Global batch in images.
        ema_images: Half-life of the weight average in images.
        class_power: Classes are drawn with weight count**class_power.
        save_images: Save the state every so many images; None to go by time.
        save_seconds: Save the state every so many seconds.
        seed: Seed of data order and noise.
        mixed_precision: "no" or "bf16".
        accumulation: Parts in which each process computes its rows of the batch.
    """

    batch_size: int
    ema_images: int
    class_power: float
    save_images: int | None
    save_seconds: float
    seed: int
    mixed_precision: str = "no"
    accumulation: int = 1


@dataclass
class Progress:
    """Counters of a training, saved with its state."""

    images_seen: int = 0
    step: int = 0


def train(
    generator: ConditionalGenerator,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    budget: Budget,
    schedule: Schedule,
    accelerator: Accelerator,
    folder: Path,
    journal: Journal | None = None,
    fit: str = "",
) -> tuple[ConditionalGenerator, dict[str, Any]]:
    """Fit `generator` in place and return its weight average, with a summary of the training.

    Args:
        generator: The generator; it is moved to the accelerator's device.
        pixels: (N, H, W, C) uint8 training rows.
        labels: (N,) int64.
        budget: How long.
        schedule: Batch, average and saving.
        accelerator: One process or many; every process calls this function with the same arguments.
        folder: Run folder for state/, samples/ and log.jsonl; a state found there is resumed.
        journal: Where the fit can be watched; nowhere when None.
        fit: Digest of recipe and rows, which a state must have to be resumed.

    Returns:
        The averaged generator and {"images_seen", "steps", "seconds", "losses", "warnings"}.

    Raises:
        StoppedError: After a signal, with the state saved.
        FailedError: If a loss is not finite, memory runs out, or another process ends.
    """
    told = f"batches of {schedule.batch_size} images on {accelerator.num_processes} processes"
    with explain_failures(accelerator, folder, told):
        order = RowOrder(np.asarray(labels), seed=schedule.seed, power=schedule.class_power)
        feed = Feed(
            pixels, labels, order=order, batch_size=schedule.batch_size, accumulation=schedule.accumulation,
            accelerator=accelerator,
        )  # fmt: skip
        generator.to(accelerator.device).train()
        generator.initialize(*feed.load_start())
        average = MovingAverage(generator, half_life=schedule.ema_images)
        descent = Descent(
            generator.objectives(), feed, accelerator, seed=schedule.seed, mixed_precision=schedule.mixed_precision
        )
        journal = journal or Journal(accelerator, None, folder)
        keeper = _Keeper(folder, fit, average, descent, budget, schedule, journal, main=accelerator.is_main_process)
        now = keeper.resume(generator)
        descent.prepare()

        watched = (
            accelerator.device.type == "cpu" or accelerator.num_processes > 1
        )  # elsewhere a look waits for the device
        monitor = Monitor(folder, budget, journal, diagnose=generator.diagnose, main=accelerator.is_main_process)
        shown = monitor.open(f"fit {generator.family}", now.images_seen)
        losses: dict[str, Tensor] = {}
        with StopSignals() as stop, shown:
            while True:
                due = keeper.is_due(now)
                bad = _find_bad(losses) if watched or due else 0
                vote = hold_vote(accelerator, budget.progress(now.images_seen), stop.received, due, bad)
                if vote.bad:
                    raise _diverged(list(losses)[vote.bad - 1], vote.process, now.images_seen, folder)
                done = vote.progress >= 1.0
                if vote.due or vote.received or (done and now.step):
                    keeper.save(now)
                if done or vote.received:
                    accelerator.wait_for_everyone()  # a launcher gives seconds to those that outlive one
                    break
                losses = descent.take_step(now.step, vote.progress)
                now.step += 1
                now.images_seen += schedule.batch_size
                average.update(generator, images_seen=now.images_seen, batch_size=schedule.batch_size)
                budget.note_step(now.images_seen)
                keeper.keep_snapshots(generator.snapshots, budget.progress(now.images_seen))
                if monitor.advance(schedule.batch_size, now.images_seen):
                    if not watched and (bad := _find_bad(losses)):
                        raise _diverged(list(losses)[bad - 1], 0, now.images_seen, folder)
                    monitor.note(losses, images_seen=now.images_seen, progress=vote.progress)
            if received := vote.received or stop.received:  # the latter: since the last vote
                message = f"stopped at {now.images_seen:,} images and saved in {folder}; the same command goes on"
                raise StoppedError(message, received)
        descent.release()
        summary = {
            "images_seen": now.images_seen,
            "steps": now.step,
            "seconds": budget.elapsed,
            "losses": monitor.losses,
        }
        return average.module, {**summary, "warnings": monitor.warnings}


class _Keeper:
    """Saves and restores the state of a fit; the first process writes.

    Args:
        folder: The run folder.
        fit: Digest of recipe and rows.
        average: The weight average.
        descent: Holds the optimisers.
        budget: Its images and seconds are part of the state.
        schedule: Says when a state is due.
        journal: Is shown the samples of a state.
        main: Whether this is the first process.
    """

    def __init__(
        self,
        folder: Path,
        fit: str,
        average: MovingAverage[ConditionalGenerator],
        descent: Descent,
        budget: Budget,
        schedule: Schedule,
        journal: Journal,
        *,
        main: bool,
    ) -> None:
        self._folder, self._fit, self._average, self._optimizers = folder, fit, average.module, descent.optimizers
        self._budget, self._schedule, self._journal, self._main = budget, schedule, journal, main
        self._modules: dict[str, nn.Module] = {}
        self._saved, self._saved_images, self._progress = 0.0, 0, 0.0

    def resume(self, generator: ConditionalGenerator) -> Progress:
        """Restore the newest state that verifies, if there is one, and return how far it is."""
        self._modules = {"model": generator, "average": self._average}
        counters, rejected = load_state(self._folder, modules=self._modules, optimizers=self._optimizers, fit=self._fit)
        now = Progress()
        if counters:
            now = Progress(counters["images_seen"], counters["step"])
            self._budget.resume(images=counters["budget_images"], spent=counters["seconds"])
        for line in rejected if self._main else ():
            print(f"passed over a state that does not verify: {line}", file=sys.stderr)
        self._saved, self._saved_images = self._budget.elapsed, now.images_seen
        self._progress = self._budget.progress(now.images_seen)
        return now

    def is_due(self, now: Progress) -> bool:
        """Tell whether a state is to be saved by now."""
        if self._schedule.save_images:
            return now.images_seen - self._saved_images >= self._schedule.save_images
        return self._budget.elapsed - self._saved >= self._schedule.save_seconds

    def save(self, now: Progress) -> None:
        """Save the state, with samples of the weight average beside it.

        Raises:
            FailedError: Rather than save weights that are not finite; all processes hold the same.
        """
        _check_weights(self._modules, now.images_seen, self._folder)
        if self._main:
            counters = {**vars(now), "seconds": self._budget.elapsed, "budget_images": self._budget.images}
            save_state(
                self._folder, images_seen=now.images_seen, modules=self._modules, optimizers=self._optimizers,
                progress=counters, fit=self._fit,
            )  # fmt: skip
            grid = sample_grid(self._average)
            write_file(self._folder / "samples" / f"images-{now.images_seen:012d}.png", grid)
            self._journal.show(grid, images_seen=now.images_seen)
        self._saved, self._saved_images = self._budget.elapsed, now.images_seen

    def keep_snapshots(self, fractions: Sequence[float], progress: float) -> None:
        """Keep the weight average where the fit has passed one of the fractions since the last call."""
        for number, fraction in enumerate(fractions if self._main else ()):
            if self._progress < fraction <= progress:
                save_snapshot(self._folder, number, self._average)
        self._progress = progress


def _find_bad(losses: Mapping[str, Tensor]) -> int:
    """Return 1 + the index of the first loss that is not finite, 0 when all are."""
    values = enumerate(losses.values(), start=1)
    return next((number for number, value in values if not math.isfinite(float(value))), 0)


def _check_weights(parts: Mapping[str, nn.Module], images_seen: int, folder: Path) -> None:
    """Raise FailedError rather than save weights that are not finite; all processes hold the same."""
    for module in parts.values():
        for name, tensor in module.named_parameters():
            if not bool(torch.isfinite(tensor).all()):
                raise _diverged(f"weight {name}", 0, images_seen, folder)


def _diverged(name: str, process: int, images_seen: int, folder: Path) -> FailedError:
    where = f" on process {process}" if process else ""
    return FailedError(
        f"the fit diverged: {name} is not finite{where} at {images_seen:,} images; the last good state stays in "
        f"{folder / 'state'}; fit again with fresh=True and a lower learning_rate="
    )


def sample_grid(generator: ConditionalGenerator, *, per_class: int = 10, max_classes: int = 20) -> bytes:
    """Return a PNG with one row of samples for each class, always from the same noise."""
    rows = []
    for label in range(min(generator.num_classes, max_classes)):
        noise = torch.from_numpy(draw_normal(0, label, 0, per_class, generator.noise_shape))
        targets = torch.full((per_class,), label)
        images = generator.sample(targets, noise=noise, temperature=generator.default_temperature)
        rows.append(to_pixels(images))
    return tile_images(rows)
