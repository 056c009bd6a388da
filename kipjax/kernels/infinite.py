"""Kernels of infinitely wide ReLU networks (NNGP and NTK).

Every factory returns ``kernel_fn(x1 [n1, ...], x2 [n2, ...]) -> [n1, n2]`` for a network of affine layers with weight
variance ``w_std**2`` and bias variance ``b_std**2``, ReLUs, and one affine readout. ``get="nngp"`` is the covariance of
its outputs at initialisation, ``get="ntk"`` the neural tangent kernel that governs its training (arXiv:1806.07572).

Choices on which the sources of KIP (arXiv:2011.00050) disagree:

* ``b_std``: appendix D of the paper says 0.01; the authors' notebook says 0.1, which is the default here.
* ``parameterization="standard"`` (arXiv:2001.07301) scales a hidden layer's part of the NTK by its fan-in; ``width``
  matters only there. The readout stays in the NTK parameterization (footnote 8 of the paper); the notebook passes its
  choice on to the readout as well, which is ``readout_parameterization="standard"``.

Pass the very same array twice, ``kernel_fn(x, x)``, for a square kernel matrix: its diagonal is then exact. Computed
like any other pair, a diagonal entry of the NTK loses half the digits to the square root at angle zero: in float32 1e-4
to 1e-3 of its value, always downwards, where the usual ridge of 1e-6 cannot make up for it.

Two engines compute them, to the same numbers. ``backend="neural_tangents"`` is the library of that name;
``backend="tiled"`` is ``kernels.conv``, for convolutional networks only: in bounded memory, many times faster with
pooling, up to three times without, and about equal there for gradients. ``backend="auto"`` takes it for convolutional
networks and neural_tangents for the others; ``kernel_fn.backend`` says which it took. The tiled engine has reverse-mode
derivatives only: for ``jax.jvp`` or second derivatives ask for neural_tangents.

Matrix products run at full float32 precision on every device. Where x64 is enabled the computation is in float64. The
result has the floating-point type of the inputs, float32 for anything narrower.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from kipjax.checks import one_of, require, whole
from kipjax.kernels import _architecture, _neural_tangents, relu
from kipjax.kernels import conv as tiled
from kipjax.kernels._architecture import Options as _Options
from kipjax.types import KernelFn

__all__ = ["conv", "convnet", "fc", "myrtle"]

Get = Literal["ntk", "nngp"]
Parameterization = Literal["ntk", "standard"]
Readout = Literal["flatten", "gap"]
Backend = Literal["auto", "neural_tangents", "tiled"]

_NUDGE = 4  # in units of the floating-point epsilon: just above the rounding of one product


def fc(
    depth: int,
    *,
    w_std: float = 2**0.5,
    b_std: float | None = 0.1,
    get: Get = "ntk",
    parameterization: Parameterization = "ntk",
    width: int = 1024,
    readout_parameterization: Parameterization = "ntk",
    backend: Backend = "auto",
) -> KernelFn:
    """Kernel of a fully connected network: ``depth`` x (dense, ReLU), then the readout.

    Args:
      depth: number of hidden layers, at least 1.
      w_std: standard deviation of the weights before the fan-in scaling, above 0; may be traced.
      b_std: standard deviation of the biases, at least 0, ``None`` for no biases; may be traced.
      get: ``"ntk"`` or ``"nngp"``.
      parameterization: of the hidden layers, ``"ntk"`` or ``"standard"``.
      width: hidden width; enters the NTK in the standard parameterization only.
      readout_parameterization: of the last layer.
      backend: ``"auto"`` or ``"neural_tangents"``, which here are the same.

    Returns:
      A kernel function of examples of any one shape, which are flattened. Cost: ``n1 n2 (d + depth)``.

    Raises:
      InputError: an option or, later, the shape of an input is not as described.
      ImportError: neural_tangents is not installed.

    >>> import jax.numpy as jnp
    >>> fc(1)(jnp.eye(3), jnp.ones((2, 3))).shape
    (3, 2)
    """
    where = "kernels.infinite.fc"
    whole(where, "depth", depth)
    one_of(where, "backend", backend, ("auto", "neural_tangents"))
    options = _Options(where, w_std, b_std, get, parameterization, width, readout_parameterization)
    return _network(("dense",) * depth, options, "neural_tangents")


def conv(
    depth: int,
    *,
    w_std: float = 2**0.5,
    b_std: float | None = 0.1,
    get: Get = "ntk",
    parameterization: Parameterization = "ntk",
    width: int = 128,
    readout_parameterization: Parameterization = "ntk",
    pool: bool | Sequence[int] = False,
    readout: Readout = "flatten",
    backend: Backend = "auto",
    budget: int | None = None,
    mesh: Any = None,
) -> KernelFn:
    """Kernel of a convolutional network: ``depth`` x (3x3 SAME convolution, ReLU), then the readout.

    Args:
      depth: number of convolutions, at least 1.
      w_std, b_std, get, parameterization, readout_parameterization: as in ``fc``.
      width: hidden channels; enters the NTK in the standard parameterization only.
      pool: 2x2 average pooling with stride 2 after every ReLU, or after those of the layers named, counted from 1; odd
        sizes lose their last row and column.
      readout: ``"flatten"`` the pixels, or average over them (``"gap"``), before the last layer.
      backend: ``"auto"``, ``"neural_tangents"`` or ``"tiled"``.
      budget, mesh: bytes for the tiled engine's working arrays, and its devices, as in ``kernels.conv.conv``.

    Returns:
      A kernel function of images ``[n, h, w, c]``. Cost: ``n1 n2 h w`` per layer; with pooling or ``"gap"`` every pair
      of pixels counts, ``n1 n2 (h w)**2``.
    """
    where = "kernels.infinite.conv"
    options = _Options(where, w_std, b_std, get, parameterization, width, readout_parameterization)
    return _network(_architecture.conv(where, depth, pool, readout), options, backend, budget, mesh)


def convnet(
    depth: int = 3,
    *,
    w_std: float = 2**0.5,
    b_std: float | None = 0.1,
    get: Get = "ntk",
    parameterization: Parameterization = "ntk",
    width: int = 128,
    readout_parameterization: Parameterization = "ntk",
    backend: Backend = "auto",
    budget: int | None = None,
    mesh: Any = None,
) -> KernelFn:
    """Kernel of the ConvNet that KIP's follow-up distils with (arXiv:2107.13034).

    One (conv, ReLU), ``depth`` x (conv, ReLU, 2x2 average pooling), flatten, readout; the finite counterpart is called
    "KIP_ConvNet" in the code of FRePo and RCIG. Arguments and cost as in ``conv`` with ``pool=True``.
    """
    where = "kernels.infinite.convnet"
    options = _Options(where, w_std, b_std, get, parameterization, width, readout_parameterization)
    return _network(_architecture.convnet(where, depth), options, backend, budget, mesh)


def myrtle(
    depth: int,
    *,
    w_std: float = 2**0.5,
    b_std: float | None = 0.1,
    get: Get = "ntk",
    parameterization: Parameterization = "ntk",
    width: int = 128,
    readout_parameterization: Parameterization = "ntk",
    backend: Backend = "auto",
    budget: int | None = None,
    mesh: Any = None,
) -> KernelFn:
    """Kernel of Myrtle-5, -7 or -10 (arXiv:2003.02237), in the form that KIP uses.

    One (conv, ReLU), then three groups of (conv, ReLU), the first two each followed by 2x2 average pooling, then the
    average over all pixels and the readout. Groups hold 1, 1, 1 (Myrtle-5), 1, 2, 2 (7) or 2, 3, 3 (10) convolutions.

    Args:
      depth: 5, 7 or 10, counting the convolutions and the readout.
      w_std, b_std, get, parameterization, width, readout_parameterization, backend, budget, mesh: as in ``conv``.

    Returns:
      A kernel function of images ``[n, h, w, c]``. Cost: ``n1 n2 (h w)**2`` in each layer before the first pooling.
    """
    where = "kernels.infinite.myrtle"
    options = _Options(where, w_std, b_std, get, parameterization, width, readout_parameterization)
    return _network(_architecture.myrtle(where, depth), options, backend, budget, mesh)


def _network(
    architecture: tuple[str, ...], options: _Options, backend: str, budget: int | None = None, mesh: Any = None
) -> KernelFn:
    """The kernel of a network given as one word per layer; a ReLU follows each dense and conv, a readout ends it."""
    one_of(options.where, "backend", backend, ("auto", "neural_tangents", "tiled"))
    if backend != "neural_tangents":
        return tiled.from_words(architecture, options, budget, mesh)
    alone = budget is None and mesh is None
    require(alone, options.where, "budget and mesh are the tiled engine's; leave them out, or choose backend='tiled'")
    _architecture.check_options(options)
    evaluate = _by_neural_tangents(architecture, options)
    pair, square = jax.jit(evaluate), jax.jit(lambda x: evaluate(x, None))

    def kernel_fn(x1: jax.Array, x2: jax.Array) -> jax.Array:
        _architecture.check_inputs(options.where, x1, x2, architecture)
        return square(x1) if x1 is x2 else pair(x1, x2)

    kernel_fn.backend = "neural_tangents"  # pyright: ignore[reportFunctionMemberAccess]
    return kernel_fn


def _by_neural_tangents(architecture: tuple[str, ...], options: _Options) -> Any:
    """``evaluate(x1, x2)`` with ``x2 = None`` for a square matrix."""
    stax = _neural_tangents.stax()
    image = "conv" in architecture
    pixel_pairs = _architecture.needs_pixel_pairs(architecture)
    inputs = functools.partial(stax.Identity()[2], diagonal_batch=True, diagonal_spatial=image and not pixel_pairs)
    layers = _layers(stax, architecture, options, pixel_pairs)

    def evaluate(x1: Any, x2: Any) -> jax.Array:
        x1, x2 = (x if image or x is None else jnp.reshape(x, (len(x), -1)) for x in (x1, x2))
        with jax.default_matmul_precision("highest"):
            k = inputs(x1, x2)
            k = k if options.get == "ntk" else k.replace(ntk=None)
            for layer in layers:
                k = layer(_exact_diagonal(k) if x2 is None and k.is_gaussian else k)
        dtype = jnp.result_type(*(x for x in (x1, x2) if x is not None))
        return getattr(k, options.get).astype(jnp.promote_types(dtype, jnp.float32))

    return evaluate


def _layers(stax: Any, architecture: tuple[str, ...], options: _Options, pixel_pairs: bool) -> list[Any]:
    """The kernel propagation of each layer by neural_tangents."""
    affine = {"W_std": options.w_std, "b_std": options.b_std}
    hidden = {**affine, "parameterization": options.parameterization}
    convolution = stax.Conv(options.width, (3, 3), padding="SAME", **hidden)[2]

    def conv_pairs(k: Any) -> Any:
        return _conv_pairs(k, options) if k.nngp.dtype == jnp.float64 else convolution(k)

    words = {
        "dense": [stax.Dense(options.width, **hidden)[2], _relu],
        "conv": [conv_pairs if pixel_pairs else convolution, _relu],
        "pool": [stax.AvgPool((2, 2), strides=(2, 2), padding="VALID")[2]],
        "flatten": [stax.Flatten()[2]],
        "gap": [stax.GlobalAvgPool()[2]],
    }
    readout = stax.Dense(1, **affine, parameterization=options.readout_parameterization)[2]
    return [layer for word in architecture for layer in words[word]] + [readout]


def _relu(k: Any) -> Any:
    """``stax.Relu`` with the map of ``kernels.relu``, which has the same numbers and takes a tenth of the time."""
    prods = _neural_tangents.diagonal_products(k)
    names = ("cov1", "nngp", "cov2")
    out, slopes = {}, {}
    for name, prod in zip(names, prods):
        c = getattr(k, name)
        if c is None:
            out[name] = None
        elif name != "nngp" and k.diagonal_spatial:
            out[name] = c / 2  # these are the variances themselves
        else:
            out[name], slopes[name] = relu.moments(c, prod)
    ntk = None if k.ntk is None else k.ntk * slopes["nngp"]
    return k.replace(**out, ntk=ntk, is_gaussian=False)


def _conv_pairs(k: Any, options: _Options) -> Any:
    """``stax.Conv`` with a 3x3 SAME window where every pair of pixels counts, for float64.

    neural_tangents calls ``lax.conv`` there, which in float64 on CPUs kills the process under jaxlib 0.10.2: the code
    that XLA compiles reads in front of the array. In float32 that call is sound.
    """
    weight, bias = options.w_std**2, 0.0 if options.b_std is None else options.b_std**2
    mean = {name: _mean_of_shifts(getattr(k, name)) for name in ("cov1", "cov2", "nngp", "ntk")}
    out = {name: None if m is None else weight * m + bias for name, m in mean.items() if name != "ntk"}
    if k.ntk is None:
        ntk = None
    elif options.parameterization == "ntk":
        ntk = weight * mean["ntk"] + out["nngp"]
    else:
        ntk = weight * mean["ntk"] + 9 * k.shape1[-1] * mean["nngp"] + (options.b_std is not None)
    shapes = {name: (*getattr(k, name)[:-1], options.width) for name in ("shape1", "shape2")}
    return k.replace(**out, **shapes, ntk=ntk, is_gaussian=True, is_input=False)


def _mean_of_shifts(a: Any) -> Any:
    """``[..., h, h, w, w]``: the mean over the nine shifts of both pixels alike, by at most one; zero outside."""
    if a is None or a.ndim == 0:
        return a
    for axis in (a.ndim - 4, a.ndim - 2):
        size = a.shape[axis]
        padded = jnp.pad(a, [(1, 1) if i in (axis, axis + 1) else (0, 0) for i in range(a.ndim)])
        a = sum(_window(_window(padded, d, size, axis), d, size, axis + 1) for d in range(3)) / 3
    return a


def _window(a: jax.Array, start: int, size: int, axis: int) -> jax.Array:
    return jax.lax.slice_in_dim(a, start, start + size, axis=axis)


def _exact_diagonal(k: Any) -> Any:
    """Sets each example's covariance with itself a few roundings above its variance, before a ReLU.

    The angle between an example and itself is then zero, not the square root of a rounding error.
    """
    n, eps = len(k.cov1), jnp.finfo(k.nngp.dtype).eps
    diagonal = jnp.eye(n, dtype=bool).reshape((n, n) + (1,) * (k.nngp.ndim - 2))
    return k.replace(nngp=jnp.where(diagonal, k.cov1[:, None] * (1 + _NUDGE * eps), k.nngp))
