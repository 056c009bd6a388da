"""Continual learning: phases, memories and metrics by hand, learners with and without memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks, kernels, methods, models
from kipjax.core import labels
from kipjax.evaluation import Task, continual, protocols, train
from kipjax.types import Batch, Distilled

QUICK = protocols.Protocol("quick", steps=150, optimizer="adam", learning_rate=3e-3, loss="cross_entropy")
MLP = models.get("mlp", num_classes=4)
COSINE = models.get("mlp", num_classes=4, width=16, depth=1, classifier="cosine")


def task(n=160, k=4, seed=0, offset=0):
    """Images of 4x4 with a bright row for the class, ``offset`` rows away."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % k
    x = rng.normal(size=(n, 4, 4, 1)).astype(np.float32)
    x[np.arange(n), (classes + offset) % k] += 2.0
    return Task(x[: n // 2], classes[: n // 2], x[n // 2 :], classes[n // 2 :], k)


KIP = continual.of_method(lambda k: methods.METHODS["kip"](kernels.get("fc1")), steps=2)


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


def test_a_fixed_total_takes_no_more_images_than_there_are():
    phases = continual.split(task(), phases=2)  # 20 images of each class
    for builder, learner in ((continual.random, "gdumb"), (continual.herding(), "rehearsal")):
        found = continual.evaluate(
            phases, builder, MLP, total=100, protocol=QUICK._replace(steps=1), networks=1, learner=learner
        )
        assert found.memory.tolist() == [40, 80]


def test_a_method_that_can_learn_from_one_class_does():
    phase = continual.split(task(), phases=4)[1]
    build = continual.of_method(lambda k: methods.coreset.make(kernels.get("fc1")), steps=1, alone=True)
    made = build(jax.random.key(0), phase, 3)
    assert labels.classes(made.y).tolist() == [1, 1, 1]


def test_builders_keep_images_of_the_phase_with_labels_of_all():
    phase = continual.split(task(), phases=2, order=[3, 1, 0, 2])[0]
    for builder in (continual.random, KIP):
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


def test_the_class_of_an_image_is_its_place_whatever_its_label_says():
    """A learned label may be largest at another class; none of its images is lost."""
    phases = continual.split(task(), phases=2)

    def flipped(key, phase, ipc):
        made = continual.random(key, phase, ipc)
        return made._replace(y=made.y.at[0].set(made.y[-1]))

    few = QUICK._replace(steps=1)
    found = continual.evaluate(phases, flipped, MLP, total=8, protocol=few, networks=1)
    assert found.memory.tolist() == [8, 8]
    with pytest.raises(checks.InputError, match="the builder made 3 images for 2 classes; expected at least 2 of each"):
        continual.evaluate(
            phases,
            lambda *args: jax.tree.map(lambda a: a[:3], continual.random(*args)),
            MLP, ipc=2, protocol=few, networks=1,
        )  # fmt: skip


@pytest.mark.slow
def test_classes_that_have_not_come_take_no_part_in_the_loss():
    """The first phase of a learner that sees all of it: cross-entropy over two classes of four, by hand."""
    phase = continual.split(task(40), phases=2)[0]
    one = protocols.Protocol("one", steps=1, optimizer="sgd", learning_rate=0.5, loss="cross_entropy")
    made, seen = continual.random(jax.random.key(2), phase, 3), jnp.array([1.0, 1.0, 0, 0])
    learner = continual.Learner(MLP, one)
    lesson = continual.Lesson(made.x, made.y, jnp.zeros(4), seen)
    got = jax.jit(lambda key: learner.study(key, None, lesson))(jax.random.key(0)).variables["params"]
    start = train.fresh(jax.random.key(0), MLP, made)["params"]

    def loss(params):
        logits = MLP.apply({"params": params}, made.x)[:, :2]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(6), labels.classes(made.y)])

    expected = jax.tree.map(lambda a, g: a - 0.5 * g, start, jax.grad(loss)(start))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)
    said = labels.classes(learner.outputs(train.Network({"params": got}), phase.x_test, seen))
    assert set(np.asarray(said)) <= {0, 1}


