import pytest

from synthaug.training import budget as module
from synthaug.training.budget import Budget


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


def test_images_are_exact(clock):
    budget = Budget(images=1000)
    assert budget.progress(0) == 0 and budget.progress(500) == 0.5 and budget.progress(1000) == 1
    clock.now = 1e6
    assert budget.progress(500) == 0.5


def test_a_duration_becomes_images_after_the_warm_up(clock):
    budget = Budget(seconds=100, reserve=10)
    seen = 0
    while budget.images is None:
        clock.now += 0.5
        seen += 64
        budget.note_step(seen)
    # 128 images/s and 90 s of training in all
    assert abs(budget.images - 90 * 128) < 64
    fixed = budget.images
    budget.note_step(seen + 64)
    assert budget.images == fixed


def test_the_wall_clock_caps(clock):
    budget = Budget(seconds=100, reserve=10)
    budget.images = 10_000
    clock.now = 90
    assert budget.progress(10) == 1.0


def test_resumed_seconds_count(clock):
    budget = Budget(seconds=100)
    budget.resume(images=1000, spent=60)
    clock.now = 20
    assert budget.elapsed == 80 and budget.progress(0) == pytest.approx(0.8)
