"""LUCIR: a learner that goes on to new classes with a classifier that treats old and new ones alike.

Hou, Pan, Loy, Wang, Lin, "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019, which Mnemonics
(arXiv:2002.10211) builds on. The last layer has no norms (``classifier="cosine"``), and a phase after the first
descends on

    ``CE(sigma cos) + lambda (1 - cos(f, f_before)) + L_mr``

over the classes seen so far: features keep the direction that they had, ``lambda`` growing with the share of old
classes, and old exemplars keep a margin to the hardest new classes. The formulas are in ``core.incremental``.
"""

import dataclasses

import jax
import jax.numpy as jnp

from kipjax import checks
from kipjax.core import incremental, labels, losses
from kipjax.evaluation import train
from kipjax.evaluation.continual.learners import Learner, Lesson
from kipjax.evaluation.protocols import Protocol
from kipjax.models import network
from kipjax.types import PyTree

__all__ = ["LUCIR_PROTOCOL", "Lucir"]

LUCIR_PROTOCOL = Protocol(
    "lucir",
    model="resnet32",
    epochs=160,
    milestones=(80, 120),
    batch_size=128,
    optimizer="sgd",
    momentum=0.9,
    learning_rate=0.1,
    loss="cross_entropy",
    weight_decay=5e-4,
    augment=("none", "crop_flip"),
    augment_style="each",
)
"""LUCIR's and Mnemonics' training on CIFAR-100. Their crop pads pixels by zero before they are standardised, this one
after."""


@dataclasses.dataclass(frozen=True)
class Lucir(Learner):
    """A ``Learner`` by LUCIR's losses; ``distillation`` is not used.

    Attributes:
      base_weight: ``lambda_base``, 5 on CIFAR-100, 10 on ImageNet.
      margin, top: ``m`` and ``K`` of the margin ranking.
      margin_weight: its weight; 0 leaves it out.
      imprints: whether weights of new classes start from their features.
      freezes: whether weights of old classes stay as they are from their phase on.
    """

    base_weight: float = 5.0
    margin: float = 0.5
    top: int = 2
    margin_weight: float = 1.0
    imprints: bool = True
    freezes: bool = True

    def __post_init__(self):
        super().__post_init__()
        where = "continual.Lucir"
        checks.require(
            getattr(self.model, "classifier", "") == "cosine",
            where,
            f"{type(self.model).__name__} has a linear classifier; build it with classifier='cosine'",
        )
        checks.require(self.goes_on and self.sees_all, where, "LUCIR goes on, and sees all images; leave both true")
        checks.require(not self.distillation, where, "LUCIR holds features, not outputs; set distillation to 0")
        for name in ("base_weight", "margin", "margin_weight"):
            checks.at_least(where, name, getattr(self, name), 0.0)
        checks.whole(where, "top", self.top)

    def prepare(self, before: PyTree, lesson: Lesson) -> PyTree:
        """As ``Learner.prepare``, with imprinted weights of the new classes."""
        variables = super().prepare(before, lesson)
        if not self.imprints:
            return variables
        taken = self.network(before)
        h = train.in_blocks(lambda x: network.forward(self.model, taken, x)[1], lesson.x, self.block_size)
        head = variables["params"]["head"]
        kernel = incremental.imprint(head["kernel"], h, labels.classes(lesson.y), lesson.known, lesson.seen)
        return {**variables, "params": {**variables["params"], "head": {**head, "kernel": kernel}}}

    def learned(self, params: PyTree, known: jax.Array) -> PyTree:
        """As ``Learner.learned``, without the weights of old classes."""
        params = super().learned(params, known)
        if not self.freezes:
            return params
        kernel = params["head"]["kernel"]
        kernel = jnp.where(known > 0, jax.lax.stop_gradient(kernel), kernel)
        return {**params, "head": {**params["head"], "kernel": kernel}}

    def loss(self, logits: jax.Array, h: jax.Array, params: PyTree, y: jax.Array, lesson: Lesson, old: tuple | None):
        """As ``Learner.loss``, by LUCIR's formula."""
        classes = labels.classes(y)
        cost = losses.cross_entropy(incremental.restrict(logits, lesson.seen), classes)
        if old is None:
            return cost
        weight = incremental.less_forget_weight(lesson.known, lesson.seen, self.base_weight)
        cost = cost + weight * incremental.less_forget(h, old[1])
        if not self.margin_weight:
            return cost
        scores = incremental.cosine(h, params["head"]["kernel"])
        options = {"margin": self.margin, "top": self.top}
        ranking = incremental.margin_ranking(scores, classes, lesson.known, lesson.seen, **options)
        return cost + self.margin_weight * ranking

    @property
    def _own_loss(self) -> bool:
        return True
