"""KIP: the loss against the oracle, what is learned and what is not, corruption, theorem 1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kipjax import checks
from kipjax.kernels import basic
from kipjax.methods import kip
from kipjax.types import Batch, Distilled
from tests.reference import krr as reference


def problem(seed=0, m=5, n=24, shape=(6,), k=3, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x_s, x_t = rng.normal(size=(m, *shape)).astype(dtype), rng.normal(size=(n, *shape)).astype(dtype)
    y = np.eye(k)[rng.integers(0, k, n)] - 1 / k
    return Distilled(jnp.asarray(x_s), jnp.asarray((np.eye(k)[np.arange(m) % k] - 1 / k).astype(dtype))), Batch(
        jnp.asarray(x_t), jnp.asarray(y.astype(dtype))
    )


def run(method, start, batch, steps, seed=0):
    state = method.init(jax.random.key(seed), start)
    step = jax.jit(method.step)
    infos = []
    for i in range(steps):
        state, info = step(jax.random.key(100 + i), state, batch)
        infos.append(info)
    return state, infos


def test_one_step_is_adam_on_the_oracles_gradient(x64):
    """Adam's first step moves every entry by learning_rate against the sign of the gradient."""
    start, batch = problem()
    state, infos = run(kip.make(basic.rbf(), learning_rate=1e-3, reg=1e-3), start, batch, 1)
    x_s, y_s, x_t, y_t = (np.asarray(a) for a in (*start[:2], *batch))
    gradient = reference.rbf_kip_gradient(x_s, y_s, x_t, y_t, 1e-3)
    expected = x_s - 1e-3 * gradient / (np.abs(gradient) + 1e-8)
    np.testing.assert_allclose(state.x, expected, atol=1e-9)
    loss = reference.loss(reference.rbf(x_s, x_s), reference.rbf(x_t, x_s), y_s, y_t, 1e-3)
    np.testing.assert_allclose(infos[0].loss, loss, rtol=1e-9)
    hits = reference.predict(reference.rbf(x_s, x_s), reference.rbf(x_t, x_s), y_s, 1e-3).argmax(1) == y_t.argmax(1)
    np.testing.assert_allclose(infos[0].accuracy, hits.mean())


def test_training_lowers_the_loss_and_leaves_labels_alone():
    start, batch = problem(dtype=np.float32)
    state, infos = run(kip.make(basic.rbf(), learning_rate=0.02), start, batch, 60)
    assert infos[-1].loss < 0.8 * infos[0].loss
    np.testing.assert_array_equal(state.y, start.y)
    assert not np.allclose(state.x, start.x)


def test_the_learning_rate_decays_to_zero():
    start, batch = problem(dtype=np.float32)
    method = kip.make(basic.rbf(), learning_rate=0.1, decay_steps=5)
    at_end, _ = run(method, start, batch, 5)
    after, _ = run(method, start, batch, 6)
    np.testing.assert_array_equal(at_end.x, after.x)
    constant, _ = run(kip.make(basic.rbf(), learning_rate=0.1), start, batch, 6)
    assert not np.allclose(constant.x, after.x)


def test_labels_are_learned_on_request_and_images_left_alone():
    start, batch = problem(dtype=np.float32)
    method = kip.make(basic.rbf(), learn_images=False, learn_labels=True, learning_rate=0.02)
    state, infos = run(method, start, batch, 30)
    np.testing.assert_array_equal(state.x, start.x)
    assert infos[-1].loss < infos[0].loss
    assert not np.allclose(state.y, start.y)


@pytest.mark.parametrize("fill", kip.FILLS)
@pytest.mark.parametrize("optimizer", [None, optax.adamw(0.05, weight_decay=0.1)])
def test_corrupted_entries_never_change_a_bit(fill, optimizer):
    start, batch = problem(shape=(4, 4, 1), dtype=np.float32)
    method = kip.make(basic.rbf(), rho=0.3, fill=fill, optimizer=optimizer)
    first = method.init(jax.random.key(0), start)
    state, _ = run(method, start, batch, 20)
    frozen = np.asarray(first.frozen)
    assert frozen.reshape(5, -1).sum(axis=1).tolist() == [5] * 5, "ceil(0.3 * 16) coordinates of every image"
    assert np.asarray(state.x)[frozen].tobytes() == np.asarray(first.x)[frozen].tobytes()
    assert np.all(np.asarray(state.x)[~frozen] != np.asarray(first.x)[~frozen])
    values = np.asarray(first.x)[frozen]
    if fill == "zeros":
        assert np.all(values == 0)
    else:
        assert np.abs(values).max() <= 1 and values.std() > 0.3
    np.testing.assert_array_equal(np.asarray(first.x)[~frozen], np.asarray(start.x)[~frozen])


