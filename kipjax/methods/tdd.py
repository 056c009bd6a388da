"""Text dataset distillation: sentences and soft labels learned through a whole training.

Paper: Sucholutsky, Schonlau, "Soft-Label Dataset Distillation and Text Dataset Distillation", arXiv:1910.02551,
section 3.3.

A sentence of ``length`` words is a one-channel image ``[length, dimension, 1]`` of its word vectors (``data.text``).
What is learned are such images, anywhere in the space of vectors: the method is ``sldd`` on them. The distilled
sentences are read by the nearest word of each vector, for the eye alone; networks are trained on the vectors.

Networks: ``models.get("text_convnet")``, ``"bi_rnn"``, ``"bi_lstm"``. Dropout is drawn anew at every inner step.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from kipjax import checks
from kipjax.data import text
from kipjax.methods import sldd
from kipjax.methods.dd import Info, State
from kipjax.types import Distilled

__all__ = ["Info", "Sentence", "State", "make", "sentences"]

make = functools.partial(sldd.make, inner_steps=1, epochs=5)
"""TDD as a ``Method``; arguments as in ``dd.make``. The paper's twenty sentences for IMDB: one batch, five epochs."""


class Sentence(NamedTuple):
    """A distilled sentence: its nearest words, and its label, a weight ``[k]`` for each class."""

    words: str
    label: np.ndarray


def sentences(distilled: Distilled, vectors: text.Vectors) -> list[Sentence]:
    """What a distilled set says, row by row.

    Args:
      distilled: ``x [m, length, d, 1]``, ``y [m, k]``.
      vectors: the vocabulary of the sentences that it was made from.
    """
    x, y = jax.device_get((distilled.x, distilled.y))
    checks.same_length("tdd.sentences", "x", x, "y", y)
    return [Sentence(words, label) for words, label in zip(text.decode(x, vectors), np.asarray(y))]
