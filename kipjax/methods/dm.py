"""Distribution matching: images whose mean features agree with those of real images at every random network.

Paper: Zhao, Bilen, "Dataset Condensation with Distribution Matching", WACV 2023, arXiv:2110.04181.

- Outer loss (section 3.2): ``sum_c |mean psi(A(T_c)) - mean psi(A(S_c))|^2``, with the features ``psi`` of a fresh,
  untrained network and one augmentation ``A`` of DSA for both sides of a class.
- Algorithm 1: a fresh network at every step, and one SGD step on the images of all classes. Nothing else is trained.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from kipjax import checks
from kipjax.core import matching
from kipjax.data import diffaug
from kipjax.methods import _class_sets, _sgd
from kipjax.models import network
from kipjax.types import Distilled, Method

__all__ = ["Info", "State", "make", "outer_loss"]


class State(NamedTuple):
    """Images ``x [m, ...]``, their fixed targets ``y [m, k]``, and momentum."""

    x: jax.Array
    y: jax.Array
    opt_state: optax.OptState


class Info(NamedTuple):
    """``loss []``: the squared distance of mean features, summed over features and classes, before the update."""

    loss: jax.Array


def outer_loss(h_s: jax.Array, mean_t: jax.Array) -> jax.Array:
    """``sum_c |mean h_s[c] - mean_t[c]|^2``.

    Args:
      h_s: ``[k, ipc, p]`` features of the set by class.
      mean_t: ``[k, p]`` mean features of real images.

    Returns:
      ``[]``.

    References:
      arXiv:2110.04181, section 3.2.
    """
    return jnp.sum(jax.vmap(lambda h, mean: matching.feature_distance(h, mean[None]))(h_s, mean_t))


def make(
    model: nn.Module,
    *,
    strategy: str = "color_crop_cutout_flip_scale_rotate",
    mode: diffaug.Mode = "single",
    learning_rate: float = 1.0,
    momentum: float = 0.5,
    classes: str = "auto",
    block_size: int = 0,
) -> Method:
    """Distribution matching as a ``Method``.

    Args:
      model: network with features (``models.network``); the paper's is ``models.get("dc_convnet", num_classes=k)``. A
        network with batch norm sees the images of all classes at once, real and synthetic ones apart.
      strategy: operations joined by underscores, as ``data.diffaug`` lists them; digits take no ``flip``.
      mode: ``"single"`` draws one of them each time, ``"multiple"`` applies all in their order.
      learning_rate, momentum: of SGD on the images. The paper takes 1, and 10 from 100 images a class on.
      classes: ``"map"`` augments and embeds classes one after the other, ``"vmap"`` all in a batched pass, ``"auto"``
        the first on a CPU and the second elsewhere.
      block_size: real images that go through the network at once, 0 for a few on a CPU and all elsewhere.

    Returns:
      The method; its batches are ``x [k, b, ...]``, ``y [k, b, k]`` with class ``c`` in block ``c``, as
      ``samplers.per_class`` draws them (the paper has 256 of each class). Rows with targets of nothing but zeros do not
      count, except in statistics of batch norm. The set has equally many images of every class. The paper starts from
      real images.

    Raises:
      InputError: a value is outside its range, an operation does not exist, the model has no features, or (at the call)
        shapes do not fit.
    """
    where = "dm.make"
    network.require_features(where, model)
    checks.at_least(where, "learning_rate", learning_rate, 0.0, strict=True)
    checks.within(where, "momentum", momentum, 0.0, 1.0)
    _sgd.check(where, classes, block_size)
    augment, optimizer = diffaug.siamese(strategy, mode=mode), optax.sgd(learning_rate, momentum=momentum)
    size = _sgd.block_size(block_size)

    def init(key, distilled0):
        x, y = _class_sets.start(where, distilled0)
        return State(x, y, optimizer.init(x))

    def step(key, state, batch):
        network_key, augment_key = jax.random.split(key)
        sets = _class_sets.split(where, state.x, state.y, batch)
        variables = network.init(model, network_key, state.x)
        keys = jax.random.split(augment_key, len(sets.x_s))
        mean_t = real_means(variables, keys, sets)

        def objective(x_s):
            return outer_loss(features(variables, jax.vmap(augment)(keys, x_s)), mean_t)

        loss, slopes = jax.value_and_grad(objective)(sets.x_s)
        updates, opt_state = optimizer.update(_class_sets.join(slopes, state.y), state.opt_state)
        return State(state.x + updates, state.y, opt_state), Info(loss)

    def features(variables, x):
        """``[k, n, p]`` of images ``[k, n, ...]``, all through the network at once, in training mode."""
        flat = x.reshape(-1, *x.shape[2:])
        return network.train_features(model, variables, flat).reshape(*x.shape[:2], -1)

    def real_means(variables, keys, sets):
        """Mean features ``[k, p]`` of the real images."""
        shares = sets.weights / jnp.sum(sets.weights, axis=1, keepdims=True)
        if "batch_stats" in variables:
            h_t = features(variables, jax.vmap(augment)(keys, sets.x_t))
            return jnp.einsum("kb,kbp->kp", shares, h_t)

        def total(x, share):
            return share @ network.train_features(model, variables, x)

        def one(args):
            key, x, share = args
            return _sgd.summed(total, (augment(key, x),), share, size)

        return _sgd.each(one, (keys, sets.x_t, shares), classes)

    return Method(init, step, lambda state: Distilled(state.x, state.y))
