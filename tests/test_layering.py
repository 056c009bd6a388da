"""Imports go one way: types, checks -> core -> kernels | models | data | io -> methods -> evaluation -> experiments."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LEVEL = {
    "types": 0,
    "checks": 0,
    "core": 1,
    "kernels": 2,
    "models": 2,
    "data": 2,
    "io": 2,
    "methods": 3,
    "evaluation": 4,
}
OUTSIDE = 5
KNOWS = {
    "tensorflow_datasets": {"kipjax/data/tfds.py"},
    "tensorflow": {"kipjax/data/tfds.py"},
    "neural_tangents": {"kipjax/kernels/_neural_tangents.py", "kipjax/kernels/infinite.py"},
    "orbax": {"kipjax/io/checkpoint.py"},
}
FILES = sorted(path for folder in ("kipjax", "experiments", "configs") for path in (ROOT / folder).rglob("*.py"))


def imports(path):
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "kipjax":
                yield from (f"kipjax.{alias.name}" for alias in node.names)


def place(name):
    """(level, room) of a dotted module name, or None for what is not of this project."""
    parts = name.split(".")
    if parts[0] in ("experiments", "configs"):
        return OUTSIDE, parts[0]
    return (LEVEL[parts[1]], parts[1]) if parts[0] == "kipjax" and len(parts) > 1 and parts[1] in LEVEL else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    relative = path.relative_to(ROOT)
    own = place(".".join(relative.with_suffix("").parts))
    for name in imports(path):
        target = place(name)
        if own and target and str(relative) != "kipjax/__init__.py":
            level, room = target
            assert level < own[0] or room == own[1] or own[0] == OUTSIDE, f"{relative} imports {name}"
        for outsider, allowed in KNOWS.items():
            if name.split(".")[0] == outsider:
                assert str(relative) in allowed, f"{relative} imports {name}"


def test_only_sharding_names_meshes():
    for path in FILES:
        if path.name != "sharding.py":
            text = path.read_text()
            assert "jax.sharding" not in text and "shard_map(" not in text, path
