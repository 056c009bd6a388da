"""Normalisation layers: ``(x - mean) / sqrt(var + 1e-5) * scale + bias``, which differ in what shares a mean.

| kind | mean and variance over | scale and bias | reference |
|---|---|---|---|
| batch | examples and pixels, running averages for prediction | one per channel | arXiv:1502.03167 |
| instance | pixels | one per channel | arXiv:1607.08022 |
| group | pixels and the channels of a group | one per channel | arXiv:1803.08494 |
| layer | pixels and channels | one per entry, ``[h, w, c]`` | arXiv:1607.06450 |

These are the layers of the code of DC (arXiv:2006.05929), whose instance norm is group norm with a group per channel.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from kipjax import checks

__all__ = ["NORMS", "Norm"]

NORMS = ("none", "batch", "instance", "layer", "group")

_EPSILON = 1e-5


class Norm(nn.Module):
    """One normalisation layer for ``x [n, ..., c]``, with learned ``scale`` (from 1) and ``bias`` (from 0).

    Variances are biased, and computed from deviations, so large means cost no precision. PyTorch's batch norm keeps an
    unbiased running variance, this one (as flax's) the biased.

    Attributes:
      kind: one of ``NORMS`` but ``"none"``.
      momentum: share of the old value in a running average, flax's convention (1 minus PyTorch's).
      groups: number of groups of channels of group norm.
    """

    kind: str
    momentum: float = 0.9
    groups: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Args:
          x: ``[n, ..., c]``.
          train: whether batch norm uses the statistics of ``x`` and moves its running averages, the collection
            ``batch_stats``, which must then be mutable; otherwise it uses the running averages.

        Raises:
          InputError: the kind is unknown, the groups do not divide the channels, or a mean would be over a single
            value, which leaves nothing of ``x``.
        """
        checks.one_of("norms.Norm", "norm", self.kind, NORMS[1:])
        if self.kind == "batch":
            mean, variance = self._batch_moments(x, train)
            y = _standardise(x, mean, variance)
        elif self.kind == "group":
            checks.divides("norms.Norm", "channels", x.shape[-1], "groups", self.groups)
            grouped = x.reshape(*x.shape[:-1], self.groups, -1)
            y = self._per_example(grouped, (*range(1, x.ndim - 1), x.ndim)).reshape(x.shape)
        else:
            y = self._per_example(x, tuple(range(1, x.ndim - (self.kind == "instance"))))
        shape = x.shape[1:] if self.kind == "layer" else x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), shape, jnp.float32)
        return y * scale + self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)

    def _per_example(self, x, axes):
        self._require_values(x, axes)
        return _standardise(x, *_moments(x, axes))

    def _batch_moments(self, x, train):
        """Mean and variance ``[c]`` of the batch, or the running ones."""
        shape = x.shape[-1:]
        running = (
            self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32),
            self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32),
        )
        if not train:
            return tuple(r.value for r in running)
        axes = tuple(range(x.ndim - 1))
        moments = tuple(m.reshape(shape) for m in _moments(x, axes))
        if not self.is_initializing():
            self._require_values(x, axes)
            for old, new in zip(running, moments):
                old.value = (self.momentum * old.value + (1 - self.momentum) * new).astype(old.value.dtype)
        return moments

    def _require_values(self, x, axes):
        checks.require(
            any(x.shape[axis] > 1 for axis in axes),
            "norms.Norm",
            f"every mean of {self.kind} norm would be of a single value, which leaves zeros; use another norm, such as "
            "'layer', or larger images or batches",
        )


def _moments(x, axes):
    """Mean and variance over ``axes``, which stay with size 1."""
    mean = jnp.mean(x, axes, keepdims=True)
    return mean, jnp.mean((x - mean) ** 2, axes, keepdims=True)


def _standardise(x, mean, variance):
    return (x - mean) * lax.rsqrt(variance + _EPSILON)
