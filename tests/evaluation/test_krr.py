"""Kernel ridge regression as an evaluation, and the transfer table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.evaluation import PROTOCOLS, Result, Task, krr, metrics, transfer
from kipjax.kernels import basic
from kipjax.types import Distilled
from tests.reference import krr as reference


def task(seed=0, n=60, k=3):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    x = rng.normal(size=(n, 5)).astype(np.float32) + 2 * np.eye(k, 5, dtype=np.float32)[labels]
    return Task(jnp.asarray(x[:40]), labels[:40], jnp.asarray(x[40:]), labels[40:], k)


def test_scores_equal_the_oracle_in_blocks():
    parts = task()
    some = krr.subset(jax.random.key(0), parts, 9)
    x_s, y_s, x_t = (np.asarray(a, np.float64) for a in (some.x, some.y, parts.x_test))
    expected = reference.predict(reference.rbf(x_s, x_s), reference.rbf(x_t, x_s), y_s, 1e-3)
    got = krr.predict(basic.rbf(), some, parts.x_test, reg=1e-3, block_size=7)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    assert got.dtype == np.float64
    scores = krr.score(basic.rbf(), some, parts.x_test, parts.test_labels, reg=1e-3)
    assert scores.accuracy == pytest.approx((expected.argmax(1) == parts.test_labels).mean())
    targets = np.eye(3)[parts.test_labels] - 1 / 3
    assert scores.mse == pytest.approx(0.5 * np.mean((expected - targets) ** 2), rel=1e-5)


def test_baselines_have_the_same_size_and_n_is_shown():
    parts = task()
    results = PROTOCOLS["krr"](krr.subset(jax.random.key(0), parts, 6), parts, basic.rbf(), seeds=4, full_size=1000)
    assert [(r.trained_on, r.size, len(r.accuracies)) for r in results] == [
        ("distilled", 6, 1),
        ("random subset", 6, 4),
        ("full training set", 40, 1),
    ]
    assert results[1].accuracy.n == 4 and len(set(results[1].mses)) == 4
    partial = krr.evaluate(krr.subset(jax.random.key(0), parts, 6), parts, basic.rbf(), seeds=1, full_size=20)
    assert (partial[2].trained_on, partial[2].size) == ("random training images", 20)


def test_subsets_are_class_balanced_where_they_can_be():
    parts = task()
    balanced = np.asarray(krr.subset(jax.random.key(0), parts, 9).y).argmax(axis=1)
    assert np.bincount(balanced).tolist() == [3, 3, 3]
    assert krr.subset(jax.random.key(0), parts, 10).x.shape[0] == 10
    assert krr.subset(jax.random.key(0), parts, 39).x.shape[0] == 39


def test_the_transfer_table_has_a_row_per_set_and_a_column_per_kernel():
    parts = task()
    kernels = {"rbf": basic.rbf(), "linear": basic.linear()}
    sets = {name: krr.subset(jax.random.key(i), parts, 6) for i, name in enumerate(kernels)}
    results = {name: transfer.evaluate(some, parts, kernels, seeds=2) for name, some in sets.items()}
    rows, columns, cells = transfer.table(results)
    assert rows == ["rbf", "linear", "random subset, 6"] and columns == ["rbf", "linear"]
    for i, row in enumerate(("rbf", "linear")):
        for j, column in enumerate(columns):
            score = krr.score(kernels[column], sets[row], parts.x_test, parts.test_labels)
            assert cells[i][j].mean == pytest.approx(score.accuracy) and cells[i][j].n == 1
    assert cells[2][0].n == 2
    hole = transfer.table(
        {"a": [Result("distilled", 6, "rbf", (0.5,), (0.1,))], "b": [Result("distilled", 6, "linear", (0.6,), (0.1,))]}
    )
    assert hole[2][0][1] is None and hole[2][1][1].mean == pytest.approx(0.6)


def test_a_matrix_that_does_not_factorise_says_what_to_try():
    parts = task()
    x = jnp.zeros((6, 5)).at[:, 0].set(jnp.nan)
    with pytest.raises(
        checks.NumericalError,
        match=r"6 x 6 kernel matrix does not factorise in float64 with reg = 1e-06 \(trace\); try",
    ):
        krr.predict(basic.rbf(), Distilled(x, jnp.eye(6)[:, :3]), parts.x_test)


def test_examples_of_another_shape_are_refused():
    parts = task()
    with pytest.raises(checks.InputError, match="they must agree"):
        krr.predict(basic.rbf(), Distilled(jnp.ones((3, 4)), jnp.eye(3)), parts.x_test)


def test_the_distilled_set_is_compared_with_the_training_set():
    parts, kernel_fn = task(), basic.rbf()
    some = krr.subset(jax.random.key(0), parts, 6)
    found = krr.evaluate(some, parts, kernel_fn, seeds=1, full_size=1000)[0]
    everything = krr.subset(jax.random.key(1), parts, 40)
    ours, full = (krr.predict(kernel_fn, s, parts.x_test).argmax(1) for s in (some, everything))
    wrong = [(classes != parts.test_labels).mean() for classes in (ours, full)]
    close = found.approximation
    assert close.reference_size == 40 and close.compression_ratio == pytest.approx(40 / 6)
    assert close.weak_epsilon == pytest.approx(abs(wrong[0] - wrong[1]), abs=1e-6)
    assert close.strong_epsilon == pytest.approx((ours != full).mean(), abs=1e-6)
    assert close.distillation_ratio == pytest.approx(100 * (1 - wrong[0]) / (1 - wrong[1]), rel=1e-5)
    for low, high, value in [
        (*close.weak_interval, close.weak_epsilon),
        (*close.strong_interval, close.strong_epsilon),
    ]:
        assert low <= value <= high
    assert krr.evaluate(some, parts, kernel_fn, seeds=1, full_size=0)[0].approximation is None


def test_a_set_is_worth_as_many_real_images_as_do_as_well():
    parts, kernel_fn = task(), basic.rbf()
    results = krr.curve(krr.subset(jax.random.key(0), parts, 40), parts, kernel_fn, sizes=(3, 6, 40, 1000), seeds=2)
    assert [(r.trained_on, r.size) for r in results] == [
        ("distilled", 40), ("random subset", 3), ("random subset", 6), ("random subset", 40)
    ]  # fmt: skip
    assert all(r.accuracy.n == 2 for r in results[1:])
    found = krr.worth(results)
    assert found == metrics.worth(results[0].accuracy.mean, 40, [3, 6, 40], [r.accuracy.mean for r in results[1:]])
    assert found.natural <= 40 and found.bound in ("", "at most")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"full_size": -1}, "full_size is -1"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
    ],
)
def test_bad_options(options, words):
    parts = task()
    with pytest.raises(checks.InputError, match=words):
        krr.evaluate(krr.subset(jax.random.key(0), parts, 6), parts, basic.rbf(), **options)
