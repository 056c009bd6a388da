"""What every method asks of its inputs: a set and targets that fit, in one floating-point type.

Methods of one's own use it too; ``where`` is their name in the errors, such as ``"kip.step"``.
"""

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.types import Batch, Distilled, PyTree

__all__ = ["fit", "start", "targets", "typed"]


def start(where: str, distilled0: Distilled) -> tuple[jax.Array, jax.Array]:
    """Copies of ``x [m, ...]`` and ``y [m, k]`` (a state may be donated) in the wider of their types, at least float32.

    Raises:
      InputError: the set is empty or not finite, lengths differ, or labels are not one row for each example.
    """
    x, y = distilled0[:2]
    checks.require(
        np.ndim(y) == 2, where, f"y has shape {np.shape(y)}; expected [points, classes], as labels.one_hot makes it"
    )
    checks.same_length(where, "x", x, "y", y)
    checks.require(np.shape(x)[0] > 0, where, f"the set is empty: x has shape {np.shape(x)}; start from some examples")
    for name, value in (("x", x), ("y", y)):
        checks.finite(where, name, value)
    dtype = jnp.result_type(jnp.asarray(x), jnp.asarray(y), jnp.float32)
    return jnp.array(x, dtype), jnp.array(y, dtype)


def fit(where: str, x: jax.Array, y: jax.Array, batch: Batch) -> None:
    """Targets ``x [b, ...]``, ``y [b, k]`` must fit the set ``x [m, ...]``, ``y [m, k]``.

    Raises:
      InputError: there are none, lengths differ, or they are of other classes or another shape.
    """
    checks.same_classes(where, "y_s", y, "y_t", batch.y)
    checks.same_example_shape(where, "x_s", x, "x_t", batch.x)
    checks.same_length(where, "x_t", batch.x, "y_t", batch.y)
    checks.require(batch.x.shape[0] > 0, where, "the batch is empty; it must hold the targets")


def targets(where: str, x: jax.Array, y: jax.Array, batch: Batch) -> Batch:
    """The batch, ``x [b, ...]`` and ``y [b, k]``, in the type of the set, after ``fit``."""
    fit(where, x, y, batch)
    return typed(x, batch)


def typed(like: jax.Array, tree: PyTree) -> PyTree:
    """``tree``, arrays of any shape, with its leaves in the type of ``like``."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, like.dtype), tree)
