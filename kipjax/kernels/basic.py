"""The linear and RBF kernels, kernels of known features; the diagonal and cosine-normalised form of any kernel.

The first two as in KIP (arXiv:2011.00050); known features as in exact distillation (Chen et al., NeurIPS 2024).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from kipjax.checks import at_least, require, same_example_shape
from kipjax.types import KernelFn

__all__ = ["FeatureMap", "diagonal", "flatten", "inner", "linear", "normalize", "rbf"]


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureMap:
    """The kernel ``h(x1) . h(x2)`` of features that are known; it is called like any kernel.

    Attributes:
      features: ``x [n, ...] -> h [n, p]``.
      pull_back: ``(h [m, p], like [n, ...]) -> x [m, ...]``, examples shaped like those of ``like`` with the features
        ``h``, or close to them where ``h`` cannot be reached; ``None`` where there is no way back.
      obstacle: of the shape of one example: why not every ``h`` can be reached, naming the layer; empty if it can.
      name: for messages.
    """

    features: Callable[[jax.Array], jax.Array]
    pull_back: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    obstacle: Callable[[tuple[int, ...]], str] = lambda shape: ""
    name: str = "kernels.basic.FeatureMap"

    def __call__(self, x1: jax.Array, x2: jax.Array) -> jax.Array:
        """``K [n1, n2]`` of examples ``x1 [n1, ...]``, ``x2 [n2, ...]``."""
        _check(self.name, x1, x2)
        h1 = self.features(x1)
        return inner(h1, h1 if x1 is x2 else self.features(x2))


def linear() -> FeatureMap:
    """``K(x, x') = <x, x'>`` over all entries of an example, which are its features.

    >>> import jax.numpy as jnp
    >>> linear()(jnp.ones((2, 3)), jnp.ones((1, 3))).tolist()
    [[3.0], [3.0]]
    """
    return FeatureMap(flatten, lambda h, like: h.reshape(len(h), *like.shape[1:]), name="kernels.basic.linear")


def rbf(gamma: float | jax.Array = 1.0) -> KernelFn:
    """``K(x, x') = exp(-gamma ||x - x'||^2 / d)`` with ``d`` the number of entries of an example (arXiv:2011.00050).

    Args:
      gamma: inverse squared length scale, at least 0; may be traced, so that it can be learned.

    Returns:
      A kernel function of examples of any one shape. ``kernel_fn(x, x)`` has ones on its diagonal.

    Raises:
      InputError: ``gamma`` is negative, or an input is not ``[n, ...]``.
    """
    at_least("kernels.basic.rbf", "gamma", gamma, 0.0)

    def kernel_fn(x1: jax.Array, x2: jax.Array) -> jax.Array:
        _check("kernels.basic.rbf", x1, x2)
        f1, f2 = flatten(x1), flatten(x2)
        distance = jnp.sum(f1**2, 1)[:, None] + jnp.sum(f2**2, 1)[None] - 2 * inner(f1, f2)
        distance = jnp.maximum(distance, 0.0)
        if x1 is x2:
            distance = jnp.where(jnp.eye(len(f1), dtype=bool), 0.0, distance)
        return jnp.exp(-gamma * distance / f1.shape[1])

    return kernel_fn


def diagonal(kernel_fn: KernelFn, x: jax.Array) -> jax.Array:
    """``K(x_i, x_i)`` of every example: ``x [n, ...] -> [n]``, without the rest of the matrix."""

    def one(example: jax.Array) -> jax.Array:
        batch = example[None]
        return kernel_fn(batch, batch)[0, 0]

    return jax.vmap(one)(jnp.asarray(x))


def normalize(kernel_fn: KernelFn) -> KernelFn:
    """``K(x, x') / sqrt(K(x, x) K(x', x'))``, the cosine between features; 0 where a feature vector is 0."""

    def normalized(x1: jax.Array, x2: jax.Array) -> jax.Array:
        scale1 = _inverse_root(diagonal(kernel_fn, x1))
        scale2 = scale1 if x1 is x2 else _inverse_root(diagonal(kernel_fn, x2))
        return kernel_fn(x1, x2) * scale1[:, None] * scale2[None]

    return normalized


def _inverse_root(x: jax.Array) -> jax.Array:
    """``x**-0.5``, and 0 with a zero gradient where ``x`` is not positive."""
    return jnp.where(x > 0, jax.lax.rsqrt(jnp.where(x > 0, x, 1.0)), 0.0)


def inner(x1: jax.Array, x2: jax.Array) -> jax.Array:
    """``x1 x2^T [n1, n2]`` of ``x1 [n1, p]``, ``x2 [n2, p]``, all digits: on GPUs the default keeps three."""
    return jnp.matmul(x1, x2.T, precision=jax.lax.Precision.HIGHEST)


def flatten(x: jax.Array) -> jax.Array:
    """``[n, ...] -> [n, d]`` in floating point."""
    x = jnp.asarray(x)
    return x.reshape(len(x), -1).astype(jnp.promote_types(x.dtype, jnp.float32))


def _check(where: str, x1: jax.Array, x2: jax.Array) -> None:
    for name, x in (("x1", x1), ("x2", x2)):
        require(np.ndim(x) >= 2, where, f"{name} has shape {np.shape(x)}; expected [n, ...]")
    same_example_shape(where, "x1", x1, "x2", x2)
