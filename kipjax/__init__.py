"""kipjax: dataset distillation in JAX, all methods of the field behind one small contract.

Importing it is cheap: ``kipjax.core``, ``kernels``, ``data``, ``io``, ``methods``, ``models`` and ``evaluation`` load
when they are first used. ``kipjax.load(path)`` and ``kipjax.save(path, artifact)`` read and write distilled sets.
"""

import importlib
from typing import TYPE_CHECKING, Any

from kipjax.kernels import _neural_tangents
from kipjax.types import Batch, Distilled, Method

if TYPE_CHECKING:
    from kipjax import core, data, evaluation, io, kernels, methods, models
    from kipjax.io.artifact import load, save

__all__ = [
    "Batch",
    "Distilled",
    "Method",
    "core",
    "data",
    "evaluation",
    "io",
    "kernels",
    "load",
    "methods",
    "models",
    "save",
]

_SUBMODULES = ("core", "data", "evaluation", "io", "kernels", "methods", "models")

__version__ = "0.1.0"

_neural_tangents.install()  # from here on `import neural_tangents` works on today's JAX too


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"kipjax.{name}")
    if name in ("load", "save"):
        return getattr(importlib.import_module("kipjax.io.artifact"), name)
    raise AttributeError(f"module 'kipjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
