"""Networks small enough to differentiate in every way at once."""

import jax.numpy as jnp
from flax import linen as nn


class Small(nn.Module):
    """Two dense layers of tanh and a linear head, in the precision of its input; batch norm after the first if so."""

    num_classes: int
    norm: bool = False

    @nn.compact
    def __call__(self, x, *, train=False, features=False):
        h = nn.Dense(7, param_dtype=x.dtype)(x.reshape(x.shape[0], -1))
        if self.norm:
            exact = x.dtype == jnp.float64
            h = nn.BatchNorm(use_running_average=not train, param_dtype=x.dtype, force_float32_reductions=not exact)(h)
        h = jnp.tanh(nn.Dense(5, param_dtype=x.dtype)(jnp.tanh(h)))
        logits = nn.Dense(self.num_classes, name="head", param_dtype=x.dtype)(h)
        return (logits, h) if features else logits


class Linear(nn.Module):
    """One linear layer without a bias, in the precision of its input."""

    num_classes: int

    @nn.compact
    def __call__(self, x, *, train=False, features=False):
        h = x.reshape(x.shape[0], -1)
        logits = nn.Dense(self.num_classes, name="head", use_bias=False, param_dtype=x.dtype)(h)
        return (logits, h) if features else logits
