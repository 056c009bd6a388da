"""Continual learning with a memory: classes, or data sets, come in phases, and little of each may be kept.

Class-incremental learning as DM (arXiv:2110.04181, section 4.3) and Mnemonics (arXiv:2002.10211) measure it, and
sequences of data sets with the same classes as DC (arXiv:2006.05929, section 4.4) and DSA do. What is kept of a phase
is the choice of a *builder*: random images, a coreset, anything distilled. Three learners use the memory:

- ``"gdumb"``: a fresh network on the memory of all phases so far (GDumb, ECCV 2020; what DM reports);
- ``"continue"``: the network goes on learning, on the memory alone;
- ``"rehearsal"``: it goes on learning, on all images of the phase and the memory of those before.

A network that goes on may be held to what it said before: with ``distillation = lambda`` a target is ``(1 - lambda)``
times the class and ``lambda`` times the probabilities that the network before the phase gives to the classes that it
knew. For cross-entropy, linear in the target, that is the sum of both losses (arXiv:1606.09282 at temperature 1).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import labels, loop
from kipjax.data import initial, samplers
from kipjax.evaluation import protocols, train
from kipjax.evaluation.protocols import Protocol
from kipjax.evaluation.result import Task
from kipjax.types import Batch, Distilled, Method, Sampler

__all__ = [
    "LEARNERS",
    "Builder",
    "Phase",
    "Run",
    "class_order",
    "domains",
    "evaluate",
    "given",
    "memory_per_class",
    "of_method",
    "place",
    "random",
    "split",
]

LEARNERS = ("gdumb", "continue", "rehearsal")


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


Builder = Callable[[jax.Array, Phase, int], Distilled]
"""``build(key, phase, ipc) -> Distilled`` with ``ipc`` images of each class of the phase in ascending order of classes,
the ones to be kept longest first, and ``y [m, num_classes]`` centred."""


class Run(NamedTuple):
    """One sequence of phases.

    Attributes:
      names: of the phases.
      accuracies: ``[networks, T, T]``: entry ``[., t, i]`` is the accuracy after phase ``t`` on the test images of
        phase ``i``, NaN for ``i > t``.
      sizes: ``[T]`` numbers of those test images.
      memory: ``[T]`` images in memory after each phase.
    """

    names: tuple[str, ...]
    accuracies: np.ndarray
    sizes: np.ndarray
    memory: np.ndarray

    def seen(self, *, weighted: bool = True) -> np.ndarray:
        """``[networks, T]``: after each phase, the accuracy on all test images of the phases so far.

        Args:
          weighted: every image counts alike; otherwise every phase does, as for data sets of unequal sizes (DC).
        """
        weights = np.tril(np.ones(2 * [len(self.sizes)])) * (self.sizes if weighted else 1.0)
        return np.einsum("nti,ti->nt", np.nan_to_num(self.accuracies), weights / weights.sum(axis=1, keepdims=True))

    def average_accuracy(self, *, weighted: bool = True) -> np.ndarray:
        """``[networks]`` the mean of ``seen`` over phases: "average incremental accuracy"."""
        return self.seen(weighted=weighted).mean(axis=1)

    def forgetting(self) -> np.ndarray:
        """``[networks]`` the accuracy on phase 0 after it, less that after the last phase (arXiv:2002.10211)."""
        return self.accuracies[:, 0, 0] - self.accuracies[:, -1, 0]

    def mean_forgetting(self) -> np.ndarray:
        """``[networks]`` mean over phases but the last of the best accuracy on it before the last phase, less the last.

        References:
          arXiv:1801.10112, section 3.2.
        """
        if len(self.sizes) == 1:
            return np.zeros(len(self.accuracies))
        best = np.nanmax(self.accuracies[:, :-1, :-1], axis=1)
        return np.mean(best - self.accuracies[:, -1, :-1], axis=1)


def class_order(num_classes: int, seed: int = 1993) -> np.ndarray:
    """NumPy's permutation of the classes for a seed: 1993 in Mnemonics and LUCIR, 0 to 4 in DM.

    Example:
      >>> class_order(5, 0).tolist()
      [2, 0, 1, 3, 4]
    """
    checks.whole("continual.class_order", "num_classes", num_classes)
    return np.random.RandomState(seed).permutation(num_classes)


def split(task: Task, *, phases: int, first: int = 0, order: Sequence[int] | np.ndarray | None = None) -> list[Phase]:
    """The classes of a data set in phases.

    Args:
      task: the data.
      phases: how many have equally many classes.
      first: classes in a phase before those (Mnemonics: half of all); 0 for no such phase.
      order: of the classes; ascending unless given.

    Returns:
      ``phases`` of them, and one more with ``first``. Labels stay what they are.

    Raises:
      InputError: the phases do not divide the classes, or ``order`` is no order of them.
    """
    where, k = "continual.split", task.num_classes
    checks.whole(where, "first", first, 0)
    checks.require(first < k, where, f"first is {first} and there are {k} classes; leave some for the other phases")
    checks.divides(
        where, "number of classes" + (" after the first phase" if first else ""), k - first, "phases", phases
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


def memory_per_class(seen: int, *, ipc: int = 0, total: int = 0) -> int:
    """Images of each of ``seen`` classes that a memory may keep: always ``ipc``, or its share of ``total``.

    Raises:
      InputError: neither or both are given, or there is less than one image for each class.
    """
    where = "continual.memory_per_class"
    checks.require(
        bool(ipc) != bool(total), where, f"ipc is {ipc} and total {total}; set one of them, images per class or in all"
    )
    checks.whole(where, "ipc" if ipc else "total", ipc or total)
    checks.require(
        bool(ipc) or total >= seen,
        where,
        f"a memory of {total} images is below one image for each of {seen} classes; raise total",
    )
    return ipc or total // seen


def place(made: Distilled, phase: Phase) -> Distilled:
    """A set made with the classes of a phase as 0, 1, ..., with centred labels of all classes.

    Args:
      made: ``x [m, ...]``, ``y [m, k']`` centred, the columns being the phase's classes in ascending order.
      phase: its phase.

    Returns:
      ``y [m, num_classes]`` with one-hot rows where they were so; learned labels keep their differences.
    """
    checks.same_classes("continual.place", "y", made.y, "classes of the phase", np.zeros((1, len(phase.classes))))
    k, columns = phase.num_classes, np.sort(phase.classes)
    y = jnp.zeros((len(made.y), k)).at[:, columns].set(jnp.asarray(made.y) + 1 / len(columns))
    return Distilled(jnp.asarray(made.x), labels.center(y))


def random(key: jax.Array, phase: Phase, ipc: int) -> Distilled:
    """The builder that keeps random images of each class."""
    local = _local(phase)
    made = initial.real(key, phase.x_train, local, ipc=ipc, num_classes=len(phase.classes))
    return place(made, phase)


def given(sets: Sequence[Distilled]) -> Builder:
    """The builder that keeps ready sets, one for each phase: artifacts that were distilled from the phases.

    Args:
      sets: ``x [m, ...]``, ``y [m, num_classes]`` in the labels of all phases.
    """

    def build(key: jax.Array, phase: Phase, ipc: int) -> Distilled:
        where = "continual.given"
        checks.require(
            phase.number < len(sets), where, f"there are {len(sets)} sets and phase {phase.number + 1} needs its own"
        )
        made = sets[phase.number]
        checks.same_example_shape(where, "set", made.x, "phase", phase.x_train)
        wide = np.shape(made.y)[1:] == (phase.num_classes,)
        checks.require(
            wide, where, f"set {phase.number} has y of shape {np.shape(made.y)}; expected {phase.num_classes} columns"
        )
        found = np.bincount(np.asarray(labels.classes(made.y)), minlength=phase.num_classes)
        wanted = np.where(np.isin(np.arange(phase.num_classes), phase.classes), ipc, 0)
        checks.require(
            bool(np.all(found >= wanted) and not np.any(found[wanted == 0])),
            where,
            f"set {phase.number} has {found.tolist()} images of each class; expected at least {ipc} of classes "
            f"{', '.join(map(str, sorted(phase.classes)))} and no others",
        )
        return _first(made, ipc)

    return build


def of_method(
    make: Callable[[int], Method],
    *,
    steps: int,
    sample: Callable[[Batch], Sampler] | None = None,
    start: Callable[[jax.Array, Phase, int], Distilled] | None = None,
) -> Builder:
    """The builder that runs a method on every phase: distillation, or a coreset in one step.

    Args:
      make: ``number of classes -> Method``; inside a phase its classes are 0, 1, ...
      steps: of the method.
      sample: ``Batch of all images (y centred one-hot) -> sampler``; all of them at every step unless given.
      start: makes the starting set as a builder does, in the labels of all phases; random images unless given.

    Example:
      >>> from kipjax import kernels, methods
      >>> fc1 = kernels.get("fc1")
      >>> builder = of_method(lambda k: methods.METHODS["kip"](fc1, learning_rate=0.04), steps=100)
    """
    checks.whole("continual.of_method", "steps", steps)

    def build(key: jax.Array, phase: Phase, ipc: int) -> Distilled:
        start_key, init_key, run_key = jax.random.split(key, 3)
        k, local = len(phase.classes), _local(phase)
        everything = Batch(jnp.asarray(phase.x_train), labels.one_hot(local, k))
        drawn = sample(everything) if sample else samplers.uniform(*everything, batch_size=len(local))
        from_set = (start or random)(start_key, phase, ipc)
        columns = labels.center(
            jnp.take(from_set.y, jnp.asarray(sorted(phase.classes)), axis=1) + 1 / phase.num_classes
        )
        method = make(k)
        state = method.init(init_key, from_set._replace(y=columns))
        state, _ = jax.jit(loop.steps(method, steps), donate_argnums=2)(drawn, run_key, state, 0)
        return place(method.distilled(state), phase)

    return build


def evaluate(
    phases: Sequence[Phase],
    builder: Builder,
    model: nn.Module,
    *,
    ipc: int = 0,
    total: int = 0,
    learner: str = "gdumb",
    distillation: float = 0.0,
    protocol: Protocol | str = "dm",
    key: jax.Array | None = None,
    networks: int = 3,
    parallel: int = 0,
    block_size: int = 1000,
) -> Run:
    """Learns phase after phase, and tests after each on all test images so far.

    Args:
      phases: as of ``split`` or ``domains``.
      builder: what is kept of a phase.
      model: with one output for each class of all phases.
      ipc: images kept of each class of each phase (DM: 20; DC: 10), or
      total: images in memory at most, of which all classes have the same share, so that old ones shrink.
      learner: one of ``LEARNERS``.
      distillation: weight ``lambda`` in 0..1 of what the network said before; not for ``"gdumb"``.
      protocol: of every training.
      key: of builders and networks.
      networks: trained side by side on the same memory.
      parallel: how many at once; 0 for one after the other on CPU and all elsewhere.
      block_size: test images that go through a network at once.

    Raises:
      InputError: a value is outside its range, or the memory has no room for an image of each class.
      NumericalError: a network left the finite numbers.
    """
    where = "continual.evaluate"
    checks.require(len(phases) > 0, where, "phases is empty; give at least one")
    checks.one_of(where, "learner", learner, LEARNERS)
    checks.within(where, "distillation", distillation, 0.0, 1.0)
    checks.require(
        learner != "gdumb" or not distillation, where, "distillation needs a network that goes on; set another learner"
    )
    for name, value, low in (("networks", networks, 1), ("parallel", parallel, 0), ("block_size", block_size, 1)):
        checks.whole(where, name, value, low)
    memory_per_class(_slots(phases), ipc=ipc, total=total)
    protocol = protocols.named(protocol) if isinstance(protocol, str) else protocol
    if distillation:
        protocol = protocol._replace(loss="soft_cross_entropy")
    at_once = min(parallel, networks) or (1 if jax.default_backend() == "cpu" else networks)
    options = {"model": model, "protocol": protocol, "parallel": at_once, "block_size": block_size}
    build_key, train_key = jax.random.split(jax.random.key(0) if key is None else key)
    probes = jnp.concatenate([jnp.asarray(phase.x_test) for phase in phases])
    truth, sizes = np.concatenate([phase.test_labels for phase in phases]), np.array([len(p.x_test) for p in phases])

    accuracies = np.full((networks, len(phases), len(phases)), np.nan)
    memory, counts, variables, known = [], [], None, np.zeros(phases[0].num_classes)
    for t, phase in enumerate(phases):
        share = memory_per_class(_slots(phases[: t + 1]), ipc=ipc, total=total)
        built = builder(jax.random.fold_in(build_key, t), phase, share)
        before = [_first(made, share) for made in memory]
        memory = [*before, _first(built, share)]
        counts.append(sum(len(made.x) for made in memory))
        studied = [*before, _whole(phase)] if learner == "rehearsal" else memory
        joined = Distilled(*(jnp.concatenate([jnp.asarray(made[i]) for made in studied]) for i in (0, 1)))
        keys = jax.random.split(jax.random.fold_in(train_key, t), networks)
        variables, found = _train(
            keys, None if learner == "gdumb" else variables, joined, probes, jnp.asarray(known),
            distillation=distillation if t else 0.0, **options,
        )  # fmt: skip
        if not np.all(np.asarray(found) >= 0):
            raise checks.NumericalError(
                f"{where}: a network left the finite numbers in phase {t + 1} under {protocol.name}; lower its "
                f"learning rate ({protocol.learning_rate:g})"
            )
        right = np.split(np.asarray(found) == truth, np.cumsum(sizes)[:-1], axis=1)
        accuracies[:, t, : t + 1] = np.stack([part.mean(axis=1) for part in right[: t + 1]], axis=1)
        known[list(phase.classes)] = 1
    return Run(tuple(phase.name for phase in phases), accuracies, sizes, np.array(counts))


@functools.partial(jax.jit, static_argnames=("distillation", "model", "protocol", "parallel", "block_size"))
def _train(keys, starts, made, probes, known, *, distillation, model, protocol, parallel, block_size):
    """``(variables, classes [networks, n])`` of networks after a phase; -1 for outputs that are not finite."""

    def one(args):
        key, start = args
        studied = made
        if distillation and start is not None:
            outputs = train.predict(model, train.Network(start), made.x, protocol=protocol, block_size=block_size)
            before = labels.center(jax.nn.softmax(outputs, where=known > 0))
            studied = made._replace(y=(1 - distillation) * made.y + distillation * before)
        trained = train.fit(key, model, studied, protocol=protocol, start=start)
        outputs = train.predict(model, trained, probes, protocol=protocol, block_size=block_size)
        finite = jnp.isfinite(outputs).all(axis=1)
        return trained.variables, jnp.where(finite, labels.classes(outputs), -1)

    return lax.map(one, (keys, starts), batch_size=parallel if parallel > 1 else None)


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


def _slots(phases):
    """Classes of which the memory keeps images; the same class of two data sets counts twice."""
    return sum(len(phase.classes) for phase in phases)


def _local(phase):
    """Labels 0, 1, ... of the classes of a phase in ascending order."""
    return np.searchsorted(np.sort(phase.classes), phase.train_labels)


def _whole(phase):
    return Distilled(jnp.asarray(phase.x_train), labels.one_hot(phase.train_labels, phase.num_classes))


def _first(made, ipc):
    """The first ``ipc`` images of each class, the class being the largest entry of the label."""
    classes = np.asarray(labels.classes(jnp.asarray(made.y)))
    rows = np.concatenate([np.flatnonzero(classes == c)[:ipc] for c in np.unique(classes)])
    return Distilled(jnp.asarray(made.x)[rows], jnp.asarray(made.y)[rows])
