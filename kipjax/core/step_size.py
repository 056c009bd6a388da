"""Step sizes of short inner optimizations: found before training, watched during it (arXiv:2302.06755, appendix)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kipjax import checks

__all__ = ["Watch", "adapt", "stable", "tuned", "watch"]

WINDOW = 50
_FAILED, _DESCENDED = 0.29, 0.70
_SHRINK, _GROW = 0.9, 1.05


def stable(
    values: Callable[[jax.Array], jax.Array], start: float | jax.Array, *, where: bool | jax.Array = True
) -> jax.Array:
    """The step size search of RCIG's program: up by 1.2 while every step descends, then down by 0.7.

    Args:
      values: ``step_size [] -> [steps]``, the objective along one run.
      start: the first step size that is tried.
      where: whether to search at all; the result means nothing if not. A traced value costs no run if false, also
        under vmap.

    Returns:
      ``[]`` 0.84 times the first step size that does not descend strictly at every step.

    Raises:
      InputError: ``values`` has less than two entries, which show no descent.
    """
    entries = jax.eval_shape(values, jnp.asarray(start)).shape[0]
    checks.require(
        entries >= 2, "step_size.stable", f"values has {entries} entries; a descent needs 2, so give the step size"
    )

    def going_on(carry):
        _, descends, trial = carry
        return descends & (trial < 200)  # 1.2^200 = 6.9e15: something that always descends ends the search all the same

    def attempt(carry):
        step_size, _, trial = carry
        return 1.2 * step_size, jnp.all(jnp.diff(values(step_size)) < 0), trial + 1

    first = (jnp.asarray(start), jnp.asarray(where, bool), jnp.asarray(0))
    return 0.7 * lax.while_loop(going_on, attempt, first)[0]


class Watch(NamedTuple):
    """A step size ``[]``, zero until it is found, and how many runs since it last was due for a change there were,
    ended higher than they began, and descended throughout."""

    step_size: jax.Array
    runs: jax.Array
    failed: jax.Array
    descended: jax.Array


def watch(step_size: float | jax.Array) -> Watch:
    """The start of watching ``step_size``; 0 leaves it to ``tuned`` to find one."""
    return Watch(jnp.asarray(step_size, jnp.float32), *(jnp.zeros((), jnp.int32) for _ in range(3)))


def tuned(watched: Watch, values: Callable[[jax.Array], jax.Array], start: float) -> jax.Array:
    """The watched step size ``[]``, or, where there is none yet, what ``stable`` finds from ``start`` up."""
    missing = watched.step_size == 0
    return jnp.where(missing, stable(values, start, where=missing), watched.step_size)


def adapt(watched: Watch, values: jax.Array) -> Watch:
    """``watched`` after one more run with the objective ``values [steps]`` along it.

    Every 50 runs the step size falls by 10 % if at least 29 % of them ended higher than they began, and else rises by
    5 % if at least 70 % descended at every step.
    """
    if values.shape[0] < 2:
        return watched
    runs = watched.runs + 1
    failed = watched.failed + ~(values[-1] <= values[0])  # a NaN has failed
    descended = watched.descended + jnp.all(jnp.diff(values) < 0)
    factor = jnp.where(failed >= _FAILED * WINDOW, _SHRINK, jnp.where(descended >= _DESCENDED * WINDOW, _GROW, 1.0))
    due = runs >= WINDOW
    kept = (jnp.where(due, 0, count) for count in (runs, failed, descended))
    return Watch(jnp.where(due, factor, 1.0).astype(watched.step_size.dtype) * watched.step_size, *kept)
