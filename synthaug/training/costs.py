"""What a fit will cost on this machine, from a few timed steps on random images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from synthaug.core import BatchRandom
from synthaug.generators import GENERATORS, ConditionalGenerator

__all__ = ["Cost", "describe_costs", "measure_cost"]

_TIMED_STEPS = 3


@dataclass(frozen=True)
class Cost:
    """Speed of one family at its preset.

    Args:
        family: Name of the family.
        parameters: Number of parameters.
        images_per_second: Images seen in a second of training.
        rows: Training rows.
    """

    family: str
    parameters: int
    images_per_second: float
    rows: int

    def epochs(self, seconds: float) -> float:
        """Return how often a fit of this length sees every row."""
        return self.images_per_second * seconds / self.rows


def measure_cost(
    family: type[ConditionalGenerator], class_counts: Sequence[int], image_size: int, channels: int
) -> Cost:
    """Time a few training steps of a family at its preset, on random images.

    Args:
        family: The family.
        class_counts: Training rows of each class.
        image_size: Size of the images.
        channels: Channels of the images.
    """
    preset = family.preset(class_counts, image_size, channels)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = [str(k) for k in range(len(class_counts))]
        generator = family(class_names=names, image_size=image_size, channels=channels, **preset.constructor)
        generator = generator.to(device).train()
        images = torch.rand(preset.batch_size, channels, image_size, image_size).mul_(2).sub_(1).to(device)
        labels = torch.randint(len(names), (preset.batch_size,)).to(device)
    generator.initialize(images, labels)
    parameters = sum(p.numel() for p in generator.parameters())
    _step(generator, images, labels, 0)
    started = time.perf_counter()
    for step in range(1, 1 + _TIMED_STEPS):
        _step(generator, images, labels, step)
    if device.type == "cuda":
        torch.cuda.synchronize()
    speed = _TIMED_STEPS * preset.batch_size / (time.perf_counter() - started)
    return Cost(family.family, parameters, speed, sum(class_counts))


def _step(generator: ConditionalGenerator, images: torch.Tensor, labels: torch.Tensor, step: int) -> None:
    """Compute the gradients of one training step; the optimiser's own cost is small beside them."""
    objectives = list(generator.objectives())
    for index, objective in enumerate(objectives):
        for other in objectives:
            other.module.requires_grad_(other is objective)
        rng = BatchRandom(0, step, start=0, count=len(images), stream=index, progress=0.5, device=images.device)
        generator.zero_grad(set_to_none=True)
        objective.loss(objective.module, images, labels, rng)["loss"].backward()  # type: ignore[no-untyped-call]


def describe_costs(class_counts: Sequence[int], image_size: int, channels: int, *, minutes: float = 10.0) -> str:
    """Return one line for each family: its size, its speed here, and how far the default budget goes."""
    lines = [f"a fit on this machine, {minutes:g} minutes (measured just now over {_TIMED_STEPS} steps)"]
    for name, family in GENERATORS.items():
        cost = measure_cost(family, class_counts, image_size, channels)
        seen = cost.images_per_second * minutes * 60
        lines.append(
            f"{name:<6} {cost.parameters / 1e6:5.2f} M parameters {cost.images_per_second:8,.0f} images/s "
            f"{seen:12,.0f} images = {cost.epochs(minutes * 60):,.0f} x every row"
        )
    return "\n".join(lines)
