"""The names of arms: what they mean, which are refused, and which are taken by themselves."""

from __future__ import annotations

import pytest

from synthaug.benchmarks.arms import SIDES, Arm, check_arms, default_arms, parse_arm
from synthaug.core import InputError

BALANCED, SKEWED = [20, 20, 18], [100, 40, 10]


def test_the_parts_of_a_name():
    assert parse_arm("real") == Arm("real", "real")
    full = parse_arm("oversampled+strong+balanced-softmax+synthetic@0.25")
    assert (full.sampling, full.augmentation, full.loss) == ("oversampled", "strong", "balanced-softmax")
    assert (full.rows, full.share, full.base) == ("synthetic", 0.25, "oversampled+strong+balanced-softmax")
    assert full.balanced and full.exchanges and not full.alone
    assert parse_arm("real+classical+smote").share is None  # chosen on validation rows
    assert parse_arm("best+cvae", ["cvae", "glow"]).rows == "cvae"
    assert parse_arm("real+synthetic@1").share == 1


def test_rows_alone():
    alone = parse_arm("synthetic")
    assert alone.alone and alone.balanced and not alone.exchanges and alone.augmentation == "classical"
    assert parse_arm("synthetic+strong").augmentation == "strong"
    assert parse_arm("glow+strong", ["glow", "cvae"]).rows == "glow"


def test_controls_and_oracles_have_a_share_of_their_own():
    assert {parse_arm(f"best+{kind}").share for kind in ("duplicated", "gaussian", "shuffled")} == {0.5}
    assert {parse_arm(f"best+{kind}").share for kind in ("oracle", "oracle/4")} == {1.0}
    assert parse_arm("best+shuffled@0.25").share == 0.25


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("real", "classical"), ("oversampled+strong+weighted", "classical"), ("best+smote", "classical"),
        ("best+latent-smote", "classical"), ("best+synthetic", "synthetic"), ("real+cvae", "synthetic"),
        ("synthetic", "alone"), ("cvae", "alone"), ("best+shuffled", "control"), ("best+gaussian", "control"),
        ("real+duplicated", "control"), ("best+oracle", "oracle"), ("best+oracle/4", "oracle"),
    ],
)  # fmt: skip
def test_sides(name, side):
    assert parse_arm(name, ["cvae", "glow"]).side == side and side in SIDES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("real", "real rows as they come"),
        ("oversampled+classical", "real rows, classes equally often, augmented"),
        ("real+strong+weighted", "real rows as they come, strongly augmented, class-balanced loss"),
        ("real+classical+balanced-softmax", "real rows as they come, augmented, balanced softmax"),
        ("real+classical+synthetic",
         "real rows as they come, augmented; a share exchanged for synthetic rows of the same class"),
        ("real+cvae", "real rows as they come; a share exchanged for synthetic rows of cvae"),
        ("synthetic", "synthetic rows alone, classes equally often, augmented"),
        ("cvae+strong", "synthetic rows of cvae alone, classes equally often, strongly augmented"),
        ("real+shuffled", "real rows as they come; a share exchanged for synthetic rows under shuffled labels"),
    ],
)  # fmt: skip
def test_descriptions(name, text):
    assert parse_arm(name, ["cvae", "glow"]).describe == text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oversampeld+classical", r"did you mean 'oversampled\+classical'"),
        ("real+classical+strong", "is unknown"),  # one augmentation
        ("real+weighted+balanced-softmax", "is unknown"),
        ("real+smote+synthetic", "is unknown"),
        ("real+classical@0.5", "is unknown"),  # a share is of rows
        ("best", "is unknown"),
        ("best+classical", "is unknown"),
        ("best+classical+smote", "is unknown"),
        ("synthetic+smote", "is unknown"),
        ("synthetic+classical+strong", "is unknown"),
        ("real+cvae", "ROWS is one of synthetic, smote"),
        ("", "is unknown"),
        ("real+", "is unknown"),
        ("real+synthetic@", "asks for the share ''"),
        ("real+synthetic@0", "give a number above 0 and at most 1"),
        ("real+synthetic@nan", "give a number above 0 and at most 1"),
        ("real+synthetic@1.5", "give a number above 0 and at most 1"),
        ("real+synthetic@half", "asks for the share 'half'"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_arm(name)
    assert "\n" not in str(caught.value)


def test_best_is_put_in_its_place():
    best = parse_arm("oversampled+strong+weighted")
    rested = parse_arm("best+synthetic@0.3").rest_on(best)
    assert rested == parse_arm("oversampled+strong+weighted+synthetic@0.3")
    assert rested.base == best.name
    assert parse_arm("best+smote").rest_on(best) == parse_arm("oversampled+strong+weighted+smote")
    assert parse_arm("best+oracle/4").rest_on(best).share == 1.0
    plain = parse_arm("real+smote")
    assert plain.rest_on(best) is plain


def test_defaults_of_balanced_classes():
    names = default_arms(BALANCED)
    assert names[:3] == ("real", "real+classical", "real+strong")
    assert not any("oversampled" in name or "weighted" in name or "softmax" in name for name in names)
    assert {"best+smote", "best+synthetic", "synthetic", "best+duplicated"} < set(names)
    assert not any("oracle" in name for name in names)


def test_defaults_of_unequal_classes_try_what_is_known_against_imbalance():
    names = default_arms(SKEWED)
    assert {"oversampled+classical", "oversampled+strong"} < set(names)
    assert {"real+classical+weighted", "real+classical+balanced-softmax"} < set(names)
    assert default_arms([15, 10]) == default_arms(SKEWED)
    assert default_arms([14, 10]) == default_arms(BALANCED)


def test_defaults_with_oracles_and_several_sources():
    assert default_arms(BALANCED, oracle=True)[-2:] == ("best+oracle", "best+oracle/4")
    names = default_arms(BALANCED, sources=("cvae", "glow"))
    assert {"best+cvae", "best+glow", "best+synthetic"} < set(names)
    assert default_arms(BALANCED, sources=("cvae",)) == default_arms(BALANCED)


@pytest.mark.parametrize("counts", [BALANCED, SKEWED])
@pytest.mark.parametrize("sources", [(), ("cvae", "glow")])
def test_defaults_are_arms_and_enough_for_a_comparison(counts, sources):
    names = default_arms(counts, sources=sources, oracle=True)
    assert tuple(arm.name for arm in check_arms(names, sources)) == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["real"], "a comparison needs"),
        (["real", "best+smote"], "a comparison needs"),
        (["synthetic", "real+synthetic"], "a comparison needs"),
        (["real", "best+shuffled"], "a comparison needs"),
        ([], "arms are none"),
        (["real", "real", "best+synthetic"], "name each arm once"),
        (["real+smote", "best+synthetic"], "'best' needs an arm on real rows alone"),
    ],
)
def test_arms_that_are_no_comparison(names, message):
    with pytest.raises(InputError, match=message):
        check_arms(names)
