"""Architecture search: the space, rank correlations against definitions, networks together against each alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.core import labels
from kipjax.evaluation import Task, nas, protocols, train
from kipjax.types import Distilled

QUICK = protocols.Protocol("quick", steps=4, batch_size=64, optimizer="sgd", momentum=0.9, learning_rate=0.05)


def task(n=60, k=3, seed=0):
    """Images of 4x4 with a bright row for the class."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % k
    x = rng.normal(size=(n, 4, 4, 3)).astype(np.float32)
    x[np.arange(n), classes] += 2.0
    return Task(x[: n // 2], classes[: n // 2], jnp.asarray(x[n // 2 :]), classes[n // 2 :], k)


def whole(task):
    return Distilled(jnp.asarray(task.x_train), labels.one_hot(task.train_labels, task.num_classes))


def ranks(values):
    """Average ranks by counting."""
    values = np.asarray(values)
    return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


def kendall(a, b):
    """tau-b by pairs."""
    da, db = (np.sign(np.subtract.outer(v, v))[np.triu_indices(len(v), 1)] for v in (np.asarray(a), np.asarray(b)))
    return np.sum(da * db) / np.sqrt(np.sum(da != 0) * np.sum(db != 0))


def test_the_space_has_720_networks():
    space = nas.space()
    assert len(space) == len(set(space)) == 720
    assert {one.width for one in space} == {32, 64, 128, 256} and {one.depth for one in space} == {1, 2, 3, 4}
    assert len(nas.space(width=[32, 64], norm=["none"])) == 2 * 4 * 3 * 3
    model = nas.build(nas.Architecture(64, 2, "group", "leaky", "max"), 10)
    assert (model.width, model.depth, model.norm, model.activation, model.pool) == (64, 2, "group", "leaky", "max")
    assert model.initial == "torch" and not model.doubling


def test_correlations_are_their_definitions():
    rng = np.random.default_rng(0)
    a, b = np.round(rng.uniform(size=30), 1), np.round(rng.uniform(size=30), 1)
    found = nas.correlation(a, b)
    assert found.spearman == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1])
    assert found.kendall == pytest.approx(kendall(a, b)) and found.n == 30
    assert nas.correlation(a, a)[:2] == pytest.approx((1, 1))
    assert nas.correlation(a, -a)[:2] == pytest.approx((-1, -1))
    assert nas.correlation(a, np.exp(3 * b)) == pytest.approx(found), "ranks alone count"


def test_correlation_of_the_best():
    proxy, full = np.array([0.9, 0.8, 0.7, 0.1, 0.2]), np.array([0.5, 0.6, 0.7, 0.9, 0.8])
    assert nas.correlation(proxy, full, top=3)[:2] == pytest.approx((-1, -1))
    assert nas.correlation(proxy, full, top=0.6) == nas.correlation(proxy, full, top=3)
    by_full = nas.correlation(proxy, full, top=2, by="full")
    assert by_full.n == 2 and by_full.spearman == pytest.approx(-1)
    assert nas.correlation(np.zeros(720), np.zeros(720), top=0.1).n == 72
    assert np.isnan(nas.correlation([1, 1, 1], [1, 2, 3]).spearman), "no ranking, no correlation"


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [1, 6])
def test_networks_together_are_the_networks_alone(parallel):
    found, space = task(), nas.space(width=[2], depth=[1], norm=["batch"], pool=["max", "avg"])
    key = jax.random.key(3)
    made = nas.search(space, whole(found), found.x_test, found.test_labels, protocol=QUICK, key=key, parallel=parallel)
    assert made.accuracies.shape == (6, 1) and made.images == 30 and made.seconds > 0
    for i in (1, 4):
        number = int.from_bytes(str(space[i]).encode(), "big") % (2**31 - 1)
        alone = jax.random.split(jax.random.fold_in(key, number), 1)[0]
        model = nas.build(space[i], 3)
        trained = train.fit(alone, model, whole(found), protocol=QUICK)
        outputs = train.predict(model, trained, found.x_test, protocol=QUICK)
        assert made.accuracies[i, 0] == pytest.approx(np.mean(np.argmax(outputs, 1) == found.test_labels)), space[i]
    assert len(set(made.accuracies[:, 0])) > 1