def test_corruption_differs_between_images_and_knows_nothing_of_the_data():
    x = jnp.zeros((40, 30))
    filled, frozen = kip.corrupt(jax.random.key(0), x, rho=0.5)
    other, same = kip.corrupt(jax.random.key(0), x + 7, rho=0.5)
    np.testing.assert_array_equal(frozen, same)
    np.testing.assert_array_equal(filled[frozen], other[frozen])
    assert len({row.tobytes() for row in np.asarray(frozen)}) == 40
    assert np.all(np.asarray(frozen).sum(axis=1) == 15)
    assert bool(kip.corrupt(jax.random.key(0), x, rho=1.0)[1].all())


def test_kernel_hyperparameters_are_learned(x64):
    start, batch = problem()
    method = kip.make(lambda p: basic.rbf(p["gamma"]), kernel_params={"gamma": 1.0}, learning_rate=1e-2, reg=1e-3)
    state, _ = run(method, start, batch, 1)
    x_s, y_s, x_t, y_t = (np.asarray(a) for a in (*start[:2], *batch))

    def loss(gamma):
        return reference.loss(reference.rbf(x_s, x_s, gamma), reference.rbf(x_t, x_s, gamma), y_s, y_t, 1e-3)

    slope = (loss(1 + 1e-6) - loss(1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(state.kernel_params["gamma"], 1.0 - 1e-2 * np.sign(slope), atol=1e-6)


def test_a_family_draws_by_the_key():
    start, batch = problem(dtype=np.float32)
    method = kip.make([basic.rbf(0.1), basic.rbf(10.0)])
    state = method.init(jax.random.key(0), start)
    step = jax.jit(method.step)
    losses = {float(step(jax.random.key(i), state, batch)[1].loss) for i in range(12)}
    single = {float(jax.jit(kip.make(basic.rbf(g)).step)(jax.random.key(0), state, batch)[1].loss) for g in (0.1, 10.0)}
    assert len(losses) == 2
    np.testing.assert_allclose(sorted(losses), sorted(single), rtol=1e-5)


def test_targets_are_augmented():
    start, batch = problem(dtype=np.float32)
    seen = kip.make(basic.rbf(), augment=lambda key, x: x * 0)
    plain = kip.make(basic.rbf())
    state = plain.init(jax.random.key(0), start)
    augmented = seen.step(jax.random.key(1), state, batch)[1].loss
    by_hand = plain.step(jax.random.key(1), state, batch._replace(x=batch.x * 0))[1].loss
    np.testing.assert_allclose(augmented, by_hand)


@pytest.mark.theory
@pytest.mark.parametrize("seed", [0, 1])
def test_theorem_1_a_linear_kernel_reaches_the_least_squares_classifier(x64, seed):
    """m >= k, generic start, small ridge: the ridge classifier of the distilled set is the least-squares one."""
    m, d, k = 8, 4, 3
    rng = np.random.default_rng(seed)
    x_t = rng.normal(size=(40, d))
    y_t = x_t @ rng.normal(size=(d, k)) + 0.3 * rng.normal(size=(40, k))
    start = Distilled(jnp.asarray(rng.normal(size=(m, d))), jnp.asarray(rng.normal(size=(m, k))))
    batch = Batch(jnp.asarray(x_t), jnp.asarray(y_t))
    reg = 1e-6
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 6000))
    method = kip.make(basic.linear(), reg=reg, reg_unit="absolute", optimizer=optimizer)

    @jax.jit
    def train(state):
        return jax.lax.scan(lambda s, i: method.step(jax.random.key(0), s, batch), state, None, length=6000)

    state, _ = train(method.init(jax.random.key(0), start))
    x, y = np.asarray(state.x), np.asarray(state.y)
    learned = x.T @ np.linalg.solve(x @ x.T + reg * np.eye(m), y)
    np.testing.assert_allclose(learned, np.linalg.pinv(x_t) @ y_t, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learn_images": False}, "nothing is learned"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"reg": -1e-6}, "reg is -1e-06; it must be at least 0"),
        ({"reg_unit": "relative"}, "choose one of trace, absolute"),
        ({"rho": 1.5}, "rho is 1.5; it must lie between 0.0 and 1.0"),
        ({"fill": "ones"}, "choose one of uniform, zeros"),
        ({"solve_dtype": "foo"}, "solve_dtype is 'foo'; choose"),
        ({"decay_steps": -1}, "decay_steps is -1"),
    ],
)
def test_bad_hyperparameters(options, words):
    with pytest.raises(checks.InputError, match=words):
        kip.make(basic.rbf(), **options)


