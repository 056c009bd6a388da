"""Mnemonics: the exemplars that a network keeps of its classes, learned through its own training on them.

Paper: Liu, Su, Liu, Schiele, Sun, "Mnemonics Training: Multi-Class Incremental Learning without Forgetting",
arXiv:2002.10211. Exemplars ``E`` are images with fixed labels; ``Theta`` is the network at the end of a phase.

- New classes, equations (7) and (8), a local bilevel problem whose validation set is the data ``D`` of the phase::

      Theta'(E) = Theta - alpha_2 grad L_c(Theta; E) - ...     (a few steps)
      E <- E - beta_1 grad_E L_c(Theta'(E); D)

- Old classes, equations (9) and (10), whose data are gone: ``E = A u B``, and each half validates the other::

      A <- A - beta_2 grad_A L_c(Theta'(A); B),   then   B <- B - beta_2 grad_B L_c(Theta'(B); A)

``L_c`` is the cross-entropy over all classes seen so far. The network predicts throughout (batch norm uses its running
averages), so that nothing of ``D`` leaks into ``Theta'`` but through ``E``. ``level`` chooses what is unrolled: the
``"network"``, as in the paper; the ``"head"`` alone, after the authors' first program, whose head is of plain cosines
whatever the network's own; or ``"prototypes"``, after their present one: nothing, and ``L_c`` of the cosines between
features and each class's mean feature of its exemplars. (That program validates on old exemplars too, and augments.)
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from kipjax import checks
from kipjax.core import incremental, labels, loop, losses, unroll
from kipjax.data import samplers
from kipjax.methods import dd, inputs
from kipjax.models import network
from kipjax.types import Batch, Distilled, Method, PyTree, Sampler

__all__ = ["LEVELS", "OPTIMIZERS", "Info", "State", "adjust", "halves", "learn", "make", "outer_loss", "train"]

LEVELS = ("network", "head", "prototypes")
OPTIMIZERS = {"sgd": optax.sgd, "adam": optax.adam}


class State(NamedTuple):
    """Exemplars ``x [m, ...]``, ``y [m, k]``, the optimizer's state, and the networks ``Theta``, stacked."""

    x: jax.Array
    y: jax.Array
    opt_state: optax.OptState
    networks: PyTree


class Info(NamedTuple):
    """Validation ``loss []``, and ``accuracy []`` in 0..1 on the batch, after the inner training."""

    loss: jax.Array
    accuracy: jax.Array


def train(
    model: nn.Module,
    variables: PyTree,
    x: jax.Array,
    classes: jax.Array,
    *,
    inner_steps: int,
    step_size: float | jax.Array,
    batches: int = 1,
    level: str = "network",
    seen: jax.Array | None = None,
    segment: int | str = 0,
) -> PyTree:
    """``Theta'``: the network after a few gradient steps on exemplars, differentiable in them.

    Args:
      model: flax module with features (``models.network``).
      variables: ``Theta``.
      x: ``[m, ...]`` exemplars.
      classes: ``[m]`` their classes.
      inner_steps: how many; step ``t`` takes batch ``t mod batches``.
      step_size: ``alpha_2``.
      batches: parts of the exemplars, as ``dd.curriculum`` makes them; 1 takes all at each step.
      level: ``"network"`` or ``"head"``.
      seen: ``[k]`` mask of the classes that there are; ``None`` for all.
      segment: rematerialisation, as in ``unroll.sgd``.

    Returns:
      Variables.

    References:
      arXiv:2002.10211, equation (7).
    """
    params = variables["params"]
    moving = params if level == "network" else {"head": params["head"]}

    def loss(moving, item):
        logits = network.forward(model, {**variables, "params": {**params, **moving}}, item[0])[0]
        return _cross_entropy(logits, item[1], seen)

    items = dd.curriculum(x, batches), dd.curriculum(classes, batches)
    out = unroll.sgd(loss, moving, items, step_size=step_size, steps=inner_steps, segment=segment)
    return {**variables, "params": {**params, **out.params}}


