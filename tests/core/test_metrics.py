from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from synthaug.core import (
    balance_mean,
    balanced_accuracy,
    balanced_nll,
    calibration_error,
    confusion_matrix,
    estimate_mean,
    judge_difference,
    macro_f1,
    scaled_losses,
)
from synthaug.core.metrics import recalls


@pytest.fixture
def predictions():
    random = np.random.RandomState(0)
    labels = np.r_[np.zeros(40, int), np.ones(9, int), np.full(3, 2)]
    return labels, np.where(random.rand(52) < 0.7, labels, random.randint(0, 3, 52))


def test_scores_agree_with_scikit_learn(predictions):
    labels, found = predictions
    assert balanced_accuracy(labels, found, 3) == pytest.approx(reference.balanced_accuracy_score(labels, found))
    assert macro_f1(labels, found, 3) == pytest.approx(reference.f1_score(labels, found, average="macro"))
    assert (confusion_matrix(labels, found, 3) == reference.confusion_matrix(labels, found)).all()


def test_a_class_without_rows_does_not_count(predictions):
    labels, found = predictions
    assert balanced_accuracy(labels, found, 5) == balanced_accuracy(labels, found, 3)
    assert np.isnan(recalls(labels, found, 4)[3])
    assert macro_f1(labels, found, 4) == macro_f1(labels, found, 3)


def test_balanced_nll_of_even_odds():
    assert balanced_nll(np.array([0, 0, 1]), np.zeros((3, 2)), 2) == pytest.approx(math.log(2))


def test_row_variance_is_what_a_stratified_bootstrap_converges_to():
    random = np.random.RandomState(1)
    labels = np.repeat([0, 1, 2], [30, 12, 50])
    scores = np.repeat(random.rand(1, 92), 3, axis=0)  # every seed agrees: rows are the only spread
    resampled = [
        np.mean([scores[0, random.choice(np.flatnonzero(labels == c), (labels == c).sum())].mean() for c in range(3)])
        for _ in range(4000)
    ]
    assert estimate_mean(scores, labels).row_error == pytest.approx(np.std(resampled), rel=0.06)


def test_seeds_alone_give_the_paired_t_interval():
    labels = np.repeat([0, 1], 20)
    values = np.array([0.01, 0.03, 0.02, 0.05, 0.015])
    estimate = estimate_mean(np.repeat(values[:, None], 40, axis=1), labels)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))
    assert estimate.degrees == pytest.approx(4)
    assert estimate.detectable / estimate.standard_error == pytest.approx(3.76, abs=0.05)  # 1.68 sd at n = 5
    power = 1 - stats.nct.cdf(stats.t.ppf(0.975, 4), 4, estimate.detectable / estimate.standard_error)
    assert power == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize(
    ("seed_spread", "row_spread", "residual"),
    [(0.05, 0.1, 0.1), (0.01, 0.3, 0.0), (0.0, 0.2, 0.2), (0.01, 0.1, 0.3), (0.0, 0.0, 0.3)],
)
def test_the_interval_errs_no_more_than_it_says(seed_spread, row_spread, residual):
    random, labels, wrong = np.random.RandomState(2), np.repeat(np.arange(5), 12), 0
    trials = 400
    for _ in range(trials):
        scores = seed_spread * random.randn(5, 1) + row_spread * random.randn(1, 60)
        wrong += judge_difference(estimate_mean(scores + residual * random.randn(5, 60), labels)) != "no clear change"
    assert wrong / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_the_interval_errs_no_more_with_correct_and_wrong_answers():
    random, labels, wrong = np.random.RandomState(3), np.repeat(np.arange(10), 20), 0
    for _ in range(300):
        ease = 1.5 + random.randn(200)
        arms = [random.randn(5, 200) + ease + 0.3 * random.randn(200) + 0.1 * random.randn(5, 1) > 0 for _ in "ab"]
        estimate = estimate_mean(arms[0].astype(float) - arms[1], labels)
        wrong += judge_difference(estimate) != "no clear change"
    assert wrong / 300 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_verdicts():
    labels = np.zeros(50, int)
    better = np.full((5, 50), 0.1) + 0.01 * np.random.RandomState(0).randn(5, 50)
    assert judge_difference(estimate_mean(better, labels)) == "helps"
    assert judge_difference(estimate_mean(-better, labels)) == "harms"
    assert judge_difference(estimate_mean(better - 0.1, labels)) == "no clear change"
    assert judge_difference(estimate_mean(better[:4], labels)) == "no clear change"
    assert judge_difference(estimate_mean(np.zeros((5, 50)), labels)) == "no clear change"


def test_one_seed_has_no_spread():
    estimate = estimate_mean(np.ones((1, 4)), np.array([0, 0, 1, 1]))
    assert estimate.low == estimate.value == estimate.high == 1
    assert math.isnan(estimate.standard_error)


def test_a_class_with_one_row_takes_the_pooled_spread():
    scores = np.random.RandomState(0).rand(5, 21)
    estimate = estimate_mean(scores, np.r_[np.zeros(20, int), 1])
    assert np.isfinite(estimate.low) and estimate.row_error > 0


