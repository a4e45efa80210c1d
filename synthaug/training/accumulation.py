"""The gradient of a whole batch, computed in parts so that less memory is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from synthaug.core import BatchRandom
from synthaug.generators import Objective

__all__ = ["Part", "backpropagate"]

Mean = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """One part of a process's rows.

    Args:
        images: (N, C, H, W) float in [-1, 1].
        labels: (N,) int64.
        make_random: Makes the part's random numbers, given what their `mean` does.
    """

    images: Tensor
    labels: Tensor
    make_random: Callable[[Mean | None], BatchRandom]


class _MeanAskedError(Exception):
    """A loss asked for a mean over the batch before the other parts were seen."""


def backpropagate(
    objective: Objective,
    module: nn.Module,
    parts: Sequence[Part],
    accelerator: Accelerator,
    *,
    mean: Mean | None = None,
    precision: Callable[[], Any] = nullcontext,
) -> dict[str, Tensor]:
    """Add the gradient of the loss of the whole batch to the parameters, and return the loss terms.

    The gradient is the one of the batch in one piece up to summation order: parts are equally large, a loss is
    a mean over its rows, and where it needs a mean over the whole batch (`BatchRandom.mean`) the parts are gone
    through without gradient first. Several such means in one loss must not depend on each other. Processes
    exchange gradients once, at the last part.

    Args:
        objective: Whose loss it is.
        module: Its module as Accelerate prepared it.
        parts: Parts of this process's rows, equally large.
        accelerator: One process or many.
        mean: Averages a tensor over all processes.
        precision: Makes the context in which the loss is computed.

    Returns:
        Detached terms, averaged over the parts.
    """
    if len(parts) == 1:
        return _go_through(objective, module, parts, accelerator, [mean], precision)
    try:
        return _go_through(objective, module, parts, accelerator, [_refuse] * len(parts), precision)
    except _MeanAskedError:
        means = _rehearse(objective, module, parts, mean, precision)
        replays: list[Mean | None] = [_replay(means) for _ in parts]
        return _go_through(objective, module, parts, accelerator, replays, precision)


def _go_through(
    objective: Objective,
    module: nn.Module,
    parts: Sequence[Part],
    accelerator: Accelerator,
    means: Sequence[Mean | None],
    precision: Callable[[], Any],
) -> dict[str, Tensor]:
    totals: dict[str, Tensor] = {}
    for number, (part, mean) in enumerate(zip(parts, means, strict=True)):
        last = number == len(parts) - 1
        with nullcontext() if last else accelerator.no_sync(module):
            with precision():
                terms = objective.loss(module, part.images, part.labels, part.make_random(mean))
            accelerator.backward(terms["loss"] if len(parts) == 1 else terms["loss"] / len(parts))
        for name, value in terms.items():
            share = value.detach() / len(parts) if len(parts) > 1 else value.detach()
            totals[name] = totals[name] + share if name in totals else share
    return totals


def _refuse(value: Tensor) -> Tensor:
    raise _MeanAskedError


@torch.no_grad()
def _rehearse(
    objective: Objective,
    module: nn.Module,
    parts: Sequence[Part],
    mean: Mean | None,
    precision: Callable[[], Any],
) -> list[Tensor]:
    """Return the means over the whole batch that the loss asks for, in the order in which it does."""
    asked: list[list[Tensor]] = []
    for part in parts:
        seen: list[Tensor] = []
        with precision():
            objective.loss(module, part.images, part.labels, part.make_random(_collect(seen)))
        asked.append(seen)
    means = [torch.stack(values).mean(0) for values in zip(*asked, strict=True)]
    return means if mean is None else [mean(value) for value in means]


def _collect(seen: list[Tensor]) -> Mean:
    def collect(value: Tensor) -> Tensor:
        seen.append(value)
        return value

    return collect


def _replay(means: Sequence[Tensor]) -> Mean:
    waiting = iter(means)
    return lambda value: next(waiting)
