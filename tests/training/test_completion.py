"""The end of a fit: whether a density would judge well is known before it judges anything."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from synthaug.training import completion
from synthaug.training.completion import _check_density, _check_samples
from tests.toys import ToyGenerator


class Rows:
    """What the check needs of validation rows: half of them black."""

    def __init__(self, count):
        self.labels = np.zeros(count, dtype=np.int64)
        self.pixels = np.zeros((count, 8, 8, 1), dtype=np.uint8)
        self.pixels[count // 2 :] = 255

    def __len__(self):
        return len(self.labels)

    def take(self, index):
        return self


class ToyDensity(ToyGenerator):
    """Finds images darker than `limit` unlikely."""

    limit = -2.0

    @property
    def typical_low(self):
        return torch.zeros(self.num_classes)

    def log_prob(self, images, labels):
        return images.mean((1, 2, 3)) - self.limit

    def class_log_prob(self, images):
        return torch.log_softmax(-torch.arange(self.num_classes).float(), 0).expand(len(images), -1)


def check(generator, count=40):
    plan, scores = SimpleNamespace(validation=Rows(count), recipe=SimpleNamespace(fit=SimpleNamespace(seed=0))), {}
    return _check_density(plan, generator, scores), scores


def test_a_density_that_would_reject_held_out_rows_is_warned_of(capsys):
    generator = ToyDensity()
    assert check(generator) == ([], {"held-out rows that it keeps as a judge": 1.0})
    generator.limit = 0.0
    (warning,), scores = check(generator)
    assert scores == {"held-out rows that it keeps as a judge": 0.5}
    assert "would keep 50% of held-out real rows" in warning and warning in capsys.readouterr().err


def test_too_few_rows_and_other_families_say_nothing():
    assert check(ToyDensity(), 10) == ([], {})
    assert check(ToyGenerator()) == ([], {})


def test_the_judges_doubt_of_rare_groups_is_told_as_its_own(monkeypatch):
    counts = {"3 · red": 200, "3 · green": 4, "5 · red": 3, "5 · green": 200}
    shares = [(0.2, 0.8), (0.5, 0.5), (0.4, 0.6), (0.0, 1.0)]
    monkeypatch.setattr(completion, "audit_samples", lambda *_, **__: shares)
    train = SimpleNamespace(class_names=list(counts), class_counts=counts)

    def warn(attributes):
        plan = SimpleNamespace(train=train, recipe=SimpleNamespace(fit=SimpleNamespace(seed=0)), attributes=attributes)
        return _check_samples(plan, None, None, {})

    assert len(warn(None)) == 3 and all("fit longer" in line for line in warn(None))
    frequent, rare = warn([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert frequent.startswith("class '3 · red': 20%") and "fit longer" in frequent
    assert "groups '3 · green', '5 · red'" in rare and "fit longer" not in rare


def test_a_filter_that_would_keep_nearly_nothing_is_told(monkeypatch):
    counts = {"ant": 20, "bee": 20, "cat": 20}
    monkeypatch.setattr(completion, "audit_samples", lambda *_, **__: [(1.0, 0.0), (0.0, 0.1), (0.5, 0.5)])
    train = SimpleNamespace(class_names=list(counts), class_counts=counts)
    plan = SimpleNamespace(train=train, recipe=SimpleNamespace(fit=SimpleNamespace(seed=0)), attributes=None)
    scores = {}
    ant, bee, cat = _check_samples(plan, None, None, scores)
    assert "'ant': the default filter keeps 0% of the samples (100% look" in ant and "filter none" in ant
    assert "'bee': the default filter keeps 10%" in bee and "rely on" not in ant + bee
    assert "rely on the default filter, which keeps 50%" in cat
    assert scores == {"samples of another class": 0.5, "samples that the default filter keeps": pytest.approx(0.2)}
