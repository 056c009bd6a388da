"""FRePo: the loss against NumPy, invariance to the scale of features, margins, the pool's ages, mirror images."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kipjax.checks import InputError
from kipjax.core import labels
from kipjax.methods import frepo
from kipjax.models import network
from kipjax.types import Batch, Distilled
from tests.reference import networks

K, M, B = 3, 6, 12


def problem(dtype=np.float64):
    rng = np.random.default_rng(0)
    start = Distilled(*(jnp.asarray(rng.normal(size=s), dtype) for s in ((M, 4, 3, 1), (M, K))))
    y = np.eye(K)[np.arange(B) % K] - 1 / K
    return start, Batch(jnp.asarray(rng.normal(size=(B, 4, 3, 1)), dtype), jnp.asarray(y, dtype))


def features(n, p, seed):
    return np.random.default_rng(seed).normal(size=(n, p))


def test_the_loss_is_that_of_the_paper_and_ignores_the_scale_of_features(x64):
    start, batch = problem()
    h_s, h_t = features(M, 5, 1), features(B, 5, 2)
    k_ss, k_ts = h_s @ h_s.T, h_t @ h_s.T
    lam = 1e-2 * np.trace(k_ss) / M
    predictions = k_ts @ np.linalg.solve(k_ss + lam * np.eye(M), np.asarray(start.y))
    expected = np.mean([0.5 * np.sum((p - t) ** 2) for p, t in zip(predictions, np.asarray(batch.y))])
    loss, accuracy = frepo.outer_loss(h_s, h_t, start.y, batch, reg=1e-2)
    np.testing.assert_allclose(loss, expected, rtol=1e-10)
    np.testing.assert_allclose(accuracy, np.mean(predictions.argmax(1) == np.asarray(batch.y).argmax(1)), rtol=1e-6)
    scaled, _ = frepo.outer_loss(7 * h_s, 7 * h_t, start.y, batch, reg=1e-2)
    np.testing.assert_allclose(scaled, loss, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("flip", [False, True])
def test_the_first_step_is_lamb_on_the_gradient_of_loss_minus_margin(flip, x64):
    start, batch = problem()
    model = networks.Small(K)
    method = frepo.make(model, reg=1e-3, pool_size=2, flip=flip, learning_rate=0.01)
    state = method.init(jax.random.key(0), start)
    new, info = jax.jit(method.step)(jax.random.key(1), state, batch)
    index = int(np.argmax([not np.array_equal(*pair) for pair in zip(state.pool.ages, new.pool.ages)]))
    variables = jax.tree.map(lambda leaf: leaf[index], state.pool.members[0])

    def objective(x, y):
        x, doubled = (jnp.concatenate([x, x[:, :, ::-1]]), jnp.concatenate([y, y])) if flip else (x, y)
        h_s, h_t = (model.apply(variables, a, features=True)[1] for a in (x, batch.x))
        return frepo.outer_loss(h_s, h_t, doubled, batch, reg=1e-3)[0] - labels.margin(y, 1 / K)

    np.testing.assert_allclose(info.loss, objective(start.x, start.y), rtol=1e-9)
    gradient = jax.grad(objective, (0, 1))(start.x, start.y)
    lamb = optax.lamb(0.01)
    updates, _ = lamb.update(gradient, lamb.init(tuple(start[:2])), tuple(start[:2]))
    made = method.distilled(new)
    np.testing.assert_allclose(made.x, start.x + updates[0], rtol=1e-7)
    np.testing.assert_allclose(made.y, start.y + updates[1], rtol=1e-7)
    sides = [objective(start.x.at[2, 1, 0, 0].add(s), start.y) for s in (1e-5, -1e-5)]
    np.testing.assert_allclose(gradient[0][2, 1, 0, 0], (sides[0] - sides[1]) / 2e-5, rtol=1e-5, atol=1e-9)


def test_symmetric_images_predict_as_without_mirror_images(x64):
    """Every point twice with the trace ridge: n doubles with the trace, and a doubled support halves the dual."""
    start, batch = problem()
    model = networks.Small(K)
    variables = network.init(model, jax.random.key(0), start.x)
    x = start.x + start.x[:, :, ::-1]
    h_s, h_t = (network.forward(model, variables, a)[1] for a in (x, batch.x))
    twice = frepo.outer_loss(jnp.concatenate([h_s, h_s]), h_t, jnp.concatenate([start.y, start.y]), batch, reg=2e-3)
    once = frepo.outer_loss(h_s, h_t, start.y, batch, reg=1e-3)
    np.testing.assert_allclose(twice[0], once[0], rtol=1e-9)


def test_ages_start_spread_out_and_an_old_network_is_replaced_instead_of_trained():
    start, batch = problem(np.float32)
    method = frepo.make(networks.Small(K), pool_size=3, pool_max_age=6)
    state = jax.jit(method.init)(jax.random.key(0), start)
    assert state.pool.ages.tolist() == [0, 2, 4]
    step, ages = jax.jit(method.step), [state.pool.ages]
    for i in range(30):
        state, _ = step(jax.random.key(i), state, batch)
        ages.append(state.pool.ages)
    change = np.diff(np.array(ages), axis=0)
    assert np.all((change != 0).sum(1) == 1)
    assert set(change[change > 0]) == {1}
    assert set(np.array(ages[:-1])[change < 0]) == {7}
    assert set(np.array(ages[1:])[change < 0]) == {0}


@pytest.mark.slow
def test_mirror_images_are_for_the_loss_and_not_for_the_pool():
    """One Adam step moves a network by its rate along the sign of the gradient on the set itself, unmirrored."""
    start, batch = problem(np.float32)
    model = networks.Small(K)
    method = frepo.make(model, pool_size=1, flip=True, learning_rate=1e-12)
    state = jax.jit(method.init)(jax.random.key(0), start)
    new, _ = jax.jit(method.step)(jax.random.key(1), state, batch)
    (before, _), (after, _) = (jax.tree.map(lambda leaf: leaf[0], s.pool.members) for s in (state, new))

    def loss(params, x, y):
        outputs = model.apply({**before, "params": params}, x)
        return 0.5 * jnp.sum((outputs - y) ** 2) / len(x)

    gradient = jax.grad(loss)(before["params"], new.learned.x, new.learned.y)
    moved = jax.tree.map(jnp.subtract, after["params"], before["params"])
    for g, m in zip(jax.tree.leaves(gradient), jax.tree.leaves(moved)):
        np.testing.assert_allclose(m, np.where(np.abs(g) > 1e-6, -3e-4 * np.sign(g), m), rtol=1e-2)
    mirrored = jax.grad(loss)(before["params"], new.learned.x[:, :, ::-1], new.learned.y)
    signs = [np.mean(np.sign(a) != np.sign(b)) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(mirrored))]
    assert max(signs) > 0.05  # the two would differ


def test_the_rate_falls_to_a_tenth():
    start, batch = problem(np.float32)
    method = frepo.make(networks.Small(K), pool_size=1, learning_rate=0.1, decay_steps=5, learn_labels=False)
    state = jax.jit(method.init)(jax.random.key(0), start)
    step, moves = jax.jit(method.step), []
    for i in range(8):
        new, _ = step(jax.random.key(i), state, batch)
        moves.append(float(jnp.linalg.norm(new.learned.x - state.learned.x) / jnp.linalg.norm(state.learned.x)))
        state = new
    np.testing.assert_allclose(moves[0], 0.1, rtol=1e-3)  # LAMB moves a tensor by its rate times its norm
    np.testing.assert_allclose(moves[5:], 0.01, rtol=1e-3)
    np.testing.assert_array_equal(state.learned.y, start.y)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="nothing is learned"):
        frepo.make(networks.Small(K), learn_images=False, learn_labels=False)
    with pytest.raises(InputError, match="solve_dtype is 'float16'"):
        frepo.make(networks.Small(K), solve_dtype="float16")
    with pytest.raises(InputError, match="flip needs images"):
        method = frepo.make(networks.Small(2), pool_size=1, flip=True)
        flat = Distilled(jnp.ones((2, 5)), jnp.eye(2))
        method.step(jax.random.key(0), method.init(jax.random.key(0), flat), Batch(jnp.ones((2, 5)), jnp.eye(2)))
