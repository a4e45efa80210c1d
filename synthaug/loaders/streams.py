"""The mixture for streams: the iterable twin of `MixedDataset`, split over workers and processes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import accelerate.state
import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset as HubStream, Value
from torch.utils.data import IterableDataset, get_worker_info

from synthaug.classifiers import Filter
from synthaug.core import BLOCK_SIZE, InputError, draw_choices
from synthaug.data import find_columns, label_value
from synthaug.loaders.assignment import Share, match_classes, resolve_share
from synthaug.loaders.epochs import EpochClock
from synthaug.loaders.labelled import LabelledRows, Layout, check_untransformed, plain_label
from synthaug.loaders.positions import MixedRows
from synthaug.loaders.schedules import Schedule, ShareFactor
from synthaug.loaders.supplies import open_supply
from synthaug.loaders.transforms import SampleTransform

__all__ = ["MixedIterable"]

_BATCH, _CHUNK = 32, 1024


class MixedIterable(IterableDataset[Any]):
    """A stream of real samples, of which a share is replaced by synthetic images of the same class.

    Every worker of a `DataLoader` and every process reads the stream and keeps each n-th sample, so that together
    they yield each sample once. What stands at a position of the stream is a function of (seed, epoch, position), as
    in `MixedDataset`: over the same rows both yield the same samples.

    Args:
        real: An iterable data set (torch, or `datasets` with streaming) of pairs (image, label) or of mappings; a
            map-style one is read in its order.
        synthetic: A generator or a data set; see `MixedDataset`.
        share: Expected share of synthetic images, or a share for each class.
        schedule: How the share goes over the epochs.
        epochs: Number of epochs of the training.
        transform: Applied to the image of a pair, or to a whole mapping.
        seed: Seed of the choices and of the draws.
        temperature: Scale of the generator's noise; the family's own default when None.
        filter: "default", "none", or a callable.
        image_column: Key of the images; found by feature type where the features are known, else "image".
        label_column: Key of the labels; else "label".
        class_names: Names of the labels of `real`, in label order.
        seed_transform: Seed random transforms by (seed, epoch, position).
        splits_itself: `real` gives every worker and process its own samples already, as WebDataset does. Then all of
            them are kept, and what stands where depends on the number of workers.
        rank: Number of this process among `world_size`; None asks torch.distributed, and is 0 of 1 under Accelerate
            (so in the `Trainer`), which splits streams itself.
        world_size: Number of processes.

    Raises:
        InputError: For bad input.

    Example:
        >>> from synthaug import MixedIterable, open_dataset
        >>> digits = open_dataset("digits")
        >>> stream = MixedIterable(digits.to_iterable_dataset(), digits.select(range(100)), share=0.5)
        >>> sum(1 for row in stream) == len(digits)
        True
    """

    def __init__(
        self,
        real: Any,
        synthetic: Any,
        *,
        share: Share = 0.5,
        schedule: Schedule = "constant",
        epochs: int | None = None,
        transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
        temperature: float | None = None,
        filter: str | Filter = "default",
        image_column: str | None = None,
        label_column: str | None = None,
        class_names: Sequence[str] | None = None,
        seed_transform: bool = False,
        splits_itself: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self._process = _check_process(rank, world_size)
        self._clock, self._seed, self._splits_itself = EpochClock(), seed, splits_itself
        self._supply = open_supply(synthetic, seed=seed, temperature=temperature, filter=filter)
        self._factor = ShareFactor(schedule, epochs)
        self._finish = SampleTransform(transform, seed=seed, seeds=seed_transform)
        self._mixed: MixedRows | None = None
        if hasattr(real, "__getitem__") and hasattr(real, "__len__"):
            rows = LabelledRows(real, image_column=image_column, label_column=label_column, class_names=class_names)
            self._mixed = MixedRows(
                rows, self._supply, share=share, factor=self._factor, seed=seed, finish=self._finish
            )
            return
        if not hasattr(real, "__iter__"):
            raise InputError(f"real is a {type(real).__name__}; give an iterable data set")
        self._source = _Source(real, image_column, label_column)
        names = self._source.names if class_names is None else tuple(map(str, class_names))
        self._shares = resolve_share(share, names, self._supply)
        self._place = match_classes(names, self._supply)
        if names is None and self._supply.named:
            self._place = self._source.place_values(self._place)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": self._find_process()}  # a spawned worker cannot ask torch.distributed

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 0."""
        return self._clock.read()

    def set_epoch(self, epoch: int) -> None:
        """Go to another epoch, and tell `real` where it has a `set_epoch` too (it shuffles anew)."""
        self._clock.set(epoch)
        (self._source if self._mixed is None else self._mixed).set_epoch(epoch)

    def _find_process(self) -> tuple[int, int]:
        if self._process is not None:
            return self._process
        started = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not started or accelerate.state.is_initialized():  # Accelerate splits what it is given
            return 0, 1
        return torch.distributed.get_rank(), torch.distributed.get_world_size()

    def _find_shard(self) -> tuple[int, int]:
        """Return the number of this worker of this process among all, and their number."""
        (rank, world_size), worker = self._find_process(), get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return rank * workers + number, world_size * workers

    def __iter__(self) -> Iterator[Any]:
        """Yield this worker's samples, transformed."""
        shard, shards = self._find_shard()
        if self._mixed is not None:
            mixed = self._mixed
            yield from (mixed[index] for index in range(shard, len(mixed), shards))
            return
        yield from self._stream(shard, shards)

    def _stream(self, shard: int, shards: int) -> Iterator[Any]:
        epoch = self._clock.read()
        shares = self._shares * self._factor(epoch)
        choices, taken = _Choices(self._seed, epoch), Counter[int]()
        layout: Layout | None = None
        for count, sample in enumerate(self._source):
            position = count * shards + shard if self._splits_itself else count
            own = self._splits_itself or position % shards == shard
            if layout is None:  # the same example in every worker
                layout = Layout(self._source.complete(sample), self._source.image, self._source.label)
            label = self._place.get(plain_label(layout.label_of(sample)), -1)
            synthetic = label >= 0 and choices.at(position) < shares[label]
            slot = taken[label]
            taken[label] += synthetic
            if own and synthetic:
                block, place = divmod(slot, BLOCK_SIZE)
                if self._splits_itself:  # nobody knows what the others have taken
                    block = block * shards + shard
                pixels = self._supply.pick(label, epoch, block * BLOCK_SIZE + place)
                yield self._finish(layout.build(pixels, layout.label_of(sample)), epoch, position)
            elif own:
                yield self._finish(self._source.complete(sample), epoch, position)


