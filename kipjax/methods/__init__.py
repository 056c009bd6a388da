"""Distillation methods: one file each, all of the same shape, and the table of them by name."""

from collections.abc import Callable

from kipjax.methods import cig, dd, frepo, gtn, kip, label_solve, ld, rcig, rfad, sldd, tdd, vig
from kipjax.types import Method

__all__ = ["METHODS", "cig", "dd", "frepo", "gtn", "kip", "label_solve", "ld", "rcig", "rfad", "sldd", "tdd", "vig"]

METHODS: dict[str, Callable[..., Method]] = {
    "cig": cig.make,
    "dd": dd.make,
    "frepo": frepo.make,
    "gtn": gtn.make,
    "kip": kip.make,
    "label_solve": label_solve.make,
    "ld": ld.make,
    "rcig": rcig.make,
    "rfad": rfad.make,
    "sldd": sldd.make,
    "tdd": tdd.make,
    "vig": vig.make,
}
"""``METHODS[name](kernel_fn or model, **hyperparameters) -> Method``."""
