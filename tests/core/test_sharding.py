"""One device and four: the same kernels and gradients. Devices are forced in a fresh interpreter."""

import os
import subprocess
import sys

import pytest

from kipjax.checks import InputError
from kipjax.core import sharding

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from kipjax.core import sharding
from kipjax.kernels import conv

assert len(jax.devices()) == 4
x1, x2 = (jax.random.normal(jax.random.key(n), (n, 4, 4, 1)) for n in (3, 7))
for options in ({"pool": True}, {}):
    one, four = (conv.conv(1, **options, budget=60_000, mesh=mesh) for mesh in (None, sharding.mesh(4)))
    for a, b in ((x1, x2), (x2, x2)):
        np.testing.assert_array_equal(one(a, b), four(a, b))
    gradients = [jax.jit(jax.grad(lambda a, k=k: (k(a, x2) ** 2).sum() + k(a, a).sum()))(x1) for k in (one, four)]
    np.testing.assert_allclose(*gradients, rtol=1e-5)

over = jax.make_mesh((2, 2), ("a", "b"))
at_one = [jax.device_put(x, jax.devices()[1]) for x in (x1, x2)]
one, four = (conv.conv(1, budget=60_000, mesh=mesh) for mesh in (None, over))
np.testing.assert_array_equal(one(x1, x2), four(*at_one))


def slope(mesh):
    return jax.grad(lambda s: conv.conv(1, b_std=s, budget=60_000, mesh=mesh)(x1, x2).sum())(0.3)


slopes = [slope(mesh) for mesh in (None, over)]
np.testing.assert_allclose(*slopes, rtol=1e-5)

pieces = jnp.arange(8.0)
np.testing.assert_array_equal(sharding.spread(lambda a, b: a * b, over)(pieces, 2.0), 2 * pieces)
assert sharding.spread(lambda a, b: jnp.sum(a * b), over, total=True)(pieces, 2.0) == 56
print("same")
"""


@pytest.mark.slow
def test_four_devices_give_the_results_of_one():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "same", run.stderr[-2000:]


def test_without_a_mesh_or_with_one_device_a_function_stays_as_it_is():
    def fn(a):
        return a + 1

    assert sharding.spread(fn, None) is fn
    assert sharding.spread(fn, sharding.mesh(1)) is fn
    assert sharding.size(None) == sharding.size(sharding.mesh(1)) == 1


@pytest.mark.parametrize("count", [0, -1, 2.0, 10**6])
def test_a_mesh_has_as_many_devices_as_there_are(count):
    with pytest.raises(InputError, match=f"count is {count}"):
        sharding.mesh(count)


def test_several_processes_leave_no_device_idle(monkeypatch):
    monkeypatch.setattr(sharding.jax, "process_count", lambda: 2)
    for count in (0, len(sharding.jax.devices())):
        assert sharding.for_run(count).size == len(sharding.jax.devices())
    with pytest.raises(InputError, match=r"config.devices: 1 of the 4 devices of 2 processes.*leave it at 0"):
        sharding.for_run(1)


def test_what_is_no_mesh_is_refused():
    with pytest.raises(InputError, match="mesh is 4; expected"):
        sharding.spread(lambda a: a, 4)


class Device:
    """One of an accelerator, as JAX shows it to this process or to another one."""

    platform = "gpu"

    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        if isinstance(self.stats, Exception):
            raise self.stats
        return self.stats


def test_free_memory_asks_a_device_of_this_process(monkeypatch):
    """In all processes but the first, the first device is that of another one."""
    remote = Device(RuntimeError("MemoryStats is only supported for addressable PjRt devices."))
    local = Device({"bytes_limit": 10, "bytes_in_use": 3})
    monkeypatch.setattr(sharding.jax, "devices", lambda: [remote, local])
    monkeypatch.setattr(sharding.jax, "local_devices", lambda: [local])
    assert sharding.free_memory() == 7
    local.stats = None
    assert sharding.free_memory() is None


def test_free_memory_is_what_linux_and_the_control_group_leave(monkeypatch):
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    8000 kB\n"}
    monkeypatch.setattr(sharding, "_text", lambda path: files.get(path, ""))
    assert sharding.free_memory() == 8000 * 1024
    files |= {"/sys/fs/cgroup/memory.max": "5000\n", "/sys/fs/cgroup/memory.current": "2000\n"}
    assert sharding.free_memory() == 3000
    files["/sys/fs/cgroup/memory.stat"] = "anon 1\ninactive_file 700\n"
    assert sharding.free_memory() == 3700
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert sharding.free_memory() == 8000 * 1024
    files.clear()
    assert sharding.free_memory() is None
