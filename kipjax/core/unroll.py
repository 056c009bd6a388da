"""Short inner optimizations by ``lax.scan``, through which gradients may be taken.

``sgd`` trains on a curriculum, one item a step; reverse mode through it is the exact hypergradient of the methods that
unroll (DD arXiv:1811.10959, SLDD and TDD arXiv:1910.02551, GTN arXiv:1912.07768). What it costs in memory is chosen:

| segment | kept for the way back | training steps computed |
|---|---|---|
| 0 | everything of all T steps | T |
| 1 | the weights of all T steps | 2 T |
| s | the weights of T / s steps and everything of s steps; ``"sqrt"`` makes that O(sqrt(T)) | 2 T |

``forward_gradient`` keeps nothing at all and costs a run for each hyperparameter: right for a few scalars.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from kipjax import checks
from kipjax.types import PyTree

__all__ = ["Unrolled", "adam", "check_spans", "forward_gradient", "sgd"]


class Unrolled(NamedTuple):
    """The end of an unrolled training.

    Attributes:
      params: ``theta_T``.
      state: what the loss carried along besides, such as running statistics; ``None`` if nothing.
      values: ``[T]`` the loss at each step before its update.
      observed: what ``observe`` returned after each update, stacked ``[T, ...]``; ``None`` without it.
    """

    params: PyTree
    state: PyTree
    values: jax.Array
    observed: PyTree


def sgd(
    loss: Callable[..., Any],
    params: PyTree,
    curriculum: PyTree,
    *,
    step_size: float | jax.Array,
    momentum: float | jax.Array = 0.0,
    weight_decay: float | jax.Array = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    steps: int | None = None,
    order: jax.Array | None = None,
    state: PyTree = None,
    observe: Callable[..., PyTree] | None = None,
    segment: int | str = 0,
    truncate: int | None = None,
) -> Unrolled:
    """Gradient descent on a curriculum, differentiable in all that goes in.

    For ``t = 0 .. T - 1``, with item ``s`` of the curriculum and ``m_0 = 0``::

        g_t         = grad loss(theta_t, item_s) + weight_decay theta_t
        m_{t+1}     = momentum_t m_t + g_t
        theta_{t+1} = theta_t - step_size_t m_{t+1}

    Args:
      loss: ``(theta, item) -> []``; with ``state``, ``(theta, state, item) -> ([], state)``. It may close over traced
        values, such as the weights of a generator, and gradients reach those too.
      params: ``theta_0``, any pytree.
      curriculum: pytree with leaves ``[S, ...]``; an item is a slice along the first axis.
      step_size: ``[]`` or ``[T]``, of either sign (a learned one may cross zero).
      momentum: ``[]`` or ``[T]``; classical, without dampening.
      weight_decay: ``[]``, the factor of ``theta`` in its gradient.
      optimizer: turns ``g_t`` into the direction that is subtracted, such as ``optax.scale_by_adam(eps_root=1e-8)``,
        in place of momentum. (Second derivatives of Adam at a zero gradient need ``eps_root``.)
      steps: ``T``; by default as many as ``order`` has entries, or the curriculum items. Beyond ``S`` it begins anew:
        step ``t`` takes item ``t mod S``.
      order: ``[T]`` the item of each step, if not one after the other.
      state: start of what the loss carries along; gradients flow through it.
      observe: ``(theta, item) -> pytree`` (with ``state``: ``(theta, state, item)``), called after each update.
      segment: rematerialisation, see the top of this file: a number of steps, or ``"sqrt"``.
      truncate: gradients reach back through the last so many steps only; ``None`` for all, 0 for none.

    Returns:
      An ``Unrolled``. The gradient is the same for every ``segment``.

    Raises:
      InputError: an empty curriculum, leaves of different lengths, or a value outside its range.

    References:
      arXiv:1811.10959, algorithm 1; arXiv:1912.07768, section 3; sqrt(T) memory: arXiv:1604.06174.

    Example:
      >>> one_step = sgd(lambda theta, item: 0.5 * (theta - item) ** 2, 0.0, jnp.ones(1), step_size=0.25)
      >>> float(one_step.params)
      0.25
    """
    where = "unroll.sgd"
    count, order = _order(where, curriculum, steps, order)
    rates, momenta = (
        _per_step(where, name, value, count) for name, value in (("step_size", step_size), ("momentum", momentum))
    )
    plain = _is_zero(momentum)
    checks.require(optimizer is None or plain, where, "give momentum or optimizer, not both")
    shape = jnp.shape(weight_decay)
    checks.require(shape == (), where, f"weight_decay has shape {shape}; expected one number for all steps")
    checks.at_least(where, "weight_decay", weight_decay, 0.0)
    check_spans(where, segment, truncate)
    span = _span(segment, count)

    def objective(theta, state, item):
        return (loss(theta, item), None) if state is None else loss(theta, state, item)

    def step(carry, inputs):
        theta, memory, state = carry
        item, rate, mu = inputs
        (value, state), gradient = jax.value_and_grad(objective, has_aux=True)(theta, state, item)
        if not _is_zero(weight_decay):
            gradient = jax.tree.map(lambda g, p: g + weight_decay * p, gradient, theta)
        if optimizer is not None:
            direction, memory = optimizer.update(gradient, memory, theta)
        elif plain:
            direction = gradient
        else:
            direction = memory = jax.tree.map(lambda m, g: mu.astype(g.dtype) * m + g, memory, gradient)
        theta = jax.tree.map(lambda p, d: p - rate.astype(p.dtype) * d, theta, direction)
        at = (theta, item) if state is None else (theta, state, item)
        return (theta, memory, state), (value, observe(*at) if observe else None)

    params = jax.tree.map(jnp.asarray, params)
    _require_floating(where, "params are", params)
    memory = optimizer.init(params) if optimizer else None if plain else jax.tree.map(jnp.zeros_like, params)
    carry, inputs = (params, memory, state), (jax.tree.map(lambda a: jnp.asarray(a)[order], curriculum), rates, momenta)
    cut = 0 if truncate is None else max(count - truncate, 0)
    if not cut:
        (theta, _, state), (values, observed) = _scan(step, carry, inputs, count, span)
        return Unrolled(theta, state, values, observed)
    before, after = (jax.tree.map(lambda a, part=part: a[part], inputs) for part in (slice(cut), slice(cut, None)))
    start = lax.stop_gradient(lax.scan(step, *lax.stop_gradient((carry, before))))
    (theta, _, state), rest = _scan(step, start[0], after, count - cut, span)
    values, observed = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), start[1], rest)
    return Unrolled(theta, state, values, observed)


def forward_gradient(objective: Callable[[PyTree], jax.Array], hyper: PyTree) -> tuple[jax.Array, PyTree]:
    """Value and gradient by forward mode: no step is kept, and each scalar in ``hyper`` costs a run of its own.

    The gradient is that of ``jax.value_and_grad``; use it for long unrolls with few hyperparameters, such as one step
    size and one momentum for all steps.

    Args:
      objective: ``hyper -> []``, for example a loss at the end of ``sgd``.
      hyper: pytree of floats.

    Returns:
      ``(value [], gradient like hyper)``.

    References:
      Franceschi, Donini, Frasconi, Pontil, arXiv:1703.01785, section 3.2.

    Example:
      >>> value, gradient = forward_gradient(lambda h: h["a"] * h["b"], {"a": jnp.float32(2.0), "b": jnp.float32(3.0)})
      >>> float(gradient["a"])
      3.0
    """
    hyper, where = jax.tree.map(jnp.asarray, hyper), "unroll.forward_gradient"
    _require_floating(where, "hyper is", hyper)
    shape = jax.eval_shape(objective, hyper).shape
    checks.require(shape == (), where, f"the objective has shape {shape}; expected one number")
    flat, unravel = ravel_pytree(hyper)
    checks.require(flat.size > 0, where, "hyper has no entries; give at least one scalar")

    def along(direction):
        return jax.jvp(lambda at: objective(unravel(at)), (flat,), (direction,))

    values, slopes = lax.map(along, jnp.eye(flat.size, dtype=flat.dtype))
    return values[0], unravel(slopes)


def _require_floating(where, name, tree):
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jnp.floating)}
    checks.require(not kinds, where, f"{name} of type {', '.join(sorted(kinds))}; give floating-point numbers")


def adam(
    loss: Callable[[PyTree], jax.Array], z: PyTree, *, steps: int, step_size: float | jax.Array
) -> tuple[PyTree, jax.Array]:
    """``steps`` Adam steps (optax's defaults) on ``loss``, from ``z``.

    Args:
      loss: ``z -> []``.
      z: the start, any pytree.
      steps: how many.
      step_size: constant, may be traced.

    Returns:
      ``(z, values [steps])``: the last iterate, and the loss before each step. Reverse mode through it keeps every
      iterate.
    """
    checks.whole("unroll.adam", "steps", steps, 0)
    optimizer = optax.scale_by_adam()

    def step(carry, _):
        z, state = carry
        value, gradient = jax.value_and_grad(loss)(z)
        updates, state = optimizer.update(gradient, state)
        return (jax.tree.map(lambda zi, u: zi - (step_size * u).astype(zi.dtype), z, updates), state), value

    (z, _), values = lax.scan(step, (z, optimizer.init(z)), None, length=steps)
    return z, jnp.asarray(values)


def check_spans(where: str, segment: int | str, truncate: int | None, *, least: int = 0) -> None:
    """Refuses what ``sgd`` cannot take as ``segment`` or ``truncate``.

    Raises:
      InputError: ``segment`` is neither a whole number nor ``"sqrt"``, or ``truncate`` below ``least``.
    """
    if segment != "sqrt":
        text = f"segment is {segment!r}; expected a number of steps or 'sqrt'"
        checks.require(not isinstance(segment, str), where, text)
        checks.whole(where, "segment", segment, 0)
    if truncate is not None:
        checks.whole(where, "truncate", truncate, least)


def _scan(step, carry, inputs, count, span):
    """``lax.scan``, of which whole spans of steps are computed again on the way back."""
    if span <= 1 or span >= count > 0:
        if span > 1:
            return jax.checkpoint(lambda carry, inputs: lax.scan(step, carry, inputs))(carry, inputs)
        return lax.scan(jax.checkpoint(step, prevent_cse=False) if span else step, carry, inputs, length=count)
    whole = count // span * span

    def part(carry, inputs):
        return lax.scan(step, carry, inputs)

    spans = jax.tree.map(lambda a: a[:whole].reshape(-1, span, *a.shape[1:]), inputs)
    carry, out = lax.scan(jax.checkpoint(part, prevent_cse=False), carry, spans)
    out = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), out)
    if whole == count:
        return carry, out
    carry, rest = jax.checkpoint(part)(carry, jax.tree.map(lambda a: a[whole:], inputs))
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), out, rest)


def _order(where, curriculum, steps, order):
    """``(T, items [T])``."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(curriculum)}
    checks.require(
        len(lengths) == 1 and lengths != {()} and lengths != {(0,)},
        where,
        f"curriculum has leaves of lengths {sorted(lengths)}; all need the same first axis, one entry for each item",
    )
    size = lengths.pop()[0]
    if order is None:
        checks.whole(where, "steps", size if steps is None else steps, 0)
        count = size if steps is None else steps
        return count, jnp.arange(count) % size
    order = jnp.asarray(order)
    checks.require(
        order.ndim == 1 and jnp.issubdtype(order.dtype, jnp.integer),
        where,
        f"order has shape {order.shape} and dtype {order.dtype}; expected [steps] integers",
    )
    checks.require(
        steps is None or steps == len(order), where, f"steps is {steps} and order has {len(order)} entries; drop one"
    )
    if not checks.is_traced(order) and order.size:
        checks.within(where, "order's smallest entry", int(order.min()), 0, size - 1)
        checks.within(where, "order's largest entry", int(order.max()), 0, size - 1)
    return len(order), order


def _per_step(where, name, value, count):
    value = jnp.asarray(value)
    checks.require(
        value.shape in ((), (count,)), where, f"{name} has shape {value.shape}; expected [] or [steps] = ({count},)"
    )
    checks.finite(where, name, value)
    return jnp.broadcast_to(value, (count,))


def _span(segment, count):
    return max(1, math.isqrt(max(count - 1, 0)) + 1) if segment == "sqrt" else int(segment)


def _is_zero(value: Any) -> bool:
    """Whether it is the constant 0, for which nothing need be computed."""
    return isinstance(value, (int, float)) and value == 0
