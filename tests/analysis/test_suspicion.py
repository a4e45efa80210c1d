"""Ranks of suspicion on figures made by hand."""

import numpy as np
import pytest

from synthaug.analysis.scoring.densities import bits_per_dim
from synthaug.analysis.scoring.suspicion import (
    combine_surprises,
    label_odds,
    marginal_density,
    outlier_figures,
    robust_deviation,
    tail_surprise,
    weigh_experts,
)
from synthaug.core import estimate_auroc


def test_the_marginal_is_the_mean_of_the_densities():
    densities = np.log(np.array([[0.2, 0.4], [1.0, 3.0]]))
    assert np.allclose(np.exp(marginal_density(densities)), [0.3, 2.0])


def test_label_odds_are_positive_where_another_class_explains_more():
    scores = np.array([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0], [-900.0, -1000.0, -2000.0]])
    assert label_odds(scores, np.array([0, 1, 1])).tolist() == [-2.0, 2.0, 100.0]


def test_deviations_are_robust_and_within_groups():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 500), rng.normal(100, 10, 500)])
    groups = np.repeat([0, 1], 500)
    values[0] = 1e9  # one wild value moves neither median nor deviation
    deviations = robust_deviation(values, groups)
    for group in (0, 1):
        own = deviations[groups == group]
        assert abs(np.median(own)) < 1e-9 and np.median(np.abs(own)) == pytest.approx(1.0)
    assert robust_deviation(np.zeros(20), np.zeros(20, np.int64)).tolist() == [0.0] * 20


def test_surprise_is_the_tail_probability():
    assert np.allclose(10 ** -tail_surprise(np.array([5.0, 1.0, 3.0, 3.0])), [0.25, 1.0, 0.75, 0.75])


def test_both_tails_of_the_density_are_suspicious():
    """Flat foreign images are likelier than any member: the raw density ranks them last, the figures first."""
    rng = np.random.default_rng(1)
    marginals = np.concatenate([rng.normal(1000, 50, 300), [3000.0, -3000.0]])
    distances = np.abs(rng.normal(0.5, 0.1, (302, 3)))
    ranked = combine_surprises(outlier_figures(marginals, None, distances))
    assert set(np.argsort(-ranked)[:3]) >= {300, 301}
    assert np.argsort(marginals)[-1] == 300


def test_one_extreme_figure_is_enough():
    rng = np.random.default_rng(2)
    marginals, errors, distances = rng.normal(size=200), rng.uniform(0.1, 0.2, 200), rng.uniform(0.3, 0.6, (200, 2))
    errors[7], distances[9] = 1.9, 1.7
    ranked = combine_surprises(outlier_figures(marginals, errors, distances))
    assert {7, 9} <= set(np.argsort(-ranked)[:4].tolist())


def test_experts_get_the_weight_they_earn():
    """The densities know the class but are a hundred times too sure; the judge guesses."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 2000)
    truth = rng.normal(size=(2000, 4)) + 2.0 * np.eye(4)[labels]
    noise = rng.normal(size=(2000, 4))
    usable = np.ones(2000, bool)
    generator, judge = weigh_experts(100 * truth, noise, labels, usable)
    assert generator == pytest.approx(0.02, rel=0.15) and judge < 0.1
    assert weigh_experts(truth, noise, labels, np.arange(2000) < 49) == (0.0, 1.0)


def test_bits_per_dim_of_a_uniform_density_is_eight():
    """Every one of 256 bins of width 2/255 equally likely."""
    dimensions = 12
    log_density = dimensions * (-np.log(256.0) - np.log(2 / 255))
    assert bits_per_dim(np.array([log_density]), dimensions)[0] == pytest.approx(8.0)


def test_auroc_is_that_of_scikit_learn_and_its_interval_covers():
    from sklearn.metrics import roc_auc_score

    rng, covered, truth = np.random.default_rng(4), 0, 0.8413447  # P(N(1.414, 1) > N(0, 1)) = Phi(1)
    for _ in range(200):
        marked = rng.permutation(np.arange(120) < 30)
        scores = rng.normal(size=120) + np.sqrt(2.0) * marked
        area, low, high = estimate_auroc(marked, scores)
        assert area == pytest.approx(roc_auc_score(marked, scores))
        covered += low <= truth <= high
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_the_interval_of_the_auroc_covers_with_few_marked_rows(rows):
    rng, marked = np.random.default_rng(rows), np.arange(300) < rows
    covered = 0
    for _ in range(200):
        _, low, high = estimate_auroc(marked, rng.normal(size=300))
        covered += low <= 0.5 <= high
    assert covered / 200 >= 0.90


def test_auroc_at_its_ends():
    marked = np.arange(40) < 10
    assert estimate_auroc(marked, marked.astype(float)) == (1.0, pytest.approx(0.7), 1.0)
    assert estimate_auroc(marked, -marked.astype(float)) == (0.0, 0.0, pytest.approx(0.3))
    assert estimate_auroc(marked, np.zeros(40))[0] == 0.5
    assert estimate_auroc(np.ones(3, bool), np.arange(3.0)) is None
