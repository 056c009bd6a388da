"""Networks trained on a set exactly as it was unrolled: its batches in their order, its own step sizes, no more steps.

The protocol of DD (arXiv:1811.10959, section 4), SLDD and TDD (arXiv:1910.02551) and GTN (arXiv:1912.07768). Real
images of the same number are trained on in the same way, by a step size (and number of epochs) of their own: the best
of a grid on *training* images, or that of the set. ``BASELINES`` lists which real images.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import losses
from kipjax.data import draw
from kipjax.evaluation import _real_sets
from kipjax.evaluation.result import Result, Task, check_task
from kipjax.methods import dd
from kipjax.types import Batch, Distilled, PyTree

__all__ = ["BASELINES", "GRID", "evaluate", "step_size_for", "trained_accuracies"]

GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0, 2.0)
"""Constant step sizes that baselines are tried with: those of DD up to 0.3, and larger ones, which real images need in
few steps."""

BASELINES = {
    "random": "random subset",
    "optimised": "optimised real images",
    "kmeans": "k-means of real images",
    "average": "average real images",
}
"""Real images of the same number, and what results call them. ``optimised``: the best fifth of 50 random sets, by 20
networks on 1024 training images. ``kmeans``: centres of clusters within each class. ``average``: class means, repeated.
"""

_CANDIDATES, _NETWORKS, _BATCH = 50, 20, 1024  # of "optimised"


def trained_accuracies(
    key: jax.Array,
    model: nn.Module,
    distilled: Distilled,
    x: Any,
    classes: Any,
    *,
    inner_steps: int,
    count: int = 1,
    networks: PyTree = None,
    momentum: float | jax.Array = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    block_size: int = 1000,
) -> tuple[jax.Array, jax.Array]:
    """Accuracies ``[count]`` and half mean squared errors ``[count]`` of networks trained on one set.

    Args:
      key: draws the networks, and dropout.
      model: flax module.
      distilled: ``x [m, ...]``, ``y [m, k]`` weights of classes, ``lr [T]``.
      x, classes: ``[n, ...]``, ``[n]`` integer: what they are tested on.
      inner_steps: ``S``, batches of the set.
      count: how many networks.
      networks: where they start, stacked, used in turn; fresh ones unless given.
      momentum: ``[]`` or ``[T]``.
      optimizer: direction of the steps instead of the gradient, such as ``optax.scale_by_adam()``.
      block_size: test examples that go through a network at once.
    """
    batches = Batch(*(dd.curriculum(jnp.asarray(a), inner_steps) for a in (distilled.x, distilled.y)))
    dd.check_step_sizes("evaluation.unrolled", distilled.lr, inner_steps)
    plain = isinstance(momentum, (int, float)) and momentum == 0
    return _train_all(
        jax.random.split(key, count), batches, jnp.asarray(distilled.lr), networks, None if plain else momentum,
        jnp.asarray(x), jnp.asarray(classes), model=model, optimizer=optimizer, size=min(block_size, len(x)),
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "size"))
def _train_all(keys, batches, lr, networks, momentum, x, classes, *, model, optimizer, size):
    """One compiled program for all sets of a size, so that step sizes and subsets are tried at the cost of a run."""
    given = 0 if networks is None else len(jax.tree.leaves(networks)[0])
    blocks = jnp.concatenate([x, x[:1].repeat(-len(x) % size, 0)]).reshape(-1, size, *x.shape[1:])

    def one(args):
        key, index = args
        start_key, train_key = jax.random.split(key)
        if given:
            start = jax.tree.map(lambda leaf: leaf[index % given], networks)
        else:
            start = jax.tree.map(lambda leaf: leaf[0], dd.starts(start_key, model, batches.x[0], 1))
        options = {"momentum": 0.0 if momentum is None else momentum, "optimizer": optimizer}
        trained = dd.train(train_key, model, start, batches, lr, **options)
        outputs = lax.map(lambda block: model.apply(trained, block), blocks).reshape(-1, batches.y.shape[-1])[: len(x)]
        error = losses.mse(jax.nn.softmax(outputs), jax.nn.one_hot(classes, outputs.shape[-1]))
        return losses.accuracy(outputs, classes), error

    return lax.map(one, (keys, jnp.arange(len(keys))))


def step_size_for(
    key: jax.Array,
    model: nn.Module,
    distilled: Distilled,
    task: Task,
    *,
    inner_steps: int,
    epochs: Sequence[int] = (),
    **options: Any,
) -> Distilled:
    """``distilled`` with the constant step size of ``GRID``, or its own if it is as good, that suits it best.

    Chosen on 1000 random training images with three networks, never on test images; a set without step sizes must have
    an array ``lr [T]`` of any values for their number.

    Args:
      key, model, inner_steps, **options: as in ``trained_accuracies``.
      distilled: the set.
      task: whose training images decide.
      epochs: passes over the set that are tried, each with all of ``GRID`` (DD: 1, 3, 5); none for those of ``lr``.
    """
    draw_key, key = jax.random.split(key)
    x, classes = _training_batch(draw_key, task, 1000)
    own = jnp.asarray(distilled.lr)
    lengths = [inner_steps * count for count in epochs] or [len(own)]
    candidates = [own, *(jnp.full(length, value, own.dtype) for length in lengths for value in GRID)]
    scores = [
        float(
            trained_accuracies(
                key, model, distilled._replace(lr=lr), x, classes, inner_steps=inner_steps, count=3, **options
            )[0].mean()
        )
        for lr in candidates
    ]
    return distilled._replace(lr=candidates[int(np.argmax(np.nan_to_num(scores, nan=-1)))])


def _training_batch(key, task, size):
    """So many random training images and their classes."""
    rows = np.asarray(draw.without_replacement(key, min(size, len(task.x_train)), len(task.x_train)))
    return np.asarray(task.x_train)[rows], np.asarray(task.train_labels)[rows]


def evaluate(
    distilled: Distilled,
    task: Task,
    model: nn.Module,
    *,
    inner_steps: int,
    name: str = "",
    key: jax.Array | None = None,
    seeds: int = 5,
    subset_seeds: int | None = None,
    networks: PyTree = None,
    momentum: float | jax.Array = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    tune: bool = True,
    baselines: Sequence[str] = ("random",),
    epochs: Sequence[int] = (),
    block_size: int = 1000,
) -> list[Result]:
    """A set, and real images of its number, each by trainings of the set's own length.

    Args:
      distilled: the set, with ``lr [T]``.
      task: the data set in the same space.
      model: flax module.
      inner_steps: ``S``, batches of the set; it goes through them in turn, ``T`` steps in all.
      name: of the model in the results.
      key: draws networks and subsets.
      seeds: networks (the papers: 200); with ``networks`` given, as many as there are of them.
      subset_seeds: random subsets, one network each, and networks of each other baseline (rounded up to a multiple of
        its sets); as many as ``seeds`` unless given, 0 for no baselines.
      networks: fixed starts, stacked, for a set distilled from them; fresh ones unless given.
      momentum: of every step, ``[]`` or ``[T]``.
      optimizer: in place of the gradient, to see how flexible the set is.
      tune: baselines take the best step size of ``GRID`` and the set's own, else the set's own.
      baselines: names in ``BASELINES``.
      epochs: passes over the set that ``tune`` tries, as in ``step_size_for``; not with a momentum of every step.
      block_size: test examples that go through a network at once.

    Returns:
      Results of the distilled set and of each baseline.

    Raises:
      InputError: shapes do not fit, or a baseline does not exist or has no such size.
      NumericalError: networks on the distilled set left the finite numbers.
    """
    where = "evaluation.unrolled.evaluate"
    check_task(where, task, distilled)
    checks.whole(where, "seeds", seeds)
    checks.whole(where, "subset_seeds", 0 if subset_seeds is None else subset_seeds, 0)
    checks.whole(where, "block_size", block_size)
    checks.whole(where, "inner_steps", inner_steps)
    for baseline in baselines:
        checks.one_of(where, "baseline", baseline, BASELINES)
    for passes in epochs:
        checks.whole(where, "each of epochs", passes)
    checks.require(
        not epochs or np.ndim(momentum) == 0,
        where,
        f"epochs is {tuple(epochs)} and momentum has one entry for each step; other numbers of steps have none",
    )
    count = seeds if subset_seeds is None else subset_seeds
    own_key, subset_key, tune_key = jax.random.split(jax.random.key(0) if key is None else key, 3)
    name = name or type(model).__name__
    shared = {"inner_steps": inner_steps, "networks": networks, "momentum": momentum, "optimizer": optimizer}
    shared["block_size"] = block_size
    score = functools.partial(trained_accuracies, model=model, x=task.x_test, classes=task.test_labels, **shared)
    number = seeds if networks is None else len(jax.tree.leaves(networks)[0])
    accuracies, errors = score(own_key, distilled=distilled, count=number)
    if not np.all(np.isfinite(errors)):
        raise checks.NumericalError(f"{where}: a network left the finite numbers; the set's step sizes are too large")
    results = [_result("distilled", distilled, name, accuracies, errors)]
    for baseline in baselines if count else ():
        more = {"epochs": epochs} if tune else None
        sets = _baseline(baseline, subset_key, tune_key, model, distilled, task, count, more, shared)
        each = -(-count // len(sets))
        found = [score(net_key, distilled=some, count=each) for net_key, some in sets]
        results.append(_result(BASELINES[baseline], distilled, name, *(jnp.concatenate(part) for part in zip(*found))))
    return results


def _baseline(baseline, key, tune_key, model, distilled, task, count, tune, shared):
    """``[(key of its networks, set with step sizes)]``; ``tune`` has more options of ``step_size_for``, or is None."""
    size, index = len(distilled.x), list(BASELINES).index(baseline)
    own_key = jax.random.fold_in(key, index) if index else key
    if baseline in ("random", "optimised"):
        keys = [jax.random.split(k) for k in jax.random.split(own_key, count if baseline == "random" else _CANDIDATES)]
        sets = [(net_key, _real_sets.random(set_key, task, size)) for set_key, net_key in keys]
    elif baseline == "kmeans":
        sets = [(own_key, _real_sets.clusters(own_key, task, size))]
    else:
        sets = [(own_key, _real_sets.averages(task, size))]
    first = sets[0][1]._replace(lr=distilled.lr)
    lr = distilled.lr if tune is None else step_size_for(tune_key, model, first, task, **tune, **shared).lr
    sets = [(k, some._replace(lr=lr)) for k, some in sets]
    if baseline != "optimised":
        return sets
    x, classes = _training_batch(tune_key, task, _BATCH)
    scores = [
        float(trained_accuracies(tune_key, model, some, x, classes, count=_NETWORKS, **shared)[0].mean())
        for _, some in sets
    ]
    best = np.argsort(-np.nan_to_num(scores, nan=-1), kind="stable")[: _CANDIDATES // 5]
    return [sets[i] for i in best]


def _result(trained_on, distilled, name, accuracies, errors):
    accuracies, errors = (np.asarray(part).tolist() for part in (accuracies, errors))
    return Result(trained_on, len(distilled.x), name, tuple(accuracies), tuple(errors))
