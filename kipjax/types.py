"""The words that everything else is written in.

Shapes use one letter per axis throughout the library: ``m`` distilled (support) points, ``n`` or ``b``
target points, ``k`` classes, ``...`` the shape of one example (images are ``[height, width, channels]``).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

__all__ = ["Batch", "Distilled", "KernelFn", "Method", "Preprocess", "PyTree", "Sampler"]

PyTree = Any

KernelFn = Callable[[jax.Array, jax.Array], jax.Array]
"""``kernel_fn(x1 [n1, ...], x2 [n2, ...]) -> [n1, n2]``, pure and differentiable in both arguments."""


class Distilled(NamedTuple):
    """A distilled dataset.

    Attributes:
      x: ``[m, ...]`` examples in preprocessed space.
      y: ``[m, k]`` targets, one column per class, in the label convention of the method.
      lr: ``None``, or the learned step size(s) of the training that the set was made for: ``[]`` or ``[steps]``.
    """

    x: jax.Array
    y: jax.Array
    lr: jax.Array | None = None


class Batch(NamedTuple):
    """Labelled target points: ``x [b, ...]`` and ``y [b, k]``; class-wise methods take ``x [k, b, ...]``."""

    x: jax.Array
    y: jax.Array


class Preprocess(NamedTuple):
    """The fitted map from pixels to the space that a set was distilled in; ``data.preprocess`` fits and applies it.

    In order: ``(x - mean) / std``; if ``per_image``, each image minus its own mean, divided by its own L2 norm; minus
    ``centre``; times ``zca`` on the flattened image. Absent stages are ``None``.

    Attributes:
      mean, std: channel-wise ``[c]`` (or broadcastable to one example), in pixel units.
      centre: per-pixel mean ``[...]`` after the stages before it, or ``None``.
      zca, zca_inverse: ``[d, d]`` with ``d`` the flattened example size, or ``None``.
      low, high: ``[]`` range of the training pixels, for showing images.
      per_image: whether the per-image stage runs. It is the one stage that cannot be undone.
    """

    mean: jax.Array
    std: jax.Array
    low: jax.Array
    high: jax.Array
    centre: jax.Array | None = None
    zca: jax.Array | None = None
    zca_inverse: jax.Array | None = None
    per_image: bool = False


Sampler = Callable[[jax.Array], Batch]
"""``sample(key) -> Batch``, pure, so that sampling is compiled into the training step."""


def _nothing(state: PyTree) -> dict[str, Any]:
    return {}


class Method(NamedTuple):
    """A distillation method as three pure functions, and what it has to say about the use of its sets.

    Attributes:
      init: ``init(key, distilled0) -> State``; ``distilled0`` is the starting set.
      step: ``step(key, state, batch) -> (State, Info)``; keeps structure, shapes and dtypes of the state, and
        runs under jit, vmap, scan, pmap and shard_map. ``Info`` is reported and never fed back.
      distilled: ``distilled(state) -> Distilled``.
      usage: ``usage(state) -> dict`` of what JSON can hold, for sets that are to be used in one way only: their ridge,
        the length of their training. It travels with the set. A run prints the sentences of its ``remarks``, a list:
        what is not as it was asked for. Called outside jit, once at the end.
    """

    init: Callable[[jax.Array, Distilled], PyTree]
    step: Callable[[jax.Array, PyTree, Batch], tuple[PyTree, PyTree]]
    distilled: Callable[[PyTree], Distilled]
    usage: Callable[[PyTree], dict[str, Any]] = _nothing
