"""Random Feature Approximation for Dataset Distillation: KIP with random networks' features for the NNGP kernel.

Paper: Loo, Hasani, Amini, Rus, "Efficient Dataset Distillation using Random Feature Approximation", NeurIPS 2022,
arXiv:2210.12067.

- Kernel: ``K = 2 Phi Phi^T / p + 0.01`` with the features ``Phi`` of ``networks`` random networks, *fresh ones at every
  step*; a last layer with weight variance 2 and bias variance 0.1^2 is added in closed form.
- Ridge ``lambda = reg tr(K_ss) / m``, solved in float64.
- Outer loss: Platt scaling, the cross-entropy of ``exp(log_temp) K_ts alpha``, or half the mean squared error.
- The set is ``x M``, with a linear map ``M`` of all pixels, the identity at first, learned along with ``x``.
- With images to validate on, the result is the set of the best validation loss, and learning ends once that has not
  fallen for ``patience`` steps.
- Corruption: entries of the set, chosen at random with probability ``rho``, keep the values of the starting set.

It is FRePo with a network that is never trained.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import krr, losses, precision
from kipjax.kernels import random_features
from kipjax.methods import _pooled, inputs
from kipjax.models import network
from kipjax.types import Batch, Distilled, KernelFn, Method

__all__ = ["Info", "State", "make", "outer_loss"]


class Learned(NamedTuple):
    """Support ``x [m, ...]`` before its linear map, labels ``y [m, k]``, map ``[d, d]`` or ``None``, Platt scale."""

    x: jax.Array
    y: jax.Array
    transform: jax.Array | None
    log_temp: jax.Array


class Best(NamedTuple):
    """The set of the lowest validation ``loss []``, the step ``at []`` of it, the networks' threefry ``key [2]``."""

    learned: Learned
    loss: jax.Array
    at: jax.Array
    key: jax.Array


class Frozen(NamedTuple):
    """Which entries ``mask [m, ...]`` of the set never change, and the starting set ``x [m, ...]`` that they are of."""

    mask: jax.Array
    x: jax.Array


class State(NamedTuple):
    """What is learned, the optimizer's state, with validation the best set so far, ``count []`` steps, corruption."""

    learned: Learned
    opt_state: optax.OptState
    best: Best | None
    count: jax.Array
    frozen: Frozen | None


