"""Feature maps with a way back, from features to the examples that have them (Chen et al., NeurIPS 2024, section 5).

Each is a kernel like any other (``h(x1) . h(x2)``), so it goes wherever kernels go; ``methods.krr_exact`` uses the way
back. The identity is ``basic.linear``. Weights are drawn from ``seed``, the same in float32 and float64, for whatever
shape the examples have; examples count as flat vectors of ``d`` entries. Where some features cannot be reached,
``obstacle(example_shape)`` says so and names the layer, and the way back leads to least-squares approximations.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from kipjax import checks
from kipjax.kernels.basic import FeatureMap, flatten

__all__ = ["convolution", "fourier", "leaky_net", "linear_net", "network"]


@contextlib.contextmanager
def _same_numbers() -> Iterator[None]:
    """Weights are drawn in float32 in any mode, so that they do not depend on it."""
    with jax.enable_x64(False):
        yield


Layers = Callable[[tuple[int, ...]], list[jax.Array]]
"""The weights ``[d_in, d_out]`` of all layers, for examples of a shape."""


def network(weights: Sequence[jax.Array], *, slope: float = 0.1) -> FeatureMap:
    """Features of a network with given weights, ``h = leaky(leaky(x W_1) W_2) ...``, without biases.

    The way back is ``x = leaky^-1(leaky^-1(h) W_L^+) ... W_1^+``, by least squares, layer by layer. It is exact if no
    layer is wider than the one before it.

    Args:
      weights: ``[d, d_1]``, ``[d_1, d_2]``, ..., each of full rank.
      slope: of LeakyReLU below zero; 1 makes the network linear.

    Raises:
      InputError: a layer does not fit the one before it or is not of full rank, or ``slope`` is not positive; the text
        names the layer.

    References:
      NeurIPS 2024 (WI2VpcBdnd), section 5.1.

    Example:
      >>> feature_map = network([2 * jnp.eye(3)])
      >>> h = feature_map.features(jnp.ones((1, 3)))
      >>> feature_map.pull_back(h, jnp.ones((1, 3))).tolist()
      [[1.0, 1.0, 1.0]]
    """
    where = "feature_maps.network"
    checks.require(len(weights) > 0, where, "weights is empty; give at least one layer [d_in, d_out]")
    width = None
    for i, layer in enumerate(weights, 1):
        shape = np.shape(layer)
        fits = len(shape) == 2 and width in (None, shape[0])
        checks.require(fits, where, f"layer {i} has shape {shape}; expected [{width or 'd_in'}, d_out]")
        if not checks.is_traced(layer):
            found = int(np.linalg.matrix_rank(np.asarray(layer)))
            checks.require(
                found == min(shape),
                where,
                f"layer {i} of shape {shape} has rank {found}, so it cannot be inverted; give weights of full rank",
            )
        width = shape[1]
    return _chain(where, lambda shape: list(map(jnp.asarray, weights)), slope)


def leaky_net(*, widths: Sequence[int] = (), slope: float = 0.1, seed: int = 0) -> FeatureMap:
    """Features of a random network of fully connected layers and LeakyReLU, weights ``N(0, 1 / d_in)``, no biases.

    Args:
      widths: ``d_1, d_2, ...`` of the layers; none is one layer as wide as the examples are long, as in the paper's
        experiments.
      slope: of LeakyReLU below zero, above 0.
      seed: draws the weights.

    Raises:
      InputError: a width is not a positive whole number, or the slope is not positive.

    References:
      NeurIPS 2024 (WI2VpcBdnd), section 5.1 and experiments ("FCNN").
    """
    return _chain("feature_maps.leaky_net", _dense("feature_maps.leaky_net", widths, seed), slope)


def linear_net(*, widths: Sequence[int] = (), seed: int = 0) -> FeatureMap:
    """Features ``h = x Q`` of a random deep linear network, ``Q = W_1 W_2 ...`` with weights ``N(0, 1 / d_in)``.

    The way back is ``x = h Q^+``. Where there are more features than entries of an example (``d < p``), only features
    in the row space of ``Q`` can be reached, whatever the number of points; but that is where the weights of every
    ridge regressor on these features lie, so for them the way back is exact with one point per class. (The paper's
    theorem 5.3 asks for ``k + 1`` points and for a matrix of full rank, which it cannot have for ``d < p``.)

    Args:
      widths: as in ``leaky_net``.
      seed: draws the weights.

    References:
      NeurIPS 2024 (WI2VpcBdnd), theorem 5.3.
    """
    where = "feature_maps.linear_net"
    layers = _dense(where, widths, seed)

    def product(x):
        matrices = [w.astype(x.dtype) for w in layers(x.shape[1:])]
        return matrices[0] if len(matrices) == 1 else jnp.linalg.multi_dot(matrices)

    def features(x):
        return flatten(x) @ product(jnp.asarray(x, flatten(x).dtype))

    def pull_back(h, like):
        # Bottlenecks leave Q without full rank, so this is by singular values.
        solution = jnp.linalg.lstsq(product(jnp.zeros((0, *like.shape[1:]), h.dtype)).T, h.T)[0]
        return solution.T.reshape(len(h), *like.shape[1:])

    return FeatureMap(features, pull_back, lambda shape: _widening(layers, shape), where)


def convolution(
    *, layers: int = 1, channels: Sequence[int] = (), size: int = 3, stride: int = 2, slope: float = 0.1, seed: int = 0
) -> FeatureMap:
    """Features of random convolutions and LeakyReLU, each convolution written out as the linear map that it is.

    Args:
      layers: number of convolutions, where ``channels`` does not say.
      channels: output channels of each; none is ``stride^2`` times the input's, which keeps the number of entries where
        the sides of the image are multiples of the stride.
      size: side of the kernel. Zeros around the image keep ``ceil(side / stride)`` outputs.
      stride: step between outputs. (At stride 1 a random convolution is all but singular: its spectrum comes close to
        zero at some frequency.)
      slope: of LeakyReLU below zero, above 0.
      seed: draws the kernels, ``N(0, 1 / fan_in)``.

    Returns:
      A feature map of images ``[h, w, c]``.

    Raises:
      InputError: a number is out of range; at the first use, the examples are no images.

    References:
      NeurIPS 2024 (WI2VpcBdnd), section 5.1 (CNN).
    """
    where = "feature_maps.convolution"
    for name, value in (("layers", layers), ("size", size), ("stride", stride)):
        checks.whole(where, name, value)
    for i, count in enumerate(channels, 1):
        checks.whole(where, f"channels of layer {i}", count)

    def matrices(shape):
        checks.require(len(shape) == 3, where, f"examples have shape {shape}; expected images [h, w, channels]")
        made = []
        for i in range(len(channels) or layers):
            out = channels[i] if channels else stride**2 * shape[2]
            key = jax.random.fold_in(jax.random.key(seed), i)
            kernel = jax.random.normal(key, (size, size, shape[2], out), jnp.float32) / math.sqrt(size**2 * shape[2])
            every = jnp.eye(math.prod(shape), dtype=jnp.float32).reshape(-1, *shape)
            image = _convolve(every, kernel, stride)
            made.append(image.reshape(len(image), -1))
            shape = image.shape[1:]
        return made

    return _chain(where, matrices, slope)


def fourier(*, width: int = 0, bandwidth: float = 1000**0.5, seed: int = 0) -> FeatureMap:
    """Random Fourier features ``h = sqrt(2 / p) cos(x A^T + b)`` of an RBF kernel.

    The way back is ``x = (arccos(sqrt(p / 2) c h) - b) A^+T`` with ``c`` such that the largest entry is 1, as a cosine
    cannot pass it. So it leads to ``c h``, in the direction of what was asked for; labels solved anew make up for that.

    Args:
      width: number of features ``p``; 0 for as many as an example has entries. Up to there the way back is exact.
      bandwidth: ``s``; rows of ``A`` are ``N(0, I / s^2)``, so the kernel is near ``exp(-|x - x'|^2 / (2 s^2))``. The
        default is that of the authors' program.
      seed: draws ``A`` and ``b``, uniform on ``[0, 2 pi)``.

    Raises:
      InputError: a number is out of range.

    References:
      Rahimi and Recht, NIPS 2007; NeurIPS 2024 (WI2VpcBdnd), section 5.1.
    """
    where = "feature_maps.fourier"
    checks.whole(where, "width", width, 0)
    checks.at_least(where, "bandwidth", bandwidth, 0.0, strict=True)

    @_same_numbers()
    def parameters(shape):
        d = math.prod(shape)
        p = width or d
        frequency_key, phase_key = jax.random.split(jax.random.key(seed))
        a = jax.random.normal(frequency_key, (d, p), jnp.float32) / bandwidth
        b = jax.random.uniform(phase_key, (p,), jnp.float32, 0.0, 2 * math.pi)
        return a, b

    def features(x):
        flat = flatten(x)
        a, b = (weight.astype(flat.dtype) for weight in parameters(x.shape[1:]))
        return math.sqrt(2 / len(b)) * jnp.cos(flat @ a + b)

    def pull_back(h, like):
        a, b = (weight.astype(h.dtype) for weight in parameters(like.shape[1:]))
        largest = jnp.max(jnp.abs(h))
        angles = jnp.arccos(h / jnp.where(largest > 0, largest, 1.0)) - b
        return _solve_rows(a, angles).reshape(len(h), *like.shape[1:])

    def obstacle(shape):
        d = math.prod(shape)
        return (
            _wider("layer 1", d, width)
            if width > d
            else "layer 1 is a cosine and reaches no more than 1, so features come back scaled"
        )

    return FeatureMap(features, pull_back, obstacle, where)


def _chain(where: str, layers: Layers, slope: float) -> FeatureMap:
    """Layers ``leaky(x W)`` one after the other."""
    checks.at_least(where, "slope", slope, 0.0)
    checks.require(
        slope > 0, where, f"slope is {slope}: layer 1 would be a ReLU, which cannot be inverted; take a slope above 0"
    )

    def features(x):
        h = flatten(x)
        for w in layers(x.shape[1:]):
            h = h @ w.astype(h.dtype)
            h = jnp.where(h >= 0, h, slope * h)
        return h

    def pull_back(h, like):
        for w in reversed(layers(like.shape[1:])):
            h = jnp.where(h >= 0, h, h / slope)
            h = _solve_rows(w.astype(h.dtype), h)
        return h.reshape(len(h), *like.shape[1:])

    return FeatureMap(features, pull_back, lambda shape: _widening(layers, shape), where)


def _dense(where: str, widths: Sequence[int], seed: int) -> Layers:
    for i, width in enumerate(widths, 1):
        checks.whole(where, f"width of layer {i}", width)

    @_same_numbers()
    def matrices(shape):
        sizes = [math.prod(shape), *widths] if widths else [math.prod(shape)] * 2
        keys = jax.random.split(jax.random.key(seed), len(sizes) - 1)
        pairs = zip(keys, sizes, sizes[1:])
        return [jax.random.normal(key, (a, b), jnp.float32) / math.sqrt(a) for key, a, b in pairs]

    return matrices


def _widening(layers: Layers, shape: tuple[int, ...]) -> str:
    """The first layer that is wider than the one before it, in words."""
    for i, (a, b) in enumerate((w.shape for w in jax.eval_shape(lambda: layers(shape))), 1):
        if b > a:
            return _wider(f"layer {i}", a, b)
    return ""


def _wider(layer: str, narrow: int, wide: int) -> str:
    return (
        f"{layer} maps {narrow} entries to {wide}, so most of what it could be asked for cannot be reached; make no "
        "layer wider than what it reads"
    )


def _solve_rows(w: jax.Array, h: jax.Array) -> jax.Array:
    """The ``x [m, a]`` of least norm with the least ``|x w - h|``, for ``w [a, b]`` of full rank, by QR."""
    if w.shape[0] >= w.shape[1]:
        q, r = jnp.linalg.qr(w)
        return (q @ solve_triangular(r, h.T, trans=1)).T
    q, r = jnp.linalg.qr(w.T)
    return solve_triangular(r, q.T @ h.T).T


def _convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """``x [n, h, w, c]`` with zeros around it and ``kernel [s, s, c, q]``, as a sum over the entries of the kernel."""
    size = kernel.shape[0]
    outputs = [-(-side // stride) for side in x.shape[1:3]]
    missing = [max((out - 1) * stride + size - side, 0) for out, side in zip(outputs, x.shape[1:3])]
    x = jnp.pad(x, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)])
    rows, columns = ((out - 1) * stride + 1 for out in outputs)
    out = jnp.zeros((len(x), *outputs, kernel.shape[3]), x.dtype)
    for a, b in np.ndindex(size, size):
        out += jnp.einsum("nijc,cq->nijq", x[:, a : a + rows : stride, b : b + columns : stride], kernel[a, b])
    return out
