"""Running one computation in another precision than the process.

JAX keeps float64 switched off unless the whole process asks for it. Ridge systems of this field have condition numbers
around 1e6 and want float64 even where everything else is happy in float32, so the switch is thrown for the few
operations that need it, also inside jit.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kipjax import checks

__all__ = ["check", "floats", "mode", "run_in"]


@contextlib.contextmanager
def mode(dtype: Any) -> Iterator[None]:
    """Allows arrays of ``dtype`` inside the block: switches 64-bit types on if it needs them, else changes nothing."""
    if np.dtype(dtype).itemsize == 8:
        with jax.enable_x64(True):
            yield
    else:
        yield


def check(where: str, name: str, dtype: Any) -> None:
    """``dtype`` must be one that a factorisation can be computed in, or ``None``.

    Raises:
      InputError: it is not.
    """
    try:
        known = dtype is None or np.dtype(dtype).name in ("float32", "float64")
    except TypeError:
        known = False
    checks.require(known, where, f"{name} is {dtype!r}; choose 'float32', 'float64' or None")


def floats(*arrays: Any) -> tuple[jax.Array, ...]:
    """Arrays ``[...]``, lists or numbers as arrays of one floating-point type, the widest there and at least float32.

    Example:
      >>> [a.dtype.name for a in floats([1, 2], 3.0)]
      ['float32', 'float32']
    """
    dtype = jnp.result_type(*map(jnp.asarray, arrays), jnp.float32)
    return tuple(jnp.asarray(a, dtype) for a in arrays)


def run_in(dtype: Any, fn: Callable[..., Any], *args: Any) -> Any:
    """``fn(*args)`` computed in ``dtype`` and returned in the precision of the arguments.

    Args:
      dtype: float dtype of the computation, or ``None`` for that of the arguments.
      fn: a function of pytrees of arrays; floating-point leaves are cast, others pass unchanged.
      *args: its arguments, with at least one floating-point leaf.

    Returns:
      The result with floating-point leaves cast back to the arguments' (promoted) float dtype. Forward only: the
      result carries no gradient when ``dtype`` differs from the arguments'.

    Example:
      >>> import jax.numpy as jnp
      >>> run_in("float64", lambda a: a * 3, jnp.float32(1.0) / 3).dtype
      dtype('float32')
    """
    floats = [leaf for leaf in jax.tree.leaves(args) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    outer = jnp.result_type(*floats)
    if dtype is None or np.dtype(dtype) == outer:
        return fn(*args)

    def cast(tree, to):
        def leaf(x):
            x = jnp.asarray(x)
            return lax.convert_element_type(x, to) if jnp.issubdtype(x.dtype, jnp.floating) else x

        return jax.tree.map(leaf, tree)

    args = lax.stop_gradient(args)
    with mode(dtype):
        return cast(fn(*cast(args, np.dtype(dtype))), outer)
