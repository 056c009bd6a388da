"""Matching training trajectories: a student that trains on the set ends where an expert trained on real data is.

Paper: Cazenavette, Wang, Torralba, Efros, Zhu, "Dataset Distillation by Matching Training Trajectories", CVPR 2022,
arXiv:2203.11932.

- Experts (section 3.1): networks trained by SGD on real images, their parameters kept after every epoch: ``expert``.
- Outer loss (section 3.2): ``|theta_N - theta*_{t+M}|^2 / |theta*_t - theta*_{t+M}|^2``, where the student starts from
  the expert's ``theta*_t`` and takes ``N`` SGD steps of size ``alpha`` on the set, augmented.
- Algorithm 1: images and ``alpha`` learned by SGD with momentum, through all ``N`` steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jax.flatten_util import ravel_pytree

from kipjax import checks
from kipjax.core import labels, matching, unroll
from kipjax.data import diffaug, draw
from kipjax.methods import _sgd, inputs
from kipjax.models import network
from kipjax.types import Distilled, Method, PyTree

__all__ = ["Info", "State", "expert", "make", "outer_loss", "parameters"]

_SIX = "color_crop_cutout_flip_scale_rotate"


class State(NamedTuple):
    """Images ``x [m, ...]``, their fixed targets ``y [m, k]``, the student's step size ``lr []``, momenta of images and
    step size, and steps taken."""

    x: jax.Array
    y: jax.Array
    lr: jax.Array
    opt_state: optax.OptState
    lr_opt_state: optax.OptState
    count: jax.Array


class Info(NamedTuple):
    """``loss []``, 1 for a student that stayed where it was; ``student_lr []``, its step size; both before the update.

    A step size may fall below zero: then lower its own learning rate.
    """

    loss: jax.Array
    student_lr: jax.Array


def outer_loss(
    loss: Callable[[PyTree, jax.Array], jax.Array], start: PyTree, target: PyTree, lr: jax.Array, *, steps: int
) -> jax.Array:
    """The distance to ``target`` after ``theta <- theta - lr grad loss(theta, n)`` for ``n = 0 .. steps - 1``.

    Reverse mode goes through all steps and computes each anew on the way back, so that memory holds the parameters of
    every step and the maps of one.

    Args:
      loss: ``(theta, n []) -> []``, the training loss at the examples of step ``n``.
      start: ``theta*_t``, any pytree.
      target: ``theta*_{t+M}``.
      lr: ``[]``.
      steps: ``N``; with none the loss is 1.

    Returns:
      ``[]``.

    References:
      arXiv:2203.11932, section 3.2.
    """
    student = unroll.sgd(loss, start, jnp.arange(steps), step_size=lr, segment=1).params if steps else start
    return matching.trajectory_distance(student, target, start)


def make(
    model: nn.Module,
    *,
    strategy: str = _SIX,
    mode: diffaug.Mode = "single",
    steps: int = 20,
    expert_epochs: int = 2,
    max_start_epoch: int = 20,
    curriculum_steps: int = 0,
    batch_size: int = 0,
    learning_rate: float = 1000.0,
    momentum: float = 0.5,
    student_lr: float = 0.01,
    lr_learning_rate: float = 1e-5,
) -> Method:
    """MTT as a ``Method``. The paper's values differ by data set; the defaults are those for CIFAR-100, 10 a class.

    Args:
      model: network with features (``models.network``), that of the experts; the paper's is
        ``models.get("dc_convnet", num_classes=k)``.
      strategy: augmentation of the student's examples, operations joined by underscores as ``data.diffaug`` lists them;
        digits take no ``flip``.
      mode: ``"single"`` draws one of them each time, ``"multiple"`` applies all in their order.
      steps: ``N`` of the student.
      expert_epochs: ``M``, from where the student starts to where it should be.
      max_start_epoch: the student starts at one of the epochs 0 .. ``max_start_epoch - 1``, each as likely.
      curriculum_steps: steps of the method over which that bound rises from 1 to ``max_start_epoch``; 0 starts with it.
      batch_size: images in a step of the student, 0 for the whole set. All images are used before one comes again.
      learning_rate, momentum: of SGD on the images.
      student_lr: first step size of the student, unless the set brings one.
      lr_learning_rate: of SGD on it, with the same momentum.

    Returns:
      The method; its batches are trajectories ``x [b, epochs + 1, p]`` as ``expert`` makes them, over which the loss is
      averaged (the paper has one); ``y`` is not used. The learned step size is the ``lr`` of the distilled set.

    Raises:
      InputError: a value is outside its range, an operation does not exist, the model has no features, or (at the call)
        trajectories are too short or of another network.
    """
    where = "mtt.make"
    network.require_features(where, model)
    for name, value in (("expert_epochs", expert_epochs), ("max_start_epoch", max_start_epoch)):
        checks.whole(where, name, value)
    for name, value in (("steps", steps), ("curriculum_steps", curriculum_steps), ("batch_size", batch_size)):
        checks.whole(where, name, value, 0)
    for name, value in (("learning_rate", learning_rate), ("lr_learning_rate", lr_learning_rate)):
        checks.at_least(where, name, value, 0.0)
    checks.at_least(where, "student_lr", student_lr, 0.0, strict=True)
    checks.within(where, "momentum", momentum, 0.0, 1.0)
    augment = diffaug.independent(strategy, mode=mode)
    optimizer, lr_optimizer = (optax.sgd(rate, momentum=momentum) for rate in (learning_rate, lr_learning_rate))

    def init(key, distilled0):
        x, y = inputs.start(where, distilled0)
        network.require_outputs(where, model, x, y.shape[1])
        given = student_lr if distilled0.lr is None else distilled0.lr
        checks.require(not jnp.shape(given), where, f"lr has shape {jnp.shape(given)}; the student has one step size")
        lr = jnp.array(given, x.dtype)
        return State(x, y, lr, optimizer.init(x), lr_optimizer.init(lr), jnp.zeros((), jnp.int32))

    def step(key, state, batch):
        epoch_key, order_key, augment_key = jax.random.split(key, 3)
        template = _template(model, state.x)
        check_trajectories(batch.x, template)
        batch = inputs.typed(state.x, batch)
        starts = jax.random.randint(epoch_key, (len(batch.x),), 0, bound(state.count))

        def objective(learned):
            x, lr = learned
            values = [student(x, lr, one, at, i) for i, (one, at) in enumerate(zip(batch.x, starts))]
            return jnp.mean(jnp.stack(values))

        def student(x, lr, trajectory, at, i):
            keys = jax.random.fold_in(order_key, i), jax.random.fold_in(augment_key, i)
            loss = student_loss(template, x, state.y, *keys)
            return outer_loss(loss, trajectory[at], trajectory[at + expert_epochs], lr, steps=steps)

        loss, (slope, lr_slope) = jax.value_and_grad(objective)((state.x, state.lr))
        updates, opt_state = optimizer.update(slope, state.opt_state)
        lr_update, lr_opt_state = lr_optimizer.update(lr_slope, state.lr_opt_state)
        new = State(state.x + updates, state.y, state.lr + lr_update, opt_state, lr_opt_state, state.count + 1)
        return new, Info(loss, state.lr)

    def bound(count):
        """Exclusive upper bound ``[]`` of the start epoch after ``count`` steps."""
        if not curriculum_steps:
            return max_start_epoch
        return jnp.minimum(max_start_epoch, 1 + (max_start_epoch - 1) * count // curriculum_steps)

    def student_loss(template, x, y, order_key, augment_key):
        """``(theta [p], n) -> []`` at the images of the student's step ``n``."""
        statistics, unravel = template
        targets, rows = labels.classes(y), _batches(order_key, len(x), batch_size, steps)

        def loss(theta, n):
            some, weights = rows(n)
            images = augment(jax.random.fold_in(augment_key, n), x[some])
            logits, _ = network.train_forward(model, {**statistics, "params": unravel(theta)}, images)
            return _sgd.weighted_loss(logits, targets[some], weights) / jnp.sum(weights)

        return loss

    def check_trajectories(trajectories, template):
        p = ravel_pytree(template.statistics["params"])[0].size
        needed = max_start_epoch + expert_epochs
        shape = trajectories.shape
        checks.require(
            len(shape) == 3 and shape[2] == p,
            where,
            f"the batch has x of shape {shape}, and {type(model).__name__} has {p} parameters; expected trajectories "
            f"[b, epochs + 1, {p}] of experts of the same architecture",
        )
        checks.require(
            shape[1] >= needed,
            where,
            f"trajectories have {shape[1] - 1} epochs, and max_start_epoch {max_start_epoch} with expert_epochs "
            f"{expert_epochs} needs {needed - 1}; lower one of them, or train experts for longer",
        )

    return Method(init, step, lambda state: Distilled(state.x, state.y, state.lr))


