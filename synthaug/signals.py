"""Stop signals, turned into a flag that long loops look at between two steps; work without steps ends where it is."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

__all__ = ["StopSignals"]


class StopSignals:
    """Context that notes the first SIGINT or SIGTERM; a second one has its usual effect at once.

    Outside the main thread it notes nothing, because Python delivers signals only there.

    Args:
        at_once: Also raise KeyboardInterrupt where the signal comes, for work that has no step to wait for.

    Example:
        >>> with StopSignals() as stop:
        ...     stop.received
        0
    """

    _handled = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, *, at_once: bool = False) -> None:
        self.received = 0
        """Number of the signal that came, 0 while none has."""
        self._at_once = at_once
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in self._handled:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        if self._at_once:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()
