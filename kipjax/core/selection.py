"""Which examples of a set to keep, class by class: rules on inner products of features, and forgetting events.

``Products`` holds what a rule needs of features ``f(x_i)`` of ``n`` examples in ``k`` classes, so that the features
themselves may be those of a kernel. Every rule gives ``[k, ipc]`` row numbers; of equal scores the first row wins, and
a class sees only its own rows. A class with fewer than ``ipc`` is an error; under jit, where nobody can count, the rows
that it lacks are -1. Herding is that of arXiv:1611.07725, algorithm 4; k-center of arXiv:1708.00489;
forgetting events of arXiv:1812.05159.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kipjax import checks

__all__ = [
    "Forgetting",
    "Products",
    "best",
    "forget",
    "forgetting_scores",
    "herding",
    "in_class",
    "k_center",
    "leverage_scores",
    "members",
    "never_seen",
    "products",
    "require_enough",
    "without_replacement",
]


class Products(NamedTuple):
    """Inner products of the features of ``n`` examples.

    Attributes:
      members: ``[k, n]`` bool, which examples are of which class.
      norms: ``[n]`` ``f(x_i).f(x_i)``.
      with_mean: ``[n]`` ``f(x_i).mu`` with the mean ``mu`` of the class of ``i``.
      with_rows: of rows ``[k]``, one in each class, to ``[n]``: ``f(x_i).f(x_r)`` with the row of the class of ``i``.
    """

    members: jax.Array
    norms: jax.Array
    with_mean: jax.Array
    with_rows: Callable[[jax.Array], jax.Array]


def members(y: jax.Array) -> jax.Array:
    """``[k, n]`` bool of targets ``y [n, k]``: the class of a row is its largest entry."""
    checks.require(jnp.ndim(y) == 2, "selection.members", f"y has shape {jnp.shape(y)}; expected [n, classes]")
    classes = lax.argmax(y, 1, jnp.int32)
    return jnp.arange(y.shape[1], dtype=jnp.int32)[:, None] == classes[None]


def products(h: jax.Array, y: jax.Array) -> Products:
    """``Products`` of features ``h [n, p]`` with targets ``y [n, k]``."""
    checks.same_length("selection.products", "h", h, "y", y)
    own = members(y)
    counts = jnp.maximum(jnp.sum(own, axis=1, keepdims=True), 1)
    means = _product(own.astype(h.dtype), h) / counts

    def with_each(points):
        return in_class(own, _product(h, points.T))

    return Products(own, jnp.sum(h**2, axis=1), with_each(means), lambda rows: with_each(h[rows]))


def in_class(own: jax.Array, values: jax.Array) -> jax.Array:
    """Of ``values [n, k]`` the one ``[n]`` in the column of each row's class."""
    return jnp.sum(jnp.where(own.T, values, 0), axis=1)


def require_enough(where: str, own: jax.Array, ipc: int) -> None:
    """``ipc`` rows must be there to choose from in every class of ``own [k, n]`` bool.

    Raises:
      InputError: they are not, or ``ipc`` is not a positive whole number.
    """
    checks.whole(where, "ipc", ipc)
    k, n = jnp.shape(own)
    checks.require(
        k * ipc <= n, where, f"{k * ipc} images cannot be chosen from a batch of {n}; give a larger one, or lower ipc"
    )
    if not checks.is_traced(own):
        counts = np.asarray(own).sum(axis=1)
        few = int(counts.argmin())
        checks.require(
            bool(counts[few] >= ipc),
            where,
            f"class {few} has {counts[few]} images in the batch and {ipc} are to be chosen; lower ipc",
        )


def best(scores: jax.Array, own: jax.Array, ipc: int) -> jax.Array:
    """The ``ipc`` rows of highest score in each class, best first.

    Args:
      scores: ``[n]``.
      own: ``[k, n]`` bool, with at least ``ipc`` in each class.
      ipc: how many.
    """
    checks.require(
        jnp.shape(scores) == jnp.shape(own)[1:],
        "selection.best",
        f"scores has shape {jnp.shape(scores)} and own {jnp.shape(own)}; expected one score for each of its columns",
    )
    require_enough("selection.best", own, ipc)
    rows = lax.top_k(_of_own(scores, own), ipc)[1].astype(jnp.int32)
    return jnp.where(jnp.take_along_axis(jnp.asarray(own), rows, axis=1), rows, -1)


def herding(given: Products, ipc: int) -> jax.Array:
    """Greedily the rows whose sum follows the mean: row ``t`` minimises ``|t mu - sum_chosen f - f(x)|``.

    Args:
      given: inner products; of a kernel, this is kernel herding.
      ipc: rows of each class.

    Returns:
      ``[k, ipc]``, in the order in which they were chosen. One row is the nearest to the mean.

    References:
      Welling, ICML 2009; Chen, Welling, Smola, arXiv:1203.3472; as a coreset, arXiv:2006.05929.
    """

    require_enough("selection.herding", given.members, ipc)

    def pick(carry, t):
        summed, free = carry
        # |t mu - sum - f|^2 without what all rows of a class share
        rows = _first_best(2 * ((t + 1) * given.with_mean - summed) - given.norms, free)
        return (summed + given.with_rows(rows), _without(free, rows)), rows

    start = jnp.zeros_like(given.with_mean), given.members
    return lax.scan(pick, start, jnp.arange(ipc))[1].T


