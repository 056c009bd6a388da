"""Data sets that no device can hold: in host memory or on disk, read a batch at a time, or divided over devices.

Both take a sampler over row numbers, any of ``samplers`` with ``np.arange(n)`` for ``x``, so that the draws are those
of a data set on the device, bit for bit:

>>> import jax
>>> import numpy as np
>>> from kipjax.data import samplers
>>> x, labels = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])
>>> options = {"batch_size": 4, "num_classes": 2}
>>> numbers = samplers.class_balanced(np.arange(6), np.eye(2)[labels], labels, **options)
>>> whole = samplers.class_balanced(x, np.eye(2)[labels], labels, **options)
>>> bool((streamed(numbers, x)(jax.random.key(0)).x == whole(jax.random.key(0)).x).all())
True
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.core import sharding
from kipjax.data import samplers
from kipjax.types import Batch, Preprocess, Sampler

__all__ = ["Preprocessed", "Streamed", "divided", "in_order", "streamed"]


def streamed(numbers: Sampler, x: Any, transform: Callable[[jax.Array], jax.Array] | None = None) -> "Streamed":
    """Batches of examples that stay in host memory, or on disk as a ``numpy.memmap``.

    Take many steps by ``core.loop.streamed``, which reads the next batch while a step runs. Called inside jit, as by
    ``core.loop.steps``, every batch is a call back to the host.

    Args:
      numbers: a sampler over row numbers (see above).
      x: ``[n, ...]`` examples, in any space; what NumPy can index by an array of rows.
      transform: applied on the device to each ``x [b, ...]``, such as ``jax.tree_util.Partial(preprocess.apply, pre)``;
        a pytree if it holds arrays.

    Raises:
      InputError: ``x`` is no array of examples, or ``numbers`` is no sampler.
    """
    checks.require(callable(numbers), "streaming.streamed", f"numbers is {numbers!r}; expected a sampler")
    _check_examples("streaming.streamed", x)
    return Streamed(numbers, x, jax.tree_util.Partial(transform or _as_it_is))


class _ByNumber:
    """A sampler that asks another for row numbers and targets, and turns them into a batch by ``_rows``."""

    numbers: Any
    _rows: Callable[[Batch], Batch]

    def __call__(self, key: jax.Array) -> Batch:
        return self._rows(self.numbers(key))

    @property
    def at(self) -> Callable[[Any], Batch] | None:
        """As of ``numbers``, where those come in order."""
        at = getattr(self.numbers, "at", None)
        return at and (lambda step: self._rows(at(step)))


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed(_ByNumber):
    """A sampler over rows of the host array ``x``: ``numbers`` gives their numbers and targets."""

    numbers: Any
    x: Any
    transform: Any

    def _rows(self, batch: Batch) -> Batch:
        if not checks.is_traced(batch):
            return Batch(self.transform(jnp.asarray(np.asarray(self.x[np.asarray(batch.x)]))), batch.y)
        dtype = jax.dtypes.canonicalize_dtype(self.x.dtype)
        shape = jax.ShapeDtypeStruct((*batch.x.shape, *self.x.shape[1:]), dtype)
        read = jax.pure_callback(
            lambda rows: np.asarray(self.x[np.asarray(rows)], dtype), shape, batch.x, vmap_method="expand_dims"
        )
        return Batch(self.transform(read), batch.y)


def divided(numbers: Sampler, x: Any, over: Any) -> Sampler:
    """Batches of examples of which each device of a mesh holds a part of the rows.

    At each step the devices send each other the rows of the batch that these hold and those work on.

    Args:
      numbers: a sampler over row numbers (see above).
      x: ``[n, ...]`` examples on the host, or a ``numpy.memmap``; each process reads its devices' rows alone.
      over: the mesh; ``None`` keeps all on one device.

    Returns:
      A sampler, a pytree, for use inside jit.
    """
    _check_examples("streaming.divided", x)
    if sharding.size(over) == 1:
        return _Taken(numbers, jnp.asarray(x))
    return _Taken(sharding.on_every_device(numbers, over), sharding.divide_rows(x, over))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Taken(_ByNumber):
    """Rows of ``x``, an array or ``sharding.Rows``, by number."""

    numbers: Any
    x: Any

    def _rows(self, batch: Batch) -> Batch:
        if isinstance(self.numbers, samplers.Whole):
            return Batch(self.x.whole() if isinstance(self.x, sharding.Rows) else self.x, batch.y)
        return Batch(self.x.take(batch.x) if isinstance(self.x, sharding.Rows) else self.x[batch.x], batch.y)


def in_order(x: Any, y: Any, *, batch_size: int) -> Sampler:
    """The rows one batch after the other, each once in ``n / batch_size`` steps, and then again.

    For methods that add up over all targets, such as Label Solve with ``accumulate``. The batch follows from the number
    of the step, so it is ``sample.at(step)``; ``core.loop`` knows that.

    Args:
      x: ``[n, ...]`` examples, or ``np.arange(n)``.
      y: ``[n, k]`` targets.
      batch_size: ``b``, which divides ``n``.

    Raises:
      InputError: it does not.
    """
    checks.same_length("streaming.in_order", "x", x, "y", y)
    checks.whole("streaming.in_order", "batch_size", batch_size)
    n = len(y)
    smaller = next(size for size in range(min(batch_size, n), 0, -1) if n % size == 0)
    checks.require(
        n % batch_size == 0,
        "streaming.in_order",
        f"batch_size is {batch_size}, which does not divide the {n} rows; {smaller} would",
    )
    return _InOrder(jnp.asarray(x), jnp.asarray(y), batch_size)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _InOrder:
    x: jax.Array
    y: jax.Array
    batch_size: int = dataclasses.field(metadata={"static": True})

    def at(self, step: Any) -> Batch:
        start = step % (len(self.y) // self.batch_size) * self.batch_size
        return Batch(*(jax.lax.dynamic_slice_in_dim(a, start, self.batch_size) for a in (self.x, self.y)))

    def __call__(self, key: jax.Array) -> Batch:
        raise checks.InputError("streaming.in_order: batches follow from the number of the step; call .at(step)")


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocessed:
    """Pixels ``x [n, ...]`` of the host as they would be in the space of ``pre``: rows are preprocessed when asked for.

    ``float32`` images take four times the memory of pixels.
    """

    pre: Preprocess
    x: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    @property
    def ndim(self) -> int:
        return len(self.x.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> np.ndarray:
        from kipjax.data import preprocess

        if np.ndim(rows) == 0 and not isinstance(rows, slice):
            return self[np.asarray(rows)[None]][0]
        return np.asarray(preprocess.apply(self.pre, np.asarray(self.x[rows])))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _as_it_is(x: jax.Array) -> jax.Array:
    return x


def _check_examples(where: str, x: Any) -> None:
    ok = hasattr(x, "__getitem__") and hasattr(x, "dtype") and len(getattr(x, "shape", ())) > 1
    checks.require(ok, where, f"x is {type(x).__name__}; expected an array [n, ...], such as a numpy.memmap")
