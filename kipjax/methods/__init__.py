"""Distillation methods: one file each, all of the same shape, and the table of them by name."""

from collections.abc import Callable

from kipjax.methods import cig, dc, dm, dsa, frepo, kip, label_solve, mtt, rcig, rfad, vig
from kipjax.types import Method

__all__ = ["METHODS", "cig", "dc", "dm", "dsa", "frepo", "kip", "label_solve", "mtt", "rcig", "rfad", "vig"]

METHODS: dict[str, Callable[..., Method]] = {
    "cig": cig.make,
    "dc": dc.make,
    "dm": dm.make,
    "dsa": dsa.make,
    "frepo": frepo.make,
    "kip": kip.make,
    "label_solve": label_solve.make,
    "mtt": mtt.make,
    "rcig": rcig.make,
    "rfad": rfad.make,
    "vig": vig.make,
}
"""``METHODS[name](kernel_fn or model, **hyperparameters) -> Method``."""
