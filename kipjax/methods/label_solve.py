"""Label Solve: the labels of a fixed support that minimise the KIP loss, in closed form.

Paper: Nguyen, Chen, Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", ICLR 2021, arXiv:2011.00050.

- Equation (8): ``y_s = pinv(K_ts (K_ss + lambda I)^-1) y_t``, the minimum-norm minimiser of equation (7) over ``y_s``.
- One step; its batch is the whole target set, streamed block by block (``K_ts`` is never held).

The same ridge is used as in evaluation, so the labels are the minimiser of the loss that is evaluated.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kipjax import checks
from kipjax.core import krr, precision
from kipjax.types import Batch, Distilled, KernelFn, Method

__all__ = ["Info", "State", "make", "target_moments"]


class State(NamedTuple):
    """The support ``x [m, ...]`` and its labels ``y [m, k]``."""

    x: jax.Array
    y: jax.Array


class Info(NamedTuple):
    """The KIP loss ``[]`` on the batch with the labels before (``start_loss``) and after the step (``loss``)."""

    start_loss: jax.Array
    loss: jax.Array


def target_moments(kernel_fn: KernelFn, x_s: jax.Array, batch: Batch, block_size: int) -> krr.Moments:
    """``krr.moments`` of a target set of any size in blocks of ``block_size`` rows.

    Args:
      kernel_fn: the kernel.
      x_s: ``[m, ...]`` support.
      batch: targets ``x [n, ...]``, ``y [n, k]``.
      block_size: rows of ``K_ts`` held at once.
    """
    n = batch.x.shape[0]
    blocks = n // block_size
    # Rows of every device in every block, so that none of a batch that is divided over devices has to travel.
    whole = jax.tree.map(lambda a: a[: blocks * block_size].reshape(block_size, blocks, *a.shape[1:]), batch)
    rest = jax.tree.map(lambda a: a[blocks * block_size :], batch)

    def add(total, block):
        return total + krr.moments(kernel_fn(block.x, x_s), block.y)

    def add_number(total, i):
        return add(total, jax.tree.map(lambda a: jnp.take(a, i, axis=1), whole)), None

    none = krr.moments(jnp.zeros((0, x_s.shape[0]), x_s.dtype), batch.y[:0])
    total, _ = lax.scan(add_number, none, jnp.arange(blocks))
    return add(total, rest) if n % block_size else total


def make(
    kernel_fn: KernelFn,
    *,
    reg: float = 1e-6,
    reg_unit: str = "trace",
    rcond: float | None = None,
    block_size: int = 4096,
    dtype: Any = "float64",
) -> Method:
    """Label Solve as a ``Method`` of one step.

    Args:
      kernel_fn: the kernel.
      reg, reg_unit: ridge, as in ``krr.alpha``.
      rcond: relative cut-off for singular values, as in ``krr.labels_from_moments``.
      block_size: target rows of the kernel matrix held at once.
      dtype: precision of the kernels and the solve. The normal matrix squares the condition number, so float64 is the
        default whatever the process runs in; ``None`` keeps the precision of the support.

    Returns:
      The method; its batch is the whole target set ``x [n, ...]``, ``y [n, k]``.

    Raises:
      InputError: a value is outside its range.

    References:
      arXiv:2011.00050, equation (8).
    """
    checks.require(callable(kernel_fn), "label_solve.make", f"kernel_fn is {kernel_fn!r}; expected one kernel")
    checks.at_least("label_solve.make", "reg", reg, 0.0)
    checks.one_of("label_solve.make", "reg_unit", reg_unit, krr.REG_UNITS)
    checks.at_least("label_solve.make", "block_size", block_size, 1)

    def init(key, distilled0):
        del key
        checks.same_length("label_solve.init", "x", distilled0.x, "y", distilled0.y)
        return State(*(jnp.array(a, jnp.result_type(a, jnp.float32)) for a in distilled0[:2]))  # copies

    def solve(x_s, y_s, batch):
        k_ss = kernel_fn(x_s, x_s)
        stats = target_moments(kernel_fn, x_s, batch, min(block_size, batch.x.shape[0]))
        start = krr.alpha(k_ss, y_s, reg=reg, reg_unit=reg_unit, solve_dtype=None)
        labels, loss = krr.labels_from_moments(k_ss, stats, reg=reg, reg_unit=reg_unit, rcond=rcond)
        return labels, Info(krr.loss_from_moments(start, stats), loss)

    def step(key, state, batch):
        del key
        checks.same_classes("label_solve.step", "y_s", state.y, "y_t", batch.y)
        checks.require(batch.x.shape[0] > 0, "label_solve.step", "the batch is empty; it must hold the targets")
        labels, info = precision.run_in(dtype, solve, state.x, state.y, batch)
        return state._replace(y=labels), info

    return Method(init, step, lambda state: Distilled(state.x, state.y))
