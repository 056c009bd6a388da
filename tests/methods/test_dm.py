"""DM: its loss against explicit means, finite differences, and the papers' invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.methods import dm
from kipjax.models import network
from kipjax.types import Batch, Distilled
from tests.reference import networks

K, B = 3, 5


def parts(dtype=np.float32, ipc=2):
    rng = np.random.default_rng(0)
    y = np.eye(K, dtype=dtype)[np.arange(K * ipc) % K] - dtype(1 / K)
    start = Distilled(rng.normal(size=(K * ipc, 4, 4, 1)).astype(dtype), y)
    targets = np.repeat(np.eye(K, dtype=dtype)[:, None] - 1 / K, B, 1)
    return jax.tree.map(jnp.asarray, (start, Batch(rng.normal(size=(K, B, 4, 4, 1)).astype(dtype), targets)))


def one_step(start, batch, model=None, **options):
    """The new images and the loss of a step that is not augmented."""
    method = dm.make(model or networks.Small(K), **{"strategy": "none", "learning_rate": 0.1, **options})
    state, info = jax.jit(method.step)(jax.random.key(1), method.init(jax.random.key(0), start), batch)
    return state.x, float(info.loss)


def classes(start):
    return np.asarray(start.y).argmax(1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("norm", [False, True])
def test_a_step_by_finite_differences_of_explicit_means(norm):
    model = networks.Small(K, norm=norm)
    start, batch = parts(np.float64)
    moved, loss = one_step(start, batch, model, block_size=2)
    variables = network.init(model, jax.random.split(jax.random.key(1))[0], start.x)

    def features(x):
        return np.asarray(network.train_features(model, variables, jnp.asarray(x)))

    def value(x):
        h_s, h_t = features(x), features(batch.x.reshape(-1, 4, 4, 1)).reshape(K, B, -1)
        means = [h_s[classes(start) == c].mean(0) - h_t[c].mean(0) for c in range(K)]
        return sum(np.sum(mean**2) for mean in means)

    np.testing.assert_allclose(loss, value(start.x), rtol=1e-10)
    direction = np.random.default_rng(3).normal(size=start.x.shape)
    slope = (value(start.x + 1e-5 * direction) - value(start.x - 1e-5 * direction)) / 2e-5
    np.testing.assert_allclose(-np.vdot(moved - start.x, direction) / 0.1, slope, rtol=1e-6)


@pytest.mark.parametrize("strategy", ["none", "color_crop_cutout_flip_scale_rotate"])
def test_real_images_that_are_the_set_leave_it_where_it_is(strategy):
    start, batch = parts()
    same = Batch(start.x[np.argsort(classes(start), kind="stable")].reshape(K, 2, 4, 4, 1), batch.y[:, :2])
    moved, loss = one_step(start, same, strategy=strategy)
    assert loss < 1e-10
    np.testing.assert_allclose(moved, start.x, atol=1e-5)


@pytest.mark.slow
def test_other_classes_order_and_repetition_do_not_matter():
    start, batch = parts()
    expected, loss = one_step(start, batch)
    moved, _ = one_step(start, batch._replace(x=batch.x.at[1].multiply(-2.0)))
    np.testing.assert_array_equal(np.any(moved != expected, axis=(1, 2, 3)), classes(start) == 1)
    backwards, again = one_step(start, batch._replace(x=batch.x[:, ::-1]))
    np.testing.assert_allclose(backwards, expected, atol=1e-6)
    _, doubled = one_step(Distilled(jnp.tile(start.x, (3, 1, 1, 1)), jnp.tile(start.y, (3, 1))), batch)
    np.testing.assert_allclose([again, doubled], loss, rtol=1e-5)
    filler = Batch(jnp.full((K, 2, 4, 4, 1), 7.0), jnp.zeros((K, 2, K)))
    longer = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), batch, filler)
    np.testing.assert_allclose(one_step(start, longer)[0], expected, atol=1e-6)
    np.testing.assert_allclose(one_step(start, batch, classes="vmap")[0], expected, atol=1e-6)


def test_momentum_and_a_new_network_at_every_step():
    start, batch = parts()
    method = dm.make(networks.Small(K), strategy="none", learning_rate=0.1, momentum=0.5)
    step = jax.jit(method.step)
    one, _ = step(jax.random.key(1), method.init(jax.random.key(0), start), batch)
    first = one.x - start.x
    at_rest = method.init(jax.random.key(0), Distilled(one.x, one.y))
    two, other = (step(jax.random.key(2), state, batch)[0].x - one.x for state in (one, at_rest))
    np.testing.assert_allclose(two, other + 0.5 * first, atol=1e-6)
    _, a = step(jax.random.key(3), at_rest, batch)
    _, b = step(jax.random.key(4), at_rest, batch)
    assert abs(float(a.loss) - float(b.loss)) > 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strategy": "blur"}, r"crop.*cutout"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; it must be above 0"),
        ({"mode": "both"}, "choose one of single, multiple"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(checks.InputError, match=words):
        dm.make(networks.Small(K), **options)


def test_one_class_whose_centred_targets_are_zero():
    start, batch = parts()
    one = Distilled(start.x[:2], jnp.zeros((2, 1)))
    real = Batch(batch.x[:1], jnp.zeros((1, B, 1)))
    moved, loss = one_step(one, real, networks.Small(1))
    assert np.isfinite(loss) and loss > 0 and np.all(np.isfinite(moved))
    ones = one_step(one._replace(y=jnp.ones((2, 1))), real._replace(y=jnp.ones((1, B, 1))), networks.Small(1))
    np.testing.assert_array_equal(moved, ones[0])


@pytest.mark.parametrize(
    ("order", "words"),
    [([1, 0, 2], "block 0 of the batch has rows of class 1; it needs those"), (None, "block 2 .* has no")],
)
def test_blocks_of_another_class_or_of_none(order, words):
    start, batch = parts()
    y = batch.y[jnp.array(order)] if order else batch.y.at[2].set(0.0)
    method = dm.make(networks.Small(K), strategy="none")
    state = method.init(jax.random.key(0), start)
    with pytest.raises(checks.InputError, match=words):
        method.step(jax.random.key(1), state, batch._replace(y=y))
