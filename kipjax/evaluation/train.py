"""Networks trained from scratch on a distilled set, by the protocols with which the papers report their sets.

``fit`` trains one network by a ``protocols.Protocol`` (``_fit``, whose single step is in ``_step``), ``evaluate`` many,
on the distilled set and on random real images of the same number, and scores them. Test data are looked at once, at the
end: where a protocol selects weights it does so on training images that are in no set. Which paper trains how is in
``protocols``, DC (arXiv:2006.05929) first.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from kipjax import checks, models
from kipjax.core import labels, losses
from kipjax.data import draw
from kipjax.evaluation import krr, protocols
from kipjax.evaluation._fit import Network, fit, fit_along, fresh, in_blocks, predict
from kipjax.evaluation._step import Objective, penalty
from kipjax.evaluation.protocols import Protocol
from kipjax.evaluation.result import Result, Task
from kipjax.types import Batch, Distilled

__all__ = ["Network", "Objective", "build", "evaluate", "fit", "fit_along", "fresh", "in_blocks", "penalty", "predict"]


def build(name: str, task: Task, **options: int) -> nn.Module:
    """The network ``models.get(name)`` for a task; ``options`` (width, depth) go to ConvNets alone.

    A ConvNet is as deep as ``models.depth_for`` says for the size of the images, unless ``depth`` is given; what the
    name itself says (``"convnet:depth=2"``) comes first.

    Raises:
      InputError: the name is unknown, or the examples are no images.
    """
    model = models.get(name, num_classes=task.num_classes)
    if not isinstance(model, models.convnet.ConvNet):
        return model
    shape = np.shape(task.x_test)
    checks.require(
        len(shape) == 4,
        "evaluation.train.build",
        f"{name} is for images [n, height, width, channels] and x_test has shape {shape}; choose another, such as mlp",
    )
    word, own = models.parse(name)
    options = {"depth": models.depth_for(min(shape[1:3]))} | options | own
    return models.get(word, num_classes=task.num_classes, **options)


def evaluate(
    distilled: Distilled,
    task: Task,
    model: nn.Module | None = None,
    *,
    protocol: Protocol | str = "rcig",
    name: str = "",
    key: jax.Array | None = None,
    seeds: int = 5,
    subset_seeds: int | None = None,
    full_size: int = 0,
    flip: bool = False,
    parallel: int = 0,
    block_size: int = 1000,
) -> list[Result]:
    """Networks trained on a distilled set, and on random real images of the same number, by the same protocol.

    Every random subset is another one, and has one network. Real images have centred one-hot labels, and the learned
    step size of the distilled set where the protocol uses that. For a protocol that stops early, 500 random training
    images per class (100 unless there are ten classes; at most a fifth of all) are set aside to decide when, and the
    subsets are drawn from the others.

    Args:
      distilled: the set.
      task: the data set in the same space; its name settles what ``named`` says.
      model: flax module that takes ``(x, *, train)``; that of the protocol unless given.
      protocol: the name of one, or any ``Protocol``.
      name: of the model in the results; the protocol's or the class's unless given.
      key: draws everything.
      seeds: networks trained on the set.
      subset_seeds: random subsets; as many as ``seeds`` unless given, 0 for none.
      full_size: training images for an upper baseline of ``seeds`` networks: the whole training set if it has no more,
        otherwise so many drawn at random, and the result is named so. 0 leaves it out.
      flip: the set was distilled with its mirror images.
      parallel: networks trained at once; 0 for one after the other on CPU and all at once elsewhere. (Two busy cores,
        ConvNet of width 32, milliseconds for a step of one network, one by one and 5 at once: 9.8 and 11.5 on 10
        images, 110 to 139 and 140 on 100.)
      block_size: test images that go through a network at once.

    Returns:
      One ``Result`` each for the distilled set, the random subsets and the real images.

    Raises:
      InputError: the shapes of set, task and model do not fit, or there is no such protocol.
      NumericalError: a network left the finite numbers.
    """
    where = "evaluation.train.evaluate"
    _check_evaluation(where, distilled, task, seeds, subset_seeds, full_size, parallel, block_size)
    size = distilled.x.shape[0]
    if isinstance(protocol, str):
        protocol = protocols.for_task(protocol, task, size)
    checks.require(
        isinstance(protocol, Protocol),
        where,
        f"protocol is {protocol!r}; give a Protocol, or the name of one: {', '.join(protocols.NAMED)}",
    )
    name = name or (protocol.model if model is None else type(model).__name__)
    if model is None:
        model = build(protocol.model, task, **({"width": protocol.width} if protocol.width else {}))
    keys = jax.random.split(jax.random.key(0) if key is None else key, 6)
    validation, rest = _hold_out(keys[0], task) if protocol.patience else (None, task)
    count = seeds if subset_seeds is None else subset_seeds

    # The distilled set once for each network, so that its program is that of the subsets and compiles once.
    sets = {"distilled": ([distilled] * seeds, keys[1], seeds)}
    if count:
        sets["random subset"] = [krr.subset(k, rest, size) for k in jax.random.split(keys[2], count)], keys[3], count
    if full_size:
        whole = full_size >= len(rest.x_train)
        some = krr.subset(keys[4], rest, min(full_size, len(rest.x_train)))
        sets["full training set" if whole else "random training images"] = [some], keys[5], seeds

    results = []
    for trained_on, (some, set_key, networks) in sets.items():
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(s._replace(lr=distilled.lr) for s in some))
        outputs = _train_all(
            jax.random.split(set_key, networks), stacked, validation, jnp.asarray(task.x_test),
            model=model, protocol=protocol, flip=flip, parallel=_parallel(parallel, networks), block_size=block_size,
        )  # fmt: skip
        accuracies, mses = _scores(where, np.asarray(outputs), task, protocol, f"{trained_on}, {name}")
        results.append(Result(trained_on, some[0].x.shape[0], name, accuracies, mses))
    return results


@functools.partial(jax.jit, static_argnames=("model", "protocol", "flip", "parallel", "block_size"))
def _train_all(keys, sets, validation, x_test, *, model, protocol, flip, parallel, block_size):
    """Test outputs ``[networks, n, k]`` of networks trained on ``sets``, one set for each or one for all."""

    def one(args):
        key, index = args
        distilled = jax.tree.map(lambda leaf: leaf[index], sets)
        trained = fit(key, model, distilled, protocol=protocol, flip=flip, validation=validation)
        return predict(model, trained, x_test, protocol=protocol, block_size=block_size)

    indices = jnp.arange(len(keys)) % len(sets.x)
    return lax.map(one, (keys, indices), batch_size=parallel if parallel > 1 else None)


def _check_evaluation(where, distilled, task, seeds, subset_seeds, full_size, parallel, block_size):
    checks.same_example_shape(where, "distilled.x", distilled.x, "task.x_test", task.x_test)
    shape, k = np.shape(distilled.y), task.num_classes
    checks.require(
        shape[1:] == (k,),
        where,
        f"distilled.y has shape {shape} and the task has {k} classes; it needs one column each",
    )
    checks.require(len(task.x_test) > 0, where, "task.x_test is empty; at least one point is needed")
    for name, value, low in (
        ("seeds", seeds, 1),
        ("subset_seeds", subset_seeds or 0, 0),
        ("full_size", full_size, 0),
        ("parallel", parallel, 0),
        ("block_size", block_size, 1),
    ):
        checks.whole(where, name, value, low)


def _hold_out(key, task):
    """``(validation, task)`` with no training image in both."""
    n = len(task.x_train)
    checks.at_least("evaluation.train.evaluate", "number of training images, a fifth of which validates,", n, 5)
    count = min((500 if task.num_classes == 10 else 100) * task.num_classes, n // 5)
    rows = np.asarray(draw.without_replacement(key, count, n))
    others = np.setdiff1d(np.arange(n), rows)
    classes = np.asarray(task.train_labels)
    validation = Batch(jnp.asarray(task.x_train[rows]), labels.one_hot(classes[rows], task.num_classes))
    return validation, task._replace(x_train=task.x_train[others], train_labels=classes[others])


def _parallel(parallel, networks):
    if parallel:
        return min(parallel, networks)
    return 1 if jax.default_backend() == "cpu" else networks


def _scores(where, outputs, task, protocol, what):
    """Accuracies and errors, one for each network; a cross-entropy's errors are those of its probabilities."""
    lost = int((~np.isfinite(outputs)).any(axis=(1, 2)).sum())
    if lost:
        raise checks.NumericalError(
            f"{where}: {lost} of {len(outputs)} networks ({what}) left the finite numbers under {protocol.name}; "
            f"look for NaN in the set, or lower its learning rate ({protocol.learning_rate:g})"
        )
    classes = jnp.asarray(task.test_labels)
    targets = labels.one_hot(task.test_labels, task.num_classes)
    if protocol.loss.endswith("cross_entropy"):
        outputs = labels.center(jax.nn.softmax(outputs))
    accuracies = tuple(float(losses.accuracy(some, classes)) for some in outputs)
    return accuracies, tuple(float(losses.mse(some, targets)) for some in outputs)
