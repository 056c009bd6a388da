"""The one place that names devices and meshes.

Work is spread in two ways: ``data_parallel`` gives every device a part of each batch of targets and leaves the rest to
XLA, which adds the collective operations; ``spread`` maps a function over independent pieces by hand. Several processes
(hosts) act as one program once each has called ``processes.start``: all run the same steps on the same global arrays,
and only the first writes files.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kipjax import checks
from kipjax.types import Batch, PyTree, Sampler

__all__ = [
    "Rows",
    "data_parallel",
    "divide",
    "divide_rows",
    "everywhere",
    "for_run",
    "free_memory",
    "mesh",
    "on_accelerator",
    "on_every_device",
    "on_this_process",
    "replicated",
    "rows_from_host",
    "size",
    "spread",
]

_AXIS = "work"


def mesh(count: int | None = None) -> Mesh:
    """A mesh of one axis over the first ``count`` devices, all of them unless given.

    Raises:
      InputError: ``count`` is not a whole number of the devices there are.
    """
    devices = jax.devices()
    if count is not None:
        checks.whole("sharding.mesh", "count", count)
        checks.require(
            count <= len(devices), "sharding.mesh", f"count is {count} and there are {len(devices)} devices; take fewer"
        )
    return Mesh(np.array(devices[:count]), (_AXIS,))


def for_run(count: int = 0) -> Mesh | None:
    """The mesh of a run: over the first ``count`` devices, or for 0 over all, but one of a CPU in a single process.

    A CPU has several devices only where ``XLA_FLAGS`` forces them, which makes nothing faster. ``None`` for one device.

    Raises:
      InputError: there are fewer devices, or several processes are to leave some of theirs idle.
    """
    checks.require(
        jax.process_count() == 1 or count in (0, len(jax.devices())),
        "config.devices",
        f"{count} of the {len(jax.devices())} devices of {jax.process_count()} processes, which share all of them; "
        "leave it at 0, or start fewer processes",
    )
    if not count:
        count = len(jax.devices()) if on_accelerator() or jax.process_count() > 1 else 1
    return mesh(count) if count > 1 else None


def size(over: Mesh | None) -> int:
    """Number of devices of a mesh; 1 without one.

    Raises:
      InputError: ``over`` is neither.
    """
    checks.require(
        over is None or isinstance(over, Mesh),
        "sharding",
        f"mesh is {over!r}; expected sharding.mesh(count), another jax.sharding.Mesh, or None",
    )
    return 1 if over is None else over.size


def replicated(x: jax.Array, over: Mesh | None) -> jax.Array:
    """``x [...]`` on every device of a mesh, wherever it was before; as it is without one, and inside jit."""
    if size(over) == 1 or over is None or checks.is_traced(x):
        return x
    return jax.device_put(x, NamedSharding(_flat(over), PartitionSpec()))


def on_every_device(tree: PyTree, over: Mesh | None) -> PyTree:
    """A copy of every array on every device of a mesh, those of other processes included, as global arrays.

    Typed PRNG keys too. As it is without a mesh, or with one of a single device.
    """
    where = everywhere(over)
    if where is None:
        return tree

    def place(leaf: Any) -> Any:
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, where, lambda index: host[index])

    return jax.tree.map(place, tree)


def everywhere(over: Mesh | None) -> NamedSharding | None:
    """The sharding of what every device of a mesh has a copy of; ``None`` without one."""
    return None if size(over) == 1 or over is None else NamedSharding(_flat(over), PartitionSpec())


def on_this_process(tree: PyTree) -> PyTree:
    """Arrays that every device has a copy of, as arrays of this process alone."""
    return jax.tree.map(lambda leaf: jax.numpy.asarray(np.asarray(leaf)), tree) if jax.process_count() > 1 else tree


def data_parallel(sample: Sampler, over: Mesh | None) -> Sampler:
    """The same batches, each divided over the devices of a mesh.

    What a jitted step computes from a divided batch is divided too, until it is summed over targets; XLA puts the sums
    over devices in. The values are those of one device up to the order of these sums. Where the devices do not divide
    the rows, XLA fills the last devices up with rows that count for nothing: a step takes as long as ``ceil(b / p)``
    rows on each of ``p`` devices (60,000 rows on 64: 938 each, a filling of 0.05 %; on 1,024: 59 each, 0.7 %).

    Args:
      sample: ``sample(key) -> Batch``; rows are divided, and those of each class in class-wise batches ``[k, b, ...]``.
      over: a mesh, or ``None``.

    Returns:
      A sampler, for use under jit; a pytree if ``sample`` is one.
    """
    return sample if size(over) == 1 or over is None else _Divided(sample, _flat(over))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Divided:
    sample: Any
    over: Mesh = dataclasses.field(metadata={"static": True})

    def __call__(self, key: jax.Array) -> Batch:
        return divide(self.sample(key), self.over)

    @property
    def at(self) -> Callable[[Any], Batch] | None:
        """As of the sampler, where that takes its batches in order."""
        at = getattr(self.sample, "at", None)
        return at and (lambda step: divide(at(step), self.over))


def divide(batch: Batch, over: Mesh | None) -> Batch:
    """A batch inside jit, divided over the devices of a mesh; see ``data_parallel``."""
    if size(over) == 1 or over is None:
        return batch
    divided = NamedSharding(_flat(over), PartitionSpec(*[None] * (batch.y.ndim - 2), _AXIS))
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, divided), batch)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one array, divided over the devices of a mesh, for data sets that no single device could hold.

    Attributes:
      parts: ``[n, ...]`` the array, with rows of zeros at the end where the devices do not divide it.
      count: rows without those.
      over: the mesh.
    """

    parts: jax.Array
    count: int = dataclasses.field(metadata={"static": True})
    over: Mesh = dataclasses.field(metadata={"static": True})

    def __len__(self) -> int:
        return self.count

    def take(self, rows: jax.Array) -> jax.Array:
        """``x[rows]`` under jit for ``rows [..., b]``, divided over the devices along ``b``.

        Each device picks the rows that it holds, with zeros for all others, and gets the sum of its part over devices:
        ``(p - 1) / p`` of the batch is sent by each of ``p`` devices, and each works on a copy of the whole batch.
        """
        each, axis = self.parts.shape[0] // self.over.size, rows.ndim - 1
        filled = _filled(rows, self.over.size, jax.numpy)

        def local(parts: jax.Array, rows: jax.Array) -> jax.Array:
            at = rows - each * jax.lax.axis_index(_AXIS)
            here = ((at >= 0) & (at < each)).reshape(*at.shape, *[1] * (parts.ndim - 1))
            found = parts.at[jax.numpy.clip(at, 0, each - 1)].get(mode="promise_in_bounds")
            mine = jax.numpy.where(here, found, 0)
            return jax.lax.psum_scatter(mine, _AXIS, scatter_dimension=axis, tiled=True)

        specs = PartitionSpec(_AXIS), PartitionSpec()
        divided = PartitionSpec(*[None] * axis, _AXIS)
        found = jax.shard_map(local, mesh=self.over, in_specs=specs, out_specs=divided)(self.parts, filled)
        return jax.lax.slice_in_dim(found, 0, rows.shape[-1], axis=axis)

    def whole(self) -> jax.Array:
        """All rows in order, divided as they lie."""
        return self.parts[: self.count]


