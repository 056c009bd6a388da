"""Dataset distillation: images, and the step size of every step, learned through a whole short training.

Paper: Wang, Zhu, Torralba, Efros, "Dataset Distillation", arXiv:1811.10959.

- Inner training, ``T = S E`` plain gradient steps (``S`` batches in a fixed order, ``E`` epochs; images are tied over
  epochs, step sizes are not)::

      theta_{t+1} = theta_t - eta_t grad_theta l(x_s, y_s; theta_t),   s = t mod S,   eta_t = softplus(r_t)

- Outer loss, equation (3): ``E_{theta_0} l(x, y; theta_T)`` on real images, ``l`` the mean softmax cross-entropy; one
  Adam step on all images and all ``r_t`` together.
- ``theta_0``: fresh at each step, fixed, or drawn from networks trained on other data (sections 3.3 and 4.2).
- Malicious objective, equation (8): the outer label of the attacked class is another class, all others stay.

A set of ``m`` rows is a curriculum of ``S`` batches: batch ``s`` has the rows ``s, s + S, s + 2 S, ...``, so that a set
whose rows are grouped by class has every class in every batch. ``sldd`` learns the labels too, ``tdd`` on text. Two
classes have two outputs, as any other number (the program of the paper has one, and a sigmoid).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from kipjax import checks
from kipjax.core import labels, losses, unroll
from kipjax.data import draw
from kipjax.methods import inputs
from kipjax.models import network
from kipjax.types import Batch, Distilled, Method, PyTree

__all__ = [
    "LABEL_FORMS",
    "STARTS",
    "Info",
    "Learned",
    "State",
    "check_pretrained",
    "check_step_sizes",
    "curriculum",
    "make",
    "outer_loss",
    "rows",
    "starts",
    "train",
]

STARTS = ("random", "fixed")
LABEL_FORMS = ("free", "softmax")


class Learned(NamedTuple):
    """``x [m, ...]``, ``y [m, k]`` (their logits if they go through a softmax), ``raw_step_sizes [T]``, ``r_t``."""

    x: jax.Array
    y: jax.Array
    raw_step_sizes: jax.Array


class State(NamedTuple):
    """The learned set, its optimizer state, and the networks that a training may start from, stacked, or ``None``."""

    learned: Learned
    opt_state: optax.OptState
    networks: PyTree


class Info(NamedTuple):
    """Outer ``loss []``, ``accuracy []`` in 0..1 on the step's (possibly changed) labels, and mean step size ``[]``."""

    loss: jax.Array
    accuracy: jax.Array
    step_size: jax.Array


