"""The papers' measures of how good a distilled set is."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
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


@settings(deadline=None)  # the first example compiles
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


def test_intervals_hold_the_epsilons_and_shrink_with_the_points():
    rng = np.random.default_rng(0)
    widths = []
    for n in (100, 10_000):
        y = np.eye(3)[rng.integers(3, size=n)]
        f = np.where(rng.random((n, 1)) < 0.9, y, np.roll(y, 1, axis=1))
        g = np.where(rng.random((n, 1)) < 0.7, y, np.roll(y, 1, axis=1))
        weak, strong = metrics.weak_interval(f, g, y), metrics.strong_interval(f, g)
        assert weak.value == metrics.weak_epsilon(f, g, y) and strong.value == metrics.strong_epsilon(f, g)
        assert weak.low <= weak.value <= weak.high and strong.low <= strong.value <= strong.high
        widths.append(strong.high - strong.low)
    assert widths[0] > 5 * widths[1]
    # 1.96 standard errors on either side of the rate of disagreement
    assert widths[1] == pytest.approx(2 * 1.96 * math.sqrt(strong.value * (1 - strong.value) / n), rel=0.15)
    assert 0.18 < weak.low < 0.2 < weak.high < 0.22
    assert metrics.strong_interval(f, f)[:] == (0, 0, 0)
    assert metrics.weak_interval(f, g, y, level=0.5).high < weak.high
    assert metrics.weak_interval(f, g, y) == weak != metrics.weak_interval(f, g, y, seed=1)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth, hits = 0.3, 0
    for _ in range(100):
        f = np.eye(2)[(rng.random(200) < truth).astype(int)]
        found = metrics.strong_interval(f, np.eye(2)[np.zeros(200, int)], resamples=300)
        hits += found.low <= truth <= found.high
    assert 87 <= hits <= 100


@pytest.mark.parametrize(
    ("accuracy", "natural", "bound"),
    [
        (0.5, 10, ""),
        (0.8, 1000, ""),
        (0.75, math.sqrt(100 * 1000), ""),
        (0.7, 100, ""),
        (0.81, 1000, "at least"),
        (0.49, 10, "at most"),
    ],
)
def test_worth_in_natural_images_is_read_off_the_curve(accuracy, natural, bound):
    found = metrics.worth(accuracy, 5, [10, 100, 1000], [0.5, 0.7, 0.8])
    assert found.natural == pytest.approx(natural) and found.ratio == pytest.approx(natural / 5)
    assert found.bound == bound and str(found).endswith(f"({bound})" if bound else f"{natural / 5:.3g}")


def test_a_curve_that_falls_on_the_way_is_made_monotone():
    # 0.7 and 0.6 become 0.65 twice; the first of a flat part counts
    assert metrics.worth(0.65, 1, [10, 20, 40, 80], [0.5, 0.7, 0.6, 0.8]).natural == pytest.approx(20)
    with pytest.raises(checks.InputError, match="two or more in ascending order"):
        metrics.worth(0.5, 1, [20, 10], [0.5, 0.6])
    with pytest.raises(checks.InputError, match="two or more in ascending order"):
        metrics.worth(0.5, 1, [20], [0.5])
    with pytest.raises(checks.InputError, match="a bootstrap needs two"):
        metrics.strong_interval(np.eye(2)[:1], np.eye(2)[:1])
