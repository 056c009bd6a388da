"""Mnemonics: the exemplar level against a linear classifier in NumPy, finite differences, halves of old ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks, models
from kipjax.core import labels
from kipjax.methods import mnemonics
from kipjax.models import network
from kipjax.types import Batch, Distilled
from tests.reference import networks, unroll

K, M, D = 3, 6, 4
CLASSES = np.arange(M) % K
ALPHA = 0.3


@functools.cache
def data():
    """Exemplars, validation images and their classes, weights of a linear classifier."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(M, D)), rng.normal(size=(9, D)), np.arange(9) % K, rng.normal(size=(D, K))


def linear(w):
    return {"params": {"head": {"kernel": jnp.asarray(w)}}}


def batch(x, classes, k=K):
    return Batch(jnp.asarray(x), jax.nn.one_hot(classes, k, dtype=jnp.asarray(x).dtype))


def oracle(x, *, steps, parts=1, w=None, validation=None, classes=CLASSES):
    """``L_c(Theta'(E); D)`` of a linear classifier, exemplar ``i`` being in batch ``i mod parts``."""
    _, x_val, val_classes, start = data()
    x_val, val_classes = (x_val, val_classes) if validation is None else validation
    y = np.eye(K)[classes]
    batches = [(x[s::parts], y[s::parts]) for s in range(parts)]
    return unroll.outer_loss(start if w is None else w, batches, [ALPHA] * steps, x_val, val_classes)


def slope(f, x):
    return np.array([unroll.difference(f, x, index) for index in np.ndindex(x.shape)]).reshape(x.shape)


@pytest.mark.parametrize(("steps", "parts"), [(0, 1), (1, 1), (4, 1), (5, 2)])
def test_loss_and_gradient_are_those_of_numpy(steps, parts, x64):
    x, x_val, val_classes, w = data()
    inner = {"inner_steps": steps, "step_size": ALPHA, "batches": parts}

    def loss(x, level="network"):
        given = (x, jnp.asarray(CLASSES), batch(x_val, val_classes))
        return mnemonics.outer_loss(networks.Linear(K), linear(w), *given, level=level, **inner)[0]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(x))
    np.testing.assert_allclose(value, oracle(x, steps=steps, parts=parts), rtol=1e-12)
    expected = slope(lambda x: oracle(x, steps=steps, parts=parts), x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-9)
    assert np.any(gradient) == (steps > 0)
    np.testing.assert_allclose(loss(jnp.asarray(x), "head"), value, rtol=1e-12)  # there is nothing but the head


@functools.cache
def small():
    """A network with a hidden layer, in float64, exemplars and validation images."""
    x, x_val, val_classes, _ = data()
    model = networks.Small(K)
    return model, network.init(model, jax.random.key(1), jnp.asarray(x)), jnp.asarray(x), batch(x_val, val_classes)


def test_one_step_is_the_mixed_derivative(x64):
    """``dL/dE = -alpha d/dE <grad L(Theta; E), grad L(Theta'; D)>``, the second gradient held; finite differences."""
    model, theta, x, validation = small()

    def of(params, x, classes):
        logits = model.apply({"params": params}, x)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(x)), classes])

    start, classes = theta["params"], jnp.asarray(CLASSES)
    inner = jax.jit(jax.grad(of))
    moved = jax.tree.map(lambda p, g: p - ALPHA * g, start, inner(start, x, classes))
    outer = inner(moved, validation.x, labels.classes(validation.y))

    def product(x):
        terms = jax.tree.map(lambda a, b: jnp.sum(a * b), inner(start, jnp.asarray(x), classes), outer)
        return -ALPHA * float(sum(jax.tree.leaves(terms)))

    gradient = jax.jit(
        jax.grad(
            lambda x: mnemonics.outer_loss(model, theta, x, classes, validation, inner_steps=1, step_size=ALPHA)[0]
        )
    )(x)
    np.testing.assert_allclose(gradient, slope(product, np.asarray(x)), rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_segments_and_the_mean_over_networks(x64):
    model, theta, x, validation = small()
    other = network.init(model, jax.random.key(2), x)
    classes = jnp.asarray(CLASSES)

    def gradient(theta, segment=0):
        options = {"inner_steps": 3, "step_size": ALPHA, "segment": segment}
        return jax.jit(jax.grad(lambda x: mnemonics.outer_loss(model, theta, x, classes, validation, **options)[0]))(x)

    one, two = gradient(theta), gradient(other)
    np.testing.assert_allclose(gradient(theta, 1), one, rtol=1e-10)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), theta, other)
    method = mnemonics.make(model, inner_steps=3, step_size=ALPHA, learning_rate=0.5, pretrained=both)
    start = Distilled(x, jax.nn.one_hot(CLASSES, K))
    state, _ = jax.jit(method.step)(jax.random.key(0), method.init(jax.random.key(0), start), validation)
    np.testing.assert_allclose(state.x, x - 0.5 * (one + two) / 2, rtol=1e-9, atol=1e-12)


