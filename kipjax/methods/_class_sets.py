"""A distilled set and a batch taken apart by class, for methods that match class by class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.core import labels
from kipjax.methods import inputs
from kipjax.types import Batch, Distilled

__all__ = ["ClassSets", "join", "split", "start"]


class ClassSets(NamedTuple):
    """By class: real images ``x_t [k, b, ...]`` with ``weights [k, b]``, 0 for rows that only fill the batch; images of
    the set ``x_s [k, ipc, ...]``; the class itself, ``labels [k]``."""

    x_t: jax.Array
    weights: jax.Array
    x_s: jax.Array
    labels: jax.Array


def start(where: str, distilled0: Distilled) -> tuple[jax.Array, jax.Array]:
    """Copies of ``x [m, ...]`` and ``y [m, k]`` (a state may be donated), after checking that classes are of one size.

    Raises:
      InputError: lengths differ, or a class has more images than another, or none.
    """
    x, y = inputs.start(where, distilled0)
    m, k = y.shape
    checks.divides(where, "images of the set", m, "classes", k)
    if not checks.is_traced(y):
        counts = np.bincount(np.asarray(labels.classes(y)), minlength=k)
        checks.require(
            bool(np.all(counts == m // k)),
            where,
            f"the set has {counts.min()} to {counts.max()} images of a class (class {counts.argmin()} has the fewest); "
            "every class needs equally many",
        )
    return x, y


def split(where: str, x: jax.Array, y: jax.Array, batch: Batch) -> ClassSets:
    """The set ``x [m, ...]``, ``y [m, k]`` and a batch ``x [k, b, ...]``, ``y [k, b, k]`` by class.

    Rows with targets of nothing but zeros do not count; of one class, whose centred target is zero, all do.

    Raises:
      InputError: the batch is not one block for each class, or (not under jit) a block has no rows of its class.
    """
    k, example = y.shape[1], x.shape[1:]
    expected = (k, *batch.x.shape[1:2], k)
    checks.require(
        batch.y.shape == expected,
        where,
        f"the batch has y of shape {batch.y.shape} and {k} classes need {expected}; draw it with samplers.per_class",
    )
    checks.require(
        batch.x.ndim == x.ndim + 1 and batch.x.shape[0] == k and batch.x.shape[2:] == example,
        where,
        f"the batch has x of shape {batch.x.shape}, and {k} classes of examples {example} need "
        f"[{k}, b, {', '.join(map(str, example))}]; draw it with samplers.per_class",
    )
    batch = inputs.typed(x, batch)
    _check_blocks(where, batch.y)
    weights = _counts(batch.y, jnp).astype(x.dtype)
    return ClassSets(batch.x, weights, x[_order(y)].reshape(k, -1, *example), jnp.arange(k))


def join(blocks: jax.Array, y: jax.Array) -> jax.Array:
    """``blocks [k, ipc, ...]`` as rows ``[m, ...]`` in the order of the set: the inverse of what ``split`` does."""
    rows = blocks.reshape(-1, *blocks.shape[2:])
    return jnp.zeros_like(rows).at[_order(y)].set(rows)


def _counts(y, np_or_jnp):
    """Which rows ``[k, b]`` of targets ``[k, b, k]`` count."""
    return np_or_jnp.any((y != 0) | (y.shape[-1] == 1), axis=-1)


def _check_blocks(where, y):
    """Block ``c`` of targets ``y [k, b, k]`` must have rows that count, all of class ``c``, where they are concrete."""
    if checks.is_traced(y):
        return
    y = np.asarray(y)  # in a scan, what jnp makes of concrete arrays is traced
    counts, found = _counts(y, np), y.argmax(axis=-1)
    for c in range(len(counts)):
        rows = found[c][counts[c]]
        checks.require(rows.size > 0, where, f"block {c} of the batch has no rows; it needs some of class {c}")
        checks.require(
            bool(np.all(rows == c)),
            where,
            f"block {c} of the batch has rows of class {rows[rows != c][:1].sum()}; it needs those of class {c} alone, "
            "as samplers.per_class draws them",
        )


def _order(y):
    """The rows of the set by class ``[m]``, as they come within one."""
    return jnp.argsort(labels.classes(y), stable=True)
