"""A kernel matrix in tiles: which they are, how large, and what becomes of their values (``_tile``).

A tile pairs one image with a few, as many as keep its state in the processor's cache. The gradient recomputes a tile
when it comes to it, so that neither grows with the number of pairs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kipjax.checks import require
from kipjax.core import sharding
from kipjax.kernels import _architecture, _tile

__all__ = ["matrix", "tile_bytes", "tile_size"]

_CPU = 40 * 2**20  # of working arrays, of which a forward pass touches a third: the best of 2 MB to 600 MB, measured
# with 1 MB of L2 cache a core and 32 MB of L3; by what ``tile_bytes`` says
_ACCELERATOR = 2**30


def matrix(net, where, budget, mesh, x1, x2, scales):
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
    v, diagonal = _over_images(lambda a: _tile.with_itself(net, a, scales, kernel=True), size, x)
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
        return _tile.values(net, x1[row][None], x2[block], v1[row][None], v2[block], scales)

    def forward(numbers, *args):
        return lax.map(lambda number: tile(number, *args), numbers)

    def backward(pieces, *args):
        def add(total, piece):
            number, cotangent = piece
            row, block = tiles.at(number)
            x1, x2, v1, v2, scales = args
            local = (x1[row][None], x2[block], v1[row][None], v2[block], scales)
            _, pull = jax.vjp(lambda *a: _tile.values(net, *a), *local)
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


def _variances(net, size, x, scales):
    """``[n, ...]``: the variances of each image's pixels before every ReLU, one after the other."""
    if "conv" not in net.words:
        return jnp.zeros((len(x), 0), x.dtype)
    return _over_images(lambda a: _tile.with_itself(net, a, scales, kernel=False)[0], size, x)
