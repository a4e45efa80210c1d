"""The contract of a generator family: a module that samples by label, and the objectives that train it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from synthaug.core import BatchRandom, InputError, Layout

__all__ = ["ConditionalGenerator", "Objective", "Preset", "check_range"]

Loss = Callable[[nn.Module, Tensor, Tensor, BatchRandom], dict[str, Tensor]]


def check_range(name: str, value: object, least: float, most: float = math.inf, *, above: bool = False) -> None:
    """See that an argument of a constructor is a number within its range.

    Args:
        name: Its name, for the message.
        value: What was given.
        least: The smallest value allowed.
        most: The largest one.
        above: `least` itself is not allowed.

    Raises:
        InputError: If it is no finite number, or outside.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (least < value if above else least <= value) and value <= most and value < math.inf:  # type: ignore[operator]
        return
    lower = f"above {least:g}" if above else f"at least {least:g}"
    upper = "" if most == math.inf else f" and at most {most:g}"
    raise InputError(f"{name} is {value!r}; give a number {lower}{upper}")


@dataclass(frozen=True)
class Objective:
    """One player of the training: a module, its loss and its optimiser numbers (AdamW).

    Args:
        name: Short name for the log, e.g. "generator".
        module: The module whose parameters this objective moves, and no other.
        loss: ``loss(prepared_module, images, labels, rng) -> dict``; `prepared_module` is `module` as
            wrapped by Accelerate and is called exactly once; "loss" is differentiated, the rest is logged.
            images: (N, C, H, W) float in [-1, 1]; labels: (N,) int64.
        learning_rate: Peak learning rate.
        betas: Adam's betas.
        weight_decay: Decoupled weight decay.
        clip_norm: Gradients are clipped to this norm; None leaves them.
        skip_norm: A step whose gradient has a larger norm, or one that is not finite, is left out; None
            leaves out nothing. Needs `clip_norm`.
        warmup: Fraction of the training over which the learning rate rises linearly.
        final: Learning rate at the end of the cosine decay, as a fraction of the peak.
    """

    name: str
    module: nn.Module
    loss: Loss
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip_norm: float | None = None
    skip_norm: float | None = None
    warmup: float = 0.02
    final: float = 0.05


@dataclass(frozen=True)
class Preset:
    """What follows from the data when the user says nothing.

    Args:
        constructor: Keyword arguments of the family's constructor.
        batch_size: Global batch in images.
        ema_images: Half-life of the weight average in images.
        class_power: Classes are drawn with weight count**class_power (0 balanced, 1 as they come).
    """

    constructor: dict[str, Any]
    batch_size: int
    ema_images: int
    class_power: float = 0.5