def test_the_first_phase_has_no_balanced_epochs():
    phases = continual.split(task(), phases=2)
    few = QUICK._replace(steps=5)
    plain, balanced = (
        continual.evaluate(
            phases, continual.random, ipc=2, learner=continual.Learner(MLP, few, balanced_epochs=epochs), networks=2
        ).accuracies
        for epochs in (0, 30)
    )
    np.testing.assert_array_equal(plain[:, 0], balanced[:, 0])
    assert np.any(plain[:, 1] != balanced[:, 1])


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_going_on_starts_from_the_network_before():
    """Data sets of the same classes, so that the same outputs count in both phases."""
    phases = continual.domains({"a": task(), "b": task(80, seed=1, offset=1)})
    few = QUICK._replace(steps=1, learning_rate=1e-12)
    fresh, goes_on = (
        continual.evaluate(phases, continual.random, MLP, ipc=2, learner=learner, protocol=few, networks=4)
        for learner in ("gdumb", "continue")
    )
    np.testing.assert_array_equal(goes_on.forgetting(), 0)
    assert np.any(fresh.forgetting() != 0)


def test_distillation_is_the_weighted_sum_of_both_losses():
    """One step of SGD descends on lambda L_c + (1 - lambda) L_d, L_d against the network before."""
    phases = continual.split(task(40), phases=2)
    one = protocols.Protocol("one", steps=1, optimizer="sgd", learning_rate=0.5, loss="cross_entropy")
    start = MLP.init(jax.random.key(1), jnp.zeros((1, 4, 4, 1)))
    made = continual.random(jax.random.key(2), phases[1], 3)
    share, before = 0.3, train.Network(dict(start))
    learner = continual.Learner(MLP, one, distillation=share, temperature=3.0)
    lesson = continual.Lesson(made.x, made.y, jnp.array([1.0, 1.0, 0, 0]), jnp.ones(4))
    got = jax.jit(learner.study)(jax.random.key(0), before, lesson).variables

    def loss(params):
        logits, old = MLP.apply({"params": params}, made.x), MLP.apply(before.variables, made.x)
        hard = -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(6), labels.classes(made.y)])
        soft = sum(
            jnp.sum(jax.nn.softmax(b[:2] / 3) * (jax.nn.log_softmax(b[:2] / 3) - jax.nn.log_softmax(a[:2] / 3)))
            for a, b in zip(logits, old)
        )
        return (1 - share) * hard + share * 9 * soft / 6

    slopes = jax.grad(loss)(before.variables["params"])
    for a, b, g in zip(*map(jax.tree.leaves, (got["params"], before.variables["params"], slopes))):
        np.testing.assert_allclose(a, b - 0.5 * g, atol=1e-5)


def networks_for(model, *, count=1, known=()):
    """Fresh networks as a builder gets them."""
    keys = jax.random.split(jax.random.key(3), count)
    variables = jax.vmap(lambda key: model.init(key, jnp.zeros((1, 4, 4, 1))))(keys)
    return continual.Networks(model, variables, jnp.ones(4), None)


def test_herding_follows_the_mean_of_normalised_features():
    """iCaRL, algorithm 4, image after image."""
    phase, given = continual.split(task(), phases=2, order=[3, 1, 0, 2])[0], networks_for(MLP)
    made = continual.herding(block_size=7).build(jax.random.key(0), phase, 4, given)
    one = jax.tree.map(lambda leaf: leaf[0], given.variables)
    for i, c in enumerate((1, 3)):
        x = phase.x_train[phase.train_labels == c]
        f = np.asarray(MLP.apply(one, x, features=True)[1], np.float64)
        f /= np.linalg.norm(f, axis=1, keepdims=True)
        summed, rows = np.zeros(f.shape[1]), []
        for t in range(1, 5):
            gaps = [np.inf if j in rows else np.linalg.norm(f.mean(0) - (summed + g) / t) for j, g in enumerate(f)]
            rows.append(int(np.argmin(gaps)))
            summed += f[rows[-1]]
        np.testing.assert_array_equal(made.x[4 * i : 4 * i + 4], x[rows])
    np.testing.assert_allclose(made.y, labels.one_hot(np.array([1] * 4 + [3] * 4), 4), atol=1e-6)


