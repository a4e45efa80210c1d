from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from synthaug.classifiers import Judge, fit_classifier, fit_judge, initial_classifier, predict_logits, row_schedule
from synthaug.classifiers.small import SmallClassifier
from synthaug.core import InputError


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    pixels = (data.images / 16 * 255).round().astype(np.uint8)[..., None]
    order = np.random.RandomState(0).permutation(len(pixels))
    return pixels[order], data.target.astype(np.int64)[order]


def to_float(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (9, 2), (28, 1), (33, 3), (64, 4)])
def test_shapes_for_every_size_and_number_of_channels(size, channels):
    network = SmallClassifier(5, size, channels)
    images = torch.rand(3, channels, size, size) * 2 - 1
    assert network(images).shape == (3, 5)
    assert network.embed(images).shape == (3, network.head.in_features)


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_state():
    before = torch.random.get_rng_state()
    first, second = initial_classifier(3, 8, 1, seed=4), initial_classifier(3, 8, 1, seed=4)
    other = initial_classifier(3, 8, 1, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_natural_schedule_visits_every_row_once_a_round():
    rows = row_schedule(np.zeros(7, dtype=np.int64), length=20, seed=1, balanced=False)
    assert sorted(rows[:7]) == sorted(rows[7:14]) == list(range(7))
    assert list(rows[:7]) != list(rows[7:14])
    assert (rows == row_schedule(np.zeros(7, dtype=np.int64), length=20, seed=1, balanced=False)).all()


def test_balanced_schedule_visits_classes_equally_and_rows_of_a_class_in_turn():
    labels = np.array([0] * 10 + [2] * 2)
    rows = row_schedule(labels, length=40, seed=3, balanced=True)
    assert np.bincount(labels[rows], minlength=3).tolist() == [20, 0, 20]
    assert np.bincount(rows, minlength=12).tolist() == [2] * 10 + [10, 10]


def test_fit_classifier_learns_in_the_given_number_of_steps(digits):
    pixels, labels = digits
    images, targets = to_float(pixels[:300]), torch.from_numpy(labels[:300])
    rows = torch.from_numpy(row_schedule(labels[:300], length=60 * 32, seed=0, balanced=False))
    steps_seen = []

    def draw_batch(step):
        chosen = rows[step * 32 : (step + 1) * 32]
        return images[chosen], targets[chosen]

    network = fit_classifier(initial_classifier(10, 8, 1, seed=0), draw_batch, steps=60, on_step=steps_seen.append)
    assert steps_seen == list(range(1, 61)) and not network.training
    predicted = predict_logits(network, to_float(pixels[300:600])).argmax(1).numpy()
    assert (predicted == labels[300:600]).mean() > 0.8


def test_judge_keeps_new_real_rows_and_turns_wrong_labels_away(digits):
    pixels, labels = digits
    judge = fit_judge(pixels[:900], labels[:900], class_names=[str(i) for i in range(10)], steps=100)
    images, targets = to_float(pixels[900:]), torch.from_numpy(labels[900:])
    embeddings = judge.embed(images)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(len(embeddings)), atol=1e-5)
    assert torch.allclose(judge.prototypes.norm(dim=1), torch.ones(10), atol=1e-5)
    distance = (embeddings - judge.prototypes[targets]).norm(dim=1)
    assert (distance <= judge.radii[targets]).float().mean() > 0.95
    wrong = (targets + 1) % 10
    distance = (embeddings - judge.prototypes[wrong]).norm(dim=1)
    assert (distance <= judge.radii[wrong]).float().mean() < 0.3
    assert (judge.logits(images).argmax(1) == targets).float().mean() > 0.9


def test_judge_is_deterministic_and_rebuilt_from_its_config(digits):
    pixels, labels = digits
    fitted = [fit_judge(pixels[:60], labels[:60], class_names=list("abcdefghij"), steps=5) for _ in range(2)]
    for first, second in zip(fitted[0].state_dict().values(), fitted[1].state_dict().values(), strict=True):
        assert torch.equal(first, second)
    rebuilt = Judge(**fitted[0].config())
    rebuilt.load_state_dict(fitted[0].state_dict())
    images = to_float(pixels[:8])
    rebuilt.train()
    assert torch.equal(rebuilt.embed(images), fitted[0].embed(images))


@pytest.mark.parametrize(("counts", "size", "channels"), [([3, 3], 8, 1), ([3] * 300, 9, 3), ([1, 5, 2], 64, 4)])
def test_judge_takes_few_rows_and_many_classes(counts, size, channels):
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.random.RandomState(0).randint(0, 256, (len(labels), size, size, channels), dtype=np.uint8)
    judge = fit_judge(pixels, labels, class_names=[str(i) for i in range(len(counts))], steps=4)
    assert judge.prototypes.shape[0] == judge.radii.shape[0] == len(counts)
    assert torch.isfinite(judge.prototypes).all()
    assert ((judge.radii > 0) & (judge.radii <= 2)).all()


def test_judge_refuses_nothing_and_labels_out_of_range():
    pixels = np.zeros((2, 8, 8, 1), dtype=np.uint8)
    with pytest.raises(InputError, match="0 images"):
        fit_judge(pixels[:0], np.zeros(0, dtype=np.int64), class_names=["a"])
    with pytest.raises(InputError, match=r"allowed are 0\.\.0"):
        fit_judge(pixels, np.array([0, 1]), class_names=["a"])
