"""Kernel Inducing Points: support images, labels or both learned through kernel ridge regression.

Paper: Nguyen, Chen, Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", ICLR 2021, arXiv:2011.00050.

- Outer loss, equation (7): ``L(X_s, y_s) = 1/2 |y_t - K_ts (K_ss + lambda I)^-1 y_s|^2``, here the mean over entries,
  with ``lambda = reg * trace(K_ss) / m`` (appendix B).
- Algorithm 1: each step draws a kernel and a class-balanced batch of targets, uses the whole support, and takes one
  Adam step on what is learned.
- KIP_rho (section 3): a fraction ``rho`` of the coordinates of every image is filled once, from a source that knows
  nothing of the data, and never changes again (definition 5).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kipjax import checks
from kipjax.core import krr, loop, losses, precision
from kipjax.kernels import batching, family
from kipjax.methods import inputs
from kipjax.types import Batch, Distilled, KernelFn, Method, PyTree

__all__ = ["FILLS", "Info", "State", "corrupt", "make", "outer_loss"]

FILLS = ("uniform", "zeros")


class State(NamedTuple):
    """Support ``x [m, ...]``, ``y [m, k]``, kernel hyperparameters, optimizer state, mask of frozen entries of x."""

    x: jax.Array
    y: jax.Array
    kernel_params: PyTree
    opt_state: optax.OptState
    frozen: jax.Array | None


class Info(NamedTuple):
    """``loss []`` and ``accuracy []`` in 0..1, both on the step's target batch, before the update."""

    loss: jax.Array
    accuracy: jax.Array


