"""What a distilled set is worth. Every evaluation reads only a distilled set and the data it was made from."""

import functools
from collections.abc import Callable

from kipjax.evaluation import (
    continual,
    cross_arch,
    flexibility,
    krr,
    label_training,
    metrics,
    mia,
    nas,
    neighbours,
    protocols,
    robustness,
    train,
    transfer,
    unrolled,
)
from kipjax.evaluation.result import Approximation, Result, Task

__all__ = [
    "PROTOCOLS",
    "Approximation",
    "Result",
    "Task",
    "continual",
    "cross_arch",
    "flexibility",
    "krr",
    "label_training",
    "metrics",
    "mia",
    "nas",
    "neighbours",
    "protocols",
    "robustness",
    "train",
    "transfer",
    "unrolled",
]

PROTOCOLS: dict[str, Callable[..., list[Result]]] = {
    "krr": krr.evaluate,
    "worth": krr.curve,
    "kernel_transfer": transfer.evaluate,
    "cross_arch": cross_arch.evaluate,
    "unrolled": unrolled.evaluate,
    "neighbours": neighbours.evaluate,
    **{name: functools.partial(train.evaluate, protocol=name) for name in protocols.NAMED},
}
"""``PROTOCOLS[name](distilled, task, kernel or kernels or model or models, *, key, seeds, ...) -> [Result, ...]``."""
