"""Sequences of phases: the classes of a data set in groups, or data sets one after the other.

Groups as in iCaRL (arXiv:1611.07725) and Mnemonics (arXiv:2002.10211), data sets as in DC (arXiv:2006.05929).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kipjax import checks
from kipjax.evaluation.result import Task

__all__ = ["Phase", "class_order", "domains", "slots", "split"]


class Phase(NamedTuple):
    """The data of one phase: ``x_train [n, ...]``, ``x_test [n', ...]``, and labels among all ``num_classes``.

    ``number`` counts from 0, ``classes`` are those that occur, ``name`` is for tables.
    """

    number: int
    name: str
    classes: tuple[int, ...]
    x_train: np.ndarray
    train_labels: np.ndarray
    x_test: np.ndarray
    test_labels: np.ndarray
    num_classes: int


def class_order(num_classes: int, seed: int = 1993) -> np.ndarray:
    """NumPy's permutation ``[k]`` of the ``k`` classes for a seed: 1993 in Mnemonics and LUCIR, 0 to 4 in DM.

    Example:
      >>> class_order(5, 0).tolist()
      [2, 0, 1, 3, 4]
    """
    checks.whole("continual.class_order", "num_classes", num_classes)
    checks.whole("continual.class_order", "seed", seed, 0)
    checks.within("continual.class_order", "seed", seed, 0, 2**32 - 1)
    return np.random.RandomState(seed).permutation(num_classes)


def split(task: Task, *, phases: int, first: int = 0, order: Sequence[int] | np.ndarray | None = None) -> list[Phase]:
    """The classes of a data set in phases.

    Args:
      task: the data.
      phases: how many have equally many classes.
      first: classes in a phase before those (Mnemonics: half of all); 0 for no such phase.
      order: ``[k]``, of the classes; ascending unless given.

    Returns:
      ``phases`` of them, and one more with ``first``. Labels stay what they are.

    Raises:
      InputError: the phases do not divide the classes, or ``order`` is no order of them.
    """
    where, k = "continual.split", task.num_classes
    checks.whole(where, "first", first, 0)
    checks.require(first < k, where, f"first is {first} and there are {k} classes; leave some for the other phases")
    checks.whole(where, "phases", phases)
    left, possible = k - first, [n for n in range(1, k - first + 1) if (k - first) % n == 0]
    checks.require(
        phases in possible,
        where,
        f"number of classes{' after the first phase' if first else ''} is {left}, which is not divisible by phases "
        f"({phases}); {left} classes can come in {', '.join(map(str, possible))} phases",
    )
    order = np.arange(k) if order is None else np.asarray(order)
    checks.require(
        np.array_equal(np.sort(order), np.arange(k)),
        where,
        f"order is {order.tolist()}; expected every class 0..{k - 1}",
    )
    groups = ([order[:first]] if first else []) + np.split(order[first:], phases)
    return [_phase(i, f"{len(group)} classes", group, task) for i, group in enumerate(groups)]


def domains(tasks: Mapping[str, Task]) -> list[Phase]:
    """Data sets with the same classes and shape of images, one after the other (DC: SVHN, MNIST, USPS).

    Raises:
      InputError: there is none, or they do not fit.
    """
    where = "continual.domains"
    checks.require(bool(tasks), where, "tasks is empty; give at least one data set")
    (first_name, first), *others = tasks.items()
    for name, task in others:
        checks.same_example_shape(where, first_name, first.x_train, name, task.x_train)
        checks.require(
            task.num_classes == first.num_classes,
            where,
            f"{name} has {task.num_classes} classes and {first_name} {first.num_classes}; they must be the same",
        )
    every = np.arange(first.num_classes)
    return [_phase(i, name, every, task) for i, (name, task) in enumerate(tasks.items())]


def slots(phases: Sequence[Phase]) -> int:
    """Classes of which the memory keeps images; the same class of two data sets counts twice."""
    return sum(len(phase.classes) for phase in phases)


def _phase(number, name, classes, task):
    train_rows = np.flatnonzero(np.isin(np.asarray(task.train_labels), classes))
    test_rows = np.flatnonzero(np.isin(np.asarray(task.test_labels), classes))
    checks.require(
        min(len(train_rows), len(test_rows)) > 0,
        "continual",
        f"phase {number + 1} ({name}) has {len(train_rows)} training and {len(test_rows)} test images; give more data",
    )
    x, y = (np.asarray(values)[train_rows] for values in (task.x_train, task.train_labels))
    x_test, y_test = (np.asarray(values)[test_rows] for values in (task.x_test, task.test_labels))
    return Phase(number, name, tuple(int(c) for c in classes), x, y, x_test, y_test, task.num_classes)
