"""The hypergradient against closed forms, finite differences and unrolling, all in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.core import implicit, linear_solve, unroll

pytestmark = pytest.mark.usefixtures("x64")


def problem():
    """Ridge regression whose design, targets and ridge all depend on psi."""
    rng = np.random.default_rng(0)
    design, y, held_out, y_out = (jnp.asarray(rng.normal(size=s)) for s in ((8, 4), (8,), (6, 4), (6,)))

    def inner(z, psi):
        rest = design * psi["scale"] @ z - y * psi["y"]
        return 0.5 * rest @ rest + 0.5 * jnp.exp(psi["log_reg"]) * z @ z

    def outer(z, psi):
        return 0.5 * jnp.sum((held_out @ z - y_out) ** 2) + psi["scale"] @ psi["scale"]

    psi = {"scale": jnp.asarray(rng.uniform(0.5, 1.5, 4)), "y": jnp.asarray(rng.uniform(0.5, 1.5, 8)), "log_reg": 0.3}
    return inner, outer, jax.tree.map(jnp.asarray, psi)


def solution(inner, psi):
    """The minimiser by one Newton step, which is exact for a quadratic."""
    zero = jnp.zeros(4)
    return -jnp.linalg.solve(jax.hessian(inner)(zero, psi), jax.grad(inner)(zero, psi))


def dense(matvec, b):
    return linear_solve.cholesky(jax.vmap(matvec)(jnp.eye(len(b))), b)


SOLVERS = {
    "cholesky": (dense, 1e-12),
    "cg": (partial(linear_solve.cg, tol=1e-12), 1e-9),
    "neumann": (partial(linear_solve.neumann, steps=4000), 1e-9),
    "adam": (partial(linear_solve.adam, steps=6000, step_size=1e-2), 1e-5),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_it_is_the_derivative_of_the_outer_loss_at_the_solution(name):
    solve, tolerance = SOLVERS[name]
    inner, outer, psi = problem()
    found = jax.jit(lambda psi: implicit.hypergradient(outer, jax.grad(inner), solution(inner, psi), psi, solve))(psi)
    exact = jax.grad(lambda psi: outer(solution(inner, psi), psi))(psi)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found.total, exact)
    assert found.solution.residual < 1e-4
    assert bool(found.solution.ok)
    wrong = jax.tree.map(jnp.subtract, found.direct, found.implicit)  # the paper's sign
    assert np.abs(wrong["y"] - exact["y"]).max() > 0.1


def test_unrolling_finite_differences_and_the_implicit_function_theorem_agree():
    inner, outer, psi = problem()

    def unrolled(psi):
        z, _ = unroll.adam(lambda z: inner(z, psi), jnp.zeros(4), steps=3000, step_size=0.01)
        return outer(z, psi)

    found = implicit.hypergradient(outer, jax.grad(inner), solution(inner, psi), psi, dense).total
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, jax.jit(jax.grad(unrolled))(psi)
    )
    step = 1e-5
    for i in range(4):
        sides = [{**psi, "scale": psi["scale"].at[i].add(s)} for s in (step, -step)]
        up, down = (outer(solution(inner, side), side) for side in sides)
        np.testing.assert_allclose(found["scale"][i], (up - down) / (2 * step), rtol=1e-7)


def test_a_residual_that_is_no_gradient_is_transposed():
    """z = A psi with a matrix that is not symmetric: the gradient needs A^T."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
    psi, weights = jnp.arange(3.0), jnp.asarray([1.0, -2.0, 0.5])
    inverse = jnp.linalg.inv(a)

    def solve(matvec, b):
        matrix = jax.vmap(matvec)(jnp.eye(3)).T
        return linear_solve.Solution(jnp.linalg.solve(matrix, b), jnp.zeros(()), jnp.asarray(True))

    found = implicit.hypergradient(lambda z, _: weights @ z, lambda z, p: inverse @ z - p, a @ psi, psi, solve)
    np.testing.assert_allclose(found.total, a.T @ weights)


def test_what_the_outer_loss_returns_besides_is_passed_on():
    inner, outer, psi = problem()
    z = solution(inner, psi)
    found = implicit.hypergradient(
        lambda z, psi: (outer(z, psi), z.sum()), jax.grad(inner), z, psi, dense, has_aux=True
    )
    assert found.aux == z.sum()
    assert found.value == outer(z, psi)


def test_clipping_caps_each_leaf_alone():
    direct = {"x": jnp.asarray([3.0, 4.0]), "y": jnp.asarray([1.0]), "k": jnp.asarray(0.0)}
    given = {"x": jnp.asarray([60.0, -80.0]), "y": jnp.asarray([0.5]), "k": jnp.asarray(jnp.nan)}
    clipped = implicit.clip_to_direct(given, direct)
    np.testing.assert_allclose(clipped["x"], [3.0, -4.0])
    np.testing.assert_allclose(clipped["y"], [0.5])
    assert clipped["k"] == 0
    assert implicit.clip_to_direct({"x": jnp.zeros(2)}, {"x": jnp.ones(2)})["x"].tolist() == [0, 0]
