"""Kernel ridge regression on a distilled set: what KIP and Label Solve report (arXiv:2011.00050, section 4)."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.core import krr, labels, losses, precision
from kipjax.data import initial
from kipjax.evaluation import metrics
from kipjax.evaluation.result import Approximation, Result, Task
from kipjax.types import Distilled, KernelFn

__all__ = ["SIZES", "Scores", "curve", "evaluate", "predict", "score", "subset", "worth"]

SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Of random subsets that a distilled set is compared with."""


class Scores(NamedTuple):
    """``accuracy`` in 0..1 and ``mse``, half the mean squared error against centred one-hot targets."""

    accuracy: float
    mse: float


def predict(
    kernel_fn: KernelFn,
    distilled: Distilled,
    x: jax.Array,
    *,
    reg: float = 1e-6,
    reg_unit: str = "trace",
    block_size: int = 2048,
    dtype: Any = "float64",
) -> np.ndarray:
    """Predictions ``[n, k]`` for ``x [n, ...]`` of ridge regression trained on ``distilled``.

    Args:
      kernel_fn: the kernel.
      distilled: ``x [m, ...]``, ``y [m, k]``.
      x: ``[n, ...]`` points in the same space.
      reg, reg_unit: ridge, as in ``core.krr.alpha``.
      block_size: rows of the kernel matrix held at once.
      dtype: precision of kernels and solve.

    Raises:
      InputError: shapes do not fit.
      NumericalError: the kernel matrix does not factorise.
    """
    checks.same_example_shape("evaluation.krr.predict", "distilled.x", distilled.x, "x", x)
    checks.at_least("evaluation.krr.predict", "block_size", block_size, 1)
    checks.one_of("evaluation.krr.predict", "dtype", np.dtype(dtype).name, ("float32", "float64"))
    checks.require(len(x) > 0, "evaluation.krr.predict", "x is empty; at least one point is needed")
    with precision.mode(dtype):
        x_s, y_s = jnp.asarray(distilled.x, dtype), jnp.asarray(distilled.y, dtype)
        dual = _fit(kernel_fn, x_s, y_s, float(reg), reg_unit)
        if not bool(jnp.all(jnp.isfinite(dual))):
            raise checks.NumericalError(
                f"evaluation.krr.predict: the {len(x_s)} x {len(x_s)} kernel matrix does not factorise in {dtype} with "
                f"reg = {reg:g} ({reg_unit}); try reg = {max(reg, 1e-7) * 100:g} or dtype='float64', and look for NaN "
                "or repeated examples"
            )
        starts = range(0, len(x), block_size)
        blocks = (jnp.asarray(x[start : start + block_size], dtype) for start in starts)
        return np.concatenate([np.asarray(_apply(kernel_fn, block, x_s, dual)) for block in blocks])


# The kernel is static, so that all sets of one size share one compilation.
@partial(jax.jit, static_argnums=(0, 3, 4))
def _fit(kernel_fn, x_s, y_s, reg, reg_unit):
    return krr.alpha(kernel_fn(x_s, x_s), y_s, reg=reg, reg_unit=reg_unit, solve_dtype=None)


@partial(jax.jit, static_argnums=0)
def _apply(kernel_fn, x, x_s, dual):
    return kernel_fn(x, x_s) @ dual


def score(kernel_fn: KernelFn, distilled: Distilled, x: jax.Array, y_labels: jax.Array, **options: Any) -> Scores:
    """Accuracy and error of ``predict`` on labelled points.

    Args:
      kernel_fn: the kernel.
      distilled: ``x [m, ...]``, ``y [m, k]``.
      x: ``[n, ...]``.
      y_labels: ``[n]`` integer classes.
      **options: of ``predict``.
    """
    predictions = predict(kernel_fn, distilled, x, **options)
    checks.same_length("evaluation.krr.score", "x", predictions, "y_labels", y_labels)
    return _scores(predictions, y_labels)


def subset(key: jax.Array, task: Task, size: int) -> Distilled:
    """``size`` random training points with centred one-hot labels: class-balanced if each class has enough of them."""
    counts = np.bincount(np.asarray(task.train_labels), minlength=task.num_classes)
    balanced = size % task.num_classes == 0 and counts.min() * task.num_classes >= size
    return initial.real(
        key, task.x_train, task.train_labels, size=size, num_classes=task.num_classes, balanced=bool(balanced)
    )


