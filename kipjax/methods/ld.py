"""Label distillation: labels learned for real images that stay as they are, possibly of another data set.

Paper: Bohdal, Yang, Hospedales, "Flexible Dataset Distillation: Learn Labels Instead of Images", arXiv:2006.08572.

Labels and a network are updated in turn, so one training step, and no long unroll, lies between them. With a random
part ``(x_b, y_b)`` of the set, ``SCE`` the soft cross-entropy and ``CE`` that of a real batch:

- Second order: ``theta' = theta - a grad_theta SCE(f_theta(x_b), y_b)``; the labels descend ``CE(f_theta'(x), y)``;
  then ``theta`` takes an Adam step on ``SCE`` at the labels *before* their update.
- Ridge regression, first order: with features ``Phi = [phi_theta(x_b), 1]``::

      W_l = Phi^T (Phi Phi^T + lambda I)^-1 y_b,    W = (1 - alpha) stop(W_previous) + alpha W_l

  the labels descend ``CE(s [phi_theta(x), 1] W, y)`` through ``W_l``, the pseudo-gradient; then ``theta`` takes an Adam
  step on ``SCE(s Phi W, y_b)`` at the *new* labels, with ``W`` as a function of ``theta``, and so does the scale ``s``.

After each update labels are clipped to [0, 1] and each row divided by its sum. When the error on real batches has
stopped falling the network overfits: it is replaced by a fresh one (``W = 0``, ``s = 1``), the labels stay, and the
number of steps to the best window is remembered: so many steps a network should be trained on the set.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import labels, losses
from kipjax.data import draw
from kipjax.methods import inputs
from kipjax.methods._label_training import (
    FORMS,
    OPTIMIZERS,
    Trained,
    fit,
    fit_along,
    forward,
    outputs,
    ridge_weights,
    with_one,
)
from kipjax.methods._overfitting import Watch, training_steps, watch, watched
from kipjax.models import network
from kipjax.types import Batch, Distilled, Method, PyTree

__all__ = [
    "FORMS",
    "OPTIMIZERS",
    "Best",
    "Info",
    "Learner",
    "State",
    "Trained",
    "Watch",
    "fit",
    "fit_along",
    "make",
    "normalised",
    "outputs",
    "patience_for",
    "ridge_weights",
    "second_order_loss",
    "training_steps",
    "watch",
    "watched",
]


class Learner(NamedTuple):
    """The network: ``variables``, its ``opt_state``; ridge weights ``w [p + 1, k]``, scale ``s []`` and its state."""

    variables: PyTree
    opt_state: optax.OptState
    w: jax.Array
    scale: jax.Array
    scale_state: optax.OptState


class Best(NamedTuple):
    """The labels ``y [m, k]`` of the least validation ``error []`` so far, and the ``steps []`` that belong to them;
    ``count []`` label updates so far."""

    y: jax.Array
    steps: jax.Array
    error: jax.Array
    count: jax.Array


class State(NamedTuple):
    """Base images ``x [m, ...]``, labels ``y [m, k]``, their optimizer state, the network, and the watch over it; with
    validation, the best labels."""

    x: jax.Array
    y: jax.Array
    opt_state: optax.OptState
    learner: Learner
    watch: Watch
    best: Best | None = None


class Info(NamedTuple):
    """On the real batch: ``loss []`` and ``accuracy []`` in 0..1; ``inner_loss []`` of the network; ``resets []`` so
    far, and ``training_steps []`` as the function says."""

    loss: jax.Array
    accuracy: jax.Array
    inner_loss: jax.Array
    resets: jax.Array
    training_steps: jax.Array


def normalised(y: jax.Array) -> jax.Array:
    """``y [m, k]`` clipped to [0, 1], each row divided by its sum; a row of zeros becomes uniform."""
    y = jnp.clip(y, 0.0, 1.0)
    total = jnp.sum(y, axis=1, keepdims=True)
    empty = total == 0  # what is not finite stays so, and is seen in the loss
    return jnp.where(empty, 1.0 / y.shape[1], y / jnp.where(empty, 1.0, total))


def second_order_loss(
    model: nn.Module,
    variables: PyTree,
    x_b: jax.Array,
    y_b: jax.Array,
    batch: Batch,
    *,
    inner_step_size: float = 0.01,
    key: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, PyTree]]:
    """The loss of real examples after one training step on a part of the set.

    Args:
      model: flax module.
      variables: where the step starts.
      x_b: ``[n, ...]`` base images.
      y_b: ``[n, k]`` their labels, which the gradient is meant for.
      batch: real examples, ``y [b]`` integer classes.
      inner_step_size: ``a``.
      key: of dropout, for networks that have it.

    Returns:
      ``(loss [], (accuracy [], inner loss [], its gradient like the parameters))``.

    References:
      arXiv:2006.08572, algorithm 1.
    """

    key = jax.random.key(0) if key is None else key
    checks.labels_within("ld.second_order_loss", "batch.y", batch.y, y_b.shape[-1])

    def inner(params):
        return losses.cross_entropy(forward(model, {**variables, "params": params}, x_b, key)[0], y_b)

    value, gradient = jax.value_and_grad(inner)(variables["params"])
    params = jax.tree.map(lambda p, g: p - inner_step_size * g, variables["params"], gradient)
    logits = forward(model, {**variables, "params": params}, batch.x, key)[0]
    return losses.cross_entropy(logits, batch.y), (losses.accuracy(logits, batch.y), value, gradient)


def patience_for(size: int, num_classes: int) -> int:
    """The paper's window of errors for a set of ``size`` images: 100 for many classes, else 200 from 101 images, 50."""
    return 100 if num_classes > 40 else 200 if size > 100 else 50


