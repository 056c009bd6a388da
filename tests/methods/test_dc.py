"""DC and DSA: a step against NumPy's distance and finite differences, the loop, and what must not matter."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks, models
from kipjax.core import losses
from kipjax.methods import _sgd, dc, dsa
from kipjax.types import Batch, Distilled
from tests.reference import matching as reference
from tests.reference import networks

K, B = 3, 5


def parts(ipc=2, dtype=np.float32, seed=0):
    """A set whose classes are not in order, and a batch."""
    rng = np.random.default_rng(seed)
    y = np.eye(K, dtype=dtype)[np.arange(K * ipc) % K] - dtype(1 / K)
    start = Distilled(rng.normal(size=(K * ipc, 4, 4, 1)).astype(dtype), y)
    batch = Batch(
        rng.normal(size=(K, B, 4, 4, 1)).astype(dtype), np.repeat(np.eye(K, dtype=dtype)[:, None] - 1 / K, B, 1)
    )
    return jax.tree.map(jnp.asarray, (start, batch))


def run(method, start, batch, steps=1, key=1):
    """The states before and after each step, and the infos."""
    step = jax.jit(method.step)
    states, infos = [jax.jit(method.init)(jax.random.key(0), start)], []
    for i in range(steps):
        state, info = step(jax.random.key(key + i), states[-1], batch)
        states.append(state)
        infos.append(info)
    return states, infos


def loss(params, model, variables, x, label):
    return losses.cross_entropy(model.apply({**variables, "params": params}, x), jnp.full(len(x), label))


def distance(model, variables, x_s, x_t, label, kind="dc"):
    """Of the gradients at one class, by NumPy; the network is not in training mode."""
    gradient = functools.partial(jax.grad(loss), variables["params"], model, variables)
    tensors = [
        [reference.torch_layout(leaf) for leaf in jax.tree.leaves(gradient(jnp.asarray(x), label))] for x in (x_s, x_t)
    ]
    return getattr(reference, kind)(*tensors)


def rows_by_class(start):
    return [np.flatnonzero(np.asarray(start.y).argmax(1) == c) for c in range(K)]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_two_steps_by_finite_differences_of_numpys_distance():
    """Also momentum: the second step goes by the new gradient and half the first."""
    model = networks.Small(K)
    start, batch = parts(dtype=np.float64)
    method = dc.make(model, outer=2, inner=1, learning_rate=0.1, network_learning_rate=0.3, block_size=2)
    states, infos = run(method, start, batch, 2)
    rng = np.random.default_rng(5)
    for before, after, info in zip(states, states[1:], infos):
        variables, rows = after.variables, rows_by_class(start)  # the network that this step matched at
        values = [distance(model, variables, before.x[rows[c]], batch.x[c], c) for c in range(K)]
        np.testing.assert_allclose(info.loss, np.mean(values), rtol=1e-9)
        direction = rng.normal(size=before.x.shape)
        slope = 0.0
        for c in range(K):
            ahead, back = (
                distance(model, variables, before.x[rows[c]] + h * direction[rows[c]], batch.x[c], c)
                for h in (1e-5, -1e-5)
            )
            slope += (ahead - back) / 2e-5
        moved = -np.vdot(after.x - before.x, direction) / 0.1
        if after is states[1]:
            first = np.asarray(after.x - before.x)
            np.testing.assert_allclose(moved, slope, rtol=1e-6)
        else:
            np.testing.assert_allclose(moved, slope - 0.5 * np.vdot(first, direction) / 0.1, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_network_is_trained_between_matching_steps_and_then_drawn_anew():
    model = networks.Small(K)
    start, batch = parts(dtype=np.float64)
    states, _ = run(dc.make(model, outer=3, inner=2, network_learning_rate=0.2), start, batch, 4)
    networks_at = [state.variables["params"] for state in states[1:]]
    targets = jnp.argmax(start.y, 1)
    for before, after, x in zip(networks_at, networks_at[1:3], (states[1].x, states[2].x)):
        params = before
        for _ in range(2):  # two epochs of one step each
            slope = jax.grad(lambda p, x=x: losses.cross_entropy(model.apply({"params": p}, x), targets))(params)
            params = jax.tree.map(lambda p, g: p - 0.2 * g, params, slope)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), after, params)
    fresh = networks_at[3]["head"]["kernel"]
    assert np.max(np.abs(fresh - networks_at[2]["head"]["kernel"])) > 0.1
    assert [int(state.place) for state in states] == [0, 1, 2, 0, 1]


def test_one_image_a_class_never_trains_a_network():
    start, batch = parts(ipc=1)
    states, _ = run(dc.make(networks.Small(K)), start, batch, 2)
    assert [int(state.place) for state in states] == [0, 0, 0]
    again = jax.jit(dc.make(networks.Small(K), network_learning_rate=9.0).step)(jax.random.key(2), states[1], batch)[0]
    jax.tree.map(np.testing.assert_array_equal, again.variables, states[2].variables)


def test_loops_are_the_published_ones():
    assert [dc.loops(n) for n in (1, 10, 20, 30, 40, 50)] == [(1, 1), (10, 50), (20, 25), (30, 20), (40, 15), (50, 10)]
    assert [dc.loops(n) for n in (5, 6, 500)] == [(1, 1), (10, 50), (50, 10)]


@pytest.fixture(scope="module")
def once():
    """One step of a plain method, and its parts."""
    start, batch = parts()
    method = dc.make(networks.Small(K), outer=1)
    return start, batch, run(method, start, batch)[0][1]


@pytest.mark.parametrize("options", [{"classes": "vmap"}, {"block_size": 2}, {"block_size": 3, "classes": "vmap"}])
def test_how_images_go_through_the_network_does_not_matter(once, options):
    start, batch, expected = once
    found = run(dc.make(networks.Small(K), outer=1, **options), start, batch)[0][1]
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-4, atol=1e-5)


def test_a_class_moves_only_its_own_images_and_labels_stay(once):
    start, batch, expected = once
    other = batch._replace(x=batch.x.at[1].multiply(-2.0))
    found = run(dc.make(networks.Small(K), outer=1), start, other)[0][1]
    moved = np.any(np.asarray(found.x != expected.x), axis=(1, 2, 3))
    np.testing.assert_array_equal(moved, np.asarray(start.y).argmax(1) == 1)
    np.testing.assert_array_equal(found.y, start.y)


def test_rows_without_a_target_do_not_count(once):
    start, batch, expected = once
    filler = Batch(jnp.full((K, 2, 4, 4, 1), 7.0), jnp.zeros((K, 2, K)))
    longer = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), batch, filler)
    found = run(dc.make(networks.Small(K), outer=1), start, longer)[0][1]
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-4, atol=1e-5)


def test_black_images_and_dead_units_give_no_nan():
    start, batch = parts(ipc=1)
    model = models.get("dc_convnet", num_classes=K, depth=1, width=2)
    black = jax.tree.map(lambda a: a.at[:].set(0.0), start.x)
    states, infos = run(dc.make(model), start._replace(x=black), batch._replace(x=0 * batch.x))
    assert np.isfinite(states[1].x).all() and np.isfinite(infos[0].loss)


def test_batch_norm_matches_with_averages_of_the_first_real_images():
    start, batch = parts(ipc=1)
    model = networks.Small(K, norm=True)
    method = dc.make(model, statistics_size=2)
    step = jax.jit(method.step)
    state = method.init(jax.random.key(0), start)

    def statistics(state, batch):
        return jax.tree.leaves(step(jax.random.key(1), state, batch)[0].variables["batch_stats"])

    expected = statistics(state, batch)
    same = statistics(state._replace(x=2 * state.x), batch._replace(x=batch.x.at[:, 2:].multiply(3.0)))
    other = statistics(state, batch._replace(x=batch.x.at[:, :2].multiply(3.0)))
    for a, b, c in zip(expected, same, other):
        np.testing.assert_array_equal(a, b)
        assert not np.allclose(a, c)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kind", "norm"), [("dc", True), ("mse", False), ("cosine", False)])
def test_the_loss_of_a_step_is_the_distance_of_its_kind_at_averages_of_batch_norm(kind, norm):
    model = networks.Small(K, norm=norm)
    start, batch = parts(dtype=np.float64)
    states, infos = run(dc.make(model, outer=1, kind=kind), start, batch)
    rows = rows_by_class(start)
    values = [distance(model, states[1].variables, start.x[rows[c]], batch.x[c], c, kind) for c in range(K)]
    np.testing.assert_allclose(infos[0].loss, np.mean(values), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "size"), [(5, 2), (4, 2), (3, 8)])
def test_an_epoch_sees_every_image_once(n, size):
    seen = []

    def watch(key, x):
        jax.debug.callback(lambda part: seen.append(np.asarray(part).ravel()), x[:, 0, 0, 0])
        return x

    x = jnp.arange(n, dtype=jnp.float32)[:, None, None, None] * jnp.ones((n, 2, 2, 1))
    model = networks.Small(K)
    variables = model.init(jax.random.key(0), x)
    labels = jnp.arange(n) % K
    options = {"learning_rate": 0.1, "batch_size": size, "augment": watch}
    jax.block_until_ready(_sgd.epoch(jax.random.key(1), model, variables, x, labels, **options))
    jax.effects_barrier()
    assert sorted(np.concatenate(seen)) == list(range(n))
    assert sorted(map(len, seen)) == sorted([size] * (n // size) + [n % size] * (n % size > 0))


def test_dsa_without_operations_is_dc(once):
    start, batch, expected = once
    found = run(dsa.make(networks.Small(K), strategy="none", outer=1), start, batch)[0][1]
    np.testing.assert_array_equal(found.x, expected.x)


@pytest.mark.slow
def test_dsa_changes_real_and_synthetic_images_alike():
    """Real images that are those of the set stay at distance zero whatever the draw."""
    start, batch = parts()
    order = np.argsort(np.asarray(start.y).argmax(1), kind="stable")
    same = Batch(start.x[order].reshape(K, 2, 4, 4, 1), batch.y[:, :2])
    method = dsa.make(networks.Small(K), outer=1)
    step = jax.jit(method.step)
    state = method.init(jax.random.key(0), start)
    for i in range(6):
        _, info = step(jax.random.key(i), state, same)
        assert abs(float(info.loss)) < 0.05  # not zero: the epsilon of the distance
    assert float(step(jax.random.key(0), state, same._replace(x=same.x[:, :, ::-1]))[1].loss) > 1


@pytest.mark.parametrize("classes", ["map", "vmap"])
def test_each_class_has_a_draw_of_its_own_which_both_sides_share(classes):
    start, batch = parts()
    seen = collections.defaultdict(set)

    def augment(key, x):
        jax.debug.callback(functools.partial(lambda n, draw: seen[float(draw)].add(n), len(x)), jax.random.uniform(key))
        return x

    run(dc.make(networks.Small(K), outer=1, classes=classes, match_augment=augment), start, batch)
    jax.effects_barrier()
    assert len(seen) == K and all(sizes == {2, batch.x.shape[1]} for sizes in seen.values())


@pytest.mark.slow
def test_the_network_between_two_steps_trains_on_augmented_images():
    """The first step sees none of it, the second a network that was trained on something else."""
    start, batch = parts()
    options = {"outer": 2, "inner": 1, "network_learning_rate": 0.3}
    plain, turned = (
        run(dc.make(networks.Small(K), train_augment=augment, **options), start, batch, 2)[1]
        for augment in (None, lambda key, x: -x)
    )
    assert plain[0].loss == turned[0].loss and not np.isclose(plain[1].loss, turned[1].loss, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outer": -1}, "outer is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"momentum": 2.0}, "momentum is 2.0; it must lie between"),
        ({"kind": "l2"}, "choose one of dc, mse, cosine"),
        ({"classes": "all"}, "choose one of auto, map, vmap"),
        ({"block_size": 1.5}, "block_size is 1.5; it must be a whole number"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(checks.InputError, match=words):
        dc.make(networks.Small(K), **options)


def test_an_unknown_operation_is_answered_with_the_list():
    with pytest.raises(checks.InputError, match=r"crop.*cutout.*flip.*scale.*rotate"):
        dsa.make(networks.Small(K), strategy="color_crop_blur")


def test_sets_and_batches_that_do_not_fit():
    start, batch = parts()
    method = dc.make(networks.Small(K))
    with pytest.raises(checks.InputError, match="every class needs equally many"):
        method.init(jax.random.key(0), start._replace(y=start.y[jnp.array([0, 0, 0, 1, 2, 2])]))
    with pytest.raises(checks.InputError, match=r"not divisible by classes \(3\)"):
        method.init(jax.random.key(0), Distilled(start.x[:4], start.y[:4]))
    state = method.init(jax.random.key(0), start)
    with pytest.raises(checks.InputError, match="draw it with samplers"):
        method.step(jax.random.key(0), state, Batch(batch.x[0], batch.y[0]))


def test_a_network_with_too_few_outputs_and_labels_of_another_shape_are_refused():
    start, batch = parts()
    narrow = networks.Small(K - 1)
    with pytest.raises(checks.InputError, match=r"the model has \d outputs and the labels \d columns"):
        dc.make(narrow).init(jax.random.key(0), start)
    method = dc.make(networks.Small(K))
    state = method.init(jax.random.key(0), start)
    for y in (batch.y.argmax(-1), batch.y[..., :-1]):
        with pytest.raises(checks.InputError, match="the batch has y of shape"):
            method.step(jax.random.key(0), state, batch._replace(y=y))
