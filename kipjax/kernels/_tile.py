"""One tile of a convolutional kernel: the recursion over the layers, for the pairs of one image with a few.

The state is a covariance ``k`` and a tangent kernel ``t`` for every pair of pixels ``[b, p, p]``, or for equal pixels
alone ``[b, p]`` where neither pooling nor the average over pixels mixes them. A 3x3 convolution averages it over nine
shifts of both pixels alike (arXiv:1904.11955, section 4); pooling averages 2x2x2x2 blocks.

Images are stored with one empty column at the right, ``p = h (w + 1)``, so that a shift of both pixels is a plain shift
of the flattened arrays, with nothing from the neighbouring row coming in; the nine shifts are three and three. The
first convolution is one matrix product of 3x3 patches. The variances of each image's pixels, which every ReLU needs,
are computed once per image (``with_itself``), not once per pair.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kipjax.kernels import _architecture, relu

__all__ = ["Net", "values", "with_itself"]


class Net(NamedTuple):
    """What is static about a network."""

    words: tuple[str, ...]
    get: str
    parameterization: str
    readout_parameterization: str
    width: int
    biased: bool

    @property
    def pairs(self) -> bool:
        return _architecture.needs_pixel_pairs(self.words)


def with_itself(net, x, scales, *, kernel):
    """Variances before every ReLU, and where ``kernel`` is set the kernel of each image with itself."""
    kept = []

    def variances(k):
        v = jnp.diagonal(k, axis1=1, axis2=2) if k.ndim == 3 else k
        kept.append(v)
        return v, v

    want = net.get if kernel else None
    out = _propagate(net, x, x, scales, variances, want, itself=True)
    return jnp.concatenate(kept, 1), out


def values(net, x1, x2, v1, v2, scales):
    """``[b]``: the kernel between one image ``x1 [1, ...]`` and ``b``, whose variances are given."""
    start = 0

    def variances(k):
        nonlocal start
        part = slice(start, start + k.shape[-1])
        start = part.stop
        return v1[:, part], v2[:, part]

    return _propagate(net, x1, x2, scales, variances, net.get, itself=False)


def _propagate(net, x1, x2, scales, variances, get, *, itself):
    """Runs a tile through the network. ``variances(k)`` are those of both sides before the coming ReLU.

    ``get=None`` stops after the last ReLU's variances.
    """
    height, width, fan_in = x1.shape[1:]
    pairs = net.pairs
    k = t = None
    last = max(i for i, word in enumerate(net.words) if word == "conv")
    for i, word in enumerate(net.words):
        if word == "conv":
            inside = _inside(height, width, pairs, x1.dtype)
            mean = _mean_of_patches(x1, x2, pairs) if k is None else _mean_of_shifts(k, width)
            mean_t = None if t is None else _mean_of_shifts(t, width)
            k, t = _affine(net, scales, mean, mean_t, 9 * fan_in, net.parameterization, get == "ntk")
            k, t = k * inside, None if t is None else t * inside
            v1, v2 = variances(k)
            if get is None and i == last:
                return None
            k, t = _relu(k, t, v1, v2, itself)
            fan_in = net.width
        elif word == "pool":
            k, t = (None if a is None else _pool(a, height, width) for a in (k, t))
            height, width = height // 2, width // 2
        if pairs and not _architecture.needs_pixel_pairs(net.words[i + 1 :]) and word != "gap":
            k, t = (None if a is None else jnp.diagonal(a, axis1=1, axis2=2) for a in (k, t))
            pairs = False
    pixels = height * width
    count = pixels**2 if pairs else pixels
    axes = (1, 2) if pairs else (1,)
    k, t = (None if a is None else jnp.sum(a, axes) / count for a in (k, t))
    fan_in = fan_in * (pixels if net.words[-1] == "flatten" else 1)
    k, t = _affine(net, scales, k, t, fan_in, net.readout_parameterization, get == "ntk")
    return k if get == "nngp" else t


def _affine(net, scales, k, t, fan_in, parameterization, tangent):
    """An affine layer's map of (averaged) covariances and tangent kernels; spec in ``kernels.infinite``."""
    w_std, b_std = scales
    weight, bias = w_std**2, b_std**2
    after = weight * k + bias
    if not tangent:
        return after, None
    new = after if parameterization == "ntk" else fan_in * k + float(net.biased)
    return after, new if t is None else new + weight * t


