"""The verdict needs the same arm without synthetic rows, too."""

import numpy as np
import pytest

from synthaug.benchmarks.arms import parse_arm
from synthaug.benchmarks.cells import Cell
from synthaug.benchmarks.findings import _note_limits
from synthaug.benchmarks.results import ArmResults
from synthaug.benchmarks.verdicts import decide, write_sentence
from synthaug.core import estimate_mean


def estimate(points):
    """Five seeds that differ a little around `points` percentage points, on 400 rows of two classes."""
    labels = np.arange(400) % 2
    rng = np.random.default_rng(0)
    values = points / 100 + 0.001 * rng.standard_normal((5, 400))
    return estimate_mean(values, labels)


@pytest.mark.parametrize(
    ("against_opponent", "against_own", "verdict"),
    [
        (2, 2, "helps"),
        (2, 0, "no clear change"),
        (2, -2, "no clear change"),
        (0, 2, "no clear change"),
        (-2, 0, "harms"),
    ],
)
def test_a_gain_must_come_from_the_synthetic_rows(against_opponent, against_own, verdict):
    assert decide(estimate(against_opponent), estimate(against_own)) == verdict


def test_the_sentence_says_what_was_found():
    def say(verdict, difference, own, **options):
        return write_sentence(verdict, estimate(difference), "real+classical", 400, estimate(own), "real", **options)

    assert "percentage points higher than in the arm without them" in say("helps", 2, 2)
    assert "do not train on them" in say("harms", -2, -2)
    assert "not shown to come from the synthetic rows" in say("no clear change", 2, 0)
    assert "would have been found four times in five" in say("no clear change", 0, 0)
    assert "none is recommended" in say("no clear change", 0, 0, unused=True)


@pytest.mark.parametrize(("interval", "noted"), [([-0.01, 0.02], True), ([0.001, 0.02], False), (None, False)])
def test_a_note_says_where_not_even_real_rows_help(interval, noted):
    oracle = ArmResults(parse_arm("real+oracle"), Cell("real+oracle", 0, 1, 8, "affine", 6e-3), [], 36)
    notes = _note_limits([oracle], {"real+oracle": {"value": 0.005, "interval": interval}})
    assert [("Not even 36 further real rows" in note and "--steps" in note) for note in notes] == [True] * noted
