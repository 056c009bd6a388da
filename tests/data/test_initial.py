"""Starting sets: which images, which labels, and what is refused."""

import jax
import numpy as np
import pytest

from kipjax import checks
from kipjax.data import initial

LABELS = np.repeat(np.arange(3), [10, 6, 14])[np.random.default_rng(0).permutation(30)]
X = np.arange(30, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
KEY = jax.random.key(0)


def test_real_takes_ipc_distinct_images_of_each_class_with_centred_labels():
    start = initial.real(KEY, X, LABELS, num_classes=3, ipc=5)
    rows = np.asarray(start.x)[:, 0].astype(int)
    assert start.x.shape == (15, 4) and start.x.dtype == np.float32 and start.lr is None
    assert len(np.unique(rows)) == 15
    np.testing.assert_array_equal(LABELS[rows], np.repeat([0, 1, 2], 5))
    np.testing.assert_allclose(start.y, np.eye(3)[np.repeat([0, 1, 2], 5)] - 1 / 3, rtol=1e-6)


def test_real_by_size_is_the_same_set_and_another_key_another_one():
    by_ipc, by_size = (initial.real(KEY, X, LABELS, num_classes=3, **how) for how in ({"ipc": 4}, {"size": 12}))
    np.testing.assert_array_equal(by_ipc.x, by_size.x)
    other = initial.real(jax.random.key(1), X, LABELS, num_classes=3, ipc=4)
    assert not np.array_equal(by_ipc.x, other.x)


def test_real_unbalanced_draws_distinct_images_of_all_and_keeps_their_labels():
    start = initial.real(KEY, X, LABELS, num_classes=3, size=29, balanced=False, centered=False, scale=2.0)
    rows = np.asarray(start.x)[:, 0].astype(int)
    assert len(np.unique(rows)) == 29 and not np.array_equal(rows, np.sort(rows))
    np.testing.assert_array_equal(start.y, 2 * np.eye(3)[LABELS[rows]])


def test_noise_is_uniform_on_its_range_with_balanced_labels():
    start = initial.noise(KEY, (50, 50, 1), ipc=2, num_classes=3, low=-0.5, high=2.0)
    x = np.asarray(start.x)
    assert x.shape == (6, 50, 50, 1) and -0.5 <= x.min() < -0.49 and 1.99 < x.max() < 2.0
    assert x.mean() == pytest.approx(0.75, abs=0.03) and x.std() == pytest.approx(2.5 / np.sqrt(12), abs=0.02)
    np.testing.assert_allclose(start.y, np.eye(3)[[0, 0, 1, 1, 2, 2]] - 1 / 3, rtol=1e-6)
    assert np.abs(np.asarray(initial.noise(KEY, (9,), ipc=1, num_classes=3).x)).max() < 1


def test_noise_is_normal_where_std_is_given():
    x = np.asarray(initial.noise(KEY, (5000,), ipc=1, num_classes=2, std=0.3).x)
    assert x.std() == pytest.approx(0.3, abs=0.01) and np.abs(x).max() > 0.9


def test_class_means_are_the_means():
    x = np.random.default_rng(1).normal(size=(30, 2, 3))
    start = initial.class_means(x, LABELS, num_classes=3, centered=False)
    np.testing.assert_allclose(start.x, [x[c == LABELS].mean(0) for c in range(3)], rtol=1e-5)
    np.testing.assert_array_equal(start.y, np.eye(3))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: initial.real(KEY, X, LABELS, num_classes=3, ipc=7),
            "initial.real: class 1 has 6 images and ipc is 7; lower ipc",
        ),
        (
            lambda: initial.real(KEY, X, LABELS, num_classes=3, ipc=11),
            "a set of 33 images cannot be drawn from 30; lower ipc",
        ),
        (
            lambda: initial.real(KEY, X, LABELS, num_classes=3, size=31, balanced=False),
            "a set of 31 images cannot be drawn from 30; lower size",
        ),
        (
            lambda: initial.real(KEY, X, LABELS, num_classes=3, size=10),
            "size is 10, which is not divisible by num_classes (3)",
        ),
        (lambda: initial.real(KEY, X, LABELS, num_classes=3), "ipc is None and size is None; give exactly one"),
        (lambda: initial.real(KEY, X, LABELS, num_classes=3, ipc=1, size=3), "give exactly one"),
        (
            lambda: initial.real(KEY, X, LABELS, num_classes=3, ipc=1.5),
            "ipc is 1.5; it must be a whole number",
        ),
        (lambda: initial.real(KEY, X, LABELS, num_classes=3, ipc=0), "ipc is 0; it must be a whole number, at least 1"),
        (lambda: initial.real(KEY, X, LABELS, num_classes=2, ipc=1), "labels spans 0..2, but with num_classes = 2"),
        (lambda: initial.real(KEY, X[:4], LABELS, num_classes=3, ipc=1), "same number of rows"),
        (
            lambda: initial.noise(KEY, (2,), ipc=0, num_classes=3),
            "initial.noise: ipc is 0; it must be a whole number, at least 1",
        ),
        (
            lambda: initial.noise(KEY, (2,), ipc=1, num_classes=3, low=1.0, high=1.0),
            "high is 1.0; it must be above 1.0",
        ),
        (lambda: initial.noise(KEY, (2,), ipc=1, num_classes=3, std=0.0), "std is 0.0; it must be above 0.0"),
        (
            lambda: initial.class_means(X, LABELS, num_classes=4),
            "initial.class_means: class 3 has 0 images",
        ),
    ],
)
def test_what_does_not_fit_is_refused(build, words):
    with pytest.raises(checks.InputError) as caught:
        build()
    assert words in str(caught.value)
