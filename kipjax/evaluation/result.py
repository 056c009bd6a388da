"""What every evaluation takes and gives."""

import math
from typing import NamedTuple

import jax
import numpy as np

from kipjax import checks
from kipjax.evaluation import metrics
from kipjax.types import Distilled

__all__ = ["Approximation", "Result", "Task", "check_task"]


class Task(NamedTuple):
    """A labelled data set in the preprocessed space of the set that is evaluated.

    ``x_train [n, ...]``, ``x_test [n, ...]``; ``train_labels [n]``, ``test_labels [n]`` integer classes; ``name`` as in
    ``data.load``, for protocols that differ by data set.
    """

    x_train: jax.Array
    train_labels: jax.Array
    x_test: jax.Array
    test_labels: jax.Array
    num_classes: int
    name: str = ""


def check_task(where: str, task: Task, distilled: Distilled) -> None:
    """Each part of a task that is there must have one class within ``num_classes`` for each example, and the set
    ``x [m, ...]``, ``y [m, k]`` examples and labels of that form.

    Raises:
      InputError: it has not.
    """
    checks.same_example_shape(where, "distilled.x", distilled.x, "task.x_test", task.x_test)
    checks.same_length(where, "distilled.x", distilled.x, "distilled.y", distilled.y)
    checks.require(
        np.shape(distilled.y)[1:] == (task.num_classes,),
        where,
        f"distilled.y has shape {np.shape(distilled.y)} and the task has {task.num_classes} classes; it needs one "
        "column each",
    )
    for part, x, classes in (("train", task.x_train, task.train_labels), ("test", task.x_test, task.test_labels)):
        if x is not None:
            checks.same_length(where, f"task.x_{part}", x, f"task.{part}_labels", classes)
            checks.labels_within(where, f"task.{part}_labels", classes, task.num_classes)


class Approximation(NamedTuple):
    """How close a distilled set comes to a reference set of real images (``evaluation.metrics`` defines the measures).

    ``reference_size`` real images; ``weak_epsilon`` and ``strong_epsilon`` with the zero-one loss, in 0..1;
    ``compression_ratio``; ``distillation_ratio`` ``r_M`` in percent; ``weak_interval`` and ``strong_interval`` are 95 %
    bootstrap intervals of the epsilons over the test points, ``(low, high)``.
    """

    reference_size: int
    weak_epsilon: float
    strong_epsilon: float
    compression_ratio: float
    distillation_ratio: float
    weak_interval: tuple[float, float] = (math.nan, math.nan)
    strong_interval: tuple[float, float] = (math.nan, math.nan)


class Result(NamedTuple):
    """Test accuracies (fractions) and errors of one model trained on one set, one value per repetition.

    ``approximation`` compares a distilled set with the largest real set that was scored beside it, if one was.
    """

    trained_on: str
    size: int
    model: str
    accuracies: tuple[float, ...]
    mses: tuple[float, ...]
    approximation: Approximation | None = None

    @property
    def accuracy(self) -> metrics.Summary:
        """Mean, standard deviation and n of the accuracies."""
        return metrics.summarize(self.accuracies)

    @property
    def mse(self) -> metrics.Summary:
        """Mean, standard deviation and n of the half mean squared errors against centred one-hot targets."""
        return metrics.summarize(self.mses)
