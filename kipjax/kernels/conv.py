"""Exact NNGP and NTK of convolutional ReLU networks, tile by tile: the numbers of ``kernels.infinite``, far faster.

The state of a pair of images is a covariance and a tangent kernel for every pair of pixels, or for equal pixels alone
where neither pooling nor the average over pixels mixes them. A 3x3 convolution averages it over nine shifts of both
pixels alike (arXiv:1904.11955, section 4); pooling averages 2x2x2x2 blocks. For pixel pairs that is ``(h w)**2``
numbers a pair of images, so the matrix is computed in tiles of few pairs, one image against a few, whose state stays in
the processor's cache, and the gradient recomputes a tile when it comes to it: neither grows with the number of pairs.

Three things make it fast. Images are stored with one empty column at the right, so that a shift of both pixels is a
plain shift of the flattened arrays, with nothing from the neighbouring row coming in; the nine shifts are three and
three. The first convolution is one matrix product of 3x3 patches. And the variances of each image's pixels, which every
ReLU needs, are computed once per image, not once per pair.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kipjax.checks import require, whole
from kipjax.core import sharding
from kipjax.kernels import _architecture, relu
from kipjax.kernels._architecture import Options
from kipjax.types import KernelFn

__all__ = ["conv", "convnet", "from_words", "myrtle", "tile_bytes", "tile_size"]

_CPU = 40 * 2**20  # of working arrays, of which a forward pass touches a third: the best of 2 MB to 600 MB, measured
# with 1 MB of L2 cache a core and 32 MB of L3; by what ``tile_bytes`` says
_ACCELERATOR = 2**30


def conv(
    depth: int,
    *,
    w_std: Any = 2**0.5,
    b_std: Any = 0.1,
    get: str = "ntk",
    parameterization: str = "ntk",
    width: int = 128,
    pool: bool | Sequence[int] = False,
    readout: str = "flatten",
    readout_parameterization: str = "ntk",
    budget: int | None = None,
    mesh: Any = None,
) -> KernelFn:
    """``infinite.conv`` by this engine.

    Args:
      depth, w_std, b_std, get, parameterization, width, pool, readout, readout_parameterization: as there.
      budget: bytes that the working arrays of one tile may take, the backward pass included; ``None`` is what a
        processor's cache holds, or 1 GiB on an accelerator.
      mesh: devices to spread the tiles over, from ``core.sharding.mesh``; ``None`` for one device.

    Raises:
      InputError: an option, the shape of an input or the budget is not as described.

    >>> import jax.numpy as jnp
    >>> conv(2, pool=True)(jnp.ones((3, 4, 4, 1)), jnp.ones((2, 4, 4, 1))).shape
    (3, 2)
    """
    where = "kernels.conv.conv"
    options = Options(where, w_std, b_std, get, parameterization, width, readout_parameterization)
    return from_words(_architecture.conv(where, depth, pool, readout), options, budget, mesh)


def convnet(
    depth: int = 3,
    *,
    w_std: Any = 2**0.5,
    b_std: Any = 0.1,
    get: str = "ntk",
    parameterization: str = "ntk",
    width: int = 128,
    readout_parameterization: str = "ntk",
    budget: int | None = None,
    mesh: Any = None,
) -> KernelFn:
    """``infinite.convnet`` by this engine; arguments as in ``conv``."""
    where = "kernels.conv.convnet"
    options = Options(where, w_std, b_std, get, parameterization, width, readout_parameterization)
    return from_words(_architecture.convnet(where, depth), options, budget, mesh)


def myrtle(
    depth: int,
    *,
    w_std: Any = 2**0.5,
    b_std: Any = 0.1,
    get: str = "ntk",
    parameterization: str = "ntk",
    width: int = 128,
    readout_parameterization: str = "ntk",
    budget: int | None = None,
    mesh: Any = None,
) -> KernelFn:
    """``infinite.myrtle`` by this engine; arguments as in ``conv``."""
    where = "kernels.conv.myrtle"
    options = Options(where, w_std, b_std, get, parameterization, width, readout_parameterization)
    return from_words(_architecture.myrtle(where, depth), options, budget, mesh)


def from_words(words: tuple[str, ...], options: Options, budget: int | None = None, mesh: Any = None) -> KernelFn:
    """The kernel of a network given as one word per layer (``_architecture``)."""
    _architecture.check_options(options)
    if budget is not None:
        whole(options.where, "budget", budget)
    net = _Net(
        words,
        options.get,
        options.parameterization,
        options.readout_parameterization,
        options.width,
        options.b_std is not None,
    )
    sharding.size(mesh)  # refuses what is no mesh
    scales = (options.w_std, 0.0 if options.b_std is None else options.b_std)
    evaluate = jax.jit(lambda x1, x2, scales: _matrix(net, options.where, budget, mesh, x1, x2, scales))

    def kernel_fn(x1: jax.Array, x2: jax.Array) -> jax.Array:
        _architecture.check_inputs(options.where, x1, x2, words)
        given = (x1,) if x1 is x2 else (x1, x2)
        first, *second = (sharding.replicated(jnp.asarray(x), mesh) for x in given)
        return evaluate(first, second[0] if second else None, scales)

    kernel_fn.backend = "tiled"  # pyright: ignore[reportFunctionMemberAccess]
    return kernel_fn


class _Net(NamedTuple):
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


# The matrix: which tiles, how large, and what becomes of their values.


def _matrix(net, where, budget, mesh, x1, x2, scales):
    """``[n1, n2]``, square with an exact diagonal where ``x2`` is ``None``."""
    dtype = jnp.promote_types(jnp.result_type(*(x for x in (x1, x2) if x is not None)), jnp.float32)
    compute = jnp.result_type(float) if jnp.result_type(float) == jnp.float64 else dtype
    scales = tuple(jnp.asarray(s, compute) for s in scales)
    x1 = x1.astype(compute)
    if x2 is None:
        return _square(net, where, budget, mesh, x1, scales).astype(dtype)
    x2 = x2.astype(compute)
    if len(x1) > len(x2):  # a tile is one image of the first against several of the second
        return _rectangle(net, where, budget, mesh, x2, x1, scales).T.astype(dtype)
    return _rectangle(net, where, budget, mesh, x1, x2, scales).astype(dtype)


def _rectangle(net, where, budget, mesh, x1, x2, scales):
    if not len(x1):
        return jnp.zeros((0, len(x2)), x2.dtype)
    size = tile_size(net.words, x1.shape, len(x2), x1.dtype, budget, where=where)
    v1, v2 = (_variances(net, size, x, scales) for x in (x1, x2))
    return _pairs(net, size, mesh, False, x1, x2, v1, v2, scales)


def _square(net, where, budget, mesh, x, scales):
    """Half of a symmetric matrix by tiles, and the diagonal by the recursion of an image with itself."""
    n = len(x)
    size = tile_size(net.words, x.shape, n, x.dtype, budget, where=where)
    v, diagonal = _over_images(lambda a: _itself(net, a, scales, kernel=True), size, x)
    upper = _pairs(net, size, mesh, True, x, x, v, v, scales) if n > 1 else jnp.zeros((n, n), x.dtype)
    upper = jnp.where(np.triu(np.ones((n, n), bool), 1), upper, 0.0)
    return upper + upper.T + jnp.diag(diagonal)


def tile_size(words, shape, columns, dtype, budget=None, *, where="kernels.conv.tile_size") -> int:
    """Images that a tile pairs with one, so that their working arrays keep to the budget and tiles are equally full.

    Args:
      words: the architecture.
      shape: ``[n, h, w, c]`` of an input.
      columns: images to be paired, at least 1.
      dtype: of the computation.
      budget: bytes; ``None`` for a default, which a single pair may exceed.

    Raises:
      InputError: one pair needs more than ``budget``.
    """
    need = tile_bytes(words, shape, dtype)
    if budget is None:
        most = (_ACCELERATOR if sharding.on_accelerator() else _CPU) // need
    else:
        most = budget // need
        require(
            most >= 1,
            where,
            f"budget is {budget} bytes, and one pair of {shape[1]} x {shape[2]} images may need {need}; raise it",
        )
    if most < 2 or columns < 2:
        return 1
    tiles = -(-columns // (most - most % 2))
    size = -(-columns // tiles)
    return size + size % 2  # even, for the two halves of ``_relu``


def tile_bytes(words, shape, dtype) -> int:
    """Bytes of the working arrays of one pair of images, the backward pass included.

    An upper bound, fitted to what XLA plans for CPUs: 10 to 23 arrays a layer for value and gradient, and 8 more where
    a tile holds one pair (3 to 12 for the value alone).
    """
    height, width = shape[1:3]
    pairs = _architecture.needs_pixel_pairs(words)
    layers = []
    for word in words:
        if word == "conv":
            layers.append((height * (width + 1)) ** (2 if pairs else 1))
        elif word == "pool":
            height, width = height // 2, width // 2
    patches = (36 if pairs else 10) * shape[1] * (shape[2] + 1) * shape[3]
    return int(np.dtype(dtype).itemsize * (25 * sum(layers) + 8 * max(layers) + patches))


class _Tiles(NamedTuple):
    """The tiles of a matrix, row after row: those of a row are a stretch of blocks up to the last one."""

    starts: np.ndarray  # [n1] the number of the first tile of each row
    first: np.ndarray  # [n1] and its block
    count: int

    def at(self, number):
        """``(row, block)`` of tiles by their numbers."""
        row = jnp.searchsorted(self.starts, number, side="right") - 1
        return row, jnp.asarray(self.first)[row] + number - jnp.asarray(self.starts)[row]


def _tiles(n1: int, blocks: int, size: int, half: bool) -> _Tiles:
    """All tiles, or those alone that reach above the diagonal."""
    first = np.minimum(np.arange(n1) // size, blocks - 1) if half else np.zeros(n1, int)
    ends = np.cumsum(blocks - first)
    return _Tiles(ends - (blocks - first), first, int(ends[-1]))


def _pairs(net, size, mesh, half, x1, x2, v1, v2, scales):
    """``[n1, n2]`` of all pairs, or of those in tiles that reach above the diagonal.

    The backward pass runs over the same tiles, each recomputed, and adds to the gradients in place.
    """
    n2 = len(x2)
    blocks = -(-n2 // size)
    tiles = _tiles(len(x1), blocks, size, half)
    padded = tiles.count + -tiles.count % sharding.size(mesh)

    def numbered():
        """The number of each tile, the last one repeated so that every device has equally many."""
        return jnp.minimum(jnp.arange(padded), tiles.count - 1)

    def blocked(a):
        a = jnp.pad(a, [(0, blocks * size - n2)] + [(0, 0)] * (a.ndim - 1))
        return a.reshape(blocks, size, *a.shape[1:])

    def tile(number, x1, x2, v1, v2, scales):
        row, block = tiles.at(number)
        return _values(net, x1[row][None], x2[block], v1[row][None], v2[block], scales)

    def forward(numbers, *args):
        return lax.map(lambda number: tile(number, *args), numbers)

    def backward(pieces, *args):
        def add(total, piece):
            number, cotangent = piece
            row, block = tiles.at(number)
            x1, x2, v1, v2, scales = args
            local = (x1[row][None], x2[block], v1[row][None], v2[block], scales)
            _, pull = jax.vjp(lambda *a: _values(net, *a), *local)
            gx1, gx2, gv1, gv2, gs = pull(cotangent)
            tx1, tx2, tv1, tv2, ts = total
            return (
                tx1.at[row].add(gx1[0]),
                tx2.at[block].add(gx2),
                tv1.at[row].add(gv1[0]),
                tv2.at[block].add(gv2),
                jax.tree.map(jnp.add, ts, gs),
            ), None

        zero = jax.tree.map(jnp.zeros_like, args)
        return lax.scan(add, zero, pieces)[0]

    @jax.custom_vjp
    def run(x1, x2, v1, v2, scales):
        rows = sharding.spread(forward, mesh)(numbered(), x1, blocked(x2), v1, blocked(v2), scales)
        out = jnp.zeros((len(x1), blocks, size), rows.dtype)
        out = out.at[tiles.at(numbered())].set(rows)
        return out.reshape(len(x1), blocks * size)[:, :n2]

    def run_forward(*args):
        return run(*args), args

    def run_backward(args, cotangent):
        x1, x2, v1, v2, scales = args
        c = jnp.pad(cotangent, [(0, 0), (0, blocks * size - n2)]).reshape(-1, blocks, size)
        c = c[tiles.at(numbered())] * (jnp.arange(padded) < tiles.count)[:, None]
        spread = sharding.spread(backward, mesh, total=True)
        gx1, gx2, gv1, gv2, gs = spread((numbered(), c), x1, blocked(x2), v1, blocked(v2), scales)
        gx2, gv2 = (g.reshape(-1, *g.shape[2:])[:n2] for g in (gx2, gv2))
        return gx1, gx2, gv1, gv2, gs

    run.defvjp(run_forward, run_backward)
    return run(x1, x2, v1, v2, scales)


def _over_images(fn: Callable, size: int, x: jax.Array) -> Any:
    """``fn`` of all images, ``size`` at a time; differentiated, each is recomputed."""
    n = len(x)
    blocks = -(-n // size)
    padded = jnp.pad(x, [(0, blocks * size - n)] + [(0, 0)] * (x.ndim - 1)).reshape(blocks, size, *x.shape[1:])
    out = lax.map(jax.checkpoint(fn, prevent_cse=False), padded)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], out)


# One tile: the recursion over the layers.


def _variances(net, size, x, scales):
    """``[n, ...]``: the variances of each image's pixels before every ReLU, one after the other."""
    if "conv" not in net.words:
        return jnp.zeros((len(x), 0), x.dtype)
    return _over_images(lambda a: _itself(net, a, scales, kernel=False)[0], size, x)


def _itself(net, x, scales, *, kernel):
    """Variances before every ReLU, and where ``kernel`` is set the kernel of each image with itself."""
    kept = []

    def variances(k):
        v = jnp.diagonal(k, axis1=1, axis2=2) if k.ndim == 3 else k
        kept.append(v)
        return v, v

    want = net.get if kernel else None
    out = _propagate(net, x, x, scales, variances, want, itself=True)
    return jnp.concatenate(kept, 1), out


def _values(net, x1, x2, v1, v2, scales):
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
