"""Theorems 1 to 3 of Nguyen, Chen, Lee (arXiv:2011.00050, appendix C), on random data in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kipjax.core import krr, loop
from kipjax.kernels import basic
from kipjax.methods import kip, label_solve
from kipjax.types import Batch, Distilled

pytestmark = [pytest.mark.theory, pytest.mark.usefixtures("x64")]

D, C, N = 4, 2, 30


def data(seed=0, noise=0.3):
    """Targets of a noisy linear map, ``|x| <= 1`` as the theorems ask for."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D))
    x /= np.linalg.norm(x, axis=1).max()
    y = x @ rng.normal(size=(D, C)) + noise * rng.normal(size=(N, C))
    return Batch(jnp.asarray(x), jnp.asarray(y)), rng


def ridge(x, y, reg):
    """``w = Phi_reg(X) y``, the regressor of equations (3) to (5)."""
    x, y = np.asarray(x), np.asarray(y)
    return np.linalg.solve(x.T @ x + reg * np.eye(x.shape[1]), x.T @ y) if reg else np.linalg.pinv(x) @ y


def run_kip(batch, start, reg, steps=4000):
    """Gradient descent KIP: all targets and all of the support at each step."""
    method = kip.make(basic.linear(), reg=reg, reg_unit="absolute", optimizer=optax.adam(0.01))
    run = jax.jit(functools.partial(loop.steps(method, steps), lambda key: batch))
    state, infos = run(jax.random.key(0), method.init(jax.random.key(0), start), 0)
    return method.distilled(state), infos


@pytest.mark.parametrize(("m", "enough"), [(C, True), (3, True), (1, False)])
def test_theorem_1_linear_kip_converges_to_the_least_squares_classifier(m, enough):
    """With at least C points and a small ridge; strong epsilon is at most ``1/2 |w~ - w_0|^2``. One point cannot."""
    batch, rng = data()
    start = Distilled(jnp.asarray(rng.normal(size=(m, D))), jnp.asarray(rng.normal(size=(m, C))))
    made, infos = run_kip(batch, start, 1e-6)
    w0, found = ridge(batch.x, batch.y, 0.0), ridge(made.x, made.y, 1e-6)
    least = 0.5 * np.mean((np.asarray(batch.x) @ w0 - np.asarray(batch.y)) ** 2)
    assert (np.linalg.norm(found - w0) / np.linalg.norm(w0) < 1e-3) == enough
    assert (float(infos.loss[-1]) < least * (1 + 1e-5)) == enough
    inside = rng.normal(size=(500, D))
    inside /= np.maximum(1, np.linalg.norm(inside, axis=1, keepdims=True))
    strong = 0.5 * np.mean(np.sum((inside @ (found - w0)) ** 2, axis=1))
    assert strong <= 0.5 * np.linalg.norm(found - w0, 2) ** 2 + 1e-15


@pytest.mark.parametrize("reg", [1e-2, 0.0])
@pytest.mark.parametrize("m", [3, 6])
def test_theorem_2_solved_labels(m, reg):
    """``w*`` is the least-squares fit among what the support can express: w_0 if that is of full rank."""
    batch, rng = data()
    x_s = jnp.asarray(rng.normal(size=(m, D)))
    method = label_solve.make(basic.linear(), reg=reg, reg_unit="absolute")
    state, _ = method.step(jax.random.key(0), method.init(jax.random.key(0), Distilled(x_s, jnp.zeros((m, C)))), batch)
    w0, found = ridge(batch.x, batch.y, 0.0), ridge(x_s, state.y, reg)
    basis = np.linalg.svd(np.asarray(x_s), full_matrices=False)[2].T  # the range of Phi(X_s)
    x, y = (np.asarray(a) for a in batch)
    np.testing.assert_allclose(found, basis @ (np.linalg.pinv(x @ basis) @ y), atol=1e-7)
    if m >= D:  # rank(X_s) = rank(X_t) = d
        np.testing.assert_allclose(found, w0, atol=1e-7)
        if reg == 0:
            np.testing.assert_allclose(state.y, np.asarray(x_s) @ w0, atol=1e-7)
    else:
        assert np.linalg.norm(found - w0) > 1e-2
    inside = rng.normal(size=(500, D))
    inside /= np.maximum(1, np.linalg.norm(inside, axis=1, keepdims=True))
    strong = 0.5 * np.mean(np.sum((inside @ (found - w0)) ** 2, axis=1))
    assert strong <= 0.5 * np.linalg.norm(found - w0, 2) ** 2 + 1e-15


def test_theorem_3_the_least_loss_is_what_no_kernel_range_covers():
    """Over all supports and labels: the smallest ``1/2 |P_S^perp y_t|^2`` with ``S = im K_ts``; a point on a line."""
    rng = np.random.default_rng(0)
    x_t, y_t = jnp.asarray(rng.normal(size=(9, 1))), jnp.asarray(rng.normal(size=(9, C)))
    kernel_fn, places = basic.rbf(), np.linspace(-4, 4, 801)

    def outside(place):
        column = np.asarray(kernel_fn(x_t, jnp.full((1, 1), place)))
        rest = np.asarray(y_t) - column @ np.linalg.pinv(column) @ np.asarray(y_t)
        return 0.5 * np.mean(rest**2)

    least = min(map(outside, places))
    for reg in (0.0, 0.3):  # whatever the ridge

        def solved(place, reg=reg):
            x_s = jnp.full((1, 1), place)
            k_ss, k_ts = kernel_fn(x_s, x_s), kernel_fn(x_t, x_s)
            y_s = krr.solve_labels(k_ss, k_ts, y_t, reg=reg)
            return krr.loss(k_ss, k_ts, y_s, y_t, reg=reg)

        found = jax.jit(lambda some, solved=solved: jax.lax.map(solved, some))(jnp.asarray(places))
        np.testing.assert_allclose(found, [outside(place) for place in places], rtol=1e-9)
        assert float(found.min()) == pytest.approx(least, rel=1e-9)
    method = kip.make(kernel_fn, learn_labels=True, learning_rate=0.05)
    start = Distilled(jnp.zeros((1, 1)), jnp.zeros((1, C)))
    run = jax.jit(functools.partial(loop.steps(method, 1000), lambda key: Batch(x_t, y_t)))
    _, infos = run(jax.random.key(0), method.init(jax.random.key(0), start), 0)
    assert float(infos.loss.min()) >= least * (1 - 1e-4)
