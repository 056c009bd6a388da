"""Coresets, chosen by a kernel or by a network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kipjax import checks, kernels
from kipjax.core import krr, losses, selection
from kipjax.methods import coreset, network_coreset
from kipjax.types import Batch, Distilled
from tests.reference import exact as reference
from tests.reference import networks

K, N, IPC = 3, 45, 2
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(K), [20, 15, 10]))
X = np.random.default_rng(1).normal(size=(N, 3, 3, 1)) + LABELS[:, None, None, None]
BATCH = Batch(jnp.asarray(X, jnp.float32), jnp.asarray(np.eye(K)[LABELS] - 1 / K, jnp.float32))
LINEAR = kernels.get("linear")


def start(ipc=IPC):
    return Distilled(jnp.zeros((K * ipc, 3, 3, 1)), jnp.zeros((K * ipc, K)))


def run(method, key=0, ipc=IPC, batch=BATCH):
    return method.step(jax.random.key(key), method.init(jax.random.key(0), start(ipc)), batch)


@pytest.mark.parametrize("select", ["random", "herding", "k_center", "k_means", "leverage", "optimized"])
def test_rows_are_distinct_real_images_of_their_class_with_their_labels(select):
    state, info = run(coreset.make(LINEAR, select=select, draws=3), ipc=4)
    rows = np.asarray(state.rows)
    np.testing.assert_array_equal(LABELS[rows], np.repeat(np.arange(K), 4))
    assert len(np.unique(rows)) == 12
    np.testing.assert_array_equal(state.x, BATCH.x[rows])
    np.testing.assert_array_equal(state.y, BATCH.y[rows])
    nearest = [min(np.sum((X[i] - X[j]) ** 2) for j in rows if LABELS[j] == LABELS[i]) for i in range(N)]
    assert float(info.coverage) == pytest.approx(np.mean(nearest) / 9, rel=1e-5)


@pytest.mark.parametrize("rule", ["herding", "k_center"])
@pytest.mark.parametrize("kernel_fn", [LINEAR, lambda a, b: LINEAR(a, b)], ids=["features", "kernel"])
def test_herding_and_centres_are_their_definitions(rule, kernel_fn):
    """By features and, in blocks, by the kernel alone."""
    state, _ = run(coreset.make(kernel_fn, select=rule, block_size=7), ipc=5)
    for c, found in enumerate(np.asarray(state.rows).reshape(K, 5)):
        some = np.flatnonzero(c == LABELS)
        np.testing.assert_array_equal(found, some[getattr(reference, rule)(X[some].reshape(len(some), -1), 5)])


def test_herding_covers_and_follows_the_mean_better_than_chance():
    def gap(state):
        rows = np.asarray(state.rows).reshape(K, 5)
        return np.mean([np.linalg.norm(X[rows[c]].mean(0) - X[c == LABELS].mean(0)) for c in range(K)])

    herding, _ = run(coreset.make(LINEAR), ipc=5)
    chance = [gap(run(coreset.make(LINEAR, select="random"), key=i, ipc=5)[0]) for i in range(20)]
    assert gap(herding) < min(chance)
    spread = [float(run(coreset.make(LINEAR, select=s), ipc=5)[1].coverage) for s in ("centroids", "k_means", "random")]
    assert spread[0] < spread[2] and spread[1] < spread[2]


def test_class_means_and_one_centroid_are_the_means():
    means = [X[c == LABELS].mean(0) for c in range(K)]
    for select in ("class_means", "centroids"):
        state, _ = run(coreset.make(LINEAR, select=select), ipc=1)
        np.testing.assert_allclose(state.x, means, atol=1e-5)
        np.testing.assert_allclose(state.y, np.eye(K) - 1 / K, atol=1e-6)
        np.testing.assert_array_equal(state.rows, -1)


def test_centroids_are_a_fixed_point_of_lloyd():
    state, _ = run(coreset.make(LINEAR, select="centroids"), ipc=3)
    for c, centres in enumerate(np.asarray(state.x).reshape(K, 3, -1)):
        some = X[c == LABELS].reshape(-1, 9)
        nearest = ((some[:, None] - centres) ** 2).sum(2).argmin(1)
        np.testing.assert_allclose([some[nearest == i].mean(0) for i in range(3)], centres, atol=1e-4)


@pytest.mark.slow
def test_optimized_is_the_best_of_its_draws():
    kernel_fn, (x, y) = kernels.get("rbf"), BATCH
    state, _ = run(coreset.make(kernel_fn, select="optimized", draws=8, score_size=N), key=3)

    def score(rows):
        k_ss, k_ts = kernel_fn(x[rows], x[rows]), kernel_fn(x, x[rows])
        return float(losses.accuracy(krr.predict(k_ss, k_ts, y[rows], reg=1e-6), y))

    draw_key = jax.random.split(jax.random.key(3))[1]
    own = selection.members(y)
    draws = [selection.best(jax.random.uniform(k, (N,)), own, IPC).reshape(-1) for k in jax.random.split(draw_key, 8)]
    scores = [score(rows) for rows in draws]
    assert score(state.rows) == max(scores) > min(scores)


def test_leverage_scores_by_features_are_those_of_the_kernel(x64):
    x = jnp.asarray(X)
    for some in (x, x[:6]):  # more images than features, and fewer
        by_features = coreset._leverage(LINEAR, some, 1e-2)
        np.testing.assert_allclose(by_features, coreset._leverage(lambda a, b: LINEAR(a, b), some, 1e-2), rtol=1e-6)


def test_the_network_is_trained_on_every_image_once_an_epoch():
    model = networks.Small(K)
    variables, history = jax.jit(
        lambda key: network_coreset.train(key, model, optax.sgd(0.1, 0.9), BATCH, epochs=30, batch_size=10)
    )(jax.random.key(0))
    outputs = model.apply(variables, BATCH.x)
    assert float(losses.accuracy(outputs, BATCH.y)) > 0.8
    assert bool(history.any.sum() > 0.8 * N) and int(history.events.max()) <= 15


@pytest.mark.parametrize("select", network_coreset.SELECTIONS)
def test_a_network_chooses_real_images_of_each_class(select):
    method = network_coreset.make(networks.Small(K), select=select, epochs=3, batch_size=20, block_size=16)
    state, _ = jax.jit(method.step)(jax.random.key(0), method.init(jax.random.key(0), start()), BATCH)
    rows = np.asarray(state.rows)
    np.testing.assert_array_equal(LABELS[rows], np.repeat(np.arange(K), IPC))
    assert len(np.unique(rows)) == K * IPC
    np.testing.assert_array_equal(state.x, BATCH.x[rows])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: coreset.make(LINEAR, select="best"), "select is 'best'; choose one of random, herding"),
        (lambda: coreset.make("linear"), "expected a kernel"),
        (lambda: coreset.make(kernels.get("rbf"), select="k_means"), "k_means needs features"),
        (lambda: coreset.make(LINEAR, draws=0), "draws is 0"),
        (lambda: coreset.make(LINEAR, leverage_reg=0.0), "leverage_reg is 0.0"),
        (lambda: coreset.make(LINEAR, solve_dtype="foo"), "solve_dtype is 'foo'; choose"),
        (lambda: run(coreset.make(LINEAR, select="class_means")), "set ipc to 1"),
        (lambda: run(coreset.make(LINEAR), ipc=11), "class 2 has 10 images in the batch and 11 are to be chosen"),
        (lambda: run(coreset.make(LINEAR), ipc=16), "48 images cannot be chosen from a batch of 45"),
        (
            lambda: coreset.make(LINEAR).init(jax.random.key(0), Distilled(jnp.ones((4, 2)), jnp.ones((4, 3)))),
            "not divisible by number of classes",
        ),
        (lambda: network_coreset.make(networks.Small(K), select="random"), "select is 'random'"),
        (lambda: network_coreset.make(networks.Small(K), epochs=0), "epochs is 0"),
        (lambda: network_coreset.make(LINEAR), "expected a flax module"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(checks.InputError, match=words):
        make()


@pytest.mark.parametrize("select", coreset.SELECTIONS)
def test_under_jit_a_class_that_is_too_small_takes_nothing_from_others(select):
    """What it lacks is NaN, and so is what a run reports; the other classes are as they would be."""
    ipc = 1 if select == "class_means" else 3
    few = np.flatnonzero((LABELS != 1) | (np.cumsum(LABELS == 1) < ipc))
    method = coreset.make(LINEAR, select=select, draws=2, score_size=5)
    state = method.init(jax.random.key(0), start(ipc))
    batch = Batch(BATCH.x[few], BATCH.y[few])
    made, info = jax.jit(method.step)(jax.random.key(0), state, batch)
    x, rows = np.asarray(made.x).reshape(K, ipc, -1), np.asarray(made.rows).reshape(K, ipc)
    assert np.isnan(x[1, -1]).all() and np.isfinite(x[[0, 2]]).all() and not np.isfinite(info.coverage)
    for c in range(K):
        assert set(LABELS[few][rows[c][rows[c] >= 0]]) <= {c}
    assert rows[1, -1] == -1
    with pytest.raises(checks.InputError, match=f"class 1 has {ipc - 1} images in the batch and {ipc} are to be"):
        method.step(jax.random.key(0), state, batch)


@pytest.mark.parametrize("select", coreset.SELECTIONS)
def test_images_of_whole_numbers_are_taken_as_numbers(select):
    """Bytes, as a data set has them before it is preprocessed."""
    pixels = np.asarray(jnp.clip(BATCH.x * 40 + 128, 0, 255)).astype(np.uint8)
    method = coreset.make(LINEAR, select=select, draws=2, score_size=5)
    state = method.init(jax.random.key(0), start(1))
    bytes_, floats = (
        method.step(jax.random.key(0), state, BATCH._replace(x=jnp.asarray(x)))[0]
        for x in (pixels, pixels.astype(np.float32))
    )
    np.testing.assert_array_equal(bytes_.x, floats.x)


@pytest.mark.slow
def test_copies_of_an_image_do_not_make_one_row_stand_for_two_clusters():
    labels, distances = np.array([0, 0, 1, 0]), np.array([[1.0, 0, 0], [0.0, 1, 2], [5.0, 0, 1], [2.0, 3, 3]])
    assert coreset._nearest(labels, distances) == [1, 2, 0]
