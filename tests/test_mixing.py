from __future__ import annotations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value, load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_rows import make_real, png, stored

from synthaug.columns import PROVENANCE
from synthaug.errors import InputError
from synthaug.export import write_dataset
from synthaug.mixing import mix, output_features, strip
from synthaug.rows import DatasetRows, digest_rows

ORDER = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=8)


def make_synthetic(draws, names=("ant", "bee", "cat"), extra=None) -> Dataset:
    """Synthetic rows (label, draw) in the order given."""
    rows = {
        "image": [{"bytes": png(50 + draw), "path": None} for _, draw in draws],
        "label": [label for label, _ in draws],
        "synthetic": [True] * len(draws),
        "provenance": [{"generator": "toy@1", "checkpoint": "c", "seed": 0, "draw": d} for _, d in draws],
        **(extra or {}),
    }
    real = make_real(extra=False, names=names)
    features = {**output_features(real.features), **({key: Value("int32") for key in extra or {}})}
    return Dataset.from_dict(rows, features=Features(features))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(counts=st.tuples(*[st.integers(0, 3)] * 4).filter(any), draws=ORDER)
def test_strip_undoes_mix_and_the_order_is_real_then_class_then_draw(counts, draws):
    real, synthetic = make_real(counts), make_synthetic(draws)
    mixed = mix(real, synthetic)
    assert mixed.features == output_features(real.features)
    assert mixed["synthetic"][:] == [False] * len(real) + [True] * len(draws)
    tail = mixed.select(np.arange(len(real), len(mixed)))
    pairs = list(zip(tail["label"], [p["draw"] for p in stored(tail, "provenance")], strict=True))
    assert pairs == sorted(draws)
    assert tail["age"][:] == [None] * len(draws)
    back = strip(mixed)
    assert back.features == real.features and back.column_names == real.column_names
    for column in real.column_names:
        assert stored(back, column) == stored(real, column)


def test_mixing_twice_replaces_the_synthetic_rows(capsys):
    real = make_real()
    once = mix(real, make_synthetic([(0, 1), (1, 2)]))
    twice = mix(once, make_synthetic([(2, 5)]))
    assert len(twice) == len(real) + 1
    assert "2 rows already marked synthetic" in capsys.readouterr().err
    assert len(mix(real, once)) == len(real) + 2  # of a mixed dataset, its synthetic rows


def test_labels_are_mapped_by_name():
    synthetic = make_synthetic([(0, 0), (2, 1), (1, 2)], names=["cat", "ant", "bee"])
    mixed = mix(make_real(), synthetic)
    assert mixed["label"][9:] == [0, 1, 2] and [p["draw"] for p in mixed["provenance"][9:]] == [2, 1, 0]
    with pytest.raises(InputError, match="'dog'"):
        mix(make_real(), make_synthetic([(2, 0)], names=["ant", "bee", "dog"]))


@pytest.mark.parametrize(("kind", "values"), [("string", ["10", "2"]), ("int64", [10, 2]), ("int8", [10, 2])])
def test_class_labels_become_the_values_of_a_plain_column(kind, values):
    real = Dataset.from_dict({"label": values}, features=Features({"label": Value(kind)}))
    features = Features({"label": ClassLabel(names=["2", "10", "ant"])})
    synthetic = Dataset.from_dict({"label": [0, 1, -1]}, features=features)
    assert mix(real, synthetic, label_column="label")["label"][:] == [*values, None, *sorted(values)]
    if kind != "string":
        with pytest.raises(InputError, match="'ant', the real ones do not know it: no class 'ant' in 'label'"):
            mix(real, Dataset.from_dict({"label": [2]}, features=features), label_column="label")


def test_several_splits_are_refused():
    with pytest.raises(InputError, match=r"real is a DatasetDict; give one split .*\['train'\]"):
        mix(DatasetDict(train=make_real()), make_real())
    with pytest.raises(InputError, match="dataset is a DatasetDict"):
        strip(DatasetDict(train=make_real()))


def test_rows_of_another_tool_count_as_synthetic():
    mixed = mix(make_real(), make_real((1, 1, 0), extra=False))
    assert mixed["synthetic"][9:] == [True, True] and mixed["provenance"][9:] == [None, None]


def test_columns_that_the_real_rows_lack_are_refused():
    with pytest.raises(InputError, match="column 'width'"):
        mix(make_real(), make_synthetic([(0, 0)], extra={"width": [8]}))


def test_foreign_columns_of_our_names_are_refused():
    with pytest.raises(InputError, match="'synthetic'"):
        mix(make_real().add_column("synthetic", ["yes"] * 9), make_synthetic([(0, 0)]))
    with pytest.raises(InputError, match="only a mixed one"):
        strip(make_real())


def test_selected_and_shuffled_datasets_are_read_as_they_show():
    real = make_real().select([5, 1, 3])
    assert stored(strip(mix(real, make_synthetic([(1, 1)]))), "age") == stored(real, "age")


# ---------------------------------------- rows on their way


def test_dataset_rows_can_be_taken_up_anywhere():
    real = make_real()
    features = output_features(real.features)
    stream = DatasetRows(real, features)
    first = next(stream.read(4))
    state = stream.state()
    again = DatasetRows(real, features)
    again.seek(state)
    ages = [*first["age"].to_pylist(), *(age for t in again.read(5) for age in t["age"].to_pylist())]
    assert ages == real["age"][:] and again.num_rows == 9


def test_columns_that_hold_other_files_are_refused():
    features = Features({**make_real().features, "views": Sequence(make_real().features["image"])})
    with pytest.raises(InputError, match="'views'"):
        DatasetRows(make_real(), features)


def test_the_digest_tells_content_apart():
    real = make_real()
    assert digest_rows(real) == digest_rows(make_real())
    assert digest_rows(real) != digest_rows(real.select(np.arange(8)))
    assert digest_rows(real) != digest_rows(make_real(names=["ant", "bee", "dog"]))
    assert digest_rows(real.select(range(9)[::-1]).select(range(9)[::-1])) == digest_rows(real)


# ---------------------------------------- datasets as folders


def test_write_dataset(tmp_path):
    mixed = mix(make_real(), make_synthetic([(2, 5)]))
    out = write_dataset({"train": mixed, "test": make_real((1, 1, 1))}, tmp_path / "out")
    loaded = load_dataset(str(out))
    assert loaded["train"].features["label"] == ClassLabel(names=["ant", "bee", "cat"])
    assert loaded["train"]["synthetic"][:] == mixed["synthetic"][:]
    assert loaded["test"]["synthetic"][:] == [False] * 3
    assert set(PROVENANCE) == set(loaded["train"].features["provenance"])
    assert write_dataset({"train": mixed, "test": make_real((1, 1, 1))}, tmp_path / "out") == out
    with pytest.raises(InputError, match=r"splits.*fresh=True"):
        write_dataset(mixed, tmp_path / "out")
    plain = write_dataset(strip(mixed), tmp_path / "out", fresh=True)
    assert load_dataset(str(plain), split="train").features == make_real().features


def test_folders_of_the_same_name_are_not_taken_for_each_other(tmp_path):
    for rows in (3, 5):  # `datasets` caches by name where a card lists data files
        out = write_dataset(make_real((rows, 0, 0)), tmp_path / "same", fresh=True)
        assert load_dataset(str(out), split="train").num_rows == rows