def expert(
    key: jax.Array,
    model: nn.Module,
    x: jax.Array,
    classes: jax.Array,
    *,
    epochs: int = 50,
    learning_rate: float = 0.01,
    batch_size: int = 256,
    decay_epoch: int = 0,
    strategy: str = _SIX,
    mode: diffaug.Mode = "single",
    block_size: int = 0,
) -> jax.Array:
    """The parameters of a fresh network before and after each epoch of SGD on real images, pure.

    Args:
      key: draws the network, the order and the augmentation.
      model: the network.
      x: ``[n, ...]`` images in preprocessed space.
      classes: ``[n]`` integer.
      epochs: passes over the images.
      learning_rate: without momentum and weight decay.
      batch_size: images in a step.
      decay_epoch: epochs after which the rate falls to a tenth, 0 for never.
      strategy, mode: of the augmentation, each image with a draw of its own.
      block_size: images that go through the network at once, 0 for a few on a CPU and all elsewhere.

    Returns:
      ``[epochs + 1, p]``, flattened as by ``jax.flatten_util.ravel_pytree``. Running statistics are not in it.

    References:
      arXiv:2203.11932, section 3.1.
    """
    where = "mtt.expert"
    network.require_features(where, model)
    checks.same_length(where, "x", x, "classes", classes)
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("decay_epoch", decay_epoch, 0)):
        checks.whole(where, name, value, least)
    checks.whole(where, "block_size", block_size, 0)
    checks.at_least(where, "learning_rate", learning_rate, 0.0, strict=True)
    augment, size = diffaug.independent(strategy, mode=mode), _sgd.block_size(block_size)
    variables = network.init(model, key, x)

    def one(variables, i):
        rate = jnp.where(decay_epoch and i >= decay_epoch, 0.1, 1.0) * learning_rate
        epoch_key = jax.random.fold_in(key, i)
        variables = _sgd.epoch(
            epoch_key, model, variables, x, classes,
            learning_rate=rate, batch_size=batch_size, augment=augment, size=size,
        )  # fmt: skip
        return variables, parameters(variables)

    _, after = lax.scan(one, variables, jnp.arange(epochs))
    return jnp.concatenate([parameters(variables)[None], after])


