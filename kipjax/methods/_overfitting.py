"""When a network trained on distilled labels overfits, seen from its errors on real batches (arXiv:2006.08572)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kipjax import checks

__all__ = ["Watch", "training_steps", "watch", "watched"]

_REMEMBERED = 3


class Watch(NamedTuple):
    """Detects overfitting from the errors of real batches.

    ``errors [window]``, the last ones; ``lowest []`` sum of a window since the last reset; ``waited []`` steps since
    then; ``steps []`` since the last reset; ``lengths [3]``, the last steps to the best window, and ``resets []``.
    """

    errors: jax.Array
    lowest: jax.Array
    waited: jax.Array
    steps: jax.Array
    lengths: jax.Array
    resets: jax.Array


def watch(window: int, dtype: Any = jnp.float32) -> Watch:
    """The start of watching, with windows of that many steps."""
    checks.whole("ld.watch", "window", window)
    zero = jnp.zeros((), jnp.int32)
    lengths = jnp.zeros(_REMEMBERED, jnp.int32)
    return Watch(jnp.zeros(window, dtype), jnp.asarray(jnp.inf, dtype), zero, zero, lengths, zero)


def watched(at: Watch, error: jax.Array) -> tuple[Watch, jax.Array]:
    """The watch after one more ``error []``, and whether the network is to be replaced ``[]``.

    From the first full window on, a sum of a window below all before is an improvement. After ``window + 1`` steps
    without one the watch starts anew, and remembers at which step the best window ended.
    """
    window, steps = at.errors.shape[0], at.steps + 1
    errors = jnp.roll(at.errors, -1).at[-1].set(error)
    total = jnp.sum(jnp.sort(errors))  # so that windows of the same errors in another order have the same sum
    better = (steps >= window) & (total < at.lowest)
    idle = (steps > window) & ~better
    over = idle & (at.waited >= window)
    length = steps - at.waited - 1
    lengths = jnp.where(over, jnp.roll(at.lengths, -1).at[-1].set(length), at.lengths)
    going_on = Watch(
        errors,
        jnp.where(better, total, at.lowest),
        jnp.where(better, 0, at.waited + idle),
        steps,
        lengths,
        at.resets + over,
    )
    fresh = watch(window, at.errors.dtype)._replace(lengths=lengths, resets=at.resets + 1)
    return jax.tree.map(lambda a, b: jnp.where(over, a, b), fresh, going_on), over


def training_steps(at: Watch) -> jax.Array:
    """Steps ``[]`` to train on the set: the mean of the last three steps to overfitting, or those so far if none."""
    known = jnp.minimum(at.resets, _REMEMBERED)
    mean = jnp.sum(at.lengths) // jnp.maximum(known, 1)
    return jnp.where(known > 0, mean, at.steps)
