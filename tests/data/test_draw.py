"""Draws without replacement: exact (no duplicates, in range) and, statistically, uniform."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from kipjax import checks
from kipjax.data import draw


def _draws(repeats, count, total):
    keys = jax.random.split(jax.random.key(7), repeats)
    return np.asarray(jax.jit(jax.vmap(lambda key: draw.without_replacement(key, count, total)))(keys))


@pytest.mark.parametrize(("count", "total"), [(1, 1), (3, 3), (5, 7), (100, 100), (6000, 60000)])
def test_indices_are_distinct_and_in_range(count, total):
    for row in _draws(20, count, total):
        assert row.min() >= 0 and row.max() < total
        assert len(np.unique(row)) == count


def test_every_permutation_is_equally_likely():
    permutations, seen = np.unique(_draws(24000, 4, 4), axis=0, return_counts=True)
    assert len(permutations) == 24
    assert stats.chisquare(seen).pvalue > 1e-3


def test_every_index_and_every_pair_is_equally_likely():
    total, count, repeats = 20, 6, 40000
    member = np.zeros((repeats, total))
    member[np.arange(repeats)[:, None], _draws(repeats, count, total)] = 1
    together = member.T @ member
    p_one, p_two = count / total, count * (count - 1) / (total * (total - 1))
    one = (np.diag(together) - repeats * p_one) / np.sqrt(repeats * p_one * (1 - p_one))
    two = (together[np.triu_indices(total, 1)] - repeats * p_two) / np.sqrt(repeats * p_two * (1 - p_two))
    assert np.abs(one).max() < 4.5 and np.abs(two).max() < 5
    assert 0.8 < two.std() < 1.2  # neither clumped nor evened out


def test_successive_draws_overlap_as_often_as_chance_has_it():
    rows = _draws(200, 600, 6000)
    overlap = [len(np.intersect1d(a, b)) for a, b in itertools.pairwise(rows)]
    assert np.mean(overlap) == pytest.approx(60, abs=3)
    assert 30 < np.var(overlap) < 80  # hypergeometric: 48.6


def test_several_pools_are_drawn_from_independently_and_each_within_its_size():
    rows = np.asarray(draw.without_replacement(jax.random.key(0), 5, jnp.array([5, 50, 50])))
    assert rows.shape == (3, 5)
    assert sorted(rows[0]) == [0, 1, 2, 3, 4]
    assert rows[1:].max() < 50 and rows[1:].max() > 4
    assert not np.array_equal(rows[1], rows[2])


def test_the_key_decides():
    same, again, other = (draw.without_replacement(jax.random.key(k), 50, 100) for k in (1, 1, 2))
    assert np.array_equal(same, again) and not np.array_equal(same, other)


def test_more_than_there_are_is_refused():
    with pytest.raises(checks.InputError, match="total is 3; it must be at least 4"):
        draw.without_replacement(jax.random.key(0), 4, 3)
