"""Convolution, pooling and dense layers, fast on every backend and differentiable as often as one likes.

``Conv`` has one set of parameters and two lowerings with the same numbers. On GPU and TPU it is XLA's convolution. On
CPU that convolution runs about twenty times slower inside a loop (scan, while) than outside, so there the layer gathers
the patches of a few images at a time as shifted slices and multiplies them with the kernel.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import incremental, sharding
from kipjax.models.initializers import INITS

__all__ = ["LOWERINGS", "POOLS", "Conv", "CosineHead", "convolve", "dense", "max_pool3", "pool"]

LOWERINGS = (None, "patches", "conv")
POOLS = ("avg", "max", "none")

# Bytes of patches gathered at a time. They are kh kw times the input; from a few MiB on, writing them to memory and
# reading them back costs more than the product (measured, gradient inside scan of a 3x3 convolution of 250 images of
# 28x28, 32 to 32 channels, one core: 233 ms with 2 MiB, 274 with 4, 373 with 8, 399 all at once).
_PATCH_BYTES = 2 * 2**20


class Conv(nn.Module):
    """Convolution of ``x [n, h, w, c]`` with a ``kernel [kh, kw, c, features]``, plus a ``bias [features]``.

    Attributes:
      features: channels of the output.
      kernel_size: side of the square kernel, or ``(kh, kw)``.
      stride: step between outputs along both axes.
      padding: zeros around the image: a number of pixels on every side, ``"VALID"`` for none, ``"SAME"`` for as many as
        keep ``ceil(size / stride)`` outputs.
      use_bias: whether there is a bias.
      initial: how parameters are drawn, a key of ``initializers.INITS``.
      lowering: ``"patches"`` or ``"conv"``; ``None`` takes patches on CPU and conv elsewhere.
    """

    features: int
    kernel_size: int | tuple[int, int] = 3
    stride: int = 1
    padding: str | int = "SAME"
    use_bias: bool = True
    initial: str = "lecun"
    lowering: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``[n, h, w, c] -> [n, oh, ow, features]``."""
        checks.one_of("layers.Conv", "initial", self.initial, INITS)
        size = (self.kernel_size, self.kernel_size) if isinstance(self.kernel_size, int) else tuple(self.kernel_size)
        shape = (*size, x.shape[-1], self.features)
        draw = INITS[self.initial]
        kernel = self.param("kernel", draw.kernel, shape, jnp.float32)
        y = convolve(x, kernel, stride=self.stride, padding=self.padding, lowering=self.lowering)
        if not self.use_bias:
            return y
        return y + self.param("bias", draw.bias(math.prod(shape[:3])), (self.features,), jnp.float32)


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: str | int = "SAME",
    lowering: str | None = None,
) -> jax.Array:
    """``out[n, i, j, q] = sum_{a, b, p} x[n, stride i + a - low, stride j + b - low, p] kernel[a, b, p, q]``.

    Args:
      x: ``[n, h, w, c]``; zero outside.
      kernel: ``[kh, kw, c, features]``.
      stride, padding, lowering: as in ``Conv``.

    Returns:
      ``[n, oh, ow, features]`` in the wider dtype of the two.

    Raises:
      InputError: shapes do not fit, the kernel is larger than the padded image, or an option is unknown.
    """
    checks.one_of("layers.convolve", "lowering", lowering, LOWERINGS)
    checks.whole("layers.convolve", "stride", stride)
    checks.require(
        x.ndim == 4 and kernel.ndim == 4 and x.shape[3] == kernel.shape[2],
        "layers.convolve",
        f"x has shape {x.shape} and kernel {kernel.shape}; expected [n, h, w, c] and [kh, kw, c, features]",
    )
    dtype = jnp.result_type(x, kernel)
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    pads = _pads(x.shape[1:3], kernel.shape[:2], stride, padding)
    if (lowering or ("conv" if sharding.on_accelerator() else "patches")) == "conv":
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=layout)
    if any(sum(pads, ())):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return _by_patches(x, kernel, stride)


def _pads(image, kernel, stride, padding):
    """``((low, high), (low, high))`` zeros along the two axes, after checking that an output is left."""
    if isinstance(padding, str):
        checks.one_of("layers.convolve", "padding", padding, ("SAME", "VALID"))
        pads = tuple(lax.padtype_to_pads(image, kernel, (stride, stride), padding))
    else:
        checks.whole("layers.convolve", "padding", padding, 0)
        pads = ((padding, padding),) * 2
    checks.require(
        all(side + sum(pad) >= k for side, pad, k in zip(image, pads, kernel)),
        "layers.convolve",
        f"a map of {image[0]}x{image[1]} with padding {padding} is smaller than the kernel of {kernel[0]}x{kernel[1]}; "
        "use larger images, a smaller kernel or more padding",
    )
    return pads


