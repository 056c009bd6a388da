"""Solvers against a dense solve, and Adam against optax written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kipjax.checks import InputError
from kipjax.core import linear_solve, step_size

pytestmark = pytest.mark.usefixtures("x64")


def system(n=6, seed=0):
    a = np.random.default_rng(seed).normal(size=(n, n))
    a = jnp.asarray(a @ a.T + np.eye(n))
    return a, jnp.asarray(np.random.default_rng(seed + 1).normal(size=n))


@pytest.mark.parametrize(
    ("solve", "tolerance"),
    [
        (lambda m, b: linear_solve.cg(m, b, tol=1e-12), 1e-9),
        (lambda m, b: linear_solve.neumann(m, b, steps=2000), 1e-8),
        (lambda m, b: linear_solve.adam(m, b, steps=8000, step_size=3e-3), 1e-4),
    ],
)
def test_products_alone_solve_a_system_of_trees(solve, tolerance):
    a, b = system()

    def split(v):
        return {"first": v[:2], "rest": v[2:].reshape(2, 2)}

    def matvec(tree):
        return split(a @ jnp.concatenate([tree["first"], tree["rest"].ravel()]))

    found = jax.jit(lambda b: solve(matvec, b))(split(b))
    exact = split(jnp.linalg.solve(a, b))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), found.value, exact)
    assert bool(found.ok)
    assert found.residual < 100 * tolerance


def test_cholesky_solves_in_float64_and_says_when_it_cannot():
    a, b = system()
    found = linear_solve.cholesky(a, jnp.stack([b, 2 * b], 1))
    np.testing.assert_allclose(found.value[:, 1], 2 * jnp.linalg.solve(a, b), rtol=1e-9)
    assert bool(found.ok)
    failed = linear_solve.cholesky(-a, b)
    assert not bool(failed.ok)
    assert np.isnan(failed.value).all()


def test_a_ridge_below_the_rounding_of_the_diagonal_counts():
    """A flat direction of a float32 matrix: its solution is b / ridge, and the residual is that of the whole system."""
    a, b = jnp.asarray([[1e4, 1e4], [1e4, 1e4]], jnp.float32), jnp.asarray([1.0, -1.0], jnp.float32)
    found = linear_solve.cholesky(a, b, ridge=1e-4)
    np.testing.assert_allclose(found.value, 1e4 * b, rtol=1e-3)
    assert not np.allclose(linear_solve.cholesky(a + 1e-4 * jnp.eye(2, dtype=a.dtype), b).value, 1e4 * b, rtol=0.5)
    a, b = system()
    np.testing.assert_allclose(
        linear_solve.cholesky(a, b, ridge=0.3).value, jnp.linalg.solve(a + 0.3 * jnp.eye(len(a)), b), rtol=1e-9
    )


def test_too_few_steps_are_told_by_the_residual():
    a, b = system(20)
    found = linear_solve.cg(lambda v: a @ v, b, tol=1e-10, max_steps=2)
    assert not bool(found.ok)
    np.testing.assert_allclose(found.residual, jnp.linalg.norm(a @ found.value - b) / jnp.linalg.norm(b), rtol=1e-9)


def test_a_zero_right_hand_side_is_solved_by_zero():
    a, _ = system()
    for solve in (linear_solve.cg, linear_solve.neumann):
        found = solve(lambda v: a @ v, jnp.zeros(6))
        np.testing.assert_array_equal(found.value, 0.0)
        assert found.residual == 0
        assert bool(found.ok)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_choleskys_derivatives_are_those_of_the_system_whatever_it_is_solved_in(dtype):
    a, b = (leaf.astype(dtype) for leaf in system())

    def value(a, b):
        return (linear_solve.cholesky(a, b).value ** 2).sum()

    ours = jax.grad(value, (0, 1))(a, b)
    theirs = jax.grad(lambda a, b: (jnp.linalg.solve(a, b) ** 2).sum(), (0, 1))(a, b)
    for x, y in zip(ours, theirs):
        assert x.dtype == dtype
        np.testing.assert_allclose(x, y, rtol=2e-3 if dtype == "float32" else 1e-9, atol=1e-5)


def test_one_step_shows_no_descent():
    a, b = system()
    with pytest.raises(InputError, match="values has 1 entries; a descent needs 2"):
        linear_solve.adam(lambda v: a @ v, b, steps=1)


def test_adam_takes_the_steps_of_adam_and_records_the_quadratic():
    a, b = system()
    found = linear_solve.adam(lambda v: a @ v, b, steps=5, step_size=0.1)
    v, state, values = jnp.zeros(6), optax.adam(0.1).init(jnp.zeros(6)), []
    for _ in range(5):
        values.append(v @ a @ v - 2 * b @ v)
        updates, state = optax.adam(0.1).update(a @ v - b, state)
        v = optax.apply_updates(v, updates)
    np.testing.assert_allclose(found.value, v, rtol=1e-9)
    np.testing.assert_allclose(found.values, values, rtol=1e-9)
    assert linear_solve.adam(lambda v: a @ v, b, steps=0, step_size=0.1).value.tolist() == [0] * 6


def test_adam_averages_over_random_products():
    """Products with random parts of a sum, right on average, lead to the solution up to their noise."""
    a, b = system()
    rows = jnp.linalg.cholesky(a).T

    def some(v, key):
        chosen = jax.random.permutation(key, 6)[:3]
        return 2 * rows[chosen].T @ (rows[chosen] @ v)

    noisy = linear_solve.adam(some, b, steps=4000, step_size=1e-3, key=jax.random.key(0))
    assert jnp.linalg.norm(noisy.value - jnp.linalg.solve(a, b)) < 0.2 * jnp.linalg.norm(jnp.linalg.solve(a, b))


def test_the_search_ends_just_above_the_last_stable_step_size():
    """Gradient descent on x^2 / 2 descends below a step size of 2."""

    def values(size):
        return (1 - size) ** (2 * jnp.arange(10.0))

    found = float(step_size.stable(values, 1e-3))
    sizes = 1e-3 * 1.2 ** np.arange(100)
    np.testing.assert_allclose(found, 0.84 * sizes[sizes >= 2][0], rtol=1e-6)


def test_a_search_that_is_not_wanted_runs_nothing():
    runs = []

    def values(size):
        jax.debug.callback(lambda: runs.append(1))
        return -jnp.arange(3.0) * size

    jax.block_until_ready(jax.jit(lambda go: step_size.stable(values, 1.0, where=go))(False))
    jax.effects_barrier()
    assert not runs


@pytest.mark.parametrize(
    ("failures", "descents", "factor"), [(15, 0, 0.9), (14, 0, 1.0), (0, 35, 1.05), (0, 34, 1.0), (15, 35, 0.9)]
)
def test_a_watched_step_size_changes_every_fifty_runs(failures, descents, factor):
    down, up, mixed = jnp.asarray([2.0, 1.0, 0.0]), jnp.asarray([0.0, 1.0, 2.0]), jnp.asarray([2.0, 3.0, 1.0])
    runs = [up] * failures + [down] * descents
    runs += [mixed] * (50 - len(runs))
    watched = step_size.watch(0.5)
    for i, values in enumerate(runs):
        assert watched.step_size == 0.5, i
        watched = step_size.adapt(watched, values)
    np.testing.assert_allclose(watched.step_size, 0.5 * factor, rtol=1e-6)
    assert watched.runs == watched.failed == watched.descended == 0


def test_a_nan_counts_as_failed():
    assert step_size.adapt(step_size.watch(1.0), jnp.asarray([1.0, jnp.nan])).failed == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear_solve.cg(lambda v: v, jnp.ones(2), tol=0.0), "tol is 0.0; it must be above 0"),
        (lambda: linear_solve.adam(lambda v: v, jnp.ones(2), steps=-1), "steps is -1"),
        (lambda: linear_solve.cholesky(jnp.ones((2, 3)), jnp.ones(2)), r"matrix has shape \(2, 3\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