def curriculum(x: jax.Array, steps: int) -> jax.Array:
    """``[m, ...] -> [S, m / S, ...]``: batch ``s`` has the rows ``s, s + S, ...``.

    Raises:
      InputError: ``m`` is no multiple of ``steps``, or the curriculum is longer than the set.
    """
    m = x.shape[0]
    checks.require(
        m >= steps,
        "dd.curriculum",
        f"a curriculum of {steps} steps is longer than the data, {m} rows; lower inner_steps or raise ipc",
    )
    checks.divides("dd.curriculum", "the number of rows", m, "inner_steps", steps)
    return jnp.swapaxes(x.reshape(m // steps, steps, *x.shape[1:]), 0, 1)


def rows(batches: jax.Array) -> jax.Array:
    """``[S, b, ...] -> [S b, ...]``, the inverse of ``curriculum``."""
    return jnp.swapaxes(batches, 0, 1).reshape(-1, *batches.shape[2:])


def starts(key: jax.Array, model: nn.Module, x: jax.Array, count: int) -> PyTree:
    """``count`` fresh networks for examples like ``x [n, ...]``, stacked: leaves ``[count, ...]``.

    With the run's key they are those that ``start="fixed"`` distils for.
    """
    return jax.vmap(lambda k: network.init(model, k, x))(jax.random.split(key, count))


def train(
    key: jax.Array,
    model: nn.Module,
    variables: PyTree,
    batches: Batch,
    step_sizes: jax.Array,
    *,
    momentum: float | jax.Array = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    segment: int | str = 0,
    truncate: int | None = None,
) -> PyTree:
    """A network after the inner training, differentiable in all arguments.

    Args:
      key: for dropout, where the network has any.
      model: flax module.
      variables: where it starts, ``theta_0``.
      batches: curriculum ``x [S, b, ...]``, ``y [S, b, k]`` any weights of classes: probabilities, or free numbers.
      step_sizes: ``[T]``; step ``t`` takes batch ``t mod S``.
      momentum, optimizer, segment, truncate: as in ``unroll.sgd``.

    Returns:
      ``variables`` at ``theta_T``.
    """
    rest = {name: value for name, value in variables.items() if name != "params"}

    def loss(params, rest, item):
        x, y, dropout = item
        logits, rest = network.train_forward(model, {**rest, "params": params}, x, dropout=dropout)
        return losses.cross_entropy(logits, y), rest

    count, size = step_sizes.shape[0], batches.x.shape[0]
    at = jnp.arange(count) % size
    items = batches.x[at], batches.y[at], jax.random.split(key, count)
    out = unroll.sgd(
        loss, variables["params"], items, step_size=step_sizes, momentum=momentum,
        optimizer=optimizer, state=rest, segment=segment, truncate=truncate,
    )  # fmt: skip
    return {**out.state, "params": out.params}


def outer_loss(
    model: nn.Module,
    variables: PyTree,
    distilled: Distilled,
    batch: Batch,
    *,
    inner_steps: int,
    key: jax.Array | None = None,
    segment: int | str = 0,
    truncate: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """``l(x, y; theta_T)`` after the inner training from one network.

    Args:
      model: flax module.
      variables: ``theta_0``.
      distilled: ``x [m, ...]``, ``y [m, k]`` weights of classes, ``lr [T]`` step sizes ``eta``.
      batch: real examples ``x [b, ...]``; ``y [b, k]``, or ``[b]`` integer classes.
      inner_steps: ``S``, batches of the set.
      key: for dropout, where the network has any.
      segment, truncate: as in ``unroll.sgd``.

    Returns:
      ``(loss [], accuracy [] in 0..1)``.

    Raises:
      InputError: the set is no curriculum of ``S`` batches, or has not a step size for each step of whole epochs; a
        class that the network lacks.

    References:
      arXiv:1811.10959, equations (3) and (4).
    """
    where = "dd.outer_loss"
    batches = Batch(*(curriculum(a, inner_steps) for a in (distilled.x, distilled.y)))
    check_step_sizes(where, distilled.lr, inner_steps)
    key = jax.random.key(0) if key is None else key
    trained = train(key, model, variables, batches, jnp.asarray(distilled.lr), segment=segment, truncate=truncate)
    logits = network.forward(model, trained, batch.x)[0]
    classes = labels.classes(batch.y) if jnp.ndim(batch.y) == 2 else batch.y
    checks.labels_within(where, "batch.y", classes, logits.shape[-1])
    return losses.cross_entropy(logits, classes), losses.accuracy(logits, classes)


def check_step_sizes(where: str, lr: Any, inner_steps: int) -> None:
    """``lr [T]`` must have one step size for each step of one or more passes over ``inner_steps`` batches.

    Raises:
      InputError: there are none, or not so many.
    """
    given = "None" if lr is None else f"of shape {np.shape(lr)}"
    checks.require(
        lr is not None and np.ndim(lr) == 1 and len(lr) > 0 and len(lr) % inner_steps == 0,
        where,
        f"distilled.lr is {given}; expected one step size for each step: {inner_steps} batches take [{inner_steps}], "
        "or a multiple of that for more passes over them",
    )


def make(
    model: nn.Module,
    *,
    inner_steps: int = 10,
    epochs: int = 3,
    step_size: float = 0.02,
    learn_images: bool = True,
    learn_labels: bool = False,
    learn_step_sizes: bool = True,
    label_form: str = "free",
    learning_rate: float = 0.01,
    halve_every: int = 0,
    start: str = "random",
    networks: int = 1,
    pretrained: PyTree = None,
    attacked: int = -1,
    target: int = -1,
    segment: int | str = 0,
    truncate: int | None = None,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Method:
    """DD as a ``Method``.

    Args:
      model: network that is called with ``(x, *, train, features)``; its ``initial`` says how ``theta_0`` is drawn (the
        paper: ``"xavier"``).
      inner_steps: ``S``, batches of the set; it must divide the number of rows.
      epochs: ``E``, passes over them.
      step_size: ``eta`` at the start, above 0.
      learn_images, learn_labels, learn_step_sizes: what is learned; labels are SLDD's.
      label_form: labels are ``"free"`` numbers, or the ``"softmax"`` of what is learned.
      learning_rate: of Adam (betas 0.5 and 0.999), the same for all.
      halve_every: outer steps after which it is halved, again and again; 0 for never. (The paper: 40 epochs.)
      start: ``theta_0`` is ``"random"``, fresh at each outer step, or ``"fixed"``, drawn once.
      networks: how many ``theta_0`` share an outer step; the loss is their mean.
      pretrained: networks trained on other data, stacked (leaves ``[n, ...]``), to start from instead: each outer step
        draws ``networks`` of the ``n``, all different.
      attacked, target: the malicious objective: outer labels of class ``attacked`` become ``target``; -1 for none.
      segment: rematerialisation, as in ``unroll.sgd``.
      truncate: the last steps through which gradients go, as in ``unroll.sgd``; ``None`` for all, as the paper.
      augment: ``augment(key, x [b, ...]) -> x`` for real batches.

    Returns:
      The method; its batches are real examples ``x [b, ...]``, ``y [b, k]`` (the class is the largest entry; the paper:
      1024 uniform). Starting labels are taken as they are, but centred ones, probabilities less 1/k, are moved to
      sum to one; ``Distilled.y`` is not centred. ``Distilled.lr`` is ``eta [T]``.

    Raises:
      InputError: a value is outside its range, nothing is learned, or the attacked class is the target; in ``init``,
        pretrained networks are of another model.

    References:
      arXiv:1811.10959, algorithm 1; arXiv:1910.02551, algorithm 1a.
    """
    where = "dd.make"
    network.require_features(where, model)
    for name, count in (("inner_steps", inner_steps), ("epochs", epochs), ("networks", networks)):
        checks.whole(where, name, count)
    checks.whole(where, "halve_every", halve_every, 0)
    for name, value in (("step_size", step_size), ("learning_rate", learning_rate)):
        checks.at_least(where, name, value, 0.0, strict=True)
    checks.one_of(where, "start", start, STARTS)
    checks.one_of(where, "label_form", label_form, LABEL_FORMS)
    unroll.check_spans(where, segment, truncate, least=1)
    _check_attack(where, attacked, target)
    available = check_pretrained(where, pretrained, networks)
    learned = {"x": learn_images, "y": learn_labels, "raw_step_sizes": learn_step_sizes}
    names = [name for name, chosen in learned.items() if chosen]
    checks.require(bool(names), where, "nothing is learned; set learn_images, learn_labels or learn_step_sizes")
    rate = optax.exponential_decay(learning_rate, halve_every, 0.5, staircase=True) if halve_every else learning_rate
    adam = optax.adam(rate, b1=0.5, b2=0.999)

    def init(key, distilled0):
        x, y = inputs.start(where, distilled0)
        curriculum(x, inner_steps)
        network.require_outputs(where, model, x, y.shape[1])
        checks.require(
            max(attacked, target) < y.shape[1], where, f"attacked is {attacked}, target {target}; classes: {y.shape[1]}"
        )
        raw = jnp.full(inner_steps * epochs, step_size + jnp.log(-jnp.expm1(-jnp.asarray(step_size, x.dtype))), x.dtype)
        at = Learned(x, labels.uncentred(y), raw)
        kept = starts(key, model, x, networks) if start == "fixed" else None
        if pretrained is not None:
            _require_same_networks(where, jax.eval_shape(lambda: starts(key, model, x, available)), pretrained)
            kept = jax.tree.map(jnp.array, pretrained)
        return State(at, adam.init(_pick(at, names)), kept)

    def theta_0(key, state):
        if pretrained is not None and networks < available:
            some = draw.without_replacement(key, networks, available)
            return jax.tree.map(lambda leaf: leaf[some], state.networks)
        return starts(key, model, state.learned.x, networks) if state.networks is None else state.networks

    def step(key, state, batch):
        start_key, dropout_key, augment_key = jax.random.split(key, 3)
        batch = inputs.targets(where, state.learned.x, state.learned.y, batch)
        x = batch.x if augment is None else augment(augment_key, batch.x)
        classes = labels.classes(batch.y)
        classes = jnp.where(classes == attacked, target, classes)
        variables = theta_0(start_key, state)

        def of_one(learned, variables, key):
            return outer_loss(
                model, variables, _set(learned, label_form), Batch(x, classes),
                inner_steps=inner_steps, key=key, segment=segment, truncate=truncate,
            )  # fmt: skip

        def objective(values):
            at = state.learned._replace(**values)
            if networks == 1:
                return of_one(at, jax.tree.map(lambda leaf: leaf[0], variables), dropout_key)
            keys = jax.random.split(dropout_key, networks)
            return jax.tree.map(jnp.mean, jax.vmap(of_one, in_axes=(None, 0, 0))(at, variables, keys))

        values = _pick(state.learned, names)
        (loss, accuracy), gradient = jax.value_and_grad(objective, has_aux=True)(values)
        updates, opt_state = adam.update(gradient, state.opt_state)
        new = state.learned._replace(**jax.tree.map(jnp.add, values, updates))
        info = Info(loss, accuracy, jnp.mean(jax.nn.softplus(state.learned.raw_step_sizes)))
        return state._replace(learned=new, opt_state=opt_state), info

    return Method(init, step, lambda state: _set(state.learned, label_form))


def _set(learned, form):
    y = jax.nn.softmax(learned.y) if form == "softmax" else learned.y
    return Distilled(learned.x, y, jax.nn.softplus(learned.raw_step_sizes))


def _check_attack(where, attacked, target):
    given = [value for value in (attacked, target) if value != -1]
    for name, value in (("attacked", attacked), ("target", target)):
        checks.whole(where, name, value, -1)
    checks.require(
        len(given) != 1, where, f"attacked is {attacked} and target is {target}; give both classes, or -1 for both"
    )
    checks.require(
        not given or attacked != target,
        where,
        f"the attacked class and the target are both {target}; the target must be another class",
    )


def check_pretrained(where: str, pretrained: PyTree, networks: int) -> int:
    """How many stacked networks ``pretrained`` has, at least ``networks``; 0 for none."""
    if pretrained is None:
        return 0
    stacked = isinstance(pretrained, Mapping) and "params" in pretrained
    counts = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(pretrained)}
    checks.require(
        len(counts) == 1 and stacked,
        where,
        "pretrained must be variables of networks stacked along a first axis, with the collection 'params'",
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(pretrained):
        checks.finite(where, f"pretrained {jax.tree_util.keystr(path)}", leaf)
    available = counts.pop()
    checks.require(networks <= available, where, f"networks is {networks} and pretrained has {available}; lower it")
    return available


def _require_same_networks(where, expected, given):
    shapes = [
        {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (expected, given)
    ]
    other = next((name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)), "")
    checks.require(
        not other,
        where,
        f"pretrained has {other} of shape {shapes[1].get(other)} and the model's networks {shapes[0].get(other)}; give "
        "networks of this model, trained on examples of this shape",
    )


def _pick(learned: Learned, names: list[str]) -> dict[str, Any]:
    return {name: getattr(learned, name) for name in names}