def test_what_is_unrolled():
    """The body stays at level head; batch norm keeps its averages, and each exemplar goes through alone."""
    model = networks.Small(K, norm=True)
    x, *_ = (jnp.asarray(a, jnp.float32) for a in data())
    theta = network.init(model, jax.random.key(0), x)
    theta["batch_stats"] = jax.tree.map(lambda a: a + 0.3, theta["batch_stats"])

    def trained(level):
        inner = {"inner_steps": 2, "step_size": 1.0, "level": level}
        return mnemonics.train(model, theta, x, jnp.asarray(CLASSES), **inner)

    for level in ("network", "head"):
        after = trained(level)
        jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], theta["batch_stats"])
        moved = {name: bool(np.any(after["params"][name]["kernel"] != theta["params"][name]["kernel"]))
                 for name in ("head", "Dense_0", "Dense_1")}  # fmt: skip
        assert moved == {"head": True, "Dense_0": level == "network", "Dense_1": level == "network"}


def test_classes_that_have_not_come_do_not_count(x64):
    model, theta, x, validation = small()
    seen, classes = jnp.array([1.0, 1.0, 0.0]), jnp.asarray(CLASSES % 2)
    given = (x, classes, validation._replace(y=validation.y.at[:, 2].set(0)))
    options = {"inner_steps": 2, "step_size": ALPHA, "seen": seen}
    shifted = jax.tree.map(jnp.array, theta)
    shifted["params"]["head"]["bias"] = theta["params"]["head"]["bias"].at[2].add(7.0)
    first, second = (mnemonics.outer_loss(model, v, *given, **options)[0] for v in (theta, shifted))
    assert first == second
    all_of_them = mnemonics.outer_loss(model, theta, *given, inner_steps=2, step_size=ALPHA)[0]
    assert abs(all_of_them - first) > 1e-3


@pytest.mark.slow
def test_prototypes_are_class_means(x64):
    """In NumPy: cosines with mean features, other classes' exemplars being constants."""
    model, theta, x, _ = small()
    _, x_val, *_ = data()
    ours, theirs = x[:4], Distilled(x[4:], jnp.eye(K)[jnp.array([2, 2])])
    classes = jnp.array([0, 1, 0, 1])
    validation = batch(x_val, np.arange(9) % 2)

    def numpy(x):
        def features(x):
            return np.asarray(model.apply(theta, jnp.asarray(x), features=True)[1])

        h, other = features(x), features(theirs.x)
        means = np.stack([h[[0, 2]].mean(0), h[[1, 3]].mean(0), other.mean(0)])
        q = features(x_val)
        s = (q / np.linalg.norm(q, axis=1)[:, None]) @ (means / np.linalg.norm(means, axis=1)[:, None]).T
        p = unroll.softmax(s)
        return -np.mean(np.log(p[np.arange(9), np.arange(9) % 2]))

    def loss(x):
        options = {"level": "prototypes", "anchors": theirs}
        return mnemonics.outer_loss(model, theta, x, classes, validation, **options)[0]

    value, gradient = jax.value_and_grad(loss)(ours)
    np.testing.assert_allclose(value, numpy(np.asarray(ours)), rtol=1e-12)
    np.testing.assert_allclose(gradient, slope(numpy, np.asarray(ours)), rtol=1e-5, atol=1e-9)
    # A class without exemplars has no prototype and no share.
    alone = mnemonics.outer_loss(model, theta, ours, classes, validation, level="prototypes")[0]
    assert alone < value


