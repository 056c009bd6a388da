"""Shared set-up: a persistent compilation cache, float64 on demand, and data sets that may be absent."""

import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")

import hypothesis
import jax
import pytest

jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(__file__).parents[1] / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# The same examples in every run; `pytest --hypothesis-profile=default` looks for others.
hypothesis.settings.register_profile("kipjax", derandomize=True)
hypothesis.settings.load_profile("kipjax")

# Where the process itself writes, for what ends it; pytest lends its capture everybody else's while tests run.
stderr: Any = sys.stderr


def pytest_configure():
    global stderr
    stderr = os.dup(2)


# Every program compiled for the CPU holds some memory maps until it is forgotten, and Linux gives a process 65,530.
MAPS = pathlib.Path("/proc/self/maps")
MOST_MAPS = 15_000


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Forgets the compiled programs after a module, once there are many; a process without maps left is killed."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture
def x64():
    """Runs one test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def fashion_mnist():
    """The real Fashion-MNIST, or a skip with the reason."""
    from kipjax import checks, data

    try:
        return data.load("fashion_mnist")
    except checks.InputError as error:
        if "not found" not in str(error):
            raise
        pytest.skip(f"Fashion-MNIST is not on this machine (Debian package dataset-fashion-mnist): {error}")
