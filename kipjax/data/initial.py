"""Starting sets: real images, noise (both in arXiv:2011.00050), class means."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.data import draw
from kipjax.types import Distilled

__all__ = ["class_means", "noise", "real"]


def real(
    key: jax.Array,
    x: Any,
    labels: Any,
    *,
    num_classes: int,
    ipc: int | None = None,
    size: int | None = None,
    balanced: bool = True,
    centered: bool = True,
    scale: float = 1.0,
) -> Distilled:
    """Random training images with their labels, without replacement.

    Args:
      key: PRNG key.
      x: ``[n, ...]`` training examples in preprocessed space.
      labels: ``[n]`` integer classes in ``0 .. num_classes - 1``.
      num_classes: ``k``.
      ipc: images per class; the set has ``m = ipc * k`` rows, grouped by class in ascending order.
      size: ``m`` itself, instead of ``ipc``; a multiple of ``k`` if balanced.
      balanced: equally many of each class; otherwise ``size`` images are drawn from all alike, in random order.
      centered, scale: label convention, as in ``core.labels.one_hot``.

    Returns:
      ``Distilled(x [m, ...], y [m, k])``.

    Raises:
      InputError: neither or both of ``ipc`` and ``size``; a class with fewer images than ``ipc``; a set larger than the
        data; sizes that do not divide; labels that do not fit.

    References:
      arXiv:2011.00050, section 4 ("image init"), algorithm 1.

    Example:
      >>> start = real(jax.random.key(0), np.zeros((4, 3)), np.array([0, 1, 0, 1]), num_classes=2, ipc=1)
      >>> start.y.tolist()
      [[0.5, -0.5], [-0.5, 0.5]]
    """
    where = "initial.real"
    checks.same_length(where, "x", x, "labels", labels)
    checks.whole(where, "num_classes", num_classes)
    checks.labels_within(where, "labels", labels, num_classes)
    size = _size(where, ipc, size, num_classes, len(x), balanced)
    labels = np.asarray(labels)
    x = x if hasattr(x, "shape") else np.asarray(x)
    if balanced:
        rows = _balanced_rows(where, key, labels, num_classes, size // num_classes)
    else:
        rows = np.asarray(draw.without_replacement(key, size, len(x)))
    return Distilled(jnp.asarray(x[rows]), _targets(labels[rows], num_classes, centered, scale))


def noise(
    key: jax.Array,
    example_shape: tuple[int, ...],
    *,
    ipc: int,
    num_classes: int,
    low: float = -1.0,
    high: float = 1.0,
    std: float | None = None,
    centered: bool = True,
    scale: float = 1.0,
) -> Distilled:
    """Noise with balanced labels: uniform on ``[low, high)``, or normal with mean zero if ``std`` is given.

    Args:
      key: PRNG key.
      example_shape: of one example, for example ``x_train.shape[1:]``.
      ipc: images per class; the set has ``m = ipc * k`` rows.
      num_classes: ``k``.
      low, high: range in preprocessed space.
      std: standard deviation of normal noise instead (RCIG uses 0.3).
      centered, scale: label convention, as in ``core.labels.one_hot``.

    Returns:
      ``Distilled(x [m, ...], y [m, k])``, rows grouped by class in ascending order.

    Raises:
      InputError: ``ipc`` is below 1, or the range is empty.

    References:
      arXiv:2011.00050, section 4 ("noise init"). The paper does not give the range; this is that of its KIP_rho noise.
    """
    where = "initial.noise"
    checks.whole(where, "ipc", ipc)
    shape = (ipc * num_classes, *example_shape)
    checks.at_least(where, "high", high, low, strict=True)
    if std is None:
        x = jax.random.uniform(key, shape, jnp.float32, low, high)
    else:
        checks.at_least(where, "std", std, 0.0, strict=True)
        x = std * jax.random.normal(key, shape, jnp.float32)
    labels = np.repeat(np.arange(num_classes), ipc)
    return Distilled(x, _targets(labels, num_classes, centered, scale))


def class_means(x: Any, labels: Any, *, num_classes: int, centered: bool = True, scale: float = 1.0) -> Distilled:
    """The mean training image of every class: one row per class, in ascending order.

    Args:
      x: ``[n, ...]`` training examples in preprocessed space.
      labels: ``[n]`` integer classes in ``0 .. num_classes - 1``.
      num_classes: ``k``.
      centered, scale: label convention, as in ``core.labels.one_hot``.

    Returns:
      ``Distilled(x [k, ...], y [k, k])``.

    Raises:
      InputError: a class has no images, or labels do not fit.
    """
    where = "initial.class_means"
    checks.same_length(where, "x", x, "labels", labels)
    checks.whole(where, "num_classes", num_classes)
    checks.labels_within(where, "labels", labels, num_classes)
    x, labels = np.asarray(x), np.asarray(labels)
    _check_counts(where, labels, num_classes, 1)
    means = np.stack([x[labels == c].mean(axis=0, dtype=np.float64) for c in range(num_classes)])
    return Distilled(jnp.asarray(means, jnp.float32), _targets(np.arange(num_classes), num_classes, centered, scale))


def _size(where: str, ipc: int | None, size: int | None, num_classes: int, n: int, balanced: bool) -> int:
    """The number of rows that ``ipc`` or ``size`` asks for."""
    if (ipc is None) == (size is None):
        raise checks.InputError(f"{where}: ipc is {ipc} and size is {size}; give exactly one of them")
    name, value, times = ("ipc", ipc, num_classes) if ipc is not None else ("size", size or 0, 1)
    checks.whole(where, name, value)
    m = value * times
    checks.require(m <= n, where, f"a set of {m} images cannot be drawn from {n}; lower {name}")
    if balanced:
        checks.divides(where, "size", m, "num_classes", num_classes)
    return m


def _balanced_rows(where: str, key: jax.Array, labels: np.ndarray, num_classes: int, ipc: int) -> np.ndarray:
    """``[k * ipc]`` row numbers, ``ipc`` of each class."""
    counts = _check_counts(where, labels, num_classes, ipc)
    order = np.argsort(labels, kind="stable")
    within = np.asarray(draw.without_replacement(key, ipc, counts))
    return order[(np.cumsum(counts) - counts)[:, None] + within].ravel()


def _check_counts(where: str, labels: np.ndarray, num_classes: int, ipc: int) -> np.ndarray:
    """Examples in each class ``[k]``, at least ``ipc``."""
    counts = np.bincount(labels, minlength=num_classes)
    smallest = int(np.argmin(counts))
    checks.require(
        counts[smallest] >= ipc,
        where,
        f"class {smallest} has {counts[smallest]} images and ipc is {ipc}; lower ipc or add images of that class",
    )
    return counts


def _targets(labels: np.ndarray, num_classes: int, centered: bool, scale: float) -> jax.Array:
    from kipjax.core import labels as core_labels

    return core_labels.one_hot(labels, num_classes, centered=centered, scale=scale)
