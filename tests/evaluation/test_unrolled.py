"""Evaluation of unrolled sets: training as the set was made, nearest neighbours, other numbers of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.evaluation import _real_sets, flexibility, label_training, neighbours, protocols, unrolled
from kipjax.evaluation.result import Task
from kipjax.types import Distilled
from tests.reference import networks
from tests.reference import unroll as reference

K, D, N = 3, 4, 60


def problem():
    """A task of three clusters, and their centres as a set of two steps."""
    rng = np.random.default_rng(0)
    centres, classes = 2 * rng.normal(size=(K, D)), np.arange(N) % K
    x = (centres[classes] + 0.3 * rng.normal(size=(N, D))).astype(np.float32)
    task = Task(x, classes, x[::-1], classes[::-1], K)
    y = np.repeat(np.eye(K, dtype=np.float32), 2, axis=0)
    return Distilled(np.repeat(centres, 2, axis=0).astype(np.float32), y, np.full(6, 0.3, np.float32)), task


def test_networks_are_trained_as_in_numpy():
    made, task = problem()
    w = np.random.default_rng(1).normal(size=(2, D, K)).astype(np.float32)
    starts = {"params": {"head": {"kernel": jnp.asarray(w)}}}
    results = unrolled.evaluate(
        made, task, networks.Linear(K), inner_steps=2, networks=starts, subset_seeds=2, tune=False, block_size=7
    )
    assert [r.trained_on for r in results] == ["distilled", "random subset"]
    for start, found in zip(w, results[0].accuracies):
        batches = [(made.x[s::2], made.y[s::2]) for s in range(2)]
        end = reference.trained(start, batches, made.lr)
        expected = np.mean((task.x_test @ end).argmax(axis=1) == task.test_labels)
        assert found == pytest.approx(expected, abs=1e-6)
    assert len(results[1].accuracies) == 2


def test_fresh_networks_differ_and_the_step_size_of_baselines_is_chosen_on_training_images():
    made, task = problem()
    model = networks.Small(K)
    accuracies, errors = unrolled.trained_accuracies(
        jax.random.key(0), model, made, task.x_test, task.test_labels, inner_steps=2, count=4
    )
    assert len(set(np.asarray(errors).tolist())) == 4 and np.all(accuracies <= 1)
    useless = made._replace(lr=np.zeros(6, np.float32))
    chosen = unrolled.step_size_for(jax.random.key(0), model, useless, task, inner_steps=2)
    assert float(chosen.lr[0]) in [pytest.approx(v) for v in unrolled.GRID]


def test_every_baseline_by_its_own_step_size_and_epochs(monkeypatch):
    made, task = problem()
    monkeypatch.setattr(unrolled, "_CANDIDATES", 10)
    monkeypatch.setattr(unrolled, "_NETWORKS", 2)
    model, useless = networks.Linear(K), made._replace(lr=np.zeros(6, np.float32))
    results = unrolled.evaluate(
        useless, task, model, inner_steps=2, seeds=2, baselines=list(unrolled.BASELINES), epochs=(1, 3)
    )
    assert [r.trained_on for r in results] == ["distilled", *unrolled.BASELINES.values()]
    assert {len(r.accuracies) for r in results} == {2} and {r.size for r in results} == {6}
    by = {r.trained_on: np.mean(r.accuracies) for r in results}
    assert by["average real images"] > 0.8 > by["distilled"], "a step size of its own, where the set's is 0"
    chosen = unrolled.step_size_for(jax.random.key(0), model, useless, task, inner_steps=2, epochs=(1, 5))
    assert len(chosen.lr) in (2, 10)


def test_baselines_by_hand(monkeypatch):
    made, task = problem()
    means = np.stack([task.x_train[task.train_labels == c].mean(axis=0) for c in range(K)])
    for some in (_real_sets.averages(task, 6), _real_sets.clusters(jax.random.key(0), task, 3)):
        copies = len(some.x) // K
        np.testing.assert_allclose(some.x, means.repeat(copies, axis=0), atol=1e-5)  # one cluster is the mean
        np.testing.assert_array_equal(some.y, np.eye(K).repeat(copies, axis=0))
    two = np.asarray(_real_sets.clusters(jax.random.key(0), task, 6).x).reshape(K, 2, D)
    for c in range(K):  # each centre is the mean of the images nearest to it
        own = task.x_train[task.train_labels == c]
        nearest = ((own[:, None] - two[c]) ** 2).sum(axis=-1).argmin(axis=1)
        np.testing.assert_allclose(two[c], np.stack([own[nearest == i].mean(axis=0) for i in range(2)]), atol=1e-5)
    # "optimised" keeps the sets with the highest scores on training images
    monkeypatch.setattr(unrolled, "_CANDIDATES", 10)
    order = [0.1, 0.9, 0.2, 0.3, 0.8, 0.4, 0.5, 0.6, 0.7, 0.0]
    scores, seen = iter(order), []

    def scored(key, model, distilled, x, classes, **options):
        seen.append(distilled)
        return np.array([next(scores)]), np.array([0.0])

    monkeypatch.setattr(unrolled, "trained_accuracies", scored)
    keys = jax.random.split(jax.random.key(0))
    kept = unrolled._baseline("optimised", *keys, None, made, task, 2, None, {"inner_steps": 2})
    assert [some is seen[i] for (_, some), i in zip(kept, (1, 4))] == [True, True] and len(kept) == 2


def test_sets_that_do_not_fit():
    made, task = problem()
    with pytest.raises(checks.InputError, match="has 3 classes; it needs one column"):
        unrolled.evaluate(made._replace(y=made.y[:, :2]), task, networks.Linear(K), inner_steps=2)
    for wrong, words in (
        ({"baselines": ["best"]}, "baseline is 'best'; choose one of random, optimised, kmeans, average"),
        ({"epochs": (1, 3), "momentum": np.full(6, 0.5)}, "momentum has one entry for each step"),
        ({"epochs": (0,)}, "each of epochs is 0"),
        ({"subset_seeds": -1}, "subset_seeds is -1"),
        ({"block_size": 0}, "block_size is 0"),
    ):
        with pytest.raises(checks.InputError, match=words):
            unrolled.evaluate(made, task, networks.Linear(K), inner_steps=2, **wrong)
    for lr in (None, np.full(3, 0.1)):
        with pytest.raises(checks.InputError, match="expected one step size for each step: 2 batches"):
            unrolled.evaluate(made._replace(lr=lr), task, networks.Linear(K), inner_steps=2)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_neighbours(p):
    made, task = problem()
    distance = (np.abs(task.x_test[:, None] - made.x[None]) ** p).sum(axis=-1)
    expected = made.y[distance.argmin(axis=1)].argmax(axis=1)
    np.testing.assert_array_equal(neighbours.predict(made, task.x_test, p=p), expected)
    soft = made._replace(y=0.2 + 0.3 * made.y)
    np.testing.assert_array_equal(neighbours.predict(soft, task.x_test, p=p), expected)
    results = neighbours.evaluate(made, task, seeds=3, p=p)
    assert results[0].accuracies[0] == np.mean(expected == task.test_labels) and len(results[1].accuracies) == 3
    with pytest.raises(checks.InputError, match="neighbours is 7"):
        neighbours.predict(made, task.x_test, neighbours=7)
    with pytest.raises(checks.InputError, match="it needs one column each"):
        neighbours.evaluate(made._replace(y=made.y[:, :2]), task)
    with pytest.raises(checks.InputError, match=r"x has NaN"):
        neighbours.predict(made, np.full_like(task.x_test, np.nan))
    with pytest.raises(checks.InputError, match=r"distilled.x"):
        neighbours.predict(made, np.asarray(task.x_test)[:, :-1])


@pytest.mark.parametrize("room", [unrolled, label_training, neighbours])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"test_labels": [0, K]}, "task.test_labels spans 0..3"),
        ({"test_labels": [0]}, "task.test_labels has shape"),
        ({"train_labels": [0, 1]}, "task.train_labels has shape"),
    ],
)
def test_labels_that_are_not_those_of_the_task(room, changed, words):
    made, task = problem()
    changed = {name: np.array(value) for name, value in changed.items()}
    if words.startswith("task.test"):
        changed["x_test"] = task.x_test[:2]
    more = {unrolled: {"inner_steps": 2}}.get(room, {})
    networks_of = () if room is neighbours else (networks.Linear(K),)
    with pytest.raises(checks.InputError, match=words):
        room.evaluate(made, task._replace(**changed), *networks_of, **more)


def test_flexibility():
    made, task = problem()
    protocol = protocols.NAMED["ld"]._replace(steps=20, learning_rate=0.05)
    options = {"seeds": 1, "subset_seeds": 0}
    found = flexibility.step_counts(made, task, networks.Linear(K), protocol=protocol, offsets=(-30, 0, 10), **options)
    assert list(found) == [20, 30]
    assert found[30][0].accuracies[0] > 0.8
    with pytest.raises(checks.InputError, match="steps 20; give one of -19 or more"):
        flexibility.step_counts(made, task, networks.Linear(K), protocol=protocol, offsets=(-20, -30))
    by = flexibility.optimizers(made, task, networks.Linear(K), protocol=protocol, **options)
    assert set(by) == {"adam", "sgd"}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["ridge", "second_order"])
def test_sets_of_labels_are_tested_in_their_own_form(form, monkeypatch):
    made, task = problem()
    training = label_training.Training(form)
    made = made._replace(y=made.y - 1 / K, lr=None)  # as centred ones, they are shifted to sum to one
    tried = []

    def steps_for(key, distilled, rest, model, **options):
        tried.append(distilled)
        return chosen(key, distilled, rest, model, **options)

    chosen = label_training.steps_for
    monkeypatch.setattr(label_training, "STEPS", (1, 30))
    monkeypatch.setattr(label_training, "steps_for", steps_for)
    results = label_training.evaluate(
        made, task, networks.Small(K), training=training, steps=200, seeds=1, subset_seeds=2
    )
    assert [(r.trained_on, len(r.accuracies)) for r in results] == [("distilled", 1), ("random subset", 2)]
    assert results[0].accuracies[0] > 0.8 and len(tried) == 1, "only true labels need a number of steps"
    np.testing.assert_allclose(np.sum(tried[0].y, axis=1), 1, rtol=1e-6)
    (x, _), rest = label_training._hold_out(jax.random.key(0), task, 1000)
    assert len(x) == N // 5 and len(rest.x_train) == N - N // 5
    rows = {tuple(row) for row in np.asarray(x)}
    assert not rows & {tuple(row) for row in rest.x_train}, "no image is in both"
    with pytest.raises(checks.InputError, match="form is 'first'; choose one of ridge, second_order"):
        label_training.evaluate(made, task, networks.Small(K), training=label_training.Training("first"))
    with pytest.raises(checks.InputError, match="optimizer is 'lion'; choose one of adam, sgd"):
        label_training.evaluate(made, task, networks.Small(K), training=training._replace(optimizer="lion"))
