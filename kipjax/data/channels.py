"""Channel statistics: published (with DC, arXiv:2006.05929, and others) or fitted, and the preprocessing they make."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.types import Preprocess

__all__ = ["CONSTANTS", "Constants", "blocks", "check_pixels", "fixed", "identity", "published", "standardize"]

BLOCK = 4096  # rows at a time: bounds the temporaries of fitting and applying


class Constants(NamedTuple):
    """Published channel statistics of ``pixels / 255``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


CONSTANTS = {
    # DC, DSA, DM, DC-BENCH (github.com/VICO-UoE/DatasetCondensation, utils.py). MTT and DD-Ranking use "cifar10" for
    # CIFAR-100 too.
    "mnist": Constants((0.1307,), (0.3081,)),
    "fashion_mnist": Constants((0.2861,), (0.3530,)),
    "svhn": Constants((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": Constants((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Constants((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tiny_imagenet": Constants((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "imagenet": Constants((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # FRePo and RCIG (github.com/yolky/RCIG) divide CIFAR-10 by the standard deviation over all pixels, where the line
    # above has the mean of the standard deviations of single images. Their other constants are those above.
    "cifar10_rcig": Constants((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    # RFAD (github.com/yolky/RFAD).
    "celeba": Constants((0.5064, 0.4258, 0.3832), (0.3093, 0.2890, 0.2883)),
}


def identity(x_train: Any) -> Preprocess:
    """No preprocessing: pixels as they are, ``float32``. ``x_train [n, ...]`` gives the channels and the range."""
    check_pixels("preprocess.identity", x_train)
    channels = np.shape(x_train)[-1]
    return _make(np.zeros(channels), np.ones(channels), np.min(x_train), np.max(x_train))


def standardize(x_train: Any) -> Preprocess:
    """Each channel to mean 0 and standard deviation 1 over the training set, ``(x - mean) / std``.

    Statistics are accumulated in float64 over all axes but the last: over images and pixels for ``[n, h, w, c]``, per
    feature for vectors ``[n, d]``. A channel without variation is centred and divided by 1.

    Args:
      x_train: raw training pixels ``[n, ..., c]``, in any unit.

    Returns:
      The fitted map, in the same unit.

    Raises:
      InputError: pixels are not finite, or there are none.

    References:
      arXiv:2011.00050, appendix D (its footnote 5 says per pixel; its code and appendix D say per channel).

    Example:
      >>> standardize(np.array([[0.0], [2.0]])).mean.tolist()
      [1.0]
    """
    check_pixels("preprocess.standardize", x_train)
    mean, std = _channel_statistics(x_train)
    return _make(mean, std, np.min(x_train), np.max(x_train))


def fixed(mean: Sequence[float], std: Sequence[float], scale: float = 255.0) -> Preprocess:
    """``(x / scale - mean) / std`` with published statistics, for example ``fixed(*CONSTANTS["cifar10"])``.

    Args:
      mean, std: ``[c]``, of ``pixels / scale``.
      scale: the largest pixel value.

    Returns:
      The map, for pixels in ``0 .. scale``.

    Raises:
      InputError: lengths differ, or a value is outside its range.
    """
    where = "preprocess.fixed"
    checks.same_length(where, "mean", mean, "std", std)
    checks.at_least(where, "scale", scale, 0.0, strict=True)
    checks.at_least(where, "std", np.asarray(std), 0.0, strict=True)
    return _make(np.asarray(mean) * scale, np.asarray(std) * scale, 0.0, scale)


def published(x_train: Any, constants: str | None = None, scale: float = 255.0) -> Preprocess:
    """``fixed(*CONSTANTS[constants], scale)`` for pixels ``x_train [n, ..., c]``, of which only ``c`` counts."""
    checks.one_of("preprocess.fixed", "constants", constants, CONSTANTS)
    mean, std = CONSTANTS[str(constants)]
    channels = np.shape(x_train)[-1]
    checks.require(
        channels == len(mean),
        "preprocess.fixed",
        f"constants {constants!r} are for {len(mean)} channels and x_train has {channels}",
    )
    return fixed(mean, std, scale)


def check_pixels(where: str, x_train: Any) -> None:
    """At least one example, and finite."""
    checks.require(
        np.ndim(x_train) >= 2 and np.size(x_train) > 0,
        where,
        f"x_train has shape {np.shape(x_train)}; expected at least one example, [n, ..., channels]",
    )
    checks.finite(where, "x_train", x_train)


def blocks(n: int) -> Iterator[slice]:
    """Slices of ``0 .. n - 1``."""
    return (slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))


def _make(mean: Any, std: Any, low: Any, high: Any) -> Preprocess:
    mean, std, low, high = (jnp.asarray(value, jnp.float32) for value in (mean, std, low, high))
    return Preprocess(mean, std, low, high)


def _channel_statistics(x_train: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation ``[c]`` in float64, in two passes; 1 for a deviation that is only rounding."""
    x = np.asarray(x_train)
    axes, count = tuple(range(x.ndim - 1)), x.size / x.shape[-1]
    mean = sum(x[rows].sum(axis=axes, dtype=np.float64) for rows in blocks(len(x))) / count
    square = sum(np.square(x[rows] - mean).sum(axis=axes) for rows in blocks(len(x))) / count
    std = np.sqrt(square)
    return mean, np.where(std > 1e-7 * np.maximum(np.abs(mean), 1e-30), std, 1.0)
