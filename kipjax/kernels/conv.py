"""Exact NNGP and NTK of convolutional ReLU networks, tile by tile: the numbers of ``kernels.infinite``, far faster.

The state of a pair of images is a covariance and a tangent kernel for every pair of pixels, or for equal pixels alone
where neither pooling nor the average over pixels mixes them: up to ``(h w)**2`` numbers a pair of images. So the matrix
is computed in tiles of few pairs, one image against a few, whose state stays in the processor's cache (``_tiles``);
what happens inside one, layer by layer, is ``_tile``. The networks (arXiv:1904.11955, section 4) are built here.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kipjax.checks import whole
from kipjax.core import sharding
from kipjax.kernels import _architecture, _tile, _tiles
from kipjax.kernels._architecture import Options
from kipjax.kernels._tiles import tile_bytes, tile_size
from kipjax.types import KernelFn

__all__ = ["conv", "convnet", "from_words", "myrtle", "tile_bytes", "tile_size"]


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
    net = _tile.Net(
        words,
        options.get,
        options.parameterization,
        options.readout_parameterization,
        options.width,
        options.b_std is not None,
    )
    sharding.size(mesh)  # refuses what is no mesh
    scales = (options.w_std, 0.0 if options.b_std is None else options.b_std)
    evaluate = jax.jit(lambda x1, x2, scales: _tiles.matrix(net, options.where, budget, mesh, x1, x2, scales))

    def kernel_fn(x1: jax.Array, x2: jax.Array) -> jax.Array:
        _architecture.check_inputs(options.where, x1, x2, words)
        given = (x1,) if x1 is x2 else (x1, x2)
        first, *second = (sharding.replicated(jnp.asarray(x), mesh) for x in given)
        return evaluate(first, second[0] if second else None, scales)

    kernel_fn.backend = "tiled"  # pyright: ignore[reportFunctionMemberAccess]
    return kernel_fn
