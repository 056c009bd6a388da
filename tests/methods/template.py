"""The smallest whole method, to copy and to fill: images by plain gradient descent on the loss of ridge regression.

A method is three pure functions. Put yours into ``kipjax/methods/NAME.py``, its line into ``METHODS``, a case into
``tests/methods/test_contract.py`` and a config into ``configs/NAME/``; the driver then runs it. What it differentiates
through, a kernel or a network (call it ``model``), comes first; everything else is keyword-only, with the paper's
values. ``inputs`` has the checks and conversions that the package's own methods share.
"""

from typing import NamedTuple

import jax

from kipjax import checks
from kipjax.core import krr
from kipjax.methods import inputs
from kipjax.types import Batch, Distilled, KernelFn, Method


class State(NamedTuple):
    """All that changes from step to step: a pytree of arrays, which is checkpointed."""

    x: jax.Array
    y: jax.Array


class Info(NamedTuple):
    """What is reported of a step, one number each."""

    loss: jax.Array


def outer_loss(kernel_fn: KernelFn, x_s: jax.Array, y_s: jax.Array, batch: Batch, *, reg: float) -> jax.Array:
    """The paper's loss ``[]``, as a formula that can be read and tested by itself."""
    return krr.loss(kernel_fn(x_s, x_s), kernel_fn(batch.x, x_s), y_s, batch.y, reg=reg)


def make(kernel_fn: KernelFn, *, learning_rate: float = 0.1, reg: float = 1e-3) -> Method:
    """The method; its batches are targets ``x [b, ...]``, ``y [b, k]``."""
    checks.at_least("template.make", "learning_rate", learning_rate, 0.0, strict=True)

    def init(key: jax.Array, distilled0: Distilled) -> State:
        return State(*inputs.start("template.init", distilled0))

    def step(key: jax.Array, state: State, batch: Batch) -> tuple[State, Info]:
        batch = inputs.targets("template.step", state.x, state.y, batch)
        loss, gradient = jax.value_and_grad(lambda x: outer_loss(kernel_fn, x, state.y, batch, reg=reg))(state.x)
        return state._replace(x=state.x - learning_rate * gradient), Info(loss)

    return Method(init, step, lambda state: Distilled(state.x, state.y))
