"""How much a set minds another number of training steps, or another optimizer (arXiv:2006.08572, section 5.3)."""

from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn

from kipjax import checks
from kipjax.evaluation import protocols, train
from kipjax.evaluation.protocols import Protocol
from kipjax.evaluation.result import Result, Task
from kipjax.types import Distilled

__all__ = ["OFFSETS", "OPTIMIZERS", "optimizers", "step_counts"]

OFFSETS = (-50, -20, -10, 0, 10, 20, 50, 100)
"""Steps more or fewer that the paper tries."""

OPTIMIZERS = {"adam": ("adam", 1e-3), "sgd": ("sgd", 1e-2)}
"""Optimizers and their learning rates; SGD has momentum 0.9."""


def step_counts(
    distilled: Distilled,
    task: Task,
    model: nn.Module,
    *,
    protocol: Protocol,
    offsets: Sequence[int] = OFFSETS,
    evaluate: Callable[..., list[Result]] = train.evaluate,
    **options: Any,
) -> dict[int, list[Result]]:
    """Results for each number of steps ``protocol.steps + offset`` that is positive.

    Args:
      distilled, task, model: as in ``train.evaluate``.
      protocol: with a whole number of ``steps``.
      offsets: steps more or fewer.
      evaluate: ``evaluate(distilled, task, model, protocol=..., **options)``, what scores a set by a protocol.
      **options: of ``evaluate``.

    Raises:
      InputError: the protocol does not count steps, or no number of them is positive.
    """
    where = "evaluation.flexibility.step_counts"
    protocol = protocols.named(protocol) if isinstance(protocol, str) else protocol
    checks.whole(where, "protocol.steps", protocol.steps)
    assert isinstance(protocol.steps, int)
    counts = [protocol.steps + offset for offset in offsets if protocol.steps + offset > 0]
    smallest = 1 - protocol.steps
    checks.require(
        len(counts) > 0, where, f"offsets is {list(offsets)} and steps {protocol.steps}; give one of {smallest} or more"
    )
    return {
        count: evaluate(distilled, task, model, protocol=protocol._replace(steps=count), **options) for count in counts
    }


def optimizers(
    distilled: Distilled,
    task: Task,
    model: nn.Module,
    *,
    protocol: Protocol,
    choices: dict[str, tuple[str, float]] | None = None,
    evaluate: Callable[..., list[Result]] = train.evaluate,
    **options: Any,
) -> dict[str, list[Result]]:
    """Results for each optimizer, ``name -> (optimizer, learning rate)``; those of ``OPTIMIZERS`` at first.

    Args:
      distilled, task, model, protocol: as in ``train.evaluate``.
      choices: what to train by.
      evaluate, **options: as in ``step_counts``.
    """
    choices = choices or OPTIMIZERS
    return {
        name: evaluate(
            distilled, task, model,
            protocol=protocol._replace(optimizer=optimizer, learning_rate=rate, momentum=0.9), **options,
        )
        for name, (optimizer, rate) in choices.items()
    }  # fmt: skip
