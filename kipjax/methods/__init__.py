"""Distillation methods: one file each, all of the same shape, and the table of them by name."""

from collections.abc import Callable

from kipjax.methods import kip, label_solve
from kipjax.types import Method

__all__ = ["METHODS", "kip", "label_solve"]

METHODS: dict[str, Callable[..., Method]] = {
    "kip": kip.make,
    "label_solve": label_solve.make,
}
"""``METHODS[name](kernel_fn or model, **hyperparameters) -> Method``."""
