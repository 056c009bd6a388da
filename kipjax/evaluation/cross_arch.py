"""Cross-architecture generalisation: one distilled set, networks of many kinds trained on it by one protocol.

arXiv:2006.05929, section 4.1; arXiv:2302.06755, section 4.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn

from kipjax import checks
from kipjax.evaluation import train
from kipjax.evaluation.protocols import Protocol
from kipjax.evaluation.result import Result, Task
from kipjax.evaluation.transfer import table
from kipjax.models import convnet, get, names
from kipjax.types import Distilled

__all__ = ["ARCHITECTURES", "MATCHING", "evaluate", "table"]

ARCHITECTURES = ("convnet", "resnet18", "resnet18:batch", "vgg11:batch", "alexnet")
"""What FRePo and RCIG test, as ``models.get`` writes it (arXiv:2302.06755, table of cross-architecture results)."""

MATCHING = ("mlp", "dc_convnet", "lenet", "alexnet", "vgg11", "resnet18")
"""What DC, DSA and DM test, with instance norm (arXiv:2006.05929, table 2)."""


def evaluate(
    distilled: Distilled,
    task: Task,
    models: Mapping[str, Any] | Sequence[str],
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
      models: names for ``models.get``, such as ``ARCHITECTURES``; or by the name to be shown flax modules, such names,
        or ``{"name": "convnet", "width": 32}``.
      protocol: the name of one in ``protocols.NAMED``, or any ``protocols.Protocol``.
      key: draws the random subsets, the same for every model, and the networks.
      seeds: networks of each kind, and random subsets.
      **options: of ``train.evaluate``.

    Returns:
      The results of ``train.evaluate``, model after model; ``table`` makes a matrix of them.

    Raises:
      InputError: there are no models, one of them does not exist, or as in ``train.evaluate``.
    """
    networks = _networks("evaluation.cross_arch.evaluate", models, task)
    return [
        result
        for name, model in networks.items()
        for result in train.evaluate(
            distilled, task, model, name=name, protocol=protocol, key=key, seeds=seeds, **options
        )
    ]


def _networks(where: str, models: Any, task: Task) -> dict[str, nn.Module]:
    """Flax modules by name."""
    if not isinstance(models, Mapping):
        models = {name: name for name in ([models] if isinstance(models, str) else models)}
    checks.require(bool(models), where, "models is empty; name at least one")
    return {str(name): _network(where, name, model, task) for name, model in models.items()}


def _network(where, name, model, task):
    if isinstance(model, nn.Module):
        return model
    options: dict[str, Any] = (
        {"name": model} if isinstance(model, str) else dict(model) if isinstance(model, Mapping) else {}
    )
    checks.require(
        isinstance(options.get("name"), str),
        where,
        f"model {name!r} is {model!r}; give a flax module, or one of these names: {', '.join(names())}",
    )
    word = options.pop("name")
    if not options or isinstance(train.build(word, task), convnet.ConvNet):
        return train.build(word, task, **options)
    return get(word, num_classes=task.num_classes, **options)  # train.build has options for ConvNets alone
