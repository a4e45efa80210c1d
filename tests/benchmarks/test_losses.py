"""Losses against unequal class counts, by hand and against one another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from synthaug.benchmarks.losses import LABEL_SMOOTHING, class_weights, make_loss

COUNTS = np.array([900, 90, 10])


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 3, generator=generator), torch.arange(12) % 3


def test_class_weights_follow_the_effective_number():
    effective = (1 - 0.999**COUNTS) / (1 - 0.999)  # eq. 5 of the paper
    expected = (1 / effective) / (1 / effective).mean()
    assert class_weights(COUNTS) == pytest.approx(expected)
    assert class_weights(COUNTS).mean() == pytest.approx(1)


def test_class_weights_between_none_and_inverse_frequency():
    assert class_weights(COUNTS, beta=0.0) == pytest.approx(np.ones(3))
    inverse = (1 / COUNTS) / (1 / COUNTS).mean()
    assert class_weights(COUNTS, beta=1 - 1e-9) == pytest.approx(inverse, rel=1e-4)
    assert class_weights(np.array([5, 0, 5])) == pytest.approx([1, 0, 1])


def test_plain_loss_is_cross_entropy(batch):
    expected = functional.cross_entropy(*batch, label_smoothing=LABEL_SMOOTHING)
    assert make_loss("", COUNTS)(*batch) == pytest.approx(float(expected))


def test_balanced_softmax_is_cross_entropy_of_shifted_logits(batch):
    logits, labels = batch
    shifted = logits + torch.from_numpy(np.log(COUNTS)).float()
    expected = functional.cross_entropy(shifted, labels, label_smoothing=LABEL_SMOOTHING)
    assert make_loss("balanced-softmax", COUNTS)(logits, labels) == pytest.approx(float(expected), rel=1e-5)
    # with equal counts there is nothing to make up for
    assert make_loss("balanced-softmax", np.full(3, 7))(*batch) == pytest.approx(float(make_loss("", COUNTS)(*batch)))


def test_weighted_loss_by_hand(batch):
    logits, labels = batch
    weights = torch.from_numpy(class_weights(COUNTS)).float()[labels]
    chances = functional.log_softmax(logits, dim=1)
    smooth = (1 - LABEL_SMOOTHING) * functional.one_hot(labels, 3) + LABEL_SMOOTHING / 3
    each = -(smooth * chances).sum(dim=1)
    expected = (weights * each).sum() / weights.sum()
    assert make_loss("weighted", COUNTS)(logits, labels) == pytest.approx(float(expected), rel=1e-5)
    assert make_loss("weighted", np.full(3, 9))(*batch) == pytest.approx(float(make_loss("", COUNTS)(*batch)), rel=1e-5)


@pytest.mark.parametrize("kind", ["", "weighted", "balanced-softmax"])
def test_one_hot_shares_are_hard_classes(kind, batch):
    logits, labels = batch
    measure = make_loss(kind, COUNTS)
    assert measure(logits, functional.one_hot(labels, 3).float()) == pytest.approx(
        float(measure(logits, labels)), rel=1e-5
    )


def test_mixed_targets_weigh_as_their_classes_do(batch):
    logits, _ = batch
    shares = torch.tensor([[0.25, 0.0, 0.75]]).expand(12, 3)
    weights = torch.from_numpy(class_weights(COUNTS)).float()
    single = make_loss("weighted", COUNTS)(logits[:1], shares[:1])  # one row: its weight cancels
    assert single == pytest.approx(float(make_loss("", COUNTS)(logits[:1], shares[:1])), rel=1e-5)
    mixed = torch.cat([shares[:1], torch.tensor([[1.0, 0.0, 0.0]])])
    each = functional.cross_entropy(logits[:2], mixed, label_smoothing=LABEL_SMOOTHING, reduction="none")
    scale = torch.stack([0.25 * weights[0] + 0.75 * weights[2], weights[0]])
    expected = (scale * each).sum() / scale.sum()
    assert make_loss("weighted", COUNTS)(logits[:2], mixed) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kind", ["weighted", "balanced-softmax"])
def test_rare_classes_gain_recall(kind):
    """Two overlapping classes, 50 to 1: the plain loss gives the rare one up, the others do not."""
    generator = torch.Generator().manual_seed(1)
    counts = np.array([1_000, 20])
    points = torch.cat([torch.randn(1_000, 1, generator=generator), torch.randn(20, 1, generator=generator) + 1.5])
    labels = torch.repeat_interleave(torch.arange(2), torch.from_numpy(counts))

    def recall(name):
        network = torch.nn.Linear(1, 2)
        torch.nn.init.zeros_(network.weight)
        torch.nn.init.zeros_(network.bias)
        optimizer = torch.optim.LBFGS(network.parameters(), max_iter=60)
        measure = make_loss(name, counts)

        def step():
            optimizer.zero_grad()
            loss = measure(network(points), labels)
            loss.backward()
            return loss

        optimizer.step(step)
        return float((network(points)[1_000:].argmax(dim=1) == 1).float().mean())

    assert recall(kind) > recall("") + 0.3
