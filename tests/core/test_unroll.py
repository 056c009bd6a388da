"""Unrolled SGD: against a loop in NumPy, finite differences, and itself with less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kipjax import checks
from kipjax.core import unroll
from tests.reference import networks

K, B, S = 3, 4, 3


@functools.cache
def data():
    rng = np.random.default_rng(0)
    curriculum = {"x": rng.normal(size=(S, B, 5)), "y": rng.dirichlet(np.ones(K), size=(S, B))}
    theta = {"w": rng.normal(size=(5, K)), "b": rng.normal(size=K)}
    return theta, curriculum, rng.normal(size=(7, 5)), np.eye(K)[np.arange(7) % K]


def cross_entropy(theta, item):
    logits = jnp.tanh(item["x"] @ theta["w"]) @ jnp.eye(K) * 2 + theta["b"]
    return -jnp.mean(jnp.sum(item["y"] * jax.nn.log_softmax(logits), axis=1))


def at_the_end(theta, curriculum, step_size, momentum=0.0, **options):
    _, _, x, y = data()
    out = unroll.sgd(cross_entropy, theta, curriculum, step_size=step_size, momentum=momentum, **options)
    return cross_entropy(out.params, {"x": x, "y": y})


def differences(f, x, count=6, eps=1e-6):
    """``(indices, central differences)`` of ``f`` at some entries of ``x``."""
    x = np.asarray(x, np.float64)
    picked = np.random.default_rng(1).permutation(x.size)[:count]

    def at(i, step):
        moved = x.copy().ravel()
        moved[i] += step
        return float(f(jnp.asarray(moved.reshape(x.shape))))

    return picked, np.array([(at(i, eps) - at(i, -eps)) / (2 * eps) for i in picked])


def test_the_recursion_is_that_of_numpy(x64):
    """Linear regression, whose gradient is a line of NumPy; momentum and decay, two epochs of three items."""
    rng = np.random.default_rng(3)
    xs, ts, theta = rng.normal(size=(S, B, 5)), rng.normal(size=(S, B)), rng.normal(size=5)
    rates, momenta, decay = rng.uniform(0.01, 0.1, 6), rng.uniform(0, 1, 6), 0.03
    out = unroll.sgd(
        lambda w, item: 0.5 * jnp.mean((item[0] @ w - item[1]) ** 2),
        theta, (xs, ts), step_size=rates, momentum=momenta, weight_decay=decay, steps=6,
    )  # fmt: skip
    buffer, values = np.zeros(5), []
    for t in range(6):
        residual = xs[t % S] @ theta - ts[t % S]
        values.append(0.5 * np.mean(residual**2))
        buffer = momenta[t] * buffer + xs[t % S].T @ residual / B + decay * theta
        theta = theta - rates[t] * buffer
    np.testing.assert_allclose(out.params, theta, rtol=1e-12)
    np.testing.assert_allclose(out.values, values, rtol=1e-12)
    assert out.state is None and out.observed is None


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_gradients_are_finite_differences(momentum, x64):
    theta, curriculum, *_ = data()
    rates = np.linspace(0.1, 0.4, 6)
    loss = jax.jit(lambda th, x, r: at_the_end(th, {**curriculum, "x": x}, r, momentum, steps=6))
    gradients = jax.grad(loss, argnums=(0, 1, 2))(theta, curriculum["x"], rates)
    picked, found = differences(lambda x: loss(theta, x, rates), curriculum["x"])
    np.testing.assert_allclose(gradients[1].ravel()[picked], found, rtol=1e-5, atol=1e-9)
    picked, found = differences(lambda r: loss(theta, curriculum["x"], r), rates)
    np.testing.assert_allclose(gradients[2][picked], found, rtol=1e-5, atol=1e-9)
    picked, found = differences(lambda w: loss({**theta, "w": w}, curriculum["x"], rates), theta["w"])
    np.testing.assert_allclose(gradients[0]["w"].ravel()[picked], found, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("segment", [1, 2, 4, 7, 9, "sqrt"])
def test_rematerialised_is_the_same(segment, x64):
    theta, curriculum, *_ = data()
    rates = np.linspace(0.1, 0.4, 7)

    def gradient(segment):
        loss = functools.partial(at_the_end, theta, momentum=0.5, steps=7, segment=segment)
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(curriculum, rates)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), gradient(segment), gradient(0))


def test_segments_take_memory_of_the_square_root():
    """The compiler's plan for 16 times as many steps: 16 times the memory without segments, about 4 times with."""
    theta = jnp.zeros((30, 30))
    x = jnp.ones((64, 30))

    def plan(steps, segment):
        def loss(scale):
            items = scale * jnp.ones((1, 1))
            out = unroll.sgd(
                lambda w, s: jnp.mean(jnp.tanh(x @ w * s[0] - 1.0) ** 2), theta, items,
                step_size=0.1, steps=steps, segment=segment,
            )  # fmt: skip
            return jnp.sum(out.params**2)

        return jax.jit(jax.grad(loss)).lower(1.0).compile().memory_analysis().temp_size_in_bytes

    few, many = (plan(steps, 0) for steps in (16, 256))
    assert many / few > 10
    few, many = (plan(steps, "sqrt") for steps in (16, 256))
    assert many / few < 6
    assert many < 0.2 * plan(256, 0)