def _by_patches(x, kernel, stride):
    """The convolution of a padded ``x`` as products of patches with the kernel, a few images at a time."""
    kh, kw, channels, features = kernel.shape
    oh, ow = (1 + (side - k) // stride for side, k in zip(x.shape[1:3], (kh, kw)))
    matrix = kernel.reshape(-1, features)

    def product(images):
        return _patches(images, (kh, kw), (oh, ow), stride) @ matrix

    block = max(1, _PATCH_BYTES // (oh * ow * kh * kw * channels * x.dtype.itemsize))
    if x.shape[0] <= block or kh * kw == 1:
        return product(x)
    # The derivative gathers its patches anew: cheaper than reading them back, and memory stays that of the images.
    one = jax.checkpoint(lambda image: product(image[None])[0], prevent_cse=False)
    return lax.map(one, x, batch_size=block)


def _patches(x, kernel, out, stride):
    """``[n, oh, ow, kh kw c]``: what the kernel sees at each output, as ``kh kw`` shifted slices side by side."""
    (kh, kw), (oh, ow) = kernel, out
    rows, columns = stride * (oh - 1) + 1, stride * (ow - 1) + 1
    slices = [x[:, a : a + rows : stride, b : b + columns : stride] for a in range(kh) for b in range(kw)]
    return jnp.concatenate(slices, axis=-1)


def pool(x: jax.Array, kind: str = "avg") -> jax.Array:
    """Average or maximum of disjoint 2x2 squares; an odd last row or column is dropped.

    Pairs are compared by ``maximum``, whose derivative inside scan is about ten times cheaper on CPU than that of XLA's
    windowed reduction; entries that tie share the derivative.

    Args:
      x: ``[n, h, w, c]``.
      kind: ``"avg"``, ``"max"``, or ``"none"``, which returns ``x``.

    Returns:
      ``[n, h // 2, w // 2, c]``.

    Raises:
      InputError: the kind is unknown, or a side is below 2 and nothing would be left.
    """
    checks.one_of("layers.pool", "pool", kind, POOLS)
    if kind == "none":
        return x
    n, h, w, c = x.shape
    checks.require(
        min(h, w) >= 2,
        "layers.pool",
        f"a map of {h}x{w} is too small for 2x2 pooling; use larger images, fewer poolings (less depth, pool='none') "
        "or an architecture that pools less",
    )
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
    if kind == "avg":
        return jnp.mean(x, axis=(2, 4))
    top, bottom = (jnp.maximum(x[:, :, row, :, 0], x[:, :, row, :, 1]) for row in (0, 1))
    return jnp.maximum(top, bottom)


def max_pool3(x: jax.Array) -> jax.Array:
    """Maximum of overlapping 3x3 squares with stride 2 and one pixel of padding: ``[n, h, w, c] -> [n, oh, ow, c]``.

    ``oh = (h + 1) // 2``. Like ``pool`` it compares slices, for XLA's windowed reduction is slow inside scan on CPU.
    """
    h, w = x.shape[1:3]
    rows, columns = (h + 1) // 2, (w + 1) // 2
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    x = functools.reduce(jnp.maximum, (x[:, a : a + 2 * rows - 1 : 2] for a in range(3)))
    return functools.reduce(jnp.maximum, (x[:, :, b : b + 2 * columns - 1 : 2] for b in range(3)))


def dense(features: int, fan_in: int, *, initial: str, name: str) -> nn.Dense:
    """A dense layer ``[n, fan_in] -> [n, features]``, parameters as ``initial`` says; the last is ``"head"``."""
    checks.one_of("layers.dense", "initial", initial, INITS)
    draw = INITS[initial]
    bias = (draw.head_bias if name == "head" else draw.bias)(fan_in)
    return nn.Dense(features, kernel_init=draw.kernel, bias_init=bias, name=name)


class CosineHead(nn.Module):
    """A last layer without norms: ``h [n, p] -> sigma cos(h, w_c)`` ``[n, features]``, with ``w_c`` the columns of a
    ``kernel [p, features]`` and one learned ``scale`` ``sigma []`` for all, 1 at first.

    Attributes:
      features: outputs, one for each class.
      initial: how the kernel is drawn, a key of ``initializers.INITS``.

    References:
      Luo et al., arXiv:1702.05870; Gidaris and Komodakis, arXiv:1804.09458; as in LUCIR (CVPR 2019), equation (4).
    """

    features: int
    initial: str = "torch"

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """``[n, p] -> [n, features]``, between ``-|sigma|`` and ``|sigma|``."""
        kernel = self.param("kernel", INITS[self.initial].kernel, (h.shape[-1], self.features), h.dtype)
        return self.param("scale", nn.initializers.ones_init(), (), h.dtype) * incremental.cosine(h, kernel)
