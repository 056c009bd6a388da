"""Every public name says what it is, of what shape its arrays are, and from which paper it comes."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re

import jax
import pytest

import kipjax
from kipjax import methods

REFERENCE = re.compile(r"arXiv:\d{4}\.\d{4,5}|[A-Z]\w+[^.]*\b(19|20)\d\d\b")
SHAPE = re.compile(r"``[^`]*\[[^\]`]*\][^`]*``|\b(any|whose|the|that|same|one) shape\b|\bscalar\b")
# What has no formula of a paper in it: guards, files, devices, names, plots.
MACHINERY = re.compile(
    r"kipjax\.(checks|types|io\..*|core\.(loop|precision|processes|sharding)|kernels\.(batching|registry)|"
    r"data\.(files|folders|raw|samplers|sources|streaming|tfds)|evaluation\.result|methods\.inputs|"
    r"models\.(layers|network|registry))"
)


SCRIPTS = sorted((pathlib.Path(__file__).parents[1] / "experiments").rglob("*.py"))
ALL = ["kipjax", *(module.name for module in pkgutil.walk_packages(kipjax.__path__, "kipjax."))]
OURS = [name for name in ALL if not any(part.startswith("_") for part in name.split("."))]


def defined(name):
    """``(name, object)`` of public functions and classes that a module, or a private one beside it, defines."""
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        found = inspect.unwrap(getattr(module, public))
        home = getattr(found, "__module__", None) or ""
        private = home.startswith(f"{name.rpartition('.')[0]}._")
        if (inspect.isroutine(found) or inspect.isclass(found)) and (home == name or private):
            yield public, found


def is_array(annotation):
    """Whether an annotation is of an array that has a shape to tell: no number that may be traced, no function."""
    text = str(annotation)
    return bool(re.search(r"\bArray\b|ndarray", text)) and not re.search(r"Callable|\b(int|float)\b", text)


def takes_arrays(found):
    """Whether an argument, a field or the result is an array."""
    if inspect.isclass(found):
        hints = dict(getattr(found, "__annotations__", {}))
    else:
        signature = inspect.signature(found)
        hints = {name: p.annotation for name, p in signature.parameters.items()}
        hints["return"] = signature.return_annotation
    return any(is_array(kind) for name, kind in hints.items() if name not in ("key", "keys"))


@pytest.mark.parametrize("name", OURS)
def test_it_says_what_it_is(name):
    module = importlib.import_module(name)
    assert module.__doc__ and module.__all__, name
    for public in module.__all__:
        assert not public.startswith("_") and getattr(module, public) is not None, public
    for public, found in defined(name):
        assert found.__doc__ and not found.__doc__.startswith(f"{public}("), f"{name}.{public}"
        for member, function in list(vars(found).items()) if inspect.isclass(found) else ():
            if inspect.isfunction(function) and not member.startswith("_") and member not in found.__annotations__:
                assert function.__doc__, f"{name}.{public}.{member}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_what_scripts_share_says_what_it_is(path):
    """Read, not imported: scripts define flags, each for itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), path
    names = [name for n in tree.body if ast.unparse(n).startswith("__all__") for name in ast.literal_eval(n.value)]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in names:
            assert ast.get_docstring(node), f"{path.stem}.{node.name}"


@pytest.mark.parametrize("name", OURS)
def test_its_arrays_have_shapes(name):
    missing = [public for public, found in defined(name) if takes_arrays(found) and not SHAPE.search(found.__doc__)]
    assert not missing, f"{name}: no shape in brackets in the docstring of {', '.join(missing)}"


@pytest.mark.parametrize("name", [name for name in OURS if not MACHINERY.fullmatch(name)])
def test_it_names_its_paper(name):
    head = importlib.import_module(name).__doc__
    missing = [public for public, found in defined(name) if not REFERENCE.search(head + found.__doc__)]
    assert not missing, f"{name}: no paper in the docstring of the module, nor of {', '.join(missing)}"


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_method_starts_with_its_paper(name):
    assert re.search(r"arXiv:\d{4}\.\d{5}|NeurIPS 2024", getattr(methods, name).__doc__[:900])


def test_these_tests_can_fail():
    def formula(x: jax.Array) -> float:
        """Twice its mean."""

    assert takes_arrays(formula) and not SHAPE.search(formula.__doc__) and not REFERENCE.search(formula.__doc__)
    assert SHAPE.search("Of ``x [n, k]``.") and REFERENCE.search("(Cho and Saul, NIPS 2009)")
    assert sum(len(list(defined(name))) for name in OURS) > 400
