"""Convexified Implicit Gradients: the ablation of RCIG that linearises the network and stops there.

Paper: Loo, Hasani, Lechner, Rus, "Dataset Distillation with Convexified Implicit Gradients", arXiv:2302.06755,
sections 3.1 and 3.2, table 1.

- Model: the centred first-order model ``f = J tau`` of all parameters, the last layer included (``vig`` keeps the
  network itself, ``f = f_(theta_0 + tau)``).
- Inner loss: ``[1/2 |y_s - f_s|^2 + lambda/2 |tau|^2] / (n k)``, ``lambda`` = ``reg`` times the distilled images;
  ``n_inner`` Adam steps from ``tau = 0``.
- Outer loss: ``1/2 mean |y_t - f_t|^2``. It does not see the distilled set, so its gradient is all implicit; the
  inverse Hessian product takes Adam steps on the quadratic.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from kipjax import checks
from kipjax.core import implicit, linear_solve, linearize, losses, step_size, unroll
from kipjax.methods import _pooled
from kipjax.methods._pooled import PoolOptions, StepSizes
from kipjax.models import network
from kipjax.types import Method, PyTree

__all__ = ["Info", "inner_loss", "linearised", "make"]


class Info(NamedTuple):
    """Outer ``loss []``, ``accuracy []`` in 0..1, the inner loss reached, residual of the inverse Hessian product."""

    loss: jax.Array
    accuracy: jax.Array
    inner_loss: jax.Array
    hessian_residual: jax.Array


def inner_loss(f_s: jax.Array, y_s: jax.Array, tau: PyTree, *, lam: float | jax.Array) -> jax.Array:
    """``[1/2 |y_s - f_s|^2 + lambda/2 |tau|^2] / (n k)`` for predictions ``f_s [n, k]`` and labels ``y_s [n, k]``."""
    return losses.mse(f_s, y_s) + 0.5 * lam * optax.tree.norm(tau, squared=True) / y_s.size


Predictor = Callable[[nn.Module, PyTree], Callable[[PyTree, jax.Array], jax.Array]]


def linearised(model: nn.Module, variables: PyTree) -> Callable[[PyTree, jax.Array], jax.Array]:
    """``(tau, x [n, ...]) -> J(x) tau [n, k]``, the centred first-order model around ``variables``."""

    def logits(params, x):
        return network.forward(model, {**variables, "params": params}, x)[0]

    return linearize.linearize(logits, variables["params"], centered=True)


def make(
    model: nn.Module,
    *,
    predictor: Predictor = linearised,
    inner_steps: int = 20,
    hessian_steps: int = 20,
    inner_step_size: float = 0.0,
    hessian_step_size: float = 0.0,
    reg: float = 5e-4,
    learn_images: bool = True,
    learn_labels: bool = True,
    learning_rate: float = 0.003,
    flip: bool = False,
    ema_decay: float = 0.99,
    pool_size: int = 30,
    pool_steps: int = 15,
    pool_max_age: int = 100,
    pool_learning_rate: float = 5e-5,
) -> Method:
    """CIG as a ``Method``.

    Args:
      model: network with features and a last layer ``head`` (``models.network``).
      predictor: ``linearised``, or how else predictions come from a displacement ``tau`` of the parameters.
      inner_steps, hessian_steps: Adam steps on ``tau``, and for the inverse Hessian product.
      inner_step_size, hessian_step_size: their step sizes; 0 searches for them in the first step. Both are adapted.
      reg: ridge for each distilled image, before mirror images.
      learn_images, learn_labels: what is learned.
      learning_rate: of AdaBelief.
      flip: networks see mirror images of the set too.
      ema_decay: of the average over steps that is the result; 0 for the last iterate.
      pool_size, pool_steps, pool_max_age, pool_learning_rate: as in ``_pooled.PoolOptions``.

    Returns:
      The method; its batches are targets ``x [b, ...]``, centred one-hot ``y [b, k]``.

    Raises:
      InputError: a value is outside its range, or the model has no features.
    """
    where = "cig.make" if predictor is linearised else "vig.make"
    network.require_features(where, model)
    for name, value in (("reg", reg), ("learning_rate", learning_rate)):
        checks.at_least(where, name, value, 0.0, strict=True)
    for name, count in (("inner_steps", inner_steps), ("hessian_steps", hessian_steps)):
        checks.whole(where, name, count, 0)
    checks.within(where, "ema_decay", ema_decay, 0.0, 0.9999)
    _pooled.check_step_sizes(where, inner=(inner_steps, inner_step_size), hessian=(hessian_steps, hessian_step_size))

    options = _Options(inner_steps, hessian_steps, inner_step_size, hessian_step_size, reg, flip)

    def meta_gradient(key, variables, learned, memory, batch):
        f = predictor(model, jax.lax.stop_gradient(variables))
        zero = jax.tree.map(jnp.zeros_like, variables["params"])
        return _meta_gradient(f, zero, learned, memory, batch, options)

    return _pooled.make(
        where,
        model,
        meta_gradient,
        optimizer=_pooled.adabelief(learning_rate),
        learned=_pooled.check_learned(where, x=learn_images, y=learn_labels),
        options=PoolOptions(pool_size, pool_max_age, pool_steps, pool_learning_rate, flip=flip),
        ema_decay=ema_decay,
        init_memory=lambda _: StepSizes(*map(step_size.watch, (inner_step_size, hessian_step_size))),
    )


class _Options(NamedTuple):
    """The hyperparameters of the gradient; ``make`` documents them."""

    inner_steps: int
    hessian_steps: int
    inner_step_size: float
    hessian_step_size: float
    reg: float
    flip: bool


def _meta_gradient(f, zero, learned, memory, batch, options):
    """The gradient of the outer loss in the set, by the implicit function theorem at the inner solution.

    Args:
      f: predictions ``(tau, x [n, ...]) -> [n, k]``.
      zero: ``tau`` at the start.
      learned: the set.
      memory: the step sizes of both solvers.
      batch: targets.
      options: hyperparameters.
    """
    lam = options.reg * learned.x.shape[0]

    def value(tau, at):
        x_s, y_s = _pooled.mirrored(at.x, at.y) if options.flip else (at.x, at.y)
        return inner_loss(f(tau, x_s), y_s, tau, lam=lam)

    def outer(tau, at):
        f_t = f(tau, batch.x)
        return losses.mse(f_t, batch.y), losses.accuracy(f_t, batch.y)

    def inner(size):
        return unroll.adam(lambda tau: value(tau, learned), zero, steps=options.inner_steps, step_size=size)

    size = memory.inner.step_size
    if options.inner_steps and not options.inner_step_size:
        size = step_size.tuned(memory.inner, lambda size: inner(size)[1], 1e-5)
    tau, values = inner(size)

    def solve(_, b):
        def hessian(v):
            return jax.jvp(lambda tau: jax.grad(value)(tau, learned), (tau,), (v,))[1]

        def run(size):
            return linear_solve.adam(hessian, b, steps=options.hessian_steps, step_size=size)

        if options.hessian_step_size or not options.hessian_steps:
            return run(memory.hessian.step_size)
        return run(step_size.tuned(memory.hessian, lambda size: run(size).values, 5e-5))

    hyper = implicit.hypergradient(outer, jax.grad(value), tau, learned, solve, has_aux=True)
    done = ((memory.inner, size, values), (memory.hessian, hyper.solution.step_size, hyper.solution.values))
    memory = StepSizes(*(step_size.adapt(w._replace(step_size=s), v) for w, s, v in done))
    return hyper.total, memory, Info(hyper.value, hyper.aux, value(tau, learned), hyper.solution.residual)
