"""Continual learning with a memory: classes, or data sets, come in phases, and little of each may be kept.

Class-incremental learning as DM (arXiv:2110.04181, section 4.3) and Mnemonics (arXiv:2002.10211) measure it, and
sequences of data sets with the same classes as DC (arXiv:2006.05929, section 4.4) and DSA do.

``phases`` makes the sequence, ``memories`` has what may be kept of a phase (random images, a coreset, anything
distilled, exemplars of the network's own), ``learners`` and ``lucir`` how a network uses it, ``run`` learns, tests and
measures.
"""

from kipjax.evaluation.continual.learners import LEARNERS, Learner, Lesson
from kipjax.evaluation.continual.lucir import LUCIR_PROTOCOL, Lucir
from kipjax.evaluation.continual.memories import (
    Builder,
    Networks,
    Taught,
    given,
    herding,
    memory_per_class,
    mnemonics,
    of_method,
    place,
    random,
)
from kipjax.evaluation.continual.phases import Phase, class_order, domains, split
from kipjax.evaluation.continual.run import Run, evaluate, require_fits

__all__ = [
    "LEARNERS",
    "LUCIR_PROTOCOL",
    "Builder",
    "Learner",
    "Lesson",
    "Lucir",
    "Networks",
    "Phase",
    "Run",
    "Taught",
    "class_order",
    "domains",
    "evaluate",
    "given",
    "herding",
    "memory_per_class",
    "mnemonics",
    "of_method",
    "place",
    "random",
    "require_fits",
    "split",
]