def parameters(variables: dict[str, PyTree]) -> jax.Array:
    """All parameters as one vector ``[p]``, without running statistics."""
    return ravel_pytree(variables["params"])[0]


class _Template(NamedTuple):
    """Variables of the shape that a network has (its statistics are fresh), and a vector ``[p]`` as its parameters."""

    statistics: dict[str, PyTree]
    unravel: Callable[[jax.Array], PyTree]


def _template(model, x):
    shapes = jax.eval_shape(lambda: network.init(model, jax.random.key(0), x))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return _Template(zeros, ravel_pytree(zeros["params"])[1])


def _batches(key, m, size, steps):
    """``rows(n) -> (indices, weights)`` of step ``n``: parts of a random order, then of a new one when it is used up.

    Where ``size`` does not divide ``m``, the first part of each order is the smaller one, filled up with weight zero;
    batch norm sees what fills it all the same.
    """
    if not size or size >= m:
        everything = jnp.arange(m), jnp.ones(m)
        return lambda n: everything
    parts = -(-m // size)
    passes = -(-max(steps, 1) // parts)
    orders = jax.vmap(lambda k: draw.without_replacement(k, m, m))(jax.random.split(key, passes))
    position = jnp.arange(parts * size).reshape(parts, size)[::-1]

    def rows(n):
        at = position[n % parts]
        return orders[n // parts][at % m], (at < m).astype(jnp.float32)

    return rows
