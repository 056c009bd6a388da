"""The one place that names devices and meshes: independent pieces of work spread over all devices of a mesh."""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kipjax import checks

__all__ = ["free_memory", "mesh", "on_accelerator", "replicated", "size", "spread"]

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
    """``x`` on every device of a mesh, wherever it was before; as it is without one, and inside jit."""
    if size(over) == 1 or over is None or checks.is_traced(x):
        return x
    return jax.device_put(x, NamedSharding(_flat(over), PartitionSpec()))


def on_accelerator() -> bool:
    """Whether computations run on a GPU or TPU unless told otherwise."""
    return jax.default_backend() != "cpu"


def free_memory() -> int | None:
    """Bytes that a program may still take on the first device, ``None`` where nothing tells.

    On a CPU that is the memory that Linux calls available, or what the control group of the process leaves, if less.
    """
    device = jax.devices()[0]
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
