"""Every arm against the opponent, groups of classes and what the synthetic rows were worth."""

from __future__ import annotations

import numpy as np
import pytest

from synthaug.benchmarks.arms import parse_arm
from synthaug.benchmarks.cells import Cell
from synthaug.benchmarks.comparisons import compare_arms, compare_groups, compare_pair, count_equivalents
from synthaug.benchmarks.results import ArmResults, choose_front
from synthaug.core import adjust_holm

LABELS = np.repeat(np.arange(4), 50)


def arm_results(name, chance, *, seeds=5, seed=0, rows=0, validation=None):
    """Predictions that are right with a chance, for each class one; wrong ones are the next class."""
    rng = np.random.default_rng(seed)
    right = rng.random((seeds, len(LABELS))) < np.broadcast_to(chance, 4)[LABELS]
    predictions = np.where(right, LABELS, (LABELS + 1) % 4)
    each = [{"test": {"predictions": row.tolist()}, "validation": validation, "curve": []} for row in predictions]
    return ArmResults(parse_arm(name), Cell(name, 0, 1, 1, "affine", 1e-3), each, rows)


@pytest.fixture
def three():
    return arm_results("real", 0.6), arm_results("real+smote", 0.6, seed=1), arm_results("real+synthetic", 0.8, seed=2)


# ------------------------------------------------------------------------------------------------------------- Holm


def test_holm_by_hand():
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert adjust_holm([0.2]) == [0.2]
    assert adjust_holm([]) == []


def test_holm_gives_the_values_of_r():
    """p.adjust(c(0.0001, 0.01, 0.02, 0.03, 0.05), "holm")."""
    assert adjust_holm([0.05, 0.0001, 0.02, 0.01, 0.03]) == pytest.approx([0.06, 0.0005, 0.06, 0.04, 0.06])


def test_holm_does_not_count_what_has_no_p_value():
    adjusted = adjust_holm([0.02, float("nan"), 0.04])
    assert np.isnan(adjusted[1]) and adjusted[::2] == pytest.approx([0.04, 0.04])


def test_holm_keeps_the_family_wise_error():
    rng = np.random.default_rng(0)
    wrong = [min(adjust_holm(values)) < 0.05 for values in rng.random((3_000, 6))]
    assert np.mean(wrong) < 0.05 + 3 * (0.05 * 0.95 / 3_000) ** 0.5


# ---------------------------------------------------------------------------------------------------------- compare


def test_all_arms_are_compared_with_the_opponent_but_itself(three):
    opponent, _, better = three
    found = compare_arms(three, opponent, LABELS)
    assert set(found) == {"real+smote", "real+synthetic"}
    gain = found["real+synthetic"]
    assert gain["value"] == pytest.approx(compare_pair(better, opponent, LABELS).value) and 0.1 < gain["value"] < 0.3
    assert gain["interval"][0] > 0 and gain["p_holm"] < 0.05
    assert found["real+smote"]["p_holm"] > 0.05
    assert sorted(one["p_holm"] for one in found.values()) == pytest.approx(
        sorted(adjust_holm([one["p"] for one in found.values()]))
    )
    assert all(one["p_holm"] >= one["p"] for one in found.values())


def test_a_pair_turned_round_changes_its_sign(three):
    opponent, _, better = three
    one, other = compare_pair(better, opponent, LABELS), compare_pair(opponent, better, LABELS)
    assert one.value == pytest.approx(-other.value) and one.p_value == pytest.approx(other.p_value)
    assert one.low == pytest.approx(-other.high)


def test_the_same_arm_does_not_differ(three):
    same = compare_pair(three[0], three[0], LABELS)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_one_seed_has_neither_interval_nor_p_value():
    found = compare_arms(
        [arm_results("real", 0.5, seeds=1), arm_results("real+synthetic", 0.9, seeds=1)],
        arm_results("real", 0.5, seeds=1),
        LABELS,
    )
    assert found["real+synthetic"]["interval"] is None and np.isnan(found["real+synthetic"]["p_holm"])


# ----------------------------------------------------------------------------------------------------------- groups


def test_groups_are_thirds_by_training_rows():
    opponent, synthetic = arm_results("real", [0.9, 0.5, 0.5, 0.1]), arm_results("real+synthetic", [0.9, 0.5, 0.5, 0.6])
    groups = compare_groups(synthetic, opponent, LABELS, list("abcd"), [1000, 100, 90, 5])
    assert [group["name"] for group in groups] == ["head", "medium", "tail"]
    assert [group["classes"] for group in groups] == [["a", "b"], ["c"], ["d"]]
    assert [group["train"] for group in groups] == [1100, 90, 5]
    assert groups[2]["synthetic"] - groups[2]["opponent"] > 0.3
    assert groups[0]["synthetic"] == groups[0]["opponent"]


def test_no_groups_where_classes_are_about_equal_or_two(three):
    assert compare_groups(three[2], three[0], LABELS, list("abcd"), [100, 90, 80, 60]) == []
    assert compare_groups(three[2], three[0], LABELS, list("ab"), [100, 1]) == []


# ------------------------------------------------------------------------------------------------- real-equivalents


def test_rows_are_read_off_the_line_between_the_oracles():
    worth = count_equivalents(0.02, (0.01, 0.03), {100: 0.02, 400: 0.04}, 200)
    assert (worth["rows"], worth["low"], worth["high"]) == pytest.approx((100, 50, 250))
    assert worth["per_synthetic_row"] == pytest.approx(0.5) and not worth["beyond"]
    assert worth["points"] == [[0, 0.0], [100, 0.02], [400, 0.04]]


def test_what_lies_outside_the_line():
    beyond = count_equivalents(0.05, (0.03, 0.07), {100: 0.02, 400: 0.04}, 400)
    assert beyond["beyond"]
    assert (beyond["rows"], beyond["low"], beyond["high"]) == pytest.approx((400, 250, 400))
    harm = count_equivalents(-0.02, (-0.05, 0.01), {100: 0.02}, 100)
    assert (harm["rows"], harm["low"], harm["high"], harm["beyond"]) == (0, 0, 50, False)


def test_the_line_never_falls():
    worth = count_equivalents(0.03, None, {100: 0.03, 400: 0.02, 900: 0.06}, 100)
    assert worth["rows"] == 100 == worth["low"] == worth["high"]  # the fewest that gained as much
    assert [gain for _, gain in worth["points"]] == [0, 0.03, 0.03, 0.06]
    reads = [count_equivalents(gain, None, {100: 0.03, 400: 0.02, 900: 0.06}, 1)["rows"] for gain in (0, 0.01, 0.04)]
    assert reads == sorted(reads)


def test_nothing_to_read_without_oracles_or_where_they_gain_nothing():
    assert count_equivalents(0.02, None, {}, 10) is None
    assert count_equivalents(0.02, None, {100: -0.01, 400: 0.0}, 10) is None


# ------------------------------------------------------------------------------------------------------------ front


def test_the_front_has_the_lowest_loss_then_the_highest_accuracy_then_comes_first():
    def arm(name, loss, accuracy):
        return arm_results(name, 0.5, validation={"scaled_nll": loss, "nll": 9.0, "balanced_accuracy": accuracy})

    first, second, third = arm("real", 0.5, 0.8), arm("real+classical", 0.4, 0.7), arm("real+strong", 0.4, 0.75)
    assert choose_front([first, second, third]) is third
    assert choose_front([first, second]) is second
    assert choose_front([first, arm("oversampled", 0.5, 0.8)]) is first
    blind = [arm_results("real", 0.5), arm_results("real+classical", 0.5)]
    assert choose_front(blind) is blind[1]
