"""Kernel matrices block by block, for when the intermediate arrays of the whole matrix do not fit."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kipjax import checks
from kipjax.kernels.basic import diagonal
from kipjax.types import KernelFn

__all__ = ["batch"]


def batch(kernel_fn: KernelFn, size: int) -> KernelFn:
    """The same kernel, evaluated in blocks of at most ``size`` by ``size`` pairs, one after the other.

    The backward pass recomputes a block when it comes to it, so it too holds the intermediate arrays of one block only,
    for about one more forward pass of time.

    Args:
      kernel_fn: any kernel function.
      size: rows and columns of a block, at least 1. The last blocks may be smaller.

    Returns:
      A kernel function with the same values and gradients, the exact diagonal of ``kernel_fn(x, x)`` included.

    Raises:
      InputError: ``size`` is not a whole number, at least 1.

    >>> import jax.numpy as jnp
    >>> from kipjax.kernels.basic import linear
    >>> batch(linear(), 2)(jnp.ones((5, 3)), jnp.ones((3, 3))).shape
    (5, 3)
    """
    checks.whole("kernels.batching.batch", "size", size)
    block = jax.checkpoint(kernel_fn, prevent_cse=False)

    @jax.jit
    def pair(x1: jax.Array, x2: jax.Array) -> jax.Array:
        row = jax.checkpoint(lambda a, b: _map_rows(lambda c: block(a, c).T, b, size).T, prevent_cse=False)
        return _map_rows(lambda a: row(a, x2), x1, size)

    @jax.jit
    def square(x: jax.Array) -> jax.Array:
        on_diagonal = _map_rows(lambda a: diagonal(kernel_fn, a), x, size)
        return jnp.where(jnp.eye(len(x), dtype=bool), on_diagonal, pair(x, x))

    def batched(x1: jax.Array, x2: jax.Array) -> jax.Array:
        if max(len(x1), len(x2)) <= size:
            return kernel_fn(x1, x2)
        return square(x1) if x1 is x2 else pair(x1, x2)

    return batched


def _map_rows(fn: Callable[[jax.Array], jax.Array], x: jax.Array, size: int) -> jax.Array:
    """``fn(x)`` for a function of rows, ``size`` rows at a time: whole blocks in a loop, then the rest."""
    n = len(x)
    if n <= size:
        return fn(x)
    whole = n - n % size
    blocks = jax.lax.map(fn, x[:whole].reshape(-1, size, *x.shape[1:]))
    first = blocks.reshape(whole, *blocks.shape[2:])
    return first if whole == n else jnp.concatenate([first, fn(x[whole:])])
