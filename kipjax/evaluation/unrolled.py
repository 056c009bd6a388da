"""Networks trained on a set exactly as it was unrolled: its batches in their order, its own step sizes, no more steps.

The protocol of DD (arXiv:1811.10959, section 4), SLDD and TDD (arXiv:1910.02551) and GTN (arXiv:1912.07768). Real
images of the same number are trained on in the same way, by a step size of their own: the best of a grid on *training*
images, or that of the set.
"""

import functools
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
from kipjax.evaluation import krr
from kipjax.evaluation.result import Result, Task
from kipjax.methods import dd
from kipjax.types import Batch, Distilled, PyTree

__all__ = ["GRID", "evaluate", "step_size_for", "trained_accuracies"]

GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Constant step sizes that the baselines of DD are tried with."""


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
    checks.require(
        distilled.lr is not None and jnp.ndim(distilled.lr) == 1,
        "evaluation.unrolled",
        f"distilled.lr is {distilled.lr}; expected one step size for each step, [steps]",
    )
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
    key: jax.Array, model: nn.Module, distilled: Distilled, task: Task, *, inner_steps: int, **options: Any
) -> Distilled:
    """``distilled`` with the constant step size of ``GRID``, or its own if it is as good, that suits it best.

    Chosen on 1000 random training images with three networks, never on test images; a set without step sizes must have
    an array ``lr [T]`` of any values for their number.
    """
    draw_key, key = jax.random.split(key)
    rows = np.asarray(draw.without_replacement(draw_key, min(1000, len(task.x_train)), len(task.x_train)))
    x, classes = np.asarray(task.x_train)[rows], np.asarray(task.train_labels)[rows]
    candidates = [jnp.asarray(distilled.lr), *(jnp.full_like(jnp.asarray(distilled.lr), value) for value in GRID)]
    scores = [
        float(
            trained_accuracies(
                key, model, distilled._replace(lr=lr), x, classes, inner_steps=inner_steps, count=3, **options
            )[0].mean()
        )
        for lr in candidates
    ]
    return distilled._replace(lr=candidates[int(np.argmax(np.nan_to_num(scores, nan=-1)))])


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
    block_size: int = 1000,
) -> list[Result]:
    """A set, and random real images of its size, each by trainings of the set's own length.

    Args:
      distilled: the set, with ``lr [T]``.
      task: the data set in the same space.
      model: flax module.
      inner_steps: ``S``, batches of the set; it goes through them ``T / S`` times.
      name: of the model in the results.
      key: draws networks and subsets.
      seeds: networks (the papers: 200); with ``networks`` given, as many as there are of them.
      subset_seeds: random subsets, one network each; as many as ``seeds`` unless given.
      networks: fixed starts, stacked, for a set distilled from them; fresh ones unless given.
      momentum: of every step, ``[]`` or ``[T]``.
      optimizer: in place of the gradient, to see how flexible the set is.
      tune: random subsets take the best step size of ``GRID`` and the set's own, else the set's own.
      block_size: test examples that go through a network at once.

    Returns:
      Results of the distilled set and of the random subsets.

    Raises:
      NumericalError: networks on the distilled set left the finite numbers.
    """
    where = "evaluation.unrolled.evaluate"
    checks.same_example_shape(where, "distilled.x", distilled.x, "task.x_test", task.x_test)
    checks.require(
        np.shape(distilled.y)[1:] == (task.num_classes,),
        where,
        f"distilled.y has shape {np.shape(distilled.y)} and the task has {task.num_classes} classes; it needs one "
        "column each",
    )
    checks.whole(where, "seeds", seeds)
    count = seeds if subset_seeds is None else subset_seeds
    own_key, subset_key, tune_key = jax.random.split(jax.random.key(0) if key is None else key, 3)
    name = name or type(model).__name__
    score = functools.partial(
        trained_accuracies, model=model, x=task.x_test, classes=task.test_labels, inner_steps=inner_steps,
        networks=networks, momentum=momentum, optimizer=optimizer, block_size=block_size,
    )  # fmt: skip
    number = seeds if networks is None else len(jax.tree.leaves(networks)[0])
    accuracies, errors = score(own_key, distilled=distilled, count=number)
    if not np.all(np.isfinite(errors)):
        raise checks.NumericalError(f"{where}: a network left the finite numbers; the set's step sizes are too large")
    results = [_result("distilled", distilled, name, accuracies, errors)]
    if count:
        lr, found = None, []
        for k in jax.random.split(subset_key, count):
            set_key, net_key = jax.random.split(k)
            some = krr.subset(set_key, task, len(distilled.x))
            some = some._replace(y=dd.uncentred(some.y), lr=distilled.lr if lr is None else lr)
            if tune and lr is None:
                lr = step_size_for(
                    tune_key, model, some, task,
                    inner_steps=inner_steps, networks=networks, momentum=momentum, optimizer=optimizer,
                ).lr  # fmt: skip
            found.append(score(net_key, distilled=some._replace(lr=distilled.lr if lr is None else lr)))
        results.append(_result("random subset", distilled, name, *(jnp.concatenate(part) for part in zip(*found))))
    return results


def _result(trained_on, distilled, name, accuracies, errors):
    accuracies, errors = (np.asarray(part).tolist() for part in (accuracies, errors))
    return Result(trained_on, len(distilled.x), name, tuple(accuracies), tuple(errors))