def make(
    model: nn.Module,
    *,
    form: str = "ridge",
    batch_size: int = 50,
    learn_labels: bool = True,
    learning_rate: float = 1e-3,
    model_learning_rate: float = 1e-3,
    scale_learning_rate: float = 1e-2,
    inner_step_size: float = 0.01,
    reg: float = 1.0,
    alpha: float = 0.01,
    window: int = 0,
    validation: Batch | None = None,
    validate_every: int = 245,
) -> Method:
    """LD as a ``Method``.

    Args:
      model: network with features (``models.network``).
      form: ``"ridge"`` or ``"second_order"``.
      batch_size: images of the set in a step, at random without replacement; all of them if there are fewer.
      learn_labels: false keeps those of the starting set, rows that sum to zero moved to sum to one: the baseline of
        true labels.
      learning_rate: of Adam on the labels.
      model_learning_rate, scale_learning_rate: of Adam on the network, and on ``s``.
      inner_step_size: ``a`` of the second-order form.
      reg, alpha: ``lambda``, absolute, and ``alpha`` of the ridge form.
      window: steps in a window of errors, and of patience; 0 for ``patience_for``.
      validation: real examples ``x [v, ...]``, ``y [v, k]`` that choose the labels: every ``validate_every`` steps (the
        paper: 5 epochs) a fresh network is trained on them for ``training_steps``, and those of the least error are the
        result. Without them the last labels are. (Under ``vmap`` every step trains such a network.)

    Returns:
      The method. Of its starting set only the images and the number of classes count: labels start uniform. Its batches
      are real examples ``x [b, ...]``, ``y [b, k]`` of the target task (the class is the largest entry; the paper:
      1024). ``training_steps(state.watch)`` says how long to train on the result.

    Raises:
      InputError: a value is outside its range, or the model has no features; in ``init``, network, set and
        ``validation`` do not fit.

    References:
      arXiv:2006.08572, algorithms 1 and 2.
    """
    where = "ld.make"
    network.require_features(where, model)
    checks.one_of(where, "form", form, FORMS)
    checks.whole(where, "batch_size", batch_size)
    checks.whole(where, "window", window, 0)
    checks.whole(where, "validate_every", validate_every)
    rates = {"learning_rate": learning_rate, "model_learning_rate": model_learning_rate}
    rates |= {"scale_learning_rate": scale_learning_rate, "inner_step_size": inner_step_size, "reg": reg}
    for name, value in rates.items():
        checks.at_least(where, name, value, 0.0, strict=True)
    checks.within(where, "alpha", alpha, 0.0, 1.0)
    checks.at_least(where, "alpha", alpha, 0.0, strict=True)
    of_labels, of_model, of_scale = (optax.adam(r) for r in (learning_rate, model_learning_rate, scale_learning_rate))
    options = _Options(of_labels, of_model, of_scale, learn_labels, inner_step_size, reg, alpha)
    take = {"ridge": _ridge_step, "second_order": _second_order_step}[form]

    def init(key, distilled0):
        x, y = inputs.start(where, distilled0)
        m, k = y.shape
        network.require_outputs(where, model, x, k)
        if validation is not None:
            inputs.fit(f"{where}, validation", x, y, validation)
            checks.finite(f"{where}, validation", "x", validation.x)
        y = jnp.full_like(y, 1 / k) if learn_labels else labels.uncentred(y)
        errors = watch(window or patience_for(m, k), x.dtype)
        best = None if validation is None else _no_best(y)
        return State(x, y, of_labels.init(y), _fresh(key, model, x, k, options), errors, best)

    def step(key, state, batch):
        batch = inputs.targets(where, state.x, state.y, batch)
        draw_key, fresh_key = jax.random.split(key)
        m, k = state.y.shape
        rows = draw.without_replacement(draw_key, min(batch_size, m), m)
        real = Batch(batch.x, labels.classes(batch.y))
        y, opt_state, learner, found = take(jax.random.fold_in(key, 2), model, state, rows, real, options)
        loss, accuracy, inner = found
        now, over = watched(state.watch, 1 - accuracy)
        learner = lax.cond(over, lambda: _fresh(fresh_key, model, state.x, k, options), lambda: learner)
        info = Info(loss, accuracy, inner, now.resets, training_steps(now))
        best = None if validation is None else look(jax.random.fold_in(key, 3), state, y, now, validation)
        return State(state.x, y, opt_state, learner, now, best), info

    def look(key, state, y, now, held_out):
        def error(length):
            trained = fit(
                key, model, state.x, y, length, form=form, batch_size=batch_size, learning_rate=model_learning_rate,
                scale_learning_rate=scale_learning_rate, reg=reg, alpha=alpha,
            )  # fmt: skip
            found = outputs(model, trained, jnp.asarray(held_out.x))
            return 1 - losses.accuracy(found, labels.classes(held_out.y))

        return _better(state.best, y, jnp.maximum(training_steps(now), 1), error, validate_every)

    def distilled(state):
        if state.best is None:
            return Distilled(state.x, state.y)
        return Distilled(state.x, jnp.where(jnp.isfinite(state.best.error), state.best.y, state.y))

    def usage(state):
        best = state.best
        steps = training_steps(state.watch) if best is None or not jnp.isfinite(best.error) else best.steps
        return {"training_steps": max(1, int(steps))}

    return Method(init, step, distilled, usage)