def test_a_network_does_not_depend_on_its_company():
    found, space = task(), nas.space(width=[2], depth=[1], norm=["none"], pool=["avg"])
    options = {"protocol": QUICK, "seeds": 2, "parallel": 1}
    many = nas.search(space, whole(found), found.x_test, found.test_labels, **options)
    one = nas.search(space[1:2], whole(found), found.x_test, found.test_labels, **options)
    np.testing.assert_array_equal(many.accuracies[1], one.accuracies[0])


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_set_is_trained_on_as_it_was_unrolled(norm):
    """Its batches in their order, by its own step sizes and momenta: against a loop over the steps."""
    found, lr, momentum = task(), jnp.array([0.3, 0.01, 0.5, 0.1]), np.array([0.0, 0.9, 0.5, 0.2], np.float32)
    made = Distilled(whole(found).x[:6], whole(found).y[:6] * 0.8, lr)
    one = nas.space(width=[2], depth=[1], norm=[norm], activation=["leaky"], pool=["avg"])
    options = {"key": jax.random.key(3), "seeds": 2}
    search = functools.partial(nas.search, one, made, found.x_test, found.test_labels, **options)
    ours = search(curriculum=nas.Curriculum(2, momentum))
    number = int.from_bytes(str(one[0]).encode(), "big") % (2**31 - 1)
    model, expected = nas.build(one[0], 3), []
    for key in jax.random.split(jax.random.fold_in(options["key"], number), 2):
        variables = train.fresh(key, model, made)
        memory = jax.tree.map(jnp.zeros_like, variables["params"])
        for t in range(4):
            x, y = made.x[t % 2 :: 2], made.y[t % 2 :: 2]

            def loss(params, variables=variables, x=x, y=y):
                outputs, new = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
                return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(outputs), axis=1)), new

            gradient, new = jax.grad(loss, has_aux=True)(variables["params"])
            memory = jax.tree.map(lambda m, g, mu=momentum[t]: mu * m + g, memory, gradient)
            params = jax.tree.map(lambda p, m, rate=lr[t]: p - rate * m, variables["params"], memory)
            variables = {**variables, **new, "params": params}
        said = np.argmax(model.apply(variables, found.x_test), axis=1)
        expected.append(np.mean(said == found.test_labels))
    np.testing.assert_allclose(ours.accuracies[0], expected, atol=1e-6)
    assert not np.array_equal(search().accuracies, ours.accuracies), "the protocol's training is another one"
    with pytest.raises(checks.InputError, match="expected one step size for each step: 3 batches"):
        search(curriculum=nas.Curriculum(3))
    for wrong in (np.nan, -5.0, "a"):
        with pytest.raises(checks.InputError, match=r"curriculum.momentum is .*; expected numbers of 0 or more"):
            search(curriculum=nas.Curriculum(2, wrong))
    with pytest.raises(checks.InputError, match="curricula has small, which is no proxy; they are Small"):
        nas.evaluate(found, one, {"Small": made}, curricula={"small": nas.Curriculum(2)})


