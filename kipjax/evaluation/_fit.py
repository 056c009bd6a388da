"""One network trained on a set by a protocol (``_step`` has the step), and its outputs."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import losses
from kipjax.evaluation import _step, protocols
from kipjax.evaluation._step import Objective
from kipjax.evaluation.protocols import Protocol
from kipjax.types import Batch, Distilled, PyTree

__all__ = ["Network", "fit", "fit_along", "fresh", "in_blocks", "predict"]


class Network(NamedTuple):
    """A trained network: its ``variables``, and those at its start where the protocol is centred on them."""

    variables: dict[str, PyTree]
    start: dict[str, PyTree] | None = None


def fit(
    key: jax.Array,
    model: nn.Module,
    distilled: Distilled,
    *,
    protocol: Protocol | str = "rcig",
    flip: bool = False,
    validation: Batch | None = None,
    start: dict[str, PyTree] | None = None,
    objective: Objective | None = None,
) -> Network:
    """Trains a network on a set: a pure function of key, set, validation images and start, for use under jit and vmap.

    Args:
      key: draws the initial weights, the batches and the augmentation.
      model: flax module that takes ``(x, *, train)``.
      distilled: ``x [m, ...]``, ``y [m, k]``; ``lr []`` where the protocol asks for a learned one.
      protocol: a ``Protocol``, or the name of one.
      flip: the set was distilled with its mirror images.
      validation: real images ``x [v, ...]``, ``y [v, k]`` for a protocol that stops early; no test images.
      start: variables of a network that goes on learning, with a fresh optimizer; without them a fresh one learns.
      objective: what is descended on, penalty included, instead of the protocol's loss.

    Returns:
      The network after the last step, or, with ``validation``, the best on that.

    Raises:
      InputError: the model has another number of outputs, a word of the protocol is unknown, or something that it needs
        is missing.

    Example:
      >>> from kipjax import models
      >>> distilled = Distilled(jnp.ones((2, 4, 4, 1)), jnp.eye(2))
      >>> trained = fit(jax.random.key(0), models.get("mlp", num_classes=2), distilled, protocol="dc")
    """
    protocol = _checked(protocol, validation)
    start, state, turn = _training(key, model, distilled, protocol, flip, start, objective)

    def train(state: tuple, first: int | jax.Array, count: int) -> tuple:
        return lax.scan(turn, state, first + jnp.arange(count))[0]

    if protocol.patience:
        variables = _best(model, protocol, train, state, validation, protocols.steps(protocol, len(distilled.x)))
    else:
        variables = train(state, 0, protocol.epochs or protocols.steps(protocol, len(distilled.x)))[0]
    return Network(variables, start if protocol.centred else None)


def fresh(key: jax.Array, model: nn.Module, distilled: Distilled) -> dict[str, PyTree]:
    """The variables with which ``fit`` starts under the same key."""
    return _init(model, jax.random.split(key, 3)[0], jnp.asarray(distilled.x), distilled.y)


def fit_along(
    key: jax.Array, model: nn.Module, distilled: Distilled, lengths: jax.Array, *, protocol: Protocol | str
) -> Network:
    """One training looked at several times: the networks of ``fit`` after each of ``lengths`` steps, stacked.

    Args:
      key, model, distilled: as in ``fit``.
      lengths: ``[l]`` numbers of steps (of epochs, for a protocol that counts those), ascending; may be traced.
      protocol: one that does not stop early. A schedule runs over its own number of steps, whatever the lengths.

    Returns:
      A ``Network`` whose leaves have a leading axis of length ``l``.

    Raises:
      InputError: as in ``fit``, or lengths that do not ascend.
    """
    protocol, where = _checked(protocol, None), "evaluation.train.fit_along"
    lengths = jnp.asarray(lengths, jnp.int32)
    if not checks.is_traced(lengths):
        rising = len(lengths) > 0 and np.all(np.diff(lengths, prepend=-1) > 0)
        checks.require(bool(rising), where, f"lengths is {lengths.tolist()}; expected ascending numbers of steps")
    start, state, turn = _training(key, model, distilled, protocol, flip=False)

    def until(carry: tuple, last: jax.Array) -> tuple:
        state, first = carry
        state = lax.fori_loop(first, last, lambda i, state: turn(state, i)[0], state)
        return (state, last), state[0]

    variables = lax.scan(until, (state, jnp.zeros((), jnp.int32)), lengths)[1]
    if not protocol.centred:
        return Network(variables)
    return Network(variables, jax.tree.map(lambda a: jnp.broadcast_to(a, (len(lengths), *a.shape)), start))


def predict(
    model: nn.Module, trained: Network, x: jax.Array, *, protocol: Protocol, block_size: int = 1000
) -> jax.Array:
    """Outputs ``[n, k]`` for ``x [n, ...]`` in the unit of the labels (logits, for a cross-entropy), pure.

    Args:
      model, protocol: as in ``fit``.
      trained: what ``fit`` returned.
      x: images.
      block_size: how many go through the network at once.
    """

    def outputs(block: jax.Array) -> jax.Array:
        return _step.in_label_units(protocol, model.apply(trained.variables, block), model, trained.start, block)

    return in_blocks(outputs, x, block_size)


def in_blocks(fn: Callable[[jax.Array], jax.Array], x: jax.Array, block_size: int) -> jax.Array:
    """``fn(x)`` for ``x [n, ...]`` and a function ``[b, ...] -> [b, p]`` of each example alone, some at a time."""
    checks.require(len(x) > 0, "evaluation.train.predict", "x is empty; at least one image is needed")
    size = min(block_size, len(x))
    missing = -len(x) % size
    blocks = jnp.concatenate([x, jnp.broadcast_to(x[:1], (missing, *x.shape[1:]))]).reshape(-1, size, *x.shape[1:])
    found = lax.map(fn, blocks)
    return found.reshape(-1, found.shape[-1])[: len(x)]


def _training(key, model, distilled, protocol, flip, start=None, objective=None):
    """``(start variables, state before the first step, turn)`` of one training."""
    init_key, order_key, augment_key = jax.random.split(key, 3)
    x, y = _training_rows(protocol, distilled, flip)
    start = _init(model, init_key, x, y) if start is None else start
    objective = objective or _step.default_objective(model, protocol, start)
    step, optimizer = _step.make(objective, protocol, start, distilled, augment_key)
    turn = _step.turns(protocol, len(distilled.x), order_key, step, x, y)
    return start, (start, optimizer.init(start["params"])), turn


def _best(model, protocol, train, state, validation, total):
    """The variables of the best validation accuracy, the first of equal ones; stops when patience is at its end."""
    start, every = state[0], protocol.validate_every
    last = total % every or every

    def accuracy(variables):
        outputs = predict(model, Network(variables, start), validation.x, protocol=protocol, block_size=500)
        return losses.accuracy(outputs, validation.y)

    def goes_on(carry):
        _, number, _, _, best_at = carry
        return (number < total) & (number < best_at + protocol.patience)

    def chunk(carry):
        state, number, best, best_accuracy, best_at = carry
        state = lax.cond(
            number + every <= total,
            lambda: train(state, number, every),
            lambda: train(state, number, last),
        )
        number = jnp.minimum(number + every, total)
        found = accuracy(state[0])
        better = found > best_accuracy
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), state[0], best)
        return state, number, best, jnp.maximum(found, best_accuracy), jnp.where(better, number, best_at)

    zero = jnp.zeros((), jnp.int32)
    return lax.while_loop(goes_on, chunk, (state, zero, start, accuracy(start), zero))[2]


def _training_rows(protocol, distilled, flip):
    where, x, y = "evaluation.train.fit", jnp.asarray(distilled.x), jnp.asarray(distilled.y)
    checks.same_length(where, "distilled.x", x, "distilled.y", y)
    if not (flip and protocol.flip):
        return x, y
    checks.require(x.ndim == 4, where, f"flip needs images [m, height, width, channels]; x has shape {x.shape}")
    return jnp.concatenate([x, x[:, :, ::-1]]), jnp.concatenate([y, y])


def _init(model, key, x, y):
    where = "evaluation.train.fit"
    known = inspect.signature(type(model).__call__).parameters if isinstance(model, nn.Module) else {}
    checks.require(
        "train" in known, where, f"model is {model!r}; expected a flax module that is called with (x, train=...)"
    )
    outputs, variables = model.init_with_output(key, x[:1])
    checks.require(
        outputs.shape == (1, y.shape[1]),
        where,
        f"the model gives outputs of shape {outputs.shape[1:]} and the labels have {y.shape[1]} columns; build it with "
        f"num_classes={y.shape[1]}",
    )
    return dict(variables)


def _checked(protocol, validation):
    protocol, where = protocols.named(protocol) if isinstance(protocol, str) else protocol, "evaluation.train.fit"
    tables = {"loss": protocols.LOSSES, "optimizer": _step.OPTIMIZERS, "augment_style": protocols.AUGMENTS}
    for field, table in tables.items():
        checks.one_of(where, f"protocol.{field}", getattr(protocol, field), table)
    checks.require(
        bool(protocol.epochs) != bool(protocol.steps), where, f"{protocol.name} must have either steps or epochs"
    )
    checks.require(
        not (protocol.epochs and (protocol.flip or protocol.patience)),
        where,
        f"{protocol.name} counts epochs; flip and patience go with steps",
    )
    checks.require(
        validation is not None or not protocol.patience,
        where,
        f"{protocol.name} stops early; give it validation images that are drawn from the training set",
    )
    return protocol
