"""Memory that two processes share: one puts arrays of bytes there, the other takes them."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Place", "SharedSlots", "open_memory"]

_SLOTS, _COUNTER = 16, np.dtype(np.uint64)


class Place(NamedTuple):
    """Where an array is: its slot and its shape."""

    slot: int
    shape: tuple[int, ...]


def open_memory(slot_bytes: int) -> IO[bytes]:
    """Return a file for `SharedSlots` that has no name and goes with its last user.

    Args:
        slot_bytes: What must fit into one of its 16 slots.

    Raises:
        OSError: If there is no room for it.
    """
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("synthaug")
    else:
        number, name = tempfile.mkstemp()
        Path(name).unlink()
    memory = os.fdopen(number, "w+b")
    memory.write(bytes(_COUNTER.itemsize + _SLOTS * slot_bytes))  # so that room is short now or never
    memory.flush()
    return memory


class SharedSlots:
    """The slots of a file of `open_memory`; either process makes its own object.

    They are filled in turn and emptied in the same order. That something was put has to be announced by other means,
    which is what the other process waits for.

    Args:
        file: Descriptor of the file; it may be closed afterwards.
    """

    def __init__(self, file: int) -> None:
        self._put = 0
        whole = np.frombuffer(mmap.mmap(file, 0), np.uint8)
        self._taken = whole[: _COUNTER.itemsize].view(_COUNTER)  # how often, since the start
        self._slots = whole[_COUNTER.itemsize :].reshape(_SLOTS, -1)

    @property
    def half_full(self) -> bool:
        """Whether more than half of the slots wait to be emptied, for the process that fills them."""
        return self._waiting > _SLOTS // 2

    @property
    def _waiting(self) -> int:
        return self._put - int(self._taken[0])

    def put(self, array: NDArray[np.uint8]) -> Place | None:
        """Copy an array into the next slot; return None if it is still full, or too small."""
        if array.nbytes > self._slots.shape[1] or self._waiting >= _SLOTS:
            return None
        place = Place(self._put % _SLOTS, array.shape)
        self._slots[place.slot, : array.nbytes] = array.reshape(-1)
        self._put += 1
        return place

    @contextmanager
    def take(self, place: Place) -> Iterator[NDArray[np.uint8]]:
        """Context: the array at a place, which is filled again afterwards: what is kept of it has to be copied."""
        yield self._slots[place.slot, : math.prod(place.shape)].reshape(place.shape)
        self._taken += np.uint64(1)
