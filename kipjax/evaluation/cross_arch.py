"""Cross-architecture generalisation: one distilled set, networks of many kinds trained on it by one protocol.

arXiv:2006.05929, section 4.1; arXiv:2302.06755, section 4.2.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

from kipjax import checks
from kipjax.evaluation import train
from kipjax.evaluation.protocols import Protocol
from kipjax.evaluation.result import Result, Task
from kipjax.evaluation.transfer import table
from kipjax.types import Distilled

__all__ = ["ARCHITECTURES", "evaluate", "table"]

ARCHITECTURES = ("convnet", "resnet18", "resnet18:batch", "vgg11:batch", "alexnet")
"""What FRePo and RCIG test, as ``models.get`` writes it (arXiv:2302.06755, table of cross-architecture results)."""


def evaluate(
    distilled: Distilled,
    task: Task,
    models: Mapping[str, nn.Module],
    *,
    protocol: Protocol | str = "rcig",
    key: jax.Array | None = None,
    seeds: int = 5,
    **options: Any,
) -> list[Result]:
    """One distilled set and random subsets of its size, each model trained on them by the same protocol.

    Args:
      distilled: the set.
      task: the data set in the same space.
      models: flax modules by name.
      protocol: the name of one in ``protocols.NAMED``, or any ``protocols.Protocol``.
      key: draws the random subsets, the same for every model, and the networks.
      seeds: networks of each kind, and random subsets.
      **options: of ``train.evaluate``.

    Returns:
      The results of ``train.evaluate``, model after model; ``table`` makes a matrix of them.

    Raises:
      InputError: there are no models, or as in ``train.evaluate``.
    """
    checks.require(bool(models), "evaluation.cross_arch.evaluate", "models is empty; name at least one")
    return [
        result
        for name, model in models.items()
        for result in train.evaluate(
            distilled, task, model, name=name, protocol=protocol, key=key, seeds=seeds, **options
        )
    ]