class _Choices:
    """The uniforms of an epoch, drawn in chunks."""

    def __init__(self, seed: int, epoch: int) -> None:
        self._key, self._start, self._values = (seed, epoch), -1, np.empty(0)

    def at(self, position: int) -> float:
        start = position - position % _CHUNK
        if start != self._start:
            self._start, self._values = start, draw_choices(*self._key, start, _CHUNK)
        return float(self._values[position - start])


class _Source:
    """A stream whose images are decoded only where they are kept.

    Args:
        real: An iterable data set.
        image_column: Key of the images; found by feature type when None.
        label_column: Key of the labels; likewise.
    """

    def __init__(self, real: Any, image_column: str | None, label_column: str | None) -> None:
        check_untransformed(real, "real")
        self._real, self._feature = real, None
        features = real.features if isinstance(real, HubStream) else None
        if isinstance(real, HubStream) and real._distributed is not None:
            raise InputError("real is split by node already; give the whole stream, which MixedIterable splits")
        if features:
            columns = find_columns(Dataset(features.arrow_schema.empty_table()), image_column, label_column)
            image_column, label_column = columns.image, columns.label
        self.image, self.label = image_column, label_column
        label = (features or {}).get(label_column)
        self.names = tuple(label.names) if isinstance(label, ClassLabel) else None
        self._values = {label_column: label} if isinstance(label, Value) else None
        feature = (features or {}).get(image_column)
        if isinstance(feature, Image) and real._formatting is None:  # a format would turn the bytes into tensors
            self._feature, self._real = feature, real.cast_column(image_column, Image(decode=False))

    def __iter__(self) -> Iterator[Any]:
        if not isinstance(self._real, HubStream):
            yield from self._real
            return
        # iter(batch_size) reads the whole stream in every worker, where __iter__ would split it by files
        for batch in self._real.iter(_BATCH):
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(batch, values, strict=True))

    def place_values(self, place: Mapping[int | str, int]) -> dict[int | str, int]:
        """Return the classes by the values of a column of plain integers or booleans, which are their names.

        Args:
            place: Class by name, and by index where nothing is known of the column.

        Raises:
            InputError: The column can hold none of these names.
        """
        if self._values is None or self.label is None:
            return dict(place)
        values: dict[int | str, int] = {}
        for name, number in place.items():
            with contextlib.suppress(InputError):
                if isinstance(name, str):
                    values[label_value(Features(self._values), self.label, name)] = number
        if not values:
            names = ", ".join(repr(name) for name in place if isinstance(name, str))
            raise InputError(
                f"real has labels of type {self._values[self.label].dtype}, synthetic has the classes {names}, and "
                "none is in both; name the labels 0, 1, ... of real with class_names"
            )
        return values

    def set_epoch(self, epoch: int) -> None:
        """Tell the stream, where it listens."""
        if hasattr(self._real, "set_epoch"):
            self._real.set_epoch(epoch)

    def complete(self, sample: Any) -> Any:
        """Return a sample with its image decoded."""
        if self._feature is None:
            return sample
        return {**sample, self.image: self._feature.decode_example(sample[self.image])}


def _check_process(rank: int | None, world_size: int | None) -> tuple[int, int] | None:
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise InputError(f"rank is {rank} of world_size {world_size}; give both, with 0 <= rank < world_size")
    return rank, world_size
