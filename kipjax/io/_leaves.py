"""A state, leaf by leaf: what each one is, its bytes for the disk, and the way back."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.types import PyTree

_NUMBERS = {bool: np.bool_, int: np.int64, float: np.float64, complex: np.complex128}

__all__ = ["Leaf", "byte_count", "decode", "describe", "encode", "require_same"]


class Leaf(NamedTuple):
    """How one leaf is recorded.

    Attributes:
      name: its path in the state, such as ``opt_state.0.mu``.
      kind: ``array``, ``key`` (typed PRNG keys), ``number`` (Python's own) or ``none``.
      shape, dtype: of the leaf; for keys those of the key array.
      impl: the name of a key's generator; None in the description of a template.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    impl: str | None = None

    def __str__(self) -> str:
        if self.kind in ("array", "key"):
            return f"shape {self.shape} and dtype {self.dtype}"
        return "None" if self.kind == "none" else f"a Python {self.dtype}"


def _flatten(state: PyTree) -> list[tuple[str, Any]]:
    """Leaves with their names; None counts as one."""
    pairs = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda leaf: leaf is None)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator=".") or "state", leaf) for path, leaf in pairs]


def describe(state: PyTree) -> list[Leaf]:
    """The leaves of a state or of a template of shapes and dtypes."""
    return [_describe_leaf(name, leaf) for name, leaf in _flatten(state)]


def _describe_leaf(name: str, leaf: Any) -> Leaf:
    if leaf is None:
        return Leaf(name, "none")
    if type(leaf) in _NUMBERS:
        return Leaf(name, "number", (), type(leaf).__name__)
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return Leaf(name, "key", tuple(leaf.shape), str(dtype))
    if dtype is not None and (jnp.issubdtype(dtype, np.bool_) or jnp.issubdtype(dtype, np.number)) and dtype.isnative:
        return Leaf(name, "array", tuple(leaf.shape), str(dtype))
    what = type(leaf).__name__ + ("" if dtype is None else f" of dtype {dtype}")
    raise checks.InputError(
        f"checkpoint: leaf {name} of the state is a {what}; a state holds arrays of numbers, PRNG keys, Python numbers "
        "and None"
    )


def encode(state: PyTree) -> tuple[np.ndarray, list[Leaf]]:
    """A copy of all bytes of a state ``[n]`` uint8, leaf after leaf, and the record of every leaf."""
    checks.require(
        not checks.is_traced(state), "checkpoint.save", "the state is traced and has no values yet; save outside of jit"
    )
    parts, leaves = [np.zeros(0, np.uint8)], describe(state)
    for i, (_, value) in enumerate(_flatten(state)):
        if leaves[i].kind != "none":
            parts.append(np.ascontiguousarray(_to_array(leaves[i], value)).reshape(-1).view(np.uint8))
        if leaves[i].kind == "key":
            leaves[i] = leaves[i]._replace(impl=str(jax.random.key_impl(value)))
    return np.concatenate(parts), leaves


def _to_array(leaf: Leaf, value: Any) -> np.ndarray:
    """One leaf's numbers."""
    if leaf.kind == "key":
        return np.asarray(jax.random.key_data(value))
    try:
        return np.asarray(value, _NUMBERS.get(type(value)))
    except OverflowError:
        raise checks.InputError(f"checkpoint.save: leaf {leaf.name} is {value}; integers must fit 64 bits") from None


def require_same(where: str, saved: list[Leaf], needed: list[Leaf]) -> None:
    """The checkpoint must have the leaves that the run needs, in the same order, shapes and dtypes."""
    remedy = "resume with the configuration that wrote it, or start in a new folder"
    saved_names, needed_names = [leaf.name for leaf in saved], [leaf.name for leaf in needed]
    for name in needed_names:
        checks.require(name in saved_names, where, f"it has no leaf {name}, which this run's state has; {remedy}")
    for name in saved_names:
        checks.require(name in needed_names, where, f"it has a leaf {name}, unlike this run's state; {remedy}")
    checks.require(saved_names == needed_names, where, f"its leaves {saved_names} come in another order; {remedy}")
    for got, leaf in zip(saved, needed):
        checks.require(str(got) == str(leaf), where, f"leaf {leaf.name} has {got}, and this run needs {leaf}; {remedy}")


def _stored(leaf: Leaf) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a leaf's numbers."""
    if leaf.kind == "key":
        data = jax.random.key_data(jax.random.key(0, impl=leaf.impl))
        return leaf.shape + data.shape, data.dtype
    if leaf.kind == "number":
        return (), np.dtype({kind.__name__: dtype for kind, dtype in _NUMBERS.items()}[leaf.dtype])
    return leaf.shape, jnp.dtype(leaf.dtype)


def byte_count(leaf: Leaf) -> int:
    """How many bytes of the whole belong to a leaf."""
    if leaf.kind == "none":
        return 0
    shape, dtype = _stored(leaf)
    return math.prod(shape) * dtype.itemsize


def decode(content: np.ndarray, leaves: list[Leaf], template: PyTree) -> PyTree:
    """The inverse of ``encode``: every leaf of the kind that the template has in its place."""
    treedef = jax.tree.structure(template, is_leaf=lambda leaf: leaf is None)
    ends = np.cumsum([byte_count(leaf) for leaf in leaves])
    values = []
    for (_, like), leaf, end in zip(_flatten(template), leaves, ends):
        part = content[end - byte_count(leaf) : end]
        values.append(None if leaf.kind == "none" else _decode_leaf(part, leaf, like))
    return jax.tree.unflatten(treedef, values)


def _decode_leaf(part: np.ndarray, leaf: Leaf, like: Any) -> Any:
    """One leaf from its bytes."""
    shape, dtype = _stored(leaf)
    array = part.copy().view(dtype).reshape(shape)
    if leaf.kind == "number":
        return array.item()
    if isinstance(like, np.ndarray | np.generic):
        return array if isinstance(like, np.ndarray) else array[()]
    with jax.enable_x64(array.dtype in (np.int64, np.uint64, np.float64, np.complex128)):
        value = jnp.array(array)  # a copy: the state will be donated
        if leaf.kind == "key":
            value = jax.random.wrap_key_data(value, impl=leaf.impl)
        elif getattr(like, "weak_type", False):  # a strong type in its place would compile, and promote, differently
            value = jnp.full(array.shape, array.dtype.type(0).item()).at[...].set(value)
        placed = getattr(like, "committed", True) and getattr(like, "sharding", None)
        return jax.device_put(value, placed) if placed else value
