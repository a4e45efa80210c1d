"""Choices at the end of a fit: the better candidate is found, a chance difference is not, labels are checked."""

import numpy as np
import pytest
import torch

from synthaug.classifiers import fit_judge
from synthaug.data import neighbours, to_pixels
from synthaug.generators import ConditionalGenerator
from synthaug.training import selection
from synthaug.training.selection import Candidate, Trial, audit_samples, compare_candidates, copy_with
from tests.toys import ToyGenerator


class Bars(ConditionalGenerator):
    """A bright bar whose place tells the class, at a random brightness; it can be told to go wrong."""

    family = "bars"

    def __init__(self, *, class_names=("a", "b", "c"), image_size=8, channels=1, shift=0, varied=True, style="neat"):
        super().__init__(class_names=class_names, image_size=image_size, channels=channels)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.shift, self.varied, self.style = shift, varied, style

    @property
    def noise_shape(self):
        return (65,)

    def objectives(self):
        return []

    def decode_noise(self, noise, labels, temperature):
        images = -torch.ones(len(labels), 1, 8, 8)
        for row, label in enumerate(labels.tolist()):
            place = 1 + 2 * ((label + self.shift) % self.num_classes)
            images[row, 0, place : place + 2] = 0.6 + (0.3 * float(noise[row, 0].tanh()) if self.varied else 0.0)
        return images + (0.15 * noise[:, 1:].view(-1, 1, 8, 8) if self.varied else 0.0)

    @classmethod
    def preset(cls, class_counts, image_size, channels):
        raise NotImplementedError


class Rows:
    """What `compare_candidates` needs of validation rows."""

    class_names = ("a", "b", "c")

    def __init__(self, pixels, labels):
        self.pixels, self.labels = pixels, labels

    def __len__(self):
        return len(self.labels)

    def take(self, index):
        return Rows(self.pixels[index], self.labels[index])


@pytest.fixture(scope="module")
def bars():
    labels = np.repeat(np.arange(3), 40)
    noise = torch.randn(120, 65, generator=torch.Generator().manual_seed(0))
    images = Bars().sample(torch.from_numpy(labels), noise=noise)
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    odd = np.arange(120) % 2 == 1
    judge = fit_judge(pixels[odd], labels[odd], class_names=list("abc"), steps=40)
    return judge, Rows(pixels[~odd], labels[~odd])


def test_the_better_candidate_wins_and_a_bad_default_does_not_stay(bars):
    judge, rows = bars
    candidates = [Candidate("wrong", lambda: Bars(shift=1)), Candidate("right", lambda: Bars())]
    best, trials = compare_candidates(candidates, judge, rows, seed=0)
    assert best == 1 and [trial.name for trial in trials] == ["wrong", "right"]
    assert trials[1].accuracy > 0.95 and trials[0].accuracy < 0.1
    assert trials[1].coverage > 0.9
    assert trials[0].wrong == 1.0 and trials[1].wrong == 0.0


def test_classes_of_one_target_are_not_told_apart(bars):
    judge, rows = bars
    candidates = [Candidate("shifted", lambda: Bars(shift=1))]  # a where b is, b where c is, c where a is
    _, (apart,) = compare_candidates(candidates, judge, rows, seed=0)
    _, (joint,) = compare_candidates(candidates, judge, rows, seed=0, targets=[0, 0, 1])
    assert apart.wrong == 1.0 and joint.wrong == pytest.approx(2 / 3)
    assert apart.accuracy < 0.1 and joint.accuracy == pytest.approx(1 / 3, abs=0.1)
    assert joint.score == 0.5 * (joint.accuracy + joint.coverage)  # the judge is doubted


def test_a_collapsed_candidate_is_told_by_its_coverage(bars):
    judge, rows = bars
    candidates = [Candidate("collapsed", lambda: Bars(varied=False)), Candidate("varied", lambda: Bars())]
    best, trials = compare_candidates(candidates, judge, rows, seed=0)
    assert trials[0].coverage < 0.5 * trials[1].coverage and best == 1


