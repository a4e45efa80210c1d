"""Shares, density, coverage, kernel distance and the copy statistics, against what mathematics says of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from synthaug.analysis.evaluation.fidelity import (
    cover_rows,
    expect_coverage,
    measure_kernel,
    measure_nearness,
    measure_share,
    score_copying,
    whiten,
)


def normal(count, seed, features=6, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, generator=generator, dtype=torch.float64) * scale + shift


def test_wilson_is_the_textbook_interval_and_keeps_its_ends():
    share = measure_share(np.arange(20) < 3)
    assert (share.value, share.rows) == (0.15, 20)
    assert share.interval == pytest.approx((0.0524, 0.3604), abs=1e-4)  # Newcombe (1998), method 3
    assert measure_share(np.zeros(50, bool)).interval == pytest.approx((0.0, 0.0713), abs=1e-4)
    assert measure_share(np.ones(50, bool)).high == 1.0
    assert measure_share(np.zeros(0, bool)) is None


def test_identical_sets_have_full_coverage_and_density_one():
    rows = normal(300, 0)
    density, coverage = cover_rows(rows, rows)
    assert density.value == pytest.approx(1.0) and coverage.value == 1.0
    assert coverage.high == 1.0 and coverage.low > 0.98


def test_disjoint_sets_have_neither():
    density, coverage = cover_rows(normal(300, 0), normal(200, 1, shift=50.0))
    assert density.value == coverage.value == coverage.low == 0.0
    assert 0 < coverage.high < 0.02


def test_density_and_coverage_agree_with_the_formula_written_out():
    real, made = normal(40, 0, 3), normal(30, 1, 3)
    distances = torch.cdist(real, real)
    radii = distances.sort(dim=1).values[:, 5]
    inside = torch.cdist(real, made) < radii[:, None]
    density, coverage = cover_rows(real, made)
    assert density.value == pytest.approx(float(inside.sum()) / (5 * 30))
    assert coverage.value == pytest.approx(float(inside.any(dim=1).double().mean()))


def test_the_same_distribution_gives_what_is_expected_and_the_intervals_hold_it():
    draws = [cover_rows(normal(200, seed), normal(150, 1_000 + seed)) for seed in range(60)]
    density, coverage = (np.array([part[i].value for part in draws]) for i in (0, 1))
    assert density.mean() == pytest.approx(1.0, abs=3 * density.std() / 60**0.5)
    expected = expect_coverage(200, 150)
    assert coverage.mean() == pytest.approx(expected, abs=3 * coverage.std() / 60**0.5)
    for place, truth in ((0, 1.0), (1, expected)):
        held = np.mean([part[place].low <= truth <= part[place].high for part in draws])
        assert held >= 0.85
        width = np.mean([part[place].high - part[place].low for part in draws]) / 3.92
        assert 0.8 < width / (density, coverage)[place].std() < 2.0


def test_a_lost_mode_lowers_coverage_and_not_density():
    real = torch.cat([normal(200, 0), normal(200, 1, shift=20.0)])
    density, coverage = cover_rows(real, normal(400, 2))
    assert density.value > 0.8 and 0.4 < coverage.value < 0.52


def test_too_few_rows_have_no_number():
    assert cover_rows(normal(5, 0), normal(9, 1)) is None
    assert cover_rows(normal(9, 0), normal(0, 1)) is None
    assert measure_kernel(normal(2, 0), normal(9, 1)) is None
    assert measure_nearness(np.zeros(0), np.ones(3)) is None and score_copying(np.ones(3), np.zeros(0)) is None


def test_the_kernel_distance_is_unbiased_and_its_interval_is_not_too_narrow():
    values = [measure_kernel(normal(80, seed), normal(60, 500 + seed)) for seed in range(80)]
    means = np.array([value.value for value in values])
    assert abs(means.mean()) < 3 * means.std() / 80**0.5 and means.min() < 0 < means.max()
    assert np.mean([value.low <= 0 <= value.high for value in values]) >= 0.93


def test_the_kernel_distance_grows_with_the_shift_and_agrees_with_the_formula():
    near, far = (measure_kernel(normal(200, 0), normal(200, 1, shift=s)) for s in (0.3, 1.0))
    assert 0 < near.low < near.value < far.low
    real, made = normal(7, 0, 3), normal(5, 1, 3)

    def kernel(a, b):
        return (a @ b.T / 3 + 1) ** 3

    within = [(kernel(x, x).sum() - kernel(x, x).diagonal().sum()) / (len(x) * (len(x) - 1)) for x in (real, made)]
    assert measure_kernel(real, made).value == pytest.approx(float(sum(within) - 2 * kernel(real, made).mean()))


def test_the_jackknife_of_the_kernel_distance_is_the_one_of_leaving_rows_out():
    real, made = normal(9, 0, 3), normal(8, 1, 3, shift=1.0)
    found = measure_kernel(real, made)

    def jackknife(values):
        values = np.array(values)
        return (len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum()

    def without(rows, i):
        return torch.cat([rows[:i], rows[i + 1 :]])

    variance = jackknife([measure_kernel(without(real, i), made).value for i in range(9)])
    variance += jackknife([measure_kernel(real, without(made, i)).value for i in range(8)])
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * variance**0.5)


def test_whitening_takes_the_numbers_of_the_first_set():
    mix = normal(6, 9)
    reference, other = whiten(normal(500, 0) @ mix + 3, normal(500, 1) @ mix + 4)
    assert reference.shape == (500, 6)
    torch.testing.assert_close(reference.T @ reference / 500, torch.eye(6, dtype=torch.float64))
    assert reference.mean(dim=0).abs().max() < 1e-9
    torch.testing.assert_close(other.mean(dim=0).norm(), torch.linalg.solve(mix.T, torch.ones(6).double()).norm(),
                               rtol=0.2, atol=0.2)  # fmt: skip


def test_whitening_leaves_out_what_there_is_too_little_of():
    doubled = normal(200, 0, 3).repeat(1, 2)
    assert whiten(doubled)[0].shape == (200, 3)
    assert whiten(normal(200, 0, 60))[0].shape == (200, 20) and whiten(normal(900, 0, 60))[0].shape == (900, 32)
    flat = whiten(torch.ones(4, 2), torch.full((3, 2), 2.0))
    assert bool((flat[0] == 0).all()) and bool((flat[1] == 1).all())


def test_nearness_is_a_probability_and_the_score_is_mann_whitneys():
    rng = np.random.RandomState(0)
    held, made = rng.rand(80).round(2), (rng.rand(60) * 0.7).round(2)
    found = mannwhitneyu(made, held, method="asymptotic", use_continuity=False)
    score = score_copying(made, held)
    assert score < 0 and 2 * torch.special.ndtr(torch.tensor(score)).item() == pytest.approx(found.pvalue, rel=1e-4)
    nearness = measure_nearness(made, held)
    assert nearness.value == pytest.approx(1 - found.statistic / (60 * 80))
    assert 0.5 < nearness.low < nearness.value < nearness.high < 1


def test_new_rows_score_around_zero():
    rng = np.random.RandomState(1)
    scores = [score_copying(rng.rand(40), rng.rand(50)) for _ in range(200)]
    assert abs(np.mean(scores)) < 0.25 and 0.85 < np.std(scores) < 1.15
    assert score_copying(np.ones(4), np.ones(4)) is None
