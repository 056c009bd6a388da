"""Groups of test images, and whether networks are right on all of them alike."""

from typing import Any, NamedTuple

import numpy as np

from kipjax import checks
from kipjax.evaluation.result import Task

__all__ = ["Fairness", "fairness", "groups"]


class Fairness(NamedTuple):
    """Accuracies by group of networks trained on one set.

    Attributes:
      accuracies: ``[networks, g]``, NaN for a group without images.
      overall: ``[networks]``.
    """

    accuracies: np.ndarray
    overall: np.ndarray

    def worst(self) -> np.ndarray:
        """``[networks]`` accuracy on the worst group."""
        return np.nanmin(self.accuracies, axis=1)

    def gap(self) -> np.ndarray:
        """``[networks]`` best group less worst."""
        return np.nanmax(self.accuracies, axis=1) - self.worst()

    def spread(self) -> np.ndarray:
        """``[networks]`` population standard deviation over groups."""
        return np.nanstd(self.accuracies, axis=1)


def groups(task: Task, kind: str = "class", *, parts: int = 4, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Groups of the test images whose accuracies should be alike.

    Args:
      task: the data.
      kind: ``"class"``; ``"brightness"``: within each class as many images in each part, from dark to light, so that a
        group is all classes' images of one part; ``"cluster"``: k-means in each class, one group for each cluster of
        each class, fitted on the training images: hidden strata of a class (as in arXiv:2011.12945).
      parts: parts of brightness, or clusters of each class.
      seed: of k-means.

    Returns:
      ``(names of the groups, group of each test image [n])``.

    Raises:
      InputError: the kind is unknown, or there are more parts than images of a class.
    """
    where = "robustness.groups"
    checks.one_of(where, "kind", kind, ("class", "brightness", "cluster"))
    checks.whole(where, "parts", parts)
    classes = np.asarray(task.test_labels)
    if kind == "class":
        return [f"class {c}" for c in range(task.num_classes)], classes
    fewest = int(np.bincount(classes, minlength=task.num_classes).min())
    checks.require(parts <= fewest, where, f"parts is {parts} and a class has {fewest} test images; lower parts")
    x = np.asarray(task.x_test, np.float64).reshape(len(classes), -1)
    found = np.empty(len(classes), int)
    for c in range(task.num_classes):
        rows = np.flatnonzero(classes == c)
        if kind == "brightness":
            order = np.argsort(np.argsort(x[rows].mean(axis=1), kind="stable"))
            found[rows] = order * parts // len(rows)
        else:
            found[rows] = c * parts + _clusters(task, c, x[rows], parts, seed)
    if kind == "brightness":
        return [f"brightness {i + 1} of {parts}" for i in range(parts)], found
    return [f"class {c}, cluster {i + 1}" for c in range(task.num_classes) for i in range(parts)], found


def _clusters(task, c, x, parts, seed):
    """The cluster of each image ``x [n, d]`` of class ``c``."""
    from sklearn import cluster  # here, so that importing this package does not import scikit-learn

    own = np.asarray(task.x_train, np.float64)[np.asarray(task.train_labels) == c].reshape(-1, x.shape[1])
    checks.require(parts <= len(own), "robustness.groups", f"class {c} has {len(own)} training images; lower parts")
    fitted: Any = cluster.KMeans(parts, n_init="auto", random_state=seed).fit(own)
    return fitted.predict(x)


def fairness(said: np.ndarray, truth: np.ndarray, group: np.ndarray, count: int) -> Fairness:
    """Accuracies by group.

    Args:
      said: ``[networks, n]`` classes, as of ``predictions`` for one setting.
      truth: ``[n]`` true classes.
      group: ``[n]`` groups in ``0 .. count - 1``.
      count: ``g``.

    Raises:
      InputError: lengths or groups do not fit.
    """
    where = "robustness.fairness"
    checks.same_length(where, "truth", truth, "group", group)
    checks.require(
        said.ndim == 2 and said.shape[1] == len(truth),
        where,
        f"said has shape {said.shape}; expected [networks, {len(truth)}]",
    )
    checks.labels_within(where, "group", group, count)
    right = said == truth
    members = np.eye(count)[group]
    with np.errstate(invalid="ignore"):
        accuracies = right @ members / members.sum(axis=0)
    return Fairness(accuracies, right.mean(axis=1))
