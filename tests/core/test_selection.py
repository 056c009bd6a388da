"""Selections against their definitions, in loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.core import selection
from tests.reference import exact as reference

K, IPC = 3, 4
LABELS = np.repeat(np.arange(K), [9, 6, 12])[np.random.default_rng(0).permutation(27)]
H = np.random.default_rng(1).normal(size=(27, 5))
Y = np.eye(K)[LABELS] - 1 / K


def by_class(rule):
    rows = [np.flatnonzero(c == LABELS) for c in range(K)]
    return np.array([some[rule(H[some], IPC)] for some in rows])


@pytest.mark.parametrize("name", ["herding", "k_center"])
def test_greedy_rules_are_their_definitions(name, x64):
    given = selection.products(jnp.asarray(H), jnp.asarray(Y))
    found = np.asarray(getattr(selection, name)(given, IPC))
    np.testing.assert_array_equal(found, by_class(getattr(reference, name)))
    assert len(np.unique(found)) == K * IPC


def test_one_is_the_nearest_to_the_mean_and_all_are_all(x64):
    given = selection.products(jnp.asarray(H), jnp.asarray(Y))
    nearest = by_class(lambda h, _: [int(np.argmin(np.linalg.norm(h - h.mean(0), axis=1)))])
    for rule in (selection.herding, selection.k_center):
        np.testing.assert_array_equal(rule(given, 1), nearest)
        assert set(np.asarray(rule(given, 6))[1].tolist()) == set(np.flatnonzero(LABELS == 1).tolist())


def test_farthest_first_distances_fall(x64):
    rows = np.asarray(selection.k_center(selection.products(jnp.asarray(H), jnp.asarray(Y)), 6))
    for some in rows:
        away = [min(np.linalg.norm(H[some[t]] - H[s]) for s in some[:t]) for t in range(1, 6)]
        assert all(a >= b for a, b in itertools.pairwise(away))


def test_a_class_sees_only_its_own_rows(x64):
    moved = np.where((LABELS == 2)[:, None], H + 100, H)
    for rule in (selection.herding, selection.k_center):
        before, after = (rule(selection.products(jnp.asarray(h), jnp.asarray(Y)), IPC) for h in (H, moved))
        np.testing.assert_array_equal(before[:2], after[:2])


def test_leverage_scores_are_the_diagonal_and_sum_to_the_effective_dimension(x64):
    k = H @ H.T
    expected = np.diag(k @ np.linalg.inv(k + 0.3 * np.eye(27)))
    found = selection.leverage_scores(jnp.asarray(k), 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert float(found.sum()) < 5
    assert float(selection.leverage_scores(jnp.asarray(k), 1e-6).sum()) == pytest.approx(5, abs=1e-4)


def test_drawing_follows_the_weights():
    own = selection.members(jnp.asarray(Y))
    weights = jnp.where(jnp.arange(27) % 2 == 0, 3.0, 1.0)
    draw = jax.jit(jax.vmap(lambda key: selection.without_replacement(key, weights, own, 1)))
    rows = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))[:, :, 0]
    for c in range(K):
        some = np.flatnonzero(c == LABELS)
        expected = np.asarray(weights)[some] / np.asarray(weights)[some].sum()
        shares = np.array([(rows[:, c] == i).mean() for i in some])
        np.testing.assert_allclose(shares, expected, atol=0.03)
    assert not set(np.asarray(selection.without_replacement(jax.random.key(0), weights, own, 6))[1]) - set(
        np.flatnonzero(LABELS == 1)
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda given, own: selection.herding(given, 0), "ipc is 0; it must be a whole number"),
        (lambda given, own: selection.k_center(given, 0), "ipc is 0"),
        (lambda given, own: selection.herding(given, 7), "class 1 has 6 images in the batch and 7 are to be chosen"),
        (lambda given, own: selection.k_center(given, 7), "class 1 has 6 images"),
        (lambda given, own: selection.best(jnp.ones(27), own, 7), "class 1 has 6 images"),
        (lambda given, own: selection.best(jnp.ones(27), own, 10), "30 images cannot be chosen from a batch of 27"),
        (lambda given, own: selection.best(jnp.ones(26), own, 1), r"scores has shape \(26,\) and own \(3, 27\)"),
        (lambda given, own: selection.without_replacement(jax.random.key(0), jnp.ones(27), own, 7), "class 1 has 6"),
        (lambda given, own: selection.leverage_scores(jnp.ones((2, 3)), 1.0), r"k has shape \(2, 3\)"),
        (lambda given, own: selection.members(jnp.arange(3)), r"y has shape \(3,\)"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(checks.InputError, match=words):
        call(selection.products(jnp.asarray(H), jnp.asarray(Y)), selection.members(jnp.asarray(Y)))


def test_under_jit_the_rows_that_a_class_lacks_are_minus_one():
    """Scores of minus infinity are scores as well."""
    rules = {
        "herding": selection.herding,
        "k_center": selection.k_center,
        "best": lambda given, ipc: selection.best(jnp.full(27, -jnp.inf), given.members, ipc),
    }
    for name, rule in rules.items():
        rows = np.asarray(jax.jit(lambda h, y, rule=rule: rule(selection.products(h, y), 8))(H, Y))
        assert (rows[1] >= 0).sum() == 6 and (rows[[0, 2]] >= 0).all(), name
        assert all(set(LABELS[some[some >= 0]]) == {c} for c, some in enumerate(rows)), name


def test_forgetting_events_are_counted_over_presentations():
    history = np.random.default_rng(2).random((6, 8)) < 0.5
    history[:, 3] = False
    found = selection.never_seen(8)
    for right in history:
        order = np.random.default_rng(3).permutation(8)
        for rows in (order[:5], order[5:]):
            found = selection.forget(found, jnp.asarray(rows), jnp.asarray(right[rows]))
    np.testing.assert_array_equal(selection.forgetting_scores(found), reference.forgetting_events(history))