def divide_rows(x: Any, over: Mesh) -> Rows:
    """An array of the host, or a ``numpy.memmap``, of which each device gets its part and no other."""
    flat, count = _flat(over), len(x)
    each = -(-count // flat.size)

    def part(index: Any) -> np.ndarray:
        found = np.asarray(x[index[0]])
        return np.pad(found, [(0, each - len(found))] + [(0, 0)] * (found.ndim - 1))

    shape = (each * flat.size, *x.shape[1:])
    return Rows(jax.make_array_from_callback(shape, NamedSharding(flat, PartitionSpec(_AXIS)), part), count, flat)


def rows_from_host(x: Any, rows: np.ndarray, over: Mesh | None) -> jax.Array:
    """``x[rows]`` of an array of the host, divided along the last axis of ``rows [..., b]``; whole without a mesh.

    Each process reads the rows of its own devices. Where the devices do not divide ``b``, row 0 of ``x`` fills the last
    devices up, and ``x[rows]`` is the first ``b`` of what comes.
    """
    if size(over) == 1 or over is None:
        return jax.numpy.asarray(np.asarray(x[rows]))
    filled = _filled(rows, over.size, np)
    divided = NamedSharding(_flat(over), PartitionSpec(*[None] * (rows.ndim - 1), _AXIS))
    shape = (*filled.shape, *x.shape[1:])

    def read(index: Any) -> np.ndarray:
        return np.asarray(x[filled[index[: rows.ndim]]])

    return jax.make_array_from_callback(shape, divided, read)


def _filled(rows: Any, devices: int, xp: Any) -> Any:
    """Row numbers ``[..., b]`` and zeros after them, up to a multiple of the devices."""
    return xp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % devices)])


def on_accelerator() -> bool:
    """Whether computations run on a GPU or TPU unless told otherwise."""
    return jax.default_backend() != "cpu"


def free_memory() -> int | None:
    """Bytes that a program may still take on the first device of this process, ``None`` where nothing tells.

    On a CPU that is the memory that Linux calls available, or what the control group of the process leaves, if less.
    """
    device = jax.local_devices()[0]  # JAX refuses to say it of the devices of other processes
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    available = re.search(r"MemAvailable:\s*(\d+) kB", _text("/proc/meminfo"))
    limit, used = (_text(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    # Files that were read count as used, although the kernel drops them when memory is wanted.
    cached = re.search(r"^inactive_file (\d+)", _text("/sys/fs/cgroup/memory.stat"), re.MULTILINE)
    rooms = [1024 * int(available[1])] if available else []
    if limit.isdigit() and used.isdigit():
        rooms.append(int(limit) - int(used) + (int(cached[1]) if cached else 0))
    return min(rooms, default=None)


def _text(path: str) -> str:
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""


def _flat(over: Mesh) -> Mesh:
    """The same devices along one axis, whatever the axes and their types."""
    return Mesh(over.devices.reshape(-1), (_AXIS,))


def spread(fn: Callable, over: Mesh | None, *, total: bool = False) -> Callable:
    """``fn(pieces, *shared)`` with the pieces divided over the devices of a mesh.

    Args:
      fn: takes arrays with the pieces along axis 0, and further arguments that every device sees whole. Any pytree.
      over: a mesh of any axes, or ``None`` to call ``fn`` as it is.
      total: add the results of the devices up; otherwise they are joined along axis 0.

    Returns:
      A function of the same arguments. The number of pieces must be a multiple of the number of devices.
    """
    if size(over) == 1 or over is None:
        return fn
    flat = _flat(over)
    split, whole = PartitionSpec(_AXIS), PartitionSpec()

    def local(pieces: Any, *shared: Any) -> Any:
        out = fn(pieces, *shared)
        return jax.lax.psum(out, _AXIS) if total else out

    def run(pieces: Any, *shared: Any) -> Any:
        specs = (split, *(whole for _ in shared))
        mapped = jax.shard_map(local, mesh=flat, in_specs=specs, out_specs=whole if total else split, check_vma=False)
        return mapped(pieces, *shared)

    return run
