"""How a paper draws its initial weights and biases, by name.

An ``Init`` serves convolutions ``[kh, kw, c, p]`` and dense layers ``[d, p]`` alike, with ``fan_in = kh kw c`` or
``d``. Parameters are plain weights ("standard parametrisation"): the scale is in the draw, not in the layer.
``INITS`` names each one's papers, from DC (arXiv:2006.05929) to RCIG (arXiv:2302.06755).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import random

__all__ = ["INITS", "Init"]

Initializer = Callable[..., Any]


class Init(NamedTuple):
    """One way to draw the parameters of a layer.

    Attributes:
      kernel: ``(key, shape, dtype) -> array``.
      bias: ``fan_in -> (key, shape, dtype) -> array`` for convolutions and hidden dense layers.
      head_bias: the same for the last layer.
    """

    kernel: Initializer
    bias: Callable[[int], Initializer]
    head_bias: Callable[[int], Initializer]


def _zero(fan_in: int) -> Initializer:
    return nn.initializers.zeros_init()


def _tenth(fan_in: int) -> Initializer:
    """``N(0, 0.1^2)``, the finite-width counterpart of ``b_std = 0.1``."""
    return nn.initializers.normal(stddev=0.1)


def _within_fan_in(fan_in: int) -> Initializer:
    """``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: random.uniform(key, shape, dtype, -bound, bound)


def _he_out(key, shape, dtype=jnp.float32):
    """``N(0, 2 / fan_out)`` for convolutions, PyTorch's default for dense layers."""
    fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return (fan_out if len(shape) == 4 else _TORCH)(key, shape, dtype)


_LECUN = nn.initializers.lecun_normal()
_TORCH = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

INITS: dict[str, Init] = {
    # flax's default: truncated normal of variance 1 / fan_in. FRePo (arXiv:2206.00719), RCIG (arXiv:2302.06755).
    "lecun": Init(_LECUN, _zero, _zero),
    # PyTorch's default: all U(-1/sqrt(fan_in), 1/sqrt(fan_in)). DC (arXiv:2006.05929), DSA, DM, MTT.
    "torch": Init(_TORCH, _within_fan_in, _within_fan_in),
    # N(0, 2 / fan_in), as arXiv:1502.01852 has it for relu. Wide residual networks (arXiv:1605.07146).
    "he": Init(nn.initializers.variance_scaling(2.0, "fan_in", "normal"), _zero, _zero),
    # N(0, 2 / fan_out) for convolutions: residual networks for CIFAR in LUCIR (CVPR 2019) and arXiv:2002.10211.
    "he_out": Init(_he_out, _zero, _within_fan_in),
    # He's with biases N(0, 0.1^2): what W_std = sqrt(2), b_std = 0.1 mean at finite width. RFAD (arXiv:2210.12067).
    "rfad": Init(nn.initializers.variance_scaling(2.0, "fan_in", "normal"), _tenth, _tenth),
    # FRePo's network for the sets that KIP released: that bias in the last layer only.
    "kip": Init(_LECUN, _zero, _tenth),
    # N(0, 2 / (fan_in + fan_out)), no bias: dataset distillation (arXiv:1811.10959).
    "xavier": Init(nn.initializers.variance_scaling(1.0, "fan_avg", "normal"), _zero, _zero),
}
