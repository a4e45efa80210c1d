"""How long a fit lasts: a number of images, or a duration turned into one."""

from __future__ import annotations

import time

__all__ = ["Budget"]

_SKIPPED_STEPS, _WARMUP_SECONDS, _WARMUP_SHARE = 3, 3.0, 0.05


class Budget:
    """Progress of a fit in [0, 1], by images seen.

    A duration becomes a number of images after a short timed warm-up; the wall clock caps it, and progress
    then follows whichever of the two is further, so that schedules always reach their end.

    Args:
        images: Number of images, exact; or None.
        seconds: Duration; or None.
        reserve: Seconds kept for what comes after the loop.
    """

    def __init__(
        self, *, images: int | None = None, seconds: float | None = None, reserve: float = 0.0
    ) -> None:
        self.images, self.seconds, self.reserve, self._spent = images, seconds, reserve, 0.0
        self._started = time.monotonic()
        self._mark: tuple[float, int] | None = None
        self._steps = 0

    @property
    def elapsed(self) -> float:
        """Seconds spent so far, earlier processes included."""
        return self._spent + time.monotonic() - self._started

    def resume(self, *, images: int | None, spent: float) -> None:
        """Take over the number of images and the seconds of an interrupted fit."""
        self.images, self._spent = images, spent

    def note_step(self, images_seen: int) -> None:
        """Tell the budget that a step is done; fixes the number of images once the warm-up is over."""
        self._steps += 1
        if self.images is not None or self.seconds is None:
            return
        if self._steps == _SKIPPED_STEPS:
            self._mark = (self.elapsed, images_seen)
        elif self._mark is not None:
            took, seen = self.elapsed - self._mark[0], images_seen - self._mark[1]
            if took >= min(_WARMUP_SECONDS, _WARMUP_SHARE * self.seconds):
                left = max(0.0, self.seconds - self.reserve - self.elapsed)
                self.images = images_seen + max(1, int(seen / took * left))

    def progress(self, images_seen: int) -> float:
        """Return the fraction done, in [0, 1]."""
        by_images = images_seen / self.images if self.images else 0.0
        by_time = self.elapsed / max(1e-9, self.seconds - self.reserve) if self.seconds else 0.0
        return min(1.0, max(by_images, by_time))
