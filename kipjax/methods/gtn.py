"""Generative teaching networks: a generator of training images, learned through whole trainings on what it makes.

Paper: Such, Rawal, Lehman, Stanley, Clune, "Generative Teaching Networks: Accelerating Neural Architecture Search by
Learning to Generate Synthetic Training Data", ICML 2020, arXiv:1912.07768.

- Inner training of a fresh learner, ``T`` steps on batches ``x_t = G_w(z_t, y_t)``::

      m_{t+1} = mu_t m_t + grad l(x_t, y_t; theta_t),    theta_{t+1} = theta_t - eta_t m_{t+1}

  with learned ``eta_t = exp(a_t)``, ``mu_t = exp(b_t)``.
- Meta loss: ``L(theta_T) + r sum L(theta_t)`` over every k-th step before the last, each on real examples of its own.
- Learned, by one Adam: the generator, the step sizes and momenta, and, but for the noise curriculum, the latents ``z``.

| curriculum | latents | order |
|---|---|---|
| full | learned ``[T, B, d]`` | 0 .. T - 1 |
| shuffled_batch | learned | each step takes a batch at random |
| all_shuffled | learned | each step takes B latents, with their labels, at random from all |
| noise | fresh N(0, 1), random labels | none |
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import labels, losses, unroll
from kipjax.methods import dd, inputs
from kipjax.models import network, teaching
from kipjax.types import Batch, Distilled, Method, PyTree

__all__ = ["CURRICULA", "Info", "Learned", "State", "make", "meta_loss", "momenta", "ordered"]

CURRICULA = ("full", "shuffled_batch", "all_shuffled", "noise")


class Learned(NamedTuple):
    """The ``generator``'s parameters, latents ``z [T, B, d]``, labels ``y [T, B, k]``, ``log_rates [T]`` and
    ``log_momenta [T]``."""

    generator: PyTree
    z: jax.Array
    y: jax.Array
    log_rates: jax.Array
    log_momenta: jax.Array


class State(NamedTuple):
    """What is learned, with labels that may be fixed; the optimizer's state; an image ``blank [...]`` for its shape."""

    learned: Learned
    opt_state: optax.OptState
    blank: jax.Array


class Info(NamedTuple):
    """Meta ``loss []``; ``accuracy []`` in 0..1 of the trained learner; means of step size and momentum."""

    loss: jax.Array
    accuracy: jax.Array
    step_size: jax.Array
    momentum: jax.Array


def ordered(key: jax.Array, learned: Learned, curriculum: str) -> tuple[jax.Array, jax.Array]:
    """``(z [T, B, d], y [T, B, k])`` in the order in which one training sees them.

    Args:
      key: of the shuffled curricula and of noise.
      learned: latents and labels.
      curriculum: one of ``CURRICULA``.

    References:
      arXiv:1912.07768, section 3.2 and figure 3.
    """
    checks.one_of("gtn.ordered", "curriculum", curriculum, CURRICULA)
    z, y = learned.z, learned.y
    count, size = z.shape[:2]
    if curriculum == "shuffled_batch":
        at = jax.random.randint(key, (count,), 0, count)
        return z[at], y[at]
    if curriculum == "all_shuffled":
        at = jax.random.randint(key, (count, size), 0, count * size)
        return z.reshape(-1, z.shape[-1])[at], y.reshape(-1, y.shape[-1])[at]
    if curriculum == "noise":
        z_key, y_key = jax.random.split(key)
        classes = jax.random.randint(y_key, (count, size), 0, y.shape[-1])
        return jax.random.normal(z_key, z.shape, z.dtype), jax.nn.one_hot(classes, y.shape[-1], dtype=y.dtype)
    return z, y


