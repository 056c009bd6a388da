"""From pixels to the space that a set is distilled in, and back.

A ``types.Preprocess`` is fitted on training pixels once (``fit``, or ``standardize``, ``fixed``, ``zca``) and travels
with the distilled set; ``apply`` and ``invert`` only read it. "ZCA" is not one thing in this field: ``ZCA_VARIANTS``
holds the definition of each paper (the first in arXiv:2011.00050, appendix D), and they are not interchangeable.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.data import channels
from kipjax.data.channels import CONSTANTS, Constants, fixed, identity, standardize
from kipjax.data.zca import ZCA_VARIANTS, ZcaVariant, joined, phases, zca
from kipjax.types import Preprocess

__all__ = [
    "CONSTANTS",
    "KINDS",
    "ZCA_VARIANTS",
    "Constants",
    "ZcaVariant",
    "apply",
    "fit",
    "fixed",
    "identity",
    "invert",
    "standardize",
    "to_pixels",
    "zca",
]


KINDS: dict[str, Callable[..., Preprocess]] = {
    "none": identity,
    "standardize": standardize,
    "fixed": channels.published,
    "zca": zca,
}
"""What ``fit`` can fit: each takes ``x_train`` and its own keywords."""


def fit(x_train: Any, kind: str = "standardize", **options: Any) -> Preprocess:
    """Fits the preprocessing of that name on training pixels.

    Args:
      x_train: raw training pixels ``[n, ...]``.
      kind: ``"none"``, ``"standardize"``, ``"fixed"`` (with ``constants``, a key of ``CONSTANTS``) or ``"zca"`` (with
        ``variant`` and the other keywords of ``zca``).
      options: keywords of that kind.

    Returns:
      The fitted map.

    Raises:
      InputError: unknown kind or option, or what the kind itself refuses.

    Example:
      >>> fit(np.array([[1.0], [3.0]]), "standardize").mean.tolist()
      [2.0]
    """
    checks.one_of("preprocess.fit", "kind", kind, KINDS)
    takes = set(inspect.signature(KINDS[kind]).parameters) - {"x_train"}
    unknown = sorted(set(options) - takes)
    checks.require(
        not unknown,
        "preprocess.fit",
        f"kind {kind!r} does not take {', '.join(unknown)}; it takes {', '.join(sorted(takes)) or 'no options'}",
    )
    return KINDS[kind](x_train, **options)


def apply(pre: Preprocess, x: Any) -> jax.Array:
    """Pixels to preprocessed space.

    Args:
      pre: the fitted map.
      x: ``[n, ...]`` pixels in the unit that ``pre`` was fitted in.

    Returns:
      ``[n, ...]`` float32. Concrete arrays are processed in blocks, so that temporaries stay small; traced ones whole.

    Raises:
      InputError: examples do not have the shape that ``pre`` was fitted on, or are not finite.
    """
    _check_example("preprocess.apply", pre, x)
    checks.finite("preprocess.apply", "x", x)
    return _in_blocks(_forward, pre, x)


def invert(pre: Preprocess, x: Any) -> jax.Array:
    """Preprocessed space to pixels, neither clipped nor rounded.

    The per-image stage forgets each image's mean and norm; what comes back then is the centred image of unit norm,
    times ``std``, plus ``mean``.

    Args:
      pre: the fitted map.
      x: ``[m, ...]`` in preprocessed space.

    Returns:
      ``[m, ...]`` float32, in the unit that ``pre`` was fitted in.

    Raises:
      InputError: examples do not have the shape that ``pre`` was fitted on.
    """
    _check_example("preprocess.invert", pre, x)
    return _in_blocks(_backward, pre, x)


def to_pixels(pre: Preprocess, x: Any) -> np.ndarray:
    """Images to look at: ``uint8`` in 0..255.

    The range ``pre.low .. pre.high`` of the training pixels becomes 0..255, with values outside clipped. After a
    per-image stage absolute brightness is lost, so each image is stretched to its own range instead.

    Args:
      pre: the fitted map.
      x: ``[m, ...]`` in preprocessed space.

    Returns:
      ``[m, ...]`` uint8.
    """
    pixels = np.asarray(invert(pre, x), np.float64)
    low, high = float(pre.low), float(pre.high)
    if pre.per_image:
        axes = tuple(range(1, pixels.ndim))
        low, high = pixels.min(axis=axes, keepdims=True), pixels.max(axis=axes, keepdims=True)
    unit = (pixels - low) / np.where(np.asarray(high) > low, np.asarray(high) - low, 1.0)
    return np.rint(255 * np.clip(unit, 0.0, 1.0)).astype(np.uint8)


def _forward(pre: Preprocess, x: jax.Array) -> jax.Array:
    """The stages in the order that ``types.Preprocess`` gives."""
    x = (x.astype(jnp.float32) - pre.mean) / pre.std
    if checks.is_traced(pre.per_image):
        x = jnp.where(pre.per_image, _per_image(x), x)
    elif pre.per_image:
        x = _per_image(x)
    if pre.centre is not None:
        x = x - pre.centre
    return x if pre.zca is None else _times(x, pre.zca)


def _backward(pre: Preprocess, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    if pre.zca_inverse is not None:
        x = _times(x, pre.zca_inverse)
    if pre.centre is not None:
        x = x + pre.centre
    return x * pre.std + pre.mean


def _per_image(x: jax.Array) -> jax.Array:
    """Each image minus its mean, divided by its norm; a constant image becomes zero."""
    axes = tuple(range(1, x.ndim))
    x = x - jnp.mean(x, axis=axes, keepdims=True)
    square = jnp.sum(x**2, axis=axes, keepdims=True)
    positive = square > 1e-16
    return jnp.where(positive, x * jax.lax.rsqrt(jnp.where(positive, square, 1.0)), 0.0)


def _times(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Each flattened image times ``matrix [d, d]`` in full float32; one of ``s^2 d`` pixels goes in ``s^2`` phases."""
    stride = math.isqrt(math.prod(x.shape[1:]) // matrix.shape[0])
    flat = jnp.matmul(phases(x, stride), matrix, precision=jax.lax.Precision.HIGHEST)
    return joined(flat, x.shape, stride)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _jitted(stage: Callable, per_image: bool, pre: Preprocess, x: jax.Array) -> jax.Array:
    return stage(pre._replace(per_image=per_image), x)


def _in_blocks(stage: Callable, pre: Preprocess, x: Any) -> jax.Array:
    """``stage(pre, x)``, for concrete arrays block by block."""
    if checks.is_traced(pre, x):
        return stage(pre, jnp.asarray(x))
    run = functools.partial(_jitted, stage, bool(pre.per_image), pre._replace(per_image=False))
    if len(x) <= channels.BLOCK:
        return run(jnp.asarray(x))
    out = np.empty(np.shape(x), np.float32)
    for rows in channels.blocks(len(x)):
        out[rows] = run(jnp.asarray(x[rows]))
    return jnp.asarray(out)


def _check_example(where: str, pre: Preprocess, x: Any) -> None:
    """``x [n, ...]`` must have the channels of ``pre``, and its pixels where ``pre`` whitens."""
    shape, fitted = np.shape(x), np.shape(pre.mean)
    ok = len(shape) >= 2 and fitted[-1:] in ((), (1,), shape[-1:])
    checks.require(
        ok, where, f"x has shape {shape} and the preprocessing was fitted on {fitted[-1]} channels (last axis)"
    )
    pixels, whitened = int(np.prod(shape[1:])), None if pre.zca is None else pre.zca.shape[0]
    as_fitted = pre.centre is not None and np.shape(pre.centre) == shape[1:]
    checks.require(
        whitened in (None, pixels) or as_fitted,
        where,
        f"x has {pixels} pixels an image and the preprocessing was fitted on {whitened}",
    )
