"""Vanilla Implicit Gradients: implicit gradients through an ordinary network, the first row of RCIG's ablation.

Paper: Loo, Hasani, Lechner, Rus, "Dataset Distillation with Convexified Implicit Gradients", arXiv:2302.06755,
section 3.1, table 1.

All is as in ``cig`` but for the model, the network itself: ``f = f_(theta_0 + tau)``. Its inner loss is not convex: the
Hessian that the implicit function theorem wants inverted is neither positive definite nor at a minimum.
"""

import functools
from collections.abc import Callable

import jax
from flax import linen as nn

from kipjax.methods import cig
from kipjax.methods.cig import Info
from kipjax.models import network
from kipjax.types import PyTree

__all__ = ["Info", "displaced", "make"]


def displaced(model: nn.Module, variables: PyTree) -> Callable[[PyTree, jax.Array], jax.Array]:
    """``(tau, x [n, ...]) -> f_(theta_0 + tau)(x) [n, k]``."""

    def predict(tau, x):
        params = jax.tree.map(lambda p, t: p + t, variables["params"], tau)
        return network.forward(model, {**variables, "params": params}, x)[0]

    return predict


make = functools.partial(cig.make, predictor=displaced)
"""VIG as a ``Method``; arguments as in ``cig.make``."""
