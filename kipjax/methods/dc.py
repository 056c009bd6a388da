"""Dataset condensation: images whose gradients at a network agree with those of real images, class by class.

Paper: Zhao, Mopuri, Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021, arXiv:2006.05929.

- Outer loss (section 2.3): ``E_theta0 sum_t sum_c D(grad L(S_c; theta_t), grad L(T_c; theta_t))`` with the mean
  cross-entropy ``L`` and the layerwise cosine distance ``D`` of ``core.matching``. Nothing goes through ``theta_t``.
- Algorithm 1: ``theta_0`` is fresh; one SGD step on the images of all classes; ``theta_{t+1}`` from ``theta_t`` by some
  epochs of SGD on the whole set.

A step of this method is one pass through the loop over ``t``, one image step. The network is in the state. Its place in
the loop says whether a step takes a fresh network or first trains the last one on the set, so ``outer`` steps in a row
are one iteration of the published program, which has 1000 of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import labels, matching
from kipjax.data.augment import Augment
from kipjax.methods import _class_sets, _sgd
from kipjax.models import network
from kipjax.types import Distilled, Method, PyTree

__all__ = ["LOOPS", "Info", "State", "loops", "make", "outer_loss"]

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Matching steps at a network, and epochs of its training between two of them, by images per class."""


class State(NamedTuple):
    """Images ``x [m, ...]``, their fixed targets ``y [m, k]``, momentum, the network, matching steps taken at it."""

    x: jax.Array
    y: jax.Array
    opt_state: optax.OptState
    variables: dict[str, PyTree]
    place: jax.Array


class Info(NamedTuple):
    """``loss []``: the distance of the gradients, a mean over classes, before the update."""

    loss: jax.Array


def outer_loss(
    x_s: jax.Array,
    g_t: PyTree,
    loss: Callable[[PyTree, jax.Array], jax.Array],
    params: PyTree,
    *,
    kind: str = "dc",
) -> jax.Array:
    """``D(grad_theta loss(theta, x_s), g_t)`` of one class, to be differentiated in ``x_s``.

    Args:
      x_s: ``[ipc, ...]`` images of the class.
      g_t: gradient of the mean loss of real images at ``params``.
      loss: ``(params, x_s) -> []``, the mean loss of the images as members of their class.
      params: of the network.
      kind: of ``matching.gradient_distance``.

    Returns:
      ``[]``.

    References:
      arXiv:2006.05929, section 2.3.
    """
    return matching.gradient_distance(jax.grad(loss)(params, x_s), lax.stop_gradient(g_t), kind=kind)


def loops(ipc: int) -> tuple[int, int]:
    """``(outer, inner)`` for ``ipc`` images per class: the published entry of the nearest number, the lower of two.

    >>> loops(10), loops(2), loops(100)
    ((10, 50), (1, 1), (50, 10))
    """
    checks.whole("dc.loops", "ipc", ipc)
    return LOOPS[min(LOOPS, key=lambda listed: (abs(listed - ipc), listed))]