class ConditionalGenerator(nn.Module, PyTorchModelHubMixin):
    """Base of all families. The keyword constructor is the configuration and must be JSON-friendly.

    Subclasses implement `noise_shape`, `objectives`, `decode_noise` and `preset`; they may add, only where
    true, `log_prob(images, labels)` or `elbo(images, labels)`, and `encode`/`decode`.

    Args:
        class_names: Names of the classes; label i means class_names[i].
        image_size: Height and width of the images emitted, 8 to 64.
        channels: 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
        attributes: (K, A) numbers of the values that make each class where classes are joint groups, that of the
            label first; None where a class is just a class.
    """

    family: ClassVar[str]
    version: ClassVar[str] = "1"
    snapshots: ClassVar[tuple[float, ...]] = ()
    """Fractions of a training at which the averaged weights are kept, to be compared with the last ones on
    validation rows; for families whose training can turn for the worse."""

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        image_size: int,
        channels: int,
        attributes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if not 8 <= image_size <= 64:
            raise InputError(f"image_size is {image_size}; allowed are 8 to 64")
        if channels not in (1, 2, 3, 4):
            raise InputError(f"channels is {channels}; allowed are 1, 2, 3 and 4")
        if len(class_names) < 1:
            raise InputError("class_names is empty; name at least one class")
        if attributes is not None and len(attributes) != len(class_names):
            raise InputError(
                f"attributes has {len(attributes)} rows; give one for each of the {len(class_names)} classes"
            )
        self.class_names = list(class_names)
        self.attributes = None if attributes is None else [list(values) for values in attributes]
        self.image_size, self.channels = image_size, channels
        self.latents: dict[str, Tensor] = {}
        """What `memorize` took from the training images; kept in a file of its own, apart from the weights."""
        self.run_folder: Path | None = None
        """Run folder this generator was fitted into or loaded from; None for a bare module."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def default_temperature(self) -> float:
        """Temperature that `generate` uses when none is given."""
        return 1.0

    @property
    @abstractmethod
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the standard normal noise behind one image."""

    @abstractmethod
    def objectives(self) -> Sequence[Objective]:
        """Return the objectives in the order in which a step visits them."""

    @abstractmethod
    def decode_noise(self, noise: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Map noise (N, *noise_shape) and labels (N,) to images (N, C, H, W) in [-1, 1]."""

    @classmethod
    @abstractmethod
    def preset(cls, class_counts: Sequence[int], image_size: int, channels: int) -> Preset:
        """Return the defaults for a dataset with these training counts per class."""

    def initialize(self, images: Tensor, labels: Tensor) -> None:
        """Set data-dependent starting values from a first global batch; nothing by default."""

    def memorize(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take from the training rows what sampling needs later, into `latents`; nothing by default.

        Args:
            batches: All training rows in turn, as images (N, C, H, W) in [-1, 1] and labels (N,).
        """

    def latent_layout(self) -> Layout:
        """Return the type and the shape of each of the `latents` that `memorize` makes; none by default.

        A word in a shape stands for any one number, such as that of the training rows. A file of other tensors is
        refused before it is read.
        """
        return {}

    def recall(self, latents: Mapping[str, Tensor]) -> None:
        """Take `latents` from a file, after their layout was compared.

        Raises:
            ValueError: Their values do not belong together.
        """
        self.latents = dict(latents)

    def open_choices(self) -> dict[str, tuple[Any, ...]]:
        """Return constructor arguments that the fit is to choose on validation rows, each with its values.

        The first value is the default. The chosen one is set as an attribute of the same name and written into
        the run's configuration.
        """
        return {}

    def diagnose(self, losses: dict[str, float], progress: float) -> list[str]:
        """Return a line for each sign, in the losses just logged, that the fit goes wrong, and its remedy.

        Args:
            losses: "objective.name" -> value.
            progress: Fraction of the training done.
        """
        return []

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        *,
        noise: Tensor | None = None,
        temperature: float = 1.0,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """Draw one image for each label.

        Args:
            labels: (N,) int64 in [0, num_classes).
            noise: (N, *noise_shape) standard normal; drawn from `rng` when None.
            temperature: Scale of the noise; below 1 gives typical images, above 1 varied ones.
            rng: Source of the noise (a CPU generator); torch's global one when None.

        Returns:
            (N, C, H, W) float32 in [-1, 1], on the device of the module.

        Raises:
            InputError: If a label is out of range or the temperature is negative.
        """
        device = next(self.parameters()).device
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise InputError(f"labels must lie in 0..{self.num_classes - 1}; got {labels.min()}..{labels.max()}")
        if temperature < 0:
            raise InputError(f"temperature is {temperature}; it must not be negative")
        if not labels.numel():
            return torch.empty(0, self.channels, self.image_size, self.image_size, device=device)
        if noise is None:
            noise = torch.randn((len(labels), *self.noise_shape), generator=rng)
        was_training = self.training
        self.eval()
        try:
            images = self.decode_noise(noise.to(device), labels.to(device), temperature)
        finally:
            self.train(was_training)
        return images.float().clamp(-1.0, 1.0)