def outer_loss(
    kernel_fn: KernelFn,
    x_s: jax.Array,
    y_s: jax.Array,
    batch: Batch,
    *,
    reg: float,
    reg_unit: str = "trace",
    solve_dtype: Any = "float64",
    block_size: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Equation (7) on one batch of targets.

    In blocks the kernel between targets and support, whose ``n m`` entries need not fit the memory, is never there as a
    whole: derivatives compute it again block by block. That of the support, which is there as a whole to be factorised,
    is computed in blocks too.

    Args:
      kernel_fn: the kernel.
      x_s: ``[m, ...]`` support.
      y_s: ``[m, k]`` its labels.
      batch: targets ``x [n, ...]``, ``y [n, k]``.
      reg, reg_unit, solve_dtype: as in ``krr.alpha``.
      block_size: targets (and rows and columns of the support's kernel) at a time; 0 for all.

    Returns:
      ``(loss [], accuracy [] in 0..1)``.
    """
    checks.same_classes("kip.outer_loss", "y_s", y_s, "y_t", batch.y)
    n = batch.x.shape[0]
    square = (batching.batch(kernel_fn, block_size) if block_size else kernel_fn)(x_s, x_s)
    dual = krr.alpha(square, y_s, reg=reg, reg_unit=reg_unit, solve_dtype=solve_dtype)

    def score(x_t, y_t):
        predictions = kernel_fn(x_t, x_s) @ dual
        return losses.mse(predictions, y_t), losses.accuracy(predictions, y_t)

    if not 0 < block_size < n:
        return score(*batch)

    def total(x_t, y_t):
        return jax.tree.map(lambda a: a * len(x_t), score(x_t, y_t))

    return jax.tree.map(lambda a: a / n, loop.sum_over_blocks(total, tuple(batch), block_size))


def corrupt(key: jax.Array, x: jax.Array, *, rho: float, fill: str = "uniform") -> tuple[jax.Array, jax.Array]:
    """Fills a random fraction of the coordinates of every example, each example with its own choice.

    Args:
      key: PRNG key.
      x: ``[m, ...]`` in preprocessed space.
      rho: fraction of coordinates in 0..1, rounded up to whole coordinates so that at least ``rho`` are filled.
      fill: ``"uniform"`` for U(-1, 1) noise, or ``"zeros"``.

    Returns:
      ``(x [m, ...] filled, frozen [m, ...] bool)``. Natural images take the same noise as a baseline.

    References:
      arXiv:2011.00050, definition 5 and section 4.3.
    """
    checks.within("kip.corrupt", "rho", rho, 0.0, 1.0)
    checks.one_of("kip.corrupt", "fill", fill, FILLS)
    choice_key, fill_key = jax.random.split(key)
    scores = jax.random.uniform(choice_key, (x.shape[0], x[0].size))
    ranks = jnp.argsort(jnp.argsort(scores, axis=1), axis=1)
    count = math.ceil(round(rho * x[0].size, 6))  # rounded first: 0.07 * 100 is 7.000000000000001
    frozen = (ranks < count).reshape(x.shape)
    values = jax.random.uniform(fill_key, x.shape, x.dtype, -1.0, 1.0) if fill == "uniform" else jnp.zeros_like(x)
    return jnp.where(frozen, values, x), frozen


def make(
    kernel_fn: KernelFn | Sequence[KernelFn] | Callable[[PyTree], KernelFn],
    *,
    learn_images: bool = True,
    learn_labels: bool = False,
    learning_rate: float = 0.04,
    decay_steps: int = 0,
    optimizer: optax.GradientTransformation | None = None,
    reg: float = 1e-6,
    reg_unit: str = "trace",
    solve_dtype: Any = "float64",
    block_size: int = 0,
    kernel_params: PyTree = None,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    rho: float = 0.0,
    fill: str = "uniform",
) -> Method:
    """KIP as a ``Method``.

    Args:
      kernel_fn: a kernel; or several, of which each step draws one uniformly; or, with ``kernel_params``, a function
        ``params -> kernel`` whose hyperparameters are learned too.
      learn_images: update the support images.
      learn_labels: update the support labels, with the same optimizer and step size.
      learning_rate: of Adam; the paper uses 0.01 for MNIST and 0.04 for CIFAR-10, constant.
      decay_steps: steps over which the learning rate falls to zero along a cosine; 0 keeps it constant.
      optimizer: replaces Adam and its learning rate.
      reg, reg_unit, solve_dtype: ridge, as in ``krr.alpha``.
      block_size: targets at a time in the loss; 0 for all.
      kernel_params: starting kernel hyperparameters, any pytree of floats.
      augment: ``augment(key, x [b, ...]) -> x`` applied to every target batch.
      rho: fraction of the coordinates of each image that are filled and frozen (KIP_rho).
      fill: ``"uniform"`` or ``"zeros"``.

    Returns:
      The method; its batches are targets ``x [b, ...]``, ``y [b, k]``.

    Raises:
      InputError: nothing is learned, or a value is outside its range.

    References:
      arXiv:2011.00050, algorithm 1.
    """
    learned = {"x": learn_images, "y": learn_labels, "kernel_params": kernel_params is not None}
    names = [name for name, is_learned in learned.items() if is_learned]
    checks.require(bool(names), "kip.make", "nothing is learned; set learn_images, learn_labels or kernel_params")
    checks.at_least("kip.make", "learning_rate", learning_rate, 0.0, strict=True)
    checks.at_least("kip.make", "reg", reg, 0.0)
    checks.one_of("kip.make", "reg_unit", reg_unit, krr.REG_UNITS)
    precision.check("kip.make", "solve_dtype", solve_dtype)
    checks.within("kip.make", "rho", rho, 0.0, 1.0)
    checks.one_of("kip.make", "fill", fill, FILLS)
    checks.whole("kip.make", "block_size", block_size, 0)
    kernel_at = _kernel_at(kernel_fn, parametric=kernel_params is not None)
    checks.at_least("kip.make", "decay_steps", decay_steps, 0)
    rate = optax.cosine_decay_schedule(learning_rate, decay_steps) if decay_steps else learning_rate
    optimizer = optax.adam(rate) if optimizer is None else optimizer

    def init(key, distilled0):
        x, y = inputs.start("kip.init", distilled0)
        x, frozen = corrupt(key, x, rho=rho, fill=fill) if rho else (x, None)
        params = jax.tree.map(lambda p: jnp.asarray(p, x.dtype), kernel_params)
        state = State(x, y, params, (), frozen)
        return state._replace(opt_state=optimizer.init(_pick(state, names)))

    def step(key, state, batch):
        batch = inputs.targets("kip.step", state.x, state.y, batch)
        kernel_key, augment_key = jax.random.split(key)
        if augment is not None:
            batch = batch._replace(x=augment(augment_key, batch.x))

        def objective(values):
            at = state._replace(**values)
            return outer_loss(
                kernel_at(kernel_key, at.kernel_params), at.x, at.y, batch,
                reg=reg, reg_unit=reg_unit, solve_dtype=solve_dtype, block_size=block_size,
            )  # fmt: skip

        values = _pick(state, names)
        (loss, accuracy), grads = jax.value_and_grad(objective, has_aux=True)(values)
        updates, opt_state = optimizer.update(grads, state.opt_state, values)
        new = state._replace(**jax.tree.map(jnp.add, values, updates), opt_state=opt_state)
        if state.frozen is not None:
            new = new._replace(x=jnp.where(state.frozen, state.x, new.x))
        return new, Info(loss, accuracy)

    return Method(init, step, lambda state: Distilled(state.x, state.y))


def _kernel_at(kernel_fn: Any, *, parametric: bool) -> Callable[[jax.Array, PyTree], KernelFn]:
    """``(key, kernel_params) -> kernel`` of one step, for each of the forms that ``make`` accepts."""
    members: list[Any] = list(kernel_fn) if isinstance(kernel_fn, (list, tuple)) else [kernel_fn]
    checks.require(
        bool(members) and all(map(callable, members)),
        "kip.make",
        f"kernel_fn is {kernel_fn!r}; expected a kernel such as kernels.get('fc1'), or several",
    )
    if parametric:
        return lambda key, params: members[0](params)
    if len(members) > 1:
        return lambda key, params: family.draw(key, members)
    return lambda key, params: members[0]


def _pick(state, names):
    return {name: getattr(state, name) for name in names}
