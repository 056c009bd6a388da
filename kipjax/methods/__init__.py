"""Distillation methods: one file each, all of the same shape, and the table of them by name.

A method is made from a kernel or a network, starts from a set, and takes steps on batches of real data. KIP, three
steps on 500 of the embedded digits each:

>>> import jax
>>> from kipjax import data, kernels
>>> digits = data.load("digits")
>>> x, labels = digits.x_train / 16.0, digits.y_train
>>> start = data.initial.real(jax.random.key(0), x, labels, ipc=1, num_classes=10)
>>> y = jax.nn.one_hot(labels, 10) - 0.1
>>> sample = data.samplers.uniform(x, y, batch_size=500)
>>> method = METHODS["kip"](kernels.get("rbf"), learning_rate=0.01)
>>> state, step = method.init(jax.random.key(1), start), jax.jit(method.step)
>>> for key in jax.random.split(jax.random.key(2), 3):
...     state, info = step(key, state, sample(key))
>>> method.distilled(state).x.shape
(10, 8, 8, 1)
"""

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
    mnemonics,
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
    "mnemonics",
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
    "mnemonics": mnemonics.make,
    "mtt": mtt.make,
    "network_coreset": network_coreset.make,
    "rcig": rcig.make,
    "rfad": rfad.make,
    "sldd": sldd.make,
    "tdd": tdd.make,
    "vig": vig.make,
}
"""``METHODS[name](kernel_fn or model, **hyperparameters) -> Method``."""