@pytest.mark.slow
def test_truncated_gradients_see_the_last_steps_alone(x64):
    theta, curriculum, *_ = data()
    rates = np.full(S, 0.3)
    whole, last, none = (
        jax.jit(jax.grad(functools.partial(at_the_end, theta, truncate=k), argnums=(0, 1)))(curriculum, rates)
        for k in (None, 1, 0)
    )
    assert not np.any(last[0]["x"][:-1]) and not np.any(last[1][:-1])
    # The last step's share does not depend on the way to it.
    np.testing.assert_allclose(last[0]["x"][-1], whole[0]["x"][-1], rtol=1e-12)
    np.testing.assert_allclose(last[1][-1], whole[1][-1], rtol=1e-12)
    assert np.any(whole[0]["x"][0]) and not any(np.any(leaf) for leaf in jax.tree.leaves(none))
    full, cut = (
        unroll.sgd(cross_entropy, theta, curriculum, step_size=rates, momentum=0.5, truncate=k) for k in (None, 2)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), full, cut)


def test_gradient_of_each_step_size_is_the_adjoints(x64):
    """``dL/d eta_t = -<dL/d theta_{t+1}, m_{t+1}>`` (GTN, DD)."""
    theta, curriculum, x, y = data()
    rates, mu, t = np.full(4, 0.2), 0.6, 1
    slope = jax.jit(jax.grad(functools.partial(at_the_end, theta, curriculum, momentum=mu, steps=4)))(rates)[t]
    head = unroll.sgd(cross_entropy, theta, curriculum, step_size=rates[: t + 1], momentum=mu, steps=t + 1)
    before = unroll.sgd(cross_entropy, theta, curriculum, step_size=rates[:t], momentum=mu, steps=t)
    buffer = jax.tree.map(lambda a, b: (a - b) / rates[t], before.params, head.params)

    def rest(theta):  # the buffer goes on from m_{t+1}, as a constant
        m = buffer
        for s in range(t + 1, 4):
            item = jax.tree.map(lambda a, s=s: a[s % S], curriculum)
            m = jax.tree.map(lambda m, g: mu * m + g, m, jax.grad(cross_entropy)(theta, item))
            theta = jax.tree.map(lambda p, d, s=s: p - rates[s] * d, theta, m)
        return cross_entropy(theta, {"x": x, "y": y})

    adjoint = jax.jit(jax.grad(rest))(head.params)
    expected = -sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(adjoint), jax.tree.leaves(buffer)))
    np.testing.assert_allclose(slope, expected, rtol=1e-9)


def test_forward_mode_equals_reverse_mode(x64):
    theta, curriculum, *_ = data()
    hyper = {"rate": jnp.asarray(0.2), "momentum": jnp.asarray(0.5), "decay": jnp.asarray(0.01)}

    def loss(h):
        return at_the_end(theta, curriculum, h["rate"], h["momentum"], weight_decay=h["decay"], steps=5)

    forward, reverse = jax.jit(lambda h: (unroll.forward_gradient(loss, h), jax.value_and_grad(loss)(h)))(hyper)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), forward, reverse)


def test_an_optimizer_in_place_of_momentum(x64):
    theta, curriculum, *_ = data()
    run = functools.partial(unroll.sgd, cross_entropy, theta, curriculum, step_size=0.1, steps=5)
    by_trace = run(optimizer=optax.trace(0.6))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), by_trace, run(momentum=0.6))

    optimizer = optax.adam(0.1)
    expected, memory = jax.tree.map(jnp.asarray, theta), optimizer.init(theta)
    for t in range(5):
        gradient = jax.grad(cross_entropy)(expected, jax.tree.map(lambda a, t=t: a[t % S], curriculum))
        updates, memory = optimizer.update(gradient, memory)
        expected = optax.apply_updates(expected, updates)
    made = run(optimizer=optax.scale_by_adam())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), made.params, expected)


