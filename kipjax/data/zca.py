"""ZCA whitening, which is not one thing in this field: ``ZCA_VARIANTS`` holds the definition of each paper.

KIP arXiv:2011.00050, appendix D, and its sequel arXiv:2107.13034; FRePo arXiv:2206.00719; RFAD arXiv:2210.12067; RCIG
arXiv:2302.06755.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.data import channels
from kipjax.types import Preprocess

__all__ = ["ZCA_VARIANTS", "ZcaVariant", "joined", "phases", "zca"]

_MAX_WHITENED = 16384  # pixels: the covariance takes 2 GiB in float64


class ZcaVariant(NamedTuple):
    """What one paper means by regularised ZCA.

    With ``X [n, d]`` the images after ``scaling`` and the stages below, ``C = X^T X / (n - ddof) = U diag(s) U^T`` and
    ``W = U diag(s + eps)^(-1/2) U^T``; the result is ``X W``.

    An image that is too large for one such matrix is taken apart like a checkerboard: each of the ``stride^2`` images
    of every ``stride``-th pixel is whitened by the same ``W``, from the mean of their covariances. FRePo and RCIG do so
    with 128 x 128 pixels, at a stride of 2.

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
    "kip_released": ZcaVariant(
        "channels", True, False, 0.1, "trace", 0,
        "arXiv:2107.13034: the released KIP sets, as their authors' notebook nn_training.ipynb (google-research/kip) "
        "whitens the data that networks trained on them are tested on",
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


def zca(
    x_train: Any,
    variant: str = "kip",
    *,
    constants: str | None = None,
    scale: float | None = None,
    reg: float | None = None,
    stride: int = 1,
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
      stride: 1, or of the checkerboard into which large images are taken apart.

    Returns:
      The fitted map with ``zca`` and ``zca_inverse``. Variants with ``per_image`` cannot be undone to the end.

    Raises:
      InputError: unknown names, pixels not finite, strength not positive, or images too large for a covariance.
    """
    where = "preprocess.zca"
    checks.one_of(where, "variant", variant, ZCA_VARIANTS)
    channels.check_pixels(where, x_train)
    definition = ZCA_VARIANTS[variant]
    definition = definition if reg is None else definition._replace(reg=reg)
    checks.at_least(where, "reg", definition.reg, 0.0, strict=True)
    _check_stride(where, np.shape(x_train), stride)
    pixels = int(np.prod(np.shape(x_train)[1:])) // stride**2
    checks.require(
        pixels <= _MAX_WHITENED,
        where,
        f"x_train has {pixels} pixels an image and its covariance {pixels} x {pixels} entries; "
        f"the limit is {_MAX_WHITENED} pixels: use a stride of {2 * stride}, smaller images, or kind 'standardize'",
    )
    pre = _scaling(where, x_train, definition.scaling, constants, scale)._replace(per_image=definition.per_image)
    return _whiten(pre, x_train, definition, stride)


def phases(x: Any, stride: int) -> Any:
    """``[n stride^2, d]``: the images of every ``stride``-th pixel of ``x [n, h, w, c]``, flattened; NumPy or JAX."""
    if stride == 1:
        return x.reshape(x.shape[0], -1)
    n, h, w, c = x.shape
    x = x.reshape(n, h // stride, stride, w // stride, stride, c).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(n * stride**2, -1)


def joined(flat: Any, shape: tuple[int, ...], stride: int) -> Any:
    """The inverse of ``phases``: ``x`` of that shape."""
    if stride == 1:
        return flat.reshape(shape)
    n, h, w, c = shape
    x = flat.reshape(n, stride, stride, h // stride, w // stride, c).transpose(0, 3, 1, 4, 2, 5)
    return x.reshape(shape)


def _check_stride(where: str, shape: tuple[int, ...], stride: int) -> None:
    checks.whole(where, "stride", stride)
    checks.require(
        stride == 1 or (len(shape) == 4 and shape[1] % stride == shape[2] % stride == 0),
        where,
        f"stride is {stride} and x_train has shape {shape}; expected images whose sides are multiples of it",
    )


def _scaling(where: str, x_train: Any, scaling: str, constants: str | None, scale: float | None) -> Preprocess:
    """The first stage of a whitening: unit range, published channel statistics, or those of the training set."""
    is_bytes = np.asarray(x_train).dtype == np.uint8
    scale = (255.0 if is_bytes else float(np.max(x_train))) if scale is None else scale
    checks.at_least(where, "scale", scale, 0.0, strict=True)
    if scaling == "unit":
        checks.require(
            constants is None, where, f"constants is {constants!r}, but this variant does not standardise channels"
        )
        count = np.shape(x_train)[-1]
        return channels.fixed([0.0] * count, [1.0] * count, scale)
    return channels.standardize(x_train) if constants is None else channels.published(x_train, constants, scale)


def _whiten(pre: Preprocess, x_train: Any, definition: ZcaVariant, stride: int) -> Preprocess:
    """Adds centre, whitening matrix and inverse, fitted on ``x_train`` after the stages of ``pre``."""
    n, shape = len(x_train), np.shape(x_train)[1:]
    d = int(np.prod(shape)) // stride**2
    mean, second = np.zeros(shape), np.zeros((d, d))
    for rows in channels.blocks(n):
        block = _host_stages(pre, x_train[rows])
        mean += block.sum(axis=0) / n
        parts = phases(block, stride)
        second += parts.T @ parts
    mean = mean if definition.centre else np.zeros(shape)
    means = phases(mean[None], stride)
    # One pass: cancellation costs at most |mean|^2 / variance, a few digits of the sixteen for images.
    covariance = (second - n * means.T @ means) / max((n - definition.ddof) * stride**2, 1)
    eps = definition.reg * (np.trace(covariance) / d if definition.reg_unit == "trace" else 1.0)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = np.sqrt(np.maximum(eigenvalues, 0.0) + eps)
    known = (n - definition.centre) * stride**2
    if known < d:
        root[: d - known] = 1.0  # eigh sorts ascending
    # Zeros say what shape of image a strided matrix is for.
    centre = jnp.asarray(mean, jnp.float32) if definition.centre or stride > 1 else None
    whiten, colour = (jnp.asarray((vectors * factor) @ vectors.T, jnp.float32) for factor in (1 / root, root))
    return pre._replace(centre=centre, zca=whiten, zca_inverse=colour)


def _host_stages(pre: Preprocess, x: Any) -> np.ndarray:
    """``[n, ...]``: the stages before ``centre`` in float64."""
    scaled = (np.asarray(x, np.float64) - np.asarray(pre.mean)) / np.asarray(pre.std)
    if not pre.per_image:
        return scaled
    flat = scaled.reshape(len(x), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(norm > 1e-8, flat / np.where(norm > 1e-8, norm, 1.0), 0.0).reshape(scaled.shape)
