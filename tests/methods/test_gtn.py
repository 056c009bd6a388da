"""Generative teaching: finite differences, rematerialisation, curricula, and the layers of its networks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.core import loop
from kipjax.methods import dd, gtn
from kipjax.models import layers, network, teaching
from kipjax.types import Batch, Distilled
from tests.reference import networks
from tests.reference import unroll as reference

K, T, B, N = 3, 3, 4, 12
SHAPE = (4, 4, 1)


def problem(norm=False):
    """``(model, generator, variables of a learner, learned, real batch)`` in float64; with batch norm if so."""
    rng = np.random.default_rng(0)
    model, generator = networks.Small(K, norm), teaching.Generator(SHAPE, hidden=5, filters=2)
    z, y = jnp.asarray(rng.normal(size=(T, B, 3))), jnp.eye(K, dtype=float)[jnp.arange(T * B) % K].reshape(T, B, K)
    weights = jax.jit(generator.init)(jax.random.key(0), z[0], y[0])["params"]
    learned = gtn.Learned(weights, z, y, jnp.log(rng.uniform(0.1, 0.4, T)), jnp.log(rng.uniform(0.3, 0.8, T)))
    batch = Batch(jnp.asarray(rng.normal(size=(N, *SHAPE))), jnp.arange(N) % K)
    return model, generator, network.init(model, jax.random.key(1), batch.x), learned, batch


@functools.cache
def gradient(norm=False, **options):
    model, generator, *_ = problem(norm)

    def loss(learned, variables, batch):
        return gtn.meta_loss(model, generator, variables, learned, batch, **options)[0]

    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.slow
@pytest.mark.parametrize(("every", "norm"), [(0, False), (1, False), (1, True)])
def test_gradients_are_finite_differences(every, norm, x64):
    *_, variables, learned, batch = problem(norm)
    run = gradient(norm, every=every)
    _, slope = run(learned, variables, batch)
    leaves, tree = jax.tree.flatten(learned._replace(y=None))
    slopes = jax.tree.leaves(slope._replace(y=None))
    rng = np.random.default_rng(2)
    for i, leaf in enumerate(leaves):
        index = tuple(rng.integers(0, side) for side in leaf.shape)

        def at(value, i=i):
            changed = jax.tree.unflatten(tree, [*leaves[:i], jnp.asarray(value), *leaves[i + 1 :]])
            return float(run(changed._replace(y=learned.y), variables, batch)[0])

        expected = reference.difference(at, np.array(leaf), index)
        np.testing.assert_allclose(slopes[i][index], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("segment", [1, 2])
def test_gradients_do_not_depend_on_the_block_size(segment, x64):
    *_, variables, learned, batch = problem()
    found, expected = (gradient(every=1, segment=s)(learned, variables, batch) for s in (segment, 0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), found, expected)


@pytest.mark.slow
def test_intermediate_losses_are_those_of_shorter_trainings(x64):
    """With k = 1 the loss is the sum of T trainings of 1 .. T steps, each on its own part of the batch."""
    model, generator, variables, learned, batch = problem()
    value, _ = gradient(every=1, weight=0.5)(learned, variables, batch)
    size, total = N // T, 0.0
    for steps in range(1, T + 1):
        part = jax.tree.map(lambda a, steps=steps: a[:steps], learned._replace(generator=None))
        some = slice(0, size) if steps == T else slice(steps * size, (steps + 1) * size)
        loss = jax.jit(lambda at, real: gtn.meta_loss(model, generator, variables, at, real)[0])(
            part._replace(generator=learned.generator), Batch(batch.x[some], batch.y[some])
        )
        total += (1.0 if steps == T else 0.5) * loss
    np.testing.assert_allclose(value, total, rtol=1e-10)


@pytest.mark.slow
def test_no_intermediate_loss_without_weight_or_beyond_the_end(x64):
    *_, variables, learned, batch = problem()
    plain, _ = gradient(every=0)(learned, variables, batch)
    for options in ({"every": T}, {"every": T + 5}, {"every": 1, "weight": 0.0}):
        np.testing.assert_allclose(gradient(**options)(learned, variables, batch)[0], plain, rtol=1e-12)


def test_without_momentum_and_with_images_for_a_generator_it_is_dd(x64):
    class Images:
        """Stands in for a generator: the latents are the images."""

        @staticmethod
        def apply(variables, z, y):
            return z

    model, _, variables, learned, batch = problem()
    x = jnp.asarray(np.random.default_rng(5).normal(size=(T, B, *SHAPE)))
    rates = jnp.exp(learned.log_rates)

    def of_gtn(x):
        at = learned._replace(generator={}, z=x, log_momenta=jnp.full(T, -jnp.inf))
        return gtn.meta_loss(model, Images, variables, at, batch)[0]

    def of_dd(x):
        made = Distilled(dd.rows(x), dd.rows(learned.y), rates)
        return dd.outer_loss(model, variables, made, batch, inner_steps=T)[0]

    a, b = jax.jit(lambda x: (jax.value_and_grad(of_gtn)(x), jax.value_and_grad(of_dd)(x)))(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14), a, b)


def steps(count=2, **options):
    start = Distilled(np.zeros((T * B, *SHAPE), np.float32), np.eye(K, dtype=np.float32)[np.arange(T * B) % K])
    batch = Batch(np.random.default_rng(0).normal(size=(N, *SHAPE)).astype(np.float32), np.eye(K)[np.arange(N) % K])
    options = {"inner_steps": T, "latent_size": 3, "hidden": 5, "filters": 2, **options}
    method = gtn.make(networks.Small(K), **options)
    states, infos, step = [jax.jit(method.init)(jax.random.key(0), start)], [], jax.jit(method.step)
    for i in range(count):
        state, info = step(jax.random.key(i), states[-1], batch)
        states.append(state)
        infos.append(info)
    return method, states, infos


@pytest.mark.slow
def test_the_noise_curriculum_learns_no_inputs(x64):
    """Its gradient in latents and labels is zero, and neither moves."""
    model, generator, variables, learned, batch = problem()

    def loss(at):
        z, y = gtn.ordered(jax.random.key(3), at, "noise")
        return gtn.meta_loss(model, generator, variables, at._replace(z=z, y=y), batch)[0]

    slope = jax.jit(jax.grad(loss))(learned)
    assert not np.any(slope.z) and not np.any(slope.y)
    assert all(np.any(leaf) for leaf in jax.tree.leaves((slope.generator, slope.log_rates)))


@pytest.mark.slow
def test_what_is_learned_moves():
    for options, still in (
        ({"curriculum": "noise"}, {"z", "y"}),
        ({"learn_step_sizes": False, "learn_labels": True}, {"log_rates", "log_momenta"}),
    ):
        _, (before, after), _ = steps(1, **options)
        for name in gtn.Learned._fields:
            a, b = (jax.tree.leaves(getattr(s.learned, name)) for s in (before, after))
            assert all(map(np.array_equal, a, b)) == (name in still), (options, name)


def test_the_orders_of_the_curricula():
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(T, B, 2)), jnp.float32)
    y = jnp.eye(T * B)[jnp.arange(T * B)].reshape(T, B, -1)  # a class for each latent, to see pairs
    learned = gtn.Learned({}, z, y, jnp.zeros(T), jnp.zeros(T))
    full = gtn.ordered(jax.random.key(0), learned, "full")
    jax.tree.map(np.testing.assert_array_equal, full, (z, y))
    seen = set()
    for i in range(20):
        found, targets = gtn.ordered(jax.random.key(i), learned, "all_shuffled")
        which = np.asarray(targets).argmax(-1)
        np.testing.assert_array_equal(found, np.asarray(z).reshape(-1, 2)[which])
        seen |= set(which.ravel())
        found, targets = gtn.ordered(jax.random.key(i), learned, "shuffled_batch")
        which = np.asarray(targets).argmax(-1)
        assert np.all(np.diff(which, axis=1) == 1) and np.all(which[:, 0] % B == 0)
        np.testing.assert_array_equal(found, np.asarray(z).reshape(-1, 2)[which])
    assert seen == set(range(T * B))
    fresh = [gtn.ordered(jax.random.key(i), learned, "noise") for i in (0, 1)]
    assert not np.array_equal(fresh[0][0], fresh[1][0])
    np.testing.assert_array_equal(fresh[0][1].sum(-1), 1)


@pytest.mark.slow
def test_the_set_is_what_the_learner_sees():
    method, states, infos = steps(2, segment=0)
    made = method.distilled(states[-1])
    assert made.x.shape == (T * B, *SHAPE) and np.all(np.abs(made.x) < 2)
    at = states[-1].learned
    generator = teaching.Generator(SHAPE, 5, 2)
    batches = dd.curriculum(made.x, T)
    for t in range(T):
        np.testing.assert_allclose(batches[t], generator.apply({"params": at.generator}, at.z[t], at.y[t]), atol=1e-5)
    np.testing.assert_allclose(made.lr, np.exp(at.log_rates), rtol=1e-6)
    np.testing.assert_allclose(gtn.momenta(states[0]), 0.5, rtol=1e-6)
    np.testing.assert_allclose(method.distilled(states[0]).lr, 0.02, rtol=1e-5)
    assert float(infos[0].loss) != float(infos[1].loss)
    counts = np.asarray(made.y).sum(axis=0)
    assert counts.max() - counts.min() <= 1


@pytest.mark.slow
def test_the_cosine_ends_at_the_final_rate():
    _, states, _ = steps(5, decay_steps=4, final_rate=0.1, learning_rate=0.1, b1=0.0, b2=0.0)
    sizes = [
        float(np.median(np.abs(b.learned.z - a.learned.z))) for a, b in itertools.pairwise(states)
    ]  # with both betas 0 a step is the rate
    assert sizes[0] == pytest.approx(0.1, rel=0.05) and sizes[4] == pytest.approx(0.01, rel=0.05)


@pytest.mark.slow
def test_teaching_gets_better():
    rng = np.random.default_rng(0)
    centres, classes = rng.normal(size=(K, *SHAPE)), np.arange(60) % K
    batch = Batch(jnp.asarray(centres[classes] + 0.5 * rng.normal(size=(60, *SHAPE)), jnp.float32), jnp.eye(K)[classes])
    options = {"inner_steps": T, "latent_size": 4, "hidden": 16, "filters": 4, "every": 0, "segment": 0}
    method = gtn.make(networks.Small(K), step_size=0.2, learning_rate=0.01, **options)
    start = Distilled(jnp.zeros((T * 6, *SHAPE)), jnp.eye(K)[jnp.arange(T * 6) % K])
    run = jax.jit(functools.partial(loop.steps(method, 300), lambda key: batch))
    _, infos = run(jax.random.key(0), jax.jit(method.init)(jax.random.key(0), start), 0)
    assert np.mean(infos.loss[-50:]) < np.mean(infos.loss[:50]) - 0.08


# The layers.


def test_weight_normalisation(x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)))
    normed, plain = (teaching.NormedDense(3, weight_norm=on) for on in (True, False))
    variables = normed.init(jax.random.key(0), x)
    params = variables["params"]
    without = {"params": {name: params[name] for name in ("kernel", "bias")}}
    np.testing.assert_allclose(normed.apply(variables, x), plain.apply(without, x), rtol=1e-9)
    free = teaching.NormedDense(3, use_bias=False)
    only = {"kernel": params["kernel"], "scale": params["scale"]}
    longer = {"params": {**only, "kernel": 3 * params["kernel"]}}
    np.testing.assert_allclose(free.apply({"params": only}, x), free.apply(longer, x), rtol=1e-9)
    doubled = {"params": {**only, "scale": 2 * params["scale"]}}
    np.testing.assert_allclose(free.apply(doubled, x), 2 * free.apply({"params": only}, x), rtol=1e-9)
    slope = jax.grad(lambda p: jnp.sum(free.apply({"params": p}, x) ** 3))(only)["kernel"]
    np.testing.assert_allclose(jnp.sum(slope * params["kernel"], axis=0), 0.0, atol=1e-8)


def test_mean_only_norm():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 2, 3)), jnp.float32) + 4
    norm = teaching.MeanOnlyNorm()
    variables = norm.init(jax.random.key(0), x)
    variables = {**variables, "params": {"bias": jnp.asarray([1.0, 2.0, 3.0])}}
    y, kept = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), [1, 2, 3], rtol=1e-5)
    np.testing.assert_allclose(y.std(axis=(0, 1, 2)), x.std(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(norm.apply({**variables, **kept}, x), y, rtol=1e-5)


@pytest.mark.slow
def test_an_image_depends_on_its_batch():
    generator = teaching.Generator((8, 8, 3), hidden=6, filters=4)
    z, y = jax.random.normal(jax.random.key(0), (4, 5)), jnp.eye(2)[jnp.arange(4) % 2]
    variables = jax.jit(generator.init)(jax.random.key(1), z, y)
    x, other = (generator.apply(variables, z.at[0].add(by), y) for by in (0.0, 1.0))
    assert x.shape == (4, 8, 8, 3) and not np.allclose(x[1], other[1])


def test_batch_norm_of_the_generator_divides_by_the_plain_variance():
    x = np.random.default_rng(0).normal(2.0, 3.0, (3, 2, 2, 4)).astype(np.float32)
    norm = teaching._BatchNorm()
    found = norm.apply(norm.init(jax.random.key(0), x), x)
    axes = (0, 1, 2)
    expected = (x - x.mean(axes)) / np.sqrt(((x - x.mean(axes)) ** 2).mean(axes) + 1e-5)  # the sum over 12, not 11
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "out"), [((6, 6), (3, 3)), ((7, 5), (4, 3)), ((28, 28), (14, 14)), ((1, 2), (1, 1))])
def test_overlapping_max_pooling(shape, out):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=-np.inf)
    expected = np.stack(
        [
            np.stack([padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(1, 2)) for j in range(out[1])], 1)
            for i in range(out[0])
        ],
        1,
    )
    np.testing.assert_array_equal(layers.max_pool3(jnp.asarray(x)), expected)


def test_learner_and_its_statistics():
    model = teaching.Learner(K, widths=(2, 3), hidden=4)
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    variables = jax.jit(lambda: network.init(model, jax.random.key(1), x))()
    assert set(variables["batch_stats"]) == {"norm0", "norm1", "norm_dense"}
    logits, statistics = network.train_forward(model, variables, x)
    assert logits.shape == (3, K)
    np.testing.assert_allclose(model.apply({**variables, **statistics}, x), logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(checks.InputError, match="give one for each, or none"):
        teaching.Learner(K, strides=(1,))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"curriculum": "shuffled"}, "curriculum is 'shuffled'; choose one of full"),
        ({"momentum": 0.0}, "momentum is 0.0; it must be above 0"),
        ({"inner_steps": 0}, "inner_steps is 0"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"b1": 1.5}, r"b1 is 1\.5"),
        ({"b2": 1.0}, r"b2 is 1\.0; it must be at least 0 and below 1"),
        ({"curriculum": "noise", "learn_labels": True}, "noise has random labels"),
        ({"eps": -1.0}, r"eps is -1\.0"),
        ({"truncate": 0}, "truncate is 0"),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(checks.InputError, match=words):
        gtn.make(networks.Small(K), **options)


def test_classes_and_networks_that_do_not_fit():
    model, generator, variables, learned, batch = problem()
    with pytest.raises(checks.InputError, match=r"batch.y spans -1..0"):
        gtn.meta_loss(model, generator, variables, learned, Batch(batch.x[:2], np.array([0, -1])))
    with pytest.raises(checks.InputError, match="the model has 4 outputs and the labels 3 columns; build it with"):
        gtn.make(networks.Small(4), inner_steps=1).init(jax.random.key(0), Distilled(batch.x[:3], np.eye(3)))


def test_sets_and_batches_that_do_not_fit():
    with pytest.raises(checks.InputError, match="a curriculum of 13 steps is longer than the data, 12 rows"):
        steps(0, inner_steps=13)
    method = gtn.make(networks.Small(K), inner_steps=2)
    with pytest.raises(checks.InputError, match="not divisible by two doublings"):
        method.init(jax.random.key(0), Distilled(np.zeros((4, 5, 4, 1), np.float32), np.eye(K)[[0, 1, 2, 0]]))
    model, generator, variables, learned, batch = problem()
    with pytest.raises(checks.InputError, match="the batch has 2 rows for 3 losses"):
        gtn.meta_loss(model, generator, variables, learned, Batch(batch.x[:2], batch.y[:2]), every=1)


@pytest.mark.slow
def test_real_images_are_augmented():
    """Another rule for the real images makes another loss; a rule that changes nothing none."""
    found = {}
    for name, augment in {"none": None, "same": lambda key, x: x, "far": lambda key, x: x + 10.0}.items():
        method = gtn.make(networks.Small(K), inner_steps=2, hidden=3, filters=2, latent_size=3, augment=augment)
        start = Distilled(np.zeros((6, *SHAPE), np.float32), np.eye(K, dtype=np.float32)[np.arange(6) % K])
        state = method.init(jax.random.key(0), start)
        batch = Batch(jnp.ones((4, *SHAPE)), jnp.eye(K)[jnp.arange(4) % K])
        found[name] = float(jax.jit(method.step)(jax.random.key(1), state, batch)[1].loss)
    assert found["none"] == found["same"] != found["far"]
