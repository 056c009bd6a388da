"""Linear and RBF kernels, the diagonal and normalisation of any kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.kernels import basic, infinite


def points(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3, 4))


def test_linear_is_the_inner_product_of_flattened_examples(x64):
    x1, x2 = points(3), points(2, 1)
    np.testing.assert_allclose(basic.linear()(x1, x2), np.einsum("aij,bij->ab", x1, x2), rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
def test_rbf_is_the_formula(gamma, x64):
    x1, x2 = points(3), points(2, 1)
    expected = np.exp(-gamma * ((x1[:, None] - x2[None]) ** 2).sum((2, 3)) / 12)
    np.testing.assert_allclose(basic.rbf(gamma)(x1, x2), expected, rtol=1e-12)


def test_rbf_is_sound_in_float32():
    x = jnp.asarray(points(50), jnp.float32) + 3
    k = basic.rbf()(x, x)
    np.testing.assert_array_equal(np.diag(k), 1)
    np.testing.assert_allclose(np.diag(basic.rbf()(x, x + 0)), 1, rtol=3e-6)
    assert np.max(basic.rbf()(x, x + 0)) <= 1


def test_rbf_gradients_are_right_and_finite_at_identical_points(x64):
    x = np.concatenate([points(2), points(2), np.zeros((1, 3, 4))])
    gradient = jax.grad(lambda a: basic.rbf()(a, a).sum() + basic.rbf()(a, x).sum())(x)
    difference = x[:, None] - x[None]
    k = np.exp(-(difference**2).sum((2, 3)) / 12)
    np.testing.assert_allclose(gradient, -3 * np.einsum("ab,abij->aij", k, 2 * difference / 12), atol=1e-12)


def test_gamma_can_be_learned(x64):
    x1, x2 = points(3), points(2, 1)
    value = jax.jit(lambda gamma: basic.rbf(gamma)(x1, x2).sum())
    numeric = (value(0.7 + 1e-6) - value(0.7 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(value)(0.7), numeric, rtol=1e-8)


@pytest.mark.parametrize("kernel_fn", [basic.rbf(), infinite.fc(2)], ids=["rbf", "fc2"])
def test_diagonal_is_that_of_the_square_matrix(kernel_fn):
    x = jnp.asarray(points(5), jnp.float32)
    np.testing.assert_allclose(basic.diagonal(kernel_fn, x), np.diag(kernel_fn(x, x)), rtol=1e-6)


def test_normalize_gives_cosines_and_leaves_zero_vectors_at_zero():
    x = jnp.asarray(np.concatenate([points(3), 0 * points(1)]), jnp.float32)
    k = basic.normalize(basic.linear())(x, x)
    np.testing.assert_allclose(np.diag(k), [1, 1, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(basic.normalize(basic.linear())(x, 7 * x[:2]), k[:, :2], atol=1e-6)
    gradient = jax.grad(lambda a: basic.normalize(basic.linear())(a, a).sum())(x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("gamma", [-1.0, float("nan")])
def test_a_wrong_gamma_is_named(gamma):
    with pytest.raises(InputError, match=f"rbf: gamma is {gamma}; it must be at least 0"):
        basic.rbf(gamma)


@pytest.mark.parametrize("kernel_fn", [basic.linear(), basic.rbf()], ids=["linear", "rbf"])
def test_wrong_inputs_are_named(kernel_fn):
    with pytest.raises(InputError, match=r"x1 has examples of shape \(3,\) and x2 of shape \(4,\); they must agree"):
        kernel_fn(jnp.ones((2, 3)), jnp.ones((2, 4)))
    with pytest.raises(InputError, match=r"x2 has shape \(3,\); expected \[n, ...\]"):
        kernel_fn(jnp.ones((2, 3)), jnp.ones(3))
