"""Nearest neighbours trained on a distilled set: what its images and labels are worth without a network.

arXiv:1811.10959, section 4; arXiv:1910.02551, section 4: soft labels count as their largest entry.
"""

from typing import Any

import jax
import numpy as np

from kipjax import checks
from kipjax.evaluation import krr
from kipjax.evaluation.result import Result, Task, check_task
from kipjax.types import Distilled

__all__ = ["evaluate", "predict"]


def predict(distilled: Distilled, x: Any, *, neighbours: int = 1, p: float = 2.0) -> np.ndarray:
    """Classes ``[n]`` by a majority among the nearest rows of a set; ties go to the first class.

    Args:
      distilled: ``x [m, ...]``, ``y [m, k]``.
      x: ``[n, ...]``.
      neighbours: how many vote, at most ``m``.
      p: distances are p-norms of the difference, flattened; above 0.
    """
    checks.whole("evaluation.neighbours", "neighbours", neighbours)
    checks.within("evaluation.neighbours", "neighbours", neighbours, 1, len(distilled.x))
    checks.at_least("evaluation.neighbours", "p", p, 0.0, strict=True)
    where = "evaluation.neighbours"
    checks.same_length(where, "distilled.x", distilled.x, "distilled.y", distilled.y)
    checks.same_example_shape(where, "distilled.x", distilled.x, "x", x)
    for name, values in (("distilled.x", distilled.x), ("x", x)):
        checks.finite(where, name, values)
    flat = np.asarray(distilled.x).reshape(len(distilled.x), -1)
    from sklearn.neighbors import KNeighborsClassifier  # here, so that importing this package does not import it

    model = KNeighborsClassifier(neighbours, algorithm="brute").set_params(p=p)
    model.fit(flat, np.asarray(distilled.y).argmax(axis=1))
    return model.predict(np.asarray(x).reshape(len(x), -1))


def evaluate(
    distilled: Distilled,
    task: Task,
    *,
    key: jax.Array | None = None,
    seeds: int = 5,
    neighbours: int = 1,
    p: float = 2.0,
) -> list[Result]:
    """A set and random real images of its size, by the nearest neighbours among them.

    Args:
      distilled: the set.
      task: the data set in the same space.
      key: draws the random subsets.
      seeds: how many; 0 for none.
      neighbours, p: as in ``predict``.

    Returns:
      Results of the distilled set and of the random subsets, the errors being half the mean squared error of one-hot
      predictions.
    """
    check_task("evaluation.neighbours", task, distilled)
    checks.whole("evaluation.neighbours", "seeds", seeds, 0)
    name, truth = f"{neighbours}-nn", np.asarray(task.test_labels)
    keys = jax.random.split(jax.random.key(0) if key is None else key, max(seeds, 1))[:seeds]
    sets = {"distilled": [distilled], "random subset": [krr.subset(k, task, len(distilled.x)) for k in keys]}
    results = []
    for trained_on, some in sets.items():
        scores = [float(np.mean(predict(one, task.x_test, neighbours=neighbours, p=p) == truth)) for one in some]
        if scores:
            errors = tuple((1 - score) / task.num_classes for score in scores)
            results.append(Result(trained_on, len(distilled.x), name, tuple(scores), errors))
    return results
