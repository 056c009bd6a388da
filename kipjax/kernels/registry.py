"""Kernels by name, as configs and artifacts write them: ``{"name": "fc1", "get": "ntk", "b_std": 0.1}``."""

import inspect
import re
from functools import partial
from typing import Any

from kipjax.checks import InputError, require
from kipjax.kernels import basic, feature_maps, infinite
from kipjax.types import KernelFn

__all__ = ["get", "names"]

_PLAIN = {"linear": basic.linear, "rbf": basic.rbf}
_WITH_DEPTH = {
    "fc": infinite.fc,
    "conv": infinite.conv,
    "convpool": partial(infinite.conv, pool=True),
    "convnet": infinite.convnet,
    "myrtle": infinite.myrtle,
}
_MAPS = {
    "leaky_net": feature_maps.leaky_net,
    "linear_net": feature_maps.linear_net,
    "convolution": feature_maps.convolution,
    "fourier": feature_maps.fourier,
}

_NAME = re.compile(r"(.*?)(\d+)?", re.DOTALL)


def names() -> list[str]:
    """The names that ``get`` knows, ``<depth>`` standing for a number from 1 up."""
    by_depth = [f"{name}<depth>" for name in _WITH_DEPTH if name != "myrtle"]
    return [*_PLAIN, *by_depth, "myrtle5", "myrtle7", "myrtle10", *_MAPS]


def get(name: str, **options: Any) -> KernelFn:
    """The kernel called ``name``.

    Args:
      name: one of ``names()``, for example ``"rbf"``, ``"fc1"``, ``"conv3"``, ``"convpool2"`` (pooling after every
        convolution), ``"convnet3"``, ``"myrtle10"``, ``"leaky_net"`` (a feature map, as ``linear`` is one).
      **options: the keyword arguments of the factory: ``gamma`` for rbf; ``w_std``, ``b_std``, ``get``, ... of infinite
        networks; ``seed``, ... of feature maps.

    Raises:
      InputError: the name or an option is unknown, or an option has a value that the factory refuses.

    >>> import jax.numpy as jnp
    >>> get("rbf", gamma=0.5)(jnp.ones((2, 3)), jnp.ones((4, 3))).shape
    (2, 4)
    """
    factory = _factory(name)
    known = [option for option in inspect.signature(factory).parameters if option not in factory.keywords]
    unknown = ", ".join(repr(option) for option in options if option not in known)
    require(not unknown, "kernels.get", f"{name} has no option {unknown}; its options are {', '.join(known) or 'none'}")
    return factory(**options)


def _factory(name: str) -> partial:
    """The factory with its depth, where the name has one, filled in."""
    match = _NAME.fullmatch(str(name))
    word, depth = match.groups() if match else (name, None)
    if word in _MAPS and depth is None:
        return partial(_MAPS[word])
    if depth is None and word in _PLAIN:
        return partial(_PLAIN[word])
    if depth is not None and word in _WITH_DEPTH:
        return partial(_WITH_DEPTH[word], int(depth))
    raise InputError(f"kernels.get: name is {name!r}; choose one of {', '.join(names())}")
