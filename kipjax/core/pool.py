"""A pool of networks as one stacked pytree: one is drawn at each step, used, trained a little and put back.

FRePo's (arXiv:2206.00719, algorithm 1), which RCIG keeps (arXiv:2302.06755).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kipjax import checks
from kipjax.types import PyTree

__all__ = ["Pool", "get", "init", "pick", "put"]


class Pool(NamedTuple):
    """``members``: a pytree with leaves ``[p, ...]``; ``ages [p]`` int32, the training steps behind each of them."""

    members: PyTree
    ages: jax.Array


def init(
    key: jax.Array, init_member: Callable[[jax.Array], PyTree], size: int, *, stagger_to: int | None = None
) -> Pool:
    """``size`` fresh members.

    Args:
      key: PRNG key.
      init_member: ``key -> member``.
      size: number of members ``p``.
      stagger_to: the age at which members are replaced, if their ages are to start spread out: member ``i`` counts
        ``(stagger_to // p) i`` steps although it is fresh, so that not all are replaced at once (as FRePo does).
    """
    checks.whole("pool.init", "size", size)
    members = jax.vmap(init_member)(jax.random.split(key, size))
    spacing = 0 if stagger_to is None else stagger_to // size
    return Pool(members, spacing * jnp.arange(size, dtype=jnp.int32))


def pick(key: jax.Array, pool: Pool) -> jax.Array:
    """The number ``[]`` of a member, each as likely as the others."""
    return jax.random.randint(key, (), 0, pool.ages.shape[0])


def get(pool: Pool, index: jax.Array) -> tuple[PyTree, jax.Array]:
    """``(member, age [])`` at ``index``."""
    return jax.tree.map(lambda leaf: leaf[index], (pool.members, pool.ages))


def put(pool: Pool, index: jax.Array, member: PyTree, age: jax.Array) -> Pool:
    """The pool with ``member``, of ``age []`` int32, at ``index []``; all others are left as they are."""
    return jax.tree.map(lambda stack, leaf: stack.at[index].set(leaf), pool, Pool(member, age))
