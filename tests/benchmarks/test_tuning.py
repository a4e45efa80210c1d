"""What is tried on validation rows, with trainings that are made up."""

from __future__ import annotations

from collections import Counter

import pytest

from synthaug.benchmarks import runner
from synthaug.benchmarks.arms import default_arms, parse_arm
from synthaug.benchmarks.cells import Cell
from synthaug.benchmarks.tuning import MIXTURES, RATES, TRIALS, Tuner, count_trials, describe_options
from synthaug.core import POLICIES, TUNING_SEEDS

TEMPLATE = Cell("", 0, 10, 8, "", 0.0)


class Trainings:
    """Answers cells with the loss that `measure` gives them and counts which were trained."""

    def __init__(self, measure=lambda cell: 0.5):
        self.measure, self.results, self.trained = measure, {}, Counter()

    def __call__(self, cells):
        for cell in cells:
            if cell not in self.results:
                self.trained[cell] += 1
                numbers = {"scaled_nll": self.measure(cell), "balanced_accuracy": 0.5}
                self.results[cell] = {"validation": numbers}
        return self.results


def tune(names, measure=lambda cell: 0.5, rows=50):
    run = Trainings(measure)
    tuner, arms = Tuner(TEMPLATE, run, (), rows), [parse_arm(name) for name in names]
    tuner.choose_policy(arms)
    tuner.choose_options([arm for arm in arms if not arm.exchanges])
    tuner.choose_options([arm for arm in arms if arm.exchanges])
    return tuner, run


def test_every_arm_has_as_many_trials_and_one_of_them_is_chosen():
    base = "real+classical"
    names = [name.replace("best", base) for name in default_arms([90, 10, 5], oracle=True)]
    tuner, run = tune(names)
    for name in names:
        trials = [trial for trial in tuner.trials if trial["arm"] == name and trial["stage"] == "options"]
        assert len(trials) == TRIALS == len({trial["options"] for trial in trials}), name
        assert sum(trial["chosen"] for trial in trials) == 1
    assert max(run.trained.values()) == 1
    arms = [parse_arm(name) for name in names]
    planned = count_trials(arms, validation_rows=50)
    assert sum(run.trained.values()) <= planned <= sum(run.trained.values()) + 2 * len(TUNING_SEEDS)


def test_tuning_seeds_are_apart_and_test_rows_untouched():
    _, run = tune(["real+classical", "real+classical+synthetic"])
    assert {cell.seed for cell in run.trained} == set(TUNING_SEEDS) and not any(cell.test for cell in run.trained)


def test_ties_go_to_the_earlier_trial():
    tuner, _ = tune(["real", "real+synthetic"])
    assert tuner.options["real"].learning_rate == RATES[0]
    assert tuner.options["real+synthetic"].share == MIXTURES[0][0] == 0


def test_no_share_is_the_same_training_as_the_arm_beneath():
    tuner, run = tune(["real+classical", "real+classical+synthetic"])
    none = tuner.options["real+classical+synthetic"]
    assert none.share == 0
    assert none.settle(()) == tuner.options["real+classical"]
    assert not any(cell.arm == "real+classical+synthetic" and not cell.share for cell in run.trained)


def test_a_mixed_arm_starts_from_the_options_of_the_arm_beneath():
    def measure(cell):
        return abs(cell.learning_rate - RATES[2]) + abs(cell.share - 0.5) * 1e-3

    tuner, _ = tune(["real", "real+synthetic"], measure)
    assert tuner.options["real"].learning_rate == RATES[2]
    chosen = tuner.options["real+synthetic"]
    assert (chosen.learning_rate, chosen.share) == (RATES[2], 0.5)


def test_an_arm_beneath_that_is_not_listed_is_tuned_all_the_same():
    names = ["real+classical", "real+strong+synthetic"]
    tuner, run = tune(names, lambda cell: 0.1 if cell.mix == "mixup" else 0.2)
    assert tuner.options["real+strong+synthetic"].mix == tuner.options["real+strong"].mix == "mixup"
    planned = count_trials([parse_arm(name) for name in names], validation_rows=50)
    assert sum(run.trained.values()) <= planned <= sum(run.trained.values()) + 2 * len(TUNING_SEEDS)


def test_the_policy_is_chosen_once_for_all():
    last = list(POLICIES)[-1]
    tuner, _ = tune(["real+classical", "oversampled+classical"], lambda cell: 0.1 if cell.policy == last else 0.2)
    assert {cell.policy for cell in tuner.options.values()} == {last}
    tried = [trial["arm"] for trial in tuner.trials if trial["stage"] == "policy"]
    assert tried == ["oversampled+classical"] * len(POLICIES)


def test_strong_arms_choose_how_they_mix():
    tuner, _ = tune(["real+strong", "real+strong+synthetic"], lambda cell: 0.1 if cell.mix == "mixup" else 0.2)
    assert tuner.options["real+strong"].mix == tuner.options["real+strong+synthetic"].mix == "mixup"


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_a_given_share_stays(share):
    tuner, run = tune(["real", f"real+synthetic@{share}"])
    assert {cell.share for cell in run.trained if "synthetic" in cell.arm} == {share}
    assert tuner.options[f"real+synthetic@{share}"].share == share


def test_without_validation_rows_nothing_is_tried():
    tuner, run = tune(["real+classical", "real+classical+synthetic"], rows=0)
    assert not run.trained and not tuner.trials
    assert tuner.options["real+classical+synthetic"].share > 0
    assert count_trials([parse_arm("real")], validation_rows=0) == 0


def test_options_in_words():
    arm, cell = parse_arm("real+strong+synthetic"), Cell("", 0, 1, 1, "trivial", 0.003, mix="cutmix", share=0.5)
    assert describe_options(arm, cell) == "learning rate 0.003, share of exchanged rows 0.5, policy trivial and cutmix"


def test_cells_share_a_gpu_as_far_as_its_memory_goes(monkeypatch):
    monkeypatch.setattr(runner.os, "sched_getaffinity", lambda _: range(12))
    monkeypatch.setattr(runner.torch.cuda, "mem_get_info", lambda: (24 << 30, 80 << 30))
    assert runner.count_processes("cpu", None) == 12
    assert runner.count_processes("cuda", None) == 12
    assert runner.count_processes("cuda", None, shown_bytes=2 << 30) == 6
    assert runner.count_processes("cuda", None, shown_bytes=100 << 30) == 1
    assert runner.count_processes("cuda", 3, shown_bytes=100 << 30) == 3
    monkeypatch.setattr(runner.os, "sched_getaffinity", lambda _: range(64))
    monkeypatch.setattr(runner.torch.cuda, "mem_get_info", lambda: (80 << 30, 80 << 30))
    assert runner.count_processes("cuda", None) == 16
