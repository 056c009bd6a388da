"""The gradient through the solution of an inner problem, by the implicit function theorem; written here alone.

Loo, Hasani, Lechner, Rus, "Dataset Distillation with Convexified Implicit Gradients", arXiv:2302.06755;
Lorraine, Vicol, Duvenaud, arXiv:1911.02590, for hypergradients at large.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kipjax.core.linear_solve import Solution
from kipjax.types import PyTree

__all__ = ["Hypergradient", "clip_to_direct", "hypergradient"]


class Hypergradient(NamedTuple):
    """The outer loss at an inner solution and its gradient in two parts.

    Attributes:
      value: ``[]`` the outer loss.
      aux: what the outer loss returned besides, or ``None``.
      direct: gradient like ``psi`` with the inner solution held fixed.
      implicit: gradient like ``psi`` through the inner solution.
      solution: of the linear system, with its residual.
    """

    value: jax.Array
    aux: Any
    direct: PyTree
    implicit: PyTree
    solution: Solution

    @property
    def total(self) -> PyTree:
        """``direct + implicit``, the gradient of the outer loss."""
        return jax.tree.map(jnp.add, self.direct, self.implicit)


def hypergradient(
    outer: Callable[..., Any],
    residual: Callable[[PyTree, PyTree], PyTree],
    z: PyTree,
    psi: PyTree,
    solve: Callable[[Callable[[PyTree], PyTree], PyTree], Solution],
    *,
    has_aux: bool = False,
) -> Hypergradient:
    """``d outer(z(psi), psi) / d psi`` where ``z(psi)`` is defined by ``residual(z, psi) = 0``.

    With ``F = residual``, ``(dF/dz)^T v = d outer/dz`` and::

        d outer/d psi = [d outer/d psi]_z - (dF/d psi)^T v

    The minus sign belongs there; equation (1) of arXiv:2302.06755 prints a plus. For an inner loss ``L``, ``F`` is its
    gradient in ``z`` and ``dF/dz`` its Hessian.

    Args:
      outer: ``(z, psi) -> []``, or ``([], aux)`` with ``has_aux``.
      residual: ``(z, psi) -> `` like ``z``, zero at the inner solution.
      z: the inner solution, or where an inner solver stopped. It counts as given: no gradient flows into it.
      psi: what the gradient is taken with respect to.
      solve: ``(matvec, b) -> Solution`` of ``(dF/dz)^T v = b``, for example
        ``functools.partial(linear_solve.cg, tol=1e-6)``. It may leave ``matvec`` aside and use what it knows better.
      has_aux: whether ``outer`` returns more than the loss.

    Returns:
      A ``Hypergradient``; forward values only, not for differentiating again.

    Example:
      >>> from functools import partial
      >>> from kipjax.core import linear_solve
      >>> outer, residual = lambda z, psi: z**2, lambda z, psi: 2.0 * z - psi
      >>> solve = partial(linear_solve.cg, tol=1e-6)
      >>> float(hypergradient(outer, residual, jnp.float32(1.5), jnp.float32(3.0), solve).total)
      1.5
    """
    z, psi = jax.lax.stop_gradient((z, psi))
    out, (of_z, direct) = jax.value_and_grad(outer, argnums=(0, 1), has_aux=has_aux)(z, psi)
    value, aux = out if has_aux else (out, None)
    _, pullback_z = jax.vjp(lambda at: residual(at, psi), z)
    solution = solve(lambda v: pullback_z(v)[0], of_z)
    _, pullback_psi = jax.vjp(lambda at: residual(z, at), psi)
    (implicit,) = pullback_psi(jax.tree.map(jnp.negative, solution.value))
    return Hypergradient(value, aux, direct, implicit, solution)


def clip_to_direct(implicit: PyTree, direct: PyTree) -> PyTree:
    """``implicit`` with the norm of each leaf at most that of the leaf of ``direct``; a leaf of NaN becomes zero.

    RCIG's program does so with images, labels and temperature; its paper does not mention it.
    """

    def clip(i, d):
        norm = optax.tree.norm(i)
        scale = jnp.minimum(norm, optax.tree.norm(d)) / jnp.where(norm > 0, norm, 1.0)
        return jnp.nan_to_num(i * scale, nan=0.0)

    return jax.tree.map(clip, implicit, direct)