def meta_loss(
    model: nn.Module,
    generator: nn.Module,
    variables: PyTree,
    learned: Learned,
    batch: Batch,
    *,
    every: int = 0,
    weight: float = 1.0,
    segment: int | str = 1,
    truncate: int | None = None,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The loss of a learner taught from ``variables`` on, with latents in the order they have.

    Args:
      model: the learner.
      generator: ``(z, y) -> images``, such as ``models.teaching.Generator``.
      variables: of the fresh learner, ``theta_0``.
      learned: what the training is made of.
      batch: real examples ``x [b, ...]``, ``y [b]`` integer classes. With intermediate losses it is divided: ``n`` of
        them and the last take ``b // (n + 1)`` rows each.
      every: an intermediate loss after every so many steps before the last; 0 for none.
      weight: ``r``, of the intermediate losses.
      segment, truncate: as in ``unroll.sgd``.
      key: for dropout, where the learner has any.

    Returns:
      ``(loss [], accuracy [])``, the accuracy that of the last loss.
    """
    count = learned.z.shape[0]
    checks.labels_within("gtn.meta_loss", "batch.y", batch.y, learned.y.shape[-1])
    number = (count - 1) // every if every and weight else 0
    checks.require(
        batch.x.shape[0] > number,
        "gtn",
        f"the batch has {batch.x.shape[0]} rows for {number + 1} losses; raise batch.size or every",
    )
    size = batch.x.shape[0] // (number + 1)
    parts = jax.tree.map(lambda a: a[: size * (number + 1)].reshape(number + 1, size, *a.shape[1:]), batch)
    rest = {name: value for name, value in variables.items() if name != "params"}

    def inner(params, rest, item):
        z, y, dropout, _ = item
        x: Any = generator.apply({"params": learned.generator}, z, y)
        logits, rest = network.train_forward(model, {**rest, "params": params}, x, dropout=dropout)
        return losses.cross_entropy(logits, y), rest

    def real(params, rest, part):
        x, y = jax.tree.map(lambda a: a[part], parts)
        logits = network.forward(model, {**rest, "params": params}, x)[0]
        return losses.cross_entropy(logits, y), losses.accuracy(logits, y)

    def between(params, rest, item):
        done = item[3] + 1
        due = (done % every == 0) & (done < count)
        nothing = jnp.zeros((), learned.log_rates.dtype)
        return lax.cond(due, lambda: real(params, rest, done // every)[0].astype(nothing.dtype), lambda: nothing)

    keys = jax.random.split(jax.random.key(0) if key is None else key, count)
    out = unroll.sgd(
        inner, variables["params"], (learned.z, learned.y, keys, jnp.arange(count)), state=rest,
        step_size=jnp.exp(learned.log_rates), momentum=jnp.exp(learned.log_momenta),
        observe=between if number else None, segment=segment, truncate=truncate,
    )  # fmt: skip
    loss, accuracy = real(out.params, out.state, 0)
    return loss + (weight * jnp.sum(out.observed) if number else 0.0), accuracy


def momenta(state: State) -> jax.Array:
    """The learned momentum ``[T]`` of each step; ``Distilled.lr`` has the step sizes."""
    return jnp.exp(state.learned.log_momenta)


def make(
    model: nn.Module,
    *,
    inner_steps: int = 32,
    curriculum: str = "full",
    latent_size: int = 128,
    hidden: int = 1024,
    filters: int = 128,
    weight_norm: bool = True,
    step_size: float = 0.02,
    momentum: float = 0.5,
    learn_step_sizes: bool = True,
    learn_labels: bool = False,
    learning_rate: float = 0.02,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    decay_steps: int = 0,
    final_rate: float = 0.1,
    every: int = 1,
    weight: float = 1.0,
    segment: int | str = 1,
    truncate: int | None = None,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Method:
    """GTN as a ``Method``.

    Args:
      model: the learner, fresh at every outer step; the paper's is ``models.get("gtn", num_classes=k)``, with its own
        ``weight_norm``.
      inner_steps: ``T``; it must divide the number of rows of the set, whose ``T``-th part is ``B``.
      curriculum: one of ``CURRICULA``.
      latent_size: ``d``.
      hidden, filters, weight_norm: of ``models.teaching.Generator``.
      step_size, momentum: where ``eta`` and ``mu`` start, above 0.
      learn_step_sizes: learn both, for each step.
      learn_labels: learn the labels too, as free numbers.
      learning_rate, b1, b2, eps: of Adam.
      decay_steps: outer steps over which its rate falls to ``final_rate`` of it along a cosine; 0 keeps it.
      every, weight: intermediate losses, as in ``meta_loss``.
      segment: rematerialisation, as in ``unroll.sgd``; the paper's is 1.
      truncate: the last steps through which gradients go; ``None`` for all.
      augment: ``augment(key, x [b, ...]) -> x`` for real batches.

    Returns:
      The method. Its starting set gives the shape of the images and the labels; pixels do not matter. The set that it
      makes has one image for each latent, and rows as in ``dd.curriculum``. Its batches are
      real examples ``x [b, ...]``, ``y [b, k]`` (the class is the largest entry), shared by all losses of a step: the
      paper's 128 for each are ``batch.size`` 128 times the number of losses.

    Raises:
      InputError: a value is outside its range, or images are no multiple of four pixels high and wide.

    References:
      arXiv:1912.07768, section 3.
    """
    where = "gtn.make"
    network.require_features(where, model)
    checks.one_of(where, "curriculum", curriculum, CURRICULA)
    counts = {"inner_steps": inner_steps, "latent_size": latent_size, "hidden": hidden, "filters": filters}
    for name, count in counts.items():
        checks.whole(where, name, count)
    checks.whole(where, "every", every, 0)
    checks.whole(where, "decay_steps", decay_steps, 0)
    for name, value in (("step_size", step_size), ("momentum", momentum), ("learning_rate", learning_rate)):
        checks.at_least(where, name, value, 0.0, strict=True)
    checks.at_least(where, "weight", weight, 0.0)
    checks.within(where, "final_rate", final_rate, 0.0, 1.0)
    for name, value in (("b1", b1), ("b2", b2)):
        checks.require(0 <= value < 1, where, f"{name} is {value}; it must be at least 0 and below 1")
    checks.require(
        not learn_labels or curriculum != "noise",
        where,
        "noise has random labels; leave learn_labels out or choose another curriculum",
    )
    checks.at_least(where, "eps", eps, 0.0)
    unroll.check_spans(where, segment, truncate, least=1)
    rate = optax.cosine_decay_schedule(learning_rate, decay_steps, final_rate) if decay_steps else learning_rate
    adam = optax.adam(rate, b1=b1, b2=b2, eps=eps)
    chosen = {"generator": True, "z": curriculum != "noise", "y": learn_labels and curriculum != "noise"}
    chosen |= {"log_rates": learn_step_sizes, "log_momenta": learn_step_sizes}
    names = [name for name, is_learned in chosen.items() if is_learned]

    def generator_for(shape):
        checks.require(
            len(shape) == 3, where, f"examples have shape {shape}; expected images [height, width, channels]"
        )
        return teaching.Generator(tuple(shape), hidden, filters, weight_norm)

    def init(key, distilled0):
        x, y = inputs.start(where, distilled0)
        network.require_outputs(where, model, x, y.shape[1])
        y = dd.curriculum(labels.uncentred(y), inner_steps)
        g_key, z_key = jax.random.split(key)
        z = jax.random.normal(z_key, (*y.shape[:2], latent_size), x.dtype)
        generator = generator_for(x.shape[1:]).init(g_key, z[0], y[0])["params"]
        logs = (jnp.full(inner_steps, jnp.log(value), x.dtype) for value in (step_size, momentum))
        learned = Learned(generator, z, y, *logs)
        return State(learned, adam.init(_pick(learned, names)), jnp.zeros(x.shape[1:], x.dtype))

    def step(key, state, batch):
        batch = inputs.targets(where, state.blank[None], state.learned.y[0], batch)
        order_key, learner_key, dropout_key = jax.random.split(key, 3)
        variables = network.init(model, learner_key, state.blank[None])
        x = batch.x if augment is None else augment(jax.random.fold_in(key, 3), batch.x)
        real = Batch(x, labels.classes(batch.y))
        generator = generator_for(batch.x.shape[1:])

        def objective(values):
            at = state.learned._replace(**values)
            z, y = ordered(order_key, at, curriculum)
            return meta_loss(
                model, generator, variables, at._replace(z=z, y=y), real,
                every=every, weight=weight, segment=segment, truncate=truncate, key=dropout_key,
            )  # fmt: skip

        values = _pick(state.learned, names)
        (loss, accuracy), gradient = jax.value_and_grad(objective, has_aux=True)(values)
        updates, opt_state = adam.update(gradient, state.opt_state)
        new = state.learned._replace(**jax.tree.map(jnp.add, values, updates))
        means = (jnp.mean(jnp.exp(logs)) for logs in (state.learned.log_rates, state.learned.log_momenta))
        return State(new, opt_state, state.blank), Info(loss, accuracy, *means)

    def distilled(state):
        at, generator = state.learned, generator_for(state.blank.shape)
        images = lax.map(lambda zy: generator.apply({"params": at.generator}, *zy), (at.z, at.y))
        return Distilled(dd.rows(images), dd.rows(at.y), jnp.exp(at.log_rates))

    def usage(state):
        return {"momentum": momenta(state).tolist()}

    return Method(init, step, distilled, usage)


def _pick(learned: Learned, names: list[str]) -> dict[str, Any]:
    return {name: getattr(learned, name) for name in names}
