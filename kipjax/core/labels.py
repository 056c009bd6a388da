"""Class labels as regression targets, centred as in arXiv:2011.00050, appendix D; margins of arXiv:2302.06755."""

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks

__all__ = ["center", "classes", "margin", "one_hot", "uncentred"]


def one_hot(
    labels: jax.Array | np.ndarray, num_classes: int, *, centered: bool = True, scale: float = 1.0
) -> jax.Array:
    """One row per example: one for its class and zero elsewhere, centred by default.

    Centred targets are ``1 - 1/k`` for the class and ``-1/k`` elsewhere, so each row sums to zero and a constant
    predictor at zero has no bias to learn (arXiv:2011.00050, appendix D).

    Args:
      labels: ``[n]`` integers in ``0 .. num_classes - 1``.
      num_classes: ``k``.
      centered: subtract ``1/k``.
      scale: factor on the result.

    Returns:
      ``[n, k]`` float.

    Raises:
      InputError: labels are not integers, not one per example, or outside the classes.

    Example:
      >>> import numpy as np
      >>> one_hot(np.array([1]), 2).tolist()
      [[-0.5, 0.5]]
    """
    checks.labels_within("labels.one_hot", "labels", labels, num_classes)
    y = jax.nn.one_hot(labels, num_classes)
    return scale * (center(y) if centered else y)


def center(y: jax.Array) -> jax.Array:
    """``y [n, k]`` minus ``1/k``: centred targets from rows that sum to one."""
    return y - 1.0 / y.shape[-1]


def uncentred(y: jax.Array) -> jax.Array:
    """``y [m, k]`` with rows that are probabilities less ``1/k`` moved to be those: for losses of probabilities.

    Other rows stay, such as zeros and free labels that happen to sum to zero.

    Example:
      >>> uncentred(one_hot(np.array([1]), 2)).tolist()
      [[0.0, 1.0]]
    """
    moved, close = y + 1 / y.shape[1], 1e-5
    whole = jnp.abs(jnp.sum(y, axis=1, keepdims=True)) < close
    centred = whole & jnp.all(moved > -close, axis=1, keepdims=True) & jnp.any(y != 0, axis=1, keepdims=True)
    return jnp.where(centred, moved, y)


def classes(y: jax.Array) -> jax.Array:
    """The class ``[n]`` of each row of targets or predictions ``[n, k]``: the first largest entry."""
    return jnp.argmax(y, axis=-1)


def margin(y: jax.Array, cap: float) -> jax.Array:
    """Mean ``[]`` over rows of ``y [m, k]`` of the largest entry minus the second, each counted up to ``cap``.

    RCIG and FRePo subtract it from their loss, which keeps learned labels apart; it is in their programs alone. With
    one class there is no other to keep apart from, and it is 0.
    """
    if y.shape[-1] < 2:
        return jnp.zeros((), y.dtype)
    top = jax.lax.top_k(y, 2)[0]
    return jnp.mean(jnp.minimum(top[:, 0] - top[:, 1], cap))
