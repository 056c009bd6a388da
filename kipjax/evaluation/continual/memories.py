"""What is kept of a phase: *builders* of exemplars, of two kinds.

A ``Builder`` looks at the data alone: random images, a coreset, anything distilled. A ``Taught`` one also looks at the
networks that have learned the phase: herding by their features (iCaRL, arXiv:1611.07725), and Mnemonics, which learns
the exemplars through the networks' own training on them and goes on learning those of old classes (arXiv:2002.10211).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kipjax import checks, methods, models
from kipjax.core import labels, loop, selection
from kipjax.data import initial, samplers
from kipjax.evaluation import train
from kipjax.evaluation.continual.phases import Phase
from kipjax.models import network
from kipjax.types import Batch, Distilled, Method, PyTree, Sampler

__all__ = [
    "Builder",
    "Networks",
    "Taught",
    "channel_range",
    "first",
    "given",
    "herding",
    "join",
    "memory_per_class",
    "mnemonics",
    "of_method",
    "part",
    "place",
    "random",
]

Builder = Callable[[jax.Array, Phase, int], Distilled]
"""``build(key, phase, ipc) -> Distilled`` with ``ipc`` images of each class of the phase in ascending order of classes,
the ones to be kept longest first, and ``y [m, num_classes]`` centred."""


class Networks(NamedTuple):
    """Networks at the end of a phase.

    Attributes:
      model: flax module.
      variables: of networks that share a memory, stacked (leaves ``[n, ...]``).
      seen: ``[k]`` mask of the classes so far.
      kept: exemplars of the phases before, or ``None``.
      low, high: ``[channels]`` range of all training images so far.
    """

    model: nn.Module
    variables: PyTree
    seen: jax.Array
    kept: Distilled | None
    low: Any = None
    high: Any = None


class Taught(NamedTuple):
    """A builder that looks at the networks that have learned the phase.

    Attributes:
      build: ``(key, phase, ipc, networks) -> Distilled``, otherwise as a ``Builder``.
      adjust: ``(key, old exemplars, networks) -> Distilled`` of the same size and order, or ``None`` to leave them.
      least: images of each class that it needs.
    """

    build: Callable[[jax.Array, Phase, int, Networks], Distilled]
    adjust: Callable[[jax.Array, Distilled, Networks], Distilled] | None = None
    least: int = 1


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
        classes = np.asarray(labels.classes(made.y))
        rows = np.concatenate([np.flatnonzero(classes == c)[:ipc] for c in sorted(phase.classes)])
        return Distilled(jnp.asarray(made.x)[rows], jnp.asarray(made.y)[rows])

    return build


def of_method(
    make: Callable[[int], Method],
    *,
    steps: int,
    sample: Callable[[Batch], Sampler] | None = None,
    start: Callable[[jax.Array, Phase, int], Distilled] | None = None,
    alone: bool = False,
) -> Builder:
    """The builder that runs a method on every phase: distillation, or a coreset in one step.

    Args:
      make: ``number of classes -> Method``; inside a phase its classes are 0, 1, ...
      steps: of the method.
      sample: ``Batch of all images (y centred one-hot) -> sampler``; all of them at every step unless given.
      start: makes the starting set as a builder does, in the labels of all phases; random images unless given.
      alone: whether the method can learn from a phase of one class, as DM and coresets can. Others learn to tell
        classes apart: from one class they get no gradient, and their images would stay what they were.

    Raises:
      InputError: at a phase of one class, unless ``alone``.

    Example:
      >>> from kipjax import kernels, methods
      >>> fc1 = kernels.get("fc1")
      >>> builder = of_method(lambda k: methods.METHODS["kip"](fc1, learning_rate=0.04), steps=100)
    """
    checks.whole("continual.of_method", "steps", steps)

    def build(key: jax.Array, phase: Phase, ipc: int) -> Distilled:
        start_key, init_key, run_key = jax.random.split(key, 3)
        k, local = len(phase.classes), _local(phase)
        checks.require(
            k > 1 or alone,
            "continual.of_method",
            f"phase {phase.number + 1} has one class and the method learns to tell classes apart; make fewer phases, "
            "or set alone for a method that learns from one class",
        )
        everything = Batch(jnp.asarray(phase.x_train), labels.one_hot(local, k))
        drawn = sample(everything) if sample else samplers.uniform(*everything, batch_size=len(local))
        from_set = (start or random)(start_key, phase, ipc)
        columns = labels.center(
            jnp.take(from_set.y, jnp.asarray(sorted(phase.classes)), axis=1) + 1 / phase.num_classes
        )
        method = make(k)
        # Copies, as a state may hold an array twice, which cannot be donated.
        state = jax.tree.map(jnp.array, method.init(init_key, from_set._replace(y=columns)))
        state, _ = jax.jit(loop.steps(method, steps), donate_argnums=2)(drawn, run_key, state, 0)
        return place(method.distilled(state), phase)

    return build


def herding(*, block_size: int = 1000) -> Taught:
    """The builder that keeps images whose mean feature follows that of their class, best first (iCaRL).

    Features are normalised to length one, those of several networks side by side.

    Args:
      block_size: images that go through a network at once.

    References:
      arXiv:1611.07725, algorithm 4; as the exemplars of LUCIR and the start of Mnemonics' in its program.
    """
    checks.whole("continual.herding", "block_size", block_size)

    def build(key: jax.Array, phase: Phase, ipc: int, networks: Networks) -> Distilled:
        del key
        y = labels.one_hot(_local(phase), len(phase.classes))
        _enough("continual.herding", y, ipc)
        rows = _herded(networks.variables, jnp.asarray(phase.x_train), y, networks.model, ipc, block_size)
        rows = np.asarray(rows).ravel()
        return place(Distilled(jnp.asarray(phase.x_train[rows]), y[rows]), phase)

    return Taught(build)


def mnemonics(
    *,
    epochs: int = 50,
    batch_size: int = 128,
    start: str = "random",
    adjust_steps: int = 1,
    adjust_rate: float = 1e-5,
    clip: bool = True,
    **options: Any,
) -> Taught:
    """The builder that learns exemplars through the networks' own training on them.

    Args:
      epochs: passes over the images of a phase.
      batch_size: images that validate at each step.
      start: exemplars start as ``"random"`` images, or by ``"herding"``.
      adjust_steps: steps on each half of the old exemplars at the end of every later phase; 0 leaves them.
      adjust_rate: ``beta_2``, the learning rate of those.
      clip: keep pixels within the range of the phase's images, channel by channel; old ones within that of all so far.
      **options: of ``methods.mnemonics.make``: ``inner_steps``, ``step_size``, ``learning_rate``, ``optimizer``,
        ``level``, ``batches``, ``segment``.

    References:
      arXiv:2002.10211, algorithm 1.
    """
    where = "continual.mnemonics"
    for name, value, low in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("adjust_steps", adjust_steps, 0)):
        checks.whole(where, name, value, low)
    starts = {"random": Taught(lambda key, phase, ipc, networks: random(key, phase, ipc)), "herding": herding()}
    checks.one_of(where, "start", start, starts)
    if adjust_steps:
        checks.at_least(where, "adjust_rate", adjust_rate, 0.0, strict=True)
    prototypes = options.get("level") == "prototypes"
    checks.require(
        not (prototypes and adjust_steps), where, "prototypes of old classes have no data; set adjust_steps to 0"
    )

    methods.mnemonics.make(models.get("mlp", num_classes=1), **options)  # refused now rather than after a phase

    def build(key: jax.Array, phase: Phase, ipc: int, networks: Networks) -> Distilled:
        start_key, run_key = jax.random.split(key)
        made = starts[start].build(start_key, phase, ipc, networks)
        made = made._replace(x=made.x.astype(jnp.float32))
        n = len(phase.x_train)
        size = min(batch_size, n)
        y = labels.one_hot(phase.train_labels, phase.num_classes)
        sample = samplers.uniform(phase.x_train, y, batch_size=size)
        bounds = dict(zip(("low", "high"), channel_range([phase.x_train]))) if clip else {}
        anchors = {"anchors": networks.kept} if prototypes else {}
        return methods.mnemonics.learn(
            run_key, networks.model, networks.variables, made, sample, steps=epochs * -(-n // size), seen=networks.seen,
            **anchors, **bounds, **options,
        )  # fmt: skip

    def adjust(key: jax.Array, old: Distilled, networks: Networks) -> Distilled:
        del key
        choices = options | {"learning_rate": adjust_rate, "seen": networks.seen}
        choices |= {"low": networks.low, "high": networks.high} if clip else {}
        return methods.mnemonics.adjust(networks.model, networks.variables, old, steps=adjust_steps, **choices)

    return Taught(build, adjust, least=2) if adjust_steps else Taught(build)


def first(made: Distilled, ipc: int, classes: int) -> Distilled:
    """The first ``ipc`` images of each of the ``classes`` of a phase.

    What class an image stands for is said by its place, as a ``Builder`` leaves them: learned labels need not have
    their largest entry there.

    Raises:
      InputError: the set is no such memory.
    """
    m = len(made.x)
    checks.require(
        m % classes == 0 and m >= ipc * classes,
        "continual.memory",
        f"the builder made {m} images for {classes} classes; expected at least {ipc} of each, in the order of classes",
    )
    rows = np.arange(m).reshape(classes, -1)[:, :ipc].ravel()
    return Distilled(jnp.asarray(made.x)[rows], jnp.asarray(made.y)[rows])


def join(some: Sequence[Distilled]) -> Distilled:
    """Sets one after the other."""
    return Distilled(*(jnp.concatenate([jnp.asarray(made[i]) for made in some]) for i in (0, 1)))


def part(joined: Distilled, sizes: Sequence[int]) -> list[Distilled]:
    """The inverse of ``join``."""
    stops = np.cumsum(sizes)
    return [Distilled(joined.x[stop - size : stop], joined.y[stop - size : stop]) for size, stop in zip(sizes, stops)]


def channel_range(images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value ``[channels]`` of each channel in arrays ``[n, ..., channels]``.

    Example:
      >>> [bound.tolist() for bound in channel_range([np.array([[1, 5], [2, 4]]), np.array([[0, 9]])])]
      [[0, 4], [2, 9]]
    """
    lows, highs = ([rule(x, axis=tuple(range(np.ndim(x) - 1))) for x in images] for rule in (np.min, np.max))
    return np.min(lows, axis=0), np.max(highs, axis=0)


def _local(phase):
    """Labels 0, 1, ... of the classes of a phase in ascending order."""
    return np.searchsorted(np.sort(phase.classes), phase.train_labels)


def _enough(where, y, ipc):
    fewest = int(np.asarray(selection.members(y)).sum(axis=1).min())
    checks.require(fewest >= ipc, where, f"a class has {fewest} images and {ipc} are to be kept; lower ipc")


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _herded(variables, x, y, model, ipc, block_size):
    """Rows ``[k, ipc]``."""

    def features(one):
        return train.in_blocks(lambda block: network.forward(model, one, block)[1], x, block_size)

    h = jax.lax.map(features, variables)
    h = h / jnp.maximum(jnp.linalg.norm(h, axis=2, keepdims=True), 1e-12)
    return selection.herding(selection.products(jnp.concatenate(list(h), axis=1), y), ipc)
