"""Continual learning: phases, memories and metrics by hand, learners with and without memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks, kernels, methods, models
from kipjax.core import labels
from kipjax.evaluation import Task, continual, protocols, train
from kipjax.types import Distilled

QUICK = protocols.Protocol("quick", steps=150, optimizer="adam", learning_rate=3e-3, loss="cross_entropy")
MLP = models.get("mlp", num_classes=4)


def task(n=160, k=4, seed=0, offset=0):
    """Images of 4x4 with a bright row for the class, ``offset`` rows away."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % k
    x = rng.normal(size=(n, 4, 4, 1)).astype(np.float32)
    x[np.arange(n), (classes + offset) % k] += 2.0
    return Task(x[: n // 2], classes[: n // 2], x[n // 2 :], classes[n // 2 :], k)


def run(accuracies, sizes=None):
    accuracies = np.array(accuracies, float)[None]
    t = accuracies.shape[1]
    return continual.Run(("",) * t, accuracies, np.array(sizes or [10] * t), np.arange(t))


NAN = float("nan")


def test_metrics_by_hand():
    made = run([[0.9, NAN, NAN], [0.7, 0.8, NAN], [0.6, 0.9, 0.5]], sizes=[10, 30, 20])
    np.testing.assert_allclose(made.seen(weighted=False)[0], [0.9, 0.75, 2.0 / 3])
    np.testing.assert_allclose(made.seen()[0], [0.9, (7 + 24) / 40, (6 + 27 + 10) / 60])
    assert made.average_accuracy()[0] == pytest.approx((0.9 + 31 / 40 + 43 / 60) / 3)
    assert made.forgetting()[0] == pytest.approx(0.3)
    assert made.mean_forgetting()[0] == pytest.approx(((0.9 - 0.6) + (0.8 - 0.9)) / 2)


def test_one_phase_and_nothing_forgotten():
    assert run([[0.7]]).average_accuracy()[0] == 0.7 and run([[0.7]]).mean_forgetting()[0] == 0
    assert run([[0.7, NAN], [0.7, 0.2]]).forgetting()[0] == 0


def test_orders_are_numpys():
    np.random.seed(3)  # noqa: NPY002
    np.testing.assert_array_equal(continual.class_order(100, 3), np.random.permutation(100))  # noqa: NPY002
    shuffled = np.arange(100)
    np.random.seed(1993)  # noqa: NPY002
    np.random.shuffle(shuffled)  # noqa: NPY002
    np.testing.assert_array_equal(continual.class_order(100), shuffled)


def test_phases_partition_the_classes():
    rng = np.random.default_rng(0)
    many = Task(rng.normal(size=(200, 2)), np.arange(200) % 100, rng.normal(size=(100, 2)), np.arange(100), 100)
    for phases, first, sizes in (
        (5, 0, [20] * 5),
        (10, 0, [10] * 10),
        (5, 50, [50] + [10] * 5),
        (25, 50, [50] + [2] * 25),
    ):
        made = continual.split(many, phases=phases, first=first, order=continual.class_order(100, 0))
        assert [len(phase.classes) for phase in made] == sizes
        assert sorted(c for phase in made for c in phase.classes) == list(range(100))
        np.testing.assert_array_equal(made[1].classes, continual.class_order(100, 0)[sizes[0] : sizes[0] + sizes[1]])
    phase = made[1]
    assert len(continual.split(many, phases=25, first=50)) == 26
    assert set(phase.train_labels) == set(phase.test_labels) == set(phase.classes) and len(phase.x_train) == 4
    np.testing.assert_array_equal(phase.x_train, np.asarray(many.x_train)[np.isin(many.train_labels, phase.classes)])


def test_memory_budgets():
    assert continual.memory_per_class(60, ipc=20) == 20
    assert [continual.memory_per_class(seen, total=2000) for seen in (50, 60, 100)] == [40, 33, 20]
    with pytest.raises(checks.InputError, match="below one image for each of 100"):
        continual.memory_per_class(100, total=99)
    for wrong in ({}, {"ipc": 1, "total": 5}):
        with pytest.raises(checks.InputError, match="set one of them"):
            continual.memory_per_class(10, **wrong)


def test_builders_keep_images_of_the_phase_with_labels_of_all():
    phase = continual.split(task(), phases=2, order=[3, 1, 0, 2])[0]
    kip = continual.of_method(lambda k: methods.METHODS["kip"](kernels.get("fc1")), steps=2)
    for builder in (continual.random, kip):
        made = builder(jax.random.key(0), phase, 3)
        expected = labels.one_hot(np.array([1, 1, 1, 3, 3, 3]), 4)
        np.testing.assert_allclose(made.y, expected, atol=1e-6)
        real = [any(np.array_equal(x, other) for other in phase.x_train) for x in np.asarray(made.x)]
        assert all(real) == (builder is continual.random)
    kept = continual.given([made])(jax.random.key(0), phase, 2)
    np.testing.assert_array_equal(kept.x, made.x[np.array([0, 1, 3, 4])])


def test_learned_labels_keep_their_place():
    phase = continual.split(task(), phases=2, order=[3, 1, 0, 2])[0]
    solve = continual.of_method(lambda k: methods.METHODS["label_solve"](kernels.get("fc1")), steps=1)
    y = np.asarray(solve(jax.random.key(0), phase, 2).y) + 1 / 4
    np.testing.assert_allclose(y[:, [0, 2]], 0, atol=1e-6)
    assert np.all(labels.classes(jnp.asarray(y)) == np.array([1, 1, 3, 3]))


def test_a_memory_keeps_what_a_network_without_one_forgets():
    phases = continual.split(task(), phases=2)
    options = {"protocol": QUICK, "networks": 2}
    gdumb = continual.evaluate(phases, continual.random, MLP, ipc=20, **options)
    assert gdumb.accuracies.shape == (2, 2, 2) and gdumb.memory.tolist() == [40, 80]
    assert np.isnan(gdumb.accuracies[:, 0, 1]).all()
    assert gdumb.seen()[:, -1].min() > 0.8

    much, little = (
        continual.evaluate(phases, continual.random, MLP, ipc=ipc, learner="rehearsal", **options) for ipc in (20, 1)
    )
    assert much.forgetting().mean() < little.forgetting().mean() - 0.05
    assert np.all(much.accuracies[:, 0, 0] > 0.8)


def test_total_budget_shrinks_what_is_old():
    made, sizes = [], []

    def spy(key, phase, ipc):
        made.append(ipc)
        return continual.random(key, phase, ipc)

    phases = continual.split(task(), phases=4)
    few = QUICK._replace(steps=1)
    found = continual.evaluate(phases, spy, MLP, total=9, protocol=few, networks=1)
    sizes = found.memory.tolist()
    assert made == [9, 4, 3, 2] and sizes == [9, 8, 9, 8]


def test_going_on_starts_from_the_network_before():
    phases, few = continual.split(task(), phases=2), QUICK._replace(steps=1, learning_rate=1e-12)
    fresh, goes_on = (
        continual.evaluate(phases, continual.random, MLP, ipc=2, learner=learner, protocol=few, networks=4)
        for learner in ("gdumb", "continue")
    )
    np.testing.assert_array_equal(goes_on.forgetting(), 0)
    assert np.any(fresh.forgetting() != 0)


def test_distillation_is_the_sum_of_both_losses():
    """One step of SGD on mixed targets equals one on the two cross-entropies, against the network before."""
    phases = continual.split(task(40), phases=2)
    one = protocols.Protocol("one", steps=1, optimizer="sgd", learning_rate=0.5, loss="soft_cross_entropy")
    start = MLP.init(jax.random.key(1), jnp.zeros((1, 4, 4, 1)))
    made = continual.random(jax.random.key(2), phases[1], 3)
    known, share = jnp.array([1.0, 1.0, 0, 0]), 0.3
    starts = jax.tree.map(lambda a: a[None], start)
    options = {"model": MLP, "protocol": one, "parallel": 1, "block_size": 6}
    keys = jax.random.key(0)[None]
    got = continual._train(keys, starts, made, made.x, known, distillation=share, **options)[0]

    before = MLP.apply(start, made.x)[:, :2]
    p = jnp.exp(before) / jnp.exp(before).sum(1, keepdims=True)

    def loss(params):
        logs = jax.nn.log_softmax(MLP.apply({"params": params}, made.x))
        hard = -jnp.mean(logs[jnp.arange(6), labels.classes(made.y)])
        return (1 - share) * hard - share * jnp.mean(jnp.sum(p * logs[:, :2], axis=1))

    slopes = jax.grad(loss)(start["params"])
    for a, b, g in zip(*map(jax.tree.leaves, (got["params"], start["params"], slopes))):
        np.testing.assert_allclose(a[0], b - 0.5 * g, atol=1e-5)


def test_data_sets_one_after_the_other():
    tasks = {"a": task(), "b": task(80, seed=1, offset=1)}
    phases = continual.domains(tasks)
    assert [(p.name, p.classes) for p in phases] == [("a", (0, 1, 2, 3)), ("b", (0, 1, 2, 3))]
    found = continual.evaluate(phases, continual.random, MLP, ipc=2, protocol=QUICK._replace(steps=2), networks=1)
    assert found.memory.tolist() == [8, 16] and found.sizes.tolist() == [80, 40]
    with pytest.raises(checks.InputError, match="must agree"):
        continual.domains({"a": task(), "b": task()._replace(x_train=np.zeros((4, 5, 5, 1)))})


def test_training_goes_on_from_given_variables():
    made = continual.random(jax.random.key(2), continual.split(task(), phases=1)[0], 2)
    start = dict(MLP.init(jax.random.key(5), made.x))
    still = train.fit(jax.random.key(0), MLP, made, protocol=QUICK._replace(steps=1, learning_rate=0.0), start=start)
    for a, b in zip(jax.tree.leaves(still.variables), jax.tree.leaves(start)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: continual.split(task(), phases=3), "not divisible by phases"),
        (lambda: continual.split(task(), phases=2, first=1), "after the first phase is 3, which is not divisible"),
        (lambda: continual.split(task(), phases=2, first=4), "leave some"),
        (lambda: continual.split(task(), phases=2, order=[0, 0, 1, 2]), "expected every class 0..3"),
        (lambda: evaluate(total=3), "below one image"),
        (lambda: evaluate(), "set one of them"),
        (lambda: evaluate(ipc=1, learner="lwf"), "choose one of gdumb"),
        (lambda: evaluate(ipc=1, distillation=0.5), "set another learner"),
        (lambda: evaluate(ipc=1, builder=continual.given([])), "phase 1 needs its own"),
        (lambda: evaluate(ipc=1, builder=continual.given([wrong_classes()])), "expected at least 1 of classes 0, 1"),
        (lambda: evaluate(ipc=41), "lower ipc"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(checks.InputError, match=words):
        call()


def evaluate(builder=continual.random, **options):
    return continual.evaluate(continual.split(task(), phases=2), builder, MLP, **options)


def wrong_classes():
    return Distilled(jnp.zeros((2, 4, 4, 1)), labels.one_hot(np.array([0, 2]), 4))
