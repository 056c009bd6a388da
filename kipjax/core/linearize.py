"""Networks to first order around their parameters, and products with their Jacobian and empirical tangent kernel.

``apply(params, x [n, ...]) -> [n, k]`` is any network; ``J`` is its Jacobian ``[n k, parameters]`` at ``params0``.
Lee et al., arXiv:1902.06720, for the model; Jacot et al., arXiv:1806.07572, for the kernel ``J J^T``.
"""

import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kipjax import checks
from kipjax.types import PyTree

__all__ = ["Products", "in_blocks", "jacobian", "linearize", "ntk", "ntk_vector_product", "products"]

Apply = Callable[[PyTree, jax.Array], jax.Array]


def linearize(apply: Apply, params0: PyTree, *, centered: bool = False) -> Callable[[PyTree, jax.Array], jax.Array]:
    """The first-order model ``f(tau, x) = f_0(x) + J(x) tau`` around ``params0``, for a displacement ``tau``.

    Args:
      apply: the network.
      params0: where it is linearised; no gradient flows into it.
      centered: leave ``f_0(x)``, the output at ``params0``, out (arXiv:2302.06755, section 3).

    Returns:
      ``(tau, x [n, ...]) -> [n, k]``; exactly linear in ``tau`` if centred, and differentiable in both.

    Example:
      >>> f = linearize(lambda p, x: jnp.tanh(x @ p), jnp.zeros((2, 1)))
      >>> f(jnp.ones((2, 1)), jnp.ones((3, 2))).ravel().tolist()
      [2.0, 2.0, 2.0]
    """
    params0 = lax.stop_gradient(params0)

    def first_order(tau: PyTree, x: jax.Array) -> jax.Array:
        value, change = jax.jvp(lambda p: apply(p, x), (params0,), (tau,))
        return change if centered else value + change

    return first_order


class Products(NamedTuple):
    """``value`` of the network, ``jvp(tau) = J tau`` like it, and ``vjp(u) = J^T u`` like the parameters."""

    value: PyTree
    jvp: Callable[[PyTree], PyTree]
    vjp: Callable[[PyTree], PyTree]


def products(apply: Callable[[PyTree, jax.Array], PyTree], params0: PyTree, x: jax.Array) -> Products:
    """The products with the Jacobian at ``x [n, ...]``, sharing one forward pass; ``apply`` may return any pytree."""
    value, jvp = jax.linearize(lambda p: apply(p, x), params0)
    transposed = jax.linear_transpose(jvp, params0)
    return Products(value, jvp, lambda u: transposed(u)[0])


def jacobian(apply: Apply, params0: PyTree, x: jax.Array) -> PyTree:
    """``J`` as a tree like ``params0`` with leaves ``[n, k, ...]``: one row of memory for each output of each image."""

    def of_one(example):
        value, pullback = jax.vjp(lambda p: apply(p, example[None])[0], params0)
        return jax.vmap(lambda row: pullback(row)[0])(jnp.eye(value.shape[0], dtype=value.dtype))

    return jax.vmap(of_one)(x)


def ntk(j1: PyTree, j2: PyTree | None = None) -> jax.Array:
    """The empirical tangent kernel ``J1 J2^T [n1 k, n2 k]`` of two Jacobians; of one with itself unless two are given.

    Rows run over the outputs of the first image, then of the second, and so on.
    """
    first = jax.tree.leaves(j1)
    second = first if j2 is None else jax.tree.leaves(j2)

    def rows(leaf):
        return leaf.reshape(leaf.shape[0] * leaf.shape[1], -1)

    # On GPUs the default keeps three digits.
    parts = [jnp.matmul(rows(a), rows(b).T, precision=lax.Precision.HIGHEST) for a, b in zip(first, second)]
    return jax.tree.reduce(operator.add, parts)


def ntk_vector_product(apply: Apply, params0: PyTree, x1: jax.Array, x2: jax.Array, u: jax.Array) -> jax.Array:
    """``J(x1) J(x2)^T u [n1, k]`` for ``u [n2, k]`` without forming the kernel."""
    checks.same_length("linearize.ntk_vector_product", "x2", x2, "u", u)
    _, pullback = jax.vjp(lambda p: apply(p, x2), params0)
    return jax.jvp(lambda p: apply(p, x1), (params0,), pullback(u))[1]


def in_blocks(fn: Callable[..., PyTree], *arrays: jax.Array, size: int) -> PyTree:
    """``fn(*arrays)`` computed for ``size`` rows at a time, so that memory does not grow with their number.

    Args:
      fn: acts on each row alone; takes and gives arrays with the rows along axis 0. Derivatives of it compute each
        block anew.
      *arrays: ``[n, ...]``.
      size: rows in a block; 0 for all at once.
    """
    checks.whole("linearize.in_blocks", "size", size, 0)
    n = arrays[0].shape[0]
    if size == 0 or n <= size:
        return fn(*arrays)
    count = n // size
    head = [a[: count * size].reshape(count, size, *a.shape[1:]) for a in arrays]
    done = lax.map(lambda block: jax.checkpoint(fn)(*block), head)
    done = jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:]), done)
    if n == count * size:
        return done
    rest = jax.checkpoint(fn)(*(a[count * size :] for a in arrays))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), done, rest)
