"""Distillation methods: one file each, all of the same shape, and the table of them by name."""

from collections.abc import Callable

from kipjax.methods import (
    cig,
    coreset,
    dc,
    dd,
    dm,
    dsa,
    frepo,
    gtn,
    kip,
    krr_exact,
    label_solve,
    ld,
    mtt,
    network_coreset,
    rcig,
    rfad,
    sldd,
    tdd,
    vig,
)
from kipjax.types import Method

__all__ = [
    "METHODS",
    "cig",
    "coreset",
    "dc",
    "dd",
    "dm",
    "dsa",
    "frepo",
    "gtn",
    "kip",
    "krr_exact",
    "label_solve",
    "ld",
    "mtt",
    "network_coreset",
    "rcig",
    "rfad",
    "sldd",
    "tdd",
    "vig",
]

METHODS: dict[str, Callable[..., Method]] = {
    "cig": cig.make,
    "coreset": coreset.make,
    "dc": dc.make,
    "dd": dd.make,
    "dm": dm.make,
    "dsa": dsa.make,
    "frepo": frepo.make,
    "gtn": gtn.make,
    "kip": kip.make,
    "krr_exact": krr_exact.make,
    "label_solve": label_solve.make,
    "ld": ld.make,
    "mtt": mtt.make,
    "network_coreset": network_coreset.make,
    "rcig": rcig.make,
    "rfad": rfad.make,
    "sldd": sldd.make,
    "tdd": tdd.make,
    "vig": vig.make,
}
"""``METHODS[name](kernel_fn or model, **hyperparameters) -> Method``."""