@pytest.mark.slow
def test_exemplars_lower_the_loss_of_the_network_that_trains_on_them():
    phase, given = continual.split(task(), phases=2)[0], networks_for(MLP, count=2)
    inner = {"inner_steps": 3, "step_size": 0.1}
    builder = continual.mnemonics(epochs=20, learning_rate=0.05, optimizer="adam", batch_size=20, **inner)
    made = builder.build(jax.random.key(0), phase, 2, given)
    start = continual.random(jax.random.split(jax.random.key(0))[0], phase, 2)
    np.testing.assert_array_equal(made.y, start.y)
    low, high = phase.x_train.min(), phase.x_train.max()
    assert np.all(made.x >= low) and np.all(made.x <= high) and np.any(made.x != start.x)
    validation = Batch(jnp.asarray(phase.x_train), labels.one_hot(phase.train_labels, 4))
    one = jax.tree.map(lambda leaf: leaf[1], given.variables)

    def loss(x):
        options = {"seen": given.seen, **inner}
        return methods.mnemonics.outer_loss(MLP, one, x, labels.classes(made.y), validation, **options)[0]

    assert loss(made.x) < 0.8 * loss(start.x)
    old = builder.adjust(jax.random.key(0), start, given)
    assert old.x.shape == start.x.shape and np.any(old.x != start.x)
    np.testing.assert_array_equal(old.y, start.y)
    assert continual.mnemonics(adjust_steps=0).adjust is None


@pytest.mark.slow
def test_networks_see_a_phase_before_its_exemplars_and_old_ones_are_adjusted():
    """Order of arXiv:2002.10211, algorithm 1, and the share of a fixed total in it."""
    seen, lessons = [], []

    def build(key, phase, ipc, networks):
        seen.append((phase.number, ipc, np.asarray(networks.seen).tolist(), len(networks.variables["params"])))
        seen.append(None if networks.kept is None else len(networks.kept.x))
        so_far = np.concatenate([one.x_train for one in phases[: phase.number + 1]])
        axes = tuple(range(so_far.ndim - 1))
        np.testing.assert_array_equal(networks.low, so_far.min(axis=axes))
        np.testing.assert_array_equal(networks.high, so_far.max(axis=axes))
        return continual.random(key, phase, ipc)

    def adjust(key, old, networks):
        lessons.append(len(old.x))
        return old._replace(x=old.x + 1)

    phases = continual.split(task(), phases=4)
    few = QUICK._replace(steps=1)
    options = {"learner": "rehearsal", "protocol": few, "networks": 1}
    found = continual.evaluate(phases, continual.Taught(build, adjust), MLP, total=9, **options)
    assert [one[:2] for one in seen[::2]] == [(0, 9), (1, 4), (2, 3), (3, 2)]
    assert seen[4][2] == [1, 1, 1, 0] and seen[1::2] == [None, 4, 6, 6] and lessons == [4, 6, 6]
    assert found.memory.tolist() == [9, 8, 9, 8]


def lucir_lesson():
    phases = continual.split(task(80), phases=2)
    made = continual.random(jax.random.key(2), phases[0], 3)
    both = Distilled(jnp.concatenate([made.x, phases[1].x_train]),
                     jnp.concatenate([made.y, labels.one_hot(phases[1].train_labels, 4)]))  # fmt: skip
    return continual.Lesson(*both[:2], jnp.array([1.0, 1.0, 0, 0]), jnp.ones(4))


