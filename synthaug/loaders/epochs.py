"""The number of the epoch, told to worker processes that are already running."""

from __future__ import annotations

from typing import Any

import torch

from synthaug.core import InputError

__all__ = ["EpochClock"]


class EpochClock:
    """A number in shared memory: `DataLoader(persistent_workers=True)` keeps its workers from epoch to epoch.

    Example:
        >>> clock = EpochClock()
        >>> clock.set(3)
        >>> clock.read()
        3
    """

    def __init__(self) -> None:
        self._cell = torch.zeros(1, dtype=torch.int64)
        self._cell.share_memory_()  # type: ignore[no-untyped-call]
        self._view = self._cell.numpy()  # a tenth of the time of Tensor.item(), and it is read for every row

    def __getstate__(self) -> dict[str, Any]:
        return {"_cell": self._cell}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._cell = state["_cell"]
        self._view = self._cell.numpy()

    def read(self) -> int:
        """Return the number of the epoch."""
        return int(self._view[0])

    def set(self, epoch: int) -> None:
        """Set the number of the epoch, in every process that shares this clock.

        Raises:
            InputError: It is not an integer of at least 0.
        """
        if isinstance(epoch, bool) or not hasattr(epoch, "__index__") or not 0 <= int(epoch) < 2**20:
            raise InputError(f"epoch is {epoch!r}; give its number, counted from 0")
        self._view[0] = int(epoch)
