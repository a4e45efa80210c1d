"""How long a fit lasts: a number of images, or a duration turned into one."""

from __future__ import annotations

import time

__all__ = ["Budget"]

_SKIPPED_STEPS, _WARMUP_SECONDS, _WARMUP_SHARE = 2, 10.0, 0.05


class Budget:
    """Progress of a fit in [0, 1], by images seen.

    A duration becomes a number of images after a short timed warm-up, by its faster steps (too many images do
    no harm, too few would waste the budget); the wall clock caps it, and progress then follows whichever of
    the two is further, so that schedules always reach their end.

    Args:
        images: Number of images, exact; or None.
        seconds: Duration; or None.
        reserve: Seconds kept for what comes after the loop.
    """

    def __init__(self, *, images: int | None = None, seconds: float | None = None, reserve: float = 0.0) -> None:
        self.images, self.seconds, self.reserve, self._spent = images, seconds, reserve, 0.0
        self._started = time.monotonic()
        self._first = 0.0
        self._last: tuple[float, int] | None = None
        self._speeds: list[float] = []

    @property
    def elapsed(self) -> float:
        """Seconds spent so far, earlier processes included."""
        return self._spent + time.monotonic() - self._started

    def resume(self, *, images: int | None, spent: float) -> None:
        """Take over the number of images and the seconds of an interrupted fit."""
        self.images, self._spent = images, spent

    def note_step(self, images_seen: int) -> None:
        """Tell the budget that a step is done; fixes the number of images once the warm-up is over."""
        if self.images is not None or self.seconds is None:
            return
        now = self.elapsed
        if self._last is None:
            self._first = now
        else:
            self._speeds.append((images_seen - self._last[1]) / max(1e-9, now - self._last[0]))
        self._last = (now, images_seen)
        warm = now - self._first >= min(_WARMUP_SECONDS, _WARMUP_SHARE * self.seconds)
        if warm and len(self._speeds) > _SKIPPED_STEPS:
            speeds = sorted(self._speeds[_SKIPPED_STEPS:])
            speed = speeds[int(0.75 * (len(speeds) - 1))]
            self.images = images_seen + max(1, int(speed * max(0.0, self.seconds - self.reserve - now)))

    def progress(self, images_seen: int) -> float:
        """Return the fraction done, in [0, 1]."""
        by_images = images_seen / self.images if self.images else 0.0
        by_time = self.elapsed / max(1e-9, self.seconds - self.reserve) if self.seconds else 0.0
        return min(1.0, max(by_images, by_time))
