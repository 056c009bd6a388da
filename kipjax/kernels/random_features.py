"""The kernel of random networks' features, which approaches the NNGP kernel as they grow in width and number.

RFAD, arXiv:2210.12067.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kipjax import checks
from kipjax.core import linearize
from kipjax.kernels.basic import inner
from kipjax.types import KernelFn, PyTree

__all__ = ["draw", "kernel"]

Features = Callable[[PyTree, jax.Array], jax.Array]


def kernel(features: Callable[[jax.Array], jax.Array], *, w_var: float = 2.0, b_var: float = 0.01) -> KernelFn:
    """``w_var h(x1) . h(x2) / p + b_var``: a last layer of random weights on features ``h``, taken in expectation.

    Args:
      features: ``x [n, ...] -> h [n, p]``.
      w_var: variance of the last layer's weights times their fan-in.
      b_var: variance of its biases.

    References:
      Loo, Hasani, Amini, Rus, "Efficient Dataset Distillation using Random Feature Approximation", arXiv:2210.12067.
    """

    def kernel_fn(x1: jax.Array, x2: jax.Array) -> jax.Array:
        h1 = features(x1)
        h2 = h1 if x1 is x2 else features(x2)
        return w_var * inner(h1, h2) / h1.shape[1] + b_var

    return kernel_fn


def draw(
    key: jax.Array,
    init: Callable[[jax.Array], PyTree],
    features: Features,
    *,
    count: int = 8,
    w_var: float = 2.0,
    b_var: float = 0.01,
    block_size: int = 0,
) -> KernelFn:
    """``kernel`` of the features of ``count`` fresh networks side by side.

    Args:
      key: PRNG key.
      init: ``key -> params`` of one network.
      features: ``(params, x [n, ...]) -> h [n, p]``.
      count: number of networks; the kernel's error falls like ``1 / sqrt(count width)``.
      w_var, b_var: as in ``kernel``.
      block_size: images in one network at a time, which bounds the memory of its layers; 0 for all in all networks.

    Returns:
      A kernel function. Under jit the features of one array are computed once, however often it is asked for them.
    """
    checks.whole("random_features.draw", "count", count)
    params = jax.vmap(init)(jax.random.split(key, count))

    def all_features(x: jax.Array) -> jax.Array:
        if 0 < block_size < x.shape[0]:
            h = jax.lax.map(lambda p: linearize.in_blocks(lambda part: features(p, part), x, size=block_size), params)
        else:
            h = jax.vmap(features, in_axes=(0, None))(params, x)
        return jnp.moveaxis(h, 0, 1).reshape(x.shape[0], -1)

    return kernel(all_features, w_var=w_var, b_var=b_var)
