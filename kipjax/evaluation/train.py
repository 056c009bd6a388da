"""Networks trained from scratch on a distilled set, by the protocols with which the papers report their sets.

``fit`` trains one network by a ``protocols.Protocol``, ``evaluate`` many, on the distilled set and on random real
images of the same number. Test data are looked at once, at the end: where a protocol selects weights it does so on
training images that are in no set. Which paper trains how is in ``protocols``, DC (arXiv:2006.05929) first.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from kipjax import checks, models
from kipjax.core import labels, losses
from kipjax.data import draw
from kipjax.evaluation import krr, protocols
from kipjax.evaluation.protocols import Protocol
from kipjax.evaluation.result import Result, Task
from kipjax.models import network
from kipjax.types import Batch, Distilled, PyTree

__all__ = ["Network", "Objective", "build", "evaluate", "fit", "fit_along", "fresh", "in_blocks", "penalty", "predict"]


class Network(NamedTuple):
    """A trained network: its ``variables``, and those at its start where the protocol is centred on them."""

    variables: dict[str, PyTree]
    start: dict[str, PyTree] | None = None


Objective = Callable[[PyTree, dict[str, PyTree], jax.Array, jax.Array, jax.Array], tuple[jax.Array, dict[str, PyTree]]]
"""``objective(params, variables, x, y, dropout key) -> (loss [], statistics)``: what a training step descends on."""

_OPTIMIZERS: dict[str, Callable[[Protocol], optax.GradientTransformation]] = {
    "adam": lambda protocol: optax.scale_by_adam(),
    "sgd": lambda protocol: optax.trace(protocol.momentum),
}


def build(name: str, task: Task, **options: int) -> nn.Module:
    """The network ``models.get(name)`` for a task; ``options`` (width, depth) go to ConvNets alone.

    A ConvNet is as deep as ``models.depth_for`` says for the size of the images, unless ``depth`` is given.

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
    options = {"depth": models.depth_for(min(shape[1:3]))} | options
    return models.get(name, num_classes=task.num_classes, **options)


def fit(
    key: jax.Array,
    model: nn.Module,
    distilled: Distilled,
    *,
    protocol: Protocol | str = "rcig",
    flip: bool = False,
    validation: Batch | None = None,
    start: dict[str, PyTree] | None = None,
    objective: Objective | None = None,
) -> Network:
    """Trains a network on a set: a pure function of key, set, validation images and start, for use under jit and vmap.

    Args:
      key: draws the initial weights, the batches and the augmentation.
      model: flax module that takes ``(x, *, train)``.
      distilled: ``x [m, ...]``, ``y [m, k]``; ``lr []`` where the protocol asks for a learned one.
      protocol: a ``Protocol``, or the name of one.
      flip: the set was distilled with its mirror images.
      validation: real images ``x [v, ...]``, ``y [v, k]`` for a protocol that stops early; no test images.
      start: variables of a network that goes on learning, with a fresh optimizer; without them a fresh one learns.
      objective: what is descended on, penalty included, instead of the protocol's loss.

    Returns:
      The network after the last step, or, with ``validation``, the best on that.

    Raises:
      InputError: the model has another number of outputs, a word of the protocol is unknown, or something that it needs
        is missing.

    Example:
      >>> distilled = Distilled(jnp.ones((2, 4, 4, 1)), jnp.eye(2))
      >>> trained = fit(jax.random.key(0), models.get("mlp", num_classes=2), distilled, protocol="dc")
    """
    protocol = _checked(protocol, validation)
    start, state, turn = _training(key, model, distilled, protocol, flip, start, objective)

    def train(state: tuple, first: int | jax.Array, count: int) -> tuple:
        return lax.scan(turn, state, first + jnp.arange(count))[0]

    if protocol.patience:
        variables = _best(model, protocol, train, state, validation, protocols.steps(protocol, len(distilled.x)))
    else:
        variables = train(state, 0, protocol.epochs or protocols.steps(protocol, len(distilled.x)))[0]
    return Network(variables, start if protocol.centred else None)


def fresh(key: jax.Array, model: nn.Module, distilled: Distilled) -> dict[str, PyTree]:
    """The variables with which ``fit`` starts under the same key."""
    return _init(model, jax.random.split(key, 3)[0], jnp.asarray(distilled.x), distilled.y)