def make(
    model: nn.Module,
    *,
    outer: int = 0,
    inner: int = 0,
    learning_rate: float = 0.1,
    momentum: float = 0.5,
    network_learning_rate: float = 0.01,
    network_batch_size: int = 256,
    kind: str = "dc",
    statistics_size: int = 16,
    classes: str = "auto",
    block_size: int = 0,
    match_augment: Augment | None = None,
    train_augment: Augment | None = None,
) -> Method:
    """Dataset condensation as a ``Method``.

    Args:
      model: network with features (``models.network``); the paper's is ``models.get("dc_convnet", num_classes=k)``.
      outer: matching steps at a network, 0 for ``loops`` of the number of images per class.
      inner: epochs on the set between two of them, 0 likewise.
      learning_rate, momentum: of SGD on the images; with an MLP the paper takes 0.01.
      network_learning_rate: of the network's SGD, without momentum.
      network_batch_size: images in a step of it.
      kind: distance of gradients, one of ``matching.KINDS``.
      statistics_size: batch norm matches with running averages, which see so many real images of each class before
        every matching step: the first ones of the batch.
      classes: ``"map"`` takes classes one after the other, ``"vmap"`` all in a batched pass, ``"auto"`` the first on a
        CPU and the second elsewhere.
      block_size: real images that go through the network at once, 0 for a few on a CPU and all elsewhere.
      match_augment: ``augment(key, x)`` that, given one key, changes real and synthetic images alike (DSA).
      train_augment: the same for the network's training.

    Returns:
      The method; its batches are ``x [k, b, ...]``, ``y [k, b, k]`` with class ``c`` in block ``c``, as
      ``samplers.per_class`` draws them (the paper has 256 of each class). Rows with targets of nothing but zeros do not
      count, except in statistics of batch norm. The set has equally many images of every class, and one-hot targets,
      centred or not, which stay.

    Raises:
      InputError: a value is outside its range, the model has no features, or (at the call) shapes do not fit.

    Example:
      >>> from kipjax import models
      >>> method = make(models.get("dc_convnet", num_classes=2, depth=1, width=2))
      >>> state = method.init(jax.random.key(0), Distilled(jnp.ones((2, 4, 4, 1)), jnp.eye(2)))
    """
    where = "dc.make"
    network.require_features(where, model)
    for name, value, least in (("outer", outer, 0), ("inner", inner, 0), ("statistics_size", statistics_size, 1)):
        checks.whole(where, name, value, least)
    checks.whole(where, "network_batch_size", network_batch_size)
    for name, value in (("learning_rate", learning_rate), ("network_learning_rate", network_learning_rate)):
        checks.at_least(where, name, value, 0.0, strict=True)
    checks.within(where, "momentum", momentum, 0.0, 1.0)
    checks.one_of(where, "kind", kind, matching.KINDS)
    _sgd.check(where, classes, block_size)
    optimizer, size = optax.sgd(learning_rate, momentum=momentum), _sgd.block_size(block_size)

    def init(key, distilled0):
        x, y = _class_sets.start(where, distilled0)
        network.require_outputs(where, model, x, y.shape[1])
        return State(x, y, optimizer.init(x), network.init(model, key, x), jnp.zeros((), jnp.int32))

    def step(key, state, batch):
        network_key, augment_key = jax.random.split(key)
        sets = _class_sets.split(where, state.x, state.y, batch)
        outer_steps, epochs = (given or listed for given, listed in zip((outer, inner), loops(sets.x_s.shape[1])))
        variables = at(network_key, state, outer_steps, epochs)
        if "batch_stats" in variables:
            some = sets.x_t[:, :statistics_size]
            variables = {**variables, **network.train_forward(model, variables, _flat(some))[1]}
        keys = jax.random.split(augment_key, len(sets.x_s))
        distances, slopes = _sgd.each(lambda one: match(variables, *one), (keys, *sets), classes)
        updates, opt_state = optimizer.update(_class_sets.join(slopes, state.y), state.opt_state)
        place = (state.place + 1) % outer_steps
        return State(state.x + updates, state.y, opt_state, variables, place), Info(jnp.mean(distances))

    def at(key, state, outer_steps, epochs):
        """The network of this step: a fresh one, or that of the last step trained on the set."""

        def fresh():
            return network.init(model, key, state.x)

        def trained():
            return lax.fori_loop(0, epochs, pass_over_set, state.variables)

        def pass_over_set(i, variables):
            return _sgd.epoch(
                jax.random.fold_in(key, i), model, variables, state.x, labels.classes(state.y),
                learning_rate=network_learning_rate, batch_size=network_batch_size, augment=train_augment, size=size,
            )  # fmt: skip

        return fresh() if outer_steps == 1 else lax.cond(state.place == 0, fresh, trained)

    def match(variables, key, x_t, weights, x_s, label):
        """``(distance [], gradient like x_s)`` of one class."""

        def change(x):
            return x if match_augment is None else match_augment(key, x)

        def total(params, x, weights):
            logits, _ = network.forward(model, {**variables, "params": params}, x)
            return _sgd.weighted_loss(logits, jnp.broadcast_to(label, len(x)), weights)

        def gradient(x, weights):
            return jax.grad(total)(variables["params"], x, weights)

        def loss(params, x):
            return total(params, change(x), jnp.full(len(x), 1 / len(x), x.dtype))

        g_t = _sgd.summed(gradient, (change(x_t),), weights / jnp.sum(weights), size)
        return jax.value_and_grad(outer_loss)(x_s, g_t, loss, variables["params"], kind=kind)

    return Method(init, step, lambda state: Distilled(state.x, state.y))


def _flat(x):
    return x.reshape(-1, *x.shape[2:])
