"""From pixels to the space that a set is distilled in, and back.

A ``types.Preprocess`` is fitted on training pixels once (``fit``, or ``standardize``, ``fixed``, ``zca``) and travels
with the distilled set; ``apply`` and ``invert`` only read it. "ZCA" is not one thing in this field: ``ZCA_VARIANTS``
holds the definition of each paper, and they are not interchangeable.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
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

_BLOCK = 4096  # rows at a time: bounds the temporaries of fitting and applying
_MAX_WHITENED = 16384  # pixels: the covariance takes 2 GiB in float64


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


class ZcaVariant(NamedTuple):
    """What one paper means by regularised ZCA.

    With ``X [n, d]`` the images after ``scaling`` and the stages below, ``C = X^T X / (n - ddof) = U diag(s) U^T`` and
    ``W = U diag(s + eps)^(-1/2) U^T``; the result is ``X W``.

    Attributes:
      scaling: ``"unit"``, pixels divided by their largest possible value; or ``"channels"``, channel standardisation.
      per_image: each image minus its own mean, divided by its own L2 norm, before the covariance.
      centre: minus the mean training image.
      reg: strength.
      reg_unit: ``"absolute"``: ``eps = reg``; ``"trace"``: ``eps = reg * trace(C) / d``.
      ddof: 0 or 1.
      source: where the definition is from.
    """

    scaling: str
    per_image: bool
    centre: bool
    reg: float
    reg_unit: str
    ddof: int
    source: str


ZCA_VARIANTS = {
    "kip": ZcaVariant(
        "unit", True, False, 1e-5, "absolute", 0,
        "arXiv:2011.00050, appendix D: strength 1e-5 in the scheme of Shankar et al., arXiv:2003.02237, whose code "
        "(modestyachts/neural_kernels_code) adds the strength to the eigenvalues",
    ),
    "kip_convnet": ZcaVariant(
        "unit", True, False, 0.1, "trace", 0,
        "arXiv:2107.13034: the released KIP ConvNet sets, as DC-BENCH (arXiv:2207.09639) whitens test data for them",
    ),
    "mtt": ZcaVariant(
        "unit", False, True, 0.1, "absolute", 1,
        "arXiv:2203.11932: kornia 0.6 ZCAWhitening(eps=0.1) on pixels in [0, 1]; no channel standardisation",
    ),
    "frepo": ZcaVariant("channels", False, True, 0.1, "trace", 0, "arXiv:2206.00719, colour sets only"),
    "rcig": ZcaVariant("channels", False, True, 0.1, "trace", 0, "arXiv:2302.06755, colour sets only; as FRePo"),
    "rfad": ZcaVariant(
        "channels", False, False, 0.1, "trace", 0, "arXiv:2210.12067, CIFAR: no mean image is subtracted"
    ),
    "rfad_svhn": ZcaVariant("channels", True, False, 0.1, "trace", 0, "arXiv:2210.12067, SVHN"),
}  # fmt: skip


def identity(x_train: Any) -> Preprocess:
    """No preprocessing: pixels as they are, ``float32``. ``x_train [n, ...]`` gives the channels and the range."""
    _check_pixels("preprocess.identity", x_train)
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
      >>> pre = standardize(np.array([[0.0], [2.0]]))
      >>> apply(pre, np.array([[4.0]])).tolist()
      [[3.0]]
    """
    _check_pixels("preprocess.standardize", x_train)
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


