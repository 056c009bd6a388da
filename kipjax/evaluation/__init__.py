"""What a distilled set is worth. Every evaluation reads only a distilled set and the data it was made from."""

from collections.abc import Callable

from kipjax.evaluation import krr, metrics, transfer
from kipjax.evaluation.protocol import Approximation, Result, Task

__all__ = ["PROTOCOLS", "Approximation", "Result", "Task", "krr", "metrics", "transfer"]

PROTOCOLS: dict[str, Callable[..., list[Result]]] = {
    "krr": krr.evaluate,
    "kernel_transfer": transfer.evaluate,
}
"""``PROTOCOLS[name](distilled, task, kernel or kernels, *, key, seeds, ...) -> [Result, ...]``."""
