"""What there is to choose from, by name: for ``--list`` and ``--help``."""

import pathlib

from kipjax import data, evaluation, kernels, methods, models

__all__ = ["configs", "flag_files", "lines", "names"]

_ROOT = pathlib.Path(__file__).parent.parent


def names() -> dict[str, list[str]]:
    """By kind: every method, kernel, architecture, dataset, protocol, config and flag file."""
    return {
        "method": sorted(methods.METHODS),
        "kernel": list(kernels.names()),
        "architecture": list(models.names()),
        "dataset": [*data.KNOWN, "text:sentiment", "text:domain", "tfds:<name>", "<path>"],
        "protocol": sorted([*evaluation.PROTOCOLS, "flexibility"]),
        "config": configs(),
        "flagfile": flag_files(),
    }


def lines() -> list[str]:
    """``KIND, tab, NAME`` of every one of them."""
    return [f"{kind}\t{name}" for kind, some in names().items() for name in some]


def configs() -> list[str]:
    """The config files, as ``--config`` takes them."""
    found = (path for path in (_ROOT / "configs").glob("*/*.py") if path.name != "__init__.py")
    return sorted(str(path.relative_to(_ROOT)) for path in found)


def flag_files() -> list[str]:
    """Files for ``--flagfile``; the folder is named after the script that takes them."""
    return sorted(str(path.relative_to(_ROOT)) for path in (_ROOT / "configs").glob("*/*.flags"))
