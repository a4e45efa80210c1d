import numpy as np
from hypothesis import given, settings, strategies as st

from synthaug.training.order import RowOrder, class_quotas

counts_of = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@given(counts=counts_of, power=st.floats(0, 1))
def test_quotas_add_up(counts, power):
    quotas = class_quotas(np.array(counts), power)
    assert quotas.sum() == sum(counts) and (quotas >= 0).all()


@settings(max_examples=40, deadline=None)
@given(counts=counts_of, power=st.sampled_from([0.0, 0.5, 1.0]), start=st.integers(0, 500), count=st.integers(1, 90))
def test_positions_do_not_depend_on_how_they_are_asked(counts, power, start, count):
    labels = np.repeat(np.arange(len(counts)), counts)
    whole = RowOrder(labels, seed=1, power=power).positions(0, start + count)
    assert (RowOrder(labels, seed=1, power=power).positions(start, count) == whole[start:]).all()


def test_power_one_sees_every_row_once_an_epoch():
    labels = np.array([0] * 7 + [1] * 3)
    order = RowOrder(labels, seed=0, power=1.0)
    assert sorted(order.positions(0, 10)) == list(range(10)) == sorted(order.positions(10, 10))
    assert (order.positions(0, 10) != order.positions(10, 10)).any()


def test_power_zero_balances_classes_and_still_walks_through_all_rows():
    labels = np.array([0] * 30 + [1] * 10)
    rows = RowOrder(labels, seed=0, power=0.0).positions(0, 400)
    assert (labels[rows] == 0).sum() == 200
    seen = np.bincount(rows, minlength=40)
    assert seen[:30].min() >= 6 and seen[:30].max() <= 7 and (seen[30:] == 20).all()
