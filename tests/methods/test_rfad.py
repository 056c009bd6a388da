"""RFAD, and the kernels of finite networks that it and FRePo rest on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.core import linearize
from kipjax.kernels import features, infinite, random_features
from kipjax.methods import rfad
from kipjax.models import network
from kipjax.types import Batch, Distilled
from tests.reference import networks

K, M, B = 3, 6, 12


def problem(dtype=np.float32):
    rng = np.random.default_rng(0)
    x_s, x_t = (jnp.asarray(rng.normal(size=(n, 4, 3, 1)), dtype) for n in (M, B))
    y_s, y_t = (jnp.asarray(np.eye(K)[np.arange(n) % K] - 1 / K, dtype) for n in (M, B))
    return Distilled(x_s, y_s), Batch(x_t, y_t)


def wide(key):
    keys = jax.random.split(key, 2)
    return [(2 / 7) ** 0.5 * jax.random.normal(keys[0], (7, 128)), 0.1 * jax.random.normal(keys[1], (128,))]


def relu_features(params, x):
    return jax.nn.relu(x @ params[0] + params[1])


@pytest.mark.slow
def test_the_kernel_approaches_the_nngp_as_networks_are_added():
    x1, x2 = (jax.random.normal(jax.random.key(n), (n, 7)) for n in (4, 5))
    exact = infinite.fc(1, w_std=2**0.5, b_std=0.1, get="nngp")(x1, x2)
    errors = []
    for count in (4, 64, 1024):
        kernel_fn = random_features.draw(jax.random.key(0), wide, relu_features, count=count)
        errors.append(float(jnp.linalg.norm(kernel_fn(x1, x2) - exact) / jnp.linalg.norm(exact)))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.02
    square = kernel_fn(x2, x2)
    np.testing.assert_allclose(square, square.T, rtol=1e-6)
    assert np.linalg.eigvalsh(np.asarray(square, np.float64)).min() > 0
    assert np.diag(square).min() >= 0.01


@pytest.mark.slow
def test_the_empirical_kernels_are_their_definitions(x64):
    model = networks.Small(K)
    x1, x2 = (jax.random.normal(jax.random.key(n), (n, 5), jnp.float64) for n in (3, 4))
    params = model.init(jax.random.key(0), x1)["params"]

    def apply(params, x):
        return model.apply({"params": params}, x)

    full = linearize.ntk(*(linearize.jacobian(apply, params, x) for x in (x1, x2))).reshape(3, K, 4, K)
    kernel_fn = features.empirical_ntk(apply, params)
    np.testing.assert_allclose(kernel_fn(x1, x2), jnp.einsum("icjc->ij", full) / K, rtol=1e-9)
    np.testing.assert_allclose(kernel_fn(x1, x1), kernel_fn(x1, x1 + 0), rtol=1e-9)
    h = [model.apply({"params": params}, x, features=True)[1] for x in (x1, x2)]
    last = features.last_layer(lambda x: model.apply({"params": params}, x, features=True)[1])
    np.testing.assert_allclose(last(x1, x2), h[0] @ h[1].T, rtol=1e-9)


def test_the_loss_is_the_oracles(x64):
    start, batch = problem(np.float64)

    def kernel_fn(a, b):
        a, b = (x.reshape(len(x), -1) for x in (a, b))
        return a @ b.T + 0.01

    k_ss, k_ts = np.asarray(kernel_fn(start.x, start.x)), np.asarray(kernel_fn(batch.x, start.x))
    lam = 5e-3 * np.trace(k_ss) / M
    p = k_ts @ np.linalg.solve(k_ss + lam * np.eye(M), np.asarray(start.y))
    logits, target = np.exp(0.4) * p, np.arange(B) % K
    expected = np.mean([np.log(np.exp(row).sum()) - row[t] for row, t in zip(logits, target)])
    loss, accuracy = rfad.outer_loss(kernel_fn, start.x, start.y, 0.4, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    np.testing.assert_allclose(accuracy, np.mean(p.argmax(1) == target), rtol=1e-6)
    mse, _ = rfad.outer_loss(kernel_fn, start.x, start.y, 0.4, batch, loss="mse")
    np.testing.assert_allclose(mse, 0.5 * np.mean((p - np.asarray(batch.y)) ** 2), rtol=1e-9)
    up, down = (rfad.outer_loss(kernel_fn, start.x, start.y, 0.4 + s, batch)[0] for s in (1e-5, -1e-5))
    slope = jax.grad(lambda k: rfad.outer_loss(kernel_fn, start.x, start.y, k, batch)[0])(0.4)
    np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-6)


def run(steps, **options):
    start, batch = problem()
    method = rfad.make(networks.Small(K), **{"networks": 4, **options})
    state = jax.jit(method.init)(jax.random.key(0), start)
    step, infos = jax.jit(method.step), []
    for i in range(steps):
        state, info = step(jax.random.key(i), state, batch)
        infos.append(info)
    return method, start, state, infos


def test_the_map_starts_as_the_identity_and_is_part_of_the_result():
    method, start, state, _ = run(0)
    np.testing.assert_array_equal(method.distilled(state).x, start.x)
    method, start, state, infos = run(60, learning_rate=0.03, transform_rate=1e-3, reg=0.1)
    moved = state.learned.transform - jnp.eye(12)
    assert 0 < jnp.abs(moved).max() < 0.1
    expected = (state.learned.x.reshape(M, -1) @ state.learned.transform).reshape(start.x.shape)
    np.testing.assert_allclose(method.distilled(state).x, expected, rtol=1e-6)
    assert np.mean([i.loss for i in infos[-10:]]) < np.mean([i.loss for i in infos[:10]])


def test_in_blocks_the_kernel_and_its_gradient_are_the_same(x64):
    x = jax.random.normal(jax.random.key(1), (7, 7), jnp.float64)
    whole, blocks = (
        random_features.draw(jax.random.key(0), wide, relu_features, count=3, block_size=size) for size in (0, 3)
    )
    np.testing.assert_allclose(blocks(x, x), whole(x, x), rtol=1e-12)
    slopes = [jax.grad(lambda a, k=k: (k(a, x) ** 2).sum())(x) for k in (whole, blocks)]
    np.testing.assert_allclose(*slopes, rtol=1e-9)


def test_networks_are_fresh_at_every_step():
    _, _, _, infos = run(2, learning_rate=1e-12, transform_rate=1e-12, temperature_rate=1e-12)
    assert abs(float(infos[0].loss - infos[1].loss)) > 1e-4


@pytest.mark.slow
def test_the_result_is_that_of_the_best_validation_and_learning_ends_there():
    """A rate so large that it gets worse: looks at steps 2, 4, 6; four steps after the best one all stands still."""
    start, validation = problem()
    options = {"validation": validation, "validate_every": 2, "validation_networks": 3, "patience": 4}
    method = rfad.make(networks.Small(K), networks=4, learning_rate=3.0, transform_rate=1.0, **options)
    state, step = jax.jit(method.init)(jax.random.key(0), start), jax.jit(method.step)
    np.testing.assert_array_equal(method.distilled(state).x, start.x)
    history, stopped = [state.learned], []
    for i in range(12):
        state, info = step(jax.random.key(i), state, validation)
        history.append(state.learned)
        stopped.append(float(info.stopped))

    model = networks.Small(K)
    fixed = random_features.draw(
        jax.random.wrap_key_data(state.best.key, impl="threefry2x32"),
        lambda k: network.init(model, k, start.x),
        lambda v, x: network.forward(model, v, x)[1],
        count=3,
    )
    looks = {at: rfad.outer_loss(fixed, made_from(h), h.y, h.log_temp, validation)[0] for at, h in enumerate(history)}
    first_stop = stopped.index(1.0)
    best = min((at for at in looks if at and at % 2 == 0 and at <= first_stop), key=looks.get)
    assert first_stop == best + 4 and all(stopped[first_stop:])
    assert int(state.best.at) == best and int(state.count) == first_stop
    np.testing.assert_allclose(state.best.loss, looks[best], rtol=1e-5)
    np.testing.assert_allclose(method.distilled(state).x, made_from(history[best]), rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, history[first_stop], history[-1])


def made_from(learned):
    return (learned.x.reshape(M, -1) @ learned.transform).reshape(learned.x.shape)


def test_what_is_not_learned_stays():
    _, start, state, _ = run(2, learn_images=False, learn_transform=False, learn_labels=True, loss="mse")
    np.testing.assert_array_equal(state.learned.x, start.x)
    assert state.learned.transform is None and state.learned.log_temp == 0
    assert not np.array_equal(state.learned.y, start.y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": 0}, "networks is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"patience": 30}, "patience is 30; it must be at least 40"),
        ({"temperature_rate": -1.0}, "temperature_rate is -1"),
        ({"block_size": -1}, "block_size is -1"),
        ({"solve_dtype": "float16"}, "solve_dtype is 'float16'; choose"),
        ({"loss": "hinge"}, "loss is 'hinge'; choose one of platt, mse"),
        ({"learn_images": False, "learn_transform": False}, "nothing is learned"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(InputError, match=message):
        rfad.make(networks.Small(K), **options)


def test_frozen_entries_never_change_a_bit_and_the_others_do():
    start, batch = problem()
    method = rfad.make(networks.Small(K), networks=2, learning_rate=0.1, transform_rate=0.1, rho=0.4, solve_dtype=None)
    state = first = method.init(jax.random.key(0), start)
    mask = np.asarray(first.frozen.mask)
    assert mask.shape == start.x.shape and 0.15 < mask.mean() < 0.65
    for i in range(3):
        state, _ = jax.jit(method.step)(jax.random.key(i), state, batch)
    x = np.asarray(method.distilled(state).x)
    np.testing.assert_array_equal(x[mask], np.asarray(start.x)[mask])
    assert np.all(x[~mask] != np.asarray(start.x)[~mask])
    assert rfad.make(networks.Small(K)).init(jax.random.key(0), start).frozen is None
    with pytest.raises(InputError, match="rho"):
        rfad.make(networks.Small(K), rho=1.5)
