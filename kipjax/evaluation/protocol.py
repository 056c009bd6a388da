"""What every evaluation takes and gives."""

from typing import NamedTuple

import jax

from kipjax.evaluation import metrics

__all__ = ["Result", "Task"]


class Task(NamedTuple):
    """A labelled data set in the preprocessed space of the set that is evaluated.

    ``x_train [n, ...]``, ``x_test [n, ...]``; ``train_labels [n]``, ``test_labels [n]`` integer classes.
    """

    x_train: jax.Array
    train_labels: jax.Array
    x_test: jax.Array
    test_labels: jax.Array
    num_classes: int


class Result(NamedTuple):
    """Test accuracies (fractions) of one model trained on one set, one value per repetition."""

    trained_on: str
    size: int
    model: str
    accuracies: tuple[float, ...]
    mses: tuple[float, ...]

    @property
    def accuracy(self) -> metrics.Summary:
        """Mean, standard deviation and n of the accuracies."""
        return metrics.summarize(self.accuracies)

    @property
    def mse(self) -> metrics.Summary:
        """Mean, standard deviation and n of the half mean squared errors against centred one-hot targets."""
        return metrics.summarize(self.mses)
