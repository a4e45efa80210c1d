from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from synthaug.balance import STRATEGIES, BalancePlan, benchmark_plan, make_plan, parse_target, per_class_plan
from synthaug.core import InputError

counts_strategy = st.lists(st.integers(1, 40), min_size=2, max_size=6).map(
    lambda numbers: {f"class{i}": n for i, n in enumerate(numbers)}
)


def imblearn_missing(counts: dict[str, int], strategy) -> dict[str, int]:
    check = pytest.importorskip("imblearn.utils").check_sampling_strategy
    labels = np.repeat(np.arange(len(counts)), list(counts.values()))
    names = list(counts)
    if isinstance(strategy, dict):
        strategy = {names.index(name): total for name, total in strategy.items()}
    asked = check(strategy, labels, "over-sampling")
    return {name: int(asked.get(i, 0)) for i, name in enumerate(names)}


@pytest.mark.parametrize("strategy", ["auto", "not-majority", "minority", "not-minority", "all"])
@settings(deadline=None, max_examples=50)  # the first call imports imbalanced-learn
@given(counts=counts_strategy)
def test_names_mean_what_they_mean_in_imbalanced_learn(strategy, counts):
    assert make_plan(counts, strategy).missing == imblearn_missing(counts, strategy.replace("-", " "))


@settings(deadline=None, max_examples=50)
@given(counts=counts_strategy, data=st.data())
def test_a_mapping_of_totals_means_what_it_means_in_imbalanced_learn(counts, data):
    some = data.draw(st.lists(st.sampled_from(list(counts)), unique=True, min_size=1))
    totals = {name: counts[name] + data.draw(st.integers(0, 30)) for name in some}
    assert make_plan(counts, totals).missing == imblearn_missing(counts, totals)


@given(counts=counts_strategy)
def test_majority_is_the_default_and_is_auto(counts):
    plan = make_plan(counts)
    assert plan == make_plan(counts, "majority")
    assert plan.missing == make_plan(counts, "auto").missing
    assert set(plan.total.values()) == {max(counts.values())}


@given(
    counts=counts_strategy,
    target=st.one_of(st.sampled_from(list(STRATEGIES)), st.integers(1, 80)),
    fraction=st.one_of(st.none(), st.integers(0, 99).map(lambda n: n / 100)),
)
def test_plans_never_take_away_and_respect_the_cap(counts, target, fraction):
    plan = make_plan(counts, target, max_synthetic_fraction=fraction)
    free = make_plan(counts, target)
    assert plan.real == counts and plan.class_names == tuple(counts)
    assert plan.total == {name: plan.real[name] + plan.missing[name] for name in counts}
    assert plan.num_missing == sum(plan.missing.values())
    for name, real in counts.items():
        assert 0 <= plan.missing[name] <= free.missing[name]
        if fraction is not None:
            percent = round(fraction * 100)
            assert plan.missing[name] * (100 - percent) <= percent * real
            if plan.missing[name] < free.missing[name]:  # and the cap is the largest such number
                assert (plan.missing[name] + 1) * (100 - percent) > percent * real


def test_ties_go_to_the_first_class():
    assert make_plan({"a": 2, "b": 2, "c": 5}, "minority").missing == {"a": 3, "b": 0, "c": 0}
    assert make_plan({"b": 2, "a": 2, "c": 5}, "not-minority").missing == {"b": 0, "a": 3, "c": 0}


def test_the_cap_is_exact_in_decimals():
    assert make_plan({"a": 2, "b": 100}, max_synthetic_fraction=0.6).missing["a"] == 3
    assert make_plan({"a": 10, "b": 1000}, max_synthetic_fraction=0.9).missing["a"] == 90


def test_classes_above_a_number_or_the_median_stay_with_a_notice():
    plan = make_plan({"a": 9, "b": 4, "c": 1}, 5)
    assert plan.missing == {"a": 0, "b": 1, "c": 4}
    assert len(plan.notices) == 1 and "a (9)" in plan.notices[0] and plan.notices[0] in plan.table()
    assert make_plan({"a": 9, "b": 4, "c": 1}, "median").notices
    assert make_plan({"a": 4, "b": 3}, "median").missing == {"a": 0, "b": 0}
    assert not make_plan({"a": 9, "b": 4}, "majority").notices
    assert "b (5 -> 1)" in make_plan({"a": 6, "b": 1}, max_synthetic_fraction=0.5).notices[0]


def test_a_class_of_the_run_without_rows_here_is_raised_too():
    assert make_plan({"a": 0, "b": 3}).missing == {"a": 3, "b": 0}


def test_per_class_and_benchmark_plans():
    assert per_class_plan({"a": 9, "b": 0}, 4).missing == {"a": 4, "b": 4}
    assert benchmark_plan({"a": 9, "b": 7, "c": 1}).missing == {"a": 9, "b": 7, "c": 8}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_plan({"cat": 3}, {"cats": 5}), ["'cats'", "did you mean 'cat'?", "allowed"]),
        (lambda: make_plan({"cat": 3}, {"cat": 2}), ["2", "3 real rows", "at least 3"]),
        (lambda: make_plan({"cat": 3}, {"cat": 4.5}), ["4.5", "whole number"]),
        (lambda: make_plan({"cat": 3}, "majorty"), ["did you mean 'majority'?", "median"]),
        (lambda: make_plan({"cat": 3}, 0), ["0", "at least 1"]),
        (lambda: make_plan({"cat": 3}, -4), ["-4"]),
        (lambda: make_plan({}, "all"), ["empty"]),
        (lambda: make_plan({"cat": 3}, max_synthetic_fraction=1.0), ["max_synthetic_fraction", "below 1"]),
        (lambda: make_plan({"cat": 3}, max_synthetic_fraction=float("nan")), ["nan"]),
        (lambda: per_class_plan({"cat": 3}, 0), ["per_class", "at least 1"]),
        (lambda: BalancePlan({"a": 1}, {"b": 1}), ["same classes"]),
        (lambda: BalancePlan({"a": 1}, {"a": -1}), ["-1"]),
        (lambda: parse_target("totals.json"), ["totals.json", "class name: total"]),
    ],
)
def test_bad_input_says_what_is_allowed_on_one_line(call, words):
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_parse_target(tmp_path):
    assert parse_target("500") == 500
    assert parse_target("not majority") == "not-majority"
    path = tmp_path / "totals.json"
    path.write_text(json.dumps({"a": 7}))
    assert parse_target(str(path)) == {"a": 7}
    for bad in ('["a"]', '{"a": 1.5}', '{"a": true}', "{"):
        path.write_text(bad)
        with pytest.raises(InputError):
            parse_target(str(path))


def test_names_from_data_cannot_write_to_the_terminal():
    assert "\x1b" not in make_plan({"a\x1b[31m": 9, "b": 1}, 5).table()