def fit_along(
    key: jax.Array, model: nn.Module, distilled: Distilled, lengths: jax.Array, *, protocol: Protocol | str
) -> Network:
    """One training looked at several times: the networks of ``fit`` after each of ``lengths`` steps, stacked.

    Args:
      key, model, distilled: as in ``fit``.
      lengths: ``[l]`` numbers of steps (of epochs, for a protocol that counts those), ascending; may be traced.
      protocol: one that does not stop early. A schedule runs over its own number of steps, whatever the lengths.

    Returns:
      A ``Network`` whose leaves have a leading axis of length ``l``.

    Raises:
      InputError: as in ``fit``, or lengths that do not ascend.
    """
    protocol, where = _checked(protocol, None), "evaluation.train.fit_along"
    lengths = jnp.asarray(lengths, jnp.int32)
    if not checks.is_traced(lengths):
        rising = len(lengths) > 0 and np.all(np.diff(lengths, prepend=-1) > 0)
        checks.require(bool(rising), where, f"lengths is {lengths.tolist()}; expected ascending numbers of steps")
    start, state, turn = _training(key, model, distilled, protocol, flip=False)

    def until(carry: tuple, last: jax.Array) -> tuple:
        state, first = carry
        state = lax.fori_loop(first, last, lambda i, state: turn(state, i)[0], state)
        return (state, last), state[0]

    variables = lax.scan(until, (state, jnp.zeros((), jnp.int32)), lengths)[1]
    if not protocol.centred:
        return Network(variables)
    return Network(variables, jax.tree.map(lambda a: jnp.broadcast_to(a, (len(lengths), *a.shape)), start))


def predict(
    model: nn.Module, trained: Network, x: jax.Array, *, protocol: Protocol, block_size: int = 1000
) -> jax.Array:
    """Outputs ``[n, k]`` for ``x [n, ...]`` in the unit of the labels (logits, for a cross-entropy), pure.

    Args:
      model, protocol: as in ``fit``.
      trained: what ``fit`` returned.
      x: images.
      block_size: how many go through the network at once.
    """

    def outputs(block: jax.Array) -> jax.Array:
        return _outputs(protocol, model.apply(trained.variables, block), model, trained.start, block)

    return in_blocks(outputs, x, block_size)


def in_blocks(fn: Callable[[jax.Array], jax.Array], x: jax.Array, block_size: int) -> jax.Array:
    """``fn(x)`` for ``x [n, ...]`` and a function ``[b, ...] -> [b, p]`` of each example alone, some at a time."""
    checks.require(len(x) > 0, "evaluation.train.predict", "x is empty; at least one image is needed")
    size = min(block_size, len(x))
    missing = -len(x) % size
    blocks = jnp.concatenate([x, jnp.broadcast_to(x[:1], (missing, *x.shape[1:]))]).reshape(-1, size, *x.shape[1:])
    found = lax.map(fn, blocks)
    return found.reshape(-1, found.shape[-1])[: len(x)]


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


def _training(key, model, distilled, protocol, flip, start=None, objective=None):
    """``(start variables, state before the first step, turn)`` of one training."""
    init_key, order_key, augment_key = jax.random.split(key, 3)
    x, y = _training_rows(protocol, distilled, flip)
    start = _init(model, init_key, x, y) if start is None else start
    step, optimizer = _step(objective or _objective(model, protocol, start), protocol, start, distilled, augment_key)
    turn = _turn(protocol, len(distilled.x), order_key, step, x, y)
    return start, (start, optimizer.init(start["params"])), turn


def _objective(model, protocol, start):
    """The protocol's loss and penalty."""

    def objective(params, variables, x, y, dropout):
        outputs, statistics = network.train_forward(model, {**variables, "params": params}, x, dropout=dropout)
        outputs = _outputs(protocol, outputs, model, start, x)
        return protocols.LOSSES[protocol.loss](outputs, y) + penalty(protocol, params, start["params"]), statistics

    return objective


def _step(objective, protocol, start, distilled, key):
    """``step(state, number, x, y) -> state``, and the optimizer; a state is ``(variables, optimizer state)``."""
    size = len(distilled.x)
    optimizer = _OPTIMIZERS[protocol.optimizer](protocol)
    rate, learned = protocols.schedule(protocol, size), _learned(protocol, distilled)
    drop = protocol.drop_epoch * protocols.per_epoch(protocol, size)
    change = _augment(protocol, distilled.x)

    def step(state, number, x, y):
        variables, opt_state = state
        change_key = jax.random.fold_in(key, number)
        x, dropout = change(change_key, x), jax.random.fold_in(change_key, 1)
        gradient, statistics = jax.grad(objective, has_aux=True)(variables["params"], variables, x, y, dropout)
        if drop:
            fresh = optimizer.init(variables["params"])
            opt_state = jax.tree.map(lambda a, b: jnp.where(number == drop, a, b), fresh, opt_state)
        direction, opt_state = optimizer.update(gradient, opt_state)
        scale = jnp.asarray(rate(number) * learned)
        params = jax.tree.map(lambda p, d: p - scale.astype(p.dtype) * d, variables["params"], direction)
        return {**variables, **statistics, "params": params}, opt_state

    return step, optimizer