def test_order_state_and_what_is_observed(x64):
    theta, curriculum, *_ = data()
    order = jnp.asarray([2, 0, 2, 1])

    def counted(theta, state, item):
        return cross_entropy(theta, item) * state, state + 1.0

    out = unroll.sgd(
        counted, theta, curriculum, step_size=0.1, order=order, state=jnp.asarray(1.0),
        observe=lambda theta, state, item: (state, theta["b"]),
    )  # fmt: skip
    assert float(out.state) == 5.0
    np.testing.assert_allclose(out.observed[0], [2, 3, 4, 5])
    np.testing.assert_allclose(out.observed[1][-1], out.params["b"])
    again = theta
    for t, s in enumerate(np.asarray(order)):
        gradient = jax.grad(cross_entropy)(again, jax.tree.map(lambda a, s=s: a[s], curriculum))
        again = jax.tree.map(lambda p, g, t=t: p - 0.1 * (t + 1) * g, again, gradient)
    np.testing.assert_allclose(out.params["w"], again["w"], rtol=1e-12)


def test_nothing_is_kept_of_no_steps():
    theta, curriculum, *_ = data()
    out = unroll.sgd(cross_entropy, theta, curriculum, step_size=0.1, steps=0)
    np.testing.assert_array_equal(out.params["w"], jnp.asarray(theta["w"]))
    assert out.values.shape == (0,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step_size": jnp.ones(2)}, r"step_size has shape \(2,\); expected \[\] or \[steps\] = \(3,\)"),
        ({"momentum": jnp.ones((3, 1))}, "momentum has shape"),
        ({"momentum": 0.5, "optimizer": optax.scale_by_adam()}, "not both"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"weight_decay": [0.1, 0.2]}, r"weight_decay has shape \(2,\)"),
        ({"step_size": jnp.nan}, "step_size has NaN"),
        ({"segment": "half"}, "segment is 'half'"),
        ({"segment": -1}, "segment is -1"),
        ({"truncate": -1}, "truncate is -1"),
        ({"order": jnp.asarray([0, 3])}, "largest entry is 3"),
        ({"order": jnp.asarray([0.0])}, r"expected \[steps\] integers"),
        ({"order": jnp.asarray([0]), "steps": 2}, "drop one"),
        ({"steps": 1.5}, "steps is 1.5"),
    ],
)
def test_bad_input(options, words):
    theta, curriculum, *_ = data()
    with pytest.raises(checks.InputError, match=words):
        unroll.sgd(cross_entropy, theta, curriculum, **{"step_size": 0.1, **options})


def test_hyperparameters_that_have_no_forward_gradient():
    with pytest.raises(checks.InputError, match="hyper is of type int32; give floating-point numbers"):
        unroll.forward_gradient(lambda h: h * 1.0, 3)
    with pytest.raises(checks.InputError, match=r"the objective has shape \(2,\); expected one number"):
        unroll.forward_gradient(lambda h: jnp.ones(2) * h, 3.0)


def test_parameters_that_are_no_floating_point_numbers():
    with pytest.raises(checks.InputError, match="params are of type int32"):
        unroll.sgd(lambda theta, item: 0.0, jnp.arange(3), jnp.ones(2), step_size=0.1)


def test_a_curriculum_of_leaves_that_do_not_fit():
    theta, curriculum, *_ = data()
    with pytest.raises(checks.InputError, match="same first axis"):
        unroll.sgd(cross_entropy, theta, {**curriculum, "y": curriculum["y"][:2]}, step_size=0.1)
    with pytest.raises(checks.InputError, match="hyper has no entries"):
        unroll.forward_gradient(lambda h: 0.0, {})


def test_a_network_of_flax(x64):
    """The small network of the contract, whose gradient through two steps is that of two steps written out."""
    model = networks.Small(K)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, B, 4)))
    y = jnp.eye(K)[jnp.arange(B) % K]
    variables = model.init(jax.random.key(0), x[0])

    def loss(params, item):
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(model.apply({"params": params}, item)), axis=1))

    def written(x):
        theta = variables["params"]
        for item in x:
            theta = jax.tree.map(lambda p, g: p - 0.3 * g, theta, jax.grad(loss)(theta, item))
        return loss(theta, x[0])

    def scanned(x):
        return loss(unroll.sgd(loss, variables["params"], x, step_size=0.3).params, x[0])

    a, b = jax.jit(lambda x: (jax.grad(scanned)(x), jax.grad(written)(x)))(x)
    np.testing.assert_allclose(a, b, rtol=1e-9)
