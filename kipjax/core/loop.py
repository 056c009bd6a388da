"""Many steps of a method as one compiled program."""

from collections.abc import Callable

import jax
from jax import lax

from kipjax.types import Method, PyTree, Sampler

__all__ = ["step_keys", "steps"]


def step_keys(key: jax.Array, step: int | jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys of one step, ``(for the sampler, for the method)``, from the run's key and the step's number alone.

    Being a function of the number, they are the same in a run that was interrupted and resumed.
    """
    sample_key, method_key = jax.random.split(jax.random.fold_in(key, step))
    return sample_key, method_key


def steps(
    method: Method, sample: Sampler, count: int
) -> Callable[[jax.Array, PyTree, jax.Array], tuple[PyTree, PyTree]]:
    """A pure function that takes ``count`` steps, sampling included.

    Args:
      method: what to step.
      sample: ``sample(key) -> Batch``.
      count: steps per call.

    Returns:
      ``run(key, state, first) -> (state, infos)``: ``first`` is the number of the first step, ``infos`` the method's
      ``Info`` with a leading axis of length ``count``. Compile it with ``jax.jit(run, donate_argnums=1)``.
    """

    def run(key, state, first):
        def body(state, step):
            sample_key, method_key = step_keys(key, step)
            return method.step(method_key, state, sample(sample_key))

        return lax.scan(body, state, first + jax.numpy.arange(count))

    return run
