"""The ReLU's map of covariances against NumPy, Monte Carlo, finite differences and neural_tangents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.kernels import _neural_tangents, relu


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-7), (np.float64, 3e-14)])
def test_angle_is_atan2_over_twelve_decades(dtype, tolerance):
    rng = np.random.default_rng(0)
    s, c = (rng.normal(size=20_000) * 10.0 ** rng.uniform(-6, 6, 20_000) for _ in range(2))
    s, c = np.abs(s).astype(dtype), c.astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        got = np.asarray(relu.angle(jnp.asarray(s), jnp.asarray(c)), np.float64)
        corners = relu.angle(jnp.asarray([0, 0, 0, 1], dtype), jnp.asarray([0, 1, -1, 0], dtype))
    np.testing.assert_allclose(got, np.arctan2(s.astype(np.float64), c.astype(np.float64)), rtol=tolerance)
    np.testing.assert_allclose(corners, [np.pi / 2, 0, np.pi, np.pi / 2], rtol=1e-6)


def test_moments_are_expectations_over_gaussians(x64):
    rng = np.random.default_rng(0)
    for a, b, c in [(1.0, 1.0, 0.3), (2.0, 0.5, -0.7), (1.0, 4.0, 1.9)]:
        u, v = rng.multivariate_normal([0, 0], [[a, c], [c, b]], size=400_000).T
        first, slope = relu.moments(jnp.asarray(c), jnp.asarray(a * b))
        assert float(first) == pytest.approx(np.mean(np.maximum(u, 0) * np.maximum(v, 0)), abs=1e-2)
        assert float(slope) == pytest.approx(np.mean((u > 0) & (v > 0)), abs=5e-3)


def test_derivatives_equal_finite_differences(x64):
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.uniform(0.5, 2, 50))
    c = jnp.sqrt(q) * jnp.asarray(rng.uniform(-0.99, 0.99, 50))
    weights = jnp.asarray(rng.normal(size=(2, 50)))

    def f(c, q):
        return sum((w * m).sum() for w, m in zip(weights, relu.moments(c, q)))

    for argument in (0, 1):
        got = jax.grad(f, argument)(c, q)
        for i in range(0, 50, 7):
            step = [jnp.zeros(50).at[i].set(1e-6 if k == argument else 0.0) for k in (0, 1)]
            numeric = (f(c + step[0], q + step[1]) - f(c - step[0], q - step[1])) / 2e-6
            assert float(got[i]) == pytest.approx(float(numeric), rel=2e-5, abs=1e-8)


@pytest.mark.parametrize("c", [0.0, 1.0, -1.0, 1.0000001])
def test_values_and_derivatives_are_finite_at_the_corners(c):
    q = jnp.asarray(float(c != 0))
    value = relu.moments(jnp.asarray(c), q)
    slopes = jax.jacrev(relu.moments, argnums=(0, 1))(jnp.asarray(c), q)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves((value, slopes)))
    np.testing.assert_allclose(value, {0: (0, 0.25), 1: (0.5, 0.5), -1: (0, 0)}[round(c)], atol=1e-6)


def test_the_layer_equals_neural_tangents_relu(x64):
    stax = _neural_tangents.stax()
    x1, x2 = (jax.random.normal(jax.random.key(i), (4, 6), jnp.float64) for i in (0, 1))
    layers = [stax.Dense(8, W_std=1.3, b_std=0.2), stax.Relu()]
    k = stax.serial(*layers)[2](x1, x2)
    before = layers[0][2](stax.Identity()[2](x1, x2))
    q = jnp.outer(jnp.diag(before.cov1) if before.cov1.ndim == 2 else before.cov1, before.cov2)
    first, slope = relu.moments(before.nngp, q)
    np.testing.assert_allclose(first, k.nngp, rtol=1e-12)
    np.testing.assert_allclose(before.ntk * slope, k.ntk, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parallel_vectors_have_the_derivatives_of_their_halves(dtype):
    """Numbers are parallel vectors: the angle is 0 or pi whatever they are, so degree 0 is constant."""
    with jax.enable_x64(dtype == "float64"):
        u, v = (jnp.asarray(a, dtype) for a in np.random.default_rng(0).normal(size=(2, 2000)))
        once, slope = (
            jax.jit(jax.grad(lambda u: jnp.stack(relu.moments(u * v, u**2 * v**2)).sum(1) @ jnp.eye(2)[0]))(u),
            jax.jit(jax.grad(lambda u: relu.moments(u * v, u**2 * v**2)[1].sum()))(u),
        )
        np.testing.assert_allclose(once, np.where(u * v > 0, v / 2, 0), atol=1e-5 * 300 * np.finfo(dtype).eps / 1e-7)
        assert np.abs(slope * u).max() < 1e-2 * np.sqrt(np.finfo(dtype).eps / 1e-7)
