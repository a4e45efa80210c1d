"""The one training loop: any number of objectives, any number of processes, progress counted in images."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from synthaug.accumulation import Part, backpropagate
from synthaug.batches import RowOrder
from synthaug.budget import Budget
from synthaug.checkpoint import load_state, save_snapshot, save_state
from synthaug.codec import to_pixels
from synthaug.ema import MovingAverage
from synthaug.engine import explain_failures, hold_vote
from synthaug.errors import FailedError, StoppedError
from synthaug.generators.base import ConditionalGenerator, Objective
from synthaug.noise import BatchRandom, draw_normal
from synthaug.pictures import tile_images
from synthaug.signals import StopSignals
from synthaug.tracking import Journal

__all__ = ["Schedule", "sample_grid", "train"]

_LOG_SECONDS = 2.0
_ALARM_ENTRIES = 3
"""Log entries in a row that have to show a sign before it is told."""


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

    Returns:
        The averaged generator and {"images_seen", "steps", "seconds", "losses", "warnings"}.

    Raises:
        StoppedError: After a signal, with the state saved.
        FailedError: If a loss is not finite.
    """
    # -- data: uint8 on the device; a batch is a range of positions in the row order
    device, main = accelerator.device, accelerator.is_main_process
    data, classes = torch.from_numpy(np.asarray(pixels)), torch.from_numpy(np.asarray(labels))
    if device.type != "cpu":
        data, classes = data.to(device), classes.to(device)
    order = RowOrder(np.asarray(labels), seed=schedule.seed, power=schedule.class_power)
    local = schedule.batch_size // accelerator.num_processes
    offset = local * accelerator.process_index
    rows = local // schedule.accumulation

    def load_batch(start: int, count: int) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(order.positions(start, count)).to(device)
        return _to_float(data[chosen]), classes[chosen]

    def load_parts() -> list[tuple[Tensor, Tensor]]:
        first = now.step * schedule.batch_size + offset
        return [load_batch(first + number * rows, rows) for number in range(schedule.accumulation)]

    def make_random(start: int, stream: int, progress: float, mean: Any) -> BatchRandom:
        return BatchRandom(
            schedule.seed, now.step, start=start, count=rows, progress=progress, stream=stream, device=device, mean=mean
        )

    def precision() -> Any:
        return torch.autocast(device.type, torch.bfloat16, enabled=schedule.mixed_precision == "bf16")

    # -- players: data-dependent start on a global batch, one optimiser for each objective
    generator.to(device).train()
    generator.initialize(*load_batch(0, _start_rows(data, schedule.batch_size)))
    average = MovingAverage(generator, half_life=schedule.ema_images)
    objectives = list(generator.objectives())
    optimizers = [_make_optimizer(objective) for objective in objectives]

    # -- resume
    journal = journal or Journal(accelerator, None, folder)
    now = Progress()
    parts: Mapping[str, nn.Module] = {"model": generator, "average": average.module}
    counters, rejected = load_state(folder, modules=parts, optimizers=optimizers)
    if counters:
        now = Progress(counters["images_seen"], counters["step"])
        budget.resume(images=counters["budget_images"], spent=counters["seconds"])
    for line in rejected if main else ():
        print(f"passed over a state that does not verify: {line}", file=sys.stderr)
    modules = [accelerator.prepare(objective.module) for objective in objectives]

    def save() -> None:
        if main:
            counters = {**vars(now), "seconds": budget.elapsed, "budget_images": budget.images}
            save_state(folder, images_seen=now.images_seen, modules=parts, optimizers=optimizers, progress=counters)
            (folder / "samples").mkdir(exist_ok=True)
            (folder / "samples" / f"images-{now.images_seen:012d}.png").write_bytes(grid := sample_grid(average.module))
            journal.show(grid, images_seen=now.images_seen)

    # -- the loop
    bar = tqdm(
        total=budget.images, initial=now.images_seen, unit="img", unit_scale=True, disable=not main,
        mininterval=0.5, desc=f"fit {generator.family}", dynamic_ncols=True,
    )  # fmt: skip
    logs: dict[str, float] = {}
    alarms = _Alarms(folder)
    tracked = journal.open(now.images_seen, budget.elapsed)
    logged = saved = budget.elapsed
    saved_images = now.images_seen
    losses: dict[str, Tensor] = {}
    watched = device.type == "cpu" or accelerator.num_processes > 1  # elsewhere a look costs a wait for the device
    told = f"batches of {schedule.batch_size} images on {accelerator.num_processes} processes"
    with StopSignals() as stop, bar, tracked, explain_failures(accelerator, folder, told):
        while True:
            due = _is_due(schedule, now.images_seen - saved_images, budget.elapsed - saved)
            bad = _find_bad(losses) if watched or due else 0
            vote = hold_vote(accelerator, budget.progress(now.images_seen), stop.received, due, bad)
            progress = vote.progress
            if vote.bad:
                raise _diverged(list(losses)[vote.bad - 1], vote.process, now.images_seen, folder)
            if vote.due or vote.received or (progress >= 1.0 and now.step):
                _check_weights(parts, now.images_seen, folder)
                save()
                saved, saved_images = budget.elapsed, now.images_seen
            if progress >= 1.0:
                break
            if vote.received:
                message = f"stopped at {now.images_seen:,} images and saved in {folder}; the same command goes on"
                raise StoppedError(message, vote.received)

            # ---- one step: every objective in turn, only its own module differentiable
            torch.manual_seed(_step_seed(schedule.seed, now.step, accelerator.process_index))
            losses, batch = {}, load_parts()
            for index, objective in enumerate(objectives):
                for other in objectives:
                    other.module.requires_grad_(other is objective)
                starts = range(offset, offset + local, rows)
                pieces = [
                    Part(*b, partial(make_random, s, index, progress)) for b, s in zip(batch, starts, strict=True)
                ]
                optimizers[index].zero_grad(set_to_none=True)
                terms = backpropagate(
                    objective, modules[index], pieces, accelerator, mean=_averager(accelerator), precision=precision
                )
                _descend(objective, optimizers[index], progress)
                losses.update({f"{objective.name}.{name}": value for name, value in terms.items()})
            now.step += 1
            now.images_seen += schedule.batch_size
            average.update(generator, images_seen=now.images_seen, batch_size=schedule.batch_size)
            budget.note_step(now.images_seen)
            for number, fraction in enumerate(generator.snapshots if main else ()):
                if progress < fraction <= budget.progress(now.images_seen):
                    save_snapshot(folder, number, average.module)

            # ---- once in a while: log, save
            bar.total = budget.images
            bar.update(schedule.batch_size)
            if budget.elapsed - logged >= _LOG_SECONDS or budget.progress(now.images_seen) >= 1.0:
                logged, logs = budget.elapsed, {name: float(value) for name, value in losses.items()}
                if not watched and (bad := _find_bad(losses)):
                    raise _diverged(list(losses)[bad - 1], 0, now.images_seen, folder)
                bar.set_postfix({k.split(".")[-1]: f"{v:.3g}" for k, v in logs.items()}, refresh=False)
                if main:
                    _log(folder, {"images": now.images_seen, "seconds": round(logged, 2), **logs})
                    journal.note(logs, images_seen=now.images_seen, seconds=logged)
                    alarms.sound(generator.diagnose(logs, progress))

    for objective in objectives:
        objective.module.requires_grad_(True)
    summary = {"images_seen": now.images_seen, "steps": now.step, "seconds": budget.elapsed, "losses": logs}
    summary["warnings"] = alarms.told
    return average.module, summary


