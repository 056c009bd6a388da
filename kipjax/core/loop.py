"""Many steps of a method as one compiled program."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from kipjax.types import Method, PyTree, Sampler

__all__ = ["step_keys", "steps"]


def step_keys(key: jax.Array, step: int | jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys of one step, ``(for the sampler, for the method)``, from the run's key and the step's number alone.

    Being a function of the number, they are the same in a run that was interrupted and resumed.
    """
    sample_key, method_key = jax.random.split(jax.random.fold_in(key, step))
    return sample_key, method_key


def steps(method: Method, count: int) -> Callable[[Sampler, jax.Array, PyTree, int | jax.Array], tuple[PyTree, PyTree]]:
    """A pure function that takes ``count`` steps, sampling included.

    Args:
      method: what to step.
      count: steps per call.

    Returns:
      ``run(sample, key, state, first) -> (state, infos)``: ``sample(key) -> Batch``; ``first`` is the number of the
      first step; ``infos`` is the method's ``Info`` with a leading axis of length ``count``. Compile it with
      ``jax.jit(run, donate_argnums=2)``; the samplers of ``kipjax.data`` are pytrees, so the data set travels as an
      argument. Any other function is closed over: ``jax.jit(functools.partial(run, sample), donate_argnums=1)``.
    """

    def run(sample, key, state, first):
        def body(state, step):
            sample_key, method_key = step_keys(key, step)
            return method.step(method_key, state, sample(sample_key))

        return lax.scan(body, state, first + jnp.arange(count))

    return run
