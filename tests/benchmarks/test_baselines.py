"""Rows that synthetic ones are compared with, as geometry and as distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from imblearn.over_sampling import SMOTE
from scipy import stats

import synthaug
from synthaug.benchmarks.baselines import BASELINES, draw_baseline, draw_latent_smote
from synthaug.core import InputError


def rows_of(counts, size=8, channels=1, seed=0):
    """Rows around a level of their class, far from black and white."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    levels = 90 + 25 * labels[:, None, None, None]
    pixels = levels + rng.normal(0, 12, (len(labels), size, size, channels))
    return pixels.round().clip(0, 255).astype(np.uint8), labels


@pytest.mark.parametrize("kind", BASELINES)
def test_as_many_as_asked_class_by_class_and_the_same_again(kind):
    pixels, labels = rows_of([6, 0, 1, 9], channels=3)
    made, classes = draw_baseline(kind, pixels, labels, np.array([4, 3, 5, 0]), seed=0)
    assert made.shape == (9, 8, 8, 3) and made.dtype == np.uint8
    assert classes.tolist() == [0] * 4 + [2] * 5 and classes.dtype == np.int64  # class 1 has no row to start from
    again = draw_baseline(kind, pixels, labels, np.array([4, 3, 5, 0]), seed=0)
    assert (made == again[0]).all() and (classes == again[1]).all()
    other = draw_baseline(kind, pixels, labels, np.array([4, 3, 5, 0]), seed=1)
    assert (made[:4] != other[0][:4]).any()
    alone = draw_baseline(kind, pixels, labels, np.array([0, 0, 5, 0]), seed=0)  # a class does not depend on the others
    assert (alone[0] == made[4:]).all()


@pytest.mark.parametrize("kind", BASELINES)
def test_a_class_with_one_row_gives_that_row(kind):
    pixels, labels = rows_of([1, 4])
    made, _ = draw_baseline(kind, pixels, labels, np.array([3, 0]), seed=0)
    assert (made == pixels[0]).all()


@pytest.mark.parametrize("kind", BASELINES)
def test_nothing_asked_gives_nothing(kind):
    pixels, labels = rows_of([2, 2], channels=3)
    made, classes = draw_baseline(kind, pixels, labels, np.array([0, 0]), seed=0)
    assert made.shape == (0, 8, 8, 3) and classes.shape == (0,)


def test_duplicates_are_rows_of_their_class_each_as_often():
    pixels, labels = rows_of([5, 7])
    made, classes = draw_baseline("duplicated", pixels, labels, np.array([10, 14]), seed=3)
    for row, label in zip(made, classes, strict=True):
        assert (pixels[labels == label] == row).all(axis=(1, 2, 3)).any()
    for label, count in ((0, 5), (1, 7)):
        assert len(np.unique(made[classes == label], axis=0)) == count


def test_smote_rows_lie_between_a_member_and_a_near_one():
    pixels, labels = rows_of([12, 4], size=8)
    made, classes = draw_baseline("smote", pixels, labels, np.array([30, 10]), seed=0)
    for row, label in zip(made, classes, strict=True):
        members = pixels[labels == label].reshape((labels == label).sum(), -1).astype(float)
        apart = np.linalg.norm(members[:, None] - members[None], axis=2)
        near = np.argsort(apart, axis=1)[:, 1 : 1 + min(5, len(members) - 1)]
        errors = []
        for start, ends in enumerate(near):
            for end in ends:
                way = members[end] - members[start]
                part = np.clip((row.reshape(-1) - members[start]) @ way / (way @ way), 0, 1)
                errors.append(np.abs(members[start] + part * way - row.reshape(-1)).max())
        assert min(errors) < 1.01  # pixels are rounded