def _turn(protocol, size, key, step, x, y):
    """What is scanned: ``turn(state, i)`` takes step ``i``, or all steps of epoch ``i``."""
    n = len(x)
    batch = n if size <= protocol.batch_size else protocol.batch_size

    def take(state, number, rows):
        return step(state, number, x[rows], y[rows]), None

    def one_step(state, i):
        if batch == n:
            return step(state, i, x, y), None
        if protocol.shuffle:
            return take(state, i, draw.without_replacement(jax.random.fold_in(key, i), batch, n))
        return take(state, i, (i * batch + jnp.arange(batch)) % n)

    def epoch(state, i):
        rows = jax.random.permutation(jax.random.fold_in(key, i), n)
        whole, first = n // batch, i * protocols.per_epoch(protocol, n)
        parts = first + jnp.arange(whole), rows[: whole * batch].reshape(whole, batch)
        state, _ = lax.scan(lambda state, part: take(state, *part), state, parts)
        return take(state, first + whole, rows[whole * batch :]) if n % batch else (state, None)

    return epoch if protocol.epochs else one_step


def _best(model, protocol, train, state, validation, total):
    """The variables of the best validation accuracy, the first of equal ones; stops when patience is at its end."""
    start, every = state[0], protocol.validate_every
    last = total % every or every

    def accuracy(variables):
        outputs = predict(model, Network(variables, start), validation.x, protocol=protocol, block_size=500)
        return losses.accuracy(outputs, validation.y)

    def goes_on(carry):
        _, number, _, _, best_at = carry
        return (number < total) & (number < best_at + protocol.patience)

    def chunk(carry):
        state, number, best, best_accuracy, best_at = carry
        state = lax.cond(
            number + every <= total,
            lambda: train(state, number, every),
            lambda: train(state, number, last),
        )
        number = jnp.minimum(number + every, total)
        found = accuracy(state[0])
        better = found > best_accuracy
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), state[0], best)
        return state, number, best, jnp.maximum(found, best_accuracy), jnp.where(better, number, best_at)

    zero = jnp.zeros((), jnp.int32)
    return lax.while_loop(goes_on, chunk, (state, zero, start, accuracy(start), zero))[2]


def _outputs(protocol, outputs, model, start, x):
    """In the unit of the labels: ``(f(x) - f_0(x)) / s`` for a centred protocol."""
    centre = model.apply(start, x) if protocol.centred else 0.0
    return (outputs - centre) / protocol.label_scale


def _augment(protocol, x):
    strategy = protocol.augment[x.shape[-1] > 1]
    return (lambda key, x: x) if strategy == "none" else protocols.AUGMENTS[protocol.augment_style](strategy)


def penalty(protocol: Protocol, params: PyTree, start: PyTree) -> jax.Array | float:
    """The weight penalty of a protocol, for parameters and those at their start."""
    if isinstance(protocol.weight_decay, (int, float)) and not protocol.weight_decay:
        return 0.0
    if protocol.decay_to_start:
        return protocol.weight_decay * optax.tree.norm(optax.tree.sub(params, start), squared=True)
    return protocol.weight_decay / 2 * optax.tree.norm(params, squared=True)


def _learned(protocol, distilled):
    """The learned step size in units of the protocol's."""
    if not protocol.learned_rate or distilled.lr is None:
        return 1.0
    shape = jnp.shape(distilled.lr)
    checks.require(
        not shape, "evaluation.train.fit", f"distilled.lr has shape {shape}; {protocol.name} takes one step size, []"
    )
    return distilled.lr / protocol.learning_rate


def _training_rows(protocol, distilled, flip):
    where, x, y = "evaluation.train.fit", jnp.asarray(distilled.x), jnp.asarray(distilled.y)
    checks.same_length(where, "distilled.x", x, "distilled.y", y)
    if not (flip and protocol.flip):
        return x, y
    checks.require(x.ndim == 4, where, f"flip needs images [m, height, width, channels]; x has shape {x.shape}")
    return jnp.concatenate([x, x[:, :, ::-1]]), jnp.concatenate([y, y])


def _init(model, key, x, y):
    where = "evaluation.train.fit"
    known = inspect.signature(type(model).__call__).parameters if isinstance(model, nn.Module) else {}
    checks.require(
        "train" in known, where, f"model is {model!r}; expected a flax module that is called with (x, train=...)"
    )
    outputs, variables = model.init_with_output(key, x[:1])
    checks.require(
        outputs.shape == (1, y.shape[1]),
        where,
        f"the model gives outputs of shape {outputs.shape[1:]} and the labels have {y.shape[1]} columns; build it with "
        f"num_classes={y.shape[1]}",
    )
    return dict(variables)


def _checked(protocol, validation):
    protocol, where = protocols.named(protocol) if isinstance(protocol, str) else protocol, "evaluation.train.fit"
    for field, table in (("loss", protocols.LOSSES), ("optimizer", _OPTIMIZERS), ("augment_style", protocols.AUGMENTS)):
        checks.one_of(where, f"protocol.{field}", getattr(protocol, field), table)
    checks.require(
        bool(protocol.epochs) != bool(protocol.steps), where, f"{protocol.name} must have either steps or epochs"
    )
    checks.require(
        not (protocol.epochs and (protocol.flip or protocol.patience)),
        where,
        f"{protocol.name} counts epochs; flip and patience go with steps",
    )
    checks.require(
        validation is not None or not protocol.patience,
        where,
        f"{protocol.name} stops early; give it validation images that are drawn from the training set",
    )
    return protocol


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
