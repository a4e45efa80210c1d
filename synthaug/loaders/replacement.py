"""A batch transform that gives some images of a batch a synthetic stand-in of the same class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree
from torchvision import tv_tensors
from torchvision.transforms import v2

from synthaug.classifiers import Filter
from synthaug.core import BLOCK_SIZE, InputError
from synthaug.loaders.assignment import match_classes
from synthaug.loaders.image_types import fit_pixels
from synthaug.loaders.labelled import plain_label
from synthaug.loaders.supplies import open_supply

__all__ = ["ReplaceWithSynthetic"]

_EPOCHS = 2**20


class ReplaceWithSynthetic(v2.Transform):  # type: ignore[misc]
    """Replace each image of a batch, with probability p, by a synthetic one of the same class.

    Labels, dtype, size, range and device stay. Put it before `v2.MixUp`, `v2.CutMix` and `v2.Normalize`. Choices and
    draws follow torch's random state, as in all transforms of torchvision: they differ from worker to worker and from
    epoch to epoch, and `torch.manual_seed` makes them repeat. `MixedDataset` is the choice where every image has to
    be a function of its position.

    On single images it stands beside an albumentations pipeline, and is called as that is:
    ``pipeline(**replace(image=image, label=label))`` with an (H, W, C) or (H, W) array.

    Args:
        synthetic: A generator, or a data set such as `generate` returns.
        p: Probability of each image to be replaced, in [0, 1].
        value_range: What black and white are in floating-point images; (0, 1) is torchvision's and albumentations'.
        seed: Seed of the draws, 0 <= seed < 2**63.
        temperature: Scale of the generator's noise; the family's own default when None.
        filter: "default" (the judge of the generator's run), "none", or a callable.
        class_names: Names of the labels of the batch, in label order; None takes label i as class i of `synthetic`.
        labels_getter: "default" takes the second of two inputs, or the key "labels" or "label"; or a function of the
            inputs.

    Raises:
        InputError: For bad input, here or in a batch.

    Example:
        >>> import torch
        >>> from synthaug import ReplaceWithSynthetic, open_dataset
        >>> replace = ReplaceWithSynthetic(open_dataset("digits"), p=1.0)
        >>> images, labels = replace(torch.zeros(4, 1, 8, 8), torch.tensor([3, 3, -1, 0]))
        >>> [bool(image.any()) for image in images], labels.tolist()
        ([True, True, False, True], [3, 3, -1, 0])
    """

    def __init__(
        self,
        synthetic: Any,
        *,
        p: float = 0.5,
        value_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
        temperature: float | None = None,
        filter: str | Filter = "default",
        class_names: Sequence[str] | None = None,
        labels_getter: str | Callable[[Any], Any] = "default",
    ) -> None:
        super().__init__()
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
            raise InputError(f"p is {p!r}; give a probability from 0 to 1, such as 0.5")
        low, high = value_range
        if not low < high:
            raise InputError(f"value_range is {value_range!r}; give two numbers, the smaller one first")
        if labels_getter != "default" and not callable(labels_getter):
            raise InputError(f"labels_getter is {labels_getter!r}; give 'default' or a function of the inputs")
        self.p, self.value_range = float(p), (float(low), float(high))
        self._labels_getter = _find_labels if labels_getter == "default" else cast(Callable[[Any], Any], labels_getter)
        # in a list, so that Module.to() and .parameters() pass over the generator: it is no part of the user's model
        self._supply = [open_supply(synthetic, seed=seed, temperature=temperature, filter=filter)]
        names = None if class_names is None else tuple(map(str, class_names))
        self._place = match_classes(names, self._supply[0])
        self._next: dict[int, tuple[int, int]] = {}
        self._owner = 0

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the inputs with some images replaced.

        Args:
            *inputs: A batch of images (N, C, H, W) and labels (N,), as two arguments or in any one structure.
            **named: Instead of that, `image` (H, W, C) or (H, W) and `label`, and anything else, as a dict is
                returned.

        Raises:
            InputError: There are no such images and labels, or the images are outside `value_range`.
        """
        if named:
            if inputs or not {"image", "label"} <= set(named):
                raise InputError("give a batch (images, labels), or image=... and label=... of one array")
            return {**named, "image": self._replace_one(named["image"], named["label"])}
        batch = inputs if len(inputs) > 1 else inputs[0] if inputs else ()
        labels = self._labels_getter(batch)
        if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point():
            raise InputError(
                "the labels must be a tensor (N,) of integers; put ReplaceWithSynthetic before MixUp and CutMix"
            )
        flat, spec = pytree.tree_flatten(batch)
        place = _find_images(flat, labels)
        flat[place] = self._replace(flat[place], labels)
        return pytree.tree_unflatten(flat, spec)

    def _replace(self, images: Tensor, labels: Tensor) -> Tensor:
        low, high = self._check_range(images.dtype, images)
        chosen = torch.rand(len(labels)) < self.p
        known = labels.tolist()
        rows = [row for row in torch.nonzero(chosen)[:, 0].tolist() if known[row] in self._place]
        if not rows:
            return images
        channels, height, width = images.shape[1:]
        pixels = [fit_pixels(self._draw(self._place[known[row]]), channels, (height, width)) for row in rows]
        values = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).to(images.device)
        if images.dtype != torch.uint8:
            values = (values.float() * ((high - low) / 255) + low).to(images.dtype)
        replaced = images.clone()
        replaced[torch.tensor(rows, device=images.device)] = values
        return tv_tensors.wrap(replaced, like=images) if isinstance(images, tv_tensors.TVTensor) else replaced

    def _replace_one(self, image: Any, label: Any) -> Any:
        """Return an array, or the synthetic one that takes its place."""
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            raise InputError(
                f"image is a {type(image).__name__}; give one array (H, W, C) or (H, W) as albumentations takes"
            )
        low, high = self._check_range(torch.from_numpy(np.empty(0, image.dtype)).dtype, image)
        label = self._place.get(plain_label(label), -1)
        if not bool(torch.rand(()) < self.p) or label < 0:
            return image
        channels = 1 if image.ndim == 2 else image.shape[2]
        pixels = fit_pixels(self._draw(label), channels, (image.shape[0], image.shape[1])).reshape(image.shape)
        return pixels.copy() if image.dtype == np.uint8 else (pixels * ((high - low) / 255) + low).astype(image.dtype)

    def _check_range(self, dtype: torch.dtype, images: Any) -> tuple[float, float]:
        low, high = self.value_range
        if dtype == torch.uint8:
            return 0.0, 255.0
        if not dtype.is_floating_point:
            raise InputError(f"the images are {dtype}; give uint8, or floats in the value_range {self.value_range}")
        if len(images):
            smallest, largest = float(images.min()), float(images.max())
            slack = 1e-3 * (high - low)
            if smallest < low - slack or largest > high + slack:
                raise InputError(
                    f"the images go from {smallest:.4g} to {largest:.4g}, outside the value_range {self.value_range}; "
                    "put ReplaceWithSynthetic before Normalize, or give their value_range"
                )
        return low, high

    def _draw(self, label: int) -> NDArray[np.uint8]:
        """Return a new image of a class: the next of a block whose number torch's random state chose."""
        if self._owner != os.getpid():  # a forked worker must not go on with its parent's blocks, as all others would
            self._owner, self._next = os.getpid(), {}
        epoch, slot = self._next.get(label, (0, BLOCK_SIZE))
        if slot == BLOCK_SIZE:
            epoch, slot = int(torch.randint(_EPOCHS, ())), 0
        self._next[label] = epoch, slot + 1
        return self._supply[0].pick(label, epoch, slot)


def _find_labels(batch: Any) -> Any:
    if isinstance(batch, dict):
        return batch.get("labels", batch.get("label"))
    if isinstance(batch, tuple | list) and len(batch) > 1:
        inner = batch[1]
        return _find_labels(inner) if isinstance(inner, dict) else inner
    return None


def _find_images(flat: Sequence[Any], labels: Tensor) -> int:
    """Return the place of the images: of the first tv_tensors.Image, else of the first tensor with four dimensions."""
    tensors = [place for place, value in enumerate(flat) if isinstance(value, Tensor) and value is not labels]
    images = [place for place in tensors if isinstance(flat[place], tv_tensors.Image)]
    found = images or [place for place in tensors if flat[place].ndim == 4]
    if not found or flat[found[0]].ndim != 4 or len(flat[found[0]]) != len(labels):
        raise InputError(
            f"there is no batch of {len(labels)} images (N, C, H, W) beside the {len(labels)} labels; give both"
        )
    return found[0]
