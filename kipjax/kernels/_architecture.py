"""What the engines for infinite-width networks share: the words of an architecture, its options, and their checks."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kipjax.checks import at_least, is_traced, one_of, require, same_example_shape, whole

__all__ = ["Options", "check_inputs", "check_options", "conv", "convnet", "myrtle", "needs_pixel_pairs"]

_MYRTLE_GROUPS = {5: (1, 1, 1), 7: (1, 2, 2), 10: (2, 3, 3)}


class Options(NamedTuple):
    """What all factories share; ``where`` is the name of the factory in error messages."""

    where: str
    w_std: Any = 2**0.5
    b_std: Any = 0.1
    get: str = "ntk"
    parameterization: str = "ntk"
    width: int = 128
    readout_parameterization: str = "ntk"


def conv(where: str, depth: int, pool: Any, readout: str) -> tuple[str, ...]:
    """``depth`` convolutions, pooling after those that ``pool`` asks for, and the readout."""
    whole(where, "depth", depth)
    one_of(where, "readout", readout, ("flatten", "gap"))
    pooled = _pooled(where, depth, pool)
    words = [word for layer in range(1, depth + 1) for word in (("conv", "pool") if layer in pooled else ("conv",))]
    return (*words, readout)


def _pooled(where, depth, pool):
    """The layers that pooling follows."""
    if isinstance(pool, bool | np.bool_):
        return set(range(1, depth + 1)) if pool else set()
    integers = isinstance(pool, list | tuple | range) and all(
        isinstance(layer, int | np.integer) and not isinstance(layer, bool) for layer in pool
    )
    require(
        integers and all(1 <= layer <= depth for layer in pool),
        where,
        f"pool is {pool!r}; it must be a bool or a tuple of layers in 1..{depth}",
    )
    return set(pool)


def convnet(where: str, depth: int) -> tuple[str, ...]:
    """One convolution, then ``depth`` of them each with pooling."""
    whole(where, "depth", depth)
    return ("conv", *("conv", "pool") * depth, "flatten")


def myrtle(where: str, depth: int) -> tuple[str, ...]:
    """Myrtle-5, -7 or -10."""
    one_of(where, "depth", depth, tuple(_MYRTLE_GROUPS))
    first, second, third = _MYRTLE_GROUPS[depth]
    return (*("conv",) * (1 + first), "pool", *("conv",) * second, "pool", *("conv",) * third, "gap")


def needs_pixel_pairs(words: tuple[str, ...]) -> bool:
    """Whether covariances between different pixels reach the output; otherwise equal pixels alone do."""
    return "pool" in words or "gap" in words


def check_options(options: Options) -> None:
    """Every option must be one that the recursions know."""
    where = options.where
    _check_scale(where, "w_std", options.w_std, strict=True)
    if options.b_std is not None:
        _check_scale(where, "b_std", options.b_std, strict=False)
    one_of(where, "get", options.get, ("ntk", "nngp"))
    one_of(where, "parameterization", options.parameterization, ("ntk", "standard"))
    one_of(where, "readout_parameterization", options.readout_parameterization, ("ntk", "standard"))
    whole(where, "width", options.width)


def check_inputs(where: str, x1: Any, x2: Any, words: tuple[str, ...]) -> None:
    """Both inputs must be batches of examples of one shape, and images large enough for the pooling."""
    image = "conv" in words
    expected = "images [n, height, width, channels]; for vectors there is kernels.infinite.fc" if image else "[n, ...]"
    for name, x in (("x1", x1), ("x2", x2)):
        dtype = getattr(x, "dtype", np.dtype(object))
        real = jnp.issubdtype(dtype, jnp.number) and not jnp.issubdtype(dtype, jnp.complexfloating)
        require(
            bool(real or dtype == np.bool_),
            where,
            f"{name} is {f'of dtype {dtype}' if hasattr(x, 'dtype') else type(x)}; expected an array of real numbers",
        )
        right = np.ndim(x) == 4 if image else np.ndim(x) >= 2
        right = right and np.size(x) > 0
        require(right, where, f"{name} has shape {np.shape(x)}; expected {expected}, none of them empty")
    same_example_shape(where, "x1", x1, "x2", x2)
    pools = words.count("pool")
    if pools:
        height, width = np.shape(x1)[1:3]
        require(
            min(height, width) >= 2**pools,
            where,
            f"images are {height} x {width} pixels; {pools} poolings need at least {2**pools} x {2**pools}",
        )


def _check_scale(where: str, name: str, value: Any, *, strict: bool) -> None:
    number = np.ndim(value) == 0 and (is_traced(value) or np.asarray(value).dtype.kind in "iuf")
    require(bool(number), where, f"{name} is {value!r}; it must be a number")
    at_least(where, name, value, 0.0, strict=strict)
