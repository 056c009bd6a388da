"""Batches of targets, drawn inside jit from a data set on the device, or on the host where it does not fit.

A sampler is ``sample(key) -> Batch``. It is also a pytree that holds the data set, so it can be passed to a jitted
function as an argument; closing over it works too, but makes the data set a constant of the program (2 s instead of
0.2 s to compile with 60,000 images of 28x28).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.data import draw
from kipjax.types import Batch, Sampler

__all__ = ["class_balanced", "host_iterator", "per_class", "uniform"]


def class_balanced(x: Any, y: Any, labels: Any, *, batch_size: int, num_classes: int) -> Sampler:
    """Batches with ``batch_size / num_classes`` examples of every class, without replacement within a class.

    Args:
      x: ``[n, ...]`` examples in preprocessed space.
      y: ``[n, k]`` targets.
      labels: ``[n]`` integer classes in ``0 .. num_classes - 1``.
      batch_size: ``b``, a multiple of ``num_classes``; or ``n``, which gives the whole set in its own order every time.
      num_classes: ``k``.

    Returns:
      ``sample(key) -> Batch(x [b, ...], y [b, k])``, rows grouped by class in ascending order.

    Raises:
      InputError: shapes or labels do not fit, ``batch_size`` is not divisible, or a class has too few examples.

    References:
      arXiv:2011.00050, section 4 (class-balanced target batches).

    Example:
      >>> labels = np.array([0, 1, 0, 1, 0, 1])
      >>> sample = class_balanced(np.zeros((6, 3)), np.eye(2)[labels], labels, batch_size=4, num_classes=2)
      >>> sample(jax.random.key(0)).x.shape
      (4, 3)
    """
    where = "samplers.class_balanced"
    _check_rows(where, x, y, labels, num_classes)
    if batch_size == len(x):
        return Whole(jnp.asarray(x), jnp.asarray(y))
    checks.divides(where, "batch_size", batch_size, "num_classes", num_classes)
    return _per_class(where, x, y, labels, num_classes, batch_size // num_classes, flat=True)


def per_class(x: Any, y: Any, labels: Any, *, batch_size: int, num_classes: int, fill: bool = False) -> Sampler:
    """Batches with one block per class, for methods that match class by class; no repeats within a class.

    Args:
      x: ``[n, ...]`` examples in preprocessed space.
      y: ``[n, k]`` targets.
      labels: ``[n]`` integer classes in ``0 .. num_classes - 1``.
      batch_size: ``b``, examples of each class.
      num_classes: ``k``.
      fill: a class with fewer gives all it has, and rows that repeat some of them with targets of zeros, which the
        methods do not count. ``b`` is then at most the size of the largest class.

    Returns:
      ``sample(key) -> Batch(x [k, b, ...], y [k, b, k])``; block ``c`` holds class ``c``.

    Raises:
      InputError: shapes or labels do not fit, or a class has fewer than ``batch_size`` examples (with ``fill``, none).
    """
    where = "samplers.per_class"
    _check_rows(where, x, y, labels, num_classes)
    checks.whole(where, "batch_size", batch_size)
    if fill:
        batch_size = min(batch_size, int(np.bincount(labels, minlength=num_classes).max(initial=1)))
    return _per_class(where, x, y, labels, num_classes, batch_size, flat=False, least=1 if fill else batch_size)


def uniform(x: Any, y: Any, *, batch_size: int) -> Sampler:
    """Batches drawn from all rows alike, without replacement within a batch.

    Args:
      x: ``[n, ...]`` examples in preprocessed space.
      y: ``[n, k]`` targets.
      batch_size: ``b`` in ``1 .. n``; ``n`` gives the whole set in its own order every time.

    Returns:
      ``sample(key) -> Batch(x [b, ...], y [b, k])``.

    Raises:
      InputError: shapes do not fit, or ``batch_size`` is outside its range.
    """
    checks.same_length("samplers.uniform", "x", x, "y", y)
    checks.whole("samplers.uniform", "batch_size", batch_size)
    checks.within("samplers.uniform", "batch_size", batch_size, 1, len(x))
    x, y = jnp.asarray(x), jnp.asarray(y)
    return Whole(x, y) if batch_size == len(x) else _Uniform(_flat(x), y, x.shape[1:], batch_size)


def host_iterator(
    key: jax.Array,
    x: Any,
    y: Any,
    labels: Any,
    *,
    batch_size: int,
    num_classes: int,
    balanced: bool = True,
    start: int = 0,
    transform: Callable[[np.ndarray], Any] | None = None,
) -> Iterator[Batch]:
    """Endless batches of a data set that stays in host memory (or on disk, as a ``numpy.memmap``).

    The batch of step ``s`` depends on ``key`` and ``s`` alone, so a run resumed with ``start=s`` sees the same batches.

    Args:
      key: PRNG key; its words seed one NumPy generator per step.
      x: ``[n, ...]`` examples, in any space.
      y: ``[n, k]`` targets.
      labels: ``[n]`` integer classes in ``0 .. num_classes - 1``.
      batch_size: ``b``; a multiple of ``num_classes`` if balanced, at most ``n`` if not.
      num_classes: ``k``.
      balanced: equally many examples of every class, as ``class_balanced``; else as ``uniform``.
      start: the first step.
      transform: applied to each ``x [b, ...]``, for example ``lambda x: preprocess.apply(pre, x)``.

    Yields:
      ``Batch(x [b, ...], y [b, k])``.

    Raises:
      InputError: as ``class_balanced`` and ``uniform``, at the call and not at the first batch.
    """
    where = "samplers.host_iterator"
    _check_rows(where, x, y, labels, num_classes)
    checks.whole(where, "start", start, 0)
    if balanced:
        checks.divides(where, "batch_size", batch_size, "num_classes", num_classes)
        members, per = _members(where, labels, num_classes, batch_size // num_classes), batch_size // num_classes
    else:
        checks.whole(where, "batch_size", batch_size)
        checks.within(where, "batch_size", batch_size, 1, len(x))
        members, per = [np.arange(len(x))], batch_size
    words = np.asarray(jax.random.key_data(key)).ravel().tolist()
    return _host_batches(words, x, np.asarray(y), members, per, start, transform)


def _host_batches(words, x, y, members, per, step, transform) -> Iterator[Batch]:
    while True:
        rng = np.random.default_rng([*words, step])
        rows = np.concatenate([rng.choice(rows_of_class, per, replace=False) for rows_of_class in members])
        yield Batch(x[rows] if transform is None else transform(x[rows]), y[rows])
        step += 1


_static = functools.partial(dataclasses.field, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Whole:
    """The full batch: ``x [n, ...]``, ``y [n, k]``."""

    x: jax.Array
    y: jax.Array

    def __call__(self, key: jax.Array) -> Batch:
        return Batch(self.x, self.y)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Uniform:
    """``x [n, d]`` flattened (gathering rows of a matrix is twice as fast on CPU), ``y [n, k]``."""

    x: jax.Array
    y: jax.Array
    example_shape: tuple[int, ...] = _static()
    batch_size: int = _static()

    def __call__(self, key: jax.Array) -> Batch:
        rows = draw.without_replacement(key, self.batch_size, len(self.x))
        return Batch(_rows(self.x, rows).reshape(-1, *self.example_shape), _rows(self.y, rows))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _PerClass:
    """``x [n, d]``, ``y [n, k]``; ``order [n]`` by class, with ``starts [k]`` and ``counts [k]``.

    ``filled``: some counts are below ``per``.
    """

    x: jax.Array
    y: jax.Array
    order: jax.Array
    starts: jax.Array
    counts: jax.Array
    example_shape: tuple[int, ...] = _static()
    per: int = _static()
    flat: bool = _static()
    filled: bool = _static()

    def __call__(self, key: jax.Array) -> Batch:
        pools = jnp.maximum(self.counts, self.per) if self.filled else self.counts
        drawn = draw.without_replacement(key, self.per, pools)
        within = drawn % self.counts[:, None] if self.filled else drawn
        rows = _rows(self.order, (self.starts[:, None] + within).ravel())
        lead = (-1,) if self.flat else within.shape
        x, y = _rows(self.x, rows), _rows(self.y, rows)
        if self.filled:
            y = y * (drawn < self.counts[:, None]).reshape(-1, 1)
        return Batch(x.reshape(*lead, *self.example_shape), y.reshape(*lead, y.shape[-1]))


def _rows(x: jax.Array, rows: jax.Array) -> jax.Array:
    """``x[rows]`` as a bare gather.

    Our indices are in bounds, so their check, which costs as much as the gather, is left out. The barriers keep XLA
    from computing the indices again for every pixel, and from fusing the gather with a reshape, either of which can
    double its time on CPU (6000 images of 28x28, JAX 0.10.2 and 0.12.0.1).
    """
    rows = jax.lax.optimization_barrier(rows)
    return jax.lax.optimization_barrier(x.at[rows].get(mode="promise_in_bounds"))


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


def _per_class(
    where: str, x: Any, y: Any, labels: Any, num_classes: int, per: int, *, flat: bool, least: int = 0
) -> Sampler:
    """A sampler of ``per`` rows of each class, which must have at least ``least`` (``per`` if 0), and its tables."""
    members = _members(where, labels, num_classes, least or per)
    counts = np.array([len(rows) for rows in members], np.int32)
    order = np.concatenate(members).astype(np.int32)
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    x = jnp.asarray(x)
    tables = (jnp.asarray(table) for table in (order, starts, counts))
    return _PerClass(
        _flat(x),
        jnp.asarray(y),
        *tables,
        example_shape=x.shape[1:],
        per=per,
        flat=flat,
        filled=bool(counts.min() < per),
    )


def _members(where: str, labels: Any, num_classes: int, per: int) -> list[np.ndarray]:
    """The rows of each class, ``k`` arrays; every class must have at least ``per``."""
    labels = np.asarray(labels)
    members = [np.flatnonzero(labels == c) for c in range(num_classes)]
    smallest = min(range(num_classes), key=lambda c: len(members[c]))
    have = len(members[smallest])
    fewer = f"ask for at most {have} of each (batch {have * num_classes}) or sample uniformly"
    checks.require(
        have >= per,
        where,
        f"class {smallest} has {have} examples and a batch needs {per} of each of {num_classes} classes; "
        + (fewer if have else "add images of that class, or leave it out of the labels"),
    )
    return members


def _check_rows(where: str, x: Any, y: Any, labels: Any, num_classes: int) -> None:
    checks.same_length(where, "x", x, "y", y)
    checks.same_length(where, "x", x, "labels", labels)
    checks.whole(where, "num_classes", num_classes)
    checks.labels_within(where, "labels", labels, num_classes)