def outer_loss(
    model: nn.Module,
    variables: PyTree,
    x: jax.Array,
    classes: jax.Array,
    batch: Batch,
    *,
    level: str = "network",
    seen: jax.Array | None = None,
    anchors: Distilled | None = None,
    **options: Any,
) -> tuple[jax.Array, jax.Array]:
    """``L_c(Theta'(E); D)``, and the accuracy.

    Args:
      model, variables, x, classes, level, seen: as in ``train``.
      batch: ``D``: ``x [b, ...]``, ``y [b, k]``, the class being the largest entry.
      anchors: exemplars of other classes, which have prototypes too and get no gradient; for ``"prototypes"`` alone.
      **options: of ``train``.

    Returns:
      ``(loss [], accuracy [] in 0..1)``.

    References:
      arXiv:2002.10211, equation (8).
    """
    targets = labels.classes(batch.y)
    if level == "prototypes":
        logits, seen = _prototype_logits(model, variables, x, classes, batch, anchors)
    else:
        trained = train(model, variables, x, classes, level=level, seen=seen, **options)
        logits = network.forward(model, trained, batch.x)[0]
    logits = logits if seen is None else incremental.restrict(logits, seen)
    return losses.cross_entropy(logits, targets), losses.accuracy(logits, targets)


def make(
    model: nn.Module,
    *,
    inner_steps: int = 20,
    step_size: float = 0.01,
    batches: int = 1,
    learning_rate: float = 0.01,
    optimizer: str = "sgd",
    level: str = "network",
    networks: int = 1,
    pretrained: PyTree = None,
    seen: jax.Array | None = None,
    anchors: Distilled | None = None,
    low: float | jax.Array | None = None,
    high: float | jax.Array | None = None,
    segment: int | str = 0,
) -> Method:
    """The exemplar level as a ``Method``.

    Args:
      model: network that is called with ``(x, *, train, features)``.
      inner_steps: of the temporary network on the exemplars; 0 teaches nothing but to prototypes.
      step_size: ``alpha_2``, above 0.
      batches: parts of the exemplars, of which each inner step takes one in turn; they must divide their number. (With
        as many as images of a class, each has one of every class.)
      learning_rate: ``beta_1``.
      optimizer: ``"sgd"``, as in the paper, or ``"adam"``, whose rate is in units of pixels: gradients through a
        training on many images are small.
      level: one of ``LEVELS``.
      networks: fresh networks to stand for ``Theta`` where none are given.
      pretrained: ``Theta``: trained networks, stacked (leaves ``[n, ...]``); the loss is their mean.
      seen: ``[k]`` mask of the classes in the cross-entropy; all unless given.
      anchors: as in ``outer_loss``.
      low, high: bounds of the pixels, numbers or arrays that fit one image; none unless given.
      segment: as in ``unroll.sgd``; 1 is the least memory for a deep network.

    Returns:
      The method; its batches are real examples of the classes of the exemplars. Labels stay as they are.

    Raises:
      InputError: a value is outside its range, or the model has no features.

    References:
      arXiv:2002.10211, algorithm 1, steps 7 to 10.
    """
    where = "mnemonics.make"
    network.require_features(where, model)
    checks.whole(where, "inner_steps", inner_steps, 0)
    for name, count in (("batches", batches), ("networks", networks)):
        checks.whole(where, name, count)
    for name, value in (("step_size", step_size), ("learning_rate", learning_rate)):
        checks.at_least(where, name, value, 0.0, strict=True)
    checks.one_of(where, "optimizer", optimizer, OPTIMIZERS)
    checks.one_of(where, "level", level, LEVELS)
    checks.require(anchors is None or level == "prototypes", where, "anchors are for prototypes; leave them out")
    dd.check_pretrained(where, pretrained, 1)
    rule = OPTIMIZERS[optimizer](learning_rate)
    inner = {"inner_steps": inner_steps, "step_size": step_size, "batches": batches, "segment": segment}
    options = {"level": level, "seen": seen, "anchors": anchors, **({} if level == "prototypes" else inner)}

    def init(key, distilled0):
        x, y = inputs.start(where, distilled0)
        checks.divides(where, "the number of exemplars", len(x), "batches", batches)
        theta = dd.starts(key, model, x, networks) if pretrained is None else jax.tree.map(jnp.array, pretrained)
        return State(x, y, rule.init(x), theta)

    def step(key, state, batch):
        del key
        batch = inputs.targets(where, state.x, state.y, batch)
        objective = functools.partial(_mean, model, state.networks, labels.classes(state.y), batch, options)
        (loss, accuracy), gradient = jax.value_and_grad(objective, has_aux=True)(state.x)
        updates, opt_state = rule.update(gradient, state.opt_state)
        x = jnp.clip(state.x + updates, low, high).astype(state.x.dtype)
        return state._replace(x=x, opt_state=opt_state), Info(loss, accuracy)

    return Method(init, step, lambda state: Distilled(state.x, state.y))