def test_halves_are_disjoint_cover_all_and_have_every_class():
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 7))
    first, second = mnemonics.halves(np.eye(5)[classes])
    assert sorted([*first, *second]) == list(range(35))
    assert np.bincount(classes[first]).tolist() == [4] * 5 and np.bincount(classes[second]).tolist() == [3] * 5


def test_adjusting_follows_the_equations(x64):
    """``A`` on ``B`` as it was, then ``B`` on the new ``A``, each from the same Theta; gradients of the NumPy loss."""
    x, _, _, w = data()
    first, second = np.arange(3), np.arange(3, 6)  # one of each class
    rate, expected = 0.2, x.copy()
    for part, against in ((first, second), (second, first)):
        held = expected[against], CLASSES[against]
        gradient = slope(
            lambda x, held=held, part=part: oracle(x, steps=2, validation=held, classes=CLASSES[part]), expected[part]
        )
        expected[part] -= rate * gradient
    old = Distilled(jnp.asarray(x), jnp.eye(K)[CLASSES] - 1 / K)
    stacked = jax.tree.map(lambda leaf: leaf[None], linear(w))
    options = {"inner_steps": 2, "step_size": ALPHA, "learning_rate": rate}
    new = mnemonics.adjust(networks.Linear(K), stacked, old, steps=1, **options)
    np.testing.assert_allclose(new.x, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(new.y, old.y)
    same = mnemonics.adjust(networks.Linear(K), stacked, old, steps=0, **options)
    np.testing.assert_array_equal(same.x, old.x)


def test_pixels_stay_in_bounds_and_the_loss_falls():
    x, x_val, val_classes, w = (np.asarray(a) for a in data())
    method = mnemonics.make(
        networks.Linear(K), inner_steps=5, step_size=1.0, learning_rate=0.1, optimizer="adam", low=-1.0,
        high=np.full(D, 0.8), pretrained=jax.tree.map(lambda leaf: leaf[None].astype(jnp.float32), linear(w)),
    )  # fmt: skip
    state = method.init(jax.random.key(0), Distilled(jnp.asarray(x, jnp.float32), jnp.eye(K)[CLASSES]))
    step, found = jax.jit(method.step), []
    for _ in range(30):
        state, info = step(jax.random.key(0), state, batch(x_val.astype(np.float32), val_classes))
        found.append(float(info.loss))
    made = np.asarray(method.distilled(state).x)
    assert made.min() >= -1 and made.max() <= 0.8 and min(made.min() + 1, 0.8 - made.max()) < 1e-6
    assert found[-1] < 0.9 * found[0]
    np.testing.assert_array_equal(method.distilled(state).y, np.eye(K)[CLASSES])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mnemonics.make(networks.Linear(K), inner_steps=-1), "inner_steps is -1"),
        (lambda: mnemonics.make(networks.Linear(K), step_size=0.0), "step_size is 0.0; it must be above"),
        (lambda: mnemonics.make(networks.Linear(K), level="all"), "choose one of network, head, prototypes"),
        (lambda: mnemonics.make(networks.Linear(K), optimizer="rmsprop"), "choose one of sgd, adam"),
        (
            lambda: mnemonics.make(networks.Linear(K), anchors=Distilled(jnp.ones((1, 4)), jnp.ones((1, 3)))),
            "leave them",
        ),
        (lambda: mnemonics.make(lambda x: x), "expected a flax module"),
        (
            lambda: mnemonics.make(networks.Linear(K), pretrained={"params": [jnp.ones(1), jnp.ones(2)]}),
            "stacked along a first axis",
        ),
        (lambda: started(batches=4), "the number of exemplars is 6, which is not divisible by batches"),
        (lambda: mnemonics.halves(np.eye(3)[[0, 0, 1]]), "class 1 has one exemplar, which cannot be halved"),
        (lambda: mnemonics.adjust(networks.Linear(K), linear(np.ones((1, D, K))), None, steps=-1), "steps is -1"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(checks.InputError, match=words):
        call()


def started(**options):
    start = Distilled(jnp.ones((M, D)), jnp.eye(K)[CLASSES])
    return mnemonics.make(models.get("mlp", num_classes=K, width=2), **options).init(jax.random.key(0), start)
