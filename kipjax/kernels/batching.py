"""Kernel matrices block by block, for when the intermediate arrays of the whole matrix do not fit."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kipjax import checks
from kipjax.core import precision
from kipjax.kernels.basic import diagonal
from kipjax.types import KernelFn

__all__ = ["Estimate", "batch", "estimate"]


class Estimate(NamedTuple):
    """What a kernel matrix takes: ``bytes`` at its peak, and ``seconds``, ``None`` where nothing was run."""

    bytes: int
    seconds: float | None


def estimate(
    kernel_fn: KernelFn,
    shape1: tuple[int, ...],
    shape2: tuple[int, ...],
    *,
    gradient: bool = False,
    memory: int | None = None,
    probe: bool = True,
    dtype: str = "float32",
) -> Estimate:
    """Predicts memory and time of a kernel matrix, before it is computed.

    Memory is what the compiler plans for the whole program: arguments, results and working arrays. Time is that of two
    small corners of the matrix, extended in proportion to the pairs; the first run's compilation is not in it.

    Args:
      kernel_fn: any kernel function.
      shape1, shape2: ``[n1, ...]`` and ``[n2, ...]``.
      gradient: of the value and its gradient with respect to both inputs.
      memory: bytes that there are; ``None`` to refuse nothing.
      probe: run the corners; otherwise ``seconds`` is ``None``.
      dtype: of the inputs.

    Raises:
      InputError: more than ``memory`` is needed; the text has both numbers.

    >>> from kipjax.kernels.basic import linear
    >>> estimate(linear(), (10, 4), (20, 4), probe=False).bytes >= 4 * 10 * 20
    True
    """

    where = "kernels.batching.estimate"
    for name, shape in (("shape1", shape1), ("shape2", shape2)):
        right = isinstance(shape, tuple | list) and len(shape) >= 2 and all(isinstance(n, int) for n in shape)
        checks.require(right, where, f"{name} is {shape!r}; expected the shape of an array, such as (100, 28, 28, 1)")
    checks.one_of(where, "dtype", dtype, ("float32", "float64"))
    if memory is not None:
        checks.whole(where, "memory", memory)
    with precision.mode(dtype):
        return _estimate(where, kernel_fn, shape1, shape2, gradient, memory, probe, dtype)


def _estimate(where, kernel_fn, shape1, shape2, gradient, memory, probe, dtype):
    def total(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(kernel_fn(a, b))

    program = jax.jit(jax.value_and_grad(total, (0, 1)) if gradient else kernel_fn)
    inputs = [jax.ShapeDtypeStruct(shape, dtype) for shape in (shape1, shape2)]
    plan = program.lower(*inputs).compile().memory_analysis()
    assert plan is not None  # every backend of JAX has one
    need = int(plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes)
    checks.require(
        memory is None or need <= memory,
        where,
        f"{shape1[0]} x {shape2[0]} pairs need about {need} bytes and memory is {memory}; lower the kernel's budget, "
        "wrap it in kernels.batching.batch, or take fewer examples at a time",
    )
    return Estimate(need, _probe(program, shape1, shape2, dtype) if probe else None)


def _probe(program: Callable, shape1: tuple[int, ...], shape2: tuple[int, ...], dtype: str) -> float:
    """Seconds of the whole matrix from those of two corners, the second of about four times as many pairs."""

    def timed(rows: int, columns: int) -> tuple[int, float]:
        rows, columns = min(rows, shape1[0]), min(columns, shape2[0])
        keys = jax.random.split(jax.random.key(0))
        inputs = [jax.random.normal(k, (n, *s[1:]), dtype) for k, n, s in zip(keys, (rows, columns), (shape1, shape2))]
        jax.block_until_ready(program(*inputs))
        began = time.perf_counter()
        jax.block_until_ready(program(*inputs))
        return rows * columns, time.perf_counter() - began

    (few, short), (many, long) = timed(2, 8), timed(4, 16)
    per_pair = max((long - short) / (many - few), 0.5 * long / many) if many > few else long / many
    return long + per_pair * max(0, shape1[0] * shape2[0] - many)


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