def learn(
    key: jax.Array, model: nn.Module, networks: PyTree, start: Distilled, sample: Sampler, *, steps: int, **options: Any
) -> Distilled:
    """Exemplars after so many steps, compiled once for all networks, exemplars and data of the same shapes.

    Args:
      key: draws the batches.
      model: the network.
      networks: ``Theta``, stacked (leaves ``[n, ...]``).
      start: exemplars to start from.
      sample: a sampler of ``kipjax.data`` over the images that validate.
      steps: outer steps.
      **options: of ``make``.

    Returns:
      The exemplars, with the labels they had.
    """
    checks.whole("mnemonics.learn", "steps", steps, 0)
    arrays = {name: options.pop(name) for name in ("seen", "anchors", "low", "high") if name in options}
    static = tuple(sorted(options.items()))
    return _learned(key, networks, start, sample, arrays, model=model, steps=steps, options=static)


def halves(y: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of ``A`` and of ``B``: every other exemplar of each class, ``A`` having one more where odd.

    Args:
      y: ``[m, k]`` concrete labels.

    Raises:
      InputError: a class has a single exemplar.

    Example:
      >>> [rows.tolist() for rows in halves(jnp.eye(2)[jnp.array([0, 0, 1, 0, 1])])]
      [[0, 2, 3], [1, 4]]
    """
    classes = np.asarray(y).argmax(axis=1)
    counts = np.bincount(classes)
    checks.require(
        bool(np.all(counts[counts > 0] >= 2)),
        "mnemonics.halves",
        f"class {int(np.argmax(counts == 1))} has one exemplar, which cannot be halved; keep two or more of each, "
        "or do not adjust old ones",
    )
    rank = np.empty(len(classes), int)
    for c in np.flatnonzero(counts):
        rank[classes == c] = range(counts[c])
    return np.flatnonzero(rank % 2 == 0), np.flatnonzero(rank % 2 == 1)


def adjust(model: nn.Module, networks: PyTree, old: Distilled, *, steps: int = 1, **options: Any) -> Distilled:
    """Old exemplars after both halves were improved, ``A`` on ``B`` as it was, then ``B`` on the new ``A``.

    Args:
      model: the network.
      networks: ``Theta``, stacked (leaves ``[n, ...]``).
      old: ``x [m, ...]``, ``y [m, k]``, two or more of each class.
      steps: outer steps on each half; 0 changes nothing.
      **options: of ``make``; ``learning_rate`` is ``beta_2``, in the paper far below ``beta_1``.

    Returns:
      The exemplars in their order, with the labels they had.

    Raises:
      InputError: as in ``make`` and ``halves``.

    References:
      arXiv:2002.10211, equations (9) and (10).
    """
    checks.whole("mnemonics.adjust", "steps", steps, 0)
    first, second = halves(old.y)
    x = jnp.asarray(old.x)
    for part, against in ((first, second), (second, first)):
        sample = samplers.uniform(x[against], old.y[against], batch_size=len(against))
        made = learn(
            jax.random.key(0), model, networks, Distilled(x[part], old.y[part]), sample, steps=steps, **options
        )
        x = x.at[part].set(made.x)
    return Distilled(x, jnp.asarray(old.y))


@functools.partial(jax.jit, static_argnames=("model", "steps", "options"))
def _learned(key, networks, start, sample, arrays, *, model, steps, options):
    method = make(model, pretrained=networks, **dict(options), **arrays)
    init_key, run_key = jax.random.split(key)
    state, _ = loop.steps(method, steps)(sample, run_key, method.init(init_key, start), 0)
    return method.distilled(state)


def _mean(model, networks, classes, batch, options, x):
    """The outer loss and accuracy, means over networks, which are taken one after the other."""

    def one(variables):
        return outer_loss(model, variables, x, classes, batch, **options)

    if len(jax.tree.leaves(networks)[0]) == 1:
        return one(jax.tree.map(lambda leaf: leaf[0], networks))
    return jax.tree.map(jnp.mean, jax.lax.map(jax.checkpoint(one), networks))


def _cross_entropy(logits, classes, seen):
    return losses.cross_entropy(logits if seen is None else incremental.restrict(logits, seen), classes)


def _prototype_logits(model, variables, x, classes, batch, anchors):
    """``(cosines [b, k] of features and mean features of each class, mask [k] of classes that have one)``."""
    if anchors is not None:
        x = jnp.concatenate([x, jax.lax.stop_gradient(jnp.asarray(anchors.x))])
        classes = jnp.concatenate([classes, labels.classes(jnp.asarray(anchors.y))])
    of_class = jax.nn.one_hot(classes, batch.y.shape[1], dtype=x.dtype)
    h = network.forward(model, variables, jnp.concatenate([x, batch.x]))[1]
    means = (h[: len(x)].T @ of_class) / jnp.maximum(jnp.sum(of_class, axis=0), 1)
    return incremental.cosine(h[len(x) :], means), jnp.sum(of_class, axis=0)