def test_smote_is_that_of_imbalanced_learn_in_distribution():
    """Two classes in a few varied pixels: the same marginal and joint directions as the library's rows."""
    rng = np.random.default_rng(1)
    few = rng.normal(0, 25, (14, 2)) @ np.array([[1, 0.8], [0, 0.6]]) + 128
    pixels = np.full((414, 1, 2, 1), 10, dtype=np.uint8)
    pixels[:14, 0, :, 0] = few.round().clip(0, 255)
    labels = np.r_[np.zeros(14, int), np.ones(400, int)]
    mine, _ = draw_baseline("smote", pixels, labels, np.array([4_000, 0]), seed=0)
    flat = np.r_[pixels[:14].reshape(14, -1), rng.integers(0, 255, (4_014, 2))].astype(float)
    target = np.r_[np.zeros(14, int), np.ones(4_014, int)]
    theirs, found = SMOTE(random_state=0, k_neighbors=5).fit_resample(flat, target)
    theirs = theirs[len(flat) :][found[len(flat) :] == 0]
    assert len(theirs) == 4_000
    mine = mine.reshape(4_000, 2) + rng.uniform(-0.5, 0.5, (4_000, 2))  # whole shades against fractions of them
    for direction in ([1, 0], [0, 1], [1, 1], [1, -1]):
        assert stats.ks_2samp(mine @ direction, theirs @ direction).statistic < 0.045, direction


def test_gaussian_has_the_mean_and_covariance_of_its_class():
    pixels, labels = rows_of([40, 30])
    made, classes = draw_baseline("gaussian", pixels, labels, np.array([6_000, 6_000]), seed=0)
    for label in (0, 1):
        real = pixels[labels == label].reshape(-1, 64).astype(float)
        drawn = made[classes == label].reshape(-1, 64).astype(float)
        assert np.abs(drawn.mean(axis=0) - real.mean(axis=0)).max() < 5 * 12 / 6_000**0.5 * 1.5
        expected = np.cov(real.T)
        assert np.abs(np.cov(drawn.T) - expected).max() < 0.1 * np.diag(expected).max()


def test_gaussian_stays_in_range():
    pixels = np.zeros((4, 8, 8, 1), np.uint8)
    pixels[:2] = 255
    made, _ = draw_baseline("gaussian", pixels, np.zeros(4, int), np.array([50]), seed=0)
    assert made.min() == 0 and made.max() == 255


# ------------------------------------------------------------------------------------------------- latent space


@pytest.fixture(scope="module")
def cvae():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = synthaug.GENERATORS["cvae"](
            class_names=["a", "b"], image_size=8, channels=1, width=8, latent_dim=4, sampling="prior"
        )
    pixels, labels = rows_of([6, 5])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    model.initialize(images, torch.from_numpy(labels))
    return model.eval()


def test_latent_smote_decodes_what_lies_between(cvae):
    pixels, labels = rows_of([6, 5])
    made, classes = draw_latent_smote(cvae, pixels, labels, np.array([7, 3]), seed=0)
    assert made.shape == (10, 8, 8, 1) and made.dtype == np.uint8 and classes.tolist() == [0] * 7 + [1] * 3
    again, _ = draw_latent_smote(cvae, pixels, labels, np.array([7, 3]), seed=0)
    assert (made == again).all()


def test_latent_smote_of_a_single_row_is_its_reconstruction(cvae):
    pixels, labels = rows_of([1, 5])
    made, _ = draw_latent_smote(cvae, pixels, labels, np.array([2, 0]), seed=0)
    image, label = torch.from_numpy(pixels[:1]).permute(0, 3, 1, 2).float() / 127.5 - 1, torch.zeros(1).long()
    with torch.no_grad():
        painted = cvae.decode(cvae.encode(image, label), label)
    expected = ((painted + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(made - expected).max() <= 1


def test_latent_smote_needs_an_encoder():
    pixels, labels = rows_of([3, 3])
    gan = synthaug.GENERATORS["cgan"](class_names=["a", "b"], image_size=8, channels=1, width=16)
    with pytest.raises(InputError, match=r"needs a generator that encodes.*give a cvae or glow run"):
        draw_latent_smote(gan, pixels, labels, np.array([1, 1]), seed=0)