def test_the_default_stays_where_candidates_are_alike(bars):
    judge, rows = bars
    candidates = [Candidate("first", lambda: Bars()), Candidate("twin", lambda: Bars())]
    best, trials = compare_candidates(candidates, judge, rows, seed=0)
    assert best == 0 and trials[0].score == trials[1].score


def test_near_copies_are_counted_by_class_and_cost_the_choice(bars):
    judge, rows = bars
    noise = torch.randn(60, 65, generator=torch.Generator().manual_seed(1))
    labels = np.repeat(np.arange(3), 20)
    fresh = to_pixels(Bars().sample(torch.from_numpy(labels), noise=noise))
    candidates = [Candidate("first", lambda: Bars())]
    _, (far,) = compare_candidates(candidates, judge, rows, seed=0, training=Rows(fresh, labels))
    assert far.copies == 0.0  # new draws lie as far from training rows as held-out rows do
    made = to_pixels(Bars(varied=False).sample(torch.from_numpy(labels), noise=noise))
    candidates = [Candidate("copied", lambda: Bars(varied=False)), Candidate("varied", lambda: Bars())]
    best, (near, far) = compare_candidates(candidates, judge, rows, seed=0, training=Rows(made, labels))
    assert near.copies == 1.0 and far.copies == 0.0 and best == 1
    assert near.score == pytest.approx(0.5 * (near.accuracy + near.coverage) - near.wrong - 0.99)
    other = Rows(made, np.roll(labels, 20))  # the same images as rows of another class
    assert compare_candidates(candidates[:1], judge, rows, seed=0, training=other)[1][0].copies == 0.0


def test_a_comparison_in_small_parts_finds_the_same(bars, monkeypatch):
    judge, rows = bars
    training = Rows(rows.pixels[::2], rows.labels[::2])

    def compare():
        return compare_candidates([Candidate("first", lambda: Bars())], judge, rows, seed=0, training=training)[1][0]

    whole, sizes = compare(), []
    monkeypatch.setattr(selection, "_PART_VALUES", 7 * 64)
    monkeypatch.setattr(neighbours, "_VALUES", 7 * 64)
    monkeypatch.setattr(judge, "embed", lambda images: sizes.append(len(images)) or type(judge).embed(judge, images))
    parts = compare()
    assert max(sizes) == 7
    assert (parts.accuracy, parts.copies, parts.wrong) == (whole.accuracy, whole.copies, whole.wrong)
    assert parts.coverage == pytest.approx(whole.coverage, abs=1 / len(rows))


def test_few_validation_rows_tell_no_distance(bars):
    judge, rows = bars
    few = rows.take(np.arange(0, 60, 4))
    _, (trial,) = compare_candidates([Candidate("first", lambda: Bars())], judge, few, seed=0, training=rows)
    assert trial.copies is None and Trial("x", 0.8, 0.6, None).score == pytest.approx(0.7)


def test_a_share_of_copies_up_to_one_percent_costs_nothing():
    assert Trial("x", 0.8, 0.6, 0.01).score == pytest.approx(0.7)
    assert Trial("x", 0.8, 0.6, 0.03).score == pytest.approx(0.68)
    assert Trial("x", 0.8, 0.6, 0.03, 0.1).score == pytest.approx(0.58)


def test_wrong_labels_are_counted_by_class(bars):
    judge, _ = bars
    wrong, kept = zip(*audit_samples(Bars(), judge, seed=0), strict=True)
    assert wrong == (0.0, 0.0, 0.0) and min(kept) > 0.5
    assert audit_samples(Bars(shift=1), judge, seed=0) == [(1.0, 0.0)] * 3


def test_a_copy_shares_weights_and_not_settings():
    generator = ToyGenerator()
    other = copy_with(generator, style="bold")
    assert other.style == "bold" and not hasattr(generator, "style")
    assert other.levels is generator.levels
    assert Trial("x", 0.8, 0.6).score == pytest.approx(0.7)
