"""Networks: flax modules whose call returns ``logits [n, k]``, or ``(logits, features [n, p])`` if asked.

``models.get("convnet", num_classes=10)`` builds one by name, ``models.depth_for(side)`` says how deep a ConvNet should
be for images of a size. Every network ends in a layer called ``head`` on its features, dense unless asked otherwise,
and keeps the running statistics of batch norm in the collection ``batch_stats``. Modules load on first use, so
importing this package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kipjax.models import (
        activations,
        classic,
        classifier,
        convnet,
        initializers,
        layers,
        network,
        norms,
        registry,
        resnet,
        teaching,
        text,
    )
    from kipjax.models.convnet import depth_for
    from kipjax.models.registry import get, names, parse

__all__ = [
    "activations",
    "classic",
    "classifier",
    "convnet",
    "depth_for",
    "get",
    "initializers",
    "layers",
    "names",
    "network",
    "norms",
    "parse",
    "registry",
    "resnet",
    "teaching",
    "text",
]

_HOME = {"get": "registry", "names": "registry", "parse": "registry", "depth_for": "convnet"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"kipjax.models.{_HOME[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"kipjax.models.{name}")
    raise AttributeError(f"module 'kipjax.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
