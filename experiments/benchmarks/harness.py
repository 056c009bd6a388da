"""How a row of the benchmark is made: two programs timed in turn, or what the compiler plans for both."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from kipjax.core import loop

__all__ = ["FLAGS", "Row", "Rows", "Skipped", "bound", "compare", "scanned"]

FLAGS = flags.FLAGS


class Row(NamedTuple):
    """Ours and what it is compared with, in ``unit``, and the pairwise ratio ours / other of ``pairs`` timings; what is
    not timed but planned has one."""

    name: str
    unit: str
    ours: float
    other: float
    ratio: float
    smallest_ratio: float
    largest_ratio: float
    aim: str
    pairs: int = 1


class Skipped(Exception):
    """A row that this machine cannot make; the text says why."""


Rows = dict[str, Callable[[], Row]]
"""What makes each row, by the name that ``--only`` takes."""


def compare(name: str, unit: str, ours: Callable[[], float], other: Callable[[], float], aim: str) -> Row:
    """Warms both up, then times them in turn; each returns seconds, and ``unit`` is milliseconds."""
    ours(), other()
    pairs = [(1e3 * ours(), 1e3 * other()) for _ in range(FLAGS.pairs)]
    ratios = [a / b for a, b in pairs]
    a, b = (statistics.median(side) for side in zip(*pairs))
    return Row(name, unit, a, b, statistics.median(ratios), min(ratios), max(ratios), aim, len(pairs))


def scanned(experiment, count: int) -> Callable[[], float]:
    """Seconds per step of the driver's compiled chunk."""
    chunk = jax.jit(loop.steps(experiment.method, count), donate_argnums=2)
    state = experiment.method.init(jax.random.key(0), experiment.start)
    at = {"state": state, "step": 0}

    def run():
        began = time.perf_counter()
        at["state"], infos = chunk(experiment.sample, jax.random.key(1), at["state"], jnp.asarray(at["step"]))
        {name: float(np.mean(values)) for name, values in infos._asdict().items()}
        at["step"] += count
        return (time.perf_counter() - began) / count

    return run


def bound(operations: float) -> Callable[[], float]:
    """``() -> seconds`` for so many floating-point operations at the speed of a matrix product, measured anew."""
    matrix = jax.random.normal(jax.random.key(0), (2048, 2048))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))

    def run():
        began = time.perf_counter()
        jax.block_until_ready(product(matrix))
        return operations * (time.perf_counter() - began) / (2 * 2048**3)

    return run
