"""The joint groups of a benchmark: sampling, choices and the worst group."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Value
from test_groups import make_rows

from synthaug.benchmarks.arms import parse_arm
from synthaug.benchmarks.benchmarking import benchmark
from synthaug.benchmarks.cells import CellData, Rows
from synthaug.benchmarks.comparisons import compare_joint
from synthaug.benchmarks.contest import load_contest
from synthaug.benchmarks.grouping import Grouping
from synthaug.benchmarks.material import collect_material
from synthaug.benchmarks.schedules import schedule_rows
from synthaug.errors import InputError

BIASED = {("zero", "blue"): 6, ("zero", "red"): 24, ("one", "blue"): 24, ("two", "blue"): 20, ("two", "red"): 10}
EVEN = {(name, colour): 4 for name in ("zero", "one", "two") for colour in ("blue", "red")}
GROUP_BY = ["label", "colour"]


@pytest.fixture(scope="module")
def contest():
    made = make_rows({("zero", "blue"): 18, ("two", "red"): 10}, offset=500)
    return load_contest(make_rows(BIASED), {"cvae": made}, make_rows(EVEN, offset=1000), group_by=GROUP_BY)


def test_classes_are_labels_and_groups_stand_beside_them(contest):
    grouping = contest.groups
    assert contest.class_names == ("zero", "one", "two")
    assert grouping.names[:5] == ("zero · blue", "zero · red", "one · blue", "two · blue", "two · red")
    assert grouping.names[5] == "one · red"  # the test rows alone have it
    assert [contest.class_names[c] for c in grouping.classes] == [name.split(" · ")[0] for name in grouping.names]
    for kind, rows in {"train": contest.train, "test": contest.test, "validation": contest.validation}.items():
        assert (grouping.classes[grouping.index[kind]] == rows.labels).all()
    assert (grouping.count("train") + grouping.count("validation")).tolist() == [6, 24, 24, 20, 10, 0]
    assert grouping.count_synthetic().tolist() == [18, 0, 0, 0, 10, 0]
    assert grouping.count("test").tolist() == [4] * 6


def test_validation_rows_are_held_out_of_every_group(contest):
    assert (contest.groups.count("validation")[:5] > 0).all()


def test_oversampling_balances_the_groups_and_rows_are_exchanged_within_theirs(contest):
    train, made = contest.strata("train"), contest.strata("synthetic")
    plain = schedule_rows(parse_arm("oversampled"), train, train[:0], length=500, seed=0, share=0.0)
    assert np.bincount(train[plain]).tolist() == [100] * 5
    mixed = schedule_rows(parse_arm("oversampled+synthetic"), train, made, length=500, seed=0, share=0.5)
    assert (np.concatenate([train, made])[mixed] == train[plain]).all()
    assert (mixed >= len(train)).any()


def test_rows_of_every_kind_know_class_and_group(contest):
    arms = [parse_arm(name) for name in ("real", "real+smote", "real+duplicated", "real+shuffled", "real+synthetic")]
    data = collect_material(contest, arms)
    for rows in data.others.values():
        assert (contest.groups.classes[rows.groups] == rows.labels).all()
    assert np.bincount(data.others["smote"].groups, minlength=6).tolist() == [18, 0, 0, 0, 10, 0]


def test_groups_travel_to_the_workers(contest, tmp_path):
    data = collect_material(contest, [parse_arm("real+synthetic")])
    data.save(tmp_path)
    loaded = CellData.load(tmp_path)
    assert loaded.real.groups.tolist() == data.real.groups.tolist()
    bare = Rows(data.real.pixels, data.real.labels)
    assert bare.strata.tolist() == bare.labels.tolist()


def fake(name, predictions):
    return SimpleNamespace(arm=SimpleNamespace(name=name), predictions=lambda: np.array(predictions))


def test_the_worst_group_is_each_trainings_own_and_the_interval_is_students():
    strata = np.array([0, 0, 1, 1, 2, 2])
    labels = np.array([0, 0, 0, 0, 1, 1])
    index = {"train": strata[:3], "test": strata, "source made": strata[:2]}
    grouping = Grouping(("y", "g"), ("0 · a", "0 · b", "1 · a"), np.array([0, 0, 1]), ("0", "1"), index)
    before = fake("real", [[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]])  # worst: 0, 1/2, 0
    after = fake("mixed", [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 1, 1]])  # worst: 1/2, 1, 1/2
    found = compare_joint([before, after], after, before, labels, grouping)
    assert [arm["per_seed"] for arm in found["arms"]] == [[0.0, 0.5, 0.0], [0.5, 1.0, 0.5]]
    assert found["arms"][1]["gap"] == pytest.approx(1 / 3)
    assert found["value"] == 0.5
    assert found["interval"] == [0.5, 0.5]
    entry = found["entries"][1]
    assert (entry["name"], entry["train"], entry["synthetic"], entry["test"]) == ("0 · b", 1, 0, 2)
    assert entry["opponent_recall"] == pytest.approx(1 / 6)
    less = fake("mixed", [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1]])  # gains 1/2, 1/2, 0
    low, high = compare_joint([before, less], less, before, labels, grouping)["interval"]
    reach = 4.302653 * np.std([0.5, 0.5, 0.0], ddof=1) / 3**0.5
    assert (low, high) == (pytest.approx(1 / 3 - reach), pytest.approx(1 / 3 + reach))
    assert compare_joint([fake("real", before.predictions()[:1])] * 2, *[fake("real", before.predictions()[:1])] * 2,
                         labels, grouping)["interval"] is None  # fmt: skip


def test_a_missing_column_is_refused():
    with pytest.raises(InputError, match="group_by names 'colour', but there is no such column"):
        load_contest(make_rows(BIASED), {"cvae": make_rows().remove_columns("colour")}, None, group_by=GROUP_BY)


def test_a_benchmark_reports_the_groups(tmp_path):
    report = benchmark(
        make_rows(BIASED), make_rows({("zero", "blue"): 18, ("two", "red"): 10}, offset=500),
        test=make_rows(EVEN, offset=1000), group_by=GROUP_BY, seeds=2, steps=3,
        arms=["oversampled", "oversampled+synthetic"], num_processes=1, device="cpu", output=tmp_path / "report",
    )  # fmt: skip
    assert report.joint["columns"] == GROUP_BY
    assert len(report.joint["entries"]) == 6
    assert "worst group of label, colour" in report.worst_groups
    counts = report.settings["rows"]["validation"]
    assert counts < 5 * 6 and any("groups have fewer than 5 validation rows" in note for note in report.notes)
    described = [arm["description"] for arm in report.arms]
    assert described[0].startswith("real rows, groups equally often")
    assert described[1].endswith("a share exchanged for synthetic rows of the same group")
    for text in (report.to_markdown(), report.to_html()):
        assert "Worst group" in text
        assert "one · red" in text
    assert [entry["name"] for entry in report.classes] == ["zero", "one", "two"]


def test_rows_of_a_run_that_knows_no_groups_are_refused_in_one_line():
    made = make_rows({("zero", "blue"): 4})
    made = made.remove_columns("colour").add_column("colour", [None] * 4, feature=Value("string"))
    with pytest.raises(InputError, match=r"rows of 'cvae' have no value in 'colour'.*same group_by .label,colour"):
        load_contest(make_rows(BIASED), {"cvae": made}, None, group_by=GROUP_BY)
