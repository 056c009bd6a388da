"""Ridge regression on features of a whole training set, its ridge chosen on targets that are held out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kipjax.data import draw
from kipjax.kernels.basic import FeatureMap
from kipjax.types import Batch

__all__ = ["REGS", "Split", "Teacher", "fit", "hold_out"]

REGS = tuple(float(10 ** (exponent / 2)) for exponent in range(-12, 12))
"""1e-6 to 10^5.5 in steps of half a power of ten: the grid of the authors' program, which for linear features starts
at 1e-3 (``krr_exact.make(..., regs=REGS[6:])``)."""


class Teacher(NamedTuple):
    """``weights [p, k]``, the absolute ridge ``reg []`` and the ``accuracy []`` in 0..1 that it was chosen by."""

    weights: jax.Array
    reg: jax.Array
    accuracy: jax.Array


class Split(NamedTuple):
    """Targets ``batch``, which of them the teacher is trained on (``kept [n]`` bool), and those it is ``scored`` on."""

    batch: Batch
    kept: jax.Array
    scored: Batch


def hold_out(key: jax.Array, batch: Batch, fraction: float) -> Split:
    """Holds out a random fraction of ``batch``; for 0 it is trained and scored on all."""
    n = len(batch.y)
    held = round(fraction * n)
    if not held:
        return Split(batch, jnp.ones(n, bool), batch)
    rows = draw.without_replacement(key, held, n)
    return Split(batch, jnp.ones(n, bool).at[rows].set(False), Batch(batch.x[rows], batch.y[rows]))


def fit(
    feature_map: FeatureMap,
    split: Split,
    *,
    regs: Sequence[float] = REGS,
    block_size: int = 4096,
    dtype: Any = "float64",
) -> Teacher:
    """The teacher: ``argmin |h w - y|^2 + reg |w|^2`` over the targets that are not held out.

    Of equally good ridges the smallest is taken. The normal equations are solved where there are more targets than
    features, else the dual ones, by one eigendecomposition for all ridges.

    Args:
      feature_map: features ``h [n, p]``.
      split: targets, from ``hold_out``.
      regs: absolute ridges to choose from, ascending, not negative.
      block_size: targets that go through the features at once.
      dtype: precision of features and solve; call this inside ``core.precision.mode`` of it.

    References:
      NeurIPS 2024 (WI2VpcBdnd), algorithm 1.
    """
    batch, kept, scored = split

    def rows_of(block, kept):
        h, y = feature_map.features(block.x.astype(dtype)), block.y.astype(dtype)
        return jnp.where(kept[:, None], h, 0.0), jnp.where(kept[:, None], y, 0.0)

    blocks = _blocks(batch, kept, block_size)
    weights = _primal(rows_of, blocks) if len(kept) > _width(feature_map, batch.x) else _dual(rows_of, blocks)
    grid = jnp.asarray(regs, dtype)
    candidates = jax.vmap(weights)(grid)

    def correct(total, args):
        block, kept = args
        outputs = jnp.einsum("np,rpk->rnk", rows_of(block, kept)[0], candidates)
        right = _classes(outputs.astype(block.y.dtype)) == _classes(block.y)
        return total + jnp.sum(right & kept, axis=1, dtype=jnp.int32), None

    parts = _blocks(scored, jnp.ones(len(scored.y), bool), block_size)
    counts, _ = lax.scan(correct, jnp.zeros(len(grid), jnp.int32), parts)
    best = lax.argmax(counts, 0, jnp.int32)
    return Teacher(candidates[best], grid[best], counts[best].astype(dtype) / len(scored.y))


def _primal(rows_of, blocks):
    """``reg -> weights [p, k]`` from ``h^T h`` and ``h^T y``, summed over blocks."""

    def add(total, args):
        h, y = rows_of(*args)
        return jax.tree.map(jnp.add, total, (h.T @ h, h.T @ y)), None

    first = jax.tree.map(lambda leaf: leaf[0], blocks)
    like = jax.eval_shape(lambda: add((0.0, 0.0), first)[0])
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    (gram, moment), _ = lax.scan(add, zero, blocks)
    reciprocal, vectors = _spectrum(gram)
    projected = vectors.T @ moment
    return lambda reg: vectors @ (reciprocal(reg)[:, None] * projected)


def _dual(rows_of, blocks):
    """The same from ``h h^T``."""
    h, y = (leaf.reshape(-1, leaf.shape[-1]) for leaf in lax.map(lambda args: rows_of(*args), blocks))
    reciprocal, vectors = _spectrum(h @ h.T)
    back, projected = h.T @ vectors, vectors.T @ y
    return lambda reg: back @ (reciprocal(reg)[:, None] * projected)


def _spectrum(gram):
    """``reg -> 1 / (values + reg)`` and the eigenvectors; what is zero to rounding has no part in the solution."""
    values, vectors = jnp.linalg.eigh(gram)
    kept = values > jnp.finfo(gram.dtype).eps * len(gram) * values[-1]
    return lambda reg: jnp.where(kept, 1 / (jnp.where(kept, values, 1.0) + reg), 0.0), vectors


def _classes(y):
    # By hand in 32 bits: lowered outside the float64 mode that it was traced in, argmax of float64 fails.
    return lax.argmax(y, y.ndim - 1, jnp.int32)


def _blocks(batch, kept, block_size):
    """``(batch, kept)`` with leaves ``[blocks, rows, ...]``, filled up with rows that are not kept."""
    n = len(kept)
    count = -(-n // block_size)
    rows = -(-n // count)

    def leaf(a):
        a = jnp.pad(a, [(0, count * rows - n), *[(0, 0)] * (a.ndim - 1)]) if count * rows > n else a
        return a.reshape(count, rows, *a.shape[1:])

    return jax.tree.map(leaf, (batch, kept))


def _width(feature_map, x):
    return jax.eval_shape(feature_map.features, x[:1]).shape[1]
