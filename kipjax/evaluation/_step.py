"""One step of a training by a protocol: the batch that is its turn, the loss, the optimizer.

A state is ``(variables, optimizer state)``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from kipjax import checks
from kipjax.data import draw
from kipjax.evaluation import protocols
from kipjax.evaluation.protocols import Protocol
from kipjax.models import network
from kipjax.types import PyTree

__all__ = ["OPTIMIZERS", "Objective", "default_objective", "in_label_units", "make", "penalty", "turns"]

Objective = Callable[[PyTree, dict[str, PyTree], jax.Array, jax.Array, jax.Array], tuple[jax.Array, dict[str, PyTree]]]
"""``objective(params, variables, x, y, dropout key) -> (loss [], statistics)``: what a training step descends on."""

OPTIMIZERS: dict[str, Callable[[Protocol], optax.GradientTransformation]] = {
    "adam": lambda protocol: optax.scale_by_adam(protocol.b1),
    "sgd": lambda protocol: optax.trace(protocol.momentum),
}


def default_objective(model, protocol, start):
    """The protocol's loss and penalty."""

    def objective(params, variables, x, y, dropout):
        outputs, statistics = network.train_forward(model, {**variables, "params": params}, x, dropout=dropout)
        outputs = in_label_units(protocol, outputs, model, start, x)
        return protocols.LOSSES[protocol.loss](outputs, y) + penalty(protocol, params, start["params"]), statistics

    return objective


def in_label_units(protocol, outputs, model, start, x):
    """In the unit of the labels: ``(f(x) - f_0(x)) / s`` for a centred protocol."""
    centre = model.apply(start, x) if protocol.centred else 0.0
    return (outputs - centre) / protocol.label_scale


def penalty(protocol: Protocol, params: PyTree, start: PyTree) -> jax.Array | float:
    """The weight penalty of a protocol, for parameters and those at their start."""
    if isinstance(protocol.weight_decay, (int, float)) and not protocol.weight_decay:
        return 0.0
    if protocol.decay_to_start:
        return protocol.weight_decay * optax.tree.norm(optax.tree.sub(params, start), squared=True)
    return protocol.weight_decay / 2 * optax.tree.norm(params, squared=True)


def make(objective, protocol, start, distilled, key):
    """``step(state, number, x, y) -> state``, and the optimizer; a state is ``(variables, optimizer state)``."""
    size = len(distilled.x)
    optimizer = OPTIMIZERS[protocol.optimizer](protocol)
    rate, learned = protocols.schedule(protocol, size), _learned(protocol, distilled)
    drop = protocol.drop_epoch * protocols.per_epoch(protocol, size)
    change = _augment(protocol, distilled.x)

    def step(state, number, x, y):
        variables, opt_state = state
        change_key = jax.random.fold_in(key, number)
        x, dropout = change(change_key, x), jax.random.fold_in(change_key, 1)
        gradient, statistics = jax.grad(objective, has_aux=True)(variables["params"], variables, x, y, dropout)
        if drop:
            fresh = optimizer.init(variables["params"])
            opt_state = jax.tree.map(lambda a, b: jnp.where(number == drop, a, b), fresh, opt_state)
        direction, opt_state = optimizer.update(gradient, opt_state)
        scale = jnp.asarray(rate(number) * learned)
        params = jax.tree.map(lambda p, d: p - scale.astype(p.dtype) * d, variables["params"], direction)
        return {**variables, **statistics, "params": params}, opt_state

    return step, optimizer


def _learned(protocol, distilled):
    """The learned step size in units of the protocol's."""
    if not protocol.learned_rate or distilled.lr is None:
        return 1.0
    shape = jnp.shape(distilled.lr)
    checks.require(
        not shape, "evaluation.train.fit", f"distilled.lr has shape {shape}; {protocol.name} takes one step size, []"
    )
    if not checks.is_traced(distilled.lr):
        checks.at_least(
            "evaluation.train.fit", "distilled.lr, the learned step size,", float(distilled.lr), 0.0, strict=True
        )
    return distilled.lr / protocol.learning_rate


def _augment(protocol, x):
    strategy = protocol.augment[x.shape[-1] > 1]
    return (lambda key, x: x) if strategy == "none" else protocols.AUGMENTS[protocol.augment_style](strategy)


def turns(protocol, size, key, step, x, y):
    """What is scanned: ``turn(state, i)`` takes step ``i``, or all steps of epoch ``i``."""
    n = len(x)
    batch = n if size <= protocol.batch_size else protocol.batch_size

    def take(state, number, rows):
        return step(state, number, x[rows], y[rows]), None

    def one_step(state, i):
        if batch == n:
            return step(state, i, x, y), None
        if protocol.shuffle:
            return take(state, i, draw.without_replacement(jax.random.fold_in(key, i), batch, n))
        return take(state, i, (i * batch + jnp.arange(batch)) % n)

    def epoch(state, i):
        rows = jax.random.permutation(jax.random.fold_in(key, i), n)
        whole, first = n // batch, i * protocols.per_epoch(protocol, n)
        parts = first + jnp.arange(whole), rows[: whole * batch].reshape(whole, batch)
        state, _ = lax.scan(lambda state, part: take(state, *part), state, parts)
        return take(state, first + whole, rows[whole * batch :]) if n % batch else (state, None)

    return epoch if protocol.epochs else one_step
