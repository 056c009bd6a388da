"""The engine of convolutional kernels against neural-tangents and against its own arithmetic."""

import functools
import time

import jax
import jax.numpy as jnp

from experiments.benchmarks import harness
from kipjax.kernels import infinite, relu

__all__ = ["ROWS"]

_POOL = {"depth": 2, "pool": True}  # 10 x 20 images of 28 x 28
_PLAIN = {"depth": 3}  # 10 x 500


def _images(network):
    """Two batches of images of 28 x 28 to compare the engines on."""
    sizes = (10, 20 if "pool" in network else 500)
    return [jax.random.normal(jax.random.key(n), (n, 28, 28, 1)) for n in sizes]


def _program(network, backend, gradient=False):
    """A kernel matrix, or the sum of its entries with the gradient with respect to both inputs."""
    kernel_fn = infinite.conv(**network, backend=backend)
    return jax.jit(jax.value_and_grad(lambda a, b: kernel_fn(a, b).sum(), (0, 1)) if gradient else kernel_fn)


def _timed(program, x1, x2):
    """Seconds per pair of images."""

    def run():
        began = time.perf_counter()
        jax.block_until_ready(program(x1, x2))
        return (time.perf_counter() - began) / (len(x1) * len(x2))

    return run


def _engines(name, aim, network, gradient=False) -> harness.Row:
    """The tiled engine against neural_tangents, for the kernel or with the gradient with respect to both inputs."""
    inputs = _images(network)
    ours, other = (_timed(_program(network, backend, gradient), *inputs) for backend in ("tiled", "neural_tangents"))
    return harness.compare(name, "ms/pair", ours, other, aim)


def _engines_memory(name, network, gradient=False) -> harness.Row:
    """Peak memory of both programs."""

    def megabytes(backend):
        plan = _program(network, backend, gradient).lower(*_images(network)).compile().memory_analysis()
        return (plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes) / 1e6

    ours, other = megabytes("tiled"), megabytes("neural_tangents")
    return harness.Row(name, "MB", ours, other, *(ours / other,) * 3, "<= 0.1")


def _bound(name, network) -> harness.Row:
    """The tiled engine against the operations that a pair needs at this machine's fastest.

    The least time: no memory traffic but the inputs', and every operation a fused multiply-add of all cores.
    """
    least = harness.bound(_operations(network))
    return harness.compare(name, "ms/pair", _timed(_program(network, "tiled"), *_images(network)), least, "reported")


def _operations(network, size=28) -> float:
    """Floating-point operations of one pair of images of one channel, NTK: shifts, affine maps, ReLU, pooling."""
    ones = jnp.ones(1000)
    cost = jax.jit(relu.moments).lower(ones, ones).compile().cost_analysis()
    per_relu = (cost["flops"] + cost.get("transcendentals", 0)) / 1000 + 2  # the product of variances, and times NTK
    total, pixels = 0.0, size**2
    for layer in range(network["depth"]):
        entries = pixels**2 if "pool" in network else pixels
        states = 1 if layer == 0 else 2  # the first layer's covariance is all there is
        total += entries * (states * 6 + 3 + per_relu)
        if "pool" in network:
            total += 2 * entries
            pixels //= 4
    return total


ROWS: harness.Rows = {
    "conv_pool": functools.partial(_engines, "kernel, conv+pool, 2 layers, tiled / neural-tangents", "<= 0.125", _POOL),
    "conv_pool_gradient": functools.partial(
        _engines, "value and gradient, conv+pool, tiled / neural-tangents", "<= 0.2", _POOL, gradient=True
    ),
    "conv_pool_memory": functools.partial(_engines_memory, "memory, kernel, conv+pool, tiled / neural-tangents", _POOL),
    "conv_pool_gradient_memory": functools.partial(
        _engines_memory, "memory, value and gradient, conv+pool, tiled / neural-tangents", _POOL, gradient=True
    ),
    "conv_pool_bound": functools.partial(_bound, "kernel, conv+pool, 2 layers, tiled / bound by operations", _POOL),
    "conv": functools.partial(_engines, "kernel, conv, 3 layers, tiled / neural-tangents", "<= 1", _PLAIN),
    "conv_gradient": functools.partial(
        _engines, "value and gradient, conv, 3 layers, tiled / neural-tangents", "<= 1", _PLAIN, gradient=True
    ),
    "conv_bound": functools.partial(_bound, "kernel, conv, 3 layers, tiled / bound by operations", _PLAIN),
}
