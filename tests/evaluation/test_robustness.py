"""Robustness: networks and grids of KIP's transfer, many settings in one program, groups and gaps by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks, models
from kipjax.core import labels
from kipjax.evaluation import Task, robustness, train
from kipjax.types import Distilled
from tests.models.common import shapes

MLP = models.get("mlp", num_classes=3, width=4, depth=1)
SHORT = robustness.PROTOCOL._replace(steps=15, batch_size=8)


def task(n=90, seed=0):
    """Images of 4x4 with a bright row for the class."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % 3
    x = rng.normal(size=(n, 4, 4, 1)).astype(np.float32)
    x[np.arange(n), classes] += 2.0
    return Task(x[: n // 2], classes[: n // 2], x[n // 2 :], classes[n // 2 :], 3)


def subset(task, rows):
    return Distilled(jnp.asarray(task.x_train[rows]), labels.one_hot(task.train_labels[rows], 3))


def test_the_networks_are_those_of_the_paper():
    """Constant width, no pooling: 1024 units, 512 and 128 channels on every pixel of the image."""
    found = {}
    for name in robustness.NETWORKS:
        params = shapes(robustness.build(name, task()._replace(num_classes=10)), (1, 28, 28, 1))["params"]
        kernels = [layer["kernel"].shape for layer in params.values() if "kernel" in layer]
        found[name] = (len(kernels), kernels[-2][-1], params["head"]["kernel"].shape)
    for depth in (1, 2, 3):
        assert found[f"fc{depth}"] == (depth + 1, 1024, (1024, 10))
    assert found["conv2"] == (3, 512, (28 * 28 * 512, 10)) and found["conv8"] == (9, 128, (28 * 28 * 128, 10))
    assert found["lenet"][2] == (84, 10) and found["wide_resnet"][2] == (256, 10)
    small = robustness.build("conv2", task(), scale=0.01)
    assert small.width == 5 and robustness.build("wide_resnet", task(), scale=0.25).widen == 1
    assert robustness.build("mlp:batch", task()).norm == "batch"


@pytest.mark.slow
def test_a_grid_in_one_program_is_every_training_by_itself():
    """Learning rates and decays travel as numbers; optimizers and losses are programs."""
    data = task()
    sets = [subset(data, np.arange(12)), subset(data, np.arange(12, 24))]
    settings = robustness.grid(loss=["half_mse"], learning_rate=[1e-2, 1e-1], weight_decay=[0.0, 0.1])
    before = robustness._said._cache_size()
    options = {"protocol": SHORT, "key": jax.random.key(1), "seeds": 2}
    said = robustness.predictions(sets, data.x_test, MLP, settings, **options)
    assert robustness._said._cache_size() == before + 2 and said.shape == (8, 2, 45)
    keys = jax.random.split(jax.random.key(1), 2)
    for i in (1, 6):
        one = settings[i]
        fixed = SHORT._replace(
            optimizer=one.optimizer, loss=one.loss, momentum=0.9, learning_rate=one.learning_rate,
            weight_decay=one.weight_decay,
        )  # fmt: skip
        for seed in range(2):
            trained = jax.jit(lambda key, made, fixed=fixed: train.fit(key, MLP, made, protocol=fixed))(
                keys[seed], sets[seed]
            )
            outputs = train.predict(MLP, trained, jnp.asarray(data.x_test), protocol=fixed)
            np.testing.assert_array_equal(said[i, seed], labels.classes(outputs))
    assert len({tuple(row.ravel()) for row in said}) > 4


def test_a_network_that_leaves_the_numbers_is_never_right():
    data = task()
    wild = robustness.grid(optimizer=["sgd"], loss=["half_mse"], learning_rate=[1e25], weight_decay=[0.0])
    said = robustness.predictions(
        [subset(data, np.arange(12))], data.x_test, MLP, wild, protocol=SHORT, key=jax.random.key(0), seeds=1
    )
    assert np.all(said == -1)


def test_scatter_scores_held_out_images_apart(monkeypatch):
    data, seen = task(), []
    settings = robustness.grid(optimizer=["adam"], loss=["half_mse"], learning_rate=[1e-2], weight_decay=[0.0])
    held = data.x_train[30:], (data.train_labels[30:] + 1) % 3
    rest = data._replace(x_train=data.x_train[:30], train_labels=data.train_labels[:30])

    def spy(sets, probes, *args, **options):
        seen.append((sets, probes))
        return np.tile(np.arange(len(probes)) % 3, (1, 2, 1))

    monkeypatch.setattr(robustness, "predictions", spy)
    made = subset(data, np.arange(6))
    (point,) = robustness.scatter(made, rest, {"mlp": MLP}, settings, held=held, protocol=SHORT, seeds=2)
    (first, probes), (second, _) = seen
    assert first[0] is made and len(second) == 2 and np.any(second[0].x != second[1].x)
    np.testing.assert_array_equal(probes[45:], held[0])
    assert not {image.tobytes() for image in held[0]} & {np.asarray(i).tobytes() for some in second for i in some.x}
    assert point.distilled.tolist() == [1.0, 1.0]  # test classes cycle
    assert point.distilled_validation.tolist() == point.natural_validation.tolist() == [0.0, 0.0]


def test_the_same_images_give_the_same_accuracies():
    data = task()
    made = subset(data, np.arange(6))
    settings = robustness.grid(optimizer=["adam"], loss=["half_mse"], learning_rate=[1e-2], weight_decay=[0.0])
    (point,) = robustness.scatter(made, data, {"mlp": MLP}, settings, natural=[made], protocol=SHORT, seeds=2)
    np.testing.assert_array_equal(point.distilled, point.natural)
    assert robustness.wins([point]) == 0.5


def point(distilled, natural, validation=((), ())):
    setting = robustness.Setting("adam", "half_mse", 0.1, 0.0)
    return robustness.Point("mlp", setting, *(np.array(a, float) for a in (distilled, natural, *validation)))


def test_best_and_wins_by_hand():
    points = [point([0.5, 0.7], [0.6, 0.6]), point([0.9, 0.8], [0.1, 0.2]), point([0.2, 0.2], [0.7, 0.5])]
    assert robustness.best(points, "distilled") is points[1] and robustness.best(points, "natural") is points[0]
    assert robustness.wins(points) == (0.5 + 1 + 0) / 3
    chosen = [point([0.9], [0.1], ([0.2], [0.3])), point([0.5], [0.4], ([0.6], [0.1]))]
    assert robustness.best(chosen, "distilled") is chosen[1] and robustness.best(chosen, "natural") is chosen[0]


def test_groups_of_brightness_divide_every_class():
    data = task(120)
    names, found = robustness.groups(data, "brightness", parts=4)
    assert len(names) == 4
    for c in range(3):
        rows = np.flatnonzero(data.test_labels == c)
        means = data.x_test[rows].mean(axis=(1, 2, 3))
        assert np.bincount(found[rows]).tolist() == [5] * 4
        assert all(means[found[rows] == i].max() < means[found[rows] == i + 1].min() for i in range(3))
    names, found = robustness.groups(data)
    assert names == ["class 0", "class 1", "class 2"] and np.array_equal(found, data.test_labels)


def test_clusters_find_what_a_class_is_made_of():
    """Each class has light images and dark ones; the groups are those."""
    data, rng = task(120), np.random.default_rng(1)
    light = [rng.integers(0, 2, 60) for _ in range(2)]
    data = data._replace(x_train=data.x_train + 20 * light[0][:, None, None, None].astype(np.float32),
                         x_test=data.x_test + 20 * light[1][:, None, None, None].astype(np.float32))  # fmt: skip
    names, found = robustness.groups(data, "cluster", parts=2)
    assert len(names) == 6 and np.array_equal(found // 2, data.test_labels)
    for c in range(3):
        rows = data.test_labels == c
        assert len(set(zip(found[rows], light[1][rows]))) == 2


def test_gaps_by_hand():
    said, truth = np.array([[0, 0, 1, 1, 1, 2], [0, 1, 1, 0, 0, -1]]), np.array([0, 0, 1, 1, 1, 2])
    found = robustness.fairness(said, truth, truth, 4)
    np.testing.assert_allclose(found.accuracies, [[1, 1, 1, np.nan], [0.5, 1 / 3, 0, np.nan]])
    np.testing.assert_allclose(found.gap(), [0, 0.5])
    np.testing.assert_allclose(found.worst(), [1, 0])
    np.testing.assert_allclose(found.spread(), [0, np.std([0.5, 1 / 3, 0])])
    np.testing.assert_allclose(found.overall, [1, 2 / 6])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: robustness.build("fc9", task()), "choose one of fc1, fc2"),
        (lambda: robustness.build("fc1", task(), scale=0.0), "scale is 0.0"),
        (lambda: robustness.grid(optimizer=["lamb"]), "choose one of adam, sgd"),
        (lambda: robustness.grid(loss=["hinge"]), "choose one of half_mse"),
        (lambda: robustness.grid(learning_rate=[0.0]), "learning_rate is 0.0; it must be above"),
        (lambda: robustness.grid(weight_decay=[]), "weight_decay is empty"),
        (lambda: robustness.grid(weight_decay=[0.0, 0.0]), "give every value once"),
        (lambda: scatter(networks={}), "networks is empty"),
        (lambda: scatter(held=(np.ones((2, 4, 4, 1)), [0])), "same number of rows"),
        (lambda: scatter(held=(np.ones((2, 5, 5, 1)), [0, 1])), "they must agree"),
        (lambda: scatter(made=Distilled(jnp.ones((2, 5, 5, 1)), jnp.eye(3)[:2])), "must agree"),
        (lambda: scatter(made=Distilled(jnp.ones((2, 4, 4, 1)), jnp.eye(2))), "y has 2 columns and classes has 3"),
        (lambda: robustness.groups(task(), "gender"), "choose one of class, brightness, cluster"),
        (lambda: robustness.groups(task(), "brightness", parts=16), "a class has 15 test images; lower parts"),
        (lambda: robustness.fairness(np.zeros((1, 3)), np.zeros(2), np.zeros(2, int), 1), r"expected \[networks, 2\]"),
        (lambda: predictions([np.arange(6), np.arange(3)]), "the sets are of 2 sizes or shapes"),
        (lambda: robustness.best([], "natural"), "there are no points"),
        (lambda: robustness.wins([]), "there are no points"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(checks.InputError, match=words):
        call()


def predictions(some):
    data = task()
    sets = [subset(data, rows) for rows in some]
    return robustness.predictions(sets, data.x_test, None, robustness.grid(), key=jax.random.key(0), seeds=2)


def scatter(made=None, networks=None, **options):
    data = task()
    made = subset(data, np.arange(6)) if made is None else made
    networks = {"mlp": MLP} if networks is None else networks
    return robustness.scatter(made, data, networks, robustness.grid(), protocol=SHORT, **options)
