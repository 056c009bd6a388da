"""The loop that VIG, CIG, RCIG and FRePo share: a set learned from a gradient at networks that are trained along on it.

One step: draw a network from the pool; ask the method for its gradient there; update the set; train that network a
little on the updated set, or replace it by a fresh one once it is old (arXiv:2302.06755, section 3.4).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import losses, step_size
from kipjax.core import pool as pools
from kipjax.data import draw
from kipjax.methods import inputs
from kipjax.models import network
from kipjax.types import Batch, Distilled, Method, PyTree

__all__ = [
    "Learned",
    "PoolOptions",
    "State",
    "StepSizes",
    "adabelief",
    "check_learned",
    "check_step_sizes",
    "make",
    "mirrored",
    "platt_targets",
]


class Learned(NamedTuple):
    """What is learned: ``x [m, ...]``, ``y [m, k]`` and ``log_temp []``, the logarithm of the Platt scale."""

    x: jax.Array
    y: jax.Array
    log_temp: jax.Array


class State(NamedTuple):
    """The learned set, its optimizer state and average, the pool, the method's own ``memory``, and steps taken."""

    learned: Learned
    opt_state: optax.OptState
    average: Learned | None
    pool: pools.Pool
    memory: PyTree
    count: jax.Array


class StepSizes(NamedTuple):
    """The memory of a method with truncated solvers: of its inner loss, and of its inverse Hessian product."""

    inner: step_size.Watch
    hessian: step_size.Watch


class PoolOptions(NamedTuple):
    """How the pool lives.

    Attributes:
      size: number of networks.
      max_age: training steps after which one is replaced.
      steps: a picked network is trained for 1 .. ``steps`` Adam steps, as many as chance says.
      learning_rate: of that Adam.
      batch_size: distilled examples in such a step, drawn at random; 0 for all of them.
      stagger: start the ages spread out, and replace *instead of* training, once the age exceeds ``max_age`` (FRePo);
        otherwise all start at zero, and one is replaced *after* training, once it reaches ``max_age`` (RCIG).
      sum_classes: train on ``1/2 |f - y|^2`` summed over classes (FRePo) instead of their mean (RCIG).
      flip: train on the mirror images too (RCIG, where the method's ``flip`` is on), or never (FRePo).
    """

    size: int = 30
    max_age: int = 100
    steps: int = 15
    learning_rate: float = 5e-5
    batch_size: int = 0
    stagger: bool = False
    sum_classes: bool = False
    flip: bool = False


MetaGradient = Callable[..., tuple[Learned, PyTree, NamedTuple]]
"""``(key, variables, learned, memory, batch) -> (gradient like learned, memory, Info)``."""


def make(
    where: str,
    model: nn.Module,
    meta_gradient: MetaGradient,
    *,
    optimizer: optax.GradientTransformation,
    learned: tuple[str, ...],
    options: PoolOptions,
    ema_decay: float = 0.0,
    init_memory: Callable[[Learned], PyTree] = lambda learned: (),
) -> Method:
    """The method whose outer gradient is ``meta_gradient``.

    Args:
      where: name of the method's factory, for messages.
      model: network with features.
      meta_gradient: what tells one method from the other.
      optimizer: of the learned set; sees a ``Learned``.
      learned: names of the fields of ``Learned`` that are updated.
      options: of the pool.
      ema_decay: of the average that is the result; 0 makes the last iterate the result.
      init_memory: the method's own state at the start.
    """
    for name in ("size", "steps", "max_age"):
        checks.whole(where, f"pool_{name}", getattr(options, name))
    checks.whole(where, "pool_batch_size", options.batch_size, 0)
    checks.at_least(where, "pool_learning_rate", options.learning_rate, 0.0, strict=True)
    train_optimizer = optax.adam(options.learning_rate)

    def fresh(key, x):
        variables = network.init(model, key, x)
        return variables, train_optimizer.init(variables["params"])

    def init(key, distilled0):
        x, y = inputs.start(where, distilled0)
        network.require_linear_head(where, model, x)
        network.require_outputs(where, model, x, y.shape[1])
        start = Learned(x, y, jnp.zeros((), x.dtype))
        stagger_to = options.max_age if options.stagger else None
        pool = pools.init(key, lambda k: fresh(k, x), options.size, stagger_to=stagger_to)
        average = jax.tree.map(jnp.zeros_like, start) if ema_decay else None
        return State(start, optimizer.init(start), average, pool, init_memory(start), jnp.zeros((), jnp.int32))

    def step(key, state, batch):
        batch = inputs.targets(where, state.learned.x, state.learned.y, batch)
        pick_key, gradient_key, train_key = jax.random.split(key, 3)
        index = pools.pick(pick_key, state.pool)
        member, age = pools.get(state.pool, index)
        gradient, memory, info = meta_gradient(gradient_key, member[0], state.learned, state.memory, batch)
        gradient = _masked(gradient, learned)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.learned)
        new = jax.tree.map(jnp.add, state.learned, _masked(updates, learned))
        average = optax.tree.update_moment(new, state.average, ema_decay, 1) if ema_decay else None
        member, age = after_its_turn(train_key, member, age, new)
        pool = pools.put(state.pool, index, member, age)
        return State(new, opt_state, average, pool, memory, state.count + 1), info

    def after_its_turn(key, member, age, learned):
        """A member trained on the set as it is now, or replaced."""
        train_key, fresh_key = jax.random.split(key)

        def replaced():
            return fresh(fresh_key, learned.x), jnp.zeros_like(age)

        def trained():
            x, y = mirrored(learned.x, learned.y) if options.flip else (learned.x, learned.y)
            return _train(train_key, model, train_optimizer, member, age, x, y, options)

        if options.stagger:
            return lax.cond(age > options.max_age, replaced, trained)
        member, age = trained()
        return lax.cond(age >= options.max_age, replaced, lambda: (member, age))

    def distilled(state):
        if not ema_decay:
            return Distilled(state.learned.x, state.learned.y)
        corrected = optax.tree.bias_correction(state.average, ema_decay, jnp.maximum(state.count, 1))
        started = state.count > 0  # before the first step there is nothing to average
        mean = jax.tree.map(lambda a, b: jnp.where(started, a, b), corrected, state.learned)
        result = state.learned._replace(**{name: getattr(mean, name) for name in learned})
        return Distilled(result.x, result.y)

    return Method(init, step, distilled)


