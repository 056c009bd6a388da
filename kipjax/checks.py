"""The few input guards that all public functions share.

Each guard names the function and the argument, what it got, what it expected and, where it can, the remedy. Guards on
values are skipped for traced arrays (inside jit there is no value to look at); guards on shapes and types always run.
"""

from collections.abc import Collection
from typing import Any

import jax
import jax.core
import numpy as np

__all__ = [
    "InputError",
    "NumericalError",
    "at_least",
    "divides",
    "finite",
    "is_traced",
    "labels_within",
    "one_of",
    "require",
    "same_classes",
    "same_example_shape",
    "same_length",
    "size_text",
    "whole",
    "within",
]


class InputError(ValueError):
    """A value that the caller can mend; the text says argument, got, expected and remedy."""


class NumericalError(ArithmeticError):
    """A computation that left the finite numbers; the text says where and what to try."""


def is_traced(*values: Any) -> bool:
    """Whether any leaf of ``values`` is a traced array, which has a shape but no value yet."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def require(condition: bool, where: str, message: str) -> None:
    """Raises ``InputError`` with the text ``where: message`` unless ``condition`` holds."""
    if not condition:
        raise InputError(f"{where}: {message}")


def one_of(where: str, name: str, value: Any, options: Collection[Any]) -> None:
    """``value`` must be one of ``options``."""
    if value not in options:
        raise InputError(f"{where}: {name} is {value!r}; choose one of {', '.join(map(str, options))}")


def at_least(where: str, name: str, value: Any, low: float, *, strict: bool = False) -> None:
    """A scalar ``value`` must be ``>= low`` (``> low`` if strict) and finite."""
    if is_traced(value):
        return
    require(
        isinstance(value, (int, float)) or hasattr(value, "dtype"), where, f"{name} is {value!r}; it must be a number"
    )
    ok = np.all(np.isfinite(value)) and (
        np.all(np.asarray(value) > low) if strict else np.all(np.asarray(value) >= low)
    )
    require(bool(ok), where, f"{name} is {value}; it must be {'above' if strict else 'at least'} {low}")


def within(where: str, name: str, value: Any, low: float, high: float) -> None:
    """A scalar ``value`` must lie in the closed interval ``[low, high]``."""
    if is_traced(value):
        return
    number = isinstance(value, (int, float)) or hasattr(value, "dtype")
    require(number, where, f"{name} is {value!r}; it must be a number")
    require(bool(low <= value <= high), where, f"{name} is {value}; it must lie between {low} and {high}")


def whole(where: str, name: str, value: Any, low: int = 1) -> None:
    """A count: an integer ``value >= low``, and no float or bool."""
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    require(bool(integer and value >= low), where, f"{name} is {value!r}; it must be a whole number, at least {low}")


def divides(where: str, name: str, value: int, parts_name: str, parts: int) -> None:
    """``value`` must be a positive multiple of ``parts``."""
    whole(where, parts_name, parts)
    whole(where, name, value, 0)
    if value <= 0 or value % parts:
        nearest = max(parts, parts * round(value / parts))
        raise InputError(
            f"{where}: {name} is {value}, which is not divisible by {parts_name} ({parts}); {nearest} would be"
        )


def finite(where: str, name: str, x: Any) -> None:
    """Every entry of a concrete array must be a finite number; one spread over processes is left to what made it."""
    if is_traced(x) or (isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated)):
        return
    x = np.asarray(x)
    if x.dtype.kind == "f" and not np.all(np.isfinite(x)):
        bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1)) if x.ndim else [0]
        raise InputError(
            f"{where}: {name} has NaN or infinite entries in {len(bad)} of {len(x) if x.ndim else 1} rows "
            f"(first: row {bad[0]}); remove or repair these examples"
        )


def labels_within(where: str, name: str, labels: Any, num_classes: int) -> None:
    """Integer class labels must lie in ``0 .. num_classes - 1``."""
    if is_traced(labels):
        return
    labels = np.asarray(labels)
    require(
        labels.dtype.kind in "iu" and labels.ndim == 1,
        where,
        f"{name} has dtype {labels.dtype} and shape {labels.shape}; expected one integer class per example",
    )
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise InputError(
            f"{where}: {name} spans {labels.min()}..{labels.max()}, but with num_classes = {num_classes} labels must "
            f"lie in 0..{num_classes - 1}"
        )


def same_classes(where: str, name1: str, y1: Any, name2: str, y2: Any) -> None:
    """Two target matrices must have one column per class each."""
    for name, y in ((name1, y1), (name2, y2)):
        require(np.ndim(y) == 2, where, f"{name} has shape {np.shape(y)}; expected [points, classes]")
    k1, k2 = np.shape(y1)[1], np.shape(y2)[1]
    require(k1 == k2, where, f"{name1} has {k1} columns and {name2} has {k2}; both need one per class")


def same_length(where: str, name1: str, a: Any, name2: str, b: Any) -> None:
    """Two arrays must have equally many rows."""
    n1, n2 = np.shape(a)[:1], np.shape(b)[:1]
    require(
        len(n1) == 1 and n1 == n2,
        where,
        f"{name1} has shape {np.shape(a)} and {name2} has shape {np.shape(b)}; both need the same number of rows",
    )


def same_example_shape(where: str, name1: str, x1: Any, name2: str, x2: Any) -> None:
    """Two arrays of examples must agree in the shape of one example."""
    s1, s2 = np.shape(x1)[1:], np.shape(x2)[1:]
    require(s1 == s2, where, f"{name1} has examples of shape {s1} and {name2} of shape {s2}; they must agree")


def size_text(count: float) -> str:
    """A number of bytes in words, with three digits and the unit that fits.

    >>> [size_text(count) for count in (812, 4_300, 2.5e9)]
    ['812 bytes', '4.3 kB', '2.5 GB']
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f} bytes"
