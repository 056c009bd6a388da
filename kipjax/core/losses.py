"""Losses between predictions and targets, each a mean over examples, and accuracy.

The squared loss is that of KIP (arXiv:2011.00050, equation 7), the scaled cross-entropy RFAD's (arXiv:2210.12067).
"""

import jax
import jax.numpy as jnp
import optax

from kipjax import checks

__all__ = ["accuracy", "cross_entropy", "mse", "platt"]


def mse(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """``1/2 mean |predictions - targets|^2`` over all entries of two ``[n, k]`` arrays, as in the KIP loss."""
    _check("losses.mse", predictions, targets)
    return 0.5 * jnp.mean((predictions - targets) ** 2)


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean softmax cross-entropy of ``logits [n, k]`` against ``targets``.

    Args:
      logits: ``[n, k]``.
      targets: ``[n, k]`` class probabilities (soft or one-hot, not centred), or ``[n]`` integer classes.

    Returns:
      ``[]`` in nats.
    """
    if jnp.ndim(targets) == 1:
        checks.same_length("losses.cross_entropy", "logits", logits, "targets", targets)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets))
    _check("losses.cross_entropy", logits, targets)
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))


def platt(predictions: jax.Array, targets: jax.Array, log_temp: jax.Array) -> jax.Array:
    """``cross_entropy(exp(log_temp) predictions, targets)``: Platt scaling with a learned scale.

    Ridge regression on centred one-hot targets predicts values far too close to zero to be logits; the scale, at least
    zero because it is an exponential, mends that (arXiv:2302.06755, section 3.3; arXiv:2210.12067).

    Args:
      predictions: ``[n, k]``.
      targets: ``[n, k]`` class probabilities or ``[n]`` integer classes, as in ``cross_entropy``.
      log_temp: ``[]``.
    """
    return cross_entropy(jnp.exp(log_temp) * predictions, targets)


def accuracy(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Fraction ``[]`` of rows whose largest prediction is at the class of the target.

    Args:
      predictions: ``[n, k]``.
      targets: ``[n, k]`` (the class is the largest entry) or ``[n]`` integer classes.
    """
    if jnp.ndim(targets) == 2:
        _check("losses.accuracy", predictions, targets)
        targets = jnp.argmax(targets, axis=-1)
    checks.same_length("losses.accuracy", "predictions", predictions, "targets", targets)
    return jnp.mean(jnp.argmax(predictions, axis=-1) == targets)


def _check(where, predictions, targets):
    checks.same_classes(where, "predictions", predictions, "targets", targets)
    checks.same_length(where, "predictions", predictions, "targets", targets)
