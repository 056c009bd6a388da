"""Kernels of a network of finite width: of its last-layer features (FRePo, arXiv:2206.00719, equation 5), and its
empirical tangent kernel (Jacot et al., arXiv:1806.07572).
"""

from collections.abc import Callable

import jax

from kipjax.core import linearize
from kipjax.kernels.basic import FeatureMap, inner
from kipjax.types import KernelFn, PyTree

__all__ = ["empirical_ntk", "last_layer"]


def last_layer(features: Callable[[jax.Array], jax.Array]) -> FeatureMap:
    """``h(x1) . h(x2)`` for features ``x [n, ...] -> h [n, p]`` (arXiv:2206.00719, equation 5)."""
    return FeatureMap(features, name="kernels.features.last_layer")


def empirical_ntk(apply: Callable[[PyTree, jax.Array], jax.Array], params: PyTree) -> KernelFn:
    """``1/k tr_k J(x1) J(x2)^T``: the tangent kernel of a finite network, averaged over its ``k`` outputs.

    In expectation over fresh networks, and as they widen, it approaches ``kernels.infinite`` of the same architecture;
    ``core.linearize.ntk`` keeps the outputs apart.

    Args:
      apply: ``(params, x [n, ...]) -> [n, k]``.
      params: where the Jacobian is taken.

    Returns:
      A kernel function that holds the Jacobians of both arguments, ``(n1 + n2) k`` times the size of ``params``.
    """

    def rows(x: jax.Array) -> jax.Array:
        leaves = jax.tree.leaves(linearize.jacobian(apply, params, x))
        return jax.numpy.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)

    def kernel_fn(x1: jax.Array, x2: jax.Array) -> jax.Array:
        k = jax.eval_shape(apply, params, x1).shape[1]
        j1 = rows(x1)
        return inner(j1, j1 if x1 is x2 else rows(x2)) / k

    return kernel_fn
