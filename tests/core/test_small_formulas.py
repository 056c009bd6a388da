"""Labels, losses, precision and the loop."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.core import labels, loop, losses, precision
from kipjax.types import Batch, Distilled, Method


def test_one_hot_is_centred_by_default():
    y = np.asarray(labels.one_hot(np.array([2, 0]), 4))
    np.testing.assert_allclose(y, [[-0.25, -0.25, 0.75, -0.25], [0.75, -0.25, -0.25, -0.25]])
    np.testing.assert_allclose(y.sum(axis=1), 0, atol=1e-7)
    np.testing.assert_allclose(labels.one_hot(np.array([1]), 2, centered=False, scale=3.0), [[0, 3]])
    assert labels.classes(jnp.asarray(y)).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.array([0, 5]), r"spans 0..5, but with num_classes = 4"),
        (np.array([-1, 2]), "spans -1..2"),
        (np.array([0.5, 1.0]), "expected one integer class per example"),
        (np.array([[0, 1]]), "expected one integer class per example"),
    ],
)
def test_one_hot_refuses_what_is_no_class(bad, words):
    with pytest.raises(checks.InputError, match=words):
        labels.one_hot(bad, 4)


def test_losses_equal_their_formulas():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(7, 3)), rng.dirichlet(np.ones(3), size=7)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(losses.mse(z, y), 0.5 * np.mean((z - y) ** 2), rtol=1e-6)
    np.testing.assert_allclose(losses.cross_entropy(z, y), np.mean(-(y * log_p).sum(axis=1)), rtol=1e-5)
    hard = y.argmax(axis=1)
    np.testing.assert_allclose(losses.cross_entropy(z, hard), np.mean(-log_p[np.arange(7), hard]), rtol=1e-5)
    expected = np.mean(z.argmax(axis=1) == hard)
    assert float(losses.accuracy(z, y)) == pytest.approx(expected)
    assert float(losses.accuracy(z, hard)) == pytest.approx(expected)


def test_losses_refuse_unequal_classes():
    with pytest.raises(checks.InputError, match="predictions has 3 columns and targets has 2"):
        losses.mse(jnp.ones((4, 3)), jnp.ones((4, 2)))
    with pytest.raises(checks.InputError, match="same number of rows"):
        losses.accuracy(jnp.ones((4, 3)), jnp.ones(5, int))


def test_run_in_computes_wide_and_returns_narrow():
    tiny = jnp.float32(1e-9)
    assert float(precision.run_in("float64", lambda a: (1 + a) - 1, tiny)) == pytest.approx(1e-9, rel=1e-5)
    assert float(precision.run_in(None, lambda a: (1 + a) - 1, tiny)) == 0.0
    out = jax.jit(lambda a: precision.run_in("float64", lambda a, i: ((1 + a) - 1, i), a, jnp.arange(2)))(tiny)
    assert out[0].dtype == jnp.float32 and out[1].dtype == jnp.int32


def test_the_margin_is_the_gap_to_the_second_class_up_to_a_cap_and_zero_for_one_class():
    y = jnp.array([[0.5, 0.1, 0.2], [0.0, 1.0, 0.0]])
    assert float(labels.margin(y, 0.4)) == pytest.approx((0.3 + 0.4) / 2)
    assert float(labels.margin(y[:, :1], 0.4)) == 0.0


class Info(NamedTuple):
    loss: jax.Array


def random_walk():
    """A method whose state depends on every key and batch it saw."""

    def step(key, state, batch):
        return state + jax.random.normal(key, state.shape) + batch.x.mean(), Info(state.sum())

    return Method(lambda key, distilled0: distilled0.x, step, lambda state: Distilled(state, state))


def test_steps_do_not_depend_on_how_they_are_cut():
    def sample(key):
        return Batch(jax.random.normal(key, (3,)), jnp.zeros((3, 1)))

    method, key, x = random_walk(), jax.random.key(3), jnp.ones(2)
    six, three = (jax.jit(functools.partial(loop.steps(method, count), sample)) for count in (6, 3))
    whole, infos = six(key, x, 0)
    half, _ = three(key, x, 0)
    rest, _ = three(key, half, 3)
    np.testing.assert_array_equal(whole, rest)
    assert infos.loss.shape == (6,)
    state = x
    for i in range(6):
        sample_key, method_key = loop.step_keys(key, i)
        state, _ = method.step(method_key, state, sample(sample_key))
    np.testing.assert_allclose(state, whole, rtol=1e-6)
    other, _ = six(jax.random.key(4), x, 0)
    assert not np.allclose(other, whole)
