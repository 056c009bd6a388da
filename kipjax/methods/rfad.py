"""Random Feature Approximation for Dataset Distillation: KIP with random networks' features for the NNGP kernel.

Paper: Loo, Hasani, Amini, Rus, "Efficient Dataset Distillation using Random Feature Approximation", NeurIPS 2022,
arXiv:2210.12067.

- Kernel: ``K = 2 Phi Phi^T / p + 0.01`` with the features ``Phi`` of ``networks`` random networks, *fresh ones at every
  step*; a last layer with weight variance 2 and bias variance 0.1^2 is added in closed form.
- Ridge ``lambda = reg tr(K_ss) / m``, solved in float64.
- Outer loss: Platt scaling, the cross-entropy of ``exp(log_temp) K_ts alpha``, or half the mean squared error.
- The set is ``x M``, with a linear map ``M`` of all pixels, the identity at first, learned along with ``x``.

It is FRePo with a network that is never trained.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from kipjax import checks
from kipjax.core import krr, losses
from kipjax.kernels import random_features
from kipjax.methods import _pooled
from kipjax.models import network
from kipjax.types import Batch, Distilled, KernelFn, Method

__all__ = ["Info", "State", "make", "outer_loss"]


class Learned(NamedTuple):
    """Support ``x [m, ...]`` before its linear map, labels ``y [m, k]``, map ``[d, d]`` or ``None``, Platt scale."""

    x: jax.Array
    y: jax.Array
    transform: jax.Array | None
    log_temp: jax.Array


class State(NamedTuple):
    """What is learned, and the optimizer's state."""

    learned: Learned
    opt_state: optax.OptState


class Info(NamedTuple):
    """``loss []`` and ``accuracy []`` in 0..1 on the step's targets, before the update."""

    loss: jax.Array
    accuracy: jax.Array


def outer_loss(
    kernel_fn: KernelFn,
    x_s: jax.Array,
    y_s: jax.Array,
    log_temp: jax.Array,
    batch: Batch,
    *,
    loss: str = "platt",
    reg: float = 5e-3,
    solve_dtype: Any = "float64",
) -> tuple[jax.Array, jax.Array]:
    """The loss of kernel ridge regression on one batch of targets.

    Args:
      kernel_fn: the kernel.
      x_s: ``[m, ...]`` support.
      y_s: ``[m, k]``.
      log_temp: ``[]``.
      batch: targets, centred one-hot ``y [b, k]``.
      loss: ``"platt"`` or ``"mse"``.
      reg: trace ridge.
      solve_dtype: as in ``krr.alpha``.

    Returns:
      ``(loss [], accuracy [])``.
    """
    k_ss, k_ts = kernel_fn(x_s, x_s), kernel_fn(jax.lax.stop_gradient(batch.x), x_s)
    predictions = krr.predict(k_ss, k_ts, y_s, reg=reg, reg_unit="trace", solve_dtype=solve_dtype)
    if loss == "platt":
        value = losses.platt(predictions, _pooled.platt_targets(batch), log_temp)
    else:
        value = losses.mse(predictions, batch.y)
    return value, losses.accuracy(predictions, batch.y)


def make(
    model: nn.Module,
    *,
    networks: int = 8,
    loss: str = "platt",
    reg: float = 5e-3,
    learn_images: bool = True,
    learn_labels: bool = False,
    learn_transform: bool = True,
    learning_rate: float = 1e-3,
    transform_rate: float = 5e-5,
    temperature_rate: float = 1e-2,
    solve_dtype: Any = "float64",
) -> Method:
    """RFAD as a ``Method``.

    Args:
      model: network with features (``models.network``); the paper's is ``models.get("rfad_convnet", num_classes=k)``.
      networks: how many of them are drawn at each step.
      loss: ``"platt"`` or ``"mse"``.
      reg: trace ridge.
      learn_images, learn_labels, learn_transform: what is learned.
      learning_rate: of AdaBelief for images and labels.
      transform_rate, temperature_rate: the same for the linear map and for ``log_temp``.
      solve_dtype: precision of the solve.

    Returns:
      The method; its batches are targets ``x [b, ...]``, centred one-hot ``y [b, k]`` (the paper: 5120, uniform).

    Raises:
      InputError: a value is outside its range, nothing is learned, or the model has no features.

    References:
      arXiv:2210.12067, algorithm 1.
    """
    where = "rfad.make"
    network.require_features(where, model)
    checks.whole(where, "networks", networks)
    checks.one_of(where, "loss", loss, ("platt", "mse"))
    for name, value in (("reg", reg), ("learning_rate", learning_rate), ("transform_rate", transform_rate)):
        checks.at_least(where, name, value, 0.0, strict=True)
    learned = {"x": learn_images, "y": learn_labels, "transform": learn_transform, "log_temp": loss == "platt"}
    checks.require(
        any((learn_images, learn_labels, learn_transform)),
        where,
        "nothing is learned; set learn_images or learn_labels",
    )
    rates = {"x": learning_rate, "y": learning_rate, "transform": transform_rate, "log_temp": temperature_rate}
    optimizer = optax.scale_by_belief()

    def init(key, distilled0):
        checks.same_length("rfad.init", "x", distilled0.x, "y", distilled0.y)
        x, y = (jnp.array(a, jnp.result_type(a, jnp.float32)) for a in distilled0[:2])  # copies: a state may be donated
        transform = jnp.eye(x[0].size, dtype=x.dtype) if learn_transform else None
        start: Any = Learned(x, y, transform, jnp.zeros((), x.dtype))
        return State(start, optimizer.init(start))

    def step(key, state, batch):
        kernel_fn = random_features.draw(
            key,
            lambda k: network.init(model, k, state.learned.x),
            lambda variables, x: network.forward(model, variables, x)[1],
            count=networks,
        )

        def objective(at):
            x_s = _transformed(at)
            return outer_loss(kernel_fn, x_s, at.y, at.log_temp, batch, loss=loss, reg=reg, solve_dtype=solve_dtype)

        (value, accuracy), gradient = jax.value_and_grad(objective, has_aux=True)(state.learned)
        updates, opt_state = optimizer.update(gradient, state.opt_state)
        changes = {n: -rates[n] * getattr(updates, n) for n in learned if learned[n]}
        new = state.learned._replace(**{n: getattr(state.learned, n) + change for n, change in changes.items()})
        return State(new, opt_state), Info(value, accuracy)

    def distilled(state):
        return Distilled(_transformed(state.learned), state.learned.y)

    return Method(init, step, distilled)


def _transformed(at: Learned) -> jax.Array:
    """The support ``x M``."""
    if at.transform is None:
        return at.x
    return (at.x.reshape(at.x.shape[0], -1) @ at.transform).reshape(at.x.shape)
