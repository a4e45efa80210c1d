"""The three ways in which a command ends early, each with its exit code."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["FailedError", "GainError", "InputError", "RankError", "StoppedError", "suggest"]


class InputError(ValueError):
    """Bad input or usage: one line saying what came, what is allowed and what to do (exit code 2)."""

    exit_code = 2


class FailedError(RuntimeError):
    """The work itself failed and the message says why and what to do (exit code 1)."""

    exit_code = 1


class RankError(FailedError):
    """One process of several failed, and only it knows why: it says so itself, whatever its number."""


class GainError(RuntimeError):
    """`--require-gain` was not met (exit code 3)."""

    exit_code = 3


class StoppedError(Exception):
    """A signal stopped the work after everything was saved (exit code 128 + signal).

    Args:
        message: What was saved and how to go on.
        signal_number: The signal, e.g. 2 (SIGINT) or 15 (SIGTERM).
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def suggest(given: str, allowed: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the allowed name nearest to `given`, or an empty string."""
    import difflib  # not before a command has said what stops it: it takes a while

    close = difflib.get_close_matches(given, list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
