"""The one place that names devices and meshes: independent pieces of work spread over all devices of a mesh."""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

__all__ = ["free_memory", "mesh", "on_accelerator", "size", "spread"]

_AXIS = "work"


def mesh(count: int | None = None) -> Mesh:
    """A mesh of one axis over the first ``count`` devices, all of them unless given."""
    devices = jax.devices()
    return Mesh(np.array(devices[: count or len(devices)]), (_AXIS,))


def size(over: Mesh | None) -> int:
    """Number of devices of a mesh; 1 without one."""
    return 1 if over is None else over.size


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
    rooms = [1024 * int(available[1])] if available else []
    rooms += [int(limit) - int(used)] if limit.isdigit() and used.isdigit() else []
    return min(rooms, default=None)


def _text(path: str) -> str:
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""


def spread(fn: Callable, over: Mesh | None, *, total: bool = False) -> Callable:
    """``fn(pieces, *shared)`` with the pieces divided over the devices of a mesh.

    Args:
      fn: takes arrays with the pieces along axis 0, and further arguments that every device sees whole. Any pytree.
      over: a mesh of any axes, or ``None`` to call ``fn`` as it is.
      total: add the results of the devices up; otherwise they are joined along axis 0.

    Returns:
      A function of the same arguments. The number of pieces must be a multiple of the number of devices.
    """
    if over is None or over.size == 1:
        return fn
    axes = tuple(over.axis_names)
    split, whole = PartitionSpec(axes), PartitionSpec()

    def local(pieces: Any, *shared: Any) -> Any:
        out = fn(pieces, *shared)
        return jax.lax.psum(out, axes) if total else out

    def run(pieces: Any, *shared: Any) -> Any:
        specs = (split, *(whole for _ in shared))
        mapped = jax.shard_map(local, mesh=over, in_specs=specs, out_specs=whole if total else split, check_vma=False)
        return mapped(pieces, *shared)

    return run