@pytest.mark.slow
def test_lucirs_step_is_its_formula():
    """CE + lambda (1 - cos) + margin, a step of SGD with weight decay; old weights stay, new ones are imprinted."""
    one = protocols.Protocol(
        "one", steps=1, optimizer="sgd", learning_rate=0.1, loss="cross_entropy", weight_decay=0.01, batch_size=1000
    )
    lesson, before = lucir_lesson(), train.Network(dict(COSINE.init(jax.random.key(1), jnp.zeros((1, 4, 4, 1)))))
    learner = continual.Lucir(COSINE, one, base_weight=3.0, margin=0.4, top=1)
    start = jax.jit(learner.prepare)(before.variables, lesson)["params"]
    classes = np.asarray(labels.classes(lesson.y))
    kernel, old_kernel = np.asarray(start["head"]["kernel"]), np.asarray(before.variables["params"]["head"]["kernel"])
    np.testing.assert_array_equal(kernel[:, :2], old_kernel[:, :2])
    norms = np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(norms[2:], norms[:2].mean(), rtol=1e-5)
    got = jax.jit(learner.study)(jax.random.key(0), before, lesson).variables["params"]

    def loss(params):
        logits, h = COSINE.apply({"params": params}, lesson.x, features=True)
        h_old = COSINE.apply(before.variables, lesson.x, features=True)[1]
        scores = logits / params["head"]["scale"]
        cost = -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(classes)), classes])
        unit = lambda a: a / jnp.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
        cost += 3.0 * (2 / 2) ** 0.5 * jnp.mean(1 - jnp.sum(unit(h) * unit(h_old), axis=1))
        old = classes < 2
        gaps = 0.4 - scores[old, classes[old]] + jnp.max(scores[old, 2:], axis=1)
        return cost + jnp.mean(jnp.maximum(gaps, 0)) + 0.005 * sum(jnp.sum(a**2) for a in jax.tree.leaves(params))

    expected = jax.tree.map(lambda a, g: a - 0.1 * g, start, jax.grad(loss)(start))
    expected["head"]["kernel"] = jnp.where(jnp.arange(4) < 2, start["head"]["kernel"], expected["head"]["kernel"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), got, expected)
    np.testing.assert_array_equal(got["head"]["kernel"][:, :2], old_kernel[:, :2])


def test_lucir_gives_classes_that_have_not_come_no_chance():
    learner = continual.Lucir(COSINE, QUICK)
    variables = dict(COSINE.init(jax.random.key(1), jnp.zeros((1, 4, 4, 1))))
    found = learner.outputs(train.Network(variables), lucir_lesson().x, jnp.array([1, 1, 0, 0]))
    assert set(np.asarray(labels.classes(found))) <= {0, 1} and np.all(np.isfinite(found))


def test_weight_transfer_trains_scales_and_leaves_kernels():
    model = models.get("convnet", num_classes=4, width=2, depth=1, pad_grey=False)
    learner = continual.Learner(model, QUICK._replace(steps=3, learning_rate=0.1), weight_transfer=True)
    lesson, start = lucir_lesson(), dict(model.init(jax.random.key(1), jnp.zeros((1, 4, 4, 1))))
    prepared = learner.network(learner.prepare(start, lesson))
    jax.tree.map(np.testing.assert_array_equal, prepared, start)
    after = jax.jit(learner.study)(jax.random.key(0), train.Network(start), lesson).variables
    params, before = after["params"], start["params"]
    np.testing.assert_array_equal(params["conv0"]["kernel"], before["conv0"]["kernel"])
    assert np.any(params["head"]["kernel"] != before["head"]["kernel"])
    ratio = np.asarray(learner.network(after)["params"]["conv0"]["kernel"] / before["conv0"]["kernel"])
    np.testing.assert_allclose(ratio, np.broadcast_to(params["scales"]["conv0"]["kernel"], ratio.shape), rtol=1e-5)
    assert np.any(np.abs(ratio - 1) > 1e-3)


