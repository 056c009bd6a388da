"""CIG and VIG: losses, the exact limit of the linearised one, and the displacement of the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.core import linearize
from kipjax.methods import cig, vig
from kipjax.models import network
from kipjax.types import Batch, Distilled
from tests.reference import networks

K, M, B, REG = 3, 4, 9, 1e-2


def problem(dtype=np.float64):
    rng = np.random.default_rng(0)
    start = Distilled(*(jnp.asarray(rng.normal(size=s), dtype) for s in ((M, 3, 2, 1), (M, K))))
    y = np.eye(K)[np.arange(B) % K] - 1 / K
    return start, Batch(jnp.asarray(rng.normal(size=(B, 3, 2, 1)), dtype), jnp.asarray(y, dtype))


def first_step(make, **options):
    """``(start, batch, gradient sign, info, variables of the picked network)`` of one step."""
    start, batch = problem()
    method = make(networks.Small(K), reg=REG, pool_size=1, learning_rate=1e-3, ema_decay=0.0, **options)
    state = method.init(jax.random.key(0), start)
    new, info = jax.jit(method.step)(jax.random.key(1), state, batch)
    variables = jax.tree.map(lambda leaf: leaf[0], state.pool.members[0])
    return start, batch, new.learned.x - state.learned.x, info, variables


@pytest.mark.slow
def test_cig_approaches_ridge_regression_with_the_full_tangent_kernel(x64):
    """In the limit of many steps: loss and the direction of the update are those of the closed form."""
    many = {"inner_steps": 6000, "hessian_steps": 6000, "inner_step_size": 0.01, "hessian_step_size": 0.03}
    start, batch, update, info, variables = first_step(cig.make, **many)
    model = networks.Small(K)

    def logits(params, x):
        return model.apply({**variables, "params": params}, x)

    def exact(x):
        j_s, j_t = (linearize.jacobian(logits, variables["params"], a) for a in (x, batch.x))
        g = linearize.ntk(j_s) + REG * M * jnp.eye(M * K)
        f_t = linearize.ntk(j_t, j_s) @ jnp.linalg.solve(g, start.y.ravel())
        return 0.5 * jnp.mean((f_t.reshape(B, K) - batch.y) ** 2)

    value, gradient = jax.jit(jax.value_and_grad(exact))(start.x)
    np.testing.assert_allclose(info.loss, value, rtol=1e-3)
    clear = np.abs(gradient) > 0.1 * np.abs(gradient).max()
    assert np.array_equal(np.sign(update)[clear], -np.sign(gradient)[clear])
    assert clear.sum() >= 5


@pytest.mark.parametrize("make", [cig.make, vig.make])
def test_without_steps_the_targets_see_the_bare_model_and_nothing_moves(make, x64):
    _start, batch, update, info, variables = first_step(make, inner_steps=0, hessian_steps=0)
    f_t = networks.Small(K).apply(variables, batch.x) if make is vig.make else jnp.zeros((B, K))
    np.testing.assert_allclose(info.loss, 0.5 * np.mean((f_t - batch.y) ** 2), rtol=1e-9)
    assert not np.any(update)


def test_the_models_of_a_displacement(x64):
    start, _ = problem()
    model = networks.Small(K)
    variables = network.init(model, jax.random.key(0), start.x)
    tau = jax.tree.map(lambda p: 1e-4 * jax.random.normal(jax.random.key(p.size), p.shape), variables["params"])
    moved = vig.displaced(model, variables)(tau, start.x)
    centred = cig.linearised(model, variables)(tau, start.x)
    np.testing.assert_allclose(moved - model.apply(variables, start.x), centred, rtol=1e-2, atol=1e-7)
    thrice = cig.linearised(model, variables)(jax.tree.map(lambda t: 3 * t, tau), start.x)
    np.testing.assert_allclose(thrice, 3 * centred)


def test_the_inner_loss_is_the_papers(x64):
    f, y, tau = np.ones((4, 3)), np.zeros((4, 3)), {"w": jnp.asarray([1.0, 2.0])}
    np.testing.assert_allclose(cig.inner_loss(f, y, tau, lam=0.1), (0.5 * 12 + 0.5 * 0.1 * 5) / 12)


@pytest.mark.slow
@pytest.mark.parametrize("make", [cig.make, vig.make])
def test_step_sizes_are_found_and_the_loss_falls(make):
    start, batch = problem(np.float32)
    method = make(
        networks.Small(K), reg=REG, pool_size=2, pool_steps=2, inner_steps=5, hessian_steps=5, learning_rate=0.03
    )
    state = jax.jit(method.init)(jax.random.key(0), start)
    step, losses = jax.jit(method.step), []
    for i in range(40):
        state, info = step(jax.random.key(i), state, batch)
        losses.append(float(info.loss))
    assert state.memory.inner.step_size > 1e-5 and state.memory.hessian.step_size > 5e-5
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
