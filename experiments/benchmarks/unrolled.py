"""Gradients through a whole training: time against single steps, and memory with and without segments."""

import functools
import time

import jax
import jax.numpy as jnp

from experiments.benchmarks import harness
from kipjax import models
from kipjax.core import labels, losses
from kipjax.methods import dd
from kipjax.models import network
from kipjax.types import Batch, Distilled

__all__ = ["ROWS"]


def unrolled_time(steps: int, network: str = "convnet") -> harness.Row:
    """The gradient through ``steps`` inner steps, inside scan, against its parts outside: the gradient of as many
    single steps, and that of the loss of the real images at the end."""
    whole, one, end = _unrolled(steps, 0, network), _single_step(network), _end(network)
    return harness.compare(
        f"unrolled DD, {network}, T = {steps}, gradient / T gradients of one step and that of the loss", "ms/step",
        lambda: whole() / steps, lambda: one() + end() / steps, "about 1",
    )  # fmt: skip


def unrolled_memory(steps: int) -> harness.Row:
    """Peak memory as the compiler plans it, rematerialised by segments of sqrt(T) steps against keeping all."""
    ours, other = (_unrolled_plan(steps, segment) for segment in ("sqrt", 0))
    name = f"memory, unrolled DD, T = {steps}, segments of sqrt(T) / all kept"
    return harness.Row(name, "MB", ours, other, *(ours / other,) * 3, "reported")


def rematerialised_time(steps: int) -> harness.Row:
    """The time that the segments cost."""
    name = f"unrolled DD, T = {steps}, segments of sqrt(T) / all kept"
    return harness.compare(name, "ms", _unrolled(steps, "sqrt"), _unrolled(steps, 0), "< 2")


NETWORKS = {"convnet": {"width": 32, "depth": 3, "norm": "none"}, "lenet": {"initial": "xavier"}}


def _problem(steps, name="convnet"):
    """A network of ``NETWORKS``, ten images of 28x28 a step, 100 real ones."""
    model = models.get(name, num_classes=10, **NETWORKS[name])
    x, y = jax.random.normal(jax.random.key(0), (110, 28, 28, 1)), jnp.eye(10)[jnp.arange(110) % 10]
    variables = jax.jit(lambda: network.init(model, jax.random.key(1), x))()
    made = Distilled(x[:10], y[:10], jnp.full(steps, 0.01))
    return model, variables, made, Batch(x[10:], y[10:])


def _unrolled_program(steps, segment, name="convnet"):
    model, variables, made, batch = _problem(steps, name)

    def loss(made):
        return dd.outer_loss(model, variables, made, batch, inner_steps=1, segment=segment)[0]

    return jax.jit(jax.grad(loss)), made


def _unrolled(steps, segment, name="convnet"):
    """Seconds for a gradient through the whole training."""
    program, made = _unrolled_program(steps, segment, name)

    return _seconds(program, made)


def _unrolled_plan(steps, segment):
    program, made = _unrolled_program(steps, segment)
    return program.lower(made).compile().memory_analysis().temp_size_in_bytes / 1e6


def _single_step(name="convnet"):
    """Seconds for the same work of one step outside any loop: the update, and the product with its Jacobian."""
    model, variables, made, _ = _problem(1, name)

    def update(params, x):
        def loss(params):
            logits = network.train_forward(model, {"params": params}, x)[0]
            return losses.cross_entropy(logits, made.y)

        return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss)(params))

    @jax.jit
    def both(params, x, cotangent):
        new, pull = jax.vjp(update, params, x)
        return new, pull(cotangent)

    return _seconds(both, variables["params"], made.x, variables["params"])


def _seconds(program, *arguments):
    def run():
        began = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        return time.perf_counter() - began

    return run


def _end(name="convnet"):
    """Seconds for the gradient of the real images' loss in the weights, which starts the way back."""
    model, variables, _, batch = _problem(1, name)

    def loss(params):
        logits = network.forward(model, {"params": params}, batch.x)[0]
        return losses.cross_entropy(logits, labels.classes(batch.y))

    return _seconds(jax.jit(jax.grad(loss)), variables["params"])


ROWS: harness.Rows = {
    **{f"unrolled_{steps}": functools.partial(unrolled_time, steps) for steps in (10, 50, 200)},
    "unrolled_lenet_50": functools.partial(unrolled_time, 50, "lenet"),
    **{f"unrolled_memory_{steps}": functools.partial(unrolled_memory, steps) for steps in (10, 50, 200)},
    **{f"unrolled_segments_{steps}": functools.partial(rematerialised_time, steps) for steps in (10, 50, 200)},
}