def k_center(given: Products, ipc: int) -> jax.Array:
    """Farthest first: the row nearest to the mean, then always the one farthest from its nearest chosen row.

    Args:
      given: inner products.
      ipc: rows of each class.

    Returns:
      ``[k, ipc]``, in the order in which they were chosen; the distance falls along it.

    References:
      Sener and Savarese, arXiv:1708.00489; started from the mean as in arXiv:2006.05929.
    """

    require_enough("selection.k_center", given.members, ipc)

    def distances(rows):
        of_row = jnp.sum(jnp.where(given.members, given.norms[rows][:, None], 0), axis=0)
        return jnp.maximum(given.norms + of_row - 2 * given.with_rows(rows), 0.0)

    def pick(carry, _):
        nearest, free = carry
        rows = _first_best(nearest, free)
        return (jnp.minimum(nearest, distances(rows)), _without(free, rows)), rows

    first = _first_best(2 * given.with_mean - given.norms, given.members)
    start = distances(first), _without(given.members, first)
    rest = lax.scan(pick, start, None, length=ipc - 1)[1]
    return jnp.concatenate([first[None], rest]).T


def leverage_scores(k: jax.Array, reg: float | jax.Array) -> jax.Array:
    """Ridge leverage scores ``(K (K + reg I)^-1)_ii`` in 0..1, which sum to the effective dimension.

    Args:
      k: ``[n, n]`` kernel matrix.
      reg: absolute ridge, positive.

    Returns:
      ``[n]``.

    References:
      Alaoui and Mahoney, arXiv:1411.0306, definition 1 (their ridge is ``reg / n``).
    """
    where, shape = "selection.leverage_scores", jnp.shape(k)
    checks.at_least(where, "reg", reg, 0.0, strict=True)
    checks.require(len(shape) == 2 and shape[0] == shape[1], where, f"k has shape {shape}; expected [n, n]")
    values, vectors = jnp.linalg.eigh(k)
    return (vectors**2) @ (jnp.maximum(values, 0.0) / (jnp.maximum(values, 0.0) + reg))


def without_replacement(key: jax.Array, weights: jax.Array, own: jax.Array, ipc: int) -> jax.Array:
    """``[k, ipc]`` rows drawn one after the other with probabilities in proportion to ``weights [n]``, not negative.

    By the Gumbel trick: the highest ``log w_i + g_i`` (Yellott, J. Math. Psychology 1977).
    """
    logs = jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny))
    return best(logs + jax.random.gumbel(key, weights.shape, weights.dtype), own, ipc)


class Forgetting(NamedTuple):
    """The history of ``n`` examples: ``events [n]`` int32, right at its ``last`` presentation, right at ``any``."""

    events: jax.Array
    last: jax.Array
    any: jax.Array


def never_seen(n: int) -> Forgetting:
    """The history of ``n`` examples before their first presentation."""
    return Forgetting(jnp.zeros(n, jnp.int32), jnp.zeros(n, bool), jnp.zeros(n, bool))


def forget(history: Forgetting, rows: jax.Array, right: jax.Array) -> Forgetting:
    """The history after a presentation of ``rows [b]``, classified ``right [b]`` bool or not.

    An example is forgotten where it was right at the presentation before and is wrong now (arXiv:1812.05159).
    """
    lost = history.last[rows] & ~right
    return Forgetting(
        history.events.at[rows].add(lost.astype(jnp.int32)),
        history.last.at[rows].set(right),
        history.any.at[rows].set(history.any[rows] | right),
    )


def forgetting_scores(history: Forgetting) -> jax.Array:
    """Forgetting events ``[n]`` as floats; infinitely many for what was never learned (arXiv:1812.05159)."""
    return jnp.where(history.any, history.events.astype(jnp.float32), jnp.inf)


def _product(a, b):
    """At full precision: on GPUs the default keeps three digits, too few for differences of distances."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _of_own(scores, own):
    """``[k, n]`` scores, the lowest of which is above those of rows that do not count."""
    scores = jnp.asarray(scores, jnp.result_type(scores, jnp.float32))
    return jnp.where(own, jnp.maximum(scores, jnp.finfo(scores.dtype).min), -jnp.inf)


def _first_best(scores, free):
    """``[k]`` rows, -1 where none is free."""
    rows = lax.argmax(_of_own(scores, free), 1, jnp.int32)
    return jnp.where(jnp.any(free, axis=1), rows, -1)


def _without(free, rows):
    return free.at[jnp.arange(len(rows)), rows].set(False)  # row -1 is the last: no harm where none is free
