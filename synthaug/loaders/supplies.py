"""Where the synthetic images of a training come from: a generator that draws them, or a data set that holds them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from synthaug.classifiers import Filter
from synthaug.core import BLOCK_SIZE, FailedError, InputError, draw_order
from synthaug.data import real_rows
from synthaug.generation import Key, Sampler, fixed_threads, resolve_filter
from synthaug.generators import ConditionalGenerator
from synthaug.loaders.assignment import Supply
from synthaug.loaders.labelled import LabelledRows

__all__ = ["BLOCKS_PER_EPOCH", "Drawn", "Stored", "open_supply"]

BLOCKS_PER_EPOCH = 2**20
"""Epoch e takes the draws of a class from block e * BLOCKS_PER_EPOCH on, so that no two epochs share a draw."""

CACHE_BYTES = 256 * 2**20
"""Bytes of drawn pixels that a process keeps."""

_TRIES = 20


class Drawn:
    """Images drawn by a generator when they are asked for, in whole blocks of 64.

    Slot s of epoch e is draw 64 (e BLOCKS_PER_EPOCH + s // 64) + s % 64 of its class, the very draw that `generate`
    makes with the same seed. Where a filter rejects draws, the slots of a block go round those it keeps. Blocks are
    kept up to `cache_bytes`, the latest first.

    Args:
        generator: The generator, on its device.
        seed: Seed of the draws.
        temperature: Scale of the noise; the family's own default when None.
        filter: "default" (the judge of the generator's run), "none" or a callable.
        cache_bytes: Bytes of pixels to keep in each process; one block is always kept.
    """

    def __init__(
        self,
        generator: ConditionalGenerator,
        *,
        seed: int,
        temperature: float | None = None,
        filter: str | Filter = "default",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if temperature is not None and not 0 <= temperature < float("inf"):
            raise InputError(f"temperature is {temperature}; give a number of at least 0, such as 0.9")
        scale = generator.default_temperature if temperature is None else float(temperature)
        self._sampler = Sampler(generator, resolve_filter(generator, filter)[0], seed=seed, temperature=scale)
        self._device = next(generator.parameters()).device.type
        self._cache_bytes, self._cached = cache_bytes, 0
        self._blocks: OrderedDict[Key, NDArray[np.uint8]] = OrderedDict()
        self.class_names, self.named = tuple(generator.class_names), True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": OrderedDict(), "_cached": 0}

    def holds(self, label: int) -> bool:
        """Return whether the generator knows this class."""
        return 0 <= label < len(self.class_names)

    def pick(self, label: int, epoch: int, slot: int) -> NDArray[np.uint8]:
        """Return the image number `slot` of a class in an epoch, (H, W, C) uint8.

        Raises:
            InputError: A worker process is to draw on an accelerator.
            FailedError: The filter keeps nothing, or the generator gives values that are not finite.
        """
        kept = self._block((label, epoch * BLOCKS_PER_EPOCH + slot // BLOCK_SIZE))
        image: NDArray[np.uint8] = kept[slot % BLOCK_SIZE % len(kept)]
        return image

    def _block(self, key: Key) -> NDArray[np.uint8]:
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        kept = self._blocks[key] = self._compute(key)
        self._cached += kept.nbytes
        while self._cached > self._cache_bytes and len(self._blocks) > 1:
            self._cached -= self._blocks.popitem(last=False)[1].nbytes
        return kept

    def _compute(self, key: Key) -> NDArray[np.uint8]:
        if self._device != "cpu" and get_worker_info() is not None:
            raise InputError(
                f"a worker process of a DataLoader cannot draw on {self._device}; set num_workers=0, or move the "
                "generator to the CPU with generator.cpu()"
            )
        label, number = key
        with fixed_threads():
            for attempt in range(_TRIES):  # where all are rejected, later blocks of the epoch stand in
                pixels, mask, _ = self._sampler.draw((label, number + attempt * (BLOCKS_PER_EPOCH // 2 // _TRIES)))
                if mask.any():
                    return pixels[mask]
        name, draws = self.class_names[label], _TRIES * BLOCK_SIZE
        raise FailedError(f"the filter keeps none of {draws} draws of class {name!r}; fit longer, or use filter='none'")


class Stored:
    """Images of a data set; an epoch goes through the rows of a class in a random order before it repeats one.

    Args:
        dataset: What `generate` returned (of a mixed data set, its synthetic rows), or a torch data set of pairs.
        seed: Seed of the orders.
        image_column: Found by feature type when None.
        label_column: Found by feature type when None.
        group_by: Columns whose joint groups are the classes.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        seed: int,
        image_column: str | None = None,
        label_column: str | None = None,
        group_by: Sequence[str] | None = None,
    ) -> None:
        if isinstance(dataset, Dataset):
            dataset = _only_synthetic(dataset).with_format(None)
        self._rows = LabelledRows(
            dataset, image_column=image_column, label_column=label_column, group_by=group_by, role="synthetic"
        )
        labels = self._rows.labels
        self._seed = seed
        self._of_class = [np.flatnonzero(labels == label) for label in range(int(labels.max(initial=-1)) + 1)]
        self._orders: dict[int, tuple[int, dict[int, NDArray[np.int64]]]] = {}
        self.named = self._rows.names is not None
        self.class_names = self._rows.names or tuple(str(label) for label in range(len(self._of_class)))

    def holds(self, label: int) -> bool:
        """Return whether there is a row of this class."""
        return 0 <= label < len(self._of_class) and len(self._of_class[label]) > 0

    def pick(self, label: int, epoch: int, slot: int) -> NDArray[np.uint8]:
        """Return the image number `slot` of a class in an epoch, (H, W, C) uint8."""
        rows = self._of_class[label]
        turn, place = divmod(slot, len(rows))
        if label not in self._orders or self._orders[label][0] != epoch:
            self._orders[label] = epoch, {}
        orders = self._orders[label][1]
        if turn not in orders:
            orders[turn] = draw_order(self._seed, epoch, label, turn, len(rows))
        return self._rows.pixels(int(rows[orders[turn][place]]))


def _only_synthetic(dataset: Dataset) -> Dataset:
    synthetic = ~real_rows(dataset)
    return dataset.select(np.flatnonzero(synthetic)) if synthetic.any() else dataset


def open_supply(
    source: Any,
    *,
    seed: int,
    temperature: float | None = None,
    filter: str | Filter = "default",
    image_column: str | None = None,
    label_column: str | None = None,
    group_by: Sequence[str] | None = None,
) -> Supply:
    """Return the synthetic images of a generator or of a data set.

    Raises:
        InputError: The source is neither, the seed is out of range, or a temperature is given for a data set.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed!r}; give an integer from 0 to 2**63 - 1")
    if isinstance(source, ConditionalGenerator):
        return Drawn(source, seed=seed, temperature=temperature, filter=filter)
    if not hasattr(source, "__getitem__") or not hasattr(source, "__len__") or isinstance(source, str | dict):
        kind = type(source).__name__
        raise InputError(f"synthetic is a {kind}; give a generator (synthaug.load_generator) or a map-style data set")
    if temperature is not None:
        raise InputError(f"temperature is {temperature}, but the images of a data set are drawn already; leave it out")
    return Stored(source, seed=seed, image_column=image_column, label_column=label_column, group_by=group_by)