def zca(
    x_train: Any,
    variant: str = "kip",
    *,
    constants: str | None = None,
    scale: float | None = None,
    reg: float | None = None,
) -> Preprocess:
    """Regularised ZCA whitening as one paper defines it (see ``ZcaVariant`` for the formula and ``ZCA_VARIANTS``).

    Covariance and eigenvectors are float64. With fewer images than pixels the factors of the directions in which the
    training set says nothing are set to 1, in the inverse too, so that these pass unchanged. That is RCIG's rule, which
    counts ``n`` known directions; after centring there are ``n - 1``, and counting so keeps ``W`` well defined. The
    other papers never had such data.

    Args:
      x_train: raw training pixels ``[n, ...]``; images are flattened for the whitening and come back in their shape.
      variant: a key of ``ZCA_VARIANTS``.
      constants: a key of ``CONSTANTS`` for variants that standardise channels, in place of the training statistics
        (FRePo and RCIG do so: ``"cifar10_rcig"`` or ``"cifar100"``).
      scale: the largest possible pixel value; 255 for uint8, otherwise the largest training pixel.
      reg: replaces the strength of the paper.

    Returns:
      The fitted map with ``zca`` and ``zca_inverse``. Variants with ``per_image`` cannot be undone to the end.

    Raises:
      InputError: unknown names, pixels not finite, strength not positive, or images too large for a covariance.
    """
    where = "preprocess.zca"
    checks.one_of(where, "variant", variant, ZCA_VARIANTS)
    _check_pixels(where, x_train)
    definition = ZCA_VARIANTS[variant]
    definition = definition if reg is None else definition._replace(reg=reg)
    checks.at_least(where, "reg", definition.reg, 0.0, strict=True)
    pixels = int(np.prod(np.shape(x_train)[1:]))
    checks.require(
        pixels <= _MAX_WHITENED,
        where,
        f"x_train has {pixels} pixels an image and its covariance {pixels} x {pixels} entries; "
        f"the limit is {_MAX_WHITENED} pixels: use smaller images, or kind 'standardize'",
    )
    pre = _scaling(where, x_train, definition.scaling, constants, scale)._replace(per_image=definition.per_image)
    return _whiten(pre, x_train, definition)


KINDS: dict[str, Callable[..., Preprocess]] = {
    "none": identity,
    "standardize": standardize,
    "fixed": lambda x_train, constants=None, scale=255.0: _fixed_by_name(x_train, constants, scale),
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
    """``x [n, ...]`` flattened, times ``matrix [d, d]`` in full float32, in its old shape."""
    flat = x.reshape(x.shape[0], -1)
    return jnp.matmul(flat, matrix, precision=jax.lax.Precision.HIGHEST).reshape(x.shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _jitted(stage: Callable, per_image: bool, pre: Preprocess, x: jax.Array) -> jax.Array:
    return stage(pre._replace(per_image=per_image), x)


def _in_blocks(stage: Callable, pre: Preprocess, x: Any) -> jax.Array:
    """``stage(pre, x)``, for concrete arrays block by block."""
    if checks.is_traced(pre, x):
        return stage(pre, jnp.asarray(x))
    run = functools.partial(_jitted, stage, bool(pre.per_image), pre._replace(per_image=False))
    if len(x) <= _BLOCK:
        return run(jnp.asarray(x))
    out = np.empty(np.shape(x), np.float32)
    for rows in _blocks(len(x)):
        out[rows] = run(jnp.asarray(x[rows]))
    return jnp.asarray(out)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK))


def _make(mean: Any, std: Any, low: Any, high: Any) -> Preprocess:
    mean, std, low, high = (jnp.asarray(value, jnp.float32) for value in (mean, std, low, high))
    return Preprocess(mean, std, low, high)


