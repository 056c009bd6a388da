"""Phase after phase: learn, keep a little, be tested on all that came so far (arXiv:1611.07725, arXiv:2002.10211)."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import labels
from kipjax.evaluation import protocols
from kipjax.evaluation.continual import memories
from kipjax.evaluation.continual.learners import LEARNERS, Learner, Lesson
from kipjax.evaluation.continual.lucir import Lucir
from kipjax.evaluation.continual.memories import Builder, Networks, Taught, memory_per_class
from kipjax.evaluation.continual.phases import Phase, slots
from kipjax.evaluation.protocols import Protocol
from kipjax.types import Distilled

__all__ = ["Run", "evaluate", "require_fits"]


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


def evaluate(
    phases: Sequence[Phase],
    builder: Builder | Taught,
    model: nn.Module | None = None,
    *,
    ipc: int = 0,
    total: int = 0,
    learner: str | Learner = "gdumb",
    distillation: float = 0.0,
    protocol: Protocol | str = "dm",
    key: jax.Array | None = None,
    networks: int = 3,
    parallel: int = 0,
    block_size: int = 1000,
) -> Run:
    """Learns phase after phase, and tests after each on all test images so far.

    A learner that sees all images of a phase has the memory of the phases before beside them; then old exemplars are
    reduced to their share, old ones adjusted and new ones built, in this order (arXiv:1611.07725, algorithm 2).

    Args:
      phases: as of ``split`` or ``domains``.
      builder: what is kept of a phase.
      model: with one output for each class of all phases.
      ipc: images kept of each class of each phase (DM and Mnemonics: 20; DC: 10), or
      total: images in memory at most, of which all classes have the same share, so that old ones shrink.
      learner: one of ``LEARNERS``, or a ``Learner``, which says itself what ``model``, ``distillation``, ``protocol``
        and ``block_size`` say otherwise.
      distillation: weight ``1 - lambda`` in 0..1 of what the network said before; not for ``"gdumb"``.
      protocol: of every training.
      key: of builders and networks.
      networks: trained side by side on the same memory; a builder that looks at them takes their mean.
      parallel: how many at once; 0 for one after the other on CPU and all elsewhere.
      block_size: test images that go through a network at once.

    Raises:
      InputError: a value is outside its range, the memory has no room for an image of each class, or the builder looks
        at networks that have not seen the phase.
      NumericalError: a network left the finite numbers.
    """
    where = "continual.evaluate"
    for name, value, low in (("networks", networks, 1), ("parallel", parallel, 0)):
        checks.whole(where, name, value, low)
    if isinstance(learner, str):
        learner = _named(learner, model, protocol, distillation, block_size)
    require_fits(phases, builder, learner, ipc=ipc, total=total)
    at_once = min(parallel, networks) or (1 if jax.default_backend() == "cpu" else networks)
    return _Course(tuple(phases), builder, learner, ipc, total, networks, at_once).run(key)


def require_fits(
    phases: Sequence[Phase], builder: Builder | Taught, learner: Learner, *, ipc: int = 0, total: int = 0
) -> None:
    """Refuses what ``evaluate`` cannot run, before anything is learned.

    Raises:
      InputError: there is no phase, the memory has no room for the images of a class that the builder needs, or the
        builder looks at networks that have not seen the phase, or the network has nothing to transfer.
    """
    where = "continual.evaluate"
    checks.require(len(phases) > 0, where, "phases is empty; give at least one")
    share = memory_per_class(slots(phases), ipc=ipc, total=total)
    if isinstance(builder, Taught):
        text = f"this memory needs {builder.least} images of each class and has {share}; raise ipc or total"
        checks.require(share >= builder.least or len(phases) == 1, where, text)
    learner.require_suits(phases[0].x_train)
    checks.require(
        learner.sees_all or not isinstance(builder, Taught),
        where,
        "this memory is built by networks that have learned the phase; choose a learner that sees all of it, such as "
        "'rehearsal'",
    )


class _Course(NamedTuple):
    """What stays the same from phase to phase."""

    phases: tuple[Phase, ...]
    builder: Builder | Taught
    learner: Learner
    ipc: int
    total: int
    networks: int
    parallel: int

    def run(self, key):
        build_key, train_key = jax.random.split(jax.random.key(0) if key is None else key)
        probes = jnp.concatenate([jnp.asarray(phase.x_test) for phase in self.phases])
        truth, sizes = (
            np.concatenate([phase.test_labels for phase in self.phases]),
            np.array([len(phase.x_test) for phase in self.phases]),
        )
        accuracies = np.full((self.networks, len(sizes), len(sizes)), np.nan)
        memory, taught, counts, known = [], None, [], np.zeros(self.phases[0].num_classes)
        for t, phase in enumerate(self.phases):
            seen = known.copy()
            seen[list(phase.classes)] = 1
            memory, taught = self.phase(t, memory, taught, known, seen, build_key, train_key)
            found = np.asarray(_tested(taught, probes, seen, learner=self.learner, parallel=self.parallel))
            self.require_finite(found, t)
            right = np.split(found == truth, np.cumsum(sizes)[:-1], axis=1)
            accuracies[:, t, : t + 1] = np.stack([part.mean(axis=1) for part in right[: t + 1]], axis=1)
            counts.append(sum(len(made.x) for made in memory))
            known = seen
        return Run(tuple(phase.name for phase in self.phases), accuracies, sizes, np.array(counts))

    def phase(self, t, memory, taught, known, seen, build_key, train_key):
        """``(memory, networks)`` after phase ``t``."""
        phase, learner = self.phases[t], self.learner
        share = self.share(t)
        key, study_key = jax.random.fold_in(build_key, t), jax.random.fold_in(train_key, t)
        keys = jax.random.split(study_key, self.networks)
        options = {"learner": learner, "parallel": self.parallel}
        if not learner.sees_all and not isinstance(self.builder, Taught):
            memory = [*self.reduced(memory, share), self.new(self.builder(key, phase, share), phase, share)]
            return memory, _studied(keys, taught, _lesson(memory, known, seen), **options)
        taught = _studied(keys, taught, _lesson([*memory, _whole(phase)], known, seen), **options)
        old = self.reduced(memory, share)
        memory = self.kept(key, old, phase, share, taught, seen)
        if learner.balanced_epochs and old:
            keys = jax.random.split(jax.random.fold_in(study_key, 1), self.networks)
            taught = _studied(keys, taught, _lesson(memory, known, seen), balance=True, **options)
        return memory, taught

    def share(self, t):
        """Images of each class after phase ``t``; of a fixed total no more than each class has."""
        share = memory_per_class(slots(self.phases[: t + 1]), ipc=self.ipc, total=self.total)
        return min(share, *map(_fewest, self.phases[: t + 1])) if self.total else share

    def kept(self, key, old, phase, share, taught, seen):
        """The memory after a phase that the networks have learned."""
        if not isinstance(self.builder, Taught):
            return [*old, self.new(self.builder(key, phase, share), phase, share)]
        variables = jax.vmap(self.learner.network)(taught.variables)
        kept = memories.join(old) if old else None
        bounds = memories.channel_range([one.x_train for one in self.phases[: phase.number + 1]])
        networks = Networks(self.learner.model, variables, jnp.asarray(seen), kept, *bounds)
        if self.builder.adjust and kept is not None:
            adjusted = self.builder.adjust(jax.random.fold_in(key, 1), kept, networks)
            old = memories.part(adjusted, [len(made.x) for made in old])
        return [*old, self.new(self.builder.build(key, phase, share, networks), phase, share)]

    def reduced(self, memory, share):
        """What was kept of earlier phases, ``share`` images of each class."""
        return [self.new(made, phase, share) for made, phase in zip(memory, self.phases)]

    def new(self, made, phase, share):
        return memories.first(made, share, len(phase.classes))

    def require_finite(self, found, t):
        protocol = self.learner.protocol
        if not np.all(found >= 0):
            raise checks.NumericalError(
                f"continual.evaluate: a network left the finite numbers in phase {t + 1} under {protocol.name}; lower "
                f"its learning rate ({protocol.learning_rate:g})"
            )


@functools.partial(jax.jit, static_argnames=("learner", "parallel", "balance"))
def _studied(keys, taught, lesson, *, learner, parallel, balance=False):
    """The networks after a phase, stacked."""
    study = learner.balance if balance else learner.study
    return lax.map(lambda args: study(*args, lesson), (keys, taught), batch_size=parallel if parallel > 1 else None)


@functools.partial(jax.jit, static_argnames=("learner", "parallel"))
def _tested(taught, probes, seen, *, learner, parallel):
    """Classes ``[networks, n]``; -1 for outputs that are not finite."""

    def one(network):
        outputs = learner.outputs(network, probes, seen)
        return jnp.where(jnp.isfinite(outputs).all(axis=1), labels.classes(outputs), -1)

    return lax.map(one, taught, batch_size=parallel if parallel > 1 else None)


def _named(name, model, protocol, distillation, block_size):
    """The learner of that name."""
    where = "continual.evaluate"
    checks.one_of(where, "learner", name, LEARNERS)
    checks.require(isinstance(model, nn.Module), where, f"model is {model!r}; give a flax module")
    protocol = protocols.named(protocol) if isinstance(protocol, str) else protocol
    options = {"distillation": distillation, "block_size": block_size}
    if name == "lucir":
        return Lucir(model, protocol, **options)
    return Learner(model, protocol, goes_on=name != "gdumb", sees_all=name == "rehearsal", **options)


def _fewest(phase):
    """Images of the class of a phase that has the fewest."""
    return int(np.bincount(phase.train_labels, minlength=phase.num_classes)[list(phase.classes)].min())


def _lesson(studied, known, seen):
    joined = memories.join(studied)
    return Lesson(joined.x, joined.y, jnp.asarray(known), jnp.asarray(seen))


def _whole(phase):
    return Distilled(jnp.asarray(phase.x_train), labels.one_hot(phase.train_labels, phase.num_classes))
