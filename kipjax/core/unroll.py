"""Short inner optimizations by ``lax.scan``, through which gradients may be taken."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from kipjax import checks
from kipjax.types import PyTree

__all__ = ["adam"]


def adam(
    loss: Callable[[PyTree], jax.Array], z: PyTree, *, steps: int, step_size: float | jax.Array
) -> tuple[PyTree, jax.Array]:
    """``steps`` Adam steps (optax's defaults) on ``loss``, from ``z``.

    Args:
      loss: ``z -> []``.
      z: the start, any pytree.
      steps: how many.
      step_size: constant, may be traced.

    Returns:
      ``(z, values [steps])``: the last iterate, and the loss before each step. Reverse mode through it keeps every
      iterate.
    """
    checks.whole("unroll.adam", "steps", steps, 0)
    optimizer = optax.scale_by_adam()

    def step(carry, _):
        z, state = carry
        value, gradient = jax.value_and_grad(loss)(z)
        updates, state = optimizer.update(gradient, state)
        return (jax.tree.map(lambda zi, u: zi - (step_size * u).astype(zi.dtype), z, updates), state), value

    (z, _), values = lax.scan(step, (z, optimizer.init(z)), None, length=steps)
    return z, jnp.asarray(values)
