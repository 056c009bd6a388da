"""Label Solve: the labels of a fixed support that minimise the KIP loss, in closed form.

Paper: Nguyen, Chen, Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", ICLR 2021, arXiv:2011.00050.

- Equation (8): ``y_s = pinv(K_ts (K_ss + lambda I)^-1) y_t``, the minimum-norm minimiser of equation (7) over ``y_s``.
- One step; its batch is the whole target set, streamed block by block (``K_ts`` is never held). Where the targets
  themselves are too many, several steps add up ``K_st K_ts`` and ``K_st y_t`` and the last of them solves.

The same ridge is used as in evaluation, so the labels are the minimiser of the loss that is evaluated.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kipjax import checks
from kipjax.core import krr, loop, precision
from kipjax.kernels import batching
from kipjax.methods import inputs
from kipjax.types import Batch, Distilled, KernelFn, Method

__all__ = ["Info", "State", "make", "target_moments"]


class State(NamedTuple):
    """The support ``x [m, ...]`` and its labels ``y [m, k]``; with ``accumulate``, what is known of the targets so far.

    ``steps []`` taken, and ``sums``, two ``krr.Moments`` in the precision of the support whose sum they are in that of
    the solve.
    """

    x: jax.Array
    y: jax.Array
    steps: jax.Array | None = None
    sums: tuple[krr.Moments, krr.Moments] | None = None


class Info(NamedTuple):
    """KIP losses ``[]`` on the targets so far: ``start_loss`` with the labels before the step, ``loss`` after it."""

    start_loss: jax.Array
    loss: jax.Array


def target_moments(kernel_fn: KernelFn, x_s: jax.Array, batch: Batch, block_size: int) -> krr.Moments:
    """``krr.moments`` of a target set of any size in blocks of ``block_size`` rows, in the precision of the support.

    Args:
      kernel_fn: the kernel.
      x_s: ``[m, ...]`` support.
      batch: targets ``x [n, ...]``, ``y [n, k]``; each block is cast when its turn comes.
      block_size: rows of ``K_ts`` held at once.
    """

    def one(x, y):
        x, y = (lax.convert_element_type(a, x_s.dtype) for a in (x, y))
        return krr.moments(kernel_fn(x, x_s), y)

    return loop.sum_over_blocks(one, tuple(batch), block_size)


def make(
    kernel_fn: KernelFn,
    *,
    reg: float = 1e-6,
    reg_unit: str = "trace",
    rcond: float | None = None,
    block_size: int = 4096,
    dtype: Any = "float64",
    accumulate: int = 1,
) -> Method:
    """Label Solve as a ``Method`` of one step, or of several for targets that are not there all at once.

    Args:
      kernel_fn: the kernel.
      reg, reg_unit: ridge, as in ``krr.alpha``.
      rcond: relative cut-off for singular values, as in ``krr.labels_from_moments``.
      block_size: target rows of the kernel matrix held at once.
      dtype: precision of the kernels and the solve. The normal matrix squares the condition number, so float64 is the
        default whatever the process runs in; ``None`` keeps the precision of the support.
      accumulate: steps over which the targets come, each with a part of them (``data.streaming.in_order``). The normal
        matrix adds up in the state, and the last of these steps solves for the labels.

    Returns:
      The method; its batch is the whole target set ``x [n, ...]``, ``y [n, k]``, or a part of it.

    Raises:
      InputError: a value is outside its range.

    References:
      arXiv:2011.00050, equation (8).

    Example:
      >>> from kipjax import kernels
      >>> method = make(kernels.get("linear"), reg=0.0)
      >>> batch = Batch(jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[2.0], [4.0], [6.0]]))
      >>> state = method.init(jax.random.key(0), Distilled(jnp.array([[5.0]]), jnp.array([[0.0]])))
      >>> state, _ = method.step(jax.random.key(1), state, batch)
      >>> method.distilled(state).y
      Array([[10.]], dtype=float32)
    """
    checks.require(callable(kernel_fn), "label_solve.make", f"kernel_fn is {kernel_fn!r}; expected one kernel")
    checks.at_least("label_solve.make", "reg", reg, 0.0)
    checks.one_of("label_solve.make", "reg_unit", reg_unit, krr.REG_UNITS)
    precision.check("label_solve.make", "dtype", dtype)
    checks.whole("label_solve.make", "block_size", block_size)
    checks.whole("label_solve.make", "accumulate", accumulate)

    def init(key, distilled0):
        del key
        x, y = inputs.start("label_solve.init", distilled0)
        if accumulate == 1:
            return State(x, y)
        nothing = krr.moments(jnp.zeros((0, len(x)), x.dtype), y[:0])
        return State(x, y, jnp.zeros((), jnp.int32), (nothing, jax.tree.map(jnp.zeros_like, nothing)))

    def solve(x_s, y_s, sums, targets, last):
        k_ss = batching.batch(kernel_fn, block_size)(x_s, x_s)
        stats = target_moments(kernel_fn, x_s, targets, block_size)
        stats = jax.tree.map(lambda *parts: sum(parts), stats, *sums)
        start = krr.alpha(k_ss, y_s, reg=reg, reg_unit=reg_unit, solve_dtype=None)
        start_loss = krr.loss_from_moments(start, stats)

        def solved():
            return krr.labels_from_moments(k_ss, stats, reg=reg, reg_unit=reg_unit, rcond=rcond)

        labels, loss = solved() if last is True else lax.cond(last, solved, lambda: (y_s, start_loss))
        high = jax.tree.map(lambda a: lax.reduce_precision(a, 8, 23), stats)  # what float32 can hold of it
        return labels, Info(start_loss, loss), (high, jax.tree.map(jnp.subtract, stats, high))

    def step(key, state, batch):
        del key
        inputs.fit("label_solve.step", state.x, state.y, batch)
        targets = lax.stop_gradient(batch)  # no argument of run_in, which would copy it in the precision of the solve
        if state.steps is None:
            labels, info, _ = precision.run_in(dtype, lambda x, y: solve(x, y, (), targets, True), state.x, state.y)
            return state._replace(y=labels), info
        turn = state.steps % accumulate
        before = jax.tree.map(lambda a: jnp.where(turn == 0, 0, a), state.sums)  # a new round begins

        def solve_last(x, y, before):
            return solve(x, y, before, targets, turn == accumulate - 1)

        labels, info, sums = precision.run_in(dtype, solve_last, state.x, state.y, before)
        return State(state.x, labels, state.steps + 1, sums), info

    return Method(init, step, lambda state: Distilled(state.x, state.y))