@pytest.mark.slow
def test_searches_on_proxies_early_stopping_and_all():
    found, space = task(), nas.space(width=[2], depth=[1], norm=["none"], activation=["relu", "leaky"], pool=["avg"])
    held = found.x_train[24:], found.train_labels[24:]
    found = found._replace(x_train=found.x_train[:24], train_labels=found.train_labels[:24])
    small, other = (Distilled(whole(found).x[i : i + 6], whole(found).y[i : i + 6]) for i in (0, 6))
    full = QUICK._replace(steps=60)
    searches = nas.evaluate(
        found, space, {"first": small, "two": [small, other]}, protocol=QUICK._replace(epochs=3, steps=0),
        full_protocol=full, held=held, seeds=2,
    )  # fmt: skip
    assert [(s.proxy, s.images) for s in searches] == [
        *(("first", 6), ("two", 6), ("two", 6)), ("early stopping", 24), ("whole set", 24)
    ]  # fmt: skip
    np.testing.assert_array_equal(searches[0].accuracies, searches[1].accuracies)
    assert all(s.accuracies.shape == (2, 2) for s in searches)
    assert np.allclose(searches[0].accuracies * 6, np.round(searches[0].accuracies * 6)), "six images score it"
    assert searches[-1].accuracies.mean() > 0.6 > searches[3].accuracies.mean(), "three steps against sixty"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"norm": ["batchnorm"]}, "choose one of none, batch"),
        ({"activation": ["gelu"]}, "choose one of"),
        ({"pool": ["min"]}, "choose one of"),
        ({"depth": [0]}, "whole number"),
        ({"width": []}, "width is empty"),
        ({"width": [32, 32]}, "every value once"),
        ({"width": [6]}, "not divisible"),
    ],
)
def test_unknown_words(words, message):
    with pytest.raises(checks.InputError, match=message):
        nas.space(**words)


def test_searches_come_one_by_one(monkeypatch):
    """Early stopping once for each number of steps that a proxy has."""
    done, found = [], task()

    def search(architectures, made, x, classes, *, protocol, name, curriculum=None, **options):
        done.append((name, len(made.lr) if curriculum else protocols.steps(protocol, len(made.x))))
        return nas.Search(name, len(made.x), np.zeros((1, 1)), 0.0, 0.0)

    monkeypatch.setattr(nas, "search", search)
    small = Distilled(whole(found).x[:6], whole(found).y[:6])
    large = Distilled(*(jnp.tile(a, (10,) + (1,) * (a.ndim - 1)) for a in whole(found)[:2]))
    rest = nas.searches(
        found, [], {"small": [small, small], "large": large}, protocol=QUICK._replace(epochs=3, steps=0)
    )
    assert next(rest).proxy == "small" and len(done) == 1
    assert [one.proxy for one in rest] == [
        "small", "large", "early stopping, 3 steps", "early stopping, 15 steps", "whole set"
    ]  # fmt: skip
    assert done[2:5] == [("large", 15), ("early stopping, 3 steps", 3), ("early stopping, 15 steps", 15)]
    unrolled = {"small": nas.Curriculum(2)}
    small, done[:] = small._replace(lr=np.ones(4)), []
    assert len(nas.evaluate(found, [], {"small": small}, curricula=unrolled, protocol=QUICK)) == 3
    assert done[:2] == [("small", 4), ("early stopping", 4)], "as many steps as the set has step sizes"


def test_bad_input():
    found = task()
    deep = nas.space(width=[2], depth=[4], norm=["none"], activation=["relu"], pool=["avg"])
    with pytest.raises(checks.InputError, match=r"w2 d4 none relu avg.*leave it out"):
        nas.search(deep, whole(found), found.x_test, found.test_labels)
    with pytest.raises(checks.InputError, match="proxies is empty"):
        nas.evaluate(found, deep, {})
    two = whole(found)._replace(y=whole(found).y[:, :2])
    with pytest.raises(checks.InputError, match="classes spans 0"):
        nas.search(nas.space(width=[2], depth=[1], norm=["none"]), two, found.x_test, found.test_labels)
    with pytest.raises(checks.InputError, match="at least 2 of them; raise top"):
        nas.correlation([1, 2, 3], [1, 2, 3], top=0.1)
    with pytest.raises(checks.InputError, match=r"top = 4 of 3 networks is 4; .*; lower top"):
        nas.correlation([1, 2, 3], [1, 2, 3], top=4)
    with pytest.raises(checks.InputError, match="same number of rows"):
        nas.correlation([1, 2, 3], [1, 2])
