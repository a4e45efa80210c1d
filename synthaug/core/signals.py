"""Stop signals: the end of a command with one line, a flag for loops that save, or an exception for other work."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from synthaug.core.errors import StoppedError

__all__ = ["STOP_SIGNALS", "StopSignals", "end_at_signals", "stopped_at_once"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_PATIENCE, _MOMENT = 5.0, 0.01
"""Seconds after which what ends the work is raised again: because it goes on, or because Python dropped it."""


def end_at_signals() -> None:
    """Let a SIGINT or SIGTERM end this process wherever it is, with one line and exit code 130 or 143.

    For a command, outside the contexts below: nothing is raised, so that no library can turn it into another error.
    """
    _handle_with(_end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # `start_child` holds them back until here
    atexit.register(_handle_with, signal.SIG_IGN)  # called last: while Python ends, nothing is left to stop


def _handle_with(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", "0") == "0":
        line = f"error: {_describe(number)}; run the same command again\n"
        os.write(2, ("\n" * os.isatty(2) + line).encode())  # a terminal has shown ^C
    os._exit(128 + number)


def _describe(number: int) -> str:
    return f"stopped by {signal.Signals(number).name}"


class StopSignals:
    """Context that notes the first SIGINT or SIGTERM; a second one has its usual effect at once.

    So has the first one when the context ends as if it had not come. Outside the main thread it notes nothing, because
    Python delivers signals only there.

    Example:
        >>> with StopSignals() as stop:
        ...     stop.received
        0
    """

    def __init__(self) -> None:
        self.received = 0
        """Number of the signal that came, 0 while none has."""
        self._raises = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self.received and kind is None:
            signal.raise_signal(self.received)

    @contextmanager
    def at_once(self, advice: str) -> Iterator[None]:
        """Context that the signal ends where it is, for work that has no step to wait for.

        Args:
            advice: What is kept and how to go on.

        Raises:
            StoppedError: After a signal, whatever error it led to.
        """
        hook, alarm = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
        self._raises = True
        try:
            if not self.received:
                yield
        finally:
            self._raises = False
            if self.received:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, alarm)
                sys.unraisablehook = hook
                raise StoppedError(f"{_describe(self.received)}; {advice}", self.received) from None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        hook = sys.unraisablehook

        def insist(*_: object) -> None:
            if self._raises:
                signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
                raise KeyboardInterrupt

        def look_at(dropped: sys.UnraisableHookArgs) -> None:
            if dropped.exc_type is KeyboardInterrupt:  # by the `__del__` of an object, or a callback of an import
                signal.setitimer(signal.ITIMER_REAL, _MOMENT)
            else:
                hook(dropped)

        if self._raises:
            signal.signal(signal.SIGALRM, insist)
            sys.unraisablehook = look_at
            insist()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()


@contextmanager
def stopped_at_once(advice: str) -> Iterator[None]:
    """Context that a first SIGINT or SIGTERM ends where it is; see `StopSignals.at_once`.

    Args:
        advice: What is kept and how to go on.

    Raises:
        StoppedError: After a signal, whatever error it led to.
    """
    with StopSignals() as stop, stop.at_once(advice):
        yield
