"""The papers' measures of how good a distilled set is."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kipjax import checks
from kipjax.evaluation import metrics


def test_summary_shows_n_and_the_sample_deviation():
    values = [0.81, 0.83, 0.82]
    summary = metrics.summarize(values)
    assert summary.mean == pytest.approx(0.82) and summary.std == pytest.approx(0.01) and summary.n == 3
    assert summary.percent() == "82.00 ± 1.00 % (n=3)"
    one = metrics.summarize([0.5])
    assert math.isnan(one.std) and one.percent(1) == "50.0 % (n=1)"
    with pytest.raises(checks.InputError, match="at least one run"):
        metrics.summarize([])


def test_weak_and_strong_epsilon_equal_their_definitions():
    rng = np.random.default_rng(0)
    f, g, y = rng.normal(size=(3, 50, 4))
    wrong_f, wrong_g = (z.argmax(1) != y.argmax(1) for z in (f, g))
    assert metrics.weak_epsilon(f, g, y) == pytest.approx(abs(wrong_f.mean() - wrong_g.mean()), abs=1e-6)
    assert metrics.strong_epsilon(f, g) == pytest.approx((f.argmax(1) != g.argmax(1)).mean(), abs=1e-6)
    squares = [((a - b) ** 2).sum(1).mean() for a, b in ((f, y), (g, y), (f, g))]
    assert metrics.weak_epsilon(f, g, y, metrics.squared) == pytest.approx(abs(squares[0] - squares[1]), rel=1e-5)
    assert metrics.strong_epsilon(f, g, metrics.squared) == pytest.approx(squares[2], rel=1e-6)


@given(st.integers(0, 1000))
def test_equal_models_are_zero_close_and_strong_bounds_weak(seed):
    """With the zero-one loss the weak epsilon is at most the strong one (triangle inequality)."""
    rng = np.random.default_rng(seed)
    f, g, y = rng.normal(size=(3, 20, 3))
    assert metrics.weak_epsilon(f, f, y) == 0 and metrics.strong_epsilon(f, f) == 0
    assert metrics.weak_epsilon(f, g, y) <= metrics.strong_epsilon(f, g) + 1e-6


def test_ratios():
    assert metrics.compression_ratio(60_000, 10) == 6000
    assert metrics.distillation_ratio(0.9, 0.9) == 100
    assert metrics.distillation_ratio(0.45, 0.9) == pytest.approx(50)
    sizes, ratios = [100, 10, 50], [99.0, 80.0, 95.0]
    assert metrics.distillation_size(sizes, ratios, 95) == 50
    assert metrics.distillation_size(sizes, ratios, 99.5) is None
    chosen = [metrics.distillation_size(sizes, ratios, percent) for percent in (99, 95, 90, 50)]
    assert chosen == sorted(chosen, reverse=True), "d_A does not grow as A falls"


def test_bad_input():
    with pytest.raises(checks.InputError, match="full_size is 5"):
        metrics.compression_ratio(5, 10)
    with pytest.raises(checks.InputError, match="full_accuracy is 0"):
        metrics.distillation_ratio(0.5, 0.0)
    with pytest.raises(checks.InputError, match=r"y has shape \(3,\); expected \[points, classes\]"):
        metrics.weak_epsilon(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(3, int))
    with pytest.raises(checks.InputError, match="same number of rows"):
        metrics.weak_epsilon(jnp.ones((3, 2)), jnp.ones((1, 2)), jnp.ones((3, 2)))
    with pytest.raises(checks.InputError, match="both need one per class"):
        metrics.strong_epsilon(jnp.ones((3, 2)), jnp.ones((3, 3)))
