"""Kernels: every one is ``kernel_fn(x1 [n1, ...], x2 [n2, ...]) -> [n1, n2]``, pure and differentiable.

``kernels.get("fc1", get="ntk")`` builds one by name; the modules build them by function (``kernels.infinite.fc(1)``).
Modules load on first use, so importing this package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kipjax.kernels import basic, batching, conv, family, feature_maps, infinite, registry
    from kipjax.kernels.registry import get, names

__all__ = ["basic", "batching", "conv", "family", "feature_maps", "get", "infinite", "names", "registry"]

_SUBMODULES = ("basic", "batching", "conv", "family", "feature_maps", "infinite", "registry")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"kipjax.kernels.{name}")
    if name in ("get", "names"):
        return getattr(importlib.import_module("kipjax.kernels.registry"), name)
    raise AttributeError(f"module 'kipjax.kernels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