def evaluate(
    distilled: Distilled,
    task: Task,
    kernel_fn: KernelFn,
    *,
    model: str = "kernel",
    key: jax.Array | None = None,
    seeds: int = 5,
    full_size: int = 5000,
    **options: Any,
) -> list[Result]:
    """A distilled set, random subsets of the same size, and the training set, by the same kernel ridge regression.

    Args:
      distilled: the set.
      task: the data set in the same space.
      kernel_fn: the kernel.
      model: its name in the results.
      key: draws the random subsets; class-balanced where the size allows.
      seeds: number of random subsets.
      full_size: training points for the upper baseline: the whole training set if it has no more, otherwise so many
        drawn at random, and the result is named so. 0 leaves it out.
      **options: of ``predict``.

    Returns:
      One ``Result`` each for the distilled set, the random subsets and the training set; the first says how close the
      distilled set comes to the last.
    """
    checks.at_least("evaluation.krr.evaluate", "seeds", seeds, 1)
    checks.at_least("evaluation.krr.evaluate", "full_size", full_size, 0)
    key = jax.random.key(0) if key is None else key
    subset_key, full_key = jax.random.split(key)
    size, total = distilled.x.shape[0], len(task.x_train)
    sets = {"distilled": [distilled]}
    sets["random subset"] = [subset(k, task, size) for k in jax.random.split(subset_key, seeds)]
    if full_size >= total:
        sets["full training set"] = [Distilled(task.x_train, labels.one_hot(task.train_labels, task.num_classes))]
    elif full_size:
        sets["random training images"] = [subset(full_key, task, full_size)]
    predictions = {name: [predict(kernel_fn, s, task.x_test, **options) for s in some] for name, some in sets.items()}
    results = []
    for name, some in predictions.items():
        accuracies, mses = zip(*(_scores(p, task.test_labels) for p in some))
        results.append(Result(name, sets[name][0].x.shape[0], model, accuracies, mses))
    if full_size >= size:
        found = _approximation(predictions["distilled"][0], list(predictions.values())[-1][0], results, task)
        results[0] = results[0]._replace(approximation=found)
    return results


def curve(
    distilled: Distilled,
    task: Task,
    kernel_fn: KernelFn,
    *,
    sizes: Sequence[int] = SIZES,
    model: str = "kernel",
    key: jax.Array | None = None,
    seeds: int = 5,
    **options: Any,
) -> list[Result]:
    """A distilled set beside random subsets of many sizes, by the same kernel ridge regression.

    Args:
      distilled: the set.
      task: the data set in the same space.
      kernel_fn: the kernel.
      sizes: of the random subsets, ascending; those above the training set are left out.
      model: name of the kernel in the results.
      key: draws the subsets.
      seeds: subsets of each size.
      **options: of ``predict``.

    Returns:
      The results of the set, then those of the subsets of every size; ``worth`` reads the set off their curve.
    """
    checks.at_least("evaluation.krr.curve", "seeds", seeds, 1)
    for size in sizes:
        checks.whole("evaluation.krr.curve", "size", size)
    results = [_scored("distilled", [distilled], task, kernel_fn, model, options)]
    for key_of_size, size in zip(jax.random.split(jax.random.key(0) if key is None else key, len(sizes)), sizes):
        if size <= len(task.x_train):
            sets = [subset(k, task, size) for k in jax.random.split(key_of_size, seeds)]
            results.append(_scored("random subset", sets, task, kernel_fn, model, options))
    return results


def worth(results: Sequence[Result]) -> metrics.Worth:
    """``metrics.worth`` of what ``curve`` returns."""
    ours, *subsets = results
    sizes, accuracies = [r.size for r in subsets], [r.accuracy.mean for r in subsets]
    return metrics.worth(ours.accuracy.mean, ours.size, sizes, accuracies)


def _scored(name, sets, task, kernel_fn, model, options):
    accuracies, mses = zip(*(score(kernel_fn, s, task.x_test, task.test_labels, **options) for s in sets))
    return Result(name, sets[0].x.shape[0], model, accuracies, mses)


def _approximation(distilled, full, results, task):
    """The distilled set's predictions against those of the largest real set."""
    y = labels.one_hot(task.test_labels, task.num_classes)
    ours, reference = results[0], results[-1]
    weak, strong = metrics.weak_interval(distilled, full, y), metrics.strong_interval(distilled, full)
    return Approximation(
        reference.size,
        weak.value,
        strong.value,
        metrics.compression_ratio(reference.size, ours.size),
        metrics.distillation_ratio(ours.accuracy.mean, reference.accuracy.mean),
        weak[1:],
        strong[1:],
    )


def _scores(predictions, y_labels):
    classes, values = jnp.asarray(y_labels), jnp.asarray(predictions)
    targets = labels.one_hot(classes, values.shape[1])
    return Scores(float(losses.accuracy(values, classes)), float(losses.mse(values, targets)))
