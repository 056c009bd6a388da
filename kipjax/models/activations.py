"""Activations by name, elementwise ``[...] -> [...]``; the relu family, and smooth ones for second derivatives.

The softplus of RCIG (arXiv:2302.06755); the others are those of DC's ablation (arXiv:2006.05929).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from kipjax import checks

__all__ = ["ACTIVATIONS", "activation", "softplus"]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def softplus(x: jax.Array, sharpness: float = 60.0) -> jax.Array:
    """``log(1 + exp(beta x)) / beta``, which tends to ``relu(x)`` as the sharpness ``beta`` grows.

    Written as ``max(x, 0) + log(1 + exp(-|beta x|)) / beta`` nothing overflows. The derivative is given as
    ``sigmoid(beta x)``: exact and finite everywhere, at every order, and cheaper than that of ``log(exp)``.

    Args:
      x: any shape, floating point.
      sharpness: ``beta > 0``; RCIG trains its networks of depth 3 with 60.

    References:
      arXiv:2302.06755, the activation of its networks during distillation.
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(sharpness * x))) / sharpness


@softplus.defjvp
def _softplus_jvp(sharpness, primals, tangents):
    (x,), (dx,) = primals, tangents
    return softplus(x, sharpness), jax.nn.sigmoid(sharpness * x) * dx


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "softplus": softplus,
    "leaky": functools.partial(nn.leaky_relu, negative_slope=0.01),
    "sigmoid": nn.sigmoid,
    "swish": nn.swish,
    "tanh": nn.tanh,
}


def activation(name: str, *, sharpness: float = 60.0) -> Callable[[jax.Array], jax.Array]:
    """The activation called ``name``; ``sharpness`` is that of softplus, which no other has.

    Raises:
      InputError: the name is unknown, or the sharpness not positive.

    >>> import jax.numpy as jnp
    >>> float(activation("leaky")(jnp.float32(-100.0)))
    -1.0
    """
    checks.one_of("models.activation", "activation", name, ACTIVATIONS)
    checks.at_least("models.activation", "sharpness", sharpness, 0.0, strict=True)
    return (lambda x: softplus(x, sharpness)) if name == "softplus" else ACTIVATIONS[name]