def _channel_statistics(x_train: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation ``[c]`` in float64, in two passes; 1 for a deviation that is only rounding."""
    x = np.asarray(x_train)
    axes, count = tuple(range(x.ndim - 1)), x.size / x.shape[-1]
    mean = sum(x[rows].sum(axis=axes, dtype=np.float64) for rows in _blocks(len(x))) / count
    square = sum(np.square(x[rows] - mean).sum(axis=axes) for rows in _blocks(len(x))) / count
    std = np.sqrt(square)
    return mean, np.where(std > 1e-7 * np.maximum(np.abs(mean), 1e-30), std, 1.0)


def _scaling(where: str, x_train: Any, scaling: str, constants: str | None, scale: float | None) -> Preprocess:
    """The first stage of a whitening: unit range, published channel statistics, or those of the training set."""
    is_bytes = np.asarray(x_train).dtype == np.uint8
    scale = (255.0 if is_bytes else float(np.max(x_train))) if scale is None else scale
    checks.at_least(where, "scale", scale, 0.0, strict=True)
    if scaling == "unit":
        checks.require(
            constants is None, where, f"constants is {constants!r}, but this variant does not standardise channels"
        )
        channels = np.shape(x_train)[-1]
        return fixed([0.0] * channels, [1.0] * channels, scale)
    return standardize(x_train) if constants is None else _fixed_by_name(x_train, constants, scale)


def _fixed_by_name(x_train: Any, constants: str | None, scale: float) -> Preprocess:
    checks.one_of("preprocess.fixed", "constants", constants, CONSTANTS)
    mean, std = CONSTANTS[str(constants)]
    channels = np.shape(x_train)[-1]
    checks.require(
        channels == len(mean),
        "preprocess.fixed",
        f"constants {constants!r} are for {len(mean)} channels and x_train has {channels}",
    )
    return fixed(mean, std, scale)


def _whiten(pre: Preprocess, x_train: Any, definition: ZcaVariant) -> Preprocess:
    """Adds centre, whitening matrix and inverse, fitted on ``x_train`` after the stages of ``pre``."""
    n, d = len(x_train), int(np.prod(np.shape(x_train)[1:]))
    mean, second = np.zeros(d), np.zeros((d, d))
    for rows in _blocks(n):
        block = _host_stages(pre, x_train[rows])
        mean += block.sum(axis=0) / n
        second += block.T @ block
    mean = mean if definition.centre else np.zeros(d)
    # One pass: cancellation costs at most |mean|^2 / variance, a few digits of the sixteen for images.
    covariance = (second - n * np.outer(mean, mean)) / max(n - definition.ddof, 1)
    eps = definition.reg * (np.trace(covariance) / d if definition.reg_unit == "trace" else 1.0)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = np.sqrt(np.maximum(eigenvalues, 0.0) + eps)
    if n < d:
        root[: d - (n - definition.centre)] = 1.0  # eigh sorts ascending
    centre = jnp.asarray(mean.reshape(np.shape(x_train)[1:]), jnp.float32) if definition.centre else None
    whiten, colour = (jnp.asarray((vectors * factor) @ vectors.T, jnp.float32) for factor in (1 / root, root))
    return pre._replace(centre=centre, zca=whiten, zca_inverse=colour)


def _host_stages(pre: Preprocess, x: Any) -> np.ndarray:
    """``[n, d]``: the stages before ``centre`` in float64."""
    flat = ((np.asarray(x, np.float64) - np.asarray(pre.mean)) / np.asarray(pre.std)).reshape(len(x), -1)
    if pre.per_image:
        flat = flat - flat.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(flat, axis=1, keepdims=True)
        flat = np.where(norm > 1e-8, flat / np.where(norm > 1e-8, norm, 1.0), 0.0)
    return flat


def _check_pixels(where: str, x_train: Any) -> None:
    checks.require(
        np.ndim(x_train) >= 2 and np.size(x_train) > 0,
        where,
        f"x_train has shape {np.shape(x_train)}; expected at least one example, [n, ..., channels]",
    )
    checks.finite(where, "x_train", x_train)


def _check_example(where: str, pre: Preprocess, x: Any) -> None:
    """``x [n, ...]`` must have the channels of ``pre``, and its pixels where ``pre`` whitens."""
    shape, fitted = np.shape(x), np.shape(pre.mean)
    ok = len(shape) >= 2 and fitted[-1:] in ((), (1,), shape[-1:])
    checks.require(
        ok, where, f"x has shape {shape} and the preprocessing was fitted on {fitted[-1]} channels (last axis)"
    )
    pixels, whitened = int(np.prod(shape[1:])), None if pre.zca is None else pre.zca.shape[0]
    checks.require(
        whitened in (None, pixels),
        where,
        f"x has {pixels} pixels an image and the preprocessing was fitted on {whitened}",
    )