@pytest.mark.slow
def test_every_memory_goes_with_both_learners():
    """Random, herded and learned exemplars; a plain learner with distillation, LUCIR with balanced epochs."""
    phases = continual.split(task(), phases=2)
    quick = QUICK._replace(steps=60)
    learners = (continual.Learner(MLP, quick, distillation=0.5), continual.Lucir(COSINE, quick, balanced_epochs=5))
    inner = {"inner_steps": 3, "step_size": 0.1, "learning_rate": 0.05, "optimizer": "adam"}
    builders = (continual.random, continual.herding(), continual.mnemonics(epochs=5, start="herding", **inner))
    for learner in learners:
        for builder in builders:
            found = continual.evaluate(phases, builder, ipc=4, learner=learner, networks=1)
            assert found.average_accuracy()[0] > 0.6 and found.memory.tolist() == [8, 16]


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
        (
            lambda: continual.split(task(), phases=3),
            r"is 4, which is not divisible by phases \(3\); 4 classes can come in 1, 2, 4 phases",
        ),
        (
            lambda: continual.split(task(), phases=2, first=1),
            r"after the first phase is 3, which is not divisible by phases \(2\); 3 classes can come in 1, 3 phases",
        ),
        (lambda: continual.split(task(), phases=0), "phases is 0"),
        (
            lambda: KIP(jax.random.key(0), continual.split(task(), phases=4)[1], 1),
            "phase 2 has one class and the method",
        ),
        (lambda: continual.split(task(), phases=2, first=4), "leave some"),
        (lambda: continual.split(task(), phases=2, order=[0, 0, 1, 2]), "expected every class 0..3"),
        (lambda: evaluate(total=3), "below one image"),
        (lambda: evaluate(), "set one of them"),
        (lambda: evaluate(ipc=1, learner="lwf"), "choose one of gdumb"),
        (lambda: evaluate(ipc=1, distillation=0.5), "set another learner"),
        (lambda: evaluate(ipc=1, builder=continual.given([])), "phase 1 needs its own"),
        (lambda: evaluate(ipc=1, builder=continual.given([wrong_classes()])), "expected at least 1 of classes 0, 1"),
        (lambda: evaluate(ipc=41), "lower ipc"),
        (lambda: evaluate(ipc=1, builder=continual.herding()), "choose a learner that sees all of it"),
        (lambda: evaluate(ipc=1, learner="lucir"), "build it with classifier='cosine'"),
        (lambda: evaluate(ipc=41, builder=continual.herding(), learner="rehearsal"), "lower ipc"),
        (lambda: evaluate(ipc=1, builder=continual.mnemonics(epochs=1), learner="rehearsal"), "needs 2 images of each"),
        (lambda: continual.mnemonics(step_size=0.0), "step_size is 0.0"),
        (lambda: evaluate(ipc=1, model=None), "give a flax module"),
        (lambda: continual.mnemonics(epochs=0), "epochs is 0"),
        (lambda: continual.mnemonics(start="noise"), "choose one of random, herding"),
        (lambda: continual.mnemonics(level="prototypes"), "set adjust_steps to 0"),
        (lambda: continual.mnemonics(adjust_rate=0.0), "adjust_rate is 0.0"),
        (lambda: continual.mnemonics(adjust_rate=float("nan")), "adjust_rate is nan"),
        (lambda: continual.Learner(MLP, QUICK, goes_on=False, weight_transfer=True), "set another learner"),
        (lambda: continual.Learner(MLP, QUICK, temperature=0.0), "temperature is 0.0"),
        (
            lambda: evaluate(ipc=1, learner=continual.Learner(MLP, QUICK, weight_transfer=True)),
            "the network has none; leave it out",
        ),
        (lambda: continual.Lucir(COSINE, QUICK, distillation=0.5), "set distillation to 0"),
        (lambda: continual.Lucir(COSINE, QUICK, top=0), "top is 0"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(checks.InputError, match=words):
        call()


def evaluate(builder=continual.random, model=MLP, **options):
    options = {"protocol": QUICK._replace(steps=1), "networks": 1, **options}
    return continual.evaluate(continual.split(task(), phases=2), builder, model, **options)


def wrong_classes():
    return Distilled(jnp.zeros((2, 4, 4, 1)), labels.one_hot(np.array([0, 2]), 4))
