"""The launcher of ranks: the code of the rank that failed first is the code of the command."""

import subprocess

import pytest

from synthaug.core import StopSignals, launching


@pytest.mark.parametrize(
    ("scripts", "code"),
    [
        (["exit 0", "sleep 0.2"], 0),
        (["sleep 0.3; exit 1", "kill -9 $$"], 137),  # the killed one came first, the other met a closed connection
        (["exit 1", "kill -9 $$"], 137),
        (["sleep 0.3; exit 1", "exit 143"], 143),
        (["exit 2", "exit 0"], 2),
    ],
)
def test_the_code_of_the_first_rank_that_failed(scripts, code):
    assert launching._wait([subprocess.Popen(["sh", "-c", script]) for script in scripts], StopSignals()) == code


def test_a_rank_that_does_not_end_is_ended(monkeypatch):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(launching.time, "monotonic", lambda: next(clock))
    ranks = [subprocess.Popen(["sh", "-c", "exit 3"]), subprocess.Popen(["sleep", "60"])]
    assert launching._wait(ranks, StopSignals()) == 3
    assert ranks[1].returncode == -9
