"""Solvers of ``A v = b``, ``A`` symmetric positive definite, known as a product ``matvec(v) = A v`` or as a matrix.

Conjugate gradients (Hestenes and Stiefel, 1952), the Neumann series (arXiv:1911.02590), Adam on the quadratic
(arXiv:2302.06755), a Cholesky factor. Vectors are pytrees. Every solver tells how well it did: ``Solution`` has the
residual and whether it is good enough.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.scipy.sparse.linalg import cg as _scipy_cg

from kipjax import checks
from kipjax.core import precision
from kipjax.core.step_size import stable
from kipjax.types import PyTree

__all__ = ["Solution", "adam", "cg", "cholesky", "neumann"]

MatVec = Callable[..., PyTree]


class Solution(NamedTuple):
    """The solution of a linear system.

    Attributes:
      value: ``v``, like ``b``.
      residual: ``[]`` ``|A v - b| / |b|``.
      ok: ``[]`` bool: the residual is finite and no larger than was asked for.
      values: ``[steps]`` the quadratic ``v.A v - 2 b.v`` before each step, where the solver descends it; else ``None``.
      step_size: ``[]`` where the solver has one; else ``None``.
    """

    value: PyTree
    residual: jax.Array
    ok: jax.Array
    values: Any = None
    step_size: Any = None


def cg(matvec: MatVec, b: PyTree, *, tol: float = 1e-5, max_steps: int = 200, x0: PyTree = None) -> Solution:
    """Conjugate gradients.

    Args:
      matvec: ``v -> A v``.
      b: right-hand side.
      tol: stops at ``|A v - b| <= tol |b|``.
      max_steps: products at most.
      x0: where it starts; zero unless given.

    Raises:
      InputError: ``tol`` or ``max_steps`` is not positive.
    """
    checks.at_least("linear_solve.cg", "tol", tol, 0.0, strict=True)
    checks.whole("linear_solve.cg", "max_steps", max_steps)
    value, _ = _scipy_cg(matvec, b, x0=x0, tol=tol, maxiter=max_steps)
    # The recursion's residual and the true one part by rounding, so a little more than tol is still the answer.
    return _solution(matvec, b, value, 2 * tol)


def neumann(
    matvec: MatVec, b: PyTree, *, steps: int = 20, step_size: float | jax.Array | None = None, tol: float = 1e-2
) -> Solution:
    """Truncated Neumann series ``v_{t+1} = v_t + step_size (b - A v_t)`` from zero.

    Args:
      matvec: ``v -> A v``.
      b: right-hand side.
      steps: terms of the series.
      step_size: below ``2 / lambda_max(A)``; by default ``1 / lambda_max`` as ten power iterations see it.
      tol: residual up to which the solution is ``ok``.

    References:
      Lorraine, Vicol, Duvenaud, arXiv:1911.02590, equation (8).
    """
    checks.whole("linear_solve.neumann", "steps", steps, 0)
    if step_size is None:
        growth = _largest_eigenvalue(matvec, b)
        step_size = jnp.where(growth > 0, 1.0 / jnp.where(growth > 0, growth, 1.0), 0.0)

    def step(v, _):
        return jax.tree.map(lambda vi, bi, avi: vi + step_size * (bi - avi), v, b, matvec(v)), None

    value, _ = lax.scan(step, jax.tree.map(jnp.zeros_like, b), None, length=steps)
    return _solution(matvec, b, value, tol)


def adam(
    matvec: MatVec,
    b: PyTree,
    *,
    steps: int = 20,
    step_size: float | jax.Array | None = None,
    tol: float = 1.0,
    key: jax.Array | None = None,
) -> Solution:
    """Adam on the quadratic ``v.A v - 2 b.v``, whose gradient is taken to be ``A v - b``, from zero.

    Args:
      matvec: ``v -> A v``; with ``key``, ``matvec(v, key)`` is a random estimate of it, fresh at each step.
      b: right-hand side.
      steps: Adam steps, with optax's defaults.
      step_size: by default the one that ``step_size.stable`` finds from 1e-5 up, at the cost of many trials.
      tol: residual up to which the solution is ``ok``; 1 asks for no more than to be better than zero.
      key: makes the keys of a random ``matvec``.

    Returns:
      The solution, with ``values`` at each step before its update, so the first is zero.

    References:
      Loo, Hasani, Lechner, Rus, "Dataset Distillation with Convexified Implicit Gradients", arXiv:2302.06755.
    """
    checks.whole("linear_solve.adam", "steps", steps, 0)
    if step_size is None:
        step_size = stable(lambda size: adam(matvec, b, steps=steps, step_size=size, key=key).values, 1e-5)
    optimizer = optax.scale_by_adam()
    product = (lambda v, _: matvec(v)) if key is None else (lambda v, t: matvec(v, jax.random.fold_in(key, t)))

    def step(carry, t):
        v, state = carry
        gradient = jax.tree.map(jnp.subtract, product(v, t), b)
        updates, state = optimizer.update(gradient, state)
        value = _dot(v, jax.tree.map(jnp.subtract, gradient, b))
        return (jax.tree.map(lambda vi, u: vi - (step_size * u).astype(vi.dtype), v, updates), state), value

    zero = jax.tree.map(jnp.zeros_like, b)
    (value, _), values = lax.scan(step, (zero, optimizer.init(zero)), jnp.arange(steps))
    return _solution(lambda v: product(v, steps), b, value, tol)._replace(
        values=values, step_size=jnp.asarray(step_size)
    )


def cholesky(
    matrix: jax.Array,
    b: jax.Array,
    *,
    ridge: float | jax.Array = 0.0,
    solve_dtype: Any = "float64",
    tol: float = 1e-3,
) -> Solution:
    """A direct solve by the Cholesky factor of ``matrix + ridge I``, ``matrix [d, d]``, ``b [d]`` or ``[d, k]``.

    Args:
      matrix: symmetric, positive definite with the ridge.
      b: right-hand sides.
      ridge: added in the precision of the solve, as it may be lost in the rounding of a diagonal of float32.
      solve_dtype: precision of factor and solve; ``None`` for that of the matrix.
      tol: residual up to which the solution is ``ok``.

    Returns:
      The solution in the dtype of ``b``, differentiable in both arguments; NaN and not ``ok`` if the matrix is not
      positive definite in that precision.
    """
    shape = jnp.shape(matrix)
    checks.require(
        len(shape) == 2 and shape[0] == shape[1], "linear_solve.cholesky", f"matrix has shape {shape}; expected [d, d]"
    )
    checks.same_length("linear_solve.cholesky", "matrix", matrix, "b", b)

    def solve(_, rhs):
        def factorised(matrix, ridge, rhs):
            system = matrix + ridge * jnp.eye(len(matrix), dtype=matrix.dtype)
            return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(system), True), rhs)

        return precision.run_in(solve_dtype, factorised, *lax.stop_gradient((matrix, ridge)), rhs)

    ridge = jnp.asarray(ridge, jnp.result_type(matrix))

    def product(v):
        return matrix @ v + ridge * v

    # Derivatives are those of the linear system, whatever precision it is solved in.
    value = lax.custom_linear_solve(product, b, solve, symmetric=True)
    return _solution(product, b, value, tol)


def _solution(matvec, b, value, tol):
    difference = jax.tree.map(jnp.subtract, matvec(value), b)
    norm = optax.tree.norm(b)
    # A zero right-hand side is solved by zero: 0 / tiny rather than 0 / 0.
    residual = optax.tree.norm(difference) / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
    return Solution(value, residual, jnp.isfinite(residual) & (residual <= tol))


def _largest_eigenvalue(matvec, like, rounds=10):
    """The growth of a vector under repeated products, starting from ``like``; 0 for a zero vector."""

    def product(v, _):
        norm = optax.tree.norm(v)
        av = matvec(optax.tree.scale(1.0 / jnp.where(norm > 0, norm, 1.0), v))
        return av, optax.tree.norm(av)

    _, growth = lax.scan(product, like, None, length=rounds)
    return growth[-1]


def _dot(a, b):
    return jax.tree.reduce(operator.add, jax.tree.map(jnp.vdot, a, b))
