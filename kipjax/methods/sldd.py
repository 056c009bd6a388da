"""Soft-label dataset distillation: dataset distillation that learns the labels along with the images.

Paper: Sucholutsky, Schonlau, "Soft-Label Dataset Distillation and Text Dataset Distillation", arXiv:1910.02551.

Algorithm 1 is that of ``dd`` but for the targets of the inner loss, a learned vector for each image::

    l(x~, y~; theta) = mean_i sum_c y~_ic (-log softmax(f_theta(x~_i))_c)

The numbers in ``y~`` are free by default: they may be negative and sum to anything. As this loss is linear in them,
``(a y~, eta / a)`` trains exactly like ``(y~, eta)``, so only their product is determined; ``label_form="softmax"``
takes the softmax of what is learned instead. With the labels frozen at one-hot rows it is DD. There may be fewer images
than classes.

Two classes have two logits here, and not one with a binary cross-entropy as in the authors' program.
"""

import functools

import jax
import numpy as np

from kipjax import checks
from kipjax.methods import dd
from kipjax.methods.dd import Info, State

__all__ = ["LABELS", "Info", "State", "initial_labels", "make"]

LABELS = ("one_hot", "smoothed", "normal", "uniform", "zeros", "ones")

make = functools.partial(dd.make, learn_labels=True, step_size=0.01)
"""SLDD as a ``Method``; arguments as in ``dd.make``, with labels that are learned and a first step size of 0.01."""


def initial_labels(
    key: jax.Array, classes: jax.Array | np.ndarray, num_classes: int, kind: str = "one_hot"
) -> jax.Array:
    """Labels ``[m, k]`` to start from.

    Args:
      key: for the random kinds.
      classes: ``[m]`` class of each image; fewer images than classes are allowed.
      num_classes: ``k``.
      kind: ``"one_hot"`` (the paper), ``"smoothed"`` (``0.9 one-hot + 0.1 / k``), ``"normal"`` N(0, 1), ``"uniform"``
        U(0, 1), ``"zeros"``, which have no gradient to start with, or ``"ones"``.

    Raises:
      InputError: the kind is unknown, or a class is outside ``0 .. k - 1``.
    """
    checks.one_of("sldd.initial_labels", "kind", kind, LABELS)
    checks.labels_within("sldd.initial_labels", "classes", classes, num_classes)
    hard, shape = jax.nn.one_hot(classes, num_classes), (len(classes), num_classes)
    if kind in ("normal", "uniform"):
        return getattr(jax.random, kind)(key, shape)
    return {"one_hot": hard, "smoothed": 0.9 * hard + 0.1 / num_classes, "zeros": 0 * hard, "ones": 0 * hard + 1}[kind]
