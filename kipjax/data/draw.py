"""Random draws without replacement whose cost grows with the number drawn, not with the size of the pool.

Sorting random keys for a whole pool (``jax.random.permutation``) takes 8 to 25 ms for 60,000 rows on two CPU cores, at
every training step; the draw below takes 0.1 ms or less for 6,000 of them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks

__all__ = ["without_replacement"]

_ROUNDS = 32


def without_replacement(key: jax.Array, count: int, total: int | np.ndarray | jax.Array) -> jax.Array:
    """Distinct indices: the first ``count`` entries of a pseudo-random permutation of ``0 .. total - 1``.

    The permutation is a swap-or-not shuffle. Round ``r`` pairs every index ``i`` with ``pivot_r - i mod total``, and
    one coin per pair, a hash of the larger index with a random word, decides whether the two trade places. Every round
    permutes exactly ``total`` indices: no duplicates, nothing rejected, and each index can be followed
    through all rounds on its own. After 32 rounds the chance of any index to be drawn is ``count / total`` up to a
    relative error of about ``2^-32``, as far as the hash acts like fair coins. Not for cryptography.

    Args:
      key: PRNG key.
      count: how many, at most ``total``.
      total: size of the pool, below ``2^31``; ``[]``, or ``[c]`` for ``c`` independent draws from pools of those sizes.

    Returns:
      ``[count]`` int32, or ``[c, count]``.

    Raises:
      InputError: a pool is smaller than ``count``.

    References:
      Hoang, Morris, Rogaway, "An Enciphering Scheme Based on a Card Shuffle", CRYPTO 2012, arXiv:1208.1176, figure 1.

    Example:
      >>> sorted(without_replacement(jax.random.key(0), 5, 5).tolist())
      [0, 1, 2, 3, 4]
    """
    checks.at_least("draw.without_replacement", "count", count, 0)
    checks.at_least("draw.without_replacement", "total", total, count)
    size = jnp.asarray(total, jnp.uint32)[..., None]
    pivots, salts = jax.random.bits(key, (2, _ROUNDS, *size.shape), "uint32")
    pivots = pivots % jnp.maximum(size, 1)

    def shuffle_round(r: jax.Array, index: jax.Array) -> jax.Array:
        pivot = pivots[r]
        partner = jnp.where(index <= pivot, pivot - index, pivot + (size - index))
        heads = _mix(jnp.maximum(index, partner) ^ salts[r]) >> 31 == 1
        return jnp.where(heads, partner, index)

    start = jnp.broadcast_to(jnp.arange(count, dtype=jnp.uint32), (*size.shape[:-1], count))
    return jax.lax.fori_loop(0, _ROUNDS, shuffle_round, start).astype(jnp.int32)


def _mix(word: jax.Array) -> jax.Array:
    """Spreads every bit of a uint32 over all 32: two multiplications by odd constants between xor-shifts."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)