def _start_rows(data: Tensor, batch_size: int) -> int:
    """Return how many rows set the data-dependent start: up to 4,096, fewer when images are large."""
    return max(batch_size, min(len(data), 4_096, max(256, 4_000_000 // data[0].numel())))


def _to_float(pixels: Tensor) -> Tensor:
    """Map pixels (N, H, W, C) uint8 to images (N, C, H, W) in [-1, 1] on their device."""
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def _make_optimizer(objective: Objective) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        objective.module.parameters(),
        lr=objective.learning_rate,
        betas=objective.betas,
        weight_decay=objective.weight_decay,
        fused=True,
    )


def _descend(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    progress: float,
) -> None:
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


def _is_due(schedule: Schedule, images: int, seconds: float) -> bool:
    return images >= schedule.save_images if schedule.save_images else seconds >= schedule.save_seconds


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
        f"{folder / 'state'}; fit again with --fresh and a lower --set generator.learning_rate"
    )


class _Alarms:
    """Says what goes wrong in a fit, each thing once, on stderr and in the log.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._counts = folder, Counter[str]()

    def sound(self, lines: Sequence[str]) -> None:
        """Take note of the alarms of one log entry; one that lasts is told, a passing one is not."""
        for line in set(self._counts) - set(lines):
            if self._counts[line] < _ALARM_ENTRIES:
                del self._counts[line]
        for line in lines:
            self._counts[line] += 1
            if self._counts[line] == _ALARM_ENTRIES:
                tqdm.write(f"warning: {line}", file=sys.stderr)
                _log(self._folder, {"warning": line})

    @property
    def told(self) -> list[str]:
        """The alarms that lasted."""
        return [line for line, count in self._counts.items() if count >= _ALARM_ENTRIES]


def _log(folder: Path, entry: Mapping[str, Any]) -> None:
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def sample_grid(generator: ConditionalGenerator, *, per_class: int = 10, max_classes: int = 20) -> bytes:
    """Return a PNG with one row of samples for each class, always from the same noise."""
    rows = []
    for label in range(min(generator.num_classes, max_classes)):
        noise = torch.from_numpy(draw_normal(0, label, 0, per_class, generator.noise_shape))
        targets = torch.full((per_class,), label)
        images = generator.sample(targets, noise=noise, temperature=generator.default_temperature)
        rows.append(to_pixels(images))
    return tile_images(rows)
