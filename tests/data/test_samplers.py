"""Samplers: what a batch holds, that it runs inside jit, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.data import samplers

LABELS = np.repeat(np.arange(3), [10, 6, 14])[np.random.default_rng(0).permutation(30)]
X = np.arange(30.0)[:, None, None] * np.ones((1, 2, 5))  # every entry of row i is i
Y = np.eye(3)[LABELS] + 100 * np.arange(30)[:, None]  # says class and row


def _rows(batch):
    """Which rows a batch holds, having checked that x and y belong together."""
    rows = np.asarray(batch.x)[..., 0, 0].astype(int)
    np.testing.assert_array_equal(batch.x, X[rows])
    np.testing.assert_array_equal(batch.y, Y[rows])
    return rows


def test_class_balanced_has_equally_many_distinct_rows_of_each_class():
    sample = jax.jit(samplers.class_balanced(X, Y, LABELS, batch_size=12, num_classes=3))
    seen = set()
    for seed in range(40):
        batch = sample(jax.random.key(seed))
        rows = _rows(batch)
        assert batch.x.shape == (12, 2, 5) and batch.y.shape == (12, 3)
        assert len(np.unique(rows)) == 12
        np.testing.assert_array_equal(LABELS[rows], np.repeat([0, 1, 2], 4))
        seen.update(rows.tolist())
    assert seen == set(range(30))


def test_class_balanced_draws_each_member_of_a_class_equally_often():
    sample = samplers.class_balanced(X, Y, LABELS, batch_size=9, num_classes=3)
    batches = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), 8000))
    counts = np.bincount(np.asarray(batches.x)[..., 0, 0].astype(int).ravel(), minlength=30)
    p = 3 / np.bincount(LABELS)[LABELS]
    assert np.abs((counts - 8000 * p) / np.sqrt(8000 * p * (1 - p))).max() < 4.5


def test_per_class_puts_each_class_in_its_block():
    batch = jax.jit(samplers.per_class(X, Y, LABELS, batch_size=6, num_classes=3))(jax.random.key(3))
    rows = _rows(batch)
    assert batch.x.shape == (3, 6, 2, 5) and batch.y.shape == (3, 6, 3)
    np.testing.assert_array_equal(LABELS[rows], np.arange(3)[:, None] * np.ones((1, 6)))
    assert all(len(np.unique(block)) == 6 for block in rows)


def test_uniform_draws_distinct_rows_of_all():
    sample = jax.jit(samplers.uniform(X, Y, batch_size=7))
    rows = np.stack([_rows(sample(jax.random.key(seed))) for seed in range(60)])
    assert all(len(np.unique(row)) == 7 for row in rows)
    assert set(rows.ravel().tolist()) == set(range(30))


@pytest.mark.parametrize("kind", ["class_balanced", "uniform"])
def test_a_batch_of_the_whole_set_is_the_set_in_order(kind):
    # 30 rows of unequal classes: the full batch needs neither balance nor divisibility.
    if kind == "uniform":
        sample = samplers.uniform(X[:29], Y[:29], batch_size=29)
    else:
        sample = samplers.class_balanced(X[:29], Y[:29], LABELS[:29], batch_size=29, num_classes=3)
    for seed in (0, 1):
        np.testing.assert_array_equal(_rows(sample(jax.random.key(seed))), np.arange(29))


def test_a_sampler_is_an_argument_of_jit_and_compiles_once():
    traces = []

    @jax.jit
    def step(sample, key):
        traces.append(None)
        return sample(key).x.sum()

    sample = samplers.class_balanced(X, Y, LABELS, batch_size=6, num_classes=3)
    values = [float(step(sample, jax.random.key(seed))) for seed in range(5)]
    assert len(traces) == 1 and len(set(values)) > 1
    assert values[2] == float(sample(jax.random.key(2)).x.sum())


def test_a_sampler_runs_under_scan():
    sample = samplers.class_balanced(X, Y, LABELS, batch_size=6, num_classes=3)
    keys = jax.random.split(jax.random.key(0), 3)
    _, x = jax.lax.scan(lambda carry, key: (carry, sample(key).x), None, keys)
    np.testing.assert_array_equal(x, jnp.stack([sample(key).x for key in keys]))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: samplers.class_balanced(X, Y, LABELS, batch_size=10, num_classes=3),
            "samplers.class_balanced: batch_size is 10, which is not divisible by num_classes (3); 9 would be",
        ),
        (
            lambda: samplers.class_balanced(X, Y, LABELS, batch_size=21, num_classes=3),
            "class 1 has 6 examples and a batch needs 7 of each of 3 classes; ask for at most 6 of each (batch 18)",
        ),
        (
            lambda: samplers.class_balanced(X, Y, LABELS, batch_size=8, num_classes=4),
            "class 3 has 0 examples and a batch needs 2 of each of 4 classes; add images of that class",
        ),
        (
            lambda: samplers.class_balanced(X[:5], Y, LABELS, batch_size=6, num_classes=3),
            "x has shape (5, 2, 5) and y has shape (30, 3); both need the same number of rows",
        ),
        (
            lambda: samplers.per_class(X, Y, LABELS[:5], batch_size=6, num_classes=3),
            "x has shape (30, 2, 5) and labels has shape (5,)",
        ),
        (
            lambda: samplers.per_class(X, Y, LABELS, batch_size=2, num_classes=2),
            "labels spans 0..2, but with num_classes = 2",
        ),
        (lambda: samplers.per_class(X, Y, LABELS, batch_size=7, num_classes=3), "samplers.per_class: class 1 has 6"),
        (
            lambda: samplers.per_class(X, Y, LABELS, batch_size=0, num_classes=3),
            "batch_size is 0; it must be a whole number, at least 1",
        ),
        (lambda: samplers.uniform(X, Y, batch_size=5.0), "batch_size is 5.0; it must be a whole number"),
        (
            lambda: samplers.class_balanced(X, Y, LABELS, batch_size=6.0, num_classes=3),
            "batch_size is 6.0; it must be a whole number",
        ),
        (
            lambda: samplers.per_class(X, Y, LABELS, batch_size=2, num_classes=3.0),
            "num_classes is 3.0; it must be a whole number",
        ),
        (lambda: samplers.uniform(X, Y, batch_size=31), "batch_size is 31; it must lie between 1 and 30"),
        (
            lambda: samplers.host_iterator(jax.random.key(0), X, Y, LABELS, batch_size=21, num_classes=3),
            "samplers.host_iterator: class 1 has 6 examples",
        ),
        (
            lambda: samplers.host_iterator(
                jax.random.key(0), X, Y, LABELS, batch_size=31, num_classes=3, balanced=False
            ),
            "batch_size is 31; it must lie between 1 and 30",
        ),
        (
            lambda: samplers.host_iterator(jax.random.key(0), X, Y, LABELS, batch_size=3, num_classes=3, start=-1),
            "start is -1; it must be a whole number, at least 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused_when_the_sampler_is_made(build, words):
    with pytest.raises(checks.InputError) as caught:
        build()
    assert words in str(caught.value)


def _host(count, **options):
    options = {"batch_size": 9, "num_classes": 3, **options}
    batches = samplers.host_iterator(options.pop("key", jax.random.key(5)), X, Y, LABELS, **options)
    return [_rows(next(batches)) for _ in range(count)]


def test_host_batches_are_balanced_without_repeats_and_stay_on_the_host():
    for rows in _host(20):
        np.testing.assert_array_equal(LABELS[rows], np.repeat([0, 1, 2], 3))
        assert len(np.unique(rows)) == 9
    batch = next(samplers.host_iterator(jax.random.key(5), X, Y, LABELS, batch_size=9, num_classes=3))
    assert type(batch.x) is np.ndarray and type(batch.y) is np.ndarray


def test_host_batches_depend_on_key_and_step_alone():
    whole = _host(6)
    np.testing.assert_array_equal(whole[4:], _host(2, start=4))
    assert not np.array_equal(whole[0], whole[1])
    assert not np.array_equal(whole, _host(6, key=jax.random.key(6)))


def test_host_batches_can_be_unbalanced_and_transformed():
    rows = np.stack(_host(60, batch_size=8, balanced=False))
    assert all(len(np.unique(row)) == 8 for row in rows) and set(rows.ravel().tolist()) == set(range(30))
    batch = next(
        samplers.host_iterator(
            jax.random.key(5), X, Y, LABELS, batch_size=9, num_classes=3, transform=lambda x: x[:, 0] + 0.5
        )
    )
    np.testing.assert_array_equal(batch.x, X[_host(1)[0]][:, 0] + 0.5)


def test_per_class_fills_up_classes_that_are_too_small():
    labels = np.array([0] * 6 + [1] * 2 + [2] * 3)
    x, y = np.arange(11.0)[:, None], np.eye(3)[labels] - 1 / 3
    sample = samplers.per_class(x, y, labels, batch_size=256, num_classes=3, fill=True)
    for seed in range(3):
        batch = sample(jax.random.key(seed))
        assert batch.x.shape == (3, 6, 1) and batch.y.shape == (3, 6, 3)
        for c in range(3):
            own = np.any(batch.y[c] != 0, axis=1)
            assert sorted(batch.x[c][own][:, 0].tolist()) == np.flatnonzero(labels == c).tolist()
            assert set(batch.x[c][:, 0].tolist()) == set(np.flatnonzero(labels == c).tolist())
            np.testing.assert_allclose(batch.y[c][own], np.tile(y[labels == c][0], (int(own.sum()), 1)), rtol=1e-6)
    whole = samplers.per_class(x, y, labels, batch_size=2, num_classes=3)
    filled = samplers.per_class(x, y, labels, batch_size=2, num_classes=3, fill=True)
    jax.tree.map(np.testing.assert_array_equal, whole(jax.random.key(0)), filled(jax.random.key(0)))
    for fill in (False, True):
        with pytest.raises(checks.InputError, match="class 3 has 0 examples"):
            samplers.per_class(x, np.eye(4)[labels], labels, batch_size=1, num_classes=4, fill=fill)