def _no_best(y):
    zero = jnp.zeros((), jnp.int32)
    return Best(jnp.array(y), zero, jnp.asarray(jnp.inf, y.dtype), zero)


def _better(best, y, length, error, every):
    """The best labels after one more update, those of now among them if it is time to look."""
    count = best.count + 1

    def look():
        now = Best(y, length.astype(best.steps.dtype), error(length).astype(best.error.dtype), count)
        return jax.tree.map(lambda a, b: jnp.where(now.error <= best.error, a, b), now, best)

    return lax.cond(count % every == 0, look, lambda: best)._replace(count=count)


class _Options(NamedTuple):
    """The optimizers of labels, network and scale, and the hyperparameters of the steps; ``make`` documents them."""

    of_labels: optax.GradientTransformation
    of_model: optax.GradientTransformation
    of_scale: optax.GradientTransformation
    learn_labels: bool
    inner_step_size: float
    reg: float
    alpha: float


def _ridge_step(key, model, state, rows, batch, options):
    """Algorithm 2: ``(labels, their optimizer's state, network, (loss, accuracy, inner loss))`` on the ``rows``."""
    learner, x_b, alpha = state.learner, state.x[rows], options.alpha

    def label_loss(y):
        phi, h = (with_one(forward(model, learner.variables, x, key)[1]) for x in (batch.x, x_b))
        local = ridge_weights(h[:, :-1], y[rows], reg=options.reg)
        logits = learner.scale * (phi @ ((1 - alpha) * learner.w + alpha * local))
        return losses.cross_entropy(logits, batch.y), losses.accuracy(logits, batch.y)

    (loss, accuracy), gradient = jax.value_and_grad(label_loss, has_aux=True)(state.y)
    new, opt_state = _updated(state, gradient, options)

    def feature_loss(params, scale):
        _, h, statistics = forward(model, {**learner.variables, "params": params}, x_b, key)
        w = (1 - alpha) * learner.w + alpha * ridge_weights(h, state.y[rows], reg=options.reg)
        return losses.cross_entropy(scale * (with_one(h) @ w), new[rows]), (w, statistics)

    at = (learner.variables["params"], learner.scale)
    (inner, (w, statistics)), slopes = jax.value_and_grad(feature_loss, argnums=(0, 1), has_aux=True)(*at)
    moved = _trained(learner, statistics, slopes[0], options)
    change, scale_state = options.of_scale.update(slopes[1], learner.scale_state)
    moved = moved._replace(w=w.astype(learner.w.dtype), scale=learner.scale + change, scale_state=scale_state)
    return new, opt_state, moved, (loss, accuracy, inner)


def _second_order_step(key, model, state, rows, batch, options):
    """Algorithm 1; returns what ``_ridge_step`` does."""
    learner, x_b = state.learner, state.x[rows]

    def label_loss(y):
        return second_order_loss(
            model, learner.variables, x_b, y[rows], batch, inner_step_size=options.inner_step_size, key=key
        )  # fmt: skip

    (loss, (accuracy, inner, slope)), gradient = jax.value_and_grad(label_loss, has_aux=True)(state.y)
    new, opt_state = _updated(state, gradient, options)
    statistics = forward(model, learner.variables, x_b, key)[2]
    return new, opt_state, _trained(learner, statistics, slope, options), (loss, accuracy, inner)


def _updated(state, gradient, options):
    """``(labels, their optimizer's state)``."""
    if not options.learn_labels:
        return state.y, state.opt_state
    change, opt_state = options.of_labels.update(gradient, state.opt_state)
    return normalised(state.y + change), opt_state


def _trained(learner, statistics, gradient, options):
    """The network after a step of its optimizer."""
    change, opt_state = options.of_model.update(gradient, learner.opt_state)
    params = optax.apply_updates(learner.variables["params"], change)
    return learner._replace(variables={**statistics, "params": params}, opt_state=opt_state)


def _fresh(key, model, x, k, options):
    """A network with ``W = 0`` and ``s = 1``."""
    variables = network.init(model, key, x)
    width = variables["params"]["head"]["kernel"].shape[0]
    scale = jnp.ones((), x.dtype)
    return Learner(
        variables,
        options.of_model.init(variables["params"]),
        jnp.zeros((width + 1, k), x.dtype),
        scale,
        options.of_scale.init(scale),
    )
