"""Many steps of a method as one program, or one by one with targets from the host; sums over blocks of rows."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kipjax.core import sharding
from kipjax.types import Batch, Method, PyTree, Sampler

__all__ = ["batch_at", "step_keys", "steps", "streamed", "sum_over_blocks"]


def step_keys(key: jax.Array, step: int | jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys of one step, ``(sampler's [], method's [])``, from the run's key and the step's number alone.

    Being a function of the number, they are the same in a run that was interrupted and resumed.
    """
    sample_key, method_key = jax.random.split(jax.random.fold_in(key, step))
    return sample_key, method_key


def batch_at(sample: Sampler, key: jax.Array, step: int | jax.Array) -> Batch:
    """The batch of one step: ``sample.at(step)`` where a sampler takes its batches in order, else a drawn one."""
    at = getattr(sample, "at", None)
    return at(step) if at else sample(step_keys(key, step)[0])


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
            return method.step(step_keys(key, step)[1], state, batch_at(sample, key, step))

        return lax.scan(body, state, first + jnp.arange(count))

    return run


def streamed(
    method: Method, count: int, over: Any = None, *, inspect: Callable[[Any], None] = lambda program: None
) -> Callable[..., tuple[PyTree, PyTree]]:
    """The same steps with the examples in host memory: of them the devices hold those of two batches at a time.

    Row numbers are drawn on the device, as ``steps`` draws them, for all ``count`` steps ahead; while one step runs,
    the host reads the rows of the next.

    Args:
      method: what to step.
      count: steps per call.
      over: the mesh whose devices share each batch, or ``None``. Each process reads its own rows alone.
      inspect: is shown the compiled step before it runs, to look at its memory.

    Returns:
      ``run(sample, key, state, first) -> (state, infos)`` as of ``steps``, not to be compiled itself; ``sample`` is
      what ``data.streaming.streamed`` makes. With a leading axis on ``key`` and ``state``, so many runs at once. The
      state is donated.
    """
    jit: Any = functools.partial(jax.jit, out_shardings=sharding.everywhere(over))

    def draw(numbers, key, first):
        return lax.map(lambda step: batch_at(numbers, key, step).x, first + jnp.arange(count))

    def step(key, state, number, x, numbers, transform):
        y = batch_at(numbers, key, number).y
        x = lax.slice_in_dim(x, 0, y.shape[-2], axis=y.ndim - 2)  # without what fills the last devices up
        return method.step(step_keys(key, number)[1], state, sharding.divide(Batch(transform(x), y), over))

    drawn = [jit(fn) for fn in (draw, jax.vmap(draw, (None, 0, None)))]
    stepped = [jit(fn, donate_argnums=1) for fn in (step, jax.vmap(step, (0, 0, None, 0, None, None)))]
    compiled = []

    def run(sample, key, state, first):
        many = key.ndim
        numbers = np.moveaxis(np.asarray(drawn[many](sample.numbers, key, first)), many, 0)
        infos, x = [], sharding.rows_from_host(sample.x, numbers[0], over)
        for i in range(count):
            arguments = key, state, jnp.asarray(first + i), x, sample.numbers, sample.transform
            if not compiled:
                compiled.append(stepped[many].lower(*arguments).compile())
                inspect(compiled[0])
            state, info = compiled[0](*arguments)
            x = sharding.rows_from_host(sample.x, numbers[i + 1], over) if i + 1 < count else None
            infos.append(info)
        return state, jax.tree.map(lambda *leaves: jnp.stack(leaves, many), *infos)

    return run


def sum_over_blocks(fn: Callable[..., PyTree], rows: tuple[jax.Array, ...], size: int) -> PyTree:
    """``fn(*rows)`` for a function that adds up over rows, ``size`` rows at a time; derivatives compute blocks again.

    What is held grows with ``size`` and not with the rows: of a block nothing is kept, and the rows are not copied.

    Args:
      fn: takes arrays of equally many rows and returns a pytree of sums over them.
      rows: ``[n, ...]`` each.
      size: rows at a time, from 1; the rest that does not fill a block comes last.

    Example:
      >>> float(sum_over_blocks(jnp.sum, (jnp.arange(5.0),), 2))
      10.0
    """
    n = rows[0].shape[0]
    blocks = n // size
    if n <= size:
        return fn(*rows)

    # Rows of every device in every block, so that none of a batch that is divided over devices has to travel, where
    # blocks divide the rows. They are picked inside the checkpoint: picked outside, all blocks would be kept for the
    # derivative. The barrier keeps XLA from taking the rows that fill whole blocks out of the loop, as a copy of them.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def block(i):
        everything, i = lax.optimization_barrier((rows, i))
        whole = (a[: blocks * size].reshape(size, blocks, *a.shape[1:]) for a in everything)
        return fn(*(jnp.take(a, i, axis=1) for a in whole))

    zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(fn, *rows))
    total, _ = lax.scan(lambda t, i: (jax.tree.map(jnp.add, t, block(i)), None), zero, jnp.arange(blocks))
    if n % size:
        rest = jax.checkpoint(lambda: fn(*(a[blocks * size :] for a in rows)), prevent_cse=False)()
        total = jax.tree.map(jnp.add, total, rest)
    return total