def _train(key, model, optimizer, member, age, x, y, options):
    """``(member, age)`` after 1 .. ``options.steps`` steps on ``x``, ``y`` or random parts of them."""
    count_key, batch_key = jax.random.split(key)
    count = jax.random.randint(count_key, (), 1, options.steps + 1, age.dtype)

    def loss(params, variables, x, y):
        logits, statistics = network.train_forward(model, {**variables, "params": params}, x)
        return losses.mse(logits, y) * (y.shape[1] if options.sum_classes else 1), statistics

    def one(i, member):
        variables, opt_state = member
        part = _part(jax.random.fold_in(batch_key, i), x, y, options.batch_size)
        gradient, statistics = jax.grad(loss, has_aux=True)(variables["params"], variables, *part)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return {**statistics, "params": optax.apply_updates(variables["params"], updates)}, opt_state

    # A step count that is known needs no loop, which compiles faster.
    member = one(0, member) if options.steps == 1 else lax.fori_loop(0, count, one, member)
    return member, age + count


def _part(key, x, y, size):
    """``size`` random rows of both; all of them if that is 0 or there are no more."""
    if not size or size >= x.shape[0]:
        return x, y
    rows = draw.without_replacement(key, size, x.shape[0])
    return x[rows], y[rows]


def adabelief(rate: float, temperature_rate: float = 0.0) -> optax.GradientTransformation:
    """AdaBelief with optax's defaults, at one learning rate for images and labels and another for ``log_temp``."""

    def init(params):
        return optax.EmptyState()

    def scale(updates, state, params=None):
        x, y, log_temp = updates
        return Learned(-rate * x, -rate * y, -temperature_rate * log_temp), state

    return optax.chain(optax.scale_by_belief(), optax.GradientTransformation(init, scale))


def mirrored(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Images ``x [m, h, w, c]`` followed by their left-right mirror images, with the labels twice."""
    checks.require(x.ndim == 4, "methods", f"flip needs images [m, height, width, channels]; x has shape {x.shape}")
    return jnp.concatenate([x, x[:, :, ::-1]]), jnp.concatenate([y, y])


def platt_targets(batch: Batch) -> jax.Array:
    """One-hot rows from centred ones: what a softmax cross-entropy takes as its targets."""
    return batch.y - jnp.min(batch.y, axis=1, keepdims=True)


def _masked(tree, learned):
    """Zeros in the fields that are not learned."""
    return Learned(
        *(leaf if name in learned else jax.tree.map(jnp.zeros_like, leaf) for name, leaf in tree._asdict().items())
    )


def check_step_sizes(where: str, **solvers: tuple[int, float]) -> None:
    """``name=(steps, step_size)`` of truncated solvers: not negative, and given where one step shows no descent."""
    for name, (steps, size) in solvers.items():
        checks.at_least(where, f"{name}_step_size", size, 0.0)
        checks.require(
            steps != 1 or size > 0,
            where,
            f"{name}_steps is 1, and the search for {name}_step_size needs two to see a descent; give a step size",
        )


def check_learned(where: str, **choices: Any) -> tuple[str, ...]:
    """The names of the fields that are learned; at least one."""
    names = tuple(name for name, chosen in choices.items() if chosen)
    checks.require(bool(names), where, "nothing is learned; set learn_images or learn_labels")
    return names
