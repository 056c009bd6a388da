"""Sets of real images with which DD compares its own (arXiv:1811.10959, section 4): random, averages, clusters."""

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.core import labels
from kipjax.data import initial
from kipjax.evaluation import krr
from kipjax.evaluation.result import Task
from kipjax.types import Distilled

__all__ = ["averages", "clusters", "random"]


def random(key: jax.Array, task: Task, size: int) -> Distilled:
    """``size`` random training images, one-hot labels."""
    some = krr.subset(key, task, size)
    return some._replace(y=some.y + 1 / task.num_classes)


def averages(task: Task, size: int) -> Distilled:
    """The mean training image of each class, ``size / k`` times, class after class."""
    copies = _per_class("average", task, size)
    means = initial.class_means(task.x_train, task.train_labels, num_classes=task.num_classes)
    return Distilled(jnp.repeat(means.x, copies, axis=0), _one_hot(task, copies))


def clusters(key: jax.Array, task: Task, size: int) -> Distilled:
    """The centres of ``size / k`` clusters of each class, class after class: Lloyd's, from a k-means++ start."""
    from sklearn.cluster import KMeans  # here, so that importing this package does not import it

    count, x, classes = _per_class("kmeans", task, size), np.asarray(task.x_train), np.asarray(task.train_labels)
    flat, seed, centres = x.reshape(len(x), -1), int(jax.random.randint(key, (), 0, 2**31 - 1)), []
    for c in range(task.num_classes):
        own = flat[classes == c]
        checks.require(
            len(own) >= count,
            "evaluation.unrolled",
            f"class {c} has {len(own)} training images and k-means needs {count} for its clusters; leave 'kmeans' out",
        )
        fitted = KMeans(count).set_params(n_init=1, random_state=seed).fit(own)
        centres.append(fitted.cluster_centers_)
    found = np.concatenate(centres).reshape(-1, *x.shape[1:]).astype(np.float32)
    return Distilled(jnp.asarray(found), _one_hot(task, count))


def _per_class(name, task, size):
    checks.require(
        size % task.num_classes == 0,
        "evaluation.unrolled",
        f"baseline {name!r} has equally many images of each of {task.num_classes} classes and the set has {size}; "
        "leave it out",
    )
    return size // task.num_classes


def _one_hot(task, copies):
    return labels.one_hot(np.arange(task.num_classes).repeat(copies), task.num_classes, centered=False)
