import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from synthaug.core import BatchRandom, draw_normal
from synthaug.core.noise import draw_uniform


def test_golden_values_never_change():
    values = draw_normal(7, 3, 64, 1, (4,))[0]
    np.testing.assert_allclose(values, GOLDEN, rtol=0, atol=1e-6)


GOLDEN = np.array([1.186536, -1.588843, -0.506584, -1.146192], dtype=np.float32)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    label=st.integers(0, 10_000),
    start=st.integers(0, 10**9),
    count=st.integers(1, 9),
    size=st.integers(1, 33),
    data=st.data(),
)
def test_draw_k_is_draw_k(seed, label, start, count, size, data):
    k = data.draw(st.integers(0, count - 1))
    whole = draw_normal(seed, label, start, count, (size,))
    assert whole.shape == (count, size) and np.isfinite(whole).all()
    np.testing.assert_allclose(whole[k], draw_normal(seed, label, start + k, 1, (size,))[0], rtol=0, atol=1e-6)


def test_distribution_is_standard_normal():
    values = draw_normal(0, 0, 0, 2000, (50,)).ravel()
    assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01
    assert abs((values**3).mean()) < 0.03 and abs((values**4).mean() - 3) < 0.1
    uniform = draw_uniform(0, 0, 0, 2000, (50,)).ravel()
    assert uniform.min() > 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.005


def test_keys_give_different_noise():
    base = draw_normal(0, 0, 0, 1, (8,))
    others = [draw_normal(1, 0, 0, 1, (8,)), draw_normal(0, 1, 0, 1, (8,)), draw_normal(0, 0, 1, 1, (8,))]
    assert all(not np.allclose(base, other) for other in others)


@pytest.mark.parametrize("kind", ["normal", "uniform", "integers"])
def test_processes_receive_the_rows_of_the_global_batch(kind):
    def draw(start, count):
        rng = BatchRandom(3, 5, start=start, count=count)
        rng.uniform(2)  # the second call is another stream
        return rng.integers(10, 3) if kind == "integers" else getattr(rng, kind)(3)

    whole = draw(0, 8)
    assert torch.allclose(whole.double(), torch.cat([draw(0, 4), draw(4, 4)]).double(), atol=1e-6)


def test_streams_steps_and_calls_differ():
    def draw(step, stream):
        return BatchRandom(0, step, start=0, count=4, stream=stream).normal(5)

    assert not torch.allclose(draw(0, 0), draw(1, 0)) and not torch.allclose(draw(0, 0), draw(0, 1))
    rng = BatchRandom(0, 0, start=0, count=4)
    assert not torch.allclose(rng.normal(5), rng.normal(5))
    assert rng.integers(7, 1000).max() <= 6