@pytest.mark.parametrize("kernel_fn", [[], "fc1", [basic.rbf(), "fc1"]])
def test_what_is_no_kernel(kernel_fn):
    with pytest.raises(checks.InputError, match="expected a kernel such as"):
        kip.make(kernel_fn)


def test_the_starting_set_outlives_a_donated_state():
    start, batch = problem(dtype=np.float32)
    method = kip.make(basic.rbf())
    jax.jit(method.step, donate_argnums=1)(jax.random.key(0), method.init(jax.random.key(0), start), batch)
    assert np.isfinite(np.asarray(start.x)).all()


@pytest.mark.parametrize(
    ("rho", "size", "count"), [(0.07, 100, 7), (0.14, 50, 7), (0.28, 25, 7), (0.55, 100, 55), (0.3, 7, 3)]
)
def test_rho_is_rounded_up_to_whole_coordinates(rho, size, count):
    _, frozen = kip.corrupt(jax.random.key(0), jnp.zeros((2, size)), rho=rho)
    assert np.asarray(frozen).sum(axis=1).tolist() == [count] * 2


def test_unequal_class_counts():
    start, batch = problem()
    method = kip.make(basic.rbf())
    state = method.init(jax.random.key(0), start)
    with pytest.raises(checks.InputError, match="y_s has 3 columns and y_t has 4"):
        method.step(jax.random.key(0), state, batch._replace(y=jnp.zeros((24, 4))))
    with pytest.raises(checks.InputError, match="same number of rows"):
        method.init(jax.random.key(0), start._replace(y=start.y[:-1]))


@pytest.mark.slow
def test_in_blocks_loss_and_gradient_are_the_same_and_memory_is_that_of_a_block(x64):
    rng = np.random.default_rng(0)
    x_s, x_t = jnp.asarray(rng.normal(size=(4, 6))), jnp.asarray(rng.normal(size=(23, 6)))
    y_s, y_t = jnp.asarray(np.eye(3)[np.arange(4) % 3]), jnp.asarray(np.eye(3)[np.arange(23) % 3])

    few, many = (Batch(jnp.tile(x_t, (n, 1)), jnp.tile(y_t, (n, 1))) for n in (1, 400))

    def value(x_s, size, batch=None):
        return kip.outer_loss(basic.rbf(), x_s, y_s, batch or few, reg=1e-3, block_size=size)

    whole, gradient = jax.value_and_grad(lambda x: value(x, 0)[0])(x_s)
    for size in (1, 5, 22, 23, 40):
        ours, slope = jax.value_and_grad(lambda x, size=size: value(x, size)[0])(x_s)
        np.testing.assert_allclose(ours, whole, rtol=1e-12)
        np.testing.assert_allclose(slope, gradient, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(value(x_s, size)[1], value(x_s, 0)[1], rtol=1e-6)

    plans = [
        jax.jit(jax.grad(lambda x, size=size: value(x, size, many)[0])).lower(x_s).compile().memory_analysis()
        for size in (0, 100)
    ]
    assert plans[1].temp_size_in_bytes < plans[0].temp_size_in_bytes