class Info(NamedTuple):
    """``loss []`` and ``accuracy []`` in 0..1 on the step's targets, before the update; ``stopped []`` is 0 or 1."""

    loss: jax.Array
    accuracy: jax.Array
    stopped: jax.Array


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
    validation: Batch | None = None,
    validate_every: int = 40,
    validation_networks: int = 16,
    patience: int = 1000,
    rho: float = 0.0,
    block_size: int = 1280,
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
      validation: training images by which the best step is found, ``x [v, ...]``, centred one-hot ``y [v, k]`` (the
        authors': 500 of each of ten classes, else 100); ``None`` makes the last step the result.
      validate_every: steps between two looks at them.
      validation_networks: how many, the same ones each time.
      patience: steps without a lower validation loss after which nothing changes any more.
      rho: probability in 0..1 with which an entry of an image is frozen at its starting value, behind the linear map;
        for a set that hides real images start from noise. (The authors' program whitens the result once more.)
      block_size: images that go through a network at once, for more than that many; 0 for all through all networks.
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
    checks.one_of(where, "loss", loss, ("platt", "mse"))
    checks.within(where, "rho", rho, 0.0, 1.0)
    _check_positive(
        where, reg=reg, learning_rate=learning_rate, transform_rate=transform_rate, temperature_rate=temperature_rate
    )
    _check_counts(
        where, networks=networks, validate_every=validate_every, validation_networks=validation_networks,
        patience=patience,
    )  # fmt: skip
    checks.at_least(where, "patience", patience, validate_every)
    checks.whole(where, "block_size", block_size, 0)
    precision.check(where, "solve_dtype", solve_dtype)
    learned = {"x": learn_images, "y": learn_labels, "transform": learn_transform, "log_temp": loss == "platt"}
    some = any((learn_images, learn_labels, learn_transform))
    checks.require(some, where, "nothing is learned; set learn_images or learn_labels")
    rates = {"x": learning_rate, "y": learning_rate, "transform": transform_rate, "log_temp": temperature_rate}
    optimizer = optax.scale_by_belief()

    def random_kernel(key, x, count):
        return random_features.draw(
            key,
            lambda k: network.init(model, k, x),
            lambda variables, x: network.forward(model, variables, x)[1],
            count=count,
            block_size=block_size,
        )

    def objective(at, kernel_fn, batch, frozen):
        x_s = _set(at, frozen)
        return outer_loss(kernel_fn, x_s, at.y, at.log_temp, batch, loss=loss, reg=reg, solve_dtype=solve_dtype)

    def init(key, distilled0):
        x, y = inputs.start("rfad.init", distilled0)
        if validation is not None:
            inputs.fit("rfad.init, validation", x, y, validation)
        transform = jnp.eye(x[0].size, dtype=x.dtype) if learn_transform else None
        start: Any = Learned(x, y, transform, jnp.zeros((), x.dtype))
        count = jnp.zeros((), jnp.int32)
        best = None if validation is None else _none_yet(key, start, count)
        frozen = Frozen(jax.random.bernoulli(jax.random.fold_in(key, 1), rho, x.shape), jnp.array(x)) if rho else None
        return State(start, optimizer.init(start), best, count, frozen)

    def better(best, learned, count, frozen):
        """``best`` after a look at the validation images, if one is due."""

        def look():
            kernel_fn = random_kernel(
                jax.random.wrap_key_data(best.key, impl="threefry2x32"), learned.x, validation_networks
            )
            value = objective(learned, kernel_fn, inputs.typed(learned.x, validation), frozen)[0].astype(
                best.loss.dtype
            )
            found = Best(learned, value, count, best.key)
            return jax.tree.map(lambda a, b: jnp.where(value < best.loss, a, b), found, best)

        return lax.cond(count % validate_every == 0, look, lambda: best)

    def step(key, state, batch):
        batch = inputs.targets("rfad.step", state.learned.x, state.learned.y, batch)
        kernel_fn = random_kernel(key, state.learned.x, networks)
        slope = jax.value_and_grad(objective, has_aux=True)
        (value, accuracy), gradient = slope(state.learned, kernel_fn, batch, state.frozen)
        updates, opt_state = optimizer.update(gradient, state.opt_state)
        changes = {n: -rates[n] * getattr(updates, n) for n in learned if learned[n]}
        new = state.learned._replace(**{n: getattr(state.learned, n) + change for n, change in changes.items()})
        if validation is None:
            return State(new, opt_state, None, state.count + 1, state.frozen), Info(value, accuracy, jnp.zeros(()))
        stopped = state.count - state.best.at >= patience
        best = lax.cond(stopped, lambda: state.best, lambda: better(state.best, new, state.count + 1, state.frozen))
        after = State(new, opt_state, best, state.count + 1, state.frozen)
        after = jax.tree.map(lambda a, b: jnp.where(stopped, a, b), state, after)
        return after, Info(value, accuracy, stopped.astype(jnp.float32))

    def distilled(state):
        result = state.learned
        if state.best is not None:  # before the first look there is none
            looked = jnp.isfinite(state.best.loss)
            result = jax.tree.map(lambda a, b: jnp.where(looked, a, b), state.best.learned, result)
        return Distilled(_set(result, state.frozen), result.y)

    return Method(init, step, distilled)


def _none_yet(key: jax.Array, start: Learned, count: jax.Array) -> Best:
    """Before the first look."""
    words = jax.random.bits(key, (2,), "uint32")
    return Best(jax.tree.map(jnp.array, start), jnp.asarray(jnp.inf, start.x.dtype), jnp.array(count), words)


def _check_positive(where: str, **values: float) -> None:
    for name, value in values.items():
        checks.at_least(where, name, value, 0.0, strict=True)


def _check_counts(where: str, **counts: int) -> None:
    for name, count in counts.items():
        checks.whole(where, name, count)


def _set(at: Learned, frozen: Frozen | None) -> jax.Array:
    """The support ``x M``, with the frozen entries of the starting set in their places."""
    x = at.x
    if at.transform is not None:
        x = (x.reshape(x.shape[0], -1) @ at.transform).reshape(x.shape)
    return x if frozen is None else jnp.where(frozen.mask, frozen.x, x)
