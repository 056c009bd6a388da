"""Lets neural_tangents 0.6.5 be imported on today's JAX, without TensorFlow.

neural_tangents is archived: while its modules execute they import a few names that newer JAX moved or removed, and one
experimental module of theirs pulls TensorFlow in. None of these names is used after the import. So ``install`` only
puts a finder on ``sys.meta_path``; when somebody, here or in the user's own code, imports neural_tangents, the missing
names exist for exactly as long as that import runs, and ``neural_tangents.experimental`` is an empty module. Names that
this JAX still has are never touched, and afterwards jax is as it was.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import operator
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = ["diagonal_products", "install", "stax"]

_PACKAGE = "neural_tangents"
_CORE_NAMES = ("ClosedJaxpr", "Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
_LOCK = threading.RLock()


def install() -> None:
    """Puts the finder first on ``sys.meta_path``, once per process, whatever is reloaded."""
    with _LOCK:
        if not any(type(finder).__name__ == _NeuralTangentsFinder.__name__ for finder in sys.meta_path):
            sys.meta_path.insert(0, _NeuralTangentsFinder())


def stax() -> types.ModuleType:
    """``neural_tangents.stax``, or an ``ImportError`` that says what to install."""
    install()
    try:
        import neural_tangents.stax
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in (_PACKAGE, "frozendict"):
            raise
        raise ImportError(
            f"kipjax.kernels.infinite: the package {missing!r} is not installed, and the infinite-width kernels "
            "come from neural_tangents; run `pip install --no-deps neural-tangents frozendict`",
            name=missing,
        ) from error
    return neural_tangents.stax


def diagonal_products(k: Any) -> tuple[Any, Any, Any]:
    """Products of the two variances behind every entry of ``cov1``, ``nngp`` and ``cov2`` of a ``Kernel``."""
    from neural_tangents._src.stax import requirements

    outer = requirements.get_diagonal_outer_prods
    return outer(k.cov1, k.cov2, k.diagonal_batch, k.diagonal_spatial, operator.mul)


class _NeuralTangentsFinder(importlib.abc.MetaPathFinder):
    """Finds neural_tangents where Python would, and wraps its loader."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname == f"{_PACKAGE}.experimental":
            return importlib.machinery.ModuleSpec(fullname, _EmptyLoader())
        if fullname != _PACKAGE:
            return None
        spec = self._find_next(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _AliasLoader(spec.loader)  # pyright: ignore[reportAttributeAccessIssue]
        return spec

    def _find_next(self, *args: Any) -> importlib.machinery.ModuleSpec | None:
        """Asks the other finders in their order, so that zipped or editable installs are found as well."""
        for finder in [f for f in sys.meta_path if f is not self and hasattr(f, "find_spec")]:
            if (spec := finder.find_spec(*args)) is not None:
                return spec
        return None


class _AliasLoader(importlib.abc.Loader):
    """Executes a module while the names it misses in jax exist, then hands it back to its own loader."""

    def __init__(self, loader: Any):
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with _LOCK, warnings.catch_warnings(), _aliases():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._loader.exec_module(module)


class _EmptyLoader(importlib.abc.Loader):
    """A module with nothing in it: the real one needs TensorFlow."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        module.__doc__ = "Left empty by kipjax: neural_tangents.experimental imports TensorFlow."


@contextlib.contextmanager
def _aliases() -> Iterator[None]:
    """Sets the names that neural_tangents imports and this JAX lacks, and removes just these again."""
    import jax.core
    import jax.extend.core
    import jax.interpreters.ad

    wanted: list[tuple[types.ModuleType, str, Any]]
    wanted = [(jax.core, name, getattr(jax.extend.core, name, None)) for name in _CORE_NAMES]
    wanted += [(jax.interpreters.ad, "zeros_like_p", object())]  # used as a key of a table of rules, nothing else
    missing = [(module, name, value) for module, name, value in wanted if not hasattr(module, name)]
    add_util = "jax.util" not in sys.modules and importlib.util.find_spec("jax.util") is None
    try:
        for module, name, value in missing:
            setattr(module, name, value)
        if add_util:
            sys.modules["jax.util"] = _jax_util()
        yield
    finally:
        for module, name, _ in missing:
            delattr(module, name)
        if add_util:
            del sys.modules["jax.util"]


def _jax_util() -> types.ModuleType:
    """Stands in for the removed ``jax.util``: ``map`` and ``zip`` that refuse unequal lengths and return lists."""
    module = types.ModuleType("jax.util")
    module.safe_zip = lambda *args: list(zip(*args, strict=True))  # pyright: ignore[reportAttributeAccessIssue]
    module.safe_map = lambda f, *args: [f(*a) for a in zip(*args, strict=True)]  # pyright: ignore[reportAttributeAccessIssue]
    return module
