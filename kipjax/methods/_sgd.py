"""What matching methods share: sums over images taken block by block, and plain SGD on a set for some epochs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import sharding
from kipjax.data import draw
from kipjax.data.augment import Augment
from kipjax.models import network
from kipjax.types import PyTree

__all__ = ["CLASSES", "block_size", "check", "each", "epoch", "one_by_one", "summed", "weighted_loss"]

CLASSES = ("auto", "map", "vmap")

# Images of one pass on a CPU: so few that the maps between two layers stay in its cache. Measured on two busy cores,
# gradient of 256 images of 28x28, ConvNet of width 128: 1.35 s with 4 or 8 at once, 1.45 with 16, 1.62 with 64, 1.8 to
# 2.0 with all.
_CPU_BLOCK = 8


def check(where: str, classes: str, size: int) -> None:
    """The two options that say how images and classes go through a network."""
    checks.one_of(where, "classes", classes, CLASSES)
    checks.whole(where, "block_size", size, 0)


def block_size(size: int) -> int:
    """Images that go through a network at once: ``size``, or for 0 a few on a CPU and all (0) on an accelerator."""
    return size or (0 if sharding.on_accelerator() else _CPU_BLOCK)


def one_by_one(classes: str) -> bool:
    """Whether classes go one after the other: ``"auto"`` does so on a CPU alone."""
    return classes == "map" or (classes == "auto" and not sharding.on_accelerator())


def each(fn: Callable[[Any], Any], args: PyTree, classes: str) -> Any:
    """``fn`` of every class, one after the other or in one batched pass."""
    return lax.map(fn, args) if one_by_one(classes) else jax.vmap(fn)(args)


def summed(fn: Callable[..., PyTree], rows: tuple[jax.Array, ...], weights: jax.Array, size: int) -> PyTree:
    """``fn(*rows, weights)``, which must be a sum over rows with these weights, taken over blocks of ``size`` rows.

    Args:
      fn: ``(*rows [b, ...], weights [b]) -> pytree``.
      rows: arrays with ``n`` rows.
      weights: ``[n]``.
      size: rows in a block; 0 for all at once. The last block is filled up with rows of weight zero.
    """
    n = len(weights)
    if not size or n <= size:
        return fn(*rows, weights)
    missing = -n % size
    filled = [jnp.concatenate([row, row[:missing]]) for row in rows]
    filled.append(jnp.concatenate([weights, jnp.zeros(missing, weights.dtype)]))
    blocks = [row.reshape(-1, size, *row.shape[1:]) for row in filled]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(fn, *(block[0] for block in blocks)))

    def add(total, block):
        return jax.tree.map(jnp.add, total, fn(*block)), None

    return lax.scan(add, zeros, blocks)[0]


def weighted_loss(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """``sum_i w_i CE(logits_i, label_i)``, a sum ``[]``."""
    return jnp.sum(weights * optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def epoch(
    key: jax.Array,
    model: nn.Module,
    variables: dict[str, PyTree],
    x: jax.Array,
    labels: jax.Array,
    *,
    learning_rate: float | jax.Array,
    batch_size: int,
    augment: Augment | None = None,
    size: int = 0,
) -> dict[str, PyTree]:
    """One pass over a set in a new order by plain SGD on the mean cross-entropy; the last batch may be smaller.

    Args:
      key: draws order and augmentation.
      model: the network.
      variables: its variables; batch norm uses and records the statistics of each batch.
      x: ``[n, ...]``.
      labels: ``[n]`` integer classes.
      learning_rate: of SGD without momentum and weight decay.
      batch_size: examples of a step.
      augment: ``augment(key, x)`` for every batch.
      size: as in ``summed``; batch norm always sees a whole batch.

    Returns:
      The variables after the pass.
    """
    n, (order_key, augment_key) = len(x), jax.random.split(key)
    size = 0 if "batch_stats" in variables else size

    def total(params, variables, x, labels, weights):
        logits, statistics = network.train_forward(model, {**variables, "params": params}, x)
        return weighted_loss(logits, labels, weights), statistics

    def step(variables, number, x, labels):
        if augment is not None:
            x = augment(jax.random.fold_in(augment_key, number), x)

        def gradient(x, labels, weights):
            return jax.grad(total, has_aux=True)(variables["params"], variables, x, labels, weights)

        slope, statistics = summed(gradient, (x, labels), jnp.ones(len(x), x.dtype), size)
        rate = learning_rate / len(x)
        params = jax.tree.map(lambda p, g: p - (rate * g).astype(p.dtype), variables["params"], slope)
        return {**variables, **statistics, "params": params}

    if n <= batch_size:
        return step(variables, 0, x, labels)
    rows, whole = draw.without_replacement(order_key, n, n), n // batch_size
    parts = jnp.arange(whole), rows[: whole * batch_size].reshape(whole, batch_size)
    variables, _ = lax.scan(lambda v, part: (step(v, part[0], x[part[1]], labels[part[1]]), None), variables, parts)
    rest = rows[whole * batch_size :]
    return step(variables, whole, x[rest], labels[rest]) if n % batch_size else variables
