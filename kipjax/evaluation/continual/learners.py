"""How a network learns a phase with a memory of those before.

- ``"gdumb"``: a fresh network on the memory of all phases so far (GDumb, ECCV 2020; what DM reports);
- ``"continue"``: the network goes on learning, on the memory alone;
- ``"rehearsal"``: it goes on learning, on all images of the phase and the memory of those before;
- ``"lucir"``: so too, by the losses of ``lucir``.

A network that goes on may be held to what it said before. With ``distillation = 1 - lambda`` it descends on

    ``lambda L_c + (1 - lambda) L_d``

where ``L_c`` is the cross-entropy over the classes seen so far and ``L_d`` the distillation of ``core.incremental``
against the network before the phase, over the classes that it knew: equation (5) of arXiv:2002.10211, and of LwF
(arXiv:1606.09282). (The programs' ``L_c + T^2 beta KL`` is this at ``lambda = 1 / (1 + beta)`` and a learning rate
``1 + beta`` times as large.)
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kipjax import checks
from kipjax.core import incremental
from kipjax.evaluation import protocols, train
from kipjax.evaluation.protocols import Protocol
from kipjax.types import Distilled, PyTree

__all__ = ["LEARNERS", "Learner", "Lesson"]

LEARNERS = ("gdumb", "continue", "rehearsal", "lucir")

_SCALES = "scales"


class Lesson(NamedTuple):
    """What is learned in a phase: images ``x [n, ...]``, targets ``y [n, k]``, and masks ``[k]`` of the classes that
    were ``known`` before it and are ``seen`` with it."""

    x: jax.Array
    y: jax.Array
    known: jax.Array
    seen: jax.Array


@dataclasses.dataclass(frozen=True)
class Learner:
    """How a network learns; all its functions are pure, and it is hashable, so that it can be static under jit.

    Attributes:
      model: flax module with features and one output for each class of all phases.
      protocol: of every training.
      goes_on: false starts a fresh network at each phase.
      sees_all: whether it learns from all images of a phase, or from what is kept of it.
      distillation: weight ``1 - lambda`` in 0..1 of what the network said before.
      temperature: of that.
      weight_transfer: from the second phase on, convolution kernels are frozen, and a scale is learned for each pair of
        channels instead (arXiv:1812.02391).
      balanced_epochs: epochs on the memory alone, the same number of images of each class, at the end of a phase; 0 for
        none. ``balanced_rate`` is their learning rate. (arXiv:2002.10211, section 5.1; arXiv:1807.09536.)
      block_size: images that go through a network at once where nothing is learned.
    """

    model: nn.Module
    protocol: Protocol
    goes_on: bool = True
    sees_all: bool = True
    distillation: float = 0.0
    temperature: float = 2.0
    weight_transfer: bool = False
    balanced_epochs: int = 0
    balanced_rate: float = 0.01
    block_size: int = 1000

    def __post_init__(self):
        where = "continual.Learner"
        checks.within(where, "distillation", self.distillation, 0.0, 1.0)
        checks.at_least(where, "temperature", self.temperature, 0.0, strict=True)
        checks.whole(where, "balanced_epochs", self.balanced_epochs, 0)
        checks.at_least(where, "balanced_rate", self.balanced_rate, 0.0, strict=True)
        checks.whole(where, "block_size", self.block_size)
        asked = [name for name in ("distillation", "weight_transfer", "balanced_epochs") if getattr(self, name)]
        checks.require(
            self.goes_on or not asked, where, f"{' and '.join(asked)} needs a network that goes on; set another learner"
        )
        checks.require(
            self.sees_all or not self.balanced_epochs,
            where,
            "the memory is all that it learns from; set balanced_epochs to 0",
        )
        checks.require(
            not (asked and self.protocol.centred),
            where,
            f"{self.protocol.name} is centred on the start; choose another",
        )

    def study(self, key: jax.Array, before: train.Network | None, lesson: Lesson) -> train.Network:
        """A network after a phase.

        Args:
          key: draws weights, batches and augmentation.
          before: the network after the phase before; ``None`` in the first.
          lesson: what there is to learn.
        """
        held = before if self.goes_on else None
        start = train.fresh(key, self.model, _set(lesson)) if held is None else self.prepare(held.variables, lesson)
        return self._train(key, start, held, lesson, self.protocol)

    def balance(self, key: jax.Array, taught: train.Network, lesson: Lesson) -> train.Network:
        """The network after ``balanced_epochs`` on the memory, held to nothing."""
        short = {"epochs": self.balanced_epochs, "steps": 0, "drop_epoch": 0, "milestones": (), "warmup": 0}
        short |= {"learning_rate": self.balanced_rate, "final_rate": 1.0, "flip": False, "patience": 0}
        return self._train(key, taught.variables, None, lesson, self.protocol._replace(**short))

    def outputs(self, taught: train.Network, x: jax.Array, seen: jax.Array) -> jax.Array:
        """``[n, k]`` for ``x [n, ...]``; the largest entry is the class, those not ``seen [k]`` are out of reach."""
        taught = taught._replace(variables=self.network(taught.variables))
        found = train.predict(self.model, taught, x, protocol=self.protocol, block_size=self.block_size)
        return incremental.restrict(found, seen)

    def network(self, variables: PyTree) -> PyTree:
        """The variables as ``model`` takes them: with scales in the kernels, where there are any."""
        params = dict(variables["params"])
        factors = params.pop(_SCALES, None)
        return {**variables, "params": params if factors is None else incremental.fold(params, factors)}

    def prepare(self, before: PyTree, lesson: Lesson) -> PyTree:
        """The variables with which a phase starts, from those after the phase before."""
        del lesson
        if not self.weight_transfer or _SCALES in before["params"]:
            return before
        return {**before, "params": {**before["params"], _SCALES: incremental.scales(before["params"])}}

    def require_suits(self, x: np.ndarray | jax.Array) -> None:
        """Refuses images ``[n, ...]`` and a network that it cannot learn with, without computing anything.

        Raises:
          InputError: ``weight_transfer`` of a network without convolutions.
        """
        if not self.weight_transfer:
            return
        init = functools.partial(self.model.init, train=True)
        params = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((2, *np.shape(x)[1:]), jnp.float32))
        checks.require(
            any(leaf.ndim == 4 for leaf in jax.tree.leaves(params["params"])),
            "continual.Learner",
            "weight_transfer learns scales of convolution kernels, and the network has none; leave it out",
        )

    def learned(self, params: PyTree, known: jax.Array) -> PyTree:
        """The same parameters, of which those that stay get no gradient."""
        del known
        if _SCALES not in params:
            return params
        held = jax.tree.map(lambda a: jax.lax.stop_gradient(a) if a.ndim == 4 else a, params)
        return {**held, _SCALES: params[_SCALES]}

    def loss(self, logits: jax.Array, h: jax.Array, params: PyTree, y: jax.Array, lesson: Lesson, old: tuple | None):
        """What a batch costs, without penalty.

        Args:
          logits, h: ``[b, k]``, ``[b, p]`` of the network in training mode.
          params: as the model takes them.
          y: ``[b, k]`` targets.
          lesson: for its masks.
          old: ``(logits, h)`` of the network before the phase; ``None`` if there is none.
        """
        del h, params
        if self._by_cross_entropy:
            logits = incremental.restrict(logits, lesson.seen)
        if old is None or not self.distillation:
            return protocols.LOSSES[self.protocol.loss](logits / self.protocol.label_scale, y)
        hard = protocols.LOSSES["soft_cross_entropy"](logits, y)
        soft = incremental.distillation(logits, old[0], lesson.known, temperature=self.temperature)
        return (1 - self.distillation) * hard + self.distillation * soft

    @property
    def _own_loss(self) -> bool:
        """Whether a training descends on more, or on less, than the protocol's loss."""
        return bool(self.distillation or self.weight_transfer or self._by_cross_entropy)

    @property
    def _by_cross_entropy(self) -> bool:
        """Whether it descends on a cross-entropy, which classes that have not come take no part in."""
        return bool(self.distillation) or self.protocol.loss in ("cross_entropy", "soft_cross_entropy")

    def _train(self, key, start, held, lesson, protocol):
        objective = self._objective(start, held, lesson, protocol) if self._own_loss else None
        return train.fit(key, self.model, _set(lesson), protocol=protocol, start=start, objective=objective)

    def _objective(self, start, held, lesson, protocol):
        before = None if held is None else self.network(held.variables)

        def objective(params, variables, x, y, dropout):
            params = self.learned(params, lesson.known)
            whole = self.network({**variables, "params": params})
            (logits, h), statistics = self.model.apply(
                whole, x, train=True, features=True, rngs={"dropout": dropout},
                mutable=[name for name in whole if name != "params"],
            )  # fmt: skip
            old = None if before is None else self.model.apply(before, x, features=True)
            cost = self.loss(logits, h, whole["params"], y, lesson, old)
            return cost + train.penalty(protocol, params, start["params"]), dict(statistics)

        return objective


def _set(lesson):
    return Distilled(jnp.asarray(lesson.x), lesson.y)
