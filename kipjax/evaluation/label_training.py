"""Networks trained on a set of soft labels as label distillation tests its own (arXiv:2006.08572, section 4).

Both forms: the whole network, or its features under a running mean of ridge classifiers, which predicts. A learned set
says how many steps; for true labels the number is the best on *training* images that are set aside.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kipjax import checks
from kipjax.core import losses
from kipjax.data import draw
from kipjax.evaluation import _real_sets
from kipjax.evaluation._fit import in_blocks
from kipjax.evaluation.result import Result, Task, check_task
from kipjax.methods import ld
from kipjax.types import Distilled

__all__ = ["DEFAULT", "STEPS", "Training", "evaluate", "steps_for"]

STEPS = (10, 25, 50, 75, *range(100, 1001, 100))
"""Numbers of steps that true labels are tried with; for more than 100 images those of ``_MORE`` too."""

_MORE = (1200, 1500, 1700)


class Training(NamedTuple):
    """How a network is trained on soft labels.

    Attributes:
      form, batch_size, reg, alpha: as in ``ld.make``.
      learning_rate, scale_learning_rate: those of the network and of the scale there.
      optimizer: of the network, ``"adam"``, or ``"sgd"`` with momentum 0.9.
    """

    form: str = "ridge"
    batch_size: int = 50
    learning_rate: float = 1e-3
    scale_learning_rate: float = 1e-2
    reg: float = 1.0
    alpha: float = 0.01
    optimizer: str = "adam"


DEFAULT = Training()
"""The paper's."""


def steps_for(
    key: jax.Array,
    distilled: Distilled,
    task: Task,
    model: nn.Module,
    *,
    training: Training = DEFAULT,
    held_out: int = 1000,
) -> int:
    """The number of steps with the least error on held-out training images, by one training on the set.

    Args:
      key: draws the images and the training.
      distilled: the set, labels that sum to one.
      task: of whose training images ``held_out``, at most a fifth, decide.
      model: as in ``ld.make``.
      training: how it is trained.
      held_out: how many.
    """
    draw_key, key = jax.random.split(key)
    some, _ = _hold_out(draw_key, task, held_out)
    lengths = jnp.array((*STEPS, *_MORE) if len(distilled.x) > 100 else STEPS)
    along = jax.jit(functools.partial(ld.fit_along, model=model, **training._asdict()))
    trained = along(key, x=jnp.asarray(distilled.x), y=jnp.asarray(distilled.y), lengths=lengths)
    scores = jax.lax.map(lambda one: losses.accuracy(ld.outputs(model, one, some[0]), some[1]), trained)
    return int(lengths[int(np.argmax(np.nan_to_num(scores, nan=-1)))])


def evaluate(
    distilled: Distilled,
    task: Task,
    model: nn.Module,
    *,
    steps: int = 0,
    training: Training = DEFAULT,
    name: str = "",
    key: jax.Array | None = None,
    seeds: int = 5,
    subset_seeds: int | None = None,
    block_size: int = 1000,
) -> list[Result]:
    """A set of soft labels, and random real images of its number with true ones, each by trainings of the same form.

    Args:
      distilled: the set; labels that do not sum to one are shifted until they do.
      task: the data set in the same space.
      model: flax module with features.
      steps: of the training on the set; 0 for those of ``steps_for``, which random images always take.
      training: on both.
      name: of the model in the results.
      key: draws everything.
      seeds: networks trained on the set.
      subset_seeds: random subsets, one network each; as many as ``seeds`` unless given, 0 for none.
      block_size: test images that go through a network at once.

    Returns:
      Results of the distilled set and of the random subsets, which share no image with those that choose their steps.

    Raises:
      InputError: the shapes do not fit.
      NumericalError: a network left the finite numbers.
    """
    where = "evaluation.label_training.evaluate"
    check_task(where, task, distilled)
    checks.one_of(where, "form", training.form, ld.FORMS)
    checks.one_of(where, "optimizer", training.optimizer, ld.OPTIMIZERS)
    for what, value, least in (("steps", steps, 0), ("seeds", seeds, 1), ("subset_seeds", subset_seeds or 0, 0)):
        checks.whole(where, what, value, least)
    count = seeds if subset_seeds is None else subset_seeds
    own_key, subset_key, tune_key = jax.random.split(jax.random.key(0) if key is None else key, 3)
    sets = {"distilled": [_summing_to_one(distilled)] * seeds}
    if count:
        rest = _hold_out(jax.random.split(tune_key)[0], task, 1000)[1]  # steps_for holds the others out
        sets["random subset"] = [
            _real_sets.random(k, rest, len(distilled.x)) for k in jax.random.split(subset_key, count)
        ]
    results = []
    for i, (trained_on, some) in enumerate(sets.items()):
        length = steps if steps and not i else steps_for(tune_key, some[0], task, model, training=training)
        keys = jax.random.split(jax.random.fold_in(own_key, i), len(some))
        score = functools.partial(_score, model=model, block_size=block_size, training=training)
        scores = [score(k, one.x, one.y, length, task.x_test, task.test_labels) for k, one in zip(keys, some)]
        accuracies, errors = (tuple(map(float, part)) for part in zip(*scores))
        if not np.all(np.isfinite(errors)):
            raise checks.NumericalError(f"{where}: a network ({trained_on}) left the finite numbers; look for NaN")
        results.append(Result(trained_on, len(distilled.x), name or type(model).__name__, accuracies, errors))
    return results


@functools.partial(jax.jit, static_argnames=("model", "training", "block_size"))
def _score(key, x, y, steps, x_test, classes, *, model, training, block_size):
    trained = ld.fit(key, model, x, y, steps, **training._asdict())
    found = in_blocks(lambda block: ld.outputs(model, trained, block), jnp.asarray(x_test), block_size)
    classes = jnp.asarray(classes)
    likely = found if training.form == "ridge" else jax.nn.softmax(found)
    return losses.accuracy(found, classes), losses.mse(likely, jax.nn.one_hot(classes, found.shape[1]))


def _hold_out(key, task, size):
    """``((x, classes), task)`` of random training images, at most a fifth, and of the others."""
    n = len(task.x_train)
    rows = np.asarray(draw.without_replacement(key, max(1, min(size, n // 5)), n))
    others, x, classes = np.setdiff1d(np.arange(n), rows), np.asarray(task.x_train), np.asarray(task.train_labels)
    return (jnp.asarray(x[rows]), jnp.asarray(classes[rows])), task._replace(
        x_train=x[others], train_labels=classes[others]
    )


def _summing_to_one(distilled):
    y = jnp.asarray(distilled.y)
    return Distilled(jnp.asarray(distilled.x), y + (1 - jnp.sum(y, axis=1, keepdims=True)) / y.shape[1])