def _relu(k, t, v1, v2, itself):
    """``relu.moments``; a pixel has angle zero with itself, exactly.

    It runs over the state in a few parts, as a loop: XLA would otherwise compute it anew in every shift that reads it.
    """
    pairs = k.ndim == 3
    v1 = jnp.broadcast_to(v1, (len(k), v1.shape[1])) if pairs else _repeat(v1, len(k))
    whole = {"k": k, "v1": v1, "v2": v2, "t": t}
    if itself:
        same = np.eye(k.shape[-1], dtype=bool) if pairs else np.ones(k.shape[-1], bool)
        whole["same"] = jnp.broadcast_to(same, k.shape)
    whole = {name: _split(a, repeat=pairs and name == "v2") for name, a in whole.items() if a is not None}

    def part(a):
        q = a["v1"][..., None] * a["v2"][:, None] if pairs else a["v1"] * a["v2"]
        out, slope = relu.moments(a["k"], q)
        if itself:
            out, slope = jnp.where(a["same"], a["k"] / 2, out), jnp.where(a["same"], 0.5, slope)
        return out, a["t"] * slope if "t" in a else None

    out = lax.map(jax.checkpoint(part, prevent_cse=False), whole)
    return jax.tree.map(lambda a: a.reshape(k.shape), out)


def _repeat(a, n):
    """``[1, ...] -> [n, ...]`` as a matrix product, so that its derivative is one: XLA's sums over rows are slower."""
    if len(a) == n:
        return a
    rows = jnp.matmul(jnp.ones((n, 1), a.dtype), a.reshape(1, -1), precision=lax.Precision.HIGHEST)
    return rows.reshape(n, *a.shape[1:])


def _split(a, *, repeat):
    """``[b, p, ...] -> [parts, ...]``: two halves of the images, or some rows of pixels of a single one."""
    if len(a) > 1:
        parts = 2 if len(a) % 2 == 0 else len(a)
        return a.reshape(parts, -1, *a.shape[1:])
    parts = next((n for n in range(4, a.shape[1] + 1) if a.shape[1] % n == 0), 1)
    return jnp.repeat(a[None], parts, 0) if repeat else a.reshape(parts, 1, -1, *a.shape[2:])


def _guard(x):
    """``[b, h, w, ...] -> [b, h (w + 1), ...]`` with an empty column at the right of each image."""
    x = jnp.pad(x, [(0, 0), (0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 3))
    return x.reshape(len(x), -1, *x.shape[3:])


def _inside(height, width, pairs, dtype):
    """1 where no pixel lies in the empty column, else 0."""
    column = _guard(jnp.ones((1, height, width), dtype))[0]
    return column[:, None] * column if pairs else column


def _mean_of_patches(x1, x2, pairs):
    """The first convolution: inner products of 3x3 patches, over their number of entries."""
    entries = 9 * x1.shape[-1]
    if not pairs:
        products = _repeat(_guard(x1), len(x2)) * _guard(x2)
        return _mean_of_shifts(jnp.sum(products, -1) / x1.shape[-1], x1.shape[2])
    p1, p2 = _patches(x1), _patches(x2)
    if len(x1) == 1:
        p1 = jnp.broadcast_to(p1, (len(x2), *p1.shape[1:]))
    return jnp.einsum("bif,bjf->bij", p1, p2, precision=lax.Precision.HIGHEST) / entries


def _patches(x):
    """``[b, h, w, c] -> [b, h (w + 1), 9 c]``."""
    h, w = x.shape[1:3]
    padded = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return _guard(jnp.concatenate([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], -1))


def _mean_of_shifts(a, width):
    """Mean over the nine shifts of both pixels alike by at most one; zero outside the image.

    ``a [b, p]`` or ``[b, p, p]``, zero where a pixel is in the empty column; the result is meaningless there.
    """
    for step in (1, width + 1):
        a = (a + _shift(a, step) + _shift(a, -step)) / 3
    return a


def _shift(a, step):
    """All pixels moved by ``step``, zeros coming in."""
    moved = [(0, 0, 0)] + [(step, -step, 0)] * (a.ndim - 1)
    return lax.pad(a, jnp.zeros((), a.dtype), moved)


def _pool(a, height, width):
    """Mean over 2x2x2x2 blocks: ``[b, h (w + 1), ...] -> [b, (h // 2)(w // 2 + 1), ...]``, odd last pixels dropped.

    The first pixel's rows and columns are added as whole rows of the array, and the last axis by a matrix product.
    """
    h, w = height // 2, width // 2
    n, size = len(a), a.shape[-1]
    a = a.reshape(n, height, width + 1, size)[:, : 2 * h, : 2 * w]
    a = a[:, 0::2, 0::2] + a[:, 0::2, 1::2] + a[:, 1::2, 0::2] + a[:, 1::2, 1::2]
    a = a.reshape(n, h * w, height, width + 1)[:, :, : 2 * h]
    a = a[:, :, 0::2] + a[:, :, 1::2]
    average = np.zeros((width + 1, w + 1), a.dtype)
    average[np.arange(2 * w), np.arange(2 * w) // 2] = 1 / 16
    a = jnp.matmul(a, average, precision=lax.Precision.HIGHEST)
    return _guard(a.reshape(n, h, w, h * (w + 1)))