@pytest.fixture
def honest():
    """Logits whose softmax is the true chance of each class."""
    random = np.random.RandomState(5)
    logits = random.randn(6_000, 3)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return logits, (random.rand(6_000, 1) > chances.cumsum(axis=1)).sum(axis=1).clip(0, 2)


def test_one_row_a_class_earns_no_verdict_by_chance():
    rng, verdicts = np.random.default_rng(0), []
    for _ in range(300):  # the answers to a row hardly differ between seeds, so only the rows show the spread
        rows = rng.choice([-1.0, 0.0, 1.0], 10, p=[0.2, 0.6, 0.2])
        scores = np.where(rng.random((5, 10)) < 0.05, rng.choice([-1.0, 0.0, 1.0], (5, 10)), rows)
        verdicts.append(judge_difference(estimate_mean(scores, np.arange(10))))
    assert verdicts.count("no clear change") > 0.9 * len(verdicts)


@pytest.mark.parametrize("scale", [0.3, 2.0, 5.0])
def test_the_scaled_loss_does_not_depend_on_the_scale_of_the_logits(honest, scale):
    logits, labels = honest
    loss, scaled = (balance_mean(labels, scaled_losses(labels, x, 3), 3) for x in (logits, scale * logits))
    assert scaled == pytest.approx(loss, rel=1e-4)
    assert loss == pytest.approx(balanced_nll(labels, logits, 3), rel=2e-3)  # already at its best temperature
    assert balanced_nll(labels, scale * logits, 3) > loss * 1.03


def test_calibration_of_honest_and_of_over_confident_logits(honest):
    logits, labels = honest
    assert calibration_error(labels, logits) < 0.02
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    assert calibration_error(labels, 1_000 * logits) == pytest.approx(1 - accuracy, abs=0.01)
    assert calibration_error(labels, 0 * logits) == pytest.approx(abs((labels == 0).mean() - 1 / 3))
    half = np.array([[math.log(3), 0.0]] * 8)  # sure to 75 %, right in 2 of 8
    assert calibration_error(np.r_[np.zeros(2, int), np.ones(6, int)], half) == pytest.approx(0.5)


def test_the_p_value_is_below_five_percent_where_the_interval_excludes_zero():
    random, labels = np.random.RandomState(6), np.repeat(np.arange(3), 15)
    agree = []
    for _ in range(200):
        scores = 0.1 * random.randn() + 0.05 * random.randn(5, 1) + 0.3 * random.randn(5, 45)
        estimate = estimate_mean(scores, labels)
        agree.append((estimate.p_value < 0.05) == (estimate.low > 0 or estimate.high < 0))
    assert all(agree)
    nothing = estimate_mean(np.zeros((5, 45)), labels)
    assert (nothing.value, nothing.low, nothing.high, nothing.p_value) == (0, 0, 0, 1)
    assert estimate_mean(np.full((5, 45), 0.5), labels).p_value == 0
    assert math.isnan(estimate_mean(np.ones((1, 45)), labels).p_value)


def judge_arms(effect, *, repetitions, seeds=6, seed=7):
    """Verdicts on right and wrong answers of two arms, paired by seed and row, with a planted effect.

    A row is right if its ease, a shift of (arm, seed), one of (arm, row) and noise together are above zero; the arm
    with synthetic rows has `effect` added.
    """
    random, labels = np.random.RandomState(seed), np.repeat(np.arange(5), 40)
    found = []
    for _ in range(repetitions):
        ease = 1 + random.randn(1, 200) + 0.1 * random.randn(seeds, 1)  # shared by both arms
        arms = [
            ease + add + 0.1 * random.randn(seeds, 1) + 0.2 * random.randn(1, 200) + 0.6 * random.randn(seeds, 200) > 0
            for add in (effect, 0.0)
        ]
        found.append(estimate_mean(arms[0].astype(float) - arms[1], labels))
    return found


def test_a_planted_null_effect_earns_a_verdict_in_one_of_twenty_at_most():
    verdicts = [judge_difference(estimate) for estimate in judge_arms(0.0, repetitions=600)]
    assert sum(verdict != "no clear change" for verdict in verdicts) / 600 <= 0.07


def test_a_planted_effect_as_large_as_detectable_is_found_about_four_times_in_five():
    calm = judge_arms(0.0, repetitions=200, seed=8)
    promised = np.median([estimate.detectable for estimate in calm])
    values = [np.mean([one.value for one in judge_arms(effect, repetitions=100, seed=9)]) for effect in (0.1, 0.4)]
    slope = (values[1] - values[0]) / 0.3
    effect = 0.1 + (promised - values[0]) / slope  # of which the true difference is what is promised
    found = judge_arms(effect, repetitions=400, seed=10)
    assert np.mean([one.value for one in found]) == pytest.approx(promised, rel=0.15)
    verdicts = [judge_difference(one) for one in found]
    assert 0.7 <= verdicts.count("helps") / 400 <= 0.93
    assert verdicts.count("harms") == 0
    harmed = [judge_difference(one) for one in judge_arms(-effect, repetitions=200, seed=11)]
    assert 0.65 <= harmed.count("harms") / 200 <= 0.95 and "helps" not in harmed
