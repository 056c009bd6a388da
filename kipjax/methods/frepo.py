"""Feature Regression with a pool: kernel ridge regression on last-layer features of networks trained along.

Paper: Zhou, Nezhadarya, Ba, "Dataset Distillation using Neural Feature Regression", NeurIPS 2022, arXiv:2206.00719.

- At a network of the pool, with last-layer features ``h``: ``P = h_t h_s^T (h_s h_s^T + lambda I)^-1 y_s`` with
  ``lambda = reg tr(h_s h_s^T) / n``. The gradient goes through ``h_s``, ``y_s`` and the trace; the network is fixed
  (equation 5).
- Outer loss: ``mean over targets of 1/2 |P - y_t|^2`` (summed over classes) minus the margin of the labels.
- LAMB on images and labels, its rate falling to a tenth along a cosine; one Adam step for the network.

It is RCIG with the Jacobian left out.
"""

from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn

from kipjax import checks
from kipjax.core import krr, labels, losses, precision
from kipjax.kernels import basic
from kipjax.methods import _pooled
from kipjax.methods._pooled import PoolOptions
from kipjax.models import network
from kipjax.types import Batch, Method

__all__ = ["Info", "make", "outer_loss"]


class Info(NamedTuple):
    """``loss []`` and ``accuracy []`` in 0..1 on the step's targets, before the update."""

    loss: jax.Array
    accuracy: jax.Array


def outer_loss(
    h_s: jax.Array,
    h_t: jax.Array,
    y_s: jax.Array,
    batch: Batch,
    *,
    reg: float = 1e-6,
    reg_unit: str = "trace",
    solve_dtype: Any = "float64",
) -> tuple[jax.Array, jax.Array]:
    """The loss of feature regression, without the margin of the labels.

    Args:
      h_s: ``[n, p]`` features of the distilled set.
      h_t: ``[b, p]`` features of the targets.
      y_s: ``[n, k]``.
      batch: targets, of which only ``y [b, k]`` is used.
      reg, reg_unit, solve_dtype: as in ``krr.alpha``.

    Returns:
      ``(loss [], accuracy [])``.

    References:
      arXiv:2206.00719, equation (5).
    """
    k_ss, k_ts = basic.inner(h_s, h_s), basic.inner(h_t, h_s)
    predictions = krr.predict(k_ss, k_ts, y_s, reg=reg, reg_unit=reg_unit, solve_dtype=solve_dtype)
    return batch.y.shape[1] * losses.mse(predictions, batch.y), losses.accuracy(predictions, batch.y)


def make(
    model: nn.Module,
    *,
    reg: float = 1e-6,
    reg_unit: str = "trace",
    margin: bool = True,
    learn_images: bool = True,
    learn_labels: bool = True,
    learning_rate: float = 3e-4,
    decay_steps: int = 0,
    flip: bool = False,
    pool_size: int = 10,
    pool_max_age: int = 100,
    pool_learning_rate: float = 3e-4,
    pool_batch_size: int = 1000,
    solve_dtype: Any = "float64",
) -> Method:
    """FRePo as a ``Method``.

    Args:
      model: network with features (``models.network``); the paper's is ``models.get("convnet", num_classes=k,
        norm="batch", norm_placement="before_conv")``.
      reg, reg_unit, solve_dtype: ridge, as in ``krr.alpha``.
      margin: subtract ``mean min(y_(1) - y_(2), 1 / k)`` over the rows of the labels.
      learn_images, learn_labels: what is learned.
      learning_rate: of LAMB.
      decay_steps: steps over which it falls to a tenth along a cosine; 0 keeps it constant.
      flip: networks see mirror images of the set too.
      pool_size: number of networks, their ages spread out at the start.
      pool_max_age: training steps after which a network is replaced.
      pool_learning_rate: of the Adam step that a network takes each time it was used.
      pool_batch_size: distilled examples in such a step at most; 0 for all.

    Returns:
      The method; its batches are targets ``x [b, ...]``, centred one-hot ``y [b, k]``. The set is meant to start from
      labels divided by ``sqrt(k / 10)``.

    Raises:
      InputError: a value is outside its range, or the model has no features.
    """
    where = "frepo.make"
    network.require_features(where, model)
    checks.at_least(where, "learning_rate", learning_rate, 0.0, strict=True)
    checks.at_least(where, "reg", reg, 0.0)
    checks.one_of(where, "reg_unit", reg_unit, krr.REG_UNITS)
    checks.whole(where, "decay_steps", decay_steps, 0)
    precision.check(where, "solve_dtype", solve_dtype)
    rate = optax.cosine_decay_schedule(learning_rate, decay_steps, 0.1) if decay_steps else learning_rate

    def meta_gradient(key, variables, learned, memory, batch):
        h_t = network.forward(model, variables, batch.x)[1]

        def objective(at):
            x_s, y_s = _pooled.mirrored(at.x, at.y) if flip else (at.x, at.y)
            h_s = network.forward(model, variables, x_s)[1]
            loss, accuracy = outer_loss(h_s, h_t, y_s, batch, reg=reg, reg_unit=reg_unit, solve_dtype=solve_dtype)
            return loss - (labels.margin(at.y, 1 / at.y.shape[1]) if margin else 0.0), accuracy

        (loss, accuracy), gradient = jax.value_and_grad(objective, has_aux=True)(learned)
        return gradient, memory, Info(loss, accuracy)

    return _pooled.make(
        where,
        model,
        meta_gradient,
        optimizer=optax.lamb(rate),
        learned=_pooled.check_learned(where, x=learn_images, y=learn_labels),
        options=PoolOptions(
            pool_size, pool_max_age, 1, pool_learning_rate, pool_batch_size, stagger=True, sum_classes=True
        ),
    )
